"""`tonewood apply`: a recipe's correction → other takes, or stems of the same."""

from typing import Annotated

import typer

from tonewood.cli import report
from tonewood.cli.enhance import show_file_events
from tonewood.cli.options import (
    DeviceOption,
    InputsArgument,
    JsonOption,
    OutputOption,
    OverwriteOption,
    RecipeArgument,
)
from tonewood.errors import CallError


def apply_command(
    recipe: RecipeArgument,
    inputs: InputsArgument,
    output: OutputOption,
    model: Annotated[
        str | None,
        typer.Option(
            "-m", "--model", help="Model file or name; else the bundled one that the recipe names."
        ),
    ] = None,
    static_only: Annotated[
        bool, typer.Option("--static-only", help="Carry what the correction does on average.")
    ] = False,
    same_mask: Annotated[
        bool,
        typer.Option("--same-mask", help="Stems of the same take: the very same mask and gain."),
    ] = False,
    device: DeviceOption = "cpu",
    plot: Annotated[bool, typer.Option("--plot", help="Draw before, mask and after.")] = False,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Carry a recipe's correction to other takes or stems."""
    from tonewood.files.modelfile import load_model
    from tonewood.workflow import batch, carry, layout
    from tonewood.workflow.train import check_device

    if static_only and same_mask:
        raise CallError("--static-only and --same-mask cannot both be had: leave one")
    check_device(device)
    how: carry.TransferMode = "static" if static_only else "same" if same_mask else "prior"
    first, carried = carry.load_transfer(recipe, how)
    loaded = load_model(model or first.model.name)
    if loaded.digest != first.model.digest:
        report.print_stderr(
            f"warning: model {loaded.name} is not the one of that recipe: what it finds by itself "
            "is another's"
        )
    laid = layout.plan_file_jobs(inputs, output)
    settings = carry.transfer_settings(first, how)
    events = batch.enhance_files(
        laid, loaded, settings, plot=plot, overwrite=overwrite, device=device, transfer=carried
    )
    show_file_events(events, len(laid), 0, json_)
