"""One recording of a training folder or of a list: where it is, what it belongs to, its samples."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from tonewood.errors import AudioError, shown
from tonewood.files.audio import MIN_SECONDS, Recording, audio_files, read, sha256
from tonewood.files.cache import Piece
from tonewood.files.manifest import Entry, Listing
from tonewood.settings import Fix
from tonewood.signal.remedies import fixed
from tonewood.signal.traces import traces

Place = Path | Listing
"""Where one side's recordings are: below a folder, or on a list."""

Item = Path | Entry
"""One of them."""


def reread(item: Item, fix: Fix | None = None) -> Recording:
    """A recording, or the piece of one that a list names, with its fix applied.

    Raises
    ------
    AudioError
        It cannot be used.
    """
    recording = _cut(item) if isinstance(item, Entry) else read(item)
    return recording if fix is None else mended(recording, digest_of(recording), fix)


def items(place: Place) -> list[Item]:
    """All recordings of a side, in a fixed order; FolderError where there are none."""
    return list(place.entries if isinstance(place, Listing) else audio_files(place))


def path_of(item: Item) -> Path:
    """File of a recording."""
    return item.path if isinstance(item, Entry) else item


def piece_of(item: Item) -> Piece:
    """What names its content."""
    if isinstance(item, Entry):
        return Piece(sha256(item.path), item.start, item.end)
    return Piece(sha256(item))


def group_of(item: Item, place: Place, group_by: str) -> str:
    """What a recording is kept together with; by "folder" also what the audit calls a session."""
    if isinstance(item, Entry):
        # A session that a list states is one whatever takes are otherwise grouped by.
        return item.session or ("." if group_by == "folder" else str(item.path))
    assert isinstance(place, Path)
    return group_under(item.relative_to(place), group_by)


def group_under(path: Path, group_by: str) -> str:
    """Group of a recording at a path relative to its folder: itself, or its first sub-folder.

    Recordings in no sub-folder are a group of their own.
    """
    if group_by == "file":
        return str(path)
    return path.parts[0] if len(path.parts) > 1 else "."


def _cut(entry: Entry) -> Recording:
    """A recording from its start to its end, as a list says."""
    recording = read(entry.path)
    if entry.start is None and entry.end is None:
        return recording
    first = round((entry.start or 0.0) * recording.rate)
    last = None if entry.end is None else round(entry.end * recording.rate)
    samples = recording.samples[:, first:last]
    if samples.shape[1] < MIN_SECONDS * recording.rate:
        left = samples.shape[1] / recording.rate
        raise AudioError(
            f"{shown(entry.path)} lasts {recording.duration:.2f} s; line {entry.line} of the list "
            f"leaves {left:.2f} s of it and {MIN_SECONDS:g} s are needed"
        )
    if np.ptp(samples) == 0:
        raise AudioError(
            f"{shown(entry.path)} is silent where line {entry.line} of the list looks: "
            "name another piece"
        )
    return replace(recording, samples=np.ascontiguousarray(samples))


def mended(recording: Recording, digest: str, fix: Fix | None) -> Recording:
    """A recording with a fix applied; its digest is that of its samples before."""
    if fix is None:
        return recording
    # Drawn by the recording itself: its noise depends neither on its neighbours nor on its side.
    rng = np.random.default_rng(int(digest[:16], 16))
    samples, rate = recording.samples, recording.rate
    made = fixed(samples, rate, traces(samples, rate), fix, rng)
    return replace(recording, samples=made)


def digest_of(recording: Recording) -> str:
    """SHA-256 of the samples: a copy in another container is the same recording."""
    return hashlib.sha256(recording.samples.tobytes()).hexdigest()
