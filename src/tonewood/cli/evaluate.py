"""`tonewood evaluate`: pairs or folders → how near to the reference they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import common
from tonewood.cli.common import (
    DeviceOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ParquetOption,
    RetriesOption,
    SchedulerOption,
    WorkersOption,
    exit_if_failed,
)
from tonewood.errors import CallError, printable

if TYPE_CHECKING:
    from tonewood.enhancement.output_files import FileFailure
    from tonewood.evaluation.frechet import FolderComparison
    from tonewood.evaluation.pairs import PairFiles
    from tonewood.evaluation.pipeline import Evaluation
    from tonewood.evaluation.report import EvaluationReport
    from tonewood.model.model import Model

FolderPair = tuple[Path, Path] | None


def evaluate_command(
    pairs: Annotated[
        FolderPair,
        typer.Option(
            metavar="SOURCE REFERENCE",
            readable=False,
            help="Folders of the same pieces, paired by name.",
        ),
    ] = None,
    folders: Annotated[
        FolderPair,
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
    asked = common.BatchOptions(workers, scheduler, retries, parquet)
    if asked.is_requested and pairs is None:
        raise CallError("workers and tables are for pairs: give --pairs, or leave them out")
    if seed < 0:
        raise CallError(f"seed is {seed}: give one from 0 on")
    from tonewood.evaluation import report as evaluate_page
    from tonewood.model.model import load_model
    from tonewood.utils.device import check_device

    check_device(device)
    loaded = load_model(model)
    if output is not None:
        evaluate_page.prepare_evaluation_report(output, overwrite)
    failed = total = 0
    measured = compared = None
    if pairs is not None:
        kept = evaluate_page.AUDIBLE_PAIRS if output is not None else 0
        if asked.is_requested:
            measured = _measure_batch(
                _find_pair_files(pairs, table),
                loaded,
                seed,
                device,
                kept,
                asked,
                output,
                overwrite,
                json_,
            )
        else:
            measured = _measure_locally(_find_pair_files(pairs, table), loaded, seed, device, kept, json_)
        failed, total = len(measured.failed), len(measured.failed) + len(measured.pairs)
    if folders is not None:
        compared, lost, read = _compare_folders(folders, loaded, seed, json_)
        failed, total = failed + lost, total + read
    done = evaluate_page.EvaluationReport(measured, compared)
    page = (
        evaluate_page.write_evaluation_report(output, done, loaded, overwrite=overwrite) if output else None
    )
    _print_evaluation(done, page, json_)
    exit_if_failed(failed, total)


def _find_pair_files(folders: tuple[Path, Path], table: Path | None) -> "list[PairFiles | FileFailure]":
    """Pairs by a table, or by name."""
    from tonewood.evaluation.pairs import pairs_by_name, pairs_from_table

    return list(pairs_from_table(table, *folders) if table is not None else pairs_by_name(*folders))


def _measure_batch(
    pairs: "list[PairFiles | FileFailure]",
    model: "Model",
    seed: int,
    device: str,
    examples: int,
    batch_options: common.BatchOptions,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> "Evaluation":
    """Run the pairs by workers, naming those that fail."""
    from tonewood.batch.tasks import MeasureTask, PairItem
    from tonewood.enhancement.output_files import FileFailure
    from tonewood.evaluation import alignment, pipeline

    alignment.require_synctoolbox()
    units: list[PairItem | FileFailure] = []
    for number, it in enumerate(pairs):
        if isinstance(it, FileFailure):
            units.append(it)
        else:
            units.append(PairItem(it.source, it, number < examples))
    pieces: list[pipeline.PairResult] = []

    def tell(piece: pipeline.PairResult) -> None:
        pieces.append(piece)
        if as_json:
            common.print_json(piece.summary)

    lost = common.run_and_report(
        units, MeasureTask(seed, device), model, batch_options, tell,
        folder=output, overwrite=overwrite, as_json=as_json,
    )  # fmt: skip
    order = {it.name: number for number, it in enumerate(pairs) if not isinstance(it, FileFailure)}
    pieces.sort(key=lambda it: order[it.files.name])
    return pipeline.summarize_evaluation(pieces, lost, seed)


def _measure_locally(
    pairs: "list[PairFiles | FileFailure]",
    model: "Model",
    seed: int,
    device: str,
    examples: int,
    as_json: bool,
) -> "Evaluation":
    """Run the pairs, naming those that fail."""
    from tonewood.cli.progress import EvaluatingDisplay
    from tonewood.enhancement.output_files import FileFailure
    from tonewood.evaluation import pipeline
    from tonewood.evaluation.pairs import MeasureProgress

    with EvaluatingDisplay() as display:
        for event in pipeline.evaluate_pairs(pairs, model, seed=seed, device=device, audible_pairs=examples):
            if isinstance(event, MeasureProgress):
                display.show(event)
            elif isinstance(event, pipeline.Evaluation):
                done = event
            else:
                display.clear()
                if isinstance(event, FileFailure):
                    common.print_failure(event, as_json)
                elif as_json:
                    common.print_json(event.summary)
    return done


def _compare_folders(
    folders: tuple[Path, Path], model: "Model", seed: int, as_json: bool
) -> tuple["FolderComparison", int, int]:
    """Run the folders; with how many files failed, of how many."""
    from tonewood.cli.progress import EvaluatingDisplay
    from tonewood.enhancement.output_files import FileFailure, FileStarted
    from tonewood.evaluation import frechet

    failed = total = 0
    with EvaluatingDisplay() as display:
        for event in frechet.compare_folder_sound(*folders, model, seed=seed):
            if isinstance(event, FileStarted):
                total += 1
                display.show(event)
            elif isinstance(event, FileFailure):
                failed += 1
                display.clear()
                common.print_failure(event, as_json)
            else:
                done = event
    return done, failed, total


def _print_evaluation(evaluation_report: "EvaluationReport", page: Path | None, as_json: bool) -> None:
    """Tell what was found in all."""
    from tonewood.evaluation.report import folders_table, means_table

    if as_json:
        summary = evaluation_report.summary
        if summary["pairs"]:
            del summary["pairs"]["pieces"]  # each has had its line
        common.print_json({**summary, "page": str(page) if page else None})
        return
    if evaluation_report.pairs:
        _print_columns(means_table(evaluation_report.pairs))
    if evaluation_report.folders:
        _print_columns(folders_table(evaluation_report.folders))
    if page:
        print(f"page       {printable(page)}")


def _print_columns(rows: list[list[str]]) -> None:
    """Print a table, its columns as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        print(f"{first:<{widths[0]}}  " + "  ".join(cells))
