"""One recording of a training folder or of a list: where it is, what it belongs to, its sound."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tonewood.errors import AudioError, printable
from tonewood.files.audio import MIN_RECORDING_SECONDS, AudioReader, find_audio_files, file_sha256
from tonewood.files.cache import ContentKey
from tonewood.files.manifest import ManifestEntry, ManifestSide
from tonewood.files.recording import AudioArray

FolderOrManifest = Path | ManifestSide
"""Where one side's recordings are: below a folder, or on a list."""

RecordingRef = Path | ManifestEntry
"""One of them."""


class ExcerptReader:
    """A recording, or the piece of one that a list names, decoded anew each time it is run through.

    Attributes
    ----------
    rate, channels : int
    format : AudioFormat

    Raises
    ------
    AudioError
        It cannot be used: here, or where `blocks` shows it.
    """

    def __init__(self, item: RecordingRef) -> None:
        self._stream = AudioReader(recording_path(item))
        self.rate, self.channels = self._stream.rate, self._stream.channels
        self.format = self._stream.format
        self._entry = item if isinstance(item, ManifestEntry) else None
        self._checked = False

    def blocks(self) -> Iterator[AudioArray]:
        """All of it, (channels, samples) at a time."""
        return self._stream.blocks() if self._entry is None else self._excerpt_blocks(self._entry)

    def _excerpt_blocks(self, entry: ManifestEntry) -> Iterator[AudioArray]:
        """From its start to its end, as a list says."""
        first = round((entry.start or 0.0) * self.rate)
        last = None if entry.end is None else round(entry.end * self.rate)
        at = found = 0
        low, high = np.inf, -np.inf
        for block in self._stream.blocks():
            if self._checked and last is not None and at >= last:
                return  # the file was found whole before
            own = block[:, max(0, first - at) : None if last is None else max(0, last - at)]
            at += block.shape[1]
            if own.shape[1]:
                found += own.shape[1]
                low, high = min(low, float(own.min())), max(high, float(own.max()))
                yield np.ascontiguousarray(own)
        if found < MIN_RECORDING_SECONDS * self.rate:
            raise AudioError(
                f"{printable(entry.path)} lasts {at / self.rate:.2f} s; line {entry.line} of the list "
                f"leaves {found / self.rate:.2f} s of it and {MIN_RECORDING_SECONDS:g} s are needed"
            )
        if low == high:
            raise AudioError(
                f"{printable(entry.path)} is silent where line {entry.line} of the list looks: "
                "name another piece"
            )
        self._checked = True


def list_recordings(dataset: FolderOrManifest) -> list[RecordingRef]:
    """All recordings of a side, in a fixed order; FolderError where there are none."""
    return list(dataset.entries if isinstance(dataset, ManifestSide) else find_audio_files(dataset))


def recording_path(item: RecordingRef) -> Path:
    """File of a recording."""
    return item.path if isinstance(item, ManifestEntry) else item


def content_key(item: RecordingRef) -> ContentKey:
    """What names its content."""
    if isinstance(item, ManifestEntry):
        return ContentKey(file_sha256(item.path), item.start, item.end)
    return ContentKey(file_sha256(item))


def group_key(item: RecordingRef, dataset: FolderOrManifest, group_by: str) -> str:
    """What a recording is kept together with; by "folder" also what the audit calls a session."""
    if isinstance(item, ManifestEntry):
        # A session that a list states is one whatever takes are otherwise grouped by.
        return item.session or ("." if group_by == "folder" else str(item.path))
    assert isinstance(dataset, Path)
    return group_of_path(item.relative_to(dataset), group_by)


def group_of_path(path: Path, group_by: str) -> str:
    """Group of a recording at a path relative to its folder: itself, or its first sub-folder.

    Recordings in no sub-folder are a group of their own.
    """
    if group_by == "file":
        return str(path)
    return path.parts[0] if len(path.parts) > 1 else "."
