"""`tonewood reproduce`: a corpus → the paper's figures and table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import DeviceOption, JsonOption, OverwriteOption, SetOption
from tonewood.errors import CallError, printable

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.workflow.reproduce import Reproduction


def reproduce_command(
    corpus: Annotated[
        Path, typer.Option(readable=False, help="Folder laid out as train|test/{good,cheap}.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", readable=False, help="Folder for the report.")
    ],
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="Model to take instead of training one."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws what is random.")] = 0,
    device: DeviceOption = "cpu",
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Reproduce the paper's figures, accuracy and table on a corpus, as one page."""
    from tonewood.files.modelfile import load_model
    from tonewood.settings import ModelSettings, apply_assignments
    from tonewood.terminal import ReproducingDisplay
    from tonewood.workflow import picture
    from tonewood.workflow import reproduce as workflow

    if model is not None and set_:
        raise CallError("--set is for training, and -m names a model already trained: leave one")
    settings = apply_assignments(ModelSettings(), [f"training.seed={seed}", *(set_ or [])])
    picture.check_matplotlib("a report")
    loaded = load_model(model) if model is not None else None
    with ReproducingDisplay() as display:
        for event in workflow.reproduce_paper(
            corpus, output, settings, model=loaded, device=device, overwrite=overwrite
        ):
            if isinstance(event, workflow.Reproduction):
                done = event
            else:
                display.show(event)
    _print_reproduction(done, json_)


def _print_reproduction(done: "Reproduction", as_json: bool) -> None:
    """Tell what `reproduce` made."""
    if as_json:
        report.print_json({"page": str(done.page), **done.summary})
        return
    for method, *figures in done.table:
        print(f"{method:<36}" + "".join(f"{figure:>11}" for figure in figures))
    print(
        f"accuracy   {100 * done.accuracy:.1f} % right on {done.windows} held-out windows of "
        f"{done.crop_seconds:g} s"
    )
    print(f"page       {printable(done.page)}")
