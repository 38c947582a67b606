"""Image data of the page: tiles of spectrogram, mask and saliency, waveform peaks, the average EQ.

A tile has 512 columns. A column lasts 2.5 ms at zoom level 0, and twice as long at each next level.
It shows the mean power of at most three windows spread over its time, so that a tile of an hour costs
as much as a tile of a minute, and nothing has to be computed in advance.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.features import hz_to_mel, mel_to_hz
from tonewood.dsp.stft import hann_window, tapered_fft
from tonewood.mask.mask import Mask
from tonewood.utils.arrays import FloatArray

FrequencyAxis = Literal["log", "mel"]
TILE_COLUMNS, TILE_ROWS = 512, 320
FINEST_COLUMN_S = 0.0025  # duration of a column at zoom level 0
MIN_AXIS_HZ, MAX_AXIS_HZ = 40.0, 20_000.0
ZOOM_LEVELS = 16  # a tile of the last one lasts 512 · 2.5 ms · 2¹⁵, or 11.6 h
TILE_FLOOR_DB = -110.0  # in steps of 0.5 dB, a byte reaches +17.5 dBFS
GAIN_STEP_DB = 0.25  # a byte reaches ±31.75 dB; gains stay within 30 dB
_TILE_WINDOW_S = 0.046  # 2,029 samples at 44.1 kHz: an FFT of 2,048
_MAX_WINDOWS_PER_COLUMN = 3
_CURVE_POINTS = 96


class AxisLimits(NamedTuple):
    """Frequencies of the lowest and the highest row of a tile."""

    low_hz: float
    high_hz: float


class TileAddress(NamedTuple):
    """Position of a tile: frequency axis, sample rate, zoom level, number from the left."""

    axis: FrequencyAxis
    rate: int
    level: int
    number: int


class AverageEqCurve(NamedTuple):
    """Mean gain over time and the 10 % and 90 % quantiles in dB, at frequencies in Hz."""

    hz: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def axis_limits(rate: int) -> AxisLimits:
    """Return the frequency range of a recording's tiles."""
    return AxisLimits(MIN_AXIS_HZ, min(MAX_AXIS_HZ, rate / 2))


def row_frequencies(axis: FrequencyAxis, rate: int) -> FloatArray:
    """Return the rising centre frequencies [row] in Hz, equally spaced in octaves or mel."""
    low, high = axis_limits(rate)
    if axis == "log":
        rising: FloatArray = np.geomspace(low, high, TILE_ROWS)
        return rising
    low_mel, high_mel = hz_to_mel(np.array([low, high])).tolist()
    return mel_to_hz(np.linspace(low_mel, high_mel, TILE_ROWS))


def column_times(level: int, number: int) -> FloatArray:
    """Return the centre times [column] of a tile in seconds."""
    step = FINEST_COLUMN_S * 2**level
    times_s: FloatArray = (number * TILE_COLUMNS + np.arange(TILE_COLUMNS) + 0.5) * step
    return times_s


def spectrogram_tile(
    samples: NDArray[np.float32], address: TileAddress, weights: tuple[float, ...] | None = None
) -> NDArray[np.uint8]:
    """Return levels [row, column] in half-decibels above -110 dBFS.

    Parameters
    ----------
    samples : float32 array (channels, samples)
        May be a memory map: only the samples of the tile's windows are read.
    weights : tuple of float, optional
        Share of each channel; their mean if None.
    """
    axis, rate, level, number = address
    window = round(_TILE_WINDOW_S * rate)
    fft_size = 1 << (window - 1).bit_length()

    # Centres of the windows [column, window in column]: more windows for longer columns.
    step = FINEST_COLUMN_S * 2**level
    windows = int(np.clip(step / _TILE_WINDOW_S * 2, 1, _MAX_WINDOWS_PER_COLUMN))
    offsets = (np.arange(windows) + 0.5) / windows - 0.5
    centres = column_times(level, number)[:, None] + offsets * step

    # Later columns show only silence.
    inside = centres[:, 0] * rate < samples.shape[1] + window
    power = np.zeros((TILE_COLUMNS, fft_size // 2 + 1), np.float32)
    if inside.any():
        starts = np.round(centres[inside] * rate).astype(np.int64) - window // 2
        spectra = tapered_fft(
            _gather_windows(samples, starts, window, weights), hann_window(window), fft_size
        )
        power[inside] = np.mean(spectra.real**2 + spectra.imag**2, axis=1)
    # A sine of amplitude 1 has the magnitude window / 4 under a Hann window, hence the factor.
    rows = _tile_row_weights(axis, rate, window, fft_size) @ (power.T * np.float32((4 / window) ** 2))
    level_db = 10 * np.log10(np.maximum(rows, 1e-12))
    tile: NDArray[np.uint8] = np.clip((level_db - TILE_FLOOR_DB) * 2, 0, 255).astype(np.uint8)
    return tile


def gain_tile(mask: Mask, start_s: float, end_s: float, address: TileAddress) -> NDArray[np.uint8]:
    """Return gains [row, column] in steps of 0.25 dB; 128 is 0 dB.

    Parameters
    ----------
    mask : Mask
        Window of a mask, whose first frame is at `start_s`.
    end_s : float
        End of the recording; later columns are empty.
    """
    times_s = column_times(address.level, address.number)
    gain_db = mask.gain_at(row_frequencies(address.axis, address.rate), times_s - start_s)
    gain_db[:, times_s > end_s] = 0
    tile: NDArray[np.uint8] = np.clip(np.rint(gain_db / GAIN_STEP_DB) + 128, 0, 255).astype(np.uint8)
    return tile


def waveform_peaks(samples: NDArray[np.float32], count: int = 1_200) -> list[float]:
    """Return the largest magnitude of all channels in each of `count` equal ranges."""
    total = samples.shape[1]
    edges = np.linspace(0, total, min(count, total) + 1).astype(np.int64)
    peaks = []
    for start, stop in pairwise(edges.tolist()):
        # About 8,000 samples of a long range are enough for a drawing, and much faster to read.
        thinned = samples[:, start:stop][:, :: max(1, (stop - start) // 8_192)]
        peaks.append(float(np.abs(thinned).max(initial=0.0)))
    return peaks


def average_eq_curve(mask: Mask, axis: FrequencyAxis, rate: int) -> AverageEqCurve:
    """Return the average EQ of a mask at every few rows of the axis."""
    rows = np.linspace(0, TILE_ROWS - 1, _CURVE_POINTS).round().astype(np.int64)
    hz = row_frequencies(axis, rate)[rows]
    frames = mask.frames
    times_s = np.linspace(0, frames - 1, min(frames, 4_000)) * mask.hop_seconds
    gain_db = mask.gain_at(hz, times_s)
    low, high = np.quantile(gain_db, [0.1, 0.9], axis=1)
    return AverageEqCurve(*(np.round(values, 2).tolist() for values in (hz, gain_db.mean(axis=1), low, high)))


def _gather_windows(
    samples: NDArray[np.float32], starts: NDArray[np.int64], window: int, weights: tuple[float, ...] | None
) -> NDArray[np.float32]:
    """Return the mix of the channels in the windows that begin at `starts`, with zeros outside."""
    total = samples.shape[1]
    first, last = int(starts.min()), int(starts.max()) + window
    gathered = np.zeros((*starts.shape, window), np.float32)
    if (last - first) < 8 * starts.size * window:
        # The windows are close together, so one read of their whole range is faster.
        begin, end = max(0, first), min(total, last)
        span = np.zeros(last - first, np.float32)
        if end > begin:
            span[begin - first : end - first] = _mix(samples[:, begin:end], weights)
        gathered[:] = np.lib.stride_tricks.sliding_window_view(span, window)[starts - first]
        return gathered
    for index in np.ndindex(starts.shape):
        start = int(starts[index])
        begin, end = max(0, start), min(total, start + window)
        if end > begin:
            gathered[index][begin - start : end - start] = _mix(samples[:, begin:end], weights)
    return gathered


def _mix(samples: NDArray[np.float32], weights: tuple[float, ...] | None) -> NDArray[np.float32]:
    if weights is None:
        mean: NDArray[np.float32] = samples.mean(axis=0)
        return mean
    return np.array(weights, np.float32) @ samples


@lru_cache(maxsize=16)
def _tile_row_weights(axis: FrequencyAxis, rate: int, window: int, fft_size: int) -> NDArray[np.float32]:
    """Return weights [row, bin] with which a sine has its own level in every row.

    The weights are triangles between the neighbouring centres, at least two bins wide. A sine's power
    spreads over 1.5 bins of the unpadded window (Harris 1978, table I); wider rows sum it.
    """
    hz = row_frequencies(axis, rate)
    bin_width = rate / fft_size
    bins = np.arange(fft_size // 2 + 1) * bin_width
    ratio = hz[1:] / hz[:-1]
    low = np.concatenate([[hz[0] / ratio[0]], hz[:-1]])
    high = np.concatenate([hz[1:], [hz[-1] * ratio[-1]]])
    rise = np.maximum(hz - low, bin_width)[:, None]
    fall = np.maximum(high - hz, bin_width)[:, None]
    distance = bins[None, :] - hz[:, None]
    weights = np.clip(1 - np.where(distance < 0, -distance / rise, distance / fall), 0, None)
    total = np.minimum(weights.sum(axis=1, keepdims=True), 1.5 * fft_size / window)
    normalized: NDArray[np.float32] = (weights / total).astype(np.float32)
    return normalized
