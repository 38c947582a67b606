"""`tonewood score`: recordings → what scorer and judge say of them.

`tonewood info`: a model's card.

`tonewood onnx`: a part of a model for other runtimes.

`tonewood explain`: recordings → what the scorer heard in them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tonewood.cli import common
from tonewood.cli.common import (
    InputsArgument,
    JsonOption,
    LocationsArgument,
    ModelOption,
    OverwriteOption,
    ParquetOption,
    RetriesOption,
    SchedulerOption,
    WorkersOption,
    check_output_path,
)
from tonewood.errors import CallError, TonewoodError, printable

if TYPE_CHECKING:
    from tonewood.batch.enhance_file import FileScored
    from tonewood.batch.tasks import ExplainResult
    from tonewood.explanation.files import ExplainedFile, ExplanationTable, SkippedExplanation
    from tonewood.explanation.pipeline import ExplanationFigures, TargetClass
    from tonewood.model.onnx import ModelPart
    from tonewood.scorer.saliency import SaliencyMethod


def score_command(
    inputs: LocationsArgument,
    model: ModelOption = "cello",
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    retries: RetriesOption = 2,
    parquet: ParquetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Score recordings: 0 sounds like the reference, 1 like the source."""
    from tonewood.audio_io.remote import parse_location
    from tonewood.batch import runner
    from tonewood.batch.tasks import ScoreTask, WorkItem
    from tonewood.enhancement.output_files import FileFailure
    from tonewood.model.model import load_model

    loaded = load_model(model)
    asked = common.BatchOptions(workers, scheduler, retries, parquet)
    units: list[WorkItem | FileFailure] = []
    for item in inputs:
        for found, relative in runner.expand_input(parse_location(item)):
            if isinstance(relative, TonewoodError):
                units.append(FileFailure(found, relative))
            else:
                units.append(WorkItem(found))
    titled = json_

    def tell(done: "FileScored") -> None:
        nonlocal titled
        if not titled:
            print("scorer  judge  recording")
            titled = True
        _print_score(done, json_)

    failed = common.run_and_report(
        units, ScoreTask(), loaded, asked, tell, overwrite=overwrite, as_json=json_
    )
    common.finish_batch(failed, len(units), asked.table_location(None))


def _print_score(done: "FileScored", as_json: bool) -> None:
    """Tell the scores of one recording."""
    result = done.score
    if as_json:
        common.print_json(
            {
                "input": str(done.input),
                "scorer": result.scorer,
                "judge": result.judge,
                "windows": list(result.windows),
            }
        )
        return
    judge = "    -" if result.judge is None else f"{result.judge:5.2f}"
    print(f"{result.scorer:6.2f}  {judge}  {printable(done.input)}")


def info_command(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a bundled model.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="As the page that model hubs show.")] = False,
    json_: JsonOption = False,
) -> None:
    """Show a model's card."""
    from tonewood.model import card_text
    from tonewood.model.model_file import read_model_file

    if markdown and json_:
        raise CallError("--markdown and --json cannot both be had: leave one")
    found = read_model_file(model)
    if markdown:
        print(card_text.card_markdown(found), end="")
    elif json_:
        common.print_json({"model": model, "digest": found.digest, **common.card_json(found)})
    else:
        print(f"model      {printable(model)}")
        common.print_card(found)


def onnx_command(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a bundled model.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", readable=False, help="File to write, as in a.onnx.")
    ],
    part: Annotated[str, typer.Option(help="scorer or predictor.")] = "scorer",
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Write a model's scorer or predictor as an ONNX file."""
    from tonewood.model import onnx
    from tonewood.model.model import load_model

    check_output_path(output, overwrite)
    loaded = load_model(model)
    onnx.export_onnx(loaded, cast("ModelPart", part), output, overwrite=overwrite)
    if json_:
        told = {"model": model, "part": part, "file": str(output), "opset": onnx.ONNX_OPSET}
        common.print_json({**told, "digest": loaded.digest})
    else:
        print(f"{part}  {printable(output)} (opset {onnx.ONNX_OPSET})")


def explain_command(
    inputs: InputsArgument,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", readable=False, help="Picture .png or page .html; or a folder."),
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
    from tonewood.batch.tasks import ExplainTask, WorkItem
    from tonewood.enhancement.output_files import FileFailure
    from tonewood.explanation import files
    from tonewood.model.model import load_model

    asked = files.ExplainOptions(
        cast("TargetClass", side), cast("SaliencyMethod", method), parts=not no_parts, listen=listen
    )
    files.check_explain_options(asked)
    loaded = load_model(model)
    laid = files.plan_explanations(inputs, output)
    many_ = common.BatchOptions(workers, scheduler, retries, parquet)
    folder = None if output.suffix.lower() in files.PAGE_SUFFIXES else output
    # Where there is a table, this run goes on, and the page of all is made anew.
    again = overwrite or many_.can_resume(folder)
    if len(laid) > 1:
        files.check_explanation_index(output, again)
    done: dict[Path, ExplanationFigures] = {}

    def tell(event: "ExplainResult") -> None:
        made, figures = event
        done[made.output] = figures
        if isinstance(made, files.SkippedExplanation):
            _print_skipped(made, json_)
        else:
            _print_explained(made, json_)

    units = [it if isinstance(it, FileFailure) else WorkItem(*it) for it in laid]
    task = ExplainTask(asked, output, overwrite=overwrite, seed=seed)
    failed = common.run_and_report(
        units, task, loaded, many_, tell, folder=folder, overwrite=overwrite, as_json=json_
    )
    if len(laid) > 1 and done:
        inside = [done[it.output] for it in units if isinstance(it, WorkItem) and it.output in done]
        _print_summary_table(
            files.write_explanation_table(inside, output, loaded, overwrite=again, seed=seed), json_
        )
    common.finish_batch(failed, len(laid), many_.table_location(folder))


def _print_skipped(skipped: "SkippedExplanation", as_json: bool) -> None:
    """Tell of a recording that an earlier run explained."""
    if as_json:
        common.print_json({"input": str(skipped.input), "output": str(skipped.output), "already": True})
    else:
        print(f"{printable(skipped.input)}\n  already {printable(skipped.output)}")


def _print_explained(explained: "ExplainedFile", as_json: bool) -> None:
    """Tell what was heard in one recording."""
    for warning in explained.warnings:
        common.print_stderr(f"warning: {printable(explained.input)}: {warning}")
    found = explained.explanation
    if as_json:
        common.print_json(
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
        common.print_json({"page": str(summary_table.page), **summary_table.summary})
        return
    from tonewood.explanation.report import octaves_table, parts_table

    for table in (
        parts_table(summary_table.parts) if summary_table.parts else [],
        octaves_table(summary_table.octaves),
    ):
        for name, *figures in table:
            print(f"{name:<12}" + "".join(f"{figure:>24}" for figure in figures))
    print(f"page        {printable(summary_table.page)}")
