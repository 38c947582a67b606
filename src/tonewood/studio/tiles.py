"""What the page draws: tiles of spectrogram, mask and saliency, the waveform, the average EQ.

A tile has 512 columns, whatever time a column takes: 2.5 ms at level 0, twice that at the next.
A column shows the mean power of a few windows spread over its time, so that a tile costs the same
of a minute as of an hour, and nothing has to be prepared.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from tonewood.dsp.filterbank import hz_to_mel, mel_to_hz
from tonewood.mask.mask import Mask
from tonewood.utils.arrays import FloatArray

FrequencyAxis = Literal["log", "mel"]
TILE_COLUMNS, TILE_ROWS = 512, 320
FINEST_COLUMN_S = 0.0025  # a column's time at level 0
MIN_AXIS_HZ, MAX_AXIS_HZ = 40.0, 20_000.0
ZOOM_LEVELS = 16
TILE_FLOOR_DB, TILE_RANGE_DB = -110.0, 110.0
GAIN_STEP_DB = 0.25
_TILE_WINDOW_S = 0.046
_MAX_WINDOWS_PER_COLUMN = 3  # windows for each column at most


class AxisLimits(NamedTuple):
    """What a tile's rows stand for."""

    low_hz: float
    high_hz: float


class TileAddress(NamedTuple):
    """Which tile: frequency axis, the recording's rate, level of zoom, number from the left."""

    axis: FrequencyAxis
    rate: int
    level: int
    number: int


def axis_limits(rate: int) -> AxisLimits:
    """Frequencies of the lowest and the highest row for a recording at `rate` Hz."""
    return AxisLimits(MIN_AXIS_HZ, min(MAX_AXIS_HZ, rate / 2))


def row_frequencies(axis: FrequencyAxis, rate: int) -> FloatArray:
    """Centre of every row (row,) in Hz, rising: equal steps of octave or of mel."""
    low, high = axis_limits(rate)
    if axis == "log":
        rising: FloatArray = np.geomspace(low, high, TILE_ROWS)
        return rising
    lowest, highest = hz_to_mel(np.array([low, high])).tolist()
    return mel_to_hz(np.linspace(lowest, highest, TILE_ROWS))


def column_times(level: int, number: int) -> FloatArray:
    """Middle of every column (column,) of a tile, in seconds."""
    step = FINEST_COLUMN_S * 2**level
    middle: FloatArray = (number * TILE_COLUMNS + np.arange(TILE_COLUMNS) + 0.5) * step
    return middle


def spectrogram_tile(samples: NDArray[np.float32], address: TileAddress) -> NDArray[np.uint8]:
    """Tile (row, column) of levels, half-decibels above -110 dBFS (0 is that or less).

    Parameters
    ----------
    samples : float32 array (channels, samples)
        May lie on disk: only what the tile looks at is read.
    """
    axis, rate, level, number = address
    window = round(_TILE_WINDOW_S * rate)
    fft = 1 << (window - 1).bit_length()
    step = FINEST_COLUMN_S * 2**level
    looks = int(np.clip(step / _TILE_WINDOW_S * 2, 1, _MAX_WINDOWS_PER_COLUMN))
    offsets = (np.arange(looks) + 0.5) / looks - 0.5
    centres = column_times(level, number)[:, None] + offsets * step
    total = samples.shape[1]
    inside = centres[:, 0] * rate < total + window
    power = np.zeros((TILE_COLUMNS, fft // 2 + 1), np.float32)
    hann = scipy.signal.windows.hann(window, sym=False).astype(np.float32)
    if inside.any():
        starts = np.round(centres[inside] * rate).astype(np.int64) - window // 2
        spectra = scipy.fft.rfft(_gather_windows(samples, starts, window) * hann, fft, axis=-1)
        power[inside] = np.mean(spectra.real**2 + spectra.imag**2, axis=1)
    rows = _tile_row_weights(axis, rate, window, fft) @ (power.T * np.float32((4 / window) ** 2))
    level_db = 10 * np.log10(np.maximum(rows, 1e-12))
    tile: NDArray[np.uint8] = np.clip((level_db - TILE_FLOOR_DB) * 2, 0, 255).astype(np.uint8)
    return tile


def gain_tile(mask: Mask, start_s: float, end_s: float, address: TileAddress) -> NDArray[np.uint8]:
    """Tile (row, column) of gains in quarter-decibels, 128 being none.

    Parameters
    ----------
    mask : Mask
        A stretch of the whole, whose first frame stands at `start_s`.
    end_s : float
        End of the recording, after which nothing is drawn.
    """
    at_s = column_times(address.level, address.number)
    gain = mask.gain_at(row_frequencies(address.axis, address.rate), at_s - start_s)
    gain[:, at_s > end_s] = 0
    tile: NDArray[np.uint8] = np.clip(np.rint(gain / GAIN_STEP_DB) + 128, 0, 255).astype(np.uint8)
    return tile


def waveform_peaks(samples: NDArray[np.float32], count: int = 1_200) -> list[float]:
    """Largest magnitude of all channels in each of `count` equal stretches; 1 is full scale."""
    total = samples.shape[1]
    edges = np.linspace(0, total, min(count, total) + 1).astype(np.int64)
    found = []
    for start, stop in pairwise(edges.tolist()):
        # Of long stretches a few thousand samples tell enough to draw by.
        part = samples[:, start:stop][:, :: max(1, (stop - start) // 8_192)]
        found.append(float(np.abs(part).max(initial=0.0)))
    return found


class AverageEqCurve(NamedTuple):
    """The average EQ over the tile's rows: mean over time, and where 80 % of moments lie, dB."""

    hz: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def average_eq_curve(mask: Mask, axis: FrequencyAxis, rate: int, points: int = 96) -> AverageEqCurve:
    """Average EQ of a mask at `points` rows of the axis."""
    hz = row_frequencies(axis, rate)[np.linspace(0, TILE_ROWS - 1, points).round().astype(np.int64)]
    frames = mask.gain_db.shape[1]
    at = np.linspace(0, frames - 1, min(frames, 4_000)) * mask.hop_seconds
    gain = mask.gain_at(hz, at)
    low, high = np.quantile(gain, [0.1, 0.9], axis=1)
    return AverageEqCurve(*(np.round(v, 2).tolist() for v in (hz, gain.mean(axis=1), low, high)))


def _gather_windows(
    samples: NDArray[np.float32], starts: NDArray[np.int64], window: int
) -> NDArray[np.float32]:
    """Mean of the channels in windows from `starts` (…,); zeros beyond the recording."""
    total = samples.shape[1]
    first, last = int(starts.min()), int(starts.max()) + window
    out = np.zeros((*starts.shape, window), np.float32)
    if (last - first) < 8 * starts.size * window:  # close together: one read serves all
        begin, end = max(0, first), min(total, last)
        span = np.zeros(last - first, np.float32)
        if end > begin:
            span[begin - first : end - first] = samples[:, begin:end].mean(axis=0)
        out[:] = np.lib.stride_tricks.sliding_window_view(span, window)[starts - first]
        return out
    for place in np.ndindex(starts.shape):
        begin, end = max(0, int(starts[place])), min(total, int(starts[place]) + window)
        if end > begin:
            at = begin - int(starts[place])
            out[place][at : at + end - begin] = samples[:, begin:end].mean(axis=0)
    return out


@lru_cache(maxsize=16)
def _tile_row_weights(axis: FrequencyAxis, rate: int, window: int, fft: int) -> NDArray[np.float32]:
    """Weights [row, bin] by which a sine reads as loud as it is in every row.

    Triangles between the neighbours' centres, two bins wide at least. A sine's power is spread
    over 1.5 bins of the unpadded window (Harris 1978, table I): a row wider than that sums it up.
    """
    hz = row_frequencies(axis, rate)
    bins = np.arange(fft // 2 + 1) * (rate / fft)
    ratio = hz[1:] / hz[:-1]
    low = np.concatenate([[hz[0] / ratio[0]], hz[:-1]])
    high = np.concatenate([hz[1:], [hz[-1] * ratio[-1]]])
    width = rate / fft
    rise = np.maximum(hz - low, width)[:, None]
    fall = np.maximum(high - hz, width)[:, None]
    away = bins[None, :] - hz[:, None]
    weights = np.clip(1 - np.where(away < 0, -away / rise, away / fall), 0, None)
    spread = 1.5 * fft / window
    total = np.minimum(weights.sum(axis=1, keepdims=True), spread)
    shares: NDArray[np.float32] = (weights / total).astype(np.float32)
    return shares
