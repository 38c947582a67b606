"""`tonewood manifest`: a data set or shards → a list to train from."""

from pathlib import Path
from typing import Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import JsonOption, OverwriteOption
from tonewood.errors import printable

_CONDITION_METAVAR = "FIELD=PATTERN"


def manifest_command(
    dataset_or_shards: Annotated[
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
        typer.Option(metavar=_CONDITION_METAVAR, help="What is wanted; given again, all must hold."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar=_CONDITION_METAVAR, help="What is to be improved; given again, all must hold."),
    ] = None,
    both: Annotated[
        list[str] | None, typer.Option(metavar=_CONDITION_METAVAR, help="What must hold on both sides.")
    ] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """List recordings of a data set, or of WebDataset shards, for train --manifest."""
    from tonewood.workflow import manifest as workflow

    sides = workflow.SideConditions(
        *(tuple(map(workflow.FieldCondition.parse, it or [])) for it in (reference, source, both))
    )
    archives = [Path(it) for it in dataset_or_shards]
    if len(dataset_or_shards) == 1 and not archives[0].exists() and archives[0].suffix != ".tar":
        done = workflow.write_dataset_manifest(dataset_or_shards[0], data_home, sides, output, overwrite=overwrite)
    else:
        done = workflow.write_shards_manifest(archives, sides, output, overwrite=overwrite)
    report.print_stderr(f"note: {done.note}")
    if done.missing:
        report.print_stderr(f"note: {done.missing} recordings of the index are not there, and not listed")
    if json_:
        report.print_json({**done._asdict(), "output": str(done.output)})
    else:
        print(f"{printable(done.output)}: {done.reference} reference, {done.source} source")
