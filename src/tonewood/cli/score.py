"""`tonewood score`: recordings → what scorer and judge say of them."""

from typing import TYPE_CHECKING

from tonewood.cli import many, report
from tonewood.cli.options import (
    JsonOption,
    ModelOption,
    OverwriteOption,
    ParquetOption,
    LocationsArgument,
    RetriesOption,
    SchedulerOption,
    WorkersOption,
)
from tonewood.errors import TonewoodError, printable

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.workflow.batch import FileScored


def score_command(
    inputs: LocationsArgument,
    model: ModelOption = "cello",
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    retries: RetriesOption = 2,
    parquet: ParquetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Score recordings: 0 sounds like the reference, 1 like the source."""
    from tonewood.files.modelfile import load_model
    from tonewood.files.places import parse_location
    from tonewood.workflow import archive
    from tonewood.workflow.layout import FileFailure
    from tonewood.workflow.units import ScoreTask, WorkItem

    loaded = load_model(model)
    asked = many.BatchOptions(workers, scheduler, retries, parquet)
    units: list[WorkItem | FileFailure] = []
    for item in inputs:
        for found, relative in archive.expand_input(parse_location(item)):
            if isinstance(relative, TonewoodError):
                units.append(FileFailure(found, relative))
            else:
                units.append(WorkItem(found))
    titled = json_

    def tell(done: "FileScored") -> None:
        nonlocal titled
        if not titled:
            print("scorer  judge  recording")
            titled = True
        _print_score(done, json_)

    failed = many.run_and_report(
        units, ScoreTask(), loaded, asked, tell, overwrite=overwrite, as_json=json_
    )
    many.finish_batch(failed, len(units), asked.table_location(None))


def _print_score(done: "FileScored", as_json: bool) -> None:
    """Tell the scores of one recording."""
    result = done.score
    if as_json:
        report.print_json(
            {
                "input": str(done.input),
                "scorer": result.scorer,
                "judge": result.judge,
                "windows": list(result.windows),
            }
        )
        return
    judge = "    -" if result.judge is None else f"{result.judge:5.2f}"
    print(f"{result.scorer:6.2f}  {judge}  {printable(done.input)}")
