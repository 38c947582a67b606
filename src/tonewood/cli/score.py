"""`tonewood score`: recordings → what scorer and judge say of them."""

from typing import TYPE_CHECKING

from tonewood.cli import report
from tonewood.cli.options import InputsArgument, JsonOption, ModelOption, finish
from tonewood.errors import shown

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.workflow.batch import Scored


def score(
    inputs: InputsArgument,
    model: ModelOption = "cello",
    json_: JsonOption = False,
) -> None:
    """Score recordings: 0 sounds like the reference, 1 like the source."""
    from tonewood.files.modelfile import load
    from tonewood.workflow import batch, layout

    loaded = load(model)
    paths = list(layout.recordings(inputs))
    failed = 0
    titled = json_
    for event in batch.score_files(paths, loaded):
        if isinstance(event, layout.Failed):
            failed += 1
            report.failure(event, json_)
        elif isinstance(event, batch.Scored):
            if not titled:
                print("scorer  judge  recording")
                titled = True
            _tell(event, json_)
    finish(failed, len(paths))


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
