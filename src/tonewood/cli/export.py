"""`tonewood export`: a correction → what other programs play: responses, bands, automation."""

from pathlib import Path
from typing import Annotated, cast

import typer

from tonewood.cli import report
from tonewood.cli.options import JsonOption, OverwriteOption, check_output_path
from tonewood.errors import CallError, printable


def export_command(
    correction: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|MODEL", help="Recipe, or the output it lies beside; or a model."
        ),
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
        typer.Option(
            "--format", help="--peq: apo, autoeq, rew, camilladsp; --automation: csv, jsfx."
        ),
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
    from tonewood.signal.impulse import Phase
    from tonewood.workflow import corrections
    from tonewood.workflow import export as workflow

    if (ir is not None) + (peq is not None) + automation != 1:
        raise CallError("one kind at a time: give --ir linear|minimum, --peq N or --automation")
    if form is not None and ir is not None:
        raise CallError("--format is of --peq and --automation: leave it out")
    if headroom and automation:
        raise CallError("--headroom is of --ir and --peq: leave it out")
    check_output_path(output, overwrite)
    found = corrections.load_correction(correction)
    average = workflow.AverageCurve(found, headroom)
    if ir is not None:
        done = workflow.export_impulse_response(
            average,
            cast("Phase", ir),
            output,
            rate=rate,
            length=length,
            overwrite=overwrite,
        )
    elif peq is not None:
        done = workflow.export_parametric_eq(average, peq, output, file_format=form, rate=rate, overwrite=overwrite)
    else:
        done = workflow.export_automation(
            found, output, file_format=form, step_s=step, rate=rate, overwrite=overwrite
        )
    if done.warning:
        report.print_stderr(f"warning: {printable(done.output)}: {done.warning}")
    if json_:
        report.print_json({"input": correction, "output": str(done.output), **done.data})
        return
    print(printable(done.output))
    for line in done.lines:
        print(f"  {line}")
