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
from tonewood.errors import printable

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.scoring.saliency import SaliencyMethod
    from tonewood.workflow.explain import ExplanationFigures, TargetClass
    from tonewood.workflow.explain_files import SkippedExplanation, ExplainedFile, ExplanationTable
    from tonewood.workflow.inquiries import ExplainResult


def explain_command(
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
    from tonewood.files.modelfile import load_model
    from tonewood.workflow import explain_files as workflow
    from tonewood.workflow.inquiries import ExplainTask
    from tonewood.workflow.layout import FileFailure
    from tonewood.workflow.units import WorkItem

    asked = workflow.ExplainOptions(
        cast("TargetClass", side), cast("SaliencyMethod", method), parts=not no_parts, listen=listen
    )
    workflow.check_explain_options(asked)
    loaded = load_model(model)
    laid = workflow.plan_explanations(inputs, output)
    many_ = many.BatchOptions(workers, scheduler, retries, parquet)
    folder = None if output.suffix.lower() in workflow.PAGE_SUFFIXES else output
    # Where there is a table, this run goes on, and the page of all is made anew.
    again = overwrite or many_.can_resume(folder)
    if len(laid) > 1:
        workflow.check_explanation_index(output, again)
    done: dict[Path, ExplanationFigures] = {}

    def tell(event: "ExplainResult") -> None:
        made, figures = event
        done[made.output] = figures
        if isinstance(made, workflow.SkippedExplanation):
            _print_skipped(made, json_)
        else:
            _print_explained(made, json_)

    units = [it if isinstance(it, FileFailure) else WorkItem(*it) for it in laid]
    task = ExplainTask(asked, output, overwrite=overwrite, seed=seed)
    failed = many.run_and_report(
        units, task, loaded, many_, tell, folder=folder, overwrite=overwrite, as_json=json_
    )
    if len(laid) > 1 and done:
        inside = [done[it.output] for it in units if isinstance(it, WorkItem) and it.output in done]
        _print_summary_table(workflow.write_explanation_table(inside, output, loaded, overwrite=again, seed=seed), json_)
    many.finish_batch(failed, len(laid), many_.table_location(folder))


def _print_skipped(skipped: "SkippedExplanation", as_json: bool) -> None:
    """Tell of a recording that an earlier run explained."""
    if as_json:
        report.print_json({"input": str(skipped.input), "output": str(skipped.output), "already": True})
    else:
        print(f"{printable(skipped.input)}\n  already {printable(skipped.output)}")


def _print_explained(explained: "ExplainedFile", as_json: bool) -> None:
    """Tell what was heard in one recording."""
    for warning in explained.warnings:
        report.print_stderr(f"warning: {printable(explained.input)}: {warning}")
    found = explained.explanation
    if as_json:
        report.print_json(
            {
                "input": str(explained.input),
                "output": str(explained.output),
                "sounds": [str(path) for path in explained.sounds],
                **found.summary,
                "parts": [it.model_dump(mode="json") for it in explained.parts],
                "seconds": explained.seconds,
                "warnings": list(explained.warnings),
            }
        )
        return
    print(printable(explained.input))
    print(f"  {'picture' if explained.output.suffix.lower() == '.png' else 'page':<8}", end="")
    print(printable(explained.output))
    for name, path in zip(("used", "rest"), explained.sounds, strict=False):
        print(f"  {name:<8}{printable(path)}")
    print(f"  score   {found.score:.2f}   (1 sounds like the source, 0 like the reference)")
    heaviest = sorted(explained.parts, key=lambda it: -it.evidence.mean)
    named = ", ".join(f"{it.name} {it.evidence.mean:.1f}" for it in heaviest)
    if named:
        print(f"  logit   {found.logit:.1f} for the {found.side}: {named}")
    print(f"  map     {found.faithfulness.line}")


def _print_summary_table(summary_table: "ExplanationTable", as_json: bool) -> None:
    """Tell what the parts of several recordings weigh."""
    if as_json:
        report.print_json({"page": str(summary_table.page), **summary_table.summary})
        return
    from tonewood.workflow.explain_page import octaves_table, parts_table

    for table in (parts_table(summary_table.parts) if summary_table.parts else [], octaves_table(summary_table.octaves)):
        for name, *figures in table:
            print(f"{name:<12}" + "".join(f"{figure:>24}" for figure in figures))
    print(f"page        {printable(summary_table.page)}")
