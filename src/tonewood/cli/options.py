"""Options and checks that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from tonewood.cli import report
from tonewood.errors import CallError, OutputError, printable

# readable=False: click would take an unreadable file for a wrong call, and drop the whole batch.
InputsArgument = Annotated[
    list[Path], typer.Argument(metavar="INPUT", readable=False, help="Files or folders.")
]
RecipeArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE", readable=False, help="Recipe beside an output: ….recipe.json."
    ),
]
ReferenceOption = Annotated[
    Path, typer.Option(readable=False, help="Folder of the sound that is wanted.")
]
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
WorkersOption = Annotated[
    int | None, typer.Option(help="Spread the files over so many processes here.")
]
SchedulerOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Or over a running Dask cluster: tcp://….")
]
RetriesOption = Annotated[int, typer.Option(help="Times that what failed is tried again.", min=0)]
ParquetOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="One Parquet table of all that was found.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object a line on standard output.")
]
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
            report.print_stderr(f"tonewood: {failed} of {total} failed, {total - failed} done")
        raise typer.Exit(1)


def check_output_path(path: Path, overwrite: bool) -> None:
    """Refuse before minutes of work what would be refused after it."""
    if path.is_dir():
        raise OutputError(f"{printable(path)} is a folder, not a file: name a file in it")
    if path.exists() and not overwrite:
        raise OutputError(f"{printable(path)} exists: name another output or pass --overwrite")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise OutputError(f"{printable(path)} has no folder to lie in: make {printable(folder)} first")
    if not os.access(folder, os.W_OK):
        raise OutputError(
            f"{printable(path)} cannot be written (permission denied): name another output folder"
        )
