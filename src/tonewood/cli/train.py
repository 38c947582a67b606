"""`tonewood train`: two folders, or what listeners said, → a model.

`tonewood audit`: two folders → what tells them apart besides the instrument.
"""

from collections.abc import Iterator
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
    SourceOption,
    check_output_path,
    settings_named_by_options,
)
from tonewood.errors import CallError, printable

if TYPE_CHECKING:
    from tonewood.audit.pipeline import AuditResult
    from tonewood.model.model import Model
    from tonewood.setting_types import NormalizedProperty

_OPTION_OF_SETTING = {
    "training.seed": "--seed",
    "training.group_by": "--group-by",
    "training.fix.0": "--fix",
    "training.fix.1": "--fix",
    "training.fix.2": "--fix",
}


def train_command(
    output: Annotated[Path, typer.Option("-o", "--output", readable=False, help="Model file to write.")],
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR[:WEIGHT]",
            help="Folder of the sound that is wanted; give it again for several, weighted.",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(readable=False, help="Folder of the sound that is to be improved."),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="CSV or JSONL of path, label, session, start, end; instead of both folders.",
        ),
    ] = None,
    preferences: Annotated[
        Path | None,
        typer.Option(readable=False, help="CSV of pairs: preferred,other, as listen results write."),
    ] = None,
    ratings: Annotated[
        Path | None, typer.Option(readable=False, help="CSV of mean opinion scores: file,rating.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same machine: same model.")] = 0,
    device: DeviceOption = "cpu",
    group_by: Annotated[
        str, typer.Option(help="What is kept together when takes are held out: file or folder.")
    ] = "file",
    judge: Annotated[
        bool, typer.Option("--judge/--no-judge", help="Train the independent judge too.")
    ] = True,
    predictor: Annotated[
        bool,
        typer.Option("--predictor", help="Teach a predictor too, for --method predicted and live."),
    ] = False,
    onto: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Leave this model as it is and add a predictor."),
    ] = None,
    fix: Annotated[
        str,
        typer.Option(help="Make both folders alike in level, bandwidth or noise; comma-separated."),
    ] = "",
    domain: Annotated[
        str, typer.Option(help="What the recordings are, as in 'solo cello, dry studio'.")
    ] = "",
    licence: Annotated[
        str, typer.Option(help="Under which the model may be passed on, as in CC-BY-4.0.")
    ] = "",
    notice: Annotated[
        Path | None,
        typer.Option(readable=False, help="Text file on the recordings' origin, kept in the model."),
    ] = None,
    cache: CacheOption = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the same training was stopped.")
    ] = False,
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Learn a model from two folders of recordings, from what listeners said, or from both."""
    from tonewood.cli.progress import TrainingDisplay
    from tonewood.data.feature_cache import NO_CACHE, FeatureCache
    from tonewood.data.loading import parse_training_inputs as named_sides
    from tonewood.model.model import Model, load_model
    from tonewood.scorer.training_loop import distributed_group, process_rank, world_size
    from tonewood.settings import ModelSettings
    from tonewood.settings_by_name import apply_assignments
    from tonewood.training import pipeline
    from tonewood.training.scorers import Checkpoint
    from tonewood.utils.atomic_write import exclusive_lock, remove_stale_temporaries

    checkpoint = Checkpoint.for_model(output, resumed=resume)
    concluded = pipeline.load_finished_model(output, checkpoint)
    check_output_path(output, overwrite or concluded is not None)
    wanted, there = named_sides(reference or [], source, manifest)
    origin = pipeline.Provenance(domain, licence, _read_text_file(notice) if notice else "")
    kept_takes = FeatureCache.for_user() if cache else NO_CACHE
    if onto is not None:
        kept = load_model(onto)
        settings = apply_assignments(kept.settings, set_ or [])
        if (
            not predictor
            or preferences is not None
            or ratings is not None
            or settings.model_copy(update={"predictor": kept.settings.predictor}) != kept.settings
        ):
            raise CallError("--onto adds --predictor and changes nothing else: say no more")
        if wanted is None or there is None:
            raise CallError("a predictor learns from folders: give --reference and --source")
        sides = wanted, there

        def learn(own: str) -> Iterator[pipeline.TrainingEvent]:
            return pipeline.add_predictor(kept, *sides, settings.predictor, kept_takes)

    else:
        with settings_named_by_options(_OPTION_OF_SETTING):
            settings = ModelSettings().replace(
                training=dict(
                    seed=seed,
                    group_by=cast('Literal["file", "folder"]', group_by),
                    judge=judge,
                    fix=tuple(
                        cast("NormalizedProperty", word.strip()) for word in fix.split(",") if word.strip()
                    ),
                ),
                predictor=dict(taught=predictor),
            )
        settings = apply_assignments(settings, set_ or [])
        if concluded is not None and concluded.settings == settings:
            checkpoint.remove()
            remove_stale_temporaries(
                [output.parent]
            )  # what the run that was killed left; this one writes nothing
            _print_model(output, concluded, json_)
            return
        check_output_path(output, overwrite)

        def learn(own: str) -> Iterator[pipeline.TrainingEvent]:
            return pipeline.train_model(
                wanted,
                there,
                settings,
                preferences=preferences,
                ratings=ratings,
                name=output.stem,
                device=own,
                provenance=origin,
                cache=kept_takes,
                checkpoint=checkpoint,
            )

    with distributed_group(device, settings.training) as own, kept_takes.enforce_size():
        if resume and world_size() > 1:
            raise CallError("several processes keep no checkpoint: leave --resume out")
        if process_rank():  # of several processes the first alone speaks and writes
            for _ in learn(own):
                pass
            return
        with exclusive_lock(output), TrainingDisplay() as display:
            for event in learn(own):
                if isinstance(event, Model):
                    checkpoint.record_digest(event.digest)
                    event.save(output, overwrite=overwrite)
                    model = event
                else:
                    display.show(event)
        checkpoint.remove()  # last of all: until then --resume has something to conclude
    _print_model(output, model, json_)


def _print_model(output: Path, model: "Model", json_: bool) -> None:
    from tonewood.audit.pipeline import confound_warnings

    for line in confound_warnings(model.card.audit) if model.card.audit else []:
        common.print_stderr(f"warning: {line}")
    if json_:
        common.print_json({"model": str(output), "digest": model.digest, **common.card_json(model)})
    else:
        print(f"model      {printable(output)}")
        common.print_card(model)


def _read_text_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8"
        raise CallError(
            f"{printable(path)} cannot be read as text ({why.lower()}): name a text file"
        ) from None


def audit_command(
    reference: ReferenceOption,
    source: SourceOption,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", readable=False, help="Report to write, an HTML page."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="Model of these folders, whose accuracy to set beside."),
    ] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Ask what tells two folders apart besides the instrument: room, microphone, codec."""
    from tonewood.audit import pipeline
    from tonewood.audit import report as auditpage
    from tonewood.cli.progress import AuditDisplay
    from tonewood.enhancement import plotting
    from tonewood.model.model import load_model
    from tonewood.settings import ModelSettings

    if output is not None:
        if output.suffix.lower() not in (".html", ".htm"):
            raise CallError(f"{printable(output)} is no name of a page: end it in .html")
        check_output_path(output, overwrite)
        plotting.check_matplotlib("a report")
    loaded = load_model(model) if model is not None else None
    settings = loaded.settings if loaded else ModelSettings()
    with AuditDisplay() as display:
        for event in pipeline.audit_folders(reference, source, settings):
            if isinstance(event, pipeline.AuditResult):
                done = event
            else:
                display.show(event)
    if output is not None:
        auditpage.write_audit_report(output, done, loaded, overwrite=overwrite)
    _print_audit(done, loaded, output, json_)


def _print_audit(done: "AuditResult", model: "Model | None", page: Path | None, as_json: bool) -> None:
    """Tell what an audit found: a confound a line."""
    from tonewood.audit import pipeline
    from tonewood.audit.pipeline import CONFOUNDS
    from tonewood.model.card import format_accuracy, summarize_audit

    found = done.audit
    accuracy = model.card.scorer.accuracy if model else None
    if as_json:
        common.print_json(
            {
                "verdict": found.verdict,
                **found.model_dump(mode="json"),
                "scorer": accuracy,
                "page": str(page) if page else None,
            }
        )
        return
    print("verdict     what            told apart         median reference | source")
    for finding, confound in zip(found.findings, CONFOUNDS, strict=True):
        told = format_accuracy(finding.accuracy) if finding.accuracy else "-"
        print(
            f"{finding.verdict:10}  {finding.name:14}  {told:17}  "
            f"{pipeline.format_medians(finding, 'reference')} | {pipeline.format_medians(finding, 'source')}"
        )
        if finding.verdict in ("beware", "confounded"):
            print(f"{'':12}{pipeline.format_remedy(finding, confound)}")
    for session in found.sessions:
        print(
            f"{'session':12}{printable(session.name)} ({session.side}), left out: the long-term "
            f"spectrum is right on {100 * session.accuracy:.0f} % of {session.windows} windows"
        )
    for number, line in enumerate(summarize_audit(found)):
        print(f"{'' if number else 'in all':12}{line}")
    if model is not None:
        card = model.card.scorer
        print(
            f"{'':12}the scorer of {printable(model.name)} is right on {100 * card.accuracy:.0f} % of "
            f"{card.windows} held-out windows"
        )
    if page:
        print(f"{'page':12}{printable(page)}")
