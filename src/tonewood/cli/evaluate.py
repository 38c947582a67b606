"""`tonewood evaluate`: pairs or folders → how near to the reference they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import many, report
from tonewood.cli.options import (
    DeviceOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ParquetOption,
    RetriesOption,
    SchedulerOption,
    WorkersOption,
    finish,
)
from tonewood.errors import CallError, shown

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.files.modelfile import Model
    from tonewood.workflow.distribution import Comparison
    from tonewood.workflow.evaluate import Evaluation
    from tonewood.workflow.evaluate_page import Report
    from tonewood.workflow.layout import Failed
    from tonewood.workflow.pairs import PairFiles

Folders = tuple[Path, Path] | None


def evaluate(
    pairs: Annotated[
        Folders,
        typer.Option(
            metavar="SOURCE REFERENCE",
            readable=False,
            help="Folders of the same pieces, paired by name.",
        ),
    ] = None,
    folders: Annotated[
        Folders,
        typer.Option(
            metavar="OUTPUT REFERENCE",
            readable=False,
            help="Folders to compare as they are, without pairs.",
        ),
    ] = None,
    model: ModelOption = "cello",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", readable=False, help="Folder for a report."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(readable=False, help="CSV of the pairs, and of moments that they share."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws what is random.")] = 0,
    device: DeviceOption = "cpu",
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    retries: RetriesOption = 2,
    parquet: ParquetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Measure how near to the reference a model brings recordings whose answer is known."""
    if pairs is None and folders is None:
        raise CallError("nothing is named to evaluate: give --pairs, --folders, or both")
    if table is not None and pairs is None:
        raise CallError("--table says what belongs together in two folders: give --pairs too")
    asked = many.Many(workers, scheduler, retries, parquet)
    if asked.asked and pairs is None:
        raise CallError("workers and tables are for pairs: give --pairs, or leave them out")
    if seed < 0:
        raise CallError(f"seed is {seed}: give one from 0 on")
    from tonewood.files.modelfile import load
    from tonewood.workflow import evaluate_page
    from tonewood.workflow.train import check_device

    check_device(device)
    loaded = load(model)
    if output is not None:
        evaluate_page.prepare(output, overwrite)
    failed = total = 0
    measured = compared = None
    if pairs is not None:
        kept = evaluate_page.KEPT if output is not None else 0
        if asked.asked:
            measured = _spread(
                _pairs(pairs, table), loaded, seed, device, kept, asked, output, overwrite, json_
            )
        else:
            measured = _measure(_pairs(pairs, table), loaded, seed, device, kept, json_)
        failed, total = len(measured.failed), len(measured.failed) + len(measured.pieces)
    if folders is not None:
        compared, lost, read = _compare(folders, loaded, seed, json_)
        failed, total = failed + lost, total + read
    done = evaluate_page.Report(measured, compared)
    page = evaluate_page.write(output, done, loaded, overwrite=overwrite) if output else None
    _tell(done, page, json_)
    finish(failed, total)


def _pairs(folders: tuple[Path, Path], table: Path | None) -> "list[PairFiles | Failed]":
    """Pairs by a table, or by name."""
    from tonewood.workflow.pairs import by_name, by_table

    return list(by_table(table, *folders) if table is not None else by_name(*folders))


def _spread(
    found: "list[PairFiles | Failed]",
    model: "Model",
    seed: int,
    device: str,
    kept: int,
    asked: many.Many,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> "Evaluation":
    """Run the pairs by workers, naming those that fail."""
    from tonewood.evaluation import align
    from tonewood.workflow import evaluate as workflow
    from tonewood.workflow.inquiries import MeasureTask, PairUnit
    from tonewood.workflow.layout import Failed

    align.check()
    units: list[PairUnit | Failed] = []
    for number, it in enumerate(found):
        if isinstance(it, Failed):
            units.append(it)
        else:
            units.append(PairUnit(it.source, it, number < kept))
    pieces: list[workflow.Piece] = []

    def tell(piece: workflow.Piece) -> None:
        pieces.append(piece)
        if as_json:
            report.emit(piece.summary)

    lost = many.follow(
        units, MeasureTask(seed, device), model, asked, tell,
        folder=output, overwrite=overwrite, as_json=as_json,
    )  # fmt: skip
    order = {it.name: number for number, it in enumerate(found) if not isinstance(it, Failed)}
    pieces.sort(key=lambda it: order[it.files.name])
    return workflow.summed(pieces, lost, seed)


def _measure(
    found: "list[PairFiles | Failed]",
    model: "Model",
    seed: int,
    device: str,
    kept: int,
    as_json: bool,
) -> "Evaluation":
    """Run the pairs, naming those that fail."""
    from tonewood.terminal import EvaluatingDisplay
    from tonewood.workflow import evaluate as workflow
    from tonewood.workflow.layout import Failed
    from tonewood.workflow.pairs import Measuring

    with EvaluatingDisplay() as display:
        for event in workflow.evaluate(found, model, seed=seed, device=device, kept=kept):
            if isinstance(event, Measuring):
                display.show(event)
            elif isinstance(event, workflow.Evaluation):
                done = event
            else:
                display.clear()
                if isinstance(event, Failed):
                    report.failure(event, as_json)
                elif as_json:
                    report.emit(event.summary)
    return done


def _compare(
    folders: tuple[Path, Path], model: "Model", seed: int, as_json: bool
) -> tuple["Comparison", int, int]:
    """Run the folders; with how many files failed, of how many."""
    from tonewood.terminal import EvaluatingDisplay
    from tonewood.workflow import distribution
    from tonewood.workflow.batch import Started
    from tonewood.workflow.layout import Failed

    failed = total = 0
    with EvaluatingDisplay() as display:
        for event in distribution.compare(*folders, model, seed=seed):
            if isinstance(event, Started):
                total += 1
                display.show(event)
            elif isinstance(event, Failed):
                failed += 1
                display.clear()
                report.failure(event, as_json)
            else:
                done = event
    return done, failed, total


def _tell(done: "Report", page: Path | None, as_json: bool) -> None:
    """Tell what was found in all."""
    from tonewood.workflow.evaluate_page import folders_table, means_table

    if as_json:
        summary = done.summary
        if summary["pairs"]:
            del summary["pairs"]["pieces"]  # each has had its line
        report.emit({**summary, "page": str(page) if page else None})
        return
    if done.pairs:
        _print(means_table(done.pairs))
    if done.folders:
        _print(folders_table(done.folders))
    if page:
        print(f"page       {shown(page)}")


def _print(rows: list[list[str]]) -> None:
    """Print a table, its columns as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        print(f"{first:<{widths[0]}}  " + "  ".join(cells))
