"""Options, checks, output and batch processing that several commands share."""

import json
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_type_hints

import typer

from tonewood.errors import CallError, OutputError, printable
from tonewood.utils.files import append_to_name, check_suffix

if TYPE_CHECKING:
    from tonewood.audio_io.recording import LeftOutRecording
    from tonewood.audio_io.remote import Location
    from tonewood.batch.dask_backend import DaskWorkers
    from tonewood.batch.tasks import Task, WorkItem
    from tonewood.cli.progress import BatchDisplay
    from tonewood.data.manifest import BadRecording
    from tonewood.enhancement.output_files import FileFailure
    from tonewood.model.card import ModelOrFile
    from tonewood.model.model import Model


def print_json(value: dict[str, Any]) -> None:
    """Write one JSON object on a line of standard output."""
    # ASCII: file names may have bytes that are not UTF-8, and the stream may have any encoding.
    print(json.dumps(value, allow_nan=False), flush=True)


def print_stderr(line: str) -> None:
    """Write a line for people on standard error."""
    # Messages quote names and texts of files, which may contain escape sequences.
    print(printable(line), file=sys.stderr, flush=True)


def format_time(seconds: float) -> str:
    """Return a time in minutes and seconds, as in 1:02.5."""
    tenths = round(seconds * 10)  # rounded first: 59.96 s are 1:00.0, not 0:60.0
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def count_noun(number: int, noun: str) -> str:
    """Return a number and a noun, as in `1 step` or `2 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def print_failure(failure: "FileFailure", as_json: bool) -> None:
    """Print the error of a recording that failed."""
    print_stderr(f"tonewood: {failure.error}")
    if as_json:
        print_json({"input": str(failure.input), "error": str(failure.error)})


def card_json(model: "ModelOrFile") -> dict[str, Any]:
    """Return the card and settings of a model as JSON."""
    settings = model.settings.model_dump(mode="json")
    return {"card": model.card.model_dump(mode="json"), "settings": settings}


def print_card(model: "ModelOrFile") -> None:
    """Print the card of a model."""
    from tonewood.model.card import card_lines

    for name, lines in card_lines(model):
        for number, line in enumerate(lines):
            print(f"{'' if number else name:<11}{printable(line)}".rstrip())


def print_columns(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Print a table with its first column aligned to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        print(f"{indent}{first:<{widths[0]}}  " + "  ".join(cells))


# readable=False: click would reject the whole call for one unreadable file.
InputsArgument = Annotated[
    list[Path], typer.Argument(metavar="INPUT", readable=False, help="Files or folders.")
]
RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", readable=False, help="Recipe of an output: ….recipe.json.")
]
ReferenceOption = Annotated[Path, typer.Option(readable=False, help="Folder with the target sound.")]
SourceOption = Annotated[Path, typer.Option(readable=False, help="Folder with the sound to improve.")]
OutputOption = Annotated[
    Path,
    typer.Option("-o", "--output", readable=False, help="Output folder, or output file for a single INPUT."),
]
ModelOption = Annotated[str, typer.Option("-m", "--model", help="Model file or bundled model.")]
# Text, because a Path would shorten s3://bucket to s3:/bucket.
LocationsArgument = Annotated[
    list[str], typer.Argument(metavar="INPUT", help="Files, folders or URLs such as s3://….")
]
OutputLocationOption = Annotated[
    str, typer.Option("-o", "--output", help="Output folder, URL, or output file for a single INPUT.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Random seed.")]
DeviceOption = Annotated[str, typer.Option(help="Device of the training: cpu or cuda.")]
CacheOption = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache",
        help="Keep analysed recordings for the next run, in the folder TONEWOOD_CACHE if it is set.",
    ),
]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out recordings that cannot be used, and name them.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print only warnings and failures.")]
DeltaOption = Annotated[
    bool, typer.Option("--delta", help="Also write output minus input, as ….delta.wav in floats.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a setting; see tonewood settings."),
]


def parse_band(text: str | None, option: str) -> tuple[float, float] | None:
    """Return the limits of a band such as 200:4000, in Hz; CallError names the option."""
    if text is None:
        return None
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(low), float(high)
    except ValueError:
        raise CallError(f"{option} is {text!r}: give LOW:HIGH in Hz, as in 200:4000") from None


def parse_time(text: str | None, option: str) -> float | None:
    """Return a time such as 10, 10s, 1:02 or 1:00:02.5 in seconds; CallError names the option."""
    if text is None:
        return None
    from tonewood.data.tables import parse_seconds

    seconds = parse_seconds(text.strip().removesuffix("s"))
    if math.isnan(seconds):
        raise CallError(f"{option} is {text!r}: give seconds or MIN:SEC, as in 10 or 1:02")
    return seconds


_MAX_NAMED = 20  # failures that are named again at the end of a run


class Unfinished(NamedTuple):
    """Recordings that a run did not process: failures and left-out recordings, with the reasons."""

    failures: "Sequence[FileFailure]" = ()
    left_out: "Sequence[LeftOutRecording]" = ()

    @property
    def skipped_json(self) -> list[dict[str, str]]:
        """Recordings that were left out, for `--json`."""
        return [{"input": str(path), "reason": reason} for path, reason in self.left_out]

    def with_bad(self, bad: "Sequence[BadRecording]") -> "Unfinished":
        """Return these recordings and those that `--skip-bad` left out."""
        from tonewood.audio_io.recording import LeftOutRecording

        skipped = [LeftOutRecording(recording.path, str(recording.error)) for recording in bad]
        return self._replace(left_out=[*self.left_out, *skipped])

    def exit(self, total: int = 0, listed: str = "") -> None:
        """Name what a run of `total` recordings did not do, and exit with 1; return if it did everything.

        `listed` says where all failures are listed.
        """
        failed = len(self.failures)
        if failed and total > 1:
            print_stderr(
                "tonewood: failed, for the reasons above:" if not listed else f"tonewood: failed {listed}:"
            )
            for failure in self.failures[:_MAX_NAMED]:
                print_stderr(f"  {printable(failure.input)}")
            if failed > _MAX_NAMED:
                print_stderr(f"  … and {failed - _MAX_NAMED} more")
        by_reason: dict[str, list[str]] = {}
        for path, reason in self.left_out:
            by_reason.setdefault(reason, []).append(printable(path))
        for reason, names in by_reason.items():
            recordings = count_noun(len(names), "recording")
            examples = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            print_stderr(f"tonewood: {recordings} left out ({examples}): {reason}")
        if failed and total > 1:
            print_stderr(f"tonewood: {failed} of {total} failed, {total - failed} done")
        if self.failures or self.left_out:
            raise typer.Exit(1)


def left_out_of_folders(*folders: "Path | None") -> Unfinished:
    """Return the recordings below folders that a command does not read."""
    from tonewood.audio_io.recording import find_left_out_recordings

    existing = (folder for folder in folders if folder is not None and folder.is_dir())
    return Unfinished(left_out=[item for folder in existing for item in find_left_out_recordings(folder)])


def left_out_of_inputs(
    inputs: "Iterable[Location]", failed: "Collection[Location]"
) -> "list[LeftOutRecording]":
    """Return the recordings below inputs that are not read, but for inputs that failed as a whole."""
    from tonewood.enhancement.output_files import find_left_out

    # A folder without any readable recording is a failure already.
    return [item for location in inputs if location not in failed for item in find_left_out(location)]


def check_output_path(path: Path, overwrite: bool) -> None:
    """Raise OutputError now if an output could not be written after minutes of work."""
    if path.is_dir():
        raise OutputError(f"{printable(path)} is a folder, not a file: name a file in it")
    if path.exists() and not path.is_file():
        raise OutputError(f"{printable(path)} is not a regular file: name another output")
    if path.exists() and not overwrite:
        raise OutputError(f"{printable(path)} exists: name another output or pass --overwrite")
    from tonewood.utils.files import check_parent

    check_parent(path)


CONTINUES = "what is done is kept, and the same command continues"


_PARQUET_SUFFIXES = (".parquet", ".pq", "")  # a name of another kind of file is a mistake


class BatchOptions(NamedTuple):
    """Options of batch processing, which `with_option_groups` gives to a command."""

    workers: Annotated[int | None, typer.Option(min=1, help="Processes on this machine.")] = None
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Running Dask cluster: tcp://….")
    ] = None
    retries: Annotated[int, typer.Option(help="Retries after an error that may pass.", min=0)] = 2
    parquet: Annotated[str | None, typer.Option(metavar="FILE", help="Parquet table of results.")] = None
    quiet: QuietOption = False

    @property
    def is_requested(self) -> bool:
        """True if an option asks for more than one file after the other in this process."""
        return any(option is not None for option in (self.workers, self.scheduler, self.parquet))

    def table_location(self, folder: "Location | None") -> "Location | None":
        """Return the results table: --parquet, or with workers a file in the output folder.

        Raises
        ------
        CallError
            --parquet names another kind of file.
        """
        from tonewood.audio_io import remote
        from tonewood.batch.runner import RESULTS_TABLE_NAME

        if self.parquet is not None:
            check_suffix(self.parquet, _PARQUET_SUFFIXES, "a Parquet file", "--parquet")
            return remote.parse_location(self.parquet)
        has_workers = self.workers is not None or self.scheduler is not None
        return (
            remote.join_location(folder, RESULTS_TABLE_NAME) if has_workers and folder is not None else None
        )

    def can_resume(self, folder: "Location | None") -> bool:
        """Return True if an earlier run left its table, or a part of it."""
        from tonewood.batch.results_table import PARTIAL_SUFFIX

        table = self.table_location(folder)
        if not isinstance(table, Path):
            return False
        return table.exists() or append_to_name(table, PARTIAL_SUFFIX).exists()


# One file after the other in this process: every option has its default.
LOCAL_BATCH = BatchOptions()


def with_option_groups(**groups: type[NamedTuple]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of some named tuples, in the place of its parameters.

    typer reads options from the signature of a function, so the signature is rewritten.

    Parameters
    ----------
    groups : named tuple class
        By the name of the parameter that receives the tuple.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters: list[Parameter] = []
        for parameter in signature(command).parameters.values():
            group = groups.get(parameter.name)
            parameters += [parameter] if group is None else _option_parameters(group)

        @wraps(command)
        def command_with_options(**arguments: Any) -> None:  # noqa: ANN401 - as typer parsed them
            tuples = {
                name: group(*(arguments.pop(field) for field in group._fields))
                for name, group in groups.items()
            }
            command(**tuples, **arguments)

        command_with_options.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        command_with_options.__annotations__ = {item.name: item.annotation for item in parameters}
        return command_with_options

    return decorate


def _option_parameters(group: type[NamedTuple]) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=hints[name])
        for name, default in group._field_defaults.items()
    ]


def run_and_report(
    items: "Sequence[WorkItem | FileFailure]",
    task: "Task",
    model: "Model",
    options: BatchOptions,
    on_result: Callable[[Any], None],
    *,
    display: "BatchDisplay | None" = None,
    folder: "Location | None" = None,
    overwrite: bool = False,
    as_json: bool = False,
) -> "list[FileFailure]":
    """Run a batch, draw its progress and print its results; returns the failures."""
    from tonewood.batch.runner import run_batch, start_workers
    from tonewood.cli.progress import BatchDisplay
    from tonewood.enhancement.output_files import FileFailure

    failures: list[FileFailure] = []
    table = options.table_location(folder)

    def print_dashboard(started: "DaskWorkers") -> None:
        if started.dashboard_link and not options.quiet:
            print_stderr(f"dashboard  {started.dashboard_link}")

    workers = start_workers(options.workers, options.scheduler, print_dashboard)
    bars = display or BatchDisplay(task)
    bars.is_quiet = options.quiet
    with _continued_if_interrupted(table, task), workers or nullcontext(), bars:
        for event in run_batch(
            items,
            task,
            model,
            workers=workers,
            table=table,
            retries=options.retries if options.is_requested else 0,
            overwrite=overwrite,
        ):
            if bars.show(event):
                continue
            bars.clear()
            if isinstance(event, FileFailure):
                failures.append(event)
                print_failure(event, as_json)
            else:
                on_result(event)
    return failures


@contextmanager
def _continued_if_interrupted(table: "Location | None", task: "Task") -> Iterator[None]:
    """Say after an interrupt how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        if table is not None or task.name == "enhance":
            raise KeyboardInterrupt(CONTINUES) from None
        raise KeyboardInterrupt(
            "pass --overwrite to begin again; with --parquet FILE the same command continues"
        ) from None


def finish_batch(
    failures: "Sequence[FileFailure]",
    total: int,
    options: BatchOptions,
    inputs: "Iterable[Location]",
    *,
    folder: "Location | None" = None,
    as_json: bool = False,
    can_write_table: bool = True,
) -> None:
    """Print the path of the table and what was not done, and exit with 1 if that is anything.

    Parameters
    ----------
    inputs : iterable of Path or URL
        Files and folders of the call, of which some recordings may have been left out.
    can_write_table : bool
        Whether the command has `--parquet`.
    """
    left_out = left_out_of_inputs(inputs, {failure.input for failure in failures})
    table = options.table_location(folder)
    if table is not None and not options.quiet:
        print_stderr(f"table      {printable(table)}")
    if as_json:
        for path, reason in left_out:
            print_json({"input": str(path), "skipped": reason})
    listed = where_failures_are_listed(table) if table or can_write_table else ""
    Unfinished(failures, left_out).exit(total, listed)


def where_failures_are_listed(table: "Location | None") -> str:
    """Return where the reasons of all failures of a batch are listed."""
    if table is None:
        return "(reasons above; --parquet FILE lists them)"
    return f"(reasons in the column error of {printable(table)})"
