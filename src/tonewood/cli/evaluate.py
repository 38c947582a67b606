"""Command `evaluate`: measure the distance to the reference, on pairs or on whole folders."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tonewood.cli import common
from tonewood.cli.common import (
    LOCAL_BATCH,
    BatchOptions,
    JsonOption,
    ModelOption,
    OverwriteOption,
    SeedOption,
    with_option_groups,
)
from tonewood.errors import CallError, printable

if TYPE_CHECKING:
    from tonewood.enhancement.output_files import FileFailure
    from tonewood.evaluation.metrics import FolderComparison
    from tonewood.evaluation.pipeline import Evaluation, PairFiles
    from tonewood.evaluation.report import EvaluationReport
    from tonewood.model.model import Model

FolderPair = tuple[Path, Path] | None


@with_option_groups(batch=BatchOptions)
def evaluate_command(
    pairs: Annotated[
        FolderPair,
        typer.Option(
            metavar="SOURCE REFERENCE",
            readable=False,
            help="Folders with the same pieces, paired by file name.",
        ),
    ] = None,
    folders: Annotated[
        FolderPair,
        typer.Option(
            metavar="OUTPUT REFERENCE",
            readable=False,
            help="Folders to compare without pairs.",
        ),
    ] = None,
    model: ModelOption = "cello",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", readable=False, help="Report folder."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(readable=False, help="CSV file of the pairs, and of times that correspond."),
    ] = None,
    seed: SeedOption = 0,
    batch: BatchOptions = LOCAL_BATCH,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Measure how close to the reference a model brings recordings."""
    if pairs is None and folders is None:
        raise CallError("there is nothing to evaluate: give --pairs, --folders, or both")
    if table is not None and pairs is None:
        raise CallError("--table describes the pairs of two folders: give --pairs too")
    if batch.is_requested and pairs is None:
        raise CallError("--workers, --scheduler and --parquet need pairs: give --pairs, or omit them")
    from tonewood.evaluation import report
    from tonewood.model.model import load_model

    loaded = load_model(model)
    # Before the measurements, which take minutes: an output that cannot be written ends the call now.
    if output is not None:
        report.prepare_evaluation_report(output, overwrite)
    total = 0
    failures: list[FileFailure] = []
    measured = compared = None
    if pairs is not None:
        examples = report.AUDIBLE_PAIRS if output is not None else 0
        measured = _measure_pairs(
            _find_pair_files(pairs, table), loaded, seed, examples, batch, output, overwrite, json_
        )
        failures += measured.failed
        total = len(measured.failed) + len(measured.pairs)
    if folders is not None:
        folder_run = _compare_folders(folders, loaded, seed, json_, batch.quiet)
        compared = folder_run.comparison
        failures += folder_run.failures
        total += folder_run.total
    results = report.EvaluationReport(measured, compared)
    page = report.write_evaluation_report(output, results, loaded, overwrite=overwrite) if output else None
    left_out = common.left_out_of_folders(*(pairs or ()), *(folders or ())).left_out
    unfinished = common.Unfinished(failures, left_out)
    if json_ or not batch.quiet:
        _print_evaluation(results, loaded, page, unfinished, json_)
    listed = common.where_failures_are_listed(batch.table_location(output)) if pairs else ""
    unfinished.exit(total, listed)


def _find_pair_files(folders: tuple[Path, Path], table: Path | None) -> "list[PairFiles | FileFailure]":
    """Return the pairs of a table, or pairs by file name."""
    from tonewood.evaluation.pipeline import pairs_by_name, pairs_from_table

    return list(pairs_from_table(table, *folders) if table is not None else pairs_by_name(*folders))


def _measure_pairs(
    pairs: "list[PairFiles | FileFailure]",
    model: "Model",
    seed: int,
    examples: int,
    batch: BatchOptions,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> "Evaluation":
    """Measure the pairs, and name those that fail; keep the audio of the first ones."""
    from tonewood.batch.analysis_tasks import MeasureTask, PairItem
    from tonewood.cli.progress import PairsDisplay
    from tonewood.enhancement.output_files import FileFailure
    from tonewood.evaluation.alignment import require_synctoolbox
    from tonewood.evaluation.pipeline import PairResult, summarize_evaluation

    require_synctoolbox()
    items = [
        files if isinstance(files, FileFailure) else PairItem(files.source, files, number < examples)
        for number, files in enumerate(pairs)
    ]
    results: list[PairResult] = []

    def show_result(pair: PairResult) -> None:
        results.append(pair)
        if as_json:
            common.print_json(pair.summary)

    task = MeasureTask(seed)
    failures = common.run_and_report(
        items, task, model, batch, show_result,
        display=PairsDisplay(task), folder=output, overwrite=overwrite, as_json=as_json,
    )  # fmt: skip
    # Workers finish in any order; the report must not depend on it.
    order = {files.name: number for number, files in enumerate(pairs) if not isinstance(files, FileFailure)}
    results.sort(key=lambda pair: order[pair.files.name])
    return summarize_evaluation(results, failures, seed)


class _FolderRun(NamedTuple):
    """Comparison of two folders, the files that failed, and the number of all files."""

    comparison: "FolderComparison"
    failures: "list[FileFailure]"
    total: int


def _compare_folders(
    folders: tuple[Path, Path], model: "Model", seed: int, as_json: bool, is_quiet: bool
) -> _FolderRun:
    """Compare two folders, and print the files that fail."""
    from tonewood.cli.progress import FilesDisplay
    from tonewood.enhancement.output_files import FileFailure, FileStarted
    from tonewood.evaluation import metrics

    total = 0
    failures: list[FileFailure] = []
    with FilesDisplay() as display:
        display.is_quiet = is_quiet
        for event in metrics.compare_folder_sound(*folders, model, seed=seed):
            if isinstance(event, FileStarted):
                total += 1
                display.show(event)
            elif isinstance(event, FileFailure):
                failures.append(event)
                display.clear()
                common.print_failure(event, as_json)
            else:
                comparison = event
    return _FolderRun(comparison, failures, total)


def _print_evaluation(
    evaluation_report: "EvaluationReport",
    model: "Model",
    page: Path | None,
    unfinished: common.Unfinished,
    as_json: bool,
) -> None:
    """Print the tables over all pairs and folders."""
    from tonewood.evaluation.report import folders_table, means_table

    if as_json:
        summary = evaluation_report.summary
        if summary["pairs"]:
            del summary["pairs"]["pieces"]  # each was printed on its own line
        page_name, skipped = str(page) if page else None, unfinished.skipped_json
        head = {"model": model.name, "digest": model.digest}
        common.print_json({**head, **summary, "page": page_name, "skipped": skipped})
        return
    if evaluation_report.pairs:
        common.print_columns(means_table(evaluation_report.pairs))
    if evaluation_report.folders:
        common.print_columns(folders_table(evaluation_report.folders))
    print(f"model      {printable(model.name)}")
    if page:
        print(f"page       {printable(page)}")
