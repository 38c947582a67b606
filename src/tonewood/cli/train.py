"""Commands `train` and `audit`: learn a model, and test the training folders for confounds."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from tonewood.cli import common
from tonewood.cli.common import (
    CacheOption,
    DeviceOption,
    JsonOption,
    OverwriteOption,
    ReferenceOption,
    SetOption,
    SkipBadOption,
    SourceOption,
    check_output_path,
)
from tonewood.errors import CallError, InputFileError, failure_reason, printable, settings_named_as
from tonewood.utils.files import check_suffix, read_regular

if TYPE_CHECKING:
    from tonewood.audit.pipeline import AuditResult
    from tonewood.model.model import Model
    from tonewood.setting_types import NormalizedProperty
    from tonewood.settings import ModelSettings
    from tonewood.training.networks import Checkpoint
    from tonewood.training.pipeline import TrainingEvent

_OPTION_OF_SETTING = {"training.seed": "--seed", "training.group_by": "--group-by", "training.fix": "--fix"}


def train_command(
    output: Annotated[Path, typer.Option("-o", "--output", readable=False, help="Model file to write.")],
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR[:WEIGHT]",
            help="Folder with the target sound; repeat it for several folders with weights.",
        ),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(readable=False, help="Folder with the sound to improve.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="CSV or JSONL file with path, label, session, start, end; replaces both folders.",
        ),
    ] = None,
    preferences: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="CSV file of comparisons: preferred,other, as tonewood listen results writes.",
        ),
    ] = None,
    ratings: Annotated[
        Path | None, typer.Option(readable=False, help="CSV file of mean opinion scores: file,rating.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=2**31 - 1, help="Random seed; the same seed gives the same model on the same machine."
        ),
    ] = 0,
    device: DeviceOption = "cpu",
    group_by: Annotated[str, typer.Option(help="Unit of held-out recordings: file or folder.")] = "file",
    judge: Annotated[bool, typer.Option("--judge/--no-judge", help="Train the independent judge.")] = True,
    predictor: Annotated[
        bool, typer.Option("--predictor", help="Train a predictor, for --method predicted and live.")
    ] = False,
    onto: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Add a predictor to this model and change nothing else."),
    ] = None,
    fix: Annotated[
        str, typer.Option(help="Equalize level, bandwidth or noise of both folders; comma-separated.")
    ] = "",
    domain: Annotated[
        str, typer.Option(help="Description of the recordings, as in 'solo cello, dry studio'.")
    ] = "",
    licence: Annotated[str, typer.Option(help="Licence of the model, as in CC-BY-4.0.")] = "",
    notice: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="Text file about the origin of the recordings, stored in the model."
        ),
    ] = None,
    cache: CacheOption = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted training, and refuse another one.")
    ] = False,
    set_: SetOption = None,
    skip_bad: SkipBadOption = False,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Learn a model from two folders of recordings, from listeners' answers, or from both."""
    from tonewood.data.feature_cache import NO_CACHE, FeatureCache
    from tonewood.data.loading import list_folders, parse_training_inputs
    from tonewood.data.manifest import BadRecordings
    from tonewood.model.model import load_model
    from tonewood.model.model_file import MODEL_SUFFIX
    from tonewood.scorer.training_loop import distributed_group, process_rank, world_size
    from tonewood.training import pipeline
    from tonewood.training.networks import Checkpoint
    from tonewood.utils.files import remove_stale_temporaries

    check_suffix(output, (MODEL_SUFFIX, ""), "a model file")
    # The same command continues, as every command does; --resume refuses another training.
    checkpoint = Checkpoint.for_model(output, resumed=resume or not overwrite, is_required=resume)
    finished_model = pipeline.load_finished_model(output, checkpoint)
    # An interrupted training may have saved its model: then it is only printed.
    check_output_path(output, overwrite or finished_model is not None)
    reference_inputs, source_inputs = parse_training_inputs(reference or [], source, manifest)
    unfinished = common.left_out_of_folders(*list_folders(reference_inputs), *list_folders(source_inputs))
    provenance = pipeline.Provenance(domain, licence, _read_text_file(notice) if notice else "")
    feature_cache = FeatureCache.for_user() if cache else NO_CACHE
    bad = BadRecordings(skip=skip_bad)
    if onto is not None:
        base_model = load_model(onto)
        has_other_options = not predictor or preferences is not None or ratings is not None
        settings = _settings_with_predictor(base_model, set_ or [], has_other_options)
        if reference_inputs is None or source_inputs is None:
            raise CallError("a predictor learns from folders: give --reference and --source")
        sides = reference_inputs, source_inputs

        def learn(training_device: str) -> Iterator[pipeline.TrainingEvent]:
            return pipeline.add_predictor(base_model, *sides, settings.predictor, feature_cache, bad)

    else:
        settings = _settings_of_options(seed, group_by, judge, fix, predictor, set_ or [])
        if finished_model is not None and finished_model.settings == settings:
            checkpoint.remove()
            # Nothing is written, so nothing else removes the temporary files of the interrupted run.
            remove_stale_temporaries([output.parent])
            _print_model(output, finished_model, unfinished, json_)
            return
        check_output_path(output, overwrite)

        def learn(training_device: str) -> Iterator[pipeline.TrainingEvent]:
            return pipeline.train_model(
                reference_inputs,
                source_inputs,
                settings,
                preferences=preferences,
                ratings=ratings,
                name=output.stem,
                device=training_device,
                provenance=provenance,
                cache=feature_cache,
                checkpoint=checkpoint,
                bad=bad,
            )

    with distributed_group(device, settings.training) as training_device, feature_cache.enforce_size():
        if resume and world_size() > 1:
            raise CallError("--resume does not work with several processes: omit it")
        if process_rank():  # only the first of several processes prints and writes
            for _ in learn(training_device):
                pass
            return
        model = _save_trained_model(learn(training_device), output, checkpoint, overwrite)
    _print_model(output, model, unfinished.with_bad(bad.found), json_)


def _settings_with_predictor(
    base: "Model", assignments: Sequence[str], has_other_options: bool
) -> "ModelSettings":
    """Return the settings of a model to which a predictor is added; CallError if they change more."""
    from tonewood.setting_types import apply_assignments

    settings = apply_assignments(base.settings, assignments)
    others = settings.model_copy(update={"predictor": base.settings.predictor})
    if has_other_options or others != base.settings:
        raise CallError(
            "--onto needs --predictor and accepts no other change of the model: omit the other options"
        )
    return settings


def _settings_of_options(
    seed: int, group_by: str, judge: bool, fix: str, predictor: bool, assignments: Sequence[str]
) -> "ModelSettings":
    """Return the settings that the options of a training name."""
    from tonewood.setting_types import apply_assignments
    from tonewood.settings import ModelSettings

    properties = tuple(cast("NormalizedProperty", word.strip()) for word in fix.split(",") if word.strip())
    with settings_named_as(_OPTION_OF_SETTING):
        settings = ModelSettings().replace(
            training=dict(
                seed=seed, group_by=cast('Literal["file", "folder"]', group_by), judge=judge, fix=properties
            ),
            predictor=dict(taught=predictor),
        )
    return apply_assignments(settings, assignments)


def _save_trained_model(
    events: "Iterator[TrainingEvent]", output: Path, checkpoint: "Checkpoint", overwrite: bool
) -> "Model":
    """Draw the progress of a training, and save the model that ends it."""
    from tonewood.cli.progress import TrainingDisplay
    from tonewood.model.model import Model
    from tonewood.utils.files import exclusive_lock

    with exclusive_lock(output), TrainingDisplay() as display:
        try:
            for event in events:
                if isinstance(event, Model):
                    checkpoint.record_digest(event.digest)
                    event.save(output, overwrite=overwrite)
                    model = event
                else:
                    display.show(event)
        except KeyboardInterrupt:
            if checkpoint.path.exists():
                raise KeyboardInterrupt(common.CONTINUES) from None
            raise
    checkpoint.remove()  # last: if the process is killed before, --resume can still finish
    return model


def _print_model(output: Path, model: "Model", unfinished: common.Unfinished, json_: bool) -> None:
    """Print the model's card and warnings, and exit with 1 if recordings were left out."""
    from tonewood.audit.pipeline import confound_warnings
    from tonewood.model.card import accuracy_warnings

    warnings = accuracy_warnings(model.card)
    warnings += confound_warnings(model.card.audit) if model.card.audit else []
    for line in warnings:
        common.print_stderr(f"warning: {line}")
    if json_:
        summary = {"model": str(output), "digest": model.digest, "warnings": warnings}
        common.print_json({**summary, "skipped": unfinished.skipped_json, **common.card_json(model)})
    else:
        print(f"model      {printable(output)}")
        common.print_card(model)
    unfinished.exit()


def _read_text_file(path: Path) -> str:
    try:
        return read_regular(path).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = failure_reason(error)
        raise InputFileError(
            f"{printable(path)} cannot be read as text ({reason}): name a text file"
        ) from None


def audit_command(
    reference: ReferenceOption,
    source: SourceOption,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", readable=False, help="Report to write (.html).")
    ] = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Model of these folders, to compare its accuracy.")
    ] = None,
    skip_bad: SkipBadOption = False,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Test whether room, microphone, codec or other confounds separate two folders."""
    from tonewood.audit import pipeline
    from tonewood.audit.report import write_audit_report
    from tonewood.cli.progress import AuditDisplay
    from tonewood.data.manifest import BadRecordings
    from tonewood.enhancement import plotting
    from tonewood.model.model import load_model
    from tonewood.settings import ModelSettings

    if output is not None:
        check_suffix(output, (".html", ".htm"), "an HTML file")
        check_output_path(output, overwrite)
        plotting.check_matplotlib("a report")
    loaded = load_model(model) if model is not None else None
    settings = loaded.settings if loaded else ModelSettings()
    bad = BadRecordings(skip=skip_bad)
    with AuditDisplay() as display:
        for event in pipeline.audit_folders(reference, source, settings, bad):
            if isinstance(event, pipeline.AuditResult):
                result = event
            else:
                display.show(event)
    if output is not None:
        write_audit_report(output, result, loaded, overwrite=overwrite)
    unfinished = common.left_out_of_folders(reference, source).with_bad(bad.found)
    _print_audit(result, loaded, output, unfinished, json_)
    unfinished.exit()


def _print_audit(
    result: "AuditResult",
    model: "Model | None",
    page: Path | None,
    unfinished: common.Unfinished,
    as_json: bool,
) -> None:
    """Print one line for each confound, then the summary."""
    from tonewood.audit import pipeline
    from tonewood.audit.pipeline import CONFOUNDS
    from tonewood.model.card import format_accuracy, summarize_audit

    audit = result.audit
    accuracy = model.card.scorer.accuracy if model else None
    if as_json:
        common.print_json(
            {
                "verdict": audit.verdict,
                **audit.model_dump(mode="json"),
                "scorer": accuracy,
                "page": str(page) if page else None,
                "skipped": unfinished.skipped_json,
            }
        )
        return
    print("verdict     what            accuracy           median reference | source, unit")
    for finding, confound in zip(audit.findings, CONFOUNDS, strict=True):
        accuracy_text = format_accuracy(finding.accuracy) if finding.accuracy else "-"
        medians = " | ".join(pipeline.format_medians(finding, side) for side in ("reference", "source"))
        print(f"{finding.verdict:10}  {finding.name:14}  {accuracy_text:17}  {medians} {confound.units}")
        if finding.verdict in ("beware", "confounded"):
            print(f"{'':12}{pipeline.format_remedy(finding, confound)}")
    for session in audit.sessions:
        print(
            f"{'session':12}{printable(session.name)} ({session.side}), left out: the long-term "
            f"spectrum is right on {100 * session.accuracy:.0f} % of {session.windows} windows"
        )
    for number, line in enumerate(summarize_audit(audit)):
        print(f"{'' if number else 'in all':12}{line}")
    if model is not None:
        card = model.card.scorer
        print(
            f"{'':12}the scorer of {printable(model.name)} is right on {100 * card.accuracy:.0f} % of "
            f"{card.windows} held-out windows"
        )
    if page:
        print(f"{'page':12}{printable(page)}")
