"""The mask M of the paper: gains in dB over frequency and time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import ArrayTimeSeries, LazyTimeSeries, TimeSeries, split_segments
from tonewood.dsp.features import hz_to_mel, power_of_db
from tonewood.utils.arrays import FloatArray, Levels

# Rounding by half of this is inaudible, and int16 still holds ±65 dB in such steps.
QUANTIZATION_STEP_DB = 0.002
_SHORT_WINDOW = 16  # frames or rows up to which adding them one by one is faster than a running sum


@dataclass(frozen=True, eq=False, init=False)
class Mask:
    """Gains in dB on a grid of rows and frames, added to the log magnitude.

    Gains are read when they are used, so a mask may live in memory, on disk or in a function.
    """

    gains: TimeSeries  # [row, frame]
    hz: FloatArray  # [row]: centre frequencies, rising
    hop_seconds: float  # time from frame to frame
    top_hz: float  # upper end of the top row; above it gains fade to 0 dB over an octave
    start_s: float  # time of the first frame

    def __init__(
        self,
        gains: NDArray[np.float32] | TimeSeries,
        hz: FloatArray,
        hop_seconds: float,
        top_hz: float,
        start_s: float = 0.0,
    ) -> None:
        if isinstance(gains, np.ndarray):
            assert gains.ndim == 2
            assert gains.shape[0] == len(hz)
            gains = ArrayTimeSeries(gains)
        assert gains.frames > 0
        values = {"gains": gains, "hz": hz, "hop_seconds": hop_seconds, "top_hz": top_hz, "start_s": start_s}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"<Mask: {len(self.hz)} rows, {self.frames} frames of {1000 * self.hop_seconds:g} ms>"

    @property
    def gain_db(self) -> NDArray[np.float32]:
        """All gains (row, frame) in memory."""
        return self.gains.read(0, self.frames)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.gains.frames

    def with_gains(
        self,
        gains: NDArray[np.float32] | TimeSeries,
        hz: FloatArray | None = None,
        top_hz: float | None = None,
    ) -> Self:
        """Return a mask with other gains, and other rows if `hz` is given."""
        return type(self)(
            gains,
            self.hz if hz is None else hz,
            self.hop_seconds,
            self.top_hz if top_hz is None else top_hz,
            self.start_s,
        )

    def load(self) -> Self:
        """Return the mask with all gains in memory."""
        return self.with_gains(self.gain_db)

    def map_gains(self, function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Self:
        """Return a mask in memory whose gains (row, frame) a function made of these."""
        return self.with_gains(function(self.gain_db))

    def scale(self, amount: float) -> Self:
        """Multiply every gain by `amount`."""
        return self.map_gains(lambda gain: (gain * amount).astype(np.float32))

    def clip(self, max_gain_db: float) -> Self:
        """Limit gains to ±`max_gain_db`."""
        return self.map_gains(lambda gain: np.clip(gain, -max_gain_db, max_gain_db))

    def quantize(self) -> Self:
        """Round gains to steps of 0.002 dB, so that a recipe stores exactly what was rendered."""
        step = np.float32(QUANTIZATION_STEP_DB)
        return self.map_gains(lambda gain: np.round(gain / QUANTIZATION_STEP_DB).astype(np.float32) * step)

    def slice_frames(self, start: int, stop: int) -> Self:
        """Return frames [start, stop) as a mask in memory that starts at 0 s."""
        return type(self)(self.gains.read(start, stop), self.hz, self.hop_seconds, self.top_hz)

    def window(self, start_s: float, end_s: float) -> Self:
        """Return the part in memory that `gain_at` needs for times from `start_s` to `end_s`."""
        assert self.start_s == 0
        last = self.frames - 1
        # Interpolation at `end_s` also reads the next frame, and `stop` is exclusive: hence + 2.
        start = min(max(0, int(start_s / self.hop_seconds)), last)
        stop = max(min(int(end_s / self.hop_seconds) + 2, last + 1), start + 1)
        gains = self.gains.read(start, stop)
        return type(self)(gains, self.hz, self.hop_seconds, self.top_hz, start * self.hop_seconds)

    def gain_at(self, hz: FloatArray, seconds: FloatArray) -> NDArray[np.float32]:
        """Interpolate gains [frequency, time] in dB, linearly in mel and in time.

        Below the lowest centre, and from the highest centre to `top_hz`, the nearest row's gain holds;
        before the first and after the last frame, that frame's gain.
        """
        last = self.frames - 1
        # Linear interpolation in time; indices are integers, so reading a slice changes no bit.
        column = np.clip((seconds - self.start_s) / self.hop_seconds, 0, last)
        left = np.floor(column).astype(np.int64)
        right = np.minimum(left + 1, last)
        start = int(left.min(initial=last))  # of no times at all, one frame is read
        gain = self.gains.read(start, max(int(right.max(initial=start)), start) + 1)
        fraction = (column - left).astype(np.float32)
        frames = gain[:, left - start] * (1 - fraction) + gain[:, right - start] * fraction
        queried, centres = (np.asarray(values, np.float64).tobytes() for values in (hz, self.hz))
        weights = _interpolation_matrix(_InterpolationGrid(queried, centres, self.top_hz))
        # Frame by frame in memory, as spectra are that the gains multiply.
        gains: Levels = (frames.T @ weights.T).T
        return gains

    def _repr_html_(self) -> str:
        """Return a picture for notebooks."""
        from tonewood.html_report import mask_html  # notebooks only

        seconds = np.arange(self.frames) * self.hop_seconds
        return mask_html(self.gain_at, self.top_hz, seconds, self.largest_db, self.rms_db)

    @property
    def largest_db(self) -> float:
        """Largest absolute gain."""
        return float(np.abs(self.gain_db).max())

    @property
    def rms_db(self) -> float:
        """Root mean square of the gains."""
        return float(np.sqrt(np.mean(np.square(self.gain_db, dtype=np.float64))))

    @property
    def roughness_db(self) -> float:
        """Mean absolute step from frame to frame: small for an EQ, large for noise."""
        steps, total = self.frames - 1, 0.0
        for segment in split_segments(steps):
            gain = self.gains.read(segment.start, segment.stop + 1)
            total += float(np.abs(np.diff(gain, axis=1)).sum(dtype=np.float64))
        return total / max(1, steps * len(self.hz))


class _InterpolationGrid(NamedTuple):
    """Queried frequencies and row centres in Hz, as bytes of doubles: hashable, for the cache."""

    hz: bytes
    centres: bytes
    top_hz: float


@lru_cache(maxsize=16)
def _interpolation_matrix(grid: _InterpolationGrid) -> NDArray[np.float32]:
    """Return the weight of each row's gain in that of every frequency [frequency, row]."""
    hz = np.frombuffer(grid.hz)
    mel, centres = hz_to_mel(hz), hz_to_mel(np.frombuffer(grid.centres))
    # Linear interpolation in mel, as a matrix: masks on the same grid share it.
    position = np.interp(mel, centres, np.arange(len(centres), dtype=np.float64))
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, len(centres) - 1)
    weights = np.zeros((len(hz), len(centres)), dtype=np.float32)
    index = np.arange(len(hz))
    weights[index, low] += 1 - (position - low)
    weights[index, high] += position - low
    # Nothing is known about frequencies above `top_hz`, and a hard edge would ring.
    octaves_above = np.log2(np.maximum(hz, grid.top_hz) / grid.top_hz)
    fade: NDArray[np.float32] = np.clip(1 - octaves_above, 0, 1).astype(np.float32)
    return weights * fade[:, None]


def resample_mask(mask: Mask, hz: FloatArray, hop_seconds: float, frames: int) -> TimeSeries:
    """Return a mask's gains [row, frame] on another grid, interpolated when they are read."""

    def read(start: int, stop: int) -> Levels:
        seconds = np.arange(start, min(stop, frames)) * hop_seconds
        return mask.window(seconds[0], seconds[-1]).gain_at(hz, seconds)

    return LazyTimeSeries(frames, read)


def moving_average(gain: Levels, frames: int, rows: int = 1) -> Levels:
    """Average gains [..., row, frame] over a window of `frames` and `rows`, rounded up to odd.

    Edges repeat, so a constant stays constant.
    """
    for axis, length in ((-1, frames), (-2, rows)):
        half = _half_window(length, gain.shape[axis])
        if half > 0:
            gain = np.swapaxes(_average_last_axis(np.swapaxes(gain, axis, -1), half), axis, -1)
    return gain


def moving_average_gradient(gradient: Levels, frames: int) -> Levels:
    """Return the gradient [..., frame] of the input of `moving_average` over frames, of its output."""
    total = gradient.shape[-1]
    half = _half_window(frames, total)
    if half == 0:
        return gradient
    # Each input counts in all windows that hold it; beyond the ends stand copies of the first and last.
    padded = np.pad(gradient, [(0, 0)] * (gradient.ndim - 1) + [(2 * half, 2 * half)])
    spread = _sums_of_windows(padded, 2 * half + 1) / np.float32(2 * half + 1)
    result = spread[..., half : half + total].copy()
    result[..., 0] += spread[..., :half].sum(axis=-1)
    result[..., -1] += spread[..., half + total :].sum(axis=-1)
    return result


def _half_window(length: int, size: int) -> int:
    return min(length // 2, size - 1)  # a wider window would only add copies of the edges


def _average_last_axis(x: Levels, half: int) -> Levels:
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="edge")
    return _sums_of_windows(padded, 2 * half + 1) / np.float32(2 * half + 1)


def _sums_of_windows(x: Levels, length: int) -> Levels:
    """Return the sums of `length` adjacent values along the last axis."""
    if length <= _SHORT_WINDOW:
        count = x.shape[-1] - length + 1
        added = x[..., :count].copy()
        for shift in range(1, length):
            added += x[..., shift : shift + count]
        return added
    # Differences of a running sum in double precision: exact enough for an hour of frames.
    total = np.cumsum(x, axis=-1, dtype=np.float64)
    sums = total[..., length - 1 :].copy()
    sums[..., 1:] -= total[..., :-length]
    return sums.astype(np.float32)


# --- Sizes of a mask

_MOST = 0.99
_BIN_DB = 0.05  # half of the last digit that is printed
_BINS = round(240 / _BIN_DB) + 1  # a mask and a curve of 60 dB each, at an amount of 2


class MaskStatistics(NamedTuple):
    """Mean of a mask over time [row, 1], and the sizes of its gains named as in `Certificate`."""

    mean_db: Levels
    largest_db: float
    rms_db: float
    heard_db: float
    most_db: float

    @classmethod
    def from_gains(cls, mask_db: TimeSeries, rows_db: TimeSeries) -> Self:
        """Measure gains [row, frame] in dB, by the input's levels [row, frame] in dB."""
        # Sums in double precision, since an hour has millions of cells.
        total, square, largest, moments = np.zeros((1, 1)), 0.0, 0.0, np.zeros(3)
        power_by_gain: FloatArray = np.zeros(_BINS)
        for part in split_segments(mask_db.frames):
            gain, level = (series.read(part.start, part.stop) for series in (mask_db, rows_db))
            gain_square, power = np.square(gain), power_of_db(level)
            total = total + gain.sum(axis=1, keepdims=True, dtype=np.float64)
            square += float(gain_square.sum(dtype=np.float64))
            largest = max(largest, float(np.abs(gain).max()))
            moments += [(power * x).sum(dtype=np.float64) for x in (np.float32(1), gain, gain_square)]
            power_by_gain += _power_by_gain(gain, power_of_db(level + np.maximum(gain, 0)))
        rms = (square / (len(total) * mask_db.frames)) ** 0.5
        _, mean, mean_square = moments / moments[0]
        deviation = float(max(mean_square - mean**2, 0)) ** 0.5
        mean_db = (total / mask_db.frames).astype(np.float32)
        return cls(mean_db, largest, rms, deviation, _most_of(power_by_gain))


def _power_by_gain(gain_db: Levels, power: Levels) -> FloatArray:
    """Return the sum of the power of the cells in each bin of absolute gain."""
    bins = np.rint(np.abs(gain_db) / _BIN_DB).astype(np.int64).clip(max=_BINS - 1)
    return np.bincount(bins.ravel(), power.ravel(), minlength=_BINS).astype(np.float64)


def _most_of(power_by_gain: FloatArray) -> float:
    """Return the absolute gain that most of the power has at most."""
    share = np.cumsum(power_by_gain) / power_by_gain.sum()
    return round(float(np.searchsorted(share, _MOST)) * _BIN_DB, 2)
