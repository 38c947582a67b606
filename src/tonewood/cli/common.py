"""Options and checks that several commands share.

Results, told to people in lines or to programs in JSON: what several commands share.

Commands on whole archives: work is spread, followed and told.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tonewood.errors import CallError, OutputError, printable

if TYPE_CHECKING:
    from tonewood.audio_io.remote import Location
    from tonewood.batch.tasks import Task
    from tonewood.enhancement.output_files import FileFailure
    from tonewood.model.card_text import ModelOrFile
    from tonewood.model.model import Model


@contextmanager
def settings_named_by_options(options: Mapping[str, str]) -> Iterator[None]:
    """Name the option that was typed, instead of the setting, in errors of settings."""
    try:
        yield
    except CallError as error:
        setting, space, reason = str(error).partition(" ")
        raise CallError(f"{options.get(setting, setting)}{space}{reason}") from None


def print_json(value: dict[str, Any]) -> None:
    """Write one JSON object on a line of standard output."""
    # ASCII: file names may hold bytes that are no UTF-8, and the stream may be of any encoding.
    print(json.dumps(value, allow_nan=False), flush=True)


def print_stderr(line: str) -> None:
    """Write a line for people on standard error."""
    print(line, file=sys.stderr, flush=True)


def format_time(seconds: float) -> str:
    """A time as musicians read it, as in 1:02.5."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def print_failure(failure: "FileFailure", as_json: bool) -> None:
    """Name a recording that could not be done, and why."""
    print_stderr(f"tonewood: {failure.error}")
    if as_json:
        print_json({"input": str(failure.input), "error": str(failure.error)})


def card_json(model: "ModelOrFile") -> dict[str, Any]:
    """A model's card and settings, for programs."""
    settings = model.settings.model_dump(mode="json")
    return {"card": model.card.model_dump(mode="json"), "settings": settings}


def print_card(model: "ModelOrFile") -> None:
    """Tell a model's card."""
    from tonewood.model.card_text import card_lines

    for name, lines in card_lines(model):
        for number, line in enumerate(lines):
            print(f"{'' if number else name:<11}{line}".rstrip())


# readable=False: click would take an unreadable file for a wrong call, and drop the whole batch.
InputsArgument = Annotated[
    list[Path], typer.Argument(metavar="INPUT", readable=False, help="Files or folders.")
]
RecipeArgument = Annotated[
    Path,
    typer.Argument(metavar="RECIPE", readable=False, help="Recipe beside an output: ….recipe.json."),
]
ReferenceOption = Annotated[Path, typer.Option(readable=False, help="Folder of the sound that is wanted.")]
SourceOption = Annotated[
    Path, typer.Option(readable=False, help="Folder of the sound that is to be improved.")
]
OutputOption = Annotated[
    Path,
    typer.Option("-o", "--output", readable=False, help="Folder, or file for one INPUT."),
]
ModelOption = Annotated[
    str, typer.Option("-m", "--model", help="Model file, or the name of a bundled model.")
]
LocationsArgument = Annotated[
    list[str], typer.Argument(metavar="INPUT", help="Files, folders or URLs such as s3://….")
]
OutputLocationOption = Annotated[
    str, typer.Option("-o", "--output", help="Folder, file for one INPUT, or URL.")
]
WorkersOption = Annotated[int | None, typer.Option(help="Spread the files over so many processes here.")]
SchedulerOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Or over a running Dask cluster: tcp://….")
]
RetriesOption = Annotated[int, typer.Option(help="Times that what failed is tried again.", min=0)]
ParquetOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="One Parquet table of all that was found.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]
CacheOption = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache",
        help="Keep analysed recordings, to find them next time; in TONEWOOD_CACHE, if set.",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any setting, as in search.alpha=0.02."),
]


def parse_band(text: str) -> tuple[float, float]:
    """Read a band such as 200:4000; CallError otherwise."""
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(low), float(high)
    except ValueError:
        raise CallError(f"{text!r} is no band; give LOW:HIGH in Hz, as in 200:4000") from None


def parse_time(text: str) -> float:
    """Read a time such as 10, 10s, 1:02 or 1:00:02.5 as seconds; CallError otherwise."""
    total = 0.0
    try:
        for place, part in enumerate(text.strip().removesuffix("s").split(":")):
            if place == 3 or not part[:1].isdigit():
                raise ValueError
            total = 60 * total + float(part)
    except ValueError:
        raise CallError(f"{text!r} is no time; give seconds or MIN:SEC, as in 10 or 1:02") from None
    return total


def exit_if_failed(failed: int, total: int) -> None:
    """End with the exit code of a batch."""
    if failed:
        if total > 1:
            print_stderr(f"tonewood: {failed} of {total} failed, {total - failed} done")
        raise typer.Exit(1)


def check_output_path(path: Path, overwrite: bool) -> None:
    """Refuse before minutes of work what would be refused after it."""
    if path.is_dir():
        raise OutputError(f"{printable(path)} is a folder, not a file: name a file in it")
    if path.exists() and not overwrite:
        raise OutputError(f"{printable(path)} exists: name another output or pass --overwrite")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise OutputError(
            f"{printable(path)} is in a folder that does not exist: create {printable(folder)} first"
        )
    if not os.access(folder, os.W_OK):
        raise OutputError(
            f"{printable(path)} cannot be written (permission denied): name another output folder"
        )


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
        from tonewood.audio_io import remote
        from tonewood.batch.runner import RESULTS_TABLE_NAME

        if self.parquet is not None:
            return remote.parse_location(self.parquet)
        spread = self.workers is not None or self.scheduler is not None
        return remote.join_location(folder, RESULTS_TABLE_NAME) if spread and folder is not None else None

    def can_resume(self, folder: "Location | None") -> bool:
        """Whether an earlier run left its table, or a part of it."""
        from tonewood.batch.results_table import PARTIAL_SUFFIX

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
    from tonewood.batch import runner
    from tonewood.cli.progress import BatchDisplay
    from tonewood.enhancement.output_files import FileFailure

    failed: list[FileFailure] = []
    with runner.start_workers(options.workers, options.scheduler) or nullcontext() as crew:
        if crew is not None and crew.dashboard_link:
            print_stderr(f"dashboard  {crew.dashboard_link}")
        with BatchDisplay() as display:
            for event in runner.run_batch(
                items,
                task,
                model,
                workers=crew,
                table=options.table_location(folder),
                retries=options.retries if options.is_requested else 0,
                overwrite=overwrite,
            ):
                if isinstance(event, runner.BatchProgress):
                    display.show(event)
                    continue
                display.clear()
                if isinstance(event, FileFailure):
                    failed.append(event)
                    print_failure(event, as_json)
                else:
                    on_result(event)
    return failed


def finish_batch(failed: "list[FileFailure]", total: int, table: "Location | None") -> None:
    """Say where the table is, and end with the exit code."""
    if table is not None:
        print_stderr(f"table      {printable(table)}")
    exit_if_failed(len(failed), total)


def local_paths(texts: Sequence[str]) -> list[Path] | None:
    """Paths that some texts name; None if one of them is a URL of elsewhere."""
    from tonewood.audio_io.remote import parse_location

    named = [parse_location(text) for text in texts]
    paths = [it for it in named if isinstance(it, Path)]
    return paths if len(paths) == len(named) else None
