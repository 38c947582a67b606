"""`tonewood export`: a correction → what other programs play: responses, bands, automation."""

from pathlib import Path
from typing import Annotated, cast

import typer

from tonewood.cli import report
from tonewood.cli.options import JsonOption, OverwriteOption, check_target
from tonewood.errors import CallError, shown


def export(
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
    check_target(output, overwrite)
    found = corrections.load(correction)
    average = workflow.Average(found, headroom)
    if ir is not None:
        done = workflow.impulse(
            average,
            cast("Phase", ir),
            output,
            rate=rate,
            length=length,
            overwrite=overwrite,
        )
    elif peq is not None:
        done = workflow.parametric(average, peq, output, form=form, rate=rate, overwrite=overwrite)
    else:
        done = workflow.moving(
            found, output, form=form, step_s=step, rate=rate, overwrite=overwrite
        )
    if done.warning:
        report.say(f"warning: {shown(done.output)}: {done.warning}")
    if json_:
        report.emit({"input": correction, "output": str(done.output), **done.figures})
        return
    print(shown(done.output))
    for line in done.lines:
        print(f"  {line}")
