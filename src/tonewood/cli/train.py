"""`tonewood train`: two folders, or what listeners said, → a model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import (
    CacheOption,
    DeviceOption,
    JsonOption,
    OverwriteOption,
    SetOption,
    check_output_path,
)
from tonewood.errors import CallError, printable

if TYPE_CHECKING:
    from tonewood.files.modelfile import Model


def train_command(
    output: Annotated[
        Path, typer.Option("-o", "--output", readable=False, help="Model file to write.")
    ],
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
        typer.Option(
            readable=False, help="CSV of pairs: preferred,other, as listen results write."
        ),
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
        typer.Option(
            readable=False, help="Text file on the recordings' origin, kept in the model."
        ),
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
    from tonewood.files.cache import NO_CACHE, FeatureCache
    from tonewood.files.checkpoint import Checkpoint
    from tonewood.files.modelfile import Model, load_model
    from tonewood.files.output import exclusive_lock, remove_stale_temporaries
    from tonewood.scoring.course import process_rank, world_size
    from tonewood.settings import ModelSettings, apply_assignments
    from tonewood.terminal import TrainingDisplay
    from tonewood.workflow import ears
    from tonewood.workflow import train as workflow
    from tonewood.workflow.sides import parse_training_inputs as named_sides
    from tonewood.workflow.together import distributed_group

    named = [
        f"training.seed={seed}",
        f"training.group_by={json.dumps(group_by)}",
        f"training.judge={json.dumps(judge)}",
        f"training.fix={json.dumps([part.strip() for part in fix.split(',') if part.strip()])}",
    ]
    if predictor:
        named.append("predictor.taught=true")
    checkpoint = Checkpoint.for_model(output, resumed=resume)
    concluded = workflow.load_finished_model(output, checkpoint)
    check_output_path(output, overwrite or concluded is not None)
    wanted, there = named_sides(reference or [], source, manifest)
    origin = workflow.Provenance(domain, licence, _read_text_file(notice) if notice else "")
    tables = (preferences, ratings)
    kept_takes = FeatureCache.for_user() if cache else NO_CACHE
    if onto is not None:
        kept = load_model(onto)
        settings = apply_assignments(kept.settings, set_ or [])
        if (
            not predictor
            or any(tables)
            or settings.model_copy(update={"predictor": kept.settings.predictor}) != kept.settings
        ):
            raise CallError("--onto adds --predictor and changes nothing else: say no more")
        if wanted is None or there is None:
            raise CallError("a predictor learns from folders: give --reference and --source")
        sides = wanted, there

        def learn(own: str) -> Iterator[workflow.TrainingEvent]:
            return workflow.add_predictor(kept, *sides, settings.predictor, kept_takes)

    else:
        settings = apply_assignments(ModelSettings(), [*named, *(set_ or [])])
        if concluded is not None and concluded.settings == settings:
            checkpoint.remove()
            remove_stale_temporaries([output.parent])  # what the run that was killed left; this one writes nothing
            _print_model(output, concluded, json_)
            return
        check_output_path(output, overwrite)

        def learn(own: str) -> Iterator[workflow.TrainingEvent]:
            return ears.train_model(
                wanted,
                there,
                tables,
                settings,
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
    from tonewood.workflow.audit import confound_warnings

    for line in confound_warnings(model.card.audit) if model.card.audit else []:
        report.print_stderr(f"warning: {line}")
    if json_:
        report.print_json({"model": str(output), "digest": model.digest, **report.card_json(model)})
    else:
        print(f"model      {printable(output)}")
        report.print_card(model)


def _read_text_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8"
        raise CallError(
            f"{printable(path)} cannot be read as text ({why.lower()}): name a text file"
        ) from None
