"""Scorer and judge, trained: by two folders, by listeners, or by both; kept on the way."""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from tonewood.files import folders
from tonewood.files.checkpoint import Checkpoint
from tonewood.files.folders import TakeSplit, TrainingRecording, take_weights
from tonewood.scoring import course
from tonewood.scoring.ears import ListenerData, train_preference_scorer
from tonewood.scoring.training import ValidationCheck, TrainedScorer, LabelledTakes, train_scorer
from tonewood.settings import ModelSettings
from tonewood.workflow import opinions
from tonewood.workflow.audit import DatasetSide

NetworkName = Literal["scorer", "judge"]
RecordingsBySide = Mapping[DatasetSide, Sequence[TrainingRecording]]


class CheckEvent(NamedTuple):
    """Scorer or judge was checked on takes that it does not learn from."""

    network: NetworkName
    check: ValidationCheck


def fit_scorers(
    takes: RecordingsBySide | None,
    listener_data: ListenerData | None,
    settings: ModelSettings,
    device: str,
    checkpoint: Checkpoint | None = None,
) -> Generator[CheckEvent, None, dict[NetworkName, TrainedScorer]]:
    """Train scorer and, if wanted, judge, yielding every check; returns how they do.

    Parameters
    ----------
    takes : mapping of side to takes, optional
        Whose labels teach.
    listener_data : Heard, optional
        What listeners said; one of both is given.
    checkpoint : Checkpoint, optional
        Where they are kept, and gone on from; not by several processes together.

    Raises
    ------
    ModelError
        The checkpoint is of another training.
    """
    if course.world_size() > 1:
        checkpoint = None  # each process is elsewhere in its draws, and none waits to be kept
    if checkpoint is not None:
        checkpoint.open(_training_key(takes, listener_data, settings))
    fits: dict[NetworkName, TrainedScorer] = {}
    for who, seed in networks_to_train(settings):
        state = checkpoint.get_state(who) if checkpoint is not None else None
        labels = hold_out_takes(takes, settings.training.held_out, seed) if takes is not None else None
        if listener_data is not None:
            parts = opinions.hold_out_listener_groups(listener_data, settings.training.held_out, seed)
            progress = train_preference_scorer(
                *parts,
                settings.scorer,
                settings.spectrum,
                settings.training,
                labels=labels,
                seed=seed,
                device=device,
                state=state,
            )
        else:
            assert labels is not None
            progress = train_scorer(
                *labels,
                settings.scorer,
                settings.spectrum,
                settings.training,
                seed=seed,
                device=device,
                state=state,
            )
        for event in progress:
            if isinstance(event, TrainedScorer):
                fits[who] = event
                continue
            if checkpoint is not None and event.run is not None:
                checkpoint.save_state(who, event.run.state())
            yield CheckEvent(who, event)
    return fits


def networks_to_train(settings: ModelSettings) -> list[tuple[NetworkName, int]]:
    """Who is trained, each by a seed of its own."""
    seed = settings.training.seed
    wanted: list[tuple[NetworkName, int]] = [("scorer", seed), ("judge", seed + 1)]
    return wanted if settings.training.judge else wanted[:1]


def hold_out_takes(takes: RecordingsBySide, share: float, seed: int) -> tuple[LabelledTakes, LabelledTakes]:
    """Row levels to learn from and row levels held out, split by the seed."""
    splits = [folders.split_takes(takes[side], share, seed) for side in get_args(DatasetSide)]
    return _training_rows(splits, "train"), _training_rows(splits, "held_out")


def _training_rows(splits: list[TakeSplit], part: Literal["train", "held_out"]) -> LabelledTakes:
    sides: list[list[TrainingRecording]] = [getattr(split, part) for split in splits]
    reference, source = ([take.rows_db for take in side] for side in sides)
    return LabelledTakes(reference, source, take_weights(sides[0]))


def _training_key(takes: RecordingsBySide | None, listener_data: ListenerData | None, settings: ModelSettings) -> list[str]:
    """All that a scorer depends on, told in a few words."""
    hasher = hashlib.sha256()
    for side, part in (takes or {}).items():
        for take in part:
            hasher.update(f"{side} {take.digest} {take.group} {take.weight}\n".encode())
    if listener_data is not None:
        for answers in (listener_data.better, listener_data.worse, listener_data.rated, listener_data.target, *listener_data.rows):
            hasher.update(answers.contiguous().numpy().tobytes())
    return [settings.model_dump_json(), hasher.hexdigest()]
