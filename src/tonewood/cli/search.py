"""`tonewood search`: two folders → the smallest scorer that is good enough."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import (
    DeviceOption,
    JsonOption,
    OverwriteOption,
    ReferenceOption,
    SetOption,
    SourceOption,
    check_output_path,
)
from tonewood.errors import CallError, printable

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.workflow.search import SizeSearchResult


def search_command(
    reference: ReferenceOption,
    source: SourceOption,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", readable=False, help="Picture to draw, a PNG."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first split; the next ones count up.")] = 0,
    device: DeviceOption = "cpu",
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Find the smallest scorer that tells two folders apart as well as any."""
    from tonewood.settings import ModelSettings, apply_assignments
    from tonewood.terminal import SearchDisplay
    from tonewood.workflow import picture
    from tonewood.workflow import search as workflow

    settings = apply_assignments(ModelSettings(), [f"training.seed={seed}", *(set_ or [])])
    if output is not None:
        if output.suffix.lower() != ".png":
            raise CallError(f"{printable(output)} is no name of a PNG: end it in .png")
        check_output_path(output, overwrite)
        picture.check_matplotlib("a picture")
    with SearchDisplay() as display:
        for event in workflow.search_sizes(reference, source, settings, device=device):
            if isinstance(event, workflow.SizeSearchResult):
                ladder = event
            else:
                display.show(event)
    if output is not None:
        picture.plot_scorer_sizes(output, ladder, overwrite=overwrite)
    _print_ladder(ladder, output, json_)


def _print_ladder(ladder: "SizeSearchResult", picture: Path | None, as_json: bool) -> None:
    """Tell what `search` found: a rung a line."""
    chosen, knee = ladder.chosen, ladder.knee
    if as_json:
        rungs = [
            {
                **rung.size._asdict(),
                "parameters": rung.parameters,
                "accuracy": rung.accuracy._asdict(),
                "loss": rung.loss._asdict(),
                "accuracies": list(rung.accuracies),
                "losses": list(rung.losses),
                "seconds": rung.seconds,
            }
            for rung in ladder.results
        ]
        report.print_json(
            {
                "rungs": rungs,
                "knee": knee.size._asdict(),
                "chosen": chosen.size._asdict(),
                "options": ladder.options,
                "picture": str(picture) if picture else None,
            }
        )
        return
    print("width  depth  parameters  accuracy, %     loss")
    for rung in ladder.results:
        accuracy, loss = rung.accuracy, rung.loss
        marks = [name for name, it in (("knee", knee), ("chosen", chosen)) if it is rung]
        print(
            f"{rung.size.width:5}  {rung.size.depth:5}  {rung.parameters:10,}  "
            f"{100 * accuracy.mean:5.1f} ± {100 * accuracy.error:3.1f}  "
            f"{loss.mean:.4f} ± {loss.error:.4f}  {', '.join(marks)}".rstrip()
        )
    if picture:
        print(f"picture    {printable(picture)}")
    print(f"smallest within one standard error of the best: {ladder.options}")
