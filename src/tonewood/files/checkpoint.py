"""Training as far as it has come, beside the model that it will be: for `train --resume`."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tonewood.errors import ModelError, printable
from tonewood.files.output import write_bytes
from tonewood.scoring.course import TrainingState

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
            raise ModelError(
                f"{printable(self.path)} is damaged: leave --resume out to begin anew"
            ) from None
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
