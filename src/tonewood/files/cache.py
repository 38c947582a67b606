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
from tonewood.files.output import atomic_path, sweep
from tonewood.files.spool import Spool
from tonewood.signal.features import Analysis
from tonewood.signal.traces import Traces

_VERSION = 1
_SUFFIX = ".take"
_MOST_BYTES = 20 * 2**30


class Piece(NamedTuple):
    """A recording by its bytes, and which part of it, in seconds."""

    sha256: str
    start: float | None = None
    end: float | None = None


class Studied(NamedTuple):
    """All that is kept of one recording.

    Parameters
    ----------
    digest : str
        SHA-256 of the samples, as they were before any fix.
    seconds : float
    format : AudioFormat
    analysis : Analysis
    traces : Traces
    spectra : array [window, row]
        As `scoring.audit.long_term` makes them.
    """

    digest: str
    seconds: float
    format: AudioFormat
    analysis: Analysis
    traces: Traces
    spectra: NDArray[Any]


class Fresh(NamedTuple):
    """All that is kept of one recording, just made, what grows with its length on disk.

    Parameters
    ----------
    digest, seconds, format, traces, spectra
        As of `Studied`.
    rows_db : Spool [row, frame]
    long_db : Spool [pitch, long frame]
    """

    digest: str
    seconds: float
    format: AudioFormat
    traces: Traces
    spectra: NDArray[Any]
    rows_db: Spool
    long_db: Spool

    def studied(self) -> Studied:
        """All of it in memory."""
        analysis = Analysis(*(it.part(0, it.frames) for it in (self.rows_db, self.long_db)))
        return Studied(
            self.digest, self.seconds, self.format, analysis.by_frame(), self.traces, self.spectra
        )


@dataclass(frozen=True)
class Cache:
    """Where entries are kept; nowhere, if no folder is given.

    Parameters
    ----------
    folder : Path, optional
    most_bytes : int
        What is kept after a run; entries that were not used for longest go first.
    """

    folder: Path | None = None
    most_bytes: int = _MOST_BYTES

    @classmethod
    def of_user(cls) -> "Cache":
        """The user's own: what `TONEWOOD_CACHE` names, else the system's place for such things."""
        named = os.environ.get("TONEWOOD_CACHE")
        return cls(Path(named) if named else user_cache_path("tonewood") / "takes")

    def studied(
        self,
        piece: Callable[[], Piece],
        study: Callable[[Path | None], Fresh],
        told: Sequence[str],
    ) -> Studied:
        """What is kept of a piece, or what `study` makes of it, which is kept from now on.

        A folder that cannot be written to keeps nothing, and is no error.

        Parameters
        ----------
        study : callable
            Is given the folder on whose disk there should be space, if any.
        told : sequence of str
            What else decides the analysis.
        """
        if self.folder is None:
            return study(None).studied()
        name = hashlib.sha256(json.dumps([_VERSION, *piece(), *told]).encode()).hexdigest()
        path = self.folder / f"{name}{_SUFFIX}"
        kept = _read(path)
        if kept is not None:
            return kept
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            made = study(self.folder)
        except (OSError, OutputError):
            return study(None).studied()
        try:
            _write(path, made)
        except (OSError, OutputError):
            return made.studied()
        return _read(path) or made.studied()

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Keep the folder within its size when the block ends, and free of what was left in it."""
        try:
            if self.folder is not None:
                sweep([self.folder])
            yield
        finally:
            if self.folder is not None:
                self._trim(self.folder)

    def _trim(self, folder: Path) -> None:
        found = []
        for path in folder.glob(f"*{_SUFFIX}"):
            try:
                status = path.stat()
            except OSError:
                continue  # another process was quicker
            found.append((status.st_mtime, status.st_size, path))
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left <= self.most_bytes:
                break
            path.unlink(missing_ok=True)  # what maps it keeps it
            left -= size


NOWHERE = Cache()


def _write(path: Path, it: Fresh) -> None:
    """Write an entry in place, what is long piece by piece.

    `save_file` of safetensors writes another file and renames it: without the lock that tells a
    sweep that somebody works on it, and left behind by a process that is killed.
    """
    traces = it.traces._asdict()
    arrays = {name: traces.pop(name) for name in [*traces] if isinstance(traces[name], np.ndarray)}
    arrays["spectra"] = it.spectra
    tracks = {"rows_db": it.rows_db, "long_db": it.long_db}
    told = [it.digest, it.seconds, [it.format.container, it.format.subtype, it.format.endian]]
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
            track.copied(file)


def _read(path: Path) -> Studied | None:
    """An entry, its arrays mapped; None if there is none, or it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            digest, seconds, form, traces = json.loads(file.metadata()["told"])
            arrays: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        os.utime(path)
        analysis = Analysis(arrays.pop("rows_db").T, arrays.pop("long_db").T)
        spectra = arrays.pop("spectra").numpy()
        known: dict[str, Any] = {name: it.numpy() for name, it in arrays.items()}
        for name, it in traces.items():
            known[name] = tuple(it) if isinstance(it, list) else it
        return Studied(digest, seconds, AudioFormat(*form), analysis, Traces(**known), spectra)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
