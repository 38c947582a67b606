"""Commands that use recipes and corrections: `apply`, `render`, `diff`, `export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tonewood.cli import common
from tonewood.cli.common import (
    InputsArgument,
    JsonOption,
    OutputOption,
    OverwriteOption,
    RecipeArgument,
    check_output_path,
)
from tonewood.cli.enhance import run_enhancement
from tonewood.errors import CallError, printable

if TYPE_CHECKING:
    from tonewood.export.diff import CorrectionDifference
    from tonewood.export.export import ExportedFile


def apply_command(
    recipe: RecipeArgument,
    inputs: InputsArgument,
    output: OutputOption,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="Model file or name; default: the model of the recipe."),
    ] = None,
    static_only: Annotated[
        bool, typer.Option("--static-only", help="Apply only the average correction.")
    ] = False,
    same_mask: Annotated[
        bool,
        typer.Option("--same-mask", help="For stems of the same take: apply exactly the same mask and gain."),
    ] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the spectrograms and the mask.")] = False,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Apply the correction of a recipe to other takes or stems."""
    from tonewood.batch.enhance_file import EnhanceOptions
    from tonewood.batch.tasks import EnhanceTask
    from tonewood.enhancement import reapply
    from tonewood.model.model import load_model

    if static_only and same_mask:
        raise CallError("--static-only and --same-mask cannot be used together: use one of them")
    mode: reapply.TransferMode = "static" if static_only else "same" if same_mask else "prior"
    source_recipe, transfer = reapply.load_transfer(recipe, mode)
    loaded = load_model(model or source_recipe.model.name)
    if loaded.digest != source_recipe.model.digest:
        common.print_stderr(
            f"warning: the recipe was made with another model than {loaded.name}: the adaptive part of the "
            "correction will differ"
        )
    options = EnhanceOptions(plot=plot, overwrite=overwrite)
    task = EnhanceTask(reapply.transfer_settings(source_recipe, mode), options, transfer)
    run_enhancement(inputs, output, task, loaded, common.LOCAL_BATCH, json_)


def render_command(
    recipe: RecipeArgument,
    input_path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[INPUT]",
            readable=False,
            help="Recording; by default it is searched for next to the recipe and the output.",
            show_default=False,
        ),
    ] = None,
    # Required; Python wants a default after the optional INPUT, and typer takes `...` for none.
    output: Annotated[
        Path,
        typer.Option("-o", "--output", readable=False, help="Output file, or an existing folder."),
    ] = ...,  # type: ignore[assignment]
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Render the output of a recipe again, to the same bytes."""
    from tonewood.enhancement import reapply

    result = reapply.render_recipe(recipe, input_path, output, overwrite=overwrite)
    if json_:
        common.print_json(
            {
                "recipe": str(result.recipe),
                "input": str(result.input),
                "output": str(result.output),
                "sha256": result.sha256,
                "same": result.identical,
            }
        )
    else:
        print(printable(result.input))
        print(f"  recipe   {printable(result.recipe)}")
        print(f"  sound    {printable(result.output)}")
        if result.identical:
            print("  bytes    identical to the first output")
    if result.identical is False:
        common.print_stderr(
            f"warning: {printable(result.output)}: the bytes differ from the first output, which came from "
            "another version or machine"
        )


_CorrectionArgument = Annotated[
    str, typer.Argument(help="Recipe, enhanced recording with a recipe, model file or model name.")
]


def diff_command(a: _CorrectionArgument, b: _CorrectionArgument, json_: JsonOption = False) -> None:
    """Compare two corrections: in which register, by how many dB, and when."""
    from tonewood.export import export
    from tonewood.export.diff import compare_corrections

    difference = compare_corrections(export.load_correction(a), export.load_correction(b))
    if json_:
        common.print_json({**difference.model_dump(mode="json"), "line": difference.line})
    else:
        _print_difference(difference)


def _print_difference(difference: "CorrectionDifference") -> None:
    """Print a summary, then registers, tilt and level, times and settings."""
    print(f"{difference.a} → {difference.b}")
    print(f"  {difference.line}")
    print(f"  {'':<12}{'Hz':>13}{'A':>8}{'B':>8}{'change':>9}")
    for row in difference.registers:
        band = f"{row.low_hz:.0f}–{row.high_hz:.0f}"
        print(f"  {row.name:<12}{band:>13}{row.a_db:>+z8.1f}{row.b_db:>+z8.1f}{row.change_db:>+z9.1f} dB")
    for name, a, b, unit in (
        ("tilt", difference.tilt_a, difference.tilt_b, "dB per octave"),
        ("level", difference.gain_a, difference.gain_b, "dB"),
    ):
        print(f"  {name:<25}{a:>+z8.1f}{b:>+z8.1f}{b - a:>+z9.1f} {unit}")
    for passage in difference.passages:
        span = f"{common.format_time(passage.start_s)} to {common.format_time(passage.end_s)}"
        print(f"  when        {passage.name} {passage.change_db:+z.1f} dB from {span}")
    for stated in difference.stated:
        print(f"  {stated.name}: {stated.a} → {stated.b}")
    if not difference.moments:
        print("  only averages are compared: the recipes are not for the same take")


def export_command(
    correction: Annotated[
        str,
        typer.Argument(metavar="RECIPE|MODEL", help="Recipe, enhanced recording with a recipe, or model."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", readable=False, help="Output file.")],
    ir: Annotated[
        str | None,
        typer.Option("--ir", help="Write the average as an impulse response of linear or minimum phase."),
    ] = None,
    peq: Annotated[
        int | None, typer.Option("--peq", help="Write the average as parametric bands, 1 to 20.")
    ] = None,
    automation: Annotated[
        bool, typer.Option("--automation", help="Write the change over time in third-octave bands.")
    ] = False,
    plugin: Annotated[
        bool, typer.Option("--plugin", help="Write a model as a file for the audio plug-in.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="File format. For --peq: apo, autoeq, rew, camilladsp. For --automation: csv, jsfx.",
        ),
    ] = None,
    rate: Annotated[int, typer.Option(help="Sample rate at which it will be used, in Hz.")] = 48_000,
    length: Annotated[
        int | None, typer.Option(help="Length of the impulse response in samples; default: 1/6 s.")
    ] = None,
    step: Annotated[float, typer.Option(help="Time step of the automation in seconds.")] = 0.05,
    headroom: Annotated[
        bool, typer.Option("--headroom", help="Lower the whole curve until no band is boosted.")
    ] = False,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Write a correction for other programs: as an EQ, as automation, or as a model of the audio plug-in."""
    from tonewood.dsp.equalizer import Phase
    from tonewood.export import export
    from tonewood.export.plugin_file import export_plugin_file
    from tonewood.model.model import load_model

    if (ir is not None) + (peq is not None) + automation + plugin != 1:
        raise CallError("exactly one of --ir, --peq, --automation and --plugin is needed: give one of them")
    if form is not None and peq is None and not automation:
        kind = "--plugin" if plugin else "--ir"
        raise CallError(f"--format does not apply to {kind}: use it with --peq or --automation")
    if headroom and ir is None and peq is None:
        kind = "--plugin" if plugin else "--automation"
        raise CallError(f"--headroom does not apply to {kind}: use it with --ir or --peq")
    check_output_path(output, overwrite)
    if plugin:
        exported = export_plugin_file(load_model(correction), output, overwrite=overwrite)
        _print_export(correction, exported, json_)
        return
    loaded = export.load_correction(correction)
    average = export.AverageCurve(loaded, headroom)
    if ir is not None:
        exported = export.export_impulse_response(
            average,
            cast("Phase", ir),
            output,
            rate=rate,
            length=length,
            overwrite=overwrite,
        )
    elif peq is not None:
        exported = export.export_parametric_eq(
            average, peq, output, file_format=form, rate=rate, overwrite=overwrite
        )
    else:
        exported = export.export_automation(
            loaded, output, file_format=form, step_s=step, rate=rate, overwrite=overwrite
        )
    _print_export(correction, exported, json_)


def _print_export(correction: str, exported: "ExportedFile", json_: bool) -> None:
    if exported.warning:
        common.print_stderr(f"warning: {printable(exported.output)}: {exported.warning}")
    if json_:
        common.print_json({"input": correction, "output": str(exported.output), **exported.data})
        return
    print(printable(exported.output))
    for line in exported.lines:
        print(f"  {line}")
