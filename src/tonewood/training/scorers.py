"""Train the scorer and the judge; keep a checkpoint for `train --resume`."""

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tonewood.data.dataset import TrainingRecording, split_takes, take_weights
from tonewood.data.loading import DatasetSide
from tonewood.errors import ModelError, printable
from tonewood.scorer.preference_training import ListenerData, train_preference_scorer
from tonewood.scorer.training import LabelledTakes, TrainedScorer, ValidationCheck, train_scorer
from tonewood.scorer.training_loop import TrainingState, world_size
from tonewood.settings import ModelSettings
from tonewood.training.preferences import hold_out_listener_groups
from tonewood.utils.atomic_write import write_bytes

CHECKPOINT_SUFFIX = ".checkpoint"
_CHECKPOINT_VERSION = 1

NetworkName = Literal["scorer", "judge"]
RecordingsBySide = Mapping[DatasetSide, Sequence[TrainingRecording]]


class CheckEvent(NamedTuple):
    """Validation of one network on recordings that it does not learn from."""

    network: NetworkName
    check: ValidationCheck


class Checkpoint:
    """Training states of the networks, in one safetensors file beside the model.

    If resumed, an existing file is continued instead of replaced.
    """

    def __init__(self, path: Path, *, resumed: bool = False) -> None:
        self.path, self._resumed = path, resumed
        self._training_key = ""
        self._states: dict[str, dict[str, Tensor]] = {}

    @classmethod
    def for_model(cls, model: Path, *, resumed: bool = False) -> "Checkpoint":
        """Return the checkpoint of a model file."""
        return cls(model.with_name(model.name + CHECKPOINT_SUFFIX), resumed=resumed)

    def open(self, training_key: Sequence[str]) -> None:
        """Set the key of the training, and read the file if it is resumed.

        ModelError if the file belongs to another training or is damaged.
        """
        # The version changes whenever a state of an older version cannot be continued.
        self._training_key, self._states = json.dumps([_CHECKPOINT_VERSION, *training_key]), {}
        if not self._resumed or not self.path.exists():
            return
        try:
            with safe_open(self.path, "pt") as file:
                is_same_training = (file.metadata() or {}).get("told") == self._training_key
                for name in file.keys():  # noqa: SIM118 - safe_open is not a mapping
                    network, key = name.split("/", 1)  # names as written by `_write_file`
                    # A clone outlives the mapped file, which the next save replaces.
                    self._states.setdefault(network, {})[key] = file.get_tensor(name).clone()
        except (OSError, SafetensorError, ValueError):
            raise ModelError(f"{printable(self.path)} is damaged: omit --resume to start again") from None
        if not is_same_training:
            raise ModelError(
                f"{printable(self.path)} belongs to another training: the recordings or settings differ; "
                "omit --resume to start again"
            )

    def get_state(self, network: str) -> TrainingState | None:
        """Return the saved state of a network; None if it has not started."""
        return self._states.get(network)

    def save_state(self, network: str, state: TrainingState) -> None:
        """Write the state of a network; raise OutputError if that fails."""
        self._states[network] = dict(state)
        self._write_file()

    def record_digest(self, digest: str) -> None:
        """Write the digest of the finished model, before the model itself is written."""
        if self._states:  # without a state there is no file, so nothing to resume
            self._write_file({"made": digest})

    def recorded_digest(self) -> str | None:
        """Return the digest of the finished model, if the training is resumed and had finished."""
        if self._resumed and self.path.exists():
            with suppress(OSError, SafetensorError), safe_open(self.path, "pt") as file:
                return (file.metadata() or {}).get("made")
        return None

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def _write_file(self, extra_metadata: Mapping[str, str] | None = None) -> None:
        tensors = {
            f"{network}/{key}": torch.as_tensor(value).contiguous()
            for network, state in self._states.items()
            for key, value in state.items()
        }
        content = save(tensors, {"told": self._training_key, **(extra_metadata or {})})
        write_bytes(self.path, content, overwrite=True)  # atomic: a crash leaves the previous state


def fit_scorers(
    takes: RecordingsBySide | None,
    listener_data: ListenerData | None,
    settings: ModelSettings,
    device: str,
    checkpoint: Checkpoint | None = None,
) -> Generator[CheckEvent, None, dict[NetworkName, TrainedScorer]]:
    """Train the scorer and, if the settings ask for it, the judge; yield every check.

    Parameters
    ----------
    takes, listener_data
        Recordings with the label of their folder, and answers of listeners. One may be None.
    checkpoint : Checkpoint, optional
        Ignored if several processes train together; ModelError if it belongs to another training.
    """
    if world_size() > 1:
        checkpoint = None  # the random state of each process differs, and a file holds only one
    if checkpoint is not None:
        checkpoint.open(_training_key(takes, listener_data, settings))
    # Scorer and judge hold out different recordings: each has a split of its own seed.
    training = settings.training
    fits: dict[NetworkName, TrainedScorer] = {}
    for network, seed in networks_to_train(settings):
        state = checkpoint.get_state(network) if checkpoint is not None else None
        labels = hold_out_takes(takes, training.held_out, seed) if takes is not None else None
        # Preference training takes labels as a second task, so it covers the combined case too.
        if listener_data is not None:
            progress = train_preference_scorer(
                *hold_out_listener_groups(listener_data, training.held_out, seed),
                settings.scorer,
                settings.spectrum,
                training,
                labels=labels,
                seed=seed,
                device=device,
                state=state,
            )
        else:
            assert labels is not None
            progress = train_scorer(
                *labels, settings.scorer, settings.spectrum, training, seed=seed, device=device, state=state
            )
        for event in progress:
            if isinstance(event, TrainedScorer):
                fits[network] = event
                continue
            if checkpoint is not None and event.run is not None:
                checkpoint.save_state(network, event.run.state())
            yield CheckEvent(network, event)
    return fits


def networks_to_train(settings: ModelSettings) -> list[tuple[NetworkName, int]]:
    """Return the networks to train, each with its own seed."""
    seed = settings.training.seed  # a judge of the same seed would repeat the scorer's errors
    networks: list[tuple[NetworkName, int]] = [("scorer", seed), ("judge", seed + 1)]
    return networks if settings.training.judge else networks[:1]


def hold_out_takes(takes: RecordingsBySide, share: float, seed: int) -> tuple[LabelledTakes, LabelledTakes]:
    """Split both sides into row levels to learn from and row levels to check on."""
    reference = split_takes(takes["reference"], share, seed)
    source = split_takes(takes["source"], share, seed)
    return (
        _labelled_takes(reference.train, source.train),
        _labelled_takes(reference.held_out, source.held_out),
    )


def _labelled_takes(
    reference: Sequence[TrainingRecording], source: Sequence[TrainingRecording]
) -> LabelledTakes:
    return LabelledTakes(
        [take.rows_db for take in reference], [take.rows_db for take in source], take_weights(reference)
    )


def _training_key(
    takes: RecordingsBySide | None, listener_data: ListenerData | None, settings: ModelSettings
) -> list[str]:
    """Return settings and a hash of the data: a checkpoint fits only a training with equal ones."""
    hasher = hashlib.sha256()
    for side, side_takes in (takes or {}).items():
        for take in side_takes:
            hasher.update(f"{side} {take.digest} {take.group} {take.weight}\n".encode())
    if listener_data is not None:
        for tensor in (
            listener_data.better,
            listener_data.worse,
            listener_data.rated,
            listener_data.target,
            *listener_data.rows,
        ):
            # Hashed whole: unlike folders, tables have no digest per recording.
            hasher.update(tensor.contiguous().numpy().tobytes())
    return [settings.model_dump_json(), hasher.hexdigest()]
