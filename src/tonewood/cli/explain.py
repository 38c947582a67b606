"""`tonewood explain`: recordings → what the scorer heard in them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tonewood.cli import many, report
from tonewood.cli.options import (
    InputsArgument,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ParquetOption,
    RetriesOption,
    SchedulerOption,
    WorkersOption,
)
from tonewood.errors import shown

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.scoring.saliency import Method
    from tonewood.workflow.explain import Figures, Side
    from tonewood.workflow.explain_files import Already, Explained, Tabulated
    from tonewood.workflow.inquiries import Told


def explain(
    inputs: InputsArgument,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", readable=False, help="Picture .png or page .html; or a folder."
        ),
    ],
    model: ModelOption = "cello",
    side: Annotated[
        str, typer.Option("--for", help="What speaks for it: reference or source.")
    ] = "reference",
    method: Annotated[
        str,
        typer.Option(help="cam: class activation maps; integrated: finer gradients; gradcam."),
    ] = "cam",
    listen: Annotated[
        bool, typer.Option("--listen", help="Write what the scorer used, and the rest, as sound.")
    ] = False,
    no_parts: Annotated[
        bool, typer.Option("--no-parts", help="Leave out vibrato, attack and their like.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Draws random regions and intervals.", min=0)] = 0,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    retries: RetriesOption = 2,
    parquet: ParquetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Show what the scorer heard: where, in which parts of notes, and how surely."""
    from tonewood.files.modelfile import load
    from tonewood.workflow import explain_files as workflow
    from tonewood.workflow.inquiries import ExplainTask
    from tonewood.workflow.layout import Failed
    from tonewood.workflow.units import Unit

    asked = workflow.Asked(
        cast("Side", side), cast("Method", method), parts=not no_parts, listen=listen
    )
    workflow.check(asked)
    loaded = load(model)
    laid = workflow.layout(inputs, output)
    many_ = many.Many(workers, scheduler, retries, parquet)
    folder = None if output.suffix.lower() in workflow.PAGES else output
    # Where there is a table, this run goes on, and the page of all is made anew.
    again = overwrite or many_.goes_on(folder)
    if len(laid) > 1:
        workflow.check_index(output, again)
    done: dict[Path, Figures] = {}

    def tell(event: "Told") -> None:
        made, figures = event
        done[made.output] = figures
        if isinstance(made, workflow.Already):
            _tell_already(made, json_)
        else:
            _tell(made, json_)

    units = [it if isinstance(it, Failed) else Unit(*it) for it in laid]
    task = ExplainTask(asked, output, overwrite=overwrite, seed=seed)
    failed = many.follow(
        units, task, loaded, many_, tell, folder=folder, overwrite=overwrite, as_json=json_
    )
    if len(laid) > 1 and done:
        inside = [done[it.output] for it in units if isinstance(it, Unit) and it.output in done]
        _tell_all(workflow.tabulate(inside, output, loaded, overwrite=again, seed=seed), json_)
    many.finished(failed, len(laid), many_.table(folder))


def _tell_already(done: "Already", as_json: bool) -> None:
    """Tell of a recording that an earlier run explained."""
    if as_json:
        report.emit({"input": str(done.input), "output": str(done.output), "already": True})
    else:
        print(f"{shown(done.input)}\n  already {shown(done.output)}")


def _tell(done: "Explained", as_json: bool) -> None:
    """Tell what was heard in one recording."""
    for warning in done.warnings:
        report.say(f"warning: {shown(done.input)}: {warning}")
    found = done.explanation
    if as_json:
        report.emit(
            {
                "input": str(done.input),
                "output": str(done.output),
                "sounds": [str(path) for path in done.sounds],
                **found.summary,
                "parts": [it.model_dump(mode="json") for it in done.parts],
                "seconds": done.seconds,
                "warnings": list(done.warnings),
            }
        )
        return
    print(shown(done.input))
    print(f"  {'picture' if done.output.suffix.lower() == '.png' else 'page':<8}", end="")
    print(shown(done.output))
    for name, path in zip(("used", "rest"), done.sounds, strict=False):
        print(f"  {name:<8}{shown(path)}")
    print(f"  score   {found.score:.2f}   (1 sounds like the source, 0 like the reference)")
    heaviest = sorted(done.parts, key=lambda it: -it.evidence.mean)
    named = ", ".join(f"{it.name} {it.evidence.mean:.1f}" for it in heaviest)
    if named:
        print(f"  logit   {found.logit:.1f} for the {found.side}: {named}")
    print(f"  map     {found.faithful.line}")


def _tell_all(done: "Tabulated", as_json: bool) -> None:
    """Tell what the parts of several recordings weigh."""
    if as_json:
        report.emit({"page": str(done.page), **done.summary})
        return
    from tonewood.workflow.explain_page import octaves_table, parts_table

    for table in (parts_table(done.parts) if done.parts else [], octaves_table(done.octaves)):
        for name, *figures in table:
            print(f"{name:<12}" + "".join(f"{figure:>24}" for figure in figures))
    print(f"page        {shown(done.page)}")
