"""Recordings as they were analysed, kept on disk and mapped into memory: found again next time.

An entry is a safetensors file named by what decides its content: the recording's own bytes, the
piece of it, the settings of the analysis, and what is done to it before. Nothing in it is believed
beyond that: an entry that cannot be read is made again.
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tonewood.errors import OutputError
from tonewood.files.formats import AudioFormat
from tonewood.files.output import atomic_path, remove_stale_temporaries
from tonewood.files.spool import DiskArray
from tonewood.signal.features import CompactFeatures
from tonewood.signal.traces import RecordingQuality

_CACHE_VERSION = 1
_CACHE_SUFFIX = ".take"
_MAX_CACHE_BYTES = 20 * 2**30


class ContentKey(NamedTuple):
    """A recording by its bytes, and which part of it, in seconds."""

    sha256: str
    start: float | None = None
    end: float | None = None


class CachedFeatures(NamedTuple):
    """All that is kept of one recording.

    Parameters
    ----------
    digest : str
        SHA-256 of the samples, as they were before any fix.
    seconds : float
    format : AudioFormat
    features : CompactFeatures
    traces : RecordingQuality
    spectra : array [window, row]
        As `scoring.audit.long_term` makes them.
    """

    digest: str
    seconds: float
    format: AudioFormat
    features: CompactFeatures
    traces: RecordingQuality
    spectra: NDArray[Any]


class ExtractedFeatures(NamedTuple):
    """All that is kept of one recording, just made, what grows with its length on disk.

    Parameters
    ----------
    digest, seconds, format, traces, spectra
        As of `CachedFeatures`.
    rows_db : DiskArray [row, frame]
    long_db : DiskArray [pitch, long frame]
    """

    digest: str
    seconds: float
    format: AudioFormat
    traces: RecordingQuality
    spectra: NDArray[Any]
    rows_db: DiskArray
    long_db: DiskArray

    def to_memory(self) -> CachedFeatures:
        """All of it in memory."""
        analysis = CompactFeatures(*(it.read(0, it.frames) for it in (self.rows_db, self.long_db)))
        return CachedFeatures(
            self.digest, self.seconds, self.format, analysis.to_frame_major(), self.traces, self.spectra
        )


@dataclass(frozen=True)
class FeatureCache:
    """Where entries are kept; nowhere, if no folder is given.

    Parameters
    ----------
    folder : Path, optional
    max_bytes : int
        What is kept after a run; entries that were not used for longest go first.
    """

    folder: Path | None = None
    max_bytes: int = _MAX_CACHE_BYTES

    @classmethod
    def for_user(cls) -> "FeatureCache":
        """The user's own: what `TONEWOOD_CACHE` names, else the system's place for such things."""
        named = os.environ.get("TONEWOOD_CACHE")
        return cls(Path(named) if named else user_cache_path("tonewood") / "takes")

    def get_or_extract(
        self,
        content_key: Callable[[], ContentKey],
        extract: Callable[[Path | None], ExtractedFeatures],
        key_parts: Sequence[str],
    ) -> CachedFeatures:
        """What is kept of a piece, or what `extract` makes of it, which is kept from now on.

        A folder that cannot be written to keeps nothing, and is no error.

        Parameters
        ----------
        extract : callable
            Is given the folder on whose disk there should be space, if any.
        key_parts : sequence of str
            What else decides the analysis.
        """
        if self.folder is None:
            return extract(None).to_memory()
        name = hashlib.sha256(json.dumps([_CACHE_VERSION, *content_key(), *key_parts]).encode()).hexdigest()
        path = self.folder / f"{name}{_CACHE_SUFFIX}"
        kept = _read_cache_entry(path)
        if kept is not None:
            return kept
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            made = extract(self.folder)
        except (OSError, OutputError):
            return extract(None).to_memory()
        try:
            _write_cache_entry(path, made)
        except (OSError, OutputError):
            return made.to_memory()
        return _read_cache_entry(path) or made.to_memory()

    @contextmanager
    def enforce_size(self) -> Iterator[None]:
        """Keep the folder within its size when the block ends, and free of what was left in it."""
        try:
            if self.folder is not None:
                remove_stale_temporaries([self.folder])
            yield
        finally:
            if self.folder is not None:
                self._remove_oldest(self.folder)

    def _remove_oldest(self, folder: Path) -> None:
        found = []
        for path in folder.glob(f"*{_CACHE_SUFFIX}"):
            try:
                status = path.stat()
            except OSError:
                continue  # another process was quicker
            found.append((status.st_mtime, status.st_size, path))
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left <= self.max_bytes:
                break
            path.unlink(missing_ok=True)  # what maps it keeps it
            left -= size


NO_CACHE = FeatureCache()


def _write_cache_entry(path: Path, extracted: ExtractedFeatures) -> None:
    """Write an entry in place, what is long piece by piece.

    `save_file` of safetensors writes another file and renames it: without the lock that tells a
    sweep that somebody works on it, and left behind by a process that is killed.
    """
    traces = extracted.traces._asdict()
    arrays = {name: traces.pop(name) for name in [*traces] if isinstance(traces[name], np.ndarray)}
    arrays["spectra"] = extracted.spectra
    tracks = {"rows_db": extracted.rows_db, "long_db": extracted.long_db}
    told = [extracted.digest, extracted.seconds, [extracted.format.container, extracted.format.subtype, extracted.format.endian]]
    header: dict[str, Any] = {"__metadata__": {"told": json.dumps([*told, traces])}}
    end = 0
    # Doubles first, then singles: each lies where its own size divides.
    shapes = [(name, "F64", array.shape) for name, array in arrays.items()]
    shapes += [(name, "F32", (track.frames, track.rows)) for name, track in tracks.items()]
    for name, kind, shape in shapes:
        first, end = end, end + math.prod(shape) * int(kind[1:]) // 8
        header[name] = {"dtype": kind, "shape": [*shape], "data_offsets": [first, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path, overwrite=True) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, dtype="<f8").data)
        for track in tracks.values():
            track.copy_to(file)


def _read_cache_entry(path: Path) -> CachedFeatures | None:
    """An entry, its arrays mapped; None if there is none, or it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            digest, seconds, form, traces = json.loads(file.metadata()["told"])
            arrays: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        os.utime(path)
        analysis = CompactFeatures(arrays.pop("rows_db").T, arrays.pop("long_db").T)
        spectra = arrays.pop("spectra").numpy()
        known: dict[str, Any] = {name: it.numpy() for name, it in arrays.items()}
        for name, it in traces.items():
            known[name] = tuple(it) if isinstance(it, list) else it
        return CachedFeatures(digest, seconds, AudioFormat(*form), analysis, RecordingQuality(**known), spectra)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
