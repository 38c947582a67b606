"""Commands that use recipes and corrections: `apply`, `render`, `diff`, `export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tonewood.cli import common
from tonewood.cli.common import (
    DeltaOption,
    InputsArgument,
    JsonOption,
    OutputOption,
    OverwriteOption,
    QuietOption,
    RecipeArgument,
    check_output_path,
)
from tonewood.cli.enhance import run_enhancement
from tonewood.cli.options import NO_CONTROLS, OPTION_OF_CONTROL, ControlOptions
from tonewood.errors import CallError, printable, settings_named_as
from tonewood.utils.files import check_suffix

if TYPE_CHECKING:
    from tonewood.dsp.equalizer import EqLimits
    from tonewood.export.diff import CorrectionDifference
    from tonewood.export.export import ExportedFile


@common.with_option_groups(controls=ControlOptions)
def apply_command(
    recipe: RecipeArgument,
    inputs: InputsArgument,
    output: OutputOption,
    controls: ControlOptions = NO_CONTROLS,
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
    quiet: QuietOption = False,
    delta: DeltaOption = False,
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
    if same_mask and controls.is_given:
        raise CallError(
            "--same-mask repeats the recipe's mask and gain, so no option can change them: leave it out"
        )
    mode: reapply.TransferMode = "static" if static_only else "same" if same_mask else "prior"
    source_recipe, transfer = reapply.load_transfer(recipe, mode)
    loaded = load_model(model or source_recipe.model.name)
    if loaded.digest != source_recipe.model.digest:
        common.print_stderr(
            f"warning: the recipe was made with another model than {loaded.name}: the adaptive part of the "
            "correction will differ"
        )
    with settings_named_as(OPTION_OF_CONTROL):
        changed = reapply.transfer_settings(source_recipe, mode).replace(render=controls.render_changes())
    task = EnhanceTask(changed, EnhanceOptions(plot=plot, overwrite=overwrite, delta=delta), transfer)
    run_enhancement(inputs, output, task, loaded, common.LOCAL_BATCH._replace(quiet=quiet), json_)


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
        Path, typer.Option("-o", "--output", readable=False, help="Output file or folder.")
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
    print(f"{printable(difference.a)} → {printable(difference.b)}")
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
        print(f"  {stated.name}: {printable(str(stated.a))} → {printable(str(stated.b))}")
    if not difference.moments:
        print("  only averages are compared: these are not recipes for the same take")


def _device_limits(frequencies: str | None, q: str | None, max_gain: float | None) -> "EqLimits":
    """Return the limits of a device that the options describe."""
    from tonewood.dsp.equalizer import FREE_BANDS

    limits = FREE_BANDS
    try:
        if frequencies is not None:
            limits = limits._replace(hz=tuple(sorted(float(hz) for hz in frequencies.split(","))))
    except ValueError:
        raise CallError(f"--frequencies is {frequencies!r}: give HZ,HZ,… as in 63,250,1000") from None
    try:
        if q is not None:
            low, _, high = q.partition(":")
            limits = limits._replace(q=(float(low), float(high or low)))
    except ValueError:
        raise CallError(f"--q is {q!r}: give a value, or LOW:HIGH as in 0.5:8") from None
    return limits if max_gain is None else limits._replace(max_gain_db=max_gain)


def _count_bands(peq: int | None, limits: "EqLimits") -> int | None:
    """Return the number of bands: that of the fixed centres, if there are any."""
    centres = len(limits.hz)
    if centres and peq not in (None, centres):
        raise CallError(f"--peq is {peq}, and --frequencies has {centres}: leave out --peq")
    return centres or peq


# Suffixes of the outputs; a name of another kind of file is a mistake.
_EXPORT_SUFFIXES = {
    "--peq": (".txt", ".yml", ".yaml", ""),
    "--graphic-eq": (".txt", ""),
    "--automation": (".csv", ".jsfx", ".txt", ""),
    "--plugin": (".twp", ""),
}


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
        int | None,
        typer.Option(
            "--peq", "--bands", min=1, max=20, help="Write the average as this many parametric bands."
        ),
    ] = None,
    frequencies: Annotated[
        str | None, typer.Option(metavar="HZ,HZ…", help="Fixed centres of the bands, in place of a number.")
    ] = None,
    q: Annotated[
        str | None, typer.Option("--q", metavar="Q|LOW:HIGH", help="Q of the bands that the device can set.")
    ] = None,
    max_gain: Annotated[
        float | None, typer.Option(min=0, max=24, help="Largest gain of a band, in dB.")
    ] = None,
    graphic_eq: Annotated[
        bool, typer.Option("--graphic-eq", help="Write the average as a GraphicEQ line of Equalizer APO.")
    ] = False,
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
            help="For --peq: apo, autoeq, rew, camilladsp, camilladsp2. For --automation: csv, jsfx.",
        ),
    ] = None,
    rate: Annotated[
        int, typer.Option(min=4_000, max=768_000, help="Sample rate at which it will be used, in Hz.")
    ] = 48_000,
    length: Annotated[
        int | None,
        typer.Option(min=64, max=2**20, help="Length of the impulse response in samples; default: 1/6 s."),
    ] = None,
    step: Annotated[
        float, typer.Option(min=0.01, max=10, help="Time step of the automation in seconds.")
    ] = 0.05,
    headroom: Annotated[
        bool | None,
        typer.Option(
            "--headroom/--no-headroom",
            help="Lower the whole curve until nothing is boosted; default: for --peq and --graphic-eq.",
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Write a correction for other programs: as an EQ, as automation, or as a model of the audio plug-in."""
    from tonewood.dsp.equalizer import FREE_BANDS, Phase
    from tonewood.export import export
    from tonewood.export.plugin_file import export_plugin_file
    from tonewood.model.model import load_model

    limits = _device_limits(frequencies, q, max_gain)
    peq = _count_bands(peq, limits)
    kinds = {
        "--ir": ir is not None,
        "--peq": peq is not None,
        "--graphic-eq": graphic_eq,
        "--automation": automation,
        "--plugin": plugin,
    }
    if sum(kinds.values()) != 1:
        raise CallError(
            "exactly one of --ir, --peq, --graphic-eq, --automation and --plugin is needed: give one"
        )
    kind = next(option for option, is_given in kinds.items() if is_given)
    if limits != FREE_BANDS and peq is None:
        raise CallError("--q and --max-gain limit parametric bands: use them with --peq or --frequencies")
    if form is not None and kind not in ("--peq", "--automation"):
        raise CallError(f"--format does not apply to {kind}: use it with --peq or --automation")
    if headroom and kind in ("--automation", "--plugin"):
        raise CallError(f"--headroom does not apply to {kind}: use it with --ir, --peq or --graphic-eq")
    if ir is None:  # an impulse response checks its own name
        check_suffix(output, _EXPORT_SUFFIXES[kind], f"an output of {kind}")
    check_output_path(output, overwrite)
    if plugin:
        exported = export_plugin_file(load_model(correction), output, overwrite=overwrite)
        _print_export(correction, exported, json_)
        return
    loaded = export.load_correction(correction)
    # A preset that boosts would clip in a player, and its level is set by hand.
    average = export.AverageCurve(loaded, ir is None if headroom is None else headroom)
    if ir is not None:
        exported = export.export_impulse_response(
            average, cast("Phase", ir), output, rate=rate, length=length, overwrite=overwrite
        )
    elif peq is not None:
        exported = export.export_parametric_eq(
            average, peq, output, file_format=form, rate=rate, limits=limits, overwrite=overwrite
        )
    elif graphic_eq:
        exported = export.export_graphic_eq(average, output, overwrite=overwrite)
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
