"""The mask M: a gain over frequency and time."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.dsp.chunking import TensorTimeSeries, TimeSeries, split_segments
from tonewood.dsp.filterbank import hz_to_mel
from tonewood.dsp.stft import TensorGainFunction
from tonewood.html_report import mask_html
from tonewood.utils.arrays import FloatArray

# Fine enough that a cell which falls on the other side of a half is not heard, and ±65 dB in int16.
QUANTIZATION_STEP_DB = 0.002


@dataclass(frozen=True)
class Mask:
    """Gains in dB on a grid of rows and frames, added to the log magnitude.

    Parameters
    ----------
    gain_db : float32 array (row, frame)
    hz : float64 array (row,)
        Centre frequency of each row, rising.
    hop_seconds : float
        Frame k stands at k * hop_seconds.
    top_hz : float
        Upper end of the top row; above it gains fade to 0 dB over an octave.
    """

    gain_db: NDArray[np.float32]
    hz: FloatArray
    hop_seconds: float
    top_hz: float

    def __post_init__(self) -> None:
        assert self.gain_db.ndim == 2
        assert self.gain_db.shape[0] == self.hz.shape[0]
        assert self.gain_db.shape[1] > 0

    def gain_at(self, hz: FloatArray, seconds: FloatArray) -> NDArray[np.float32]:
        """Gain [frequency, time] in dB, interpolated linearly in mel and in time.

        Below the lowest and between the highest centre and `top_hz` the nearest row's gain holds;
        before the first and after the last frame theirs does.
        """
        return self.gain_function(torch.device("cpu"))(hz, seconds).numpy()

    def gain_function(self, device: torch.device) -> TensorGainFunction:
        """`at`, on a device."""
        gain = torch.from_numpy(self.gain_db).to(device)
        return TensorMask(gain, self.hz, self.hop_seconds, self.top_hz).gain_at

    def scale(self, amount: float) -> Self:
        """Every gain times `amount`: half the amount is half the dB."""
        return replace(self, gain_db=(self.gain_db * amount).astype(np.float32))

    def clip(self, max_gain_db: float) -> Self:
        """Gains held within ±`gain_limit_db`."""
        return replace(self, gain_db=np.clip(self.gain_db, -max_gain_db, max_gain_db))

    def quantize(self) -> Self:
        """Gains in whole steps of 0.002 dB: what a recipe stores is what was rendered."""
        gain = np.round(self.gain_db / QUANTIZATION_STEP_DB).astype(np.float32) * np.float32(
            QUANTIZATION_STEP_DB
        )
        return replace(self, gain_db=gain)

    def _repr_html_(self) -> str:
        """Return a picture for notebooks."""
        seconds = np.arange(self.gain_db.shape[1]) * self.hop_seconds
        return mask_html(self.gain_at, self.top_hz, seconds, self.largest_db, self.rms_db)

    @property
    def largest_db(self) -> float:
        """Largest gain, either way."""
        return float(np.abs(self.gain_db).max())

    @property
    def rms_db(self) -> float:
        """Root mean square of the gains."""
        return float(np.sqrt(np.mean(np.square(self.gain_db, dtype=np.float64))))

    @property
    def roughness_db(self) -> float:
        """Mean step from frame to frame: an EQ moves slowly, noise does not."""
        if self.gain_db.shape[1] == 1:
            return 0.0
        return float(np.abs(np.diff(self.gain_db, axis=1)).mean(dtype=np.float64))


@dataclass(frozen=True, eq=False)
class TensorMask:
    """A mask whose gains [row, frame] are a tensor, wherever that is.

    Parameters
    ----------
    gain_db, hz, hop_seconds, top_hz
        As of `Mask`.
    """

    gain_db: Tensor
    hz: FloatArray
    hop_seconds: float
    top_hz: float

    def gain_at(self, hz: FloatArray, seconds: FloatArray) -> Tensor:
        """`Mask.at`."""
        gain, last = self.gain_db, self.gain_db.shape[1] - 1
        column = np.clip(seconds / self.hop_seconds, 0, last)
        left = np.floor(column).astype(np.int64)
        part = torch.from_numpy((column - left).astype(np.float32)).to(gain.device)
        before, after = (torch.from_numpy(it).to(gain.device) for it in (left, np.minimum(left + 1, last)))
        frames = gain[:, before] * (1 - part) + gain[:, after] * part
        asked, own = (np.asarray(it, np.float64).tobytes() for it in (hz, self.hz))
        grid = _InterpolationGrid(asked, own, self.top_hz)
        return _interpolation_matrix(grid, gain.device) @ frames


class _InterpolationGrid(NamedTuple):
    """Frequencies that are asked for, and centres of rows, Hz, as bytes of doubles."""

    hz: bytes
    centres: bytes
    top_hz: float


@lru_cache(maxsize=16)
def _interpolation_matrix(rows: _InterpolationGrid, device: torch.device) -> Tensor:
    """Share of each row's gain [frequency, row] in that of every frequency."""
    hz, own = np.frombuffer(rows.hz), np.frombuffer(rows.centres)
    mel, centres = hz_to_mel(hz), hz_to_mel(own)
    position = np.interp(mel, centres, np.arange(len(centres), dtype=np.float64))
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, len(centres) - 1)
    weights = np.zeros((len(hz), len(centres)), dtype=np.float32)
    place = np.arange(len(hz))
    weights[place, low] += 1 - (position - low)
    weights[place, high] += position - low
    octaves_above = np.log2(np.maximum(hz, rows.top_hz) / rows.top_hz)
    fade: NDArray[np.float32] = np.clip(1 - octaves_above, 0, 1).astype(np.float32)
    return torch.from_numpy(weights * fade[:, None]).to(device)


@dataclass(frozen=True)
class LazyMask:
    """A mask that need not be in memory.

    Parameters
    ----------
    gain_db : Track [row, frame]
    hz, hop_seconds, top_hz
        As of `Mask`.
    """

    gain_db: TimeSeries
    hz: FloatArray
    hop_seconds: float
    top_hz: float

    @classmethod
    def from_mask(cls, mask: Mask) -> Self:
        """One that is in memory after all."""
        gain = TensorTimeSeries(torch.from_numpy(mask.gain_db))
        return cls(gain, mask.hz, mask.hop_seconds, mask.top_hz)

    def gain_at(self, hz: FloatArray, seconds: FloatArray) -> NDArray[np.float32]:
        """`Mask.at` for times that lie near each other."""
        return self.window(float(seconds.min()), float(seconds.max())).gain_at(hz, seconds)

    def window(self, start_s: float, end_s: float) -> "MaskWindow":
        """What of it is asked for between two times in seconds."""
        most = self.gain_db.frames - 1
        first = min(max(0, int(start_s / self.hop_seconds)), most)
        last = min(int(end_s / self.hop_seconds) + 2, most + 1)
        return MaskWindow(self.slice_frames(first, max(last, first + 1)), first * self.hop_seconds)

    def slice_frames(self, start: int, stop: int) -> Mask:
        """Frames from `start` up to `stop`, as a mask whose time starts with them."""
        gain = self.gain_db.read(start, stop).numpy()
        return Mask(gain, self.hz, self.hop_seconds, self.top_hz)

    def to_mask(self) -> Mask:
        """All of it in memory."""
        return self.slice_frames(0, self.gain_db.frames)

    @property
    def roughness_db(self) -> float:
        """As of `Mask`."""
        steps, total = self.gain_db.frames - 1, 0.0
        for span in split_segments(steps):
            gain = self.gain_db.read(span.start, span.stop + 1)
            total += float(gain.diff(dim=1).abs().sum(dtype=torch.float64))
        return total / max(1, steps * len(self.hz))


class MaskWindow(NamedTuple):
    """Part of a long mask that knows where in the recording it is."""

    mask: Mask
    start_s: float

    def gain_at(self, hz: FloatArray, seconds: FloatArray) -> NDArray[np.float32]:
        """`Mask.at` for times, in the recording, that lie in the part."""
        return self.mask.gain_at(hz, seconds - self.start_s)

    def gain_function(self, device: torch.device) -> TensorGainFunction:
        """`at`, on a device."""
        field = self.mask.gain_function(device)
        return lambda hz, seconds: field(hz, seconds - self.start_s)


def moving_average(gain: Tensor, frames: int, rows: int = 1) -> Tensor:
    """Moving average of gains [..., row, frame] over so many frames and rows (made odd).

    Edges repeat, so a constant stays what it is.
    """
    shape = gain.shape
    x = gain.reshape(-1, 1, *shape[-2:])
    for axis, length in ((3, frames), (2, rows)):
        half = min(length // 2, x.shape[axis] - 1)
        if half > 0:
            pad = (half, half, 0, 0) if axis == 3 else (0, 0, half, half)
            kernel = (1, 2 * half + 1) if axis == 3 else (2 * half + 1, 1)
            x = torch.nn.functional.avg_pool2d(
                torch.nn.functional.pad(x, pad, mode="replicate"), kernel, stride=1
            )
    return x.reshape(shape)
