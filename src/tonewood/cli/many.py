"""Commands on whole archives: work is spread, followed and told."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tonewood.cli import report
from tonewood.cli.options import finish
from tonewood.errors import shown

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.files.modelfile import Model
    from tonewood.files.places import Place
    from tonewood.workflow.layout import Failed
    from tonewood.workflow.units import Task


class Many(NamedTuple):
    """How many recordings are to be worked on."""

    workers: int | None
    scheduler: str | None
    retries: int
    parquet: str | None

    @property
    def asked(self) -> bool:
        """Whether anything but one file after the other, told on the terminal, is."""
        return any(it is not None for it in (self.workers, self.scheduler, self.parquet))

    def table(self, folder: "Place | None") -> "Place | None":
        """Where the table goes: as asked for, else by workers into the folder of the outputs."""
        from tonewood.files import places
        from tonewood.workflow.archive import TABLE

        if self.parquet is not None:
            return places.place(self.parquet)
        spread = self.workers is not None or self.scheduler is not None
        return places.below(folder, TABLE) if spread and folder is not None else None

    def goes_on(self, folder: "Place | None") -> bool:
        """Whether an earlier run left its table, or a part of it."""
        from tonewood.files.results import PARTIAL

        table = self.table(folder)
        if not isinstance(table, Path):
            return False
        return table.exists() or table.with_name(table.name + PARTIAL).exists()


def follow(
    units: Sequence[Any],
    task: "Task",
    model: "Model",
    many: Many,
    tell: Callable[[Any], None],
    *,
    folder: "Place | None" = None,
    overwrite: bool = False,
    as_json: bool = False,
) -> "list[Failed]":
    """Do units and tell of each; those that failed."""
    from tonewood.terminal import ArchiveDisplay
    from tonewood.workflow import archive
    from tonewood.workflow.layout import Failed

    failed: list[Failed] = []
    with archive.crew(many.workers, many.scheduler) or nullcontext() as crew:
        if crew is not None and crew.link:
            report.say(f"dashboard  {crew.link}")
        with ArchiveDisplay() as display:
            for event in archive.run(
                units,
                task,
                model,
                crew=crew,
                table=many.table(folder),
                retries=many.retries if many.asked else 0,
                overwrite=overwrite,
            ):
                if isinstance(event, archive.Tally):
                    display.show(event)
                    continue
                display.clear()
                if isinstance(event, Failed):
                    failed.append(event)
                    report.failure(event, as_json)
                else:
                    tell(event)
    return failed


def finished(failed: "list[Failed]", total: int, table: "Place | None") -> None:
    """Say where the table is, and end with the exit code."""
    if table is not None:
        report.say(f"table      {shown(table)}")
    finish(len(failed), total)


def local(texts: Sequence[str]) -> list[Path] | None:
    """Paths that some texts name; None if one of them is a URL of elsewhere."""
    from tonewood.files.places import place

    named = [place(text) for text in texts]
    paths = [it for it in named if isinstance(it, Path)]
    return paths if len(paths) == len(named) else None
