"""Scorer and judge, trained: by two folders, by listeners, or by both; kept on the way.

Training as far as it has come, beside the model that it will be: for `train --resume`.
"""

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tonewood.data import dataset
from tonewood.data.dataset import TakeSplit, TrainingRecording, take_weights
from tonewood.data.loading import DatasetSide
from tonewood.errors import ModelError, printable
from tonewood.scorer import training_loop
from tonewood.scorer.preference_training import ListenerData, train_preference_scorer
from tonewood.scorer.training import LabelledTakes, TrainedScorer, ValidationCheck, train_scorer
from tonewood.scorer.training_loop import TrainingState
from tonewood.settings import ModelSettings
from tonewood.training import preferences
from tonewood.utils.atomic_write import write_bytes

CHECKPOINT_SUFFIX = ".checkpoint"
_CHECKPOINT_VERSION = 1


class Checkpoint:
    """States of courses, by name, in one safetensors file that is replaced whole.

    Parameters
    ----------
    path : Path
    resumed : bool
        Whether what is there is gone on from; else it is begun anew.
    """

    def __init__(self, path: Path, *, resumed: bool = False) -> None:
        self.path, self._resumed = path, resumed
        self._training_key = ""
        self._states: dict[str, dict[str, Tensor]] = {}

    @classmethod
    def for_model(cls, model: Path, *, resumed: bool = False) -> "Checkpoint":
        """The one that belongs to a model that is being trained."""
        return cls(model.with_name(model.name + CHECKPOINT_SUFFIX), resumed=resumed)

    def open(self, training_key: Sequence[str]) -> None:
        """Say what decides the training; read what is there, if that is wanted.

        Raises
        ------
        ModelError
            What is there is of another training, or damaged.
        """
        self._training_key, self._states = json.dumps([_CHECKPOINT_VERSION, *training_key]), {}
        if not self._resumed or not self.path.exists():
            return
        try:
            with safe_open(self.path, "pt") as file:
                same = (file.metadata() or {}).get("told") == self._training_key
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    who, key = name.split("/", 1)
                    self._states.setdefault(who, {})[key] = file.get_tensor(name).clone()
        except (OSError, SafetensorError, ValueError):
            raise ModelError(f"{printable(self.path)} is damaged: leave --resume out to begin anew") from None
        if not same:
            raise ModelError(
                f"{printable(self.path)} is of another training: its recordings or settings differ; "
                "leave --resume out to begin anew"
            )

    def get_state(self, network: str) -> TrainingState | None:
        """How far somebody had come; None from the start."""
        return self._states.get(network)

    def save_state(self, network: str, state: TrainingState) -> None:
        """Write how far somebody has come; OutputError where that cannot be done."""
        self._states[network] = dict(state)
        self._write_file()

    def record_digest(self, digest: str) -> None:
        """Write which model it all led to, before that appears; nothing where nothing was kept."""
        if self._states:
            self._write_file({"made": digest})

    def recorded_digest(self) -> str | None:
        """Digest of the model that it all led to, if it is to be gone on from and did."""
        if self._resumed and self.path.exists():
            with suppress(OSError, SafetensorError), safe_open(self.path, "pt") as file:
                return (file.metadata() or {}).get("made")
        return None

    def _write_file(self, extra_metadata: Mapping[str, str] = MappingProxyType({})) -> None:
        named = {f"{it}/{key}": v for it, own in self._states.items() for key, v in own.items()}
        content = save({name: torch.as_tensor(v).contiguous() for name, v in named.items()},
                       {"told": self._training_key, **extra_metadata})  # fmt: skip
        write_bytes(self.path, content, overwrite=True)

    def remove(self) -> None:
        """Forget it, once there is a model."""
        self.path.unlink(missing_ok=True)


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
    if training_loop.world_size() > 1:
        checkpoint = None  # each process is elsewhere in its draws, and none waits to be kept
    if checkpoint is not None:
        checkpoint.open(_training_key(takes, listener_data, settings))
    fits: dict[NetworkName, TrainedScorer] = {}
    for who, seed in networks_to_train(settings):
        state = checkpoint.get_state(who) if checkpoint is not None else None
        labels = hold_out_takes(takes, settings.training.held_out, seed) if takes is not None else None
        if listener_data is not None:
            parts = preferences.hold_out_listener_groups(listener_data, settings.training.held_out, seed)
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
    splits = [dataset.split_takes(takes[side], share, seed) for side in get_args(DatasetSide)]
    return _training_rows(splits, "train"), _training_rows(splits, "held_out")


def _training_rows(splits: list[TakeSplit], part: Literal["train", "held_out"]) -> LabelledTakes:
    sides: list[list[TrainingRecording]] = [getattr(split, part) for split in splits]
    reference, source = ([take.rows_db for take in side] for side in sides)
    return LabelledTakes(reference, source, take_weights(sides[0]))


def _training_key(
    takes: RecordingsBySide | None, listener_data: ListenerData | None, settings: ModelSettings
) -> list[str]:
    """All that a scorer depends on, told in a few words."""
    hasher = hashlib.sha256()
    for side, part in (takes or {}).items():
        for take in part:
            hasher.update(f"{side} {take.digest} {take.group} {take.weight}\n".encode())
    if listener_data is not None:
        for answers in (
            listener_data.better,
            listener_data.worse,
            listener_data.rated,
            listener_data.target,
            *listener_data.rows,
        ):
            hasher.update(answers.contiguous().numpy().tobytes())
    return [settings.model_dump_json(), hasher.hexdigest()]
