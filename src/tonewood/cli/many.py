"""Commands on whole archives: work is spread, followed and told."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tonewood.cli import report
from tonewood.cli.options import exit_if_failed
from tonewood.errors import printable

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.files.modelfile import Model
    from tonewood.files.places import Location
    from tonewood.workflow.layout import FileFailure
    from tonewood.workflow.units import Task


class BatchOptions(NamedTuple):
    """How many recordings are to be worked on."""

    workers: int | None
    scheduler: str | None
    retries: int
    parquet: str | None

    @property
    def is_requested(self) -> bool:
        """Whether anything but one file after the other, told on the terminal, is."""
        return any(it is not None for it in (self.workers, self.scheduler, self.parquet))

    def table_location(self, folder: "Location | None") -> "Location | None":
        """Where the table goes: as asked for, else by workers into the folder of the outputs."""
        from tonewood.files import places
        from tonewood.workflow.archive import RESULTS_TABLE_NAME

        if self.parquet is not None:
            return places.parse_location(self.parquet)
        spread = self.workers is not None or self.scheduler is not None
        return places.join_location(folder, RESULTS_TABLE_NAME) if spread and folder is not None else None

    def can_resume(self, folder: "Location | None") -> bool:
        """Whether an earlier run left its table, or a part of it."""
        from tonewood.files.results import PARTIAL_SUFFIX

        table = self.table_location(folder)
        if not isinstance(table, Path):
            return False
        return table.exists() or table.with_name(table.name + PARTIAL_SUFFIX).exists()


def run_and_report(
    items: Sequence[Any],
    task: "Task",
    model: "Model",
    options: BatchOptions,
    on_result: Callable[[Any], None],
    *,
    folder: "Location | None" = None,
    overwrite: bool = False,
    as_json: bool = False,
) -> "list[FileFailure]":
    """Do units and tell of each; those that failed."""
    from tonewood.terminal import BatchDisplay
    from tonewood.workflow import archive
    from tonewood.workflow.layout import FileFailure

    failed: list[FileFailure] = []
    with archive.start_workers(options.workers, options.scheduler) or nullcontext() as crew:
        if crew is not None and crew.dashboard_link:
            report.print_stderr(f"dashboard  {crew.dashboard_link}")
        with BatchDisplay() as display:
            for event in archive.run_batch(
                items,
                task,
                model,
                workers=crew,
                table=options.table_location(folder),
                retries=options.retries if options.is_requested else 0,
                overwrite=overwrite,
            ):
                if isinstance(event, archive.BatchProgress):
                    display.show(event)
                    continue
                display.clear()
                if isinstance(event, FileFailure):
                    failed.append(event)
                    report.print_failure(event, as_json)
                else:
                    on_result(event)
    return failed


def finish_batch(failed: "list[FileFailure]", total: int, table: "Location | None") -> None:
    """Say where the table is, and end with the exit code."""
    if table is not None:
        report.print_stderr(f"table      {printable(table)}")
    exit_if_failed(len(failed), total)


def local_paths(texts: Sequence[str]) -> list[Path] | None:
    """Paths that some texts name; None if one of them is a URL of elsewhere."""
    from tonewood.files.places import parse_location

    named = [parse_location(text) for text in texts]
    paths = [it for it in named if isinstance(it, Path)]
    return paths if len(paths) == len(named) else None
