"""What the store holds: sessions, their recordings and edits, and jobs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import TonewoodError
from tonewood.settings import Settings
from tonewood.workflow.edit import Edit

SAMPLES = "input.f32"
"""Name of a session's samples: float32, little-endian, channel by channel within each moment."""


class MissingError(TonewoodError):
    """There is no such session, job or file."""


class Sound(Settings):
    """What is known of a session's recording.

    Parameters
    ----------
    name : str
        As its owner called it; never a path here.
    upload : str
        Name of the file as it came, in the session's folder.
    encoding : tuple of str
        libsndfile's container, subtype and byte order.
    sha256 : str
        Of the file as it came.
    """

    name: str
    upload: str
    encoding: tuple[str, str, str]
    sha256: str
    rate: int
    channels: int
    samples: int
    clipped: bool

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.samples / self.rate


@dataclass(frozen=True)
class State:
    """An edit in a session's history.

    Parameters
    ----------
    number : int
        Place in the history, from 0.
    found : int or None
        Which found mask it changes; None before the first.
    """

    number: int
    found: int | None
    edit: Edit
    undo: bool
    redo: bool


@dataclass(frozen=True)
class Session:
    """A recording at work."""

    id: str
    title: str
    created: float
    changed: float
    sound: Sound
    model: str
    folder: Path

    def samples(self) -> NDArray[np.float32]:
        """Samples (channels, samples) as float32, on disk until they are looked at."""
        return mapped(self.folder / SAMPLES, self.sound.channels)

    @property
    def upload(self) -> Path:
        """The file as it came."""
        return self.folder / self.sound.upload


def mapped(path: Path, channels: int) -> NDArray[np.float32]:
    """Samples (channels, samples) of a session's file, on disk until they are looked at."""
    flat = np.memmap(path, "<f4", "r")
    return flat.reshape(-1, channels).T


@dataclass
class Job:
    """Work that takes a while: what was asked, and what is told of it."""

    id: str
    session: str | None
    kind: str
    state: str
    asked: dict[str, Any]
    told: dict[str, Any]
    created: float

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state not in ("queued", "running")

    def shown(self) -> dict[str, Any]:
        """As the page sees it."""
        told = {key: value for key, value in self.told.items() if key not in ("row", "rows")}
        if "rows" in self.told:
            told["rows"] = [_pathless(row) for row in self.told["rows"]]
        if "row" in self.told:
            at, row = self.told["row"]
            told["row"] = [at, _pathless(row)]
        return {
            "id": self.id,
            "session": self.session,
            "kind": self.kind,
            "state": self.state,
            "told": told,
            "created": self.created,
        }


def _pathless(row: dict[str, Any]) -> dict[str, Any]:
    """A recording of a batch without where it lies, which is no page's business."""
    return {key: value for key, value in row.items() if key not in ("input", "output")}
