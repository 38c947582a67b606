"""`tonewood score`: recordings → what scorer and judge say of them."""

from typing import TYPE_CHECKING

from tonewood.cli import many, report
from tonewood.cli.options import (
    JsonOption,
    ModelOption,
    OverwriteOption,
    ParquetOption,
    PlacesArgument,
    RetriesOption,
    SchedulerOption,
    WorkersOption,
)
from tonewood.errors import TonewoodError, shown

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.workflow.batch import Scored


def score(
    inputs: PlacesArgument,
    model: ModelOption = "cello",
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    retries: RetriesOption = 2,
    parquet: ParquetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Score recordings: 0 sounds like the reference, 1 like the source."""
    from tonewood.files.modelfile import load
    from tonewood.files.places import place
    from tonewood.workflow import archive
    from tonewood.workflow.layout import Failed
    from tonewood.workflow.units import ScoreTask, Unit

    loaded = load(model)
    asked = many.Many(workers, scheduler, retries, parquet)
    units: list[Unit | Failed] = []
    for item in inputs:
        for found, relative in archive.recordings(place(item)):
            if isinstance(relative, TonewoodError):
                units.append(Failed(found, relative))
            else:
                units.append(Unit(found))
    titled = json_

    def tell(done: "Scored") -> None:
        nonlocal titled
        if not titled:
            print("scorer  judge  recording")
            titled = True
        _tell(done, json_)

    failed = many.follow(
        units, ScoreTask(), loaded, asked, tell, overwrite=overwrite, as_json=json_
    )
    many.finished(failed, len(units), asked.table(None))


def _tell(done: "Scored", as_json: bool) -> None:
    """Tell the scores of one recording."""
    result = done.score
    if as_json:
        report.emit(
            {
                "input": str(done.input),
                "scorer": result.scorer,
                "judge": result.judge,
                "windows": list(result.windows),
            }
        )
        return
    judge = "    -" if result.judge is None else f"{result.judge:5.2f}"
    print(f"{result.scorer:6.2f}  {judge}  {shown(done.input)}")
