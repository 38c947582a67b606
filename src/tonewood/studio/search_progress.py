"""Progress of a search: its position in the recording, and the part of the mask that is found already."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import LazyTimeSeries
from tonewood.enhancement.analysis import ArraySource
from tonewood.mask.mask import QUANTIZATION_STEP_DB, Mask, resample_mask
from tonewood.studio.database import PART_PREFIX
from tonewood.utils.arrays import FloatArray, Levels, Samples

JobData = dict[str, Any]
Report = Callable[[JobData], None]
"""Sends the progress of a job to its pages; raises if the job was cancelled."""
_REPORT_INTERVAL_S = 0.5


@dataclass(frozen=True, eq=False)
class ReportingSource(ArraySource):
    """Audio (channels, samples) in memory that reports how far it was read.

    Parameters
    ----------
    phases : iterator of str
        Name of each pass over the audio.
    """

    report: Report
    phases: Iterator[str]

    def blocks(self) -> Iterator[Samples]:
        """Yield views of the array."""
        phase, seconds, reported = next(self.phases), 0.0, 0.0
        for block in super().blocks():
            if time.monotonic() > reported + _REPORT_INTERVAL_S:
                reported = time.monotonic()
                self.report({"phase": phase, "at_s": round(seconds, 1)})
            yield block
            seconds += block.shape[1] / self.rate


def partial_mask_path(folder: Path, number: int) -> Path:
    """Return the path of the part of a mask that its search has found: int16 [frame, row]."""
    return folder / f"{PART_PREFIX}{number}.i16"


class PartialMaskWriter:
    """Stores the mask of a search, part by part, until the recipe is written.

    Parameters
    ----------
    max_gain_db : float
        Limit of the gains.
    """

    def __init__(self, path: Path, max_gain_db: float) -> None:
        self.path, self.max_gain_db = path, max_gain_db
        self.path.write_bytes(b"")
        self.frames = 0

    def append(self, gain_db: Levels) -> None:
        """Append gains [row, frame]."""
        limited = np.clip(gain_db, -self.max_gain_db, self.max_gain_db)
        steps = np.rint(limited.T / QUANTIZATION_STEP_DB).astype("<i2")
        with self.path.open("ab") as file:
            file.write(steps.tobytes())
        self.frames += len(steps)

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def count_partial_frames(path: Path, rows: int) -> int:
    """Return the number of frames that a search has found; 0 without a file."""
    return path.stat().st_size // (2 * rows) if path.exists() else 0


def partial_mask(
    path: Path, hz: FloatArray, frames: int, hop_seconds: float, top_hz: float, base: Mask | None
) -> Mask:
    """Return what a search has found of a mask, and `base` or 0 dB after it; read when it is used."""
    done = min(count_partial_frames(path, len(hz)), frames)
    steps: NDArray[np.int16] = np.zeros((0, len(hz)), np.int16)
    if done:
        steps = np.memmap(path, "<i2", "r", shape=(done, len(hz)))

    after = None if base is None else resample_mask(base, hz, hop_seconds, frames)

    def read(start: int, stop: int) -> Levels:
        gain_db: Levels = np.zeros((len(hz), max(0, min(stop, frames) - start)), np.float32)
        if after is not None and gain_db.size:
            gain_db[:] = after.read(start, stop)
        part = steps[start : min(stop, done)]
        gain_db[:, : len(part)] = part.T * np.float32(QUANTIZATION_STEP_DB)
        return gain_db

    return Mask(LazyTimeSeries(frames, read), hz, hop_seconds, top_hz)
