"""Commands that measure on corpora, `evaluate`, `reproduce` and `search`, and `manifest`, which lists one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tonewood.cli import common
from tonewood.cli.common import (
    LOCAL_BATCH,
    BatchOptions,
    DeviceOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ReferenceOption,
    SeedOption,
    SetOption,
    SourceOption,
    check_output_path,
    with_option_groups,
)
from tonewood.errors import CallError, printable, settings_named_as
from tonewood.utils.files import check_suffix

if TYPE_CHECKING:
    from tonewood.enhancement.output_files import FileFailure
    from tonewood.evaluation.metrics import FolderComparison
    from tonewood.evaluation.pipeline import Evaluation, PairFiles
    from tonewood.evaluation.report import EvaluationReport
    from tonewood.model.model import Model
    from tonewood.research.architecture_search import SizeSearchResult
    from tonewood.research.paper_reproduction import Reproduction
    from tonewood.settings import ModelSettings

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
        typer.Option(metavar="OUTPUT REFERENCE", readable=False, help="Folders to compare without pairs."),
    ] = None,
    model: ModelOption = "cello",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", readable=False, help="Report folder.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(readable=False, help="CSV file of the pairs, and of times that correspond.")
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
        report.check_evaluation_report(output, overwrite)
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


def _training_settings(seed: int, assignments: Sequence[str] | None) -> "ModelSettings":
    """Return the default settings with a seed and the assignments of `--set`."""
    from tonewood.setting_types import apply_assignments
    from tonewood.settings import ModelSettings

    with settings_named_as({"training.seed": "--seed"}):
        settings = ModelSettings().replace(training=dict(seed=seed))
    return apply_assignments(settings, assignments or [])


def reproduce_command(
    corpus: Annotated[
        Path,
        typer.Option(readable=False, help="Corpus folder with train/ and test/, each with good/ and cheap/."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", readable=False, help="Report folder.")],
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Use this model instead of training one.")
    ] = None,
    paper_model: Annotated[
        str | None,
        typer.Option("--paper-model", help="Use this as the paper's model instead of training one."),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Reproduce the figures and the comparison of the paper on a corpus, as one page."""
    from tonewood.cli.progress import ReproducingDisplay
    from tonewood.enhancement import plotting
    from tonewood.model.model import load_model
    from tonewood.research import paper_reproduction

    if model is not None and paper_model is not None and set_:
        raise CallError(
            "--set cannot be used with both --model and --paper-model: it changes the training, which they "
            "replace"
        )
    settings = _training_settings(seed, set_)
    plotting.check_matplotlib("a report")
    models = [None if name is None else load_model(name) for name in (model, paper_model)]
    with ReproducingDisplay() as display:
        for event in paper_reproduction.reproduce_paper(
            corpus,
            output,
            settings,
            model=models[0],
            paper_model=models[1],
            device=device,
            overwrite=overwrite,
        ):
            if isinstance(event, paper_reproduction.Reproduction):
                reproduction = event
            elif isinstance(event, paper_reproduction.ReproductionPlan):
                common.print_stderr(event.line)
            else:
                display.show(event)
    unfinished = common.left_out_of_folders(corpus)
    _print_reproduction(reproduction, unfinished, json_)
    unfinished.exit()


def _print_reproduction(reproduction: "Reproduction", unfinished: common.Unfinished, as_json: bool) -> None:
    """Print the table and the accuracy."""
    if as_json:
        skipped = unfinished.skipped_json
        common.print_json({"page": str(reproduction.page), **reproduction.summary, "skipped": skipped})
        return
    for method, *figures in reproduction.table:
        print(f"{method:<36}" + "".join(f"{figure:>11}" for figure in figures))
    print(f"accuracy   {reproduction.accuracy_line}")
    print(f"page       {printable(reproduction.page)}")


def search_command(
    reference: ReferenceOption,
    source: SourceOption,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", readable=False, help="Picture of accuracy against size (.png)."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=2**31 - 1, help="Random seed of the first split; the next splits count up from it."
        ),
    ] = 0,
    device: DeviceOption = "cpu",
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Find the smallest scorer that separates two folders as well as any."""
    from tonewood.cli.progress import SearchDisplay
    from tonewood.enhancement import plotting
    from tonewood.research import architecture_search
    from tonewood.research.architecture_search import plot_scorer_sizes

    settings = _training_settings(seed, set_)
    if output is not None:
        # Checked before the trainings, which take minutes.
        check_suffix(output, (".png",), "a PNG file")
        check_output_path(output, overwrite)
        plotting.check_matplotlib("a picture")
    with SearchDisplay() as display:
        for event in architecture_search.search_sizes(reference, source, settings, device=device):
            if isinstance(event, architecture_search.SizeSearchResult):
                result = event
            else:
                display.show(event)
    if output is not None:
        plot_scorer_sizes(output, result, overwrite=overwrite)
    unfinished = common.left_out_of_folders(reference, source)
    _print_ladder(result, output, unfinished, json_)
    unfinished.exit()


def _print_ladder(
    ladder: "SizeSearchResult", picture: Path | None, unfinished: common.Unfinished, as_json: bool
) -> None:
    """Print one line for each size, and the chosen one."""
    chosen, knee = ladder.chosen, ladder.knee
    if as_json:
        rungs = [
            {
                **rung.size._asdict(),
                "parameters": rung.parameters,
                "accuracy": rung.accuracy._asdict(),
                "loss": rung.loss._asdict(),
                "accuracies": list(rung.accuracies),
                "losses": list(rung.losses),
                "seconds": rung.seconds,
            }
            for rung in ladder.results
        ]
        common.print_json(
            {
                "rungs": rungs,
                "knee": knee.size._asdict(),
                "chosen": chosen.size._asdict(),
                "options": ladder.options,
                "picture": str(picture) if picture else None,
                "skipped": unfinished.skipped_json,
            }
        )
        return
    print("width  depth  parameters  accuracy, %     loss")
    for rung in ladder.results:
        accuracy, loss = rung.accuracy, rung.loss
        marks = [name for name, marked in (("knee", knee), ("chosen", chosen)) if marked is rung]
        print(
            f"{rung.size.width:5}  {rung.size.depth:5}  {rung.parameters:10,}  "
            f"{100 * accuracy.mean:5.1f} ± {100 * accuracy.error:3.1f}  "
            f"{loss.mean:.4f} ± {loss.error:.4f}  {', '.join(marks)}".rstrip()
        )
    if picture:
        print(f"picture    {printable(picture)}")
    print(f"smallest within one standard error of the best: {ladder.options}")


_CONDITION_METAVAR = "FIELD=PATTERN"


def manifest_command(
    dataset_or_shards: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT", help="Data set (good_sounds, tinysol, medley_solos_db) or .tar shards."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", readable=False, help="Manifest to write (.csv or .jsonl).")
    ],
    data_home: Annotated[
        Path | None, typer.Option(readable=False, help="Folder of the data set, which is not downloaded.")
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar=_CONDITION_METAVAR,
            help="Condition for the target sound; repeat it to combine conditions.",
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar=_CONDITION_METAVAR,
            help="Condition for the sound to improve; repeat it to combine conditions.",
        ),
    ] = None,
    both: Annotated[
        list[str] | None, typer.Option(metavar=_CONDITION_METAVAR, help="Condition for both sides.")
    ] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Write a manifest of a data set or of WebDataset shards for train --manifest."""
    from tonewood.data import catalogs

    sides = catalogs.SideConditions(
        *(tuple(map(catalogs.FieldCondition.parse, texts or [])) for texts in (reference, source, both))
    )
    archives = [Path(name) for name in dataset_or_shards]
    if len(dataset_or_shards) == 1 and not archives[0].exists() and archives[0].suffix != ".tar":
        manifest = catalogs.write_dataset_manifest(
            dataset_or_shards[0], data_home, sides, output, overwrite=overwrite
        )
    else:
        manifest = catalogs.write_shards_manifest(archives, sides, output, overwrite=overwrite)
    common.print_stderr(f"note: {manifest.note}")
    if manifest.missing:
        common.print_stderr(
            f"note: {manifest.missing} recordings of the index do not exist and are not listed"
        )
    if json_:
        common.print_json({**manifest._asdict(), "output": str(manifest.output)})
    else:
        print(f"{printable(manifest.output)}: {manifest.reference} reference, {manifest.source} source")
