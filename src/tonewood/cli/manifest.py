"""`tonewood manifest`: a data set or shards → a list to train from."""

from pathlib import Path
from typing import Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import JsonOption, OverwriteOption
from tonewood.errors import shown

_METAVAR = "FIELD=PATTERN"


def manifest(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT", help="good_sounds, tinysol, medley_solos_db, or .tar shards."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", readable=False, help="List to write: .csv or .jsonl.")
    ],
    data_home: Annotated[
        Path | None,
        typer.Option(readable=False, help="Folder in which the data set lies; none is fetched."),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(metavar=_METAVAR, help="What is wanted; given again, all must hold."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar=_METAVAR, help="What is to be improved; given again, all must hold."),
    ] = None,
    both: Annotated[
        list[str] | None, typer.Option(metavar=_METAVAR, help="What must hold on both sides.")
    ] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """List recordings of a data set, or of WebDataset shards, for train --manifest."""
    from tonewood.workflow import manifest as workflow

    sides = workflow.Sides(
        *(tuple(map(workflow.Condition.of, it or [])) for it in (reference, source, both))
    )
    archives = [Path(it) for it in what]
    if len(what) == 1 and not archives[0].exists() and archives[0].suffix != ".tar":
        done = workflow.of_dataset(what[0], data_home, sides, output, overwrite=overwrite)
    else:
        done = workflow.of_shards(archives, sides, output, overwrite=overwrite)
    report.say(f"note: {done.note}")
    if done.missing:
        report.say(f"note: {done.missing} recordings of the index are not there, and not listed")
    if json_:
        report.emit({**done._asdict(), "output": str(done.output)})
    else:
        print(f"{shown(done.output)}: {done.reference} reference, {done.source} source")
