"""Commands about recordings, models, settings and the installation, which change none of them."""

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tonewood.cli import common
from tonewood.cli.common import (
    LOCAL_BATCH,
    BatchOptions,
    InputsArgument,
    JsonOption,
    LocationsArgument,
    ModelOption,
    OverwriteOption,
    SeedOption,
    check_output_path,
    with_option_groups,
)
from tonewood.errors import CallError, explain_missing_torch, printable, settings_named_as
from tonewood.utils.files import check_suffix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tonewood.audio_io.remote import Location
    from tonewood.batch.analysis_tasks import ExplainResult
    from tonewood.batch.inventory import InventoryRow
    from tonewood.batch.tasks import FileScored
    from tonewood.diagnosis import Diagnosis
    from tonewood.explanation.files import ExplainedFile, ExplanationTable, SkippedExplanation
    from tonewood.explanation.pipeline import ExplanationFigures, TargetClass
    from tonewood.model.model import Model
    from tonewood.model.onnx import ModelPart
    from tonewood.scorer.saliency import SaliencyMethod


@with_option_groups(batch=BatchOptions)
def score_command(
    inputs: LocationsArgument,
    model: ModelOption = "cello",
    batch: BatchOptions = LOCAL_BATCH,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Score recordings: 0 sounds like the reference, 1 like the source.

    Above an unlikeness of 1 a recording differs from both folders, and its scores say little.
    """
    from tonewood.audio_io.remote import parse_location
    from tonewood.batch.tasks import ScoreTask
    from tonewood.enhancement.output_files import FileFailure, FileJob, expand_input
    from tonewood.model.model import load_model

    if batch.quiet and batch.parquet is None and not json_:
        raise CallError("--quiet prints no scores: add --parquet FILE or --json, or leave out --quiet")
    loaded = load_model(model)
    locations = [parse_location(text) for text in inputs]
    jobs = [
        item if isinstance(item, FileFailure) else FileJob(item.location)
        for location in locations
        for item in expand_input(location)
    ]
    has_heading = json_ or batch.quiet

    def print_result(scored: "FileScored") -> None:
        nonlocal has_heading
        if not has_heading:
            print(f"scorer  judge  unlike  recording, by model {printable(loaded.name)}")
            has_heading = True
        _print_score(scored, loaded, json_, batch.quiet)

    failed = common.run_and_report(
        jobs, ScoreTask(), loaded, batch, print_result, overwrite=overwrite, as_json=json_
    )
    common.finish_batch(failed, len(jobs), batch, locations, as_json=json_)


def _print_score(scored: "FileScored", model: "Model", as_json: bool, is_quiet: bool) -> None:
    """Print the scores of one recording."""
    for warning in scored.warnings:
        common.print_stderr(f"warning: {printable(scored.input)}: {warning}")
    result = scored.score
    if as_json:
        common.print_json(
            {
                "input": str(scored.input),
                "model": model.name,
                "digest": model.digest,
                "scorer": result.scorer,
                "judge": result.judge,
                "windows": list(result.windows),
                "unlikeness": result.unlikeness,
                "warnings": list(scored.warnings),
            }
        )
        return
    if is_quiet:
        return
    judge = "    -" if result.judge is None else f"{result.judge:5.2f}"
    print(f"{result.scorer:6.2f}  {judge}  {result.unlikeness:6.2f}  {printable(scored.input)}")


def info_command(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a bundled model.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown for a model hub.")] = False,
    json_: JsonOption = False,
) -> None:
    """Show the card of a model."""
    from tonewood.model.card import accuracy_warnings, card_markdown
    from tonewood.model.model_file import read_model_file

    if markdown and json_:
        raise CallError("--markdown and --json cannot be used together: use one of them")
    info = read_model_file(model)
    for line in accuracy_warnings(info.card):
        common.print_stderr(f"warning: {line}")
    if markdown:
        print(card_markdown(info), end="")
    elif json_:
        common.print_json({"model": model, "digest": info.digest, **common.card_json(info)})
    else:
        print(f"model      {printable(model)}")
        common.print_card(info)


def settings_command(json_: JsonOption = False) -> None:
    """List every setting of --set with default, unit, limits and meaning."""
    from tonewood.setting_types import list_settings
    from tonewood.settings import EnhanceSettings, ModelSettings

    for commands, group in (("enhance", EnhanceSettings), ("train, search, reproduce", ModelSettings)):
        if not json_:
            print(f"Settings of {commands}")
        for info in list_settings(group):
            if json_:
                common.print_json({"commands": commands.split(", "), **info._asdict()})
                continue
            default = (
                f"{info.default if isinstance(info.default, str) else json.dumps(info.default)} {info.unit}"
            )
            limits = f" ({info.limits})" if info.limits else ""
            print(f"  {info.name:<28} {default:<14}  {info.meaning}{limits}".rstrip())


def onnx_command(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a bundled model.")],
    output: Annotated[Path, typer.Option("-o", "--output", readable=False, help="ONNX file to write.")],
    part: Annotated[str, typer.Option(help="Network to write: scorer or predictor.")] = "scorer",
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Write a model's scorer or predictor as an ONNX file."""
    with explain_missing_torch("onnx", extra="onnx"):
        from tonewood.model import onnx
    from tonewood.model.model import load_model

    check_suffix(output, (".onnx", ""), "an ONNX file")
    check_output_path(output, overwrite)
    loaded = load_model(model)
    with settings_named_as({"part": "--part"}):
        onnx.export_onnx(loaded, cast("ModelPart", part), output, overwrite=overwrite)
    if json_:
        common.print_json(
            {
                "model": model,
                "part": part,
                "file": str(output),
                "opset": onnx.ONNX_OPSET,
                "digest": loaded.digest,
            }
        )
    else:
        print(f"{part}  {printable(output)} (opset {onnx.ONNX_OPSET})")


@with_option_groups(batch=BatchOptions)
def explain_command(
    inputs: InputsArgument,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", readable=False, help="Output picture (.png), page (.html) or folder."),
    ],
    model: ModelOption = "cello",
    side: Annotated[str, typer.Option("--for", help="Class to explain: reference or source.")] = "reference",
    method: Annotated[
        str,
        typer.Option(
            help="Method: cam (class activation maps), integrated (integrated gradients) or gradcam."
        ),
    ] = "cam",
    listen: Annotated[
        bool, typer.Option("--listen", help="Write audio of what the scorer used, and of the rest.")
    ] = False,
    no_parts: Annotated[
        bool,
        typer.Option("--no-parts", help="Omit the statistics of vibrato, attack and other parts of notes."),
    ] = False,
    seed: SeedOption = 0,
    batch: BatchOptions = LOCAL_BATCH,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Show which time and frequency regions, and which parts of notes, the scorer used."""
    from tonewood.batch.analysis_tasks import ExplainTask
    from tonewood.enhancement.output_files import FileJob, plan_jobs
    from tonewood.explanation import files
    from tonewood.model.model import load_model

    explain_options = files.ExplainOptions(
        cast("TargetClass", side), cast("SaliencyMethod", method), parts=not no_parts, listen=listen
    )
    files.check_explain_options(explain_options)
    loaded = load_model(model)
    jobs = plan_jobs(inputs, output, files.EXPLANATION_OUTPUTS)
    folder = None if output.suffix.lower() in files.PAGE_SUFFIXES else output
    # A run that resumes an earlier one rewrites the page about all recordings.
    replaces_index = overwrite or batch.can_resume(folder)
    if len(jobs) > 1:
        files.check_explanation_index(output, replaces_index)
    figures_by_output: dict[Location | None, ExplanationFigures] = {}

    def print_result(result: "ExplainResult") -> None:
        explained, figures = result
        figures_by_output[explained.output] = figures
        if isinstance(explained, files.SkippedExplanation):
            _print_skipped(explained, json_, batch.quiet)
        else:
            _print_explained(explained, loaded, json_, batch.quiet)

    task = ExplainTask(explain_options, output, overwrite=overwrite, seed=seed)
    failed = common.run_and_report(
        jobs, task, loaded, batch, print_result, folder=folder, overwrite=overwrite, as_json=json_
    )
    if len(jobs) > 1 and figures_by_output:
        outputs = [job.output for job in jobs if isinstance(job, FileJob)]
        figures = [figures_by_output[path] for path in outputs if path in figures_by_output]
        table = files.write_explanation_table(figures, output, loaded, overwrite=replaces_index, seed=seed)
        _print_summary_table(table, json_, batch.quiet)
    common.finish_batch(failed, len(jobs), batch, inputs, folder=folder, as_json=json_)


def _print_skipped(skipped: "SkippedExplanation", as_json: bool, is_quiet: bool) -> None:
    """Print a recording that an earlier run explained."""
    if as_json:
        common.print_json({"input": str(skipped.input), "output": str(skipped.output), "already": True})
    elif not is_quiet:
        print(f"{printable(skipped.input)}\n  already {printable(skipped.output)}")


def _print_explained(explained: "ExplainedFile", model: "Model", as_json: bool, is_quiet: bool) -> None:
    """Print the explanation of one recording."""
    for warning in explained.warnings:
        common.print_stderr(f"warning: {printable(explained.input)}: {warning}")
    explanation = explained.explanation
    if as_json:
        common.print_json(
            {
                "input": str(explained.input),
                "output": str(explained.output),
                "sounds": [str(path) for path in explained.sounds],
                "model": model.name,
                "digest": model.digest,
                **explanation.summary,
                "parts": [part.model_dump(mode="json") for part in explained.parts],
                "seconds": explained.seconds,
                "warnings": list(explained.warnings),
            }
        )
        return
    if is_quiet:
        return
    print(printable(explained.input))
    print(f"  {'picture' if explained.output.suffix.lower() == '.png' else 'page':<8}", end="")
    print(printable(explained.output))
    for name, path in zip(("used", "rest"), explained.sounds, strict=False):
        print(f"  {name:<8}{printable(path)}")
    print(
        f"  score   {explanation.score:.2f} by model {printable(model.name)}"
        "   (1 sounds like the source, 0 like the reference)"
    )
    heaviest = sorted(explained.parts, key=lambda part: -part.evidence.mean)
    weights = ", ".join(f"{part.name} {part.evidence.mean:.1f}" for part in heaviest)
    if weights:
        print(f"  logit   {explanation.logit:.1f} for the {explanation.side}: {weights}")
    print(f"  map     {explanation.faithfulness.line}")


def _print_summary_table(summary_table: "ExplanationTable", as_json: bool, is_quiet: bool) -> None:
    """Print the weights of note parts and octaves over several recordings."""
    if as_json:
        common.print_json({"page": str(summary_table.page), **summary_table.summary})
        return
    if is_quiet:
        return
    from tonewood.explanation.report import octaves_table, parts_table

    for table in (
        parts_table(summary_table.parts) if summary_table.parts else [],
        octaves_table(summary_table.octaves),
    ):
        for name, *figures in table:
            print(f"{name:<12}" + "".join(f"{figure:>24}" for figure in figures))
    print(f"page        {printable(summary_table.page)}")


def doctor_command(json_: JsonOption = False) -> None:
    """Show versions, extras, cores, cache and audio back ends, and test the installation."""
    from tonewood.diagnosis import diagnose

    diagnosis = diagnose()
    if json_:
        common.print_json(diagnosis.summary)
    else:
        _print_diagnosis(diagnosis)
    if diagnosis.self_test.error:
        common.print_stderr(
            f"tonewood: the self-test failed ({diagnosis.self_test.error}): install Tonewood again"
        )
        raise typer.Exit(1)


def _print_diagnosis(diagnosis: "Diagnosis") -> None:
    """Print a diagnosis on one screen."""
    for name, version in diagnosis.versions.items():
        print(f"{name:<12}{version or 'not installed'}")
    print(
        f"{'extras':<12}{' '.join(sorted(name for name, missing in diagnosis.extras.items() if not missing))}"
    )
    for extra, missing in sorted(diagnosis.extras.items()):
        if missing:
            print(f"{'':<12}{extra} needs {', '.join(missing)}: pip install '.[{extra}]'")
    print(f"{'cores':<12}{diagnosis.cores}")
    print(f"{'cache':<12}{printable(diagnosis.cache_folder)}, {diagnosis.cache_bytes / 1e6:.1f} MB")
    for name, version in diagnosis.back_ends.items():
        print(f"{name:<12}{version or 'not available'}")
    test = diagnosis.self_test
    print(
        f"{'self-test':<12}{test.verdict}: {test.audio_seconds:.0f} s of audio enhanced in "
        f"{test.seconds:.1f} s by model {test.model}"
    )


def inventory_command(
    inputs: InputsArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", readable=False, help="Table to write (.csv or .parquet).")
    ] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """List recordings with duration, format, loudness and true peak, and those that cannot be used."""
    from tonewood.batch import inventory
    from tonewood.cli.progress import FilesDisplay
    from tonewood.enhancement.output_files import FileFailure, FileStarted

    if output is not None:
        inventory.check_inventory_output(output, overwrite)
    items = inventory.list_inventory(inputs)
    rows: list[InventoryRow] = []
    with FilesDisplay() as display:
        for row in inventory.inventory_rows(items):
            rows.append(row)
            display.show(FileStarted(len(rows) + 1, len(items), row.path))
    if output is not None:
        inventory.write_inventory(output, rows, overwrite=overwrite)
    for row in rows if json_ else ():
        common.print_json(vars(row))
    # An input without recordings, or that does not exist, has a row with the reason, and is not a recording.
    failures = [item for item in items if isinstance(item, FileFailure)]
    recordings = len(items) - len(failures)
    if not json_:
        _print_inventory(rows, recordings, output)
    failed = sum(row.error is not None for row in rows)
    if failed:
        unusable = []
        if failed > len(failures):
            unusable.append(f"{failed - len(failures)} of {common.count_noun(recordings, 'recording')}")
        if failures:
            unusable.append(common.count_noun(len(failures), "input"))
        common.print_stderr(f"tonewood: {' and '.join(unusable)} cannot be used")
        raise typer.Exit(1)


def _print_inventory(rows: "Sequence[InventoryRow]", recordings: int, output: Path | None) -> None:
    """Print the table unless it was written to a file, the reasons of failures, and the sums."""
    known = [row for row in rows if row.rate is not None]
    if output is None and known:
        heading = ("recording", "time", "Hz", "channels", "bits", "format", "LUFS", "dBTP", "SHA-256")
        common.print_columns([heading, *map(_inventory_cells, known)])
    for row in rows:
        if row.error is not None:
            print(f"cannot be used: {row.error}")
    hours = timedelta(seconds=round(sum(row.seconds or 0.0 for row in rows)))
    digests = [row.sha256 for row in rows if row.sha256]
    copies = len(digests) - len(set(digests))
    copied = "1 is a copy of another" if copies == 1 else f"{copies} are copies of others"
    print(f"{common.count_noun(recordings, 'recording')}, {hours} in all{f', {copied}' if copies else ''}")
    if output is not None:
        print(f"table      {printable(output)}")


def _inventory_cells(row: "InventoryRow") -> tuple[str, ...]:
    return (
        printable(row.path),
        "-" if row.seconds is None else common.format_time(row.seconds),
        str(row.rate),
        str(row.channels),
        str(row.depth or "-"),
        f"{row.format} {row.encoding}" if row.depth is None else str(row.format),
        "-" if row.loudness_lufs is None else f"{row.loudness_lufs:.1f}",
        "-" if row.true_peak_dbtp is None else f"{row.true_peak_dbtp:.1f}",
        (row.sha256 or "-")[:8],
    )
