"""`tonewood enhance`: recordings → recordings, reshaped."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tonewood.cli import common
from tonewood.cli.common import (
    DeviceOption,
    JsonOption,
    LocationsArgument,
    ModelOption,
    OutputLocationOption,
    OverwriteOption,
    ParquetOption,
    RetriesOption,
    SchedulerOption,
    SetOption,
    WorkersOption,
    exit_if_failed,
    parse_band,
    parse_time,
    settings_named_by_options,
)
from tonewood.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tonewood.batch.enhance_file import FileEnhanced
    from tonewood.batch.tasks import EnhanceTask
    from tonewood.enhancement.output_files import FileFailure, FileStarted
    from tonewood.enhancement.recipe import TransferRecord
    from tonewood.mask.search import SearchStep
    from tonewood.model.model import Model
    from tonewood.setting_types import MaskComponent, PriorKind

_OPTION_OF_SETTING = {
    "method": "--method",
    "seed": "--seed",
    "prior.kind": "--prior",
    "search.steps": "--steps",
    "render.amount": "--amount",
    "render.aspect.only": "--only",
    "render.aspect.start_s": "--from",
    "render.aspect.end_s": "--to",
    "render.aspect:": "--between, --from or --to:",
}


def enhance_command(
    inputs: LocationsArgument,
    output: OutputLocationOption,
    model: ModelOption = "cello",
    amount: Annotated[float, typer.Option(help="0 leaves the input, 1 is all of it.")] = 1.0,
    method: Annotated[
        str, typer.Option(help="search, predicted: in one pass, or paper: as published.")
    ] = "search",
    prior: Annotated[
        str, typer.Option(help="auto, none, random, blocks, static, neighbours or predicted.")
    ] = "auto",
    steps: Annotated[int | None, typer.Option(help="Steps of the search; 0: the prior alone.")] = None,
    only: Annotated[str, typer.Option(help="One aspect: tilt, bands or dynamics-of-bands.")] = "all",
    between: Annotated[
        str | None, typer.Option(metavar="LOW:HIGH", help="Change this band alone, Hz.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Change nothing before: 10, 1:02.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Change nothing after.")] = None,
    seed: Annotated[int, typer.Option(help="Draws what is random.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Reshape what is unlike the source folder too.")
    ] = False,
    no_match: Annotated[
        bool, typer.Option("--no-match", help="Leave loudness and peak as they come.")
    ] = False,
    device: DeviceOption = "cpu",
    plot: Annotated[bool, typer.Option("--plot", help="Draw before, mask and after.")] = False,
    set_: SetOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    retries: RetriesOption = 2,
    parquet: ParquetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Reshape recordings toward the model's reference."""
    from tonewood.batch import enhance_file
    from tonewood.batch.tasks import EnhanceTask
    from tonewood.enhancement import output_files
    from tonewood.model.model import load_model
    from tonewood.settings import default_enhance_settings
    from tonewood.settings_by_name import apply_assignments
    from tonewood.utils.device import check_device

    with settings_named_by_options(_OPTION_OF_SETTING):
        settings = default_enhance_settings(method).replace(
            seed=seed,
            force=force,
            render=dict(
                amount=amount,
                match=not no_match,
                aspect=dict(
                    only=cast("MaskComponent", only),
                    between=None if between is None else parse_band(between),
                    start_s=None if from_ is None else parse_time(from_),
                    end_s=None if to is None else parse_time(to),
                ),
            ),
        )
        if prior != "auto":  # otherwise the method's own
            settings = settings.replace(prior=dict(kind=cast("PriorKind", prior)))
        if steps is not None:
            settings = settings.replace(search=dict(steps=steps))
    settings = apply_assignments(settings, set_ or [])
    check_device(device)
    loaded = load_model(model)
    asked = common.BatchOptions(workers, scheduler, retries, parquet)
    paths = common.local_paths([*inputs, output])
    if asked.is_requested or paths is None:
        task = EnhanceTask(settings, plot=plot, overwrite=overwrite, device=device)
        _enhance_batch(inputs, output, task, loaded, asked, json_)
        return
    laid = output_files.plan_file_jobs(paths[:-1], paths[-1])
    events = enhance_file.enhance_files(laid, loaded, settings, plot=plot, overwrite=overwrite, device=device)
    show_file_events(events, len(laid), settings.search.steps, json_)


def _enhance_batch(
    inputs: list[str],
    output: str,
    task: "EnhanceTask",
    model: "Model",
    batch_options: common.BatchOptions,
    as_json: bool,
) -> None:
    """Enhance by workers, or what lies at URLs."""
    from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES
    from tonewood.audio_io.remote import parse_location
    from tonewood.batch import runner

    task.check_requirements(model)
    out = parse_location(output)
    units = runner.plan_jobs([parse_location(it) for it in inputs], out)
    folder = None if Path(output).suffix.lower() in WRITABLE_SUFFIXES else out
    failed = common.run_and_report(
        units,
        task,
        model,
        batch_options,
        lambda done: _print_enhanced(done, as_json),
        folder=folder,
        overwrite=task.overwrite,
        as_json=as_json,
    )
    common.finish_batch(failed, len(units), batch_options.table_location(folder))


def show_file_events(
    events: "Iterable[FileStarted | SearchStep | FileEnhanced | FileFailure]",
    files: int,
    steps: int,
    as_json: bool,
) -> None:
    """Show work on files as it goes on, tell what became of each, and end with the exit code."""
    from tonewood.batch import enhance_file
    from tonewood.cli.progress import EnhancingDisplay
    from tonewood.enhancement import output_files

    failed = 0
    with EnhancingDisplay(files, steps) as display:
        for event in events:
            if isinstance(event, output_files.FileFailure | enhance_file.FileEnhanced):
                display.clear()
            if isinstance(event, output_files.FileFailure):
                failed += 1
                common.print_failure(event, as_json)
            elif isinstance(event, enhance_file.FileEnhanced):
                _print_enhanced(event, as_json)
            else:
                display.show(event)
    exit_if_failed(failed, files)


def _print_enhanced(done: "FileEnhanced", as_json: bool) -> None:
    """Tell what became of one recording, and its verdict."""
    for warning in done.warnings:
        common.print_stderr(f"warning: {printable(done.input)}: {warning}")
    if as_json:
        certificate = done.certificate.model_dump(mode="json")
        common.print_json(
            {
                "input": str(done.input),
                "output": str(done.output),
                "recipe": str(done.recipe),
                "picture": str(done.picture) if done.picture else None,
                "scorer": certificate["scorer"],
                "judge": certificate["judge"],
                "certificate": certificate,
                "prior": done.prior,
                "steps": done.steps,
                "carried": done.carried.model_dump(mode="json") if done.carried else None,
                "gain_db": done.gain_db,
                "seconds": done.seconds,
                "already": done.from_earlier_run,
                "warnings": list(done.warnings),
            }
        )
        return
    found = done.certificate
    print(printable(done.input))
    if done.from_earlier_run:
        print(f"  already  {printable(done.output)}")
        return
    print(f"  sound    {printable(done.output)}")
    if done.picture:
        print(f"  picture  {printable(done.picture)}")
    print(f"  recipe   {printable(done.recipe)}")
    judge = f", judge {found.judge.before:.2f} → {found.judge.after:.2f}" if found.judge else ""
    print(
        f"  score    {found.scorer.before:.2f} → {found.scorer.after:.2f}{judge}"
        "   (1 sounds like the source, 0 like the reference)"
    )
    print(
        f"  mask     prior {done.prior}, {_count_noun(done.steps, 'step')}; "
        f"{found.rms_db:.1f} dB rms, {found.largest_db:.1f} dB at most; {done.seconds:.1f} s"
    )
    if done.carried:
        print(f"  carried  {_transfer_text(done.carried)}")
    print(f"  verdict  {found.line}")


def _transfer_text(record: "TransferRecord") -> str:
    """What of a correction was carried, and what was found anew."""
    first = printable(record.recipe)
    if record.varying == "same":
        return f"the mask and the gain of {first}, moment by moment"
    if record.varying == "none":
        return f"the static part of {first}; nothing moves"
    return f"the static part of {first}; what moves is of prior {record.varying}, found again"


def _count_noun(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
