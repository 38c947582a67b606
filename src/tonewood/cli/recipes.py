"""`tonewood apply`: a recipe's correction → other takes, or stems of the same.

`tonewood render`: a recipe → the same bytes again.

`tonewood diff`: two recipes or models → what changed, in musicians' words.

`tonewood export`: a correction → what other programs play: responses, bands, automation.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tonewood.cli import common
from tonewood.cli.common import (
    DeviceOption,
    InputsArgument,
    JsonOption,
    OutputOption,
    OverwriteOption,
    RecipeArgument,
    check_output_path,
)
from tonewood.cli.enhance import show_file_events
from tonewood.errors import CallError, printable

if TYPE_CHECKING:
    from tonewood.export.diff import CorrectionDifference


def apply_command(
    recipe: RecipeArgument,
    inputs: InputsArgument,
    output: OutputOption,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="Model file or name; else the bundled one that the recipe names."),
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
    from tonewood.batch import enhance_file
    from tonewood.enhancement import output_files, reapply
    from tonewood.model.model import load_model
    from tonewood.utils.device import check_device

    if static_only and same_mask:
        raise CallError("--static-only and --same-mask cannot both be had: leave one")
    check_device(device)
    how: reapply.TransferMode = "static" if static_only else "same" if same_mask else "prior"
    first, carried = reapply.load_transfer(recipe, how)
    loaded = load_model(model or first.model.name)
    if loaded.digest != first.model.digest:
        common.print_stderr(
            f"warning: model {loaded.name} is not the one of that recipe: what it finds by itself "
            "is another's"
        )
    laid = output_files.plan_file_jobs(inputs, output)
    settings = reapply.transfer_settings(first, how)
    events = enhance_file.enhance_files(
        laid, loaded, settings, plot=plot, overwrite=overwrite, device=device, transfer=carried
    )
    show_file_events(events, len(laid), 0, json_)


def render_command(
    recipe: RecipeArgument,
    input_path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[INPUT]",
            readable=False,
            help="The recording; else it is looked for beside the recipe and the output.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", readable=False, help="File, or a folder that is there."),
    ] = ...,  # type: ignore[assignment]
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Make a recipe's output again: the same bytes."""
    from tonewood.enhancement import reapply

    done = reapply.render_recipe(recipe, input_path, output, overwrite=overwrite)
    if json_:
        common.print_json(
            {
                "recipe": str(done.recipe),
                "input": str(done.input),
                "output": str(done.output),
                "sha256": done.sha256,
                "same": done.identical,
            }
        )
    else:
        print(printable(done.input))
        print(f"  recipe   {printable(done.recipe)}")
        print(f"  sound    {printable(done.output)}")
        if done.identical:
            print("  bytes    the same as the first time")
    if done.identical is False:
        common.print_stderr(
            f"warning: {printable(done.output)}: not the bytes of the first time, which another "
            "version or another machine's arithmetic made"
        )


_CorrectionArgument = Annotated[
    str, typer.Argument(help="Recipe, or the output it lies beside; model file, or model's name.")
]


def diff_command(a: _CorrectionArgument, b: _CorrectionArgument, json_: JsonOption = False) -> None:
    """Say what changed from A to B: where, by how many dB, and when."""
    from tonewood.export import export
    from tonewood.export.diff import compare_corrections

    found = compare_corrections(export.load_correction(a), export.load_correction(b))
    if json_:
        common.print_json({**found.model_dump(mode="json"), "line": found.line})
    else:
        _print_difference(found)


def _print_difference(found: "CorrectionDifference") -> None:
    """Tell a difference: a sentence, the registers, the moments, the settings."""
    print(f"{found.a} → {found.b}")
    print(f"  {found.line}")
    print(f"  {'':<12}{'Hz':>13}{'A':>8}{'B':>8}{'change':>9}")
    for it in found.registers:
        span = f"{it.low_hz:.0f}–{it.high_hz:.0f}"
        print(f"  {it.name:<12}{span:>13}{it.a_db:>+8.1f}{it.b_db:>+8.1f}{it.change_db:>+9.1f} dB")
    for name, a, b, unit in (
        ("tilt", found.tilt_a, found.tilt_b, "dB per octave"),
        ("level", found.gain_a, found.gain_b, "dB"),
    ):
        print(f"  {name:<25}{a:>+8.1f}{b:>+8.1f}{b - a:>+9.1f} {unit}")
    for passage in found.passages:
        span = f"{common.format_time(passage.start_s)} to {common.format_time(passage.end_s)}"
        print(f"  when        {passage.name} {passage.change_db:+.1f} dB from {span}")
    for stated in found.stated:
        print(f"  {stated.name}: {stated.a} → {stated.b}")
    if not found.moments:
        print("  compared by their averages: they are not of one take")


def export_command(
    correction: Annotated[
        str,
        typer.Argument(metavar="RECIPE|MODEL", help="Recipe, or the output it lies beside; or a model."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", readable=False, help="File to write.")],
    ir: Annotated[
        str | None,
        typer.Option("--ir", help="Impulse response of the average: linear or minimum phase."),
    ] = None,
    peq: Annotated[
        int | None, typer.Option("--peq", help="So many parametric bands for the average, 1 to 20.")
    ] = None,
    automation: Annotated[
        bool, typer.Option("--automation", help="What moves: third octaves over time.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option("--format", help="--peq: apo, autoeq, rew, camilladsp; --automation: csv, jsfx."),
    ] = None,
    rate: Annotated[int, typer.Option(help="That it will be played at, Hz.")] = 48_000,
    length: Annotated[
        int | None, typer.Option(help="Of an impulse response, samples; else a sixth of a second.")
    ] = None,
    step: Annotated[float, typer.Option(help="From row to row of automation, s.")] = 0.05,
    headroom: Annotated[
        bool, typer.Option("--headroom", help="Lower all of it until nothing is raised.")
    ] = False,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Hand a correction to other programs, as an EQ or as automation."""
    from tonewood.dsp.equalizer import Phase
    from tonewood.export import export

    if (ir is not None) + (peq is not None) + automation != 1:
        raise CallError("one kind at a time: give --ir linear|minimum, --peq N or --automation")
    if form is not None and ir is not None:
        raise CallError("--format is of --peq and --automation: leave it out")
    if headroom and automation:
        raise CallError("--headroom is of --ir and --peq: leave it out")
    check_output_path(output, overwrite)
    found = export.load_correction(correction)
    average = export.AverageCurve(found, headroom)
    if ir is not None:
        done = export.export_impulse_response(
            average,
            cast("Phase", ir),
            output,
            rate=rate,
            length=length,
            overwrite=overwrite,
        )
    elif peq is not None:
        done = export.export_parametric_eq(
            average, peq, output, file_format=form, rate=rate, overwrite=overwrite
        )
    else:
        done = export.export_automation(
            found, output, file_format=form, step_s=step, rate=rate, overwrite=overwrite
        )
    if done.warning:
        common.print_stderr(f"warning: {printable(done.output)}: {done.warning}")
    if json_:
        common.print_json({"input": correction, "output": str(done.output), **done.data})
        return
    print(printable(done.output))
    for line in done.lines:
        print(f"  {line}")
