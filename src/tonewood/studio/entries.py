"""What the store holds: sessions, their recordings and edits, and jobs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import TonewoodError
from tonewood.settings import Settings
from tonewood.workflow.edit import Edit

SAMPLES_FILE = "input.f32"
"""Name of a session's samples: float32, little-endian, channel by channel within each moment."""


class NotFoundError(TonewoodError):
    """There is no such session, job or file."""


class RecordingInfo(Settings):
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
class EditState:
    """An edit in a session's history.

    Parameters
    ----------
    number : int
        Place in the history, from 0.
    mask_number : int or None
        Which found mask it changes; None before the first.
    """

    number: int
    mask_number: int | None
    edit: Edit
    can_undo: bool
    can_redo: bool


@dataclass(frozen=True)
class StudioSession:
    """A recording at work."""

    id: str
    title: str
    created: float
    changed: float
    recording: RecordingInfo
    model: str
    folder: Path

    def open_samples(self) -> NDArray[np.float32]:
        """Samples (channels, samples) as float32, on disk until they are looked at."""
        return memory_map_samples(self.folder / SAMPLES_FILE, self.recording.channels)

    @property
    def upload_path(self) -> Path:
        """The file as it came."""
        return self.folder / self.recording.upload


def memory_map_samples(path: Path, channels: int) -> NDArray[np.float32]:
    """Samples (channels, samples) of a session's file, on disk until they are looked at."""
    flat = np.memmap(path, "<f4", "r")
    return flat.reshape(-1, channels).T


@dataclass
class StudioJob:
    """Work that takes a while: what was asked, and what is told of it."""

    id: str
    session: str | None
    kind: str
    state: str
    request: dict[str, Any]
    progress: dict[str, Any]
    created: float

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will come."""
        return self.state not in ("queued", "running")

    def to_json(self) -> dict[str, Any]:
        """As the page sees it."""
        told = {key: value for key, value in self.progress.items() if key not in ("row", "rows")}
        if "rows" in self.progress:
            told["rows"] = [_without_paths(row) for row in self.progress["rows"]]
        if "row" in self.progress:
            at, row = self.progress["row"]
            told["row"] = [at, _without_paths(row)]
        return {
            "id": self.id,
            "session": self.session,
            "kind": self.kind,
            "state": self.state,
            "told": told,
            "created": self.created,
        }


def _without_paths(row: dict[str, Any]) -> dict[str, Any]:
    """A recording of a batch without where it lies, which is no page's business."""
    return {key: value for key, value in row.items() if key not in ("input", "output")}
