"""Command `enhance`: change recordings toward the reference of a model."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tonewood.cli import common
from tonewood.cli.common import (
    LOCAL_BATCH,
    BatchOptions,
    DeltaOption,
    JsonOption,
    LocationsArgument,
    ModelOption,
    OutputLocationOption,
    OverwriteOption,
    SeedOption,
    SetOption,
    parse_band,
    parse_time,
    with_option_groups,
)
from tonewood.cli.options import NO_CONTROLS, OPTION_OF_CONTROL, ControlOptions, OfSetting
from tonewood.errors import CallError, printable, settings_named_as

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tonewood.batch.enhance_file import FileEnhanced
    from tonewood.batch.tasks import EnhanceTask, Task
    from tonewood.batch.together import PreparedRecord
    from tonewood.enhancement.output_files import FileFailure, FileJob
    from tonewood.enhancement.recipe import TransferRecord
    from tonewood.model.model import Model
    from tonewood.setting_types import ChannelLink, CurveChanges, MaskComponent, PriorKind

_OPTION_OF_SETTING = {
    "method": "--method",
    "seed": "--seed",
    "prior.kind": "--prior",
    "search.steps": "--steps",
    "render.aspect.only": "--only",
    "render.aspect.between": "--between",
    "render.aspect.start_s": "--from",
    "render.aspect.end_s": "--to",
    "render.aspect.between:": "--between:",
    "render.aspect:": "--from and --to:",
    "render.curve:": "--curve:",
    **OPTION_OF_CONTROL,
}


@with_option_groups(controls=ControlOptions, batch=BatchOptions)
def enhance_command(
    inputs: LocationsArgument,
    output: OutputLocationOption,
    model: ModelOption = "cello",
    controls: ControlOptions = NO_CONTROLS,
    method: Annotated[
        str, typer.Option(help="Method: search, predicted (one pass) or paper (the paper's search).")
    ] = "search",
    prior: Annotated[
        str, typer.Option(help="Prior: auto, none, random, blocks, static, neighbours, network or predicted.")
    ] = "auto",
    steps: Annotated[
        int | None,
        typer.Option(help="Number of search steps; 0 uses the prior alone."),
        OfSetting("search.steps"),
    ] = None,
    only: Annotated[str, typer.Option(help="Apply one component: tilt, bands or dynamics-of-bands.")] = "all",
    between: Annotated[
        str | None, typer.Option(metavar="LOW:HIGH", help="Change only this band, in Hz.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Start of the change, as in 10 or 1:02.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="End of the change.")] = None,
    curve: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="FILE", help="Add a curve of Hz and dB: REW, AutoEq or CSV."),
    ] = None,
    curve_instead: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="FILE", help="Use a curve instead of the learnt average."),
    ] = None,
    mid_side: Annotated[
        bool, typer.Option("--mid-side", help="Find masks of their own for mid and side.")
    ] = False,
    link: Annotated[
        str, typer.Option(metavar="on|off", help="on: one mask for all channels; off: one each.")
    ] = "on",
    together: Annotated[
        bool, typer.Option("--together", help="Treat all as one record: one average change, one gain.")
    ] = False,
    seed: SeedOption = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Change recordings that are unlike both folders too.")
    ] = False,
    no_match: Annotated[
        bool, typer.Option("--no-match", help="Do not match the loudness or limit the peak.")
    ] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the spectrograms and the mask.")] = False,
    delta: DeltaOption = False,
    set_: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and for how long; write nothing.")
    ] = False,
    batch: BatchOptions = LOCAL_BATCH,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Change recordings toward the sound of the model's reference."""
    from tonewood.batch.enhance_file import EnhanceOptions
    from tonewood.batch.tasks import EnhanceTask
    from tonewood.model.model import load_model
    from tonewood.settings import default_enhance_settings

    # The casts below are no promise: settings reject words that they do not know.
    with settings_named_as(_OPTION_OF_SETTING):
        settings = (
            default_enhance_settings(method)
            .replace(
                seed=seed,
                force=force,
                render=dict(
                    match=not no_match,
                    link=_channel_link(mid_side, link),
                    curve=_curve_changes(curve, curve_instead),
                    aspect=dict(
                        only=cast("MaskComponent", only),
                        between=parse_band(between, "--between"),
                        start_s=parse_time(from_, "--from"),
                        end_s=parse_time(to, "--to"),
                    ),
                ),
            )
            .replace(render=controls.render_changes())
        )
        if prior != "auto":  # otherwise the method's own
            settings = settings.replace(prior=dict(kind=cast("PriorKind", prior)))
        if steps is not None:
            settings = settings.replace(search=dict(steps=steps))
    if set_:
        from tonewood.setting_types import apply_assignments

        settings = apply_assignments(settings, set_)
    if dry_run and together:
        raise CallError(
            "--dry-run and --together cannot be used together: a record has no plan before its masks"
        )
    loaded = load_model(model)
    task = EnhanceTask(settings, EnhanceOptions(plot=plot, overwrite=overwrite, delta=delta))
    if dry_run:
        _print_plan(inputs, output, task, loaded, batch, json_)
        return
    run_enhancement(inputs, output, task, loaded, batch, json_, together=together)


def _curve_changes(curve: Path | None, curve_instead: Path | None) -> "CurveChanges":
    if curve is not None and curve_instead is not None:
        raise CallError("--curve and --curve-instead cannot be used together: use one of them")
    path = curve or curve_instead
    if path is None:
        return {}
    from tonewood.export.formats import read_curve

    return {"points": read_curve(path), "replaces_static": curve is None}


def _channel_link(mid_side: bool, link: str) -> "ChannelLink":
    if link not in ("on", "off"):
        raise CallError(f"--link is {link!r}: choose on (one mask for all channels) or off (one for each)")
    if mid_side and link == "off":
        raise CallError("--mid-side and --link off cannot be used together: use one of them")
    return "mid-side" if mid_side else "all" if link == "on" else "off"


def run_enhancement(
    inputs: "Sequence[str | Path]",
    output: str | Path,
    task: "EnhanceTask",
    model: "Model",
    batch: BatchOptions,
    as_json: bool,
    *,
    together: bool = False,
) -> None:
    """Enhance all recordings of the inputs, print each result, and exit with the batch's code."""
    from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES
    from tonewood.audio_io.remote import parse_location
    from tonewood.enhancement.output_files import plan_jobs

    out = parse_location(str(output))
    locations = [parse_location(str(location)) for location in inputs]
    jobs = plan_jobs(locations, out)
    task.check_requirements(model)
    work: Task = task
    if together:
        if batch.is_requested:
            raise CallError("--together runs in one process: leave out --workers, --scheduler and --parquet")
        work, jobs = _plan_record(jobs, task, model, batch.quiet)
    # Results of a single output file have no folder for a table.
    folder = None if Path(str(output)).suffix.lower() in WRITABLE_SUFFIXES else out
    failed = common.run_and_report(
        jobs,
        work,
        model,
        batch,
        lambda result: _print_enhanced(result, as_json, batch.quiet),
        folder=folder,
        overwrite=task.options.overwrite,
        as_json=as_json,
    )
    has_option = task.transfer is None  # `apply` has no --parquet
    common.finish_batch(
        failed, len(jobs), batch, locations, folder=folder, as_json=as_json, can_write_table=has_option
    )


def _print_plan(
    inputs: "Sequence[str]",
    output: str,
    task: "EnhanceTask",
    model: "Model",
    batch: BatchOptions,
    as_json: bool,
) -> None:
    """Print what a run would do with each recording, and exit with the code that it would have."""
    from tonewood.audio_io.remote import parse_location
    from tonewood.batch.tasks import estimate_seconds, plan_files
    from tonewood.enhancement.output_files import plan_jobs

    locations = [parse_location(location) for location in inputs]
    jobs = plan_jobs(locations, parse_location(output))
    task.check_requirements(model)
    counts = {"enhance": 0, "already": 0, "fail": 0, "skipped": 0}
    audio_seconds, failed_inputs = 0.0, set()
    for planned in plan_files(jobs, task, model):
        counts[planned.action] += 1
        audio_seconds += planned.seconds or 0.0
        target = None if planned.output is None else str(planned.output)
        if planned.action == "fail":
            failed_inputs.add(planned.input)
        if as_json:
            common.print_json({**planned._asdict(), "input": str(planned.input), "output": target})
        elif planned.action == "fail":
            print(f"fail     {planned.reason}")
        else:
            print(f"{planned.action:<8} {printable(planned.input)} → {printable(target or '')}")
    for path, reason in common.left_out_of_inputs(locations, failed_inputs):
        counts["skipped"] += 1
        if as_json:
            common.print_json({"input": str(path), "action": "skipped", "reason": reason})
        else:
            print(f"skipped  {printable(path)}: {reason}")
    work = estimate_seconds(audio_seconds, task, model, batch.workers or 1) if audio_seconds else 0.0
    if as_json:
        common.print_json({"plan": counts, "audio_seconds": audio_seconds, "estimated_seconds": work})
    else:
        audio, about = (timedelta(seconds=round(seconds)) for seconds in (audio_seconds, work))
        print(
            f"{counts['enhance']} to enhance ({audio} of audio, about {about} on this machine), "
            f"{counts['already']} already done, {counts['fail']} would fail, {counts['skipped']} left out"
        )
    if counts["fail"] or counts["skipped"]:
        raise typer.Exit(1)


def _plan_record(
    jobs: "Sequence[FileJob | FileFailure]", task: "EnhanceTask", model: "Model", is_quiet: bool
) -> "PreparedRecord":
    """Find the masks of a record, with progress."""
    from collections import deque

    from tonewood.batch.together import PreparedRecord, prepare_together
    from tonewood.cli.progress import BatchDisplay

    with BatchDisplay(task) as bars:
        bars.is_quiet = is_quiet
        (prepared,) = deque(
            (event for event in prepare_together(jobs, task, model) if not bars.show(event)), 1
        )
        bars.clear()
    assert isinstance(prepared, PreparedRecord)
    return prepared


def _print_enhanced(result: "FileEnhanced", as_json: bool, is_quiet: bool) -> None:
    """Print the outputs of one recording, its scores and its verdict."""
    for warning in result.warnings:
        common.print_stderr(f"warning: {printable(result.input)}: {warning}")
    certificate, used_instead = result.certificate, _replacement_text(result)
    if as_json:
        certificate_json = certificate.model_dump(mode="json")
        common.print_json(
            {
                "input": str(result.input),
                "output": str(result.output),
                "recipe": str(result.recipe),
                "picture": str(result.picture) if result.picture else None,
                "model": result.model.name,
                "digest": result.model.digest,
                "delta": str(result.delta) if result.delta else None,
                "scorer": certificate_json["scorer"],
                "judge": certificate_json["judge"],
                "certificate": certificate_json,
                "prior": result.prior,
                "steps": result.steps,
                "carried": result.carried.model_dump(mode="json") if result.carried else None,
                "gain_db": result.gain_db,
                "settings": result.settings.model_dump(mode="json"),
                "seconds": result.seconds,
                "already": result.from_earlier_run,
                "warnings": list(result.warnings),
            }
        )
        return
    if is_quiet:
        if certificate.verdict in ("limited", "refused") and not result.from_earlier_run:
            hint = f"; applied: {used_instead}" if used_instead else ""
            common.print_stderr(f"warning: {printable(result.input)}: verdict {certificate.line}{hint}")
        return
    print(printable(result.input))
    if result.from_earlier_run:
        print(f"  already  {printable(result.output)}, by model {printable(result.model.name)}")
        return
    print(f"  sound    {printable(result.output)}")
    if result.picture:
        print(f"  picture  {printable(result.picture)}")
    if result.delta:
        print(f"  delta    {printable(result.delta)}")
    print(f"  recipe   {printable(result.recipe)}")
    judge = (
        f", judge {certificate.judge.before:.2f} → {certificate.judge.after:.2f}" if certificate.judge else ""
    )
    print(
        f"  score    {certificate.scorer.before:.2f} → {certificate.scorer.after:.2f}{judge}"
        "   (1 sounds like the source, 0 like the reference)"
    )
    print(
        f"  mask     model {printable(result.model.name)}, prior {result.prior}, "
        f"{common.count_noun(result.steps, 'step')}; {certificate.size}; {result.seconds:.1f} s"
    )
    if result.carried:
        print(f"  carried  {_transfer_text(result.carried)}")
    print(f"  verdict  {certificate.line}")
    if used_instead:
        print(f"  applied  {used_instead}")


def _replacement_text(result: "FileEnhanced") -> str | None:
    """Return what was applied to a recording that is not searched; None if it was changed as requested."""
    settings, certificate = result.settings, result.certificate
    is_as_requested = settings.force or settings.method == "paper" or result.carried is not None
    has_lost_prior = result.prior == "none" and settings.prior.kind != "none"
    if is_as_requested or not (has_lost_prior or certificate.verdict in ("refused", "unneeded")):
        return None
    curve = settings.render.curve
    parts = ["at most the static mask"] if result.prior != "none" and not curve.replaces_static else []
    if curve.points:
        parts.append("the curve")
    applied = "no change" if certificate.is_unchanged else " and ".join(parts)
    dropped = "" if settings.prior.kind == "auto" else f", not prior {settings.prior.kind}"
    return f"{applied}{dropped}: pass --force to change the recording anyway"


def _transfer_text(record: "TransferRecord") -> str:
    """Return which parts of a correction were applied, and which were computed again."""
    first = printable(record.recipe)
    if record.varying == "same":
        return f"the mask and the gain of {first}, at every moment"
    if record.varying == "together":
        return f"one static part and one gain for {first}"
    if record.varying == "none":
        return f"the static part of {first}"
    return f"the static part of {first}; the adaptive part comes from prior {record.varying}"
