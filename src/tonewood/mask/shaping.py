"""Shape a mask: smooth it, limit it to a frequency range, and keep only its cuts or its boosts."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import LazyTimeSeries, TimeSeries
from tonewood.mask.mask import Mask, moving_average
from tonewood.settings import ShapeSettings
from tonewood.utils.arrays import FloatArray, Levels

LIMIT_FADE_OCTAVES = 0.5
_SCALING_ROUNDS = 100  # the row sums are then 1 to 1e-9


def shape_mask(mask: Mask, shape: ShapeSettings, amount: float = 1.0) -> Mask:
    """Return a mask shaped by the settings, computed when it is read; the amount is not applied.

    The order is: smoothing over time, smoothing over frequency, limits, cuts or boosts. Smoothing is
    first, so that it spreads nothing beyond the limits and no boost into the cuts.

    Parameters
    ----------
    amount : float
        Amount that the mask will be applied with. Its sign decides which gains become cuts.
    """
    if shape == ShapeSettings():
        return mask
    smooth = _smooth_over_time(mask.gains, shape.smooth_seconds / mask.hop_seconds)

    def read(start: int, stop: int) -> Levels:
        return shape_gains(smooth.read(start, stop), mask.hz, shape, amount)

    return mask.with_gains(LazyTimeSeries(mask.frames, read))


def shape_gains(gain_db: Levels, hz: FloatArray, shape: ShapeSettings, amount: float = 1.0) -> Levels:
    """Return gains [row, frame] in dB, shaped frame by frame: all of `shape_mask` but smoothing over time."""
    if shape.smooth_octaves or shape.low_hz is not None or shape.high_hz is not None:
        # Contiguous, so that the product is the same to the bit wherever the mask is stored.
        gain_db = _row_weights(hz.tobytes(), shape) @ np.ascontiguousarray(gain_db)
    if shape.direction == "both":
        return gain_db
    # A negative amount turns cuts into boosts, so the gains of the other sign stay.
    keep_negative = (shape.direction == "cut") == (amount >= 0)
    return np.minimum(gain_db, 0) if keep_negative else np.maximum(gain_db, 0)


def _smooth_over_time(gains: TimeSeries, frames: float) -> TimeSeries:
    """Average over a centred window of `frames`, rounded up to odd; the ends are mirrored.

    Mirroring counts every frame equally often, so the mean over time stays.
    """
    half, total = min(round(frames / 2), gains.frames), gains.frames
    if half == 0 or total == 1:
        return gains

    def read(start: int, stop: int) -> Levels:
        index = np.arange(start - half, min(stop, total) + half)
        mirrored = np.where(index < 0, -1 - index, np.minimum(index, 2 * total - 1 - index))
        first = int(mirrored.min())
        part = gains.read(first, int(mirrored.max()) + 1)[:, mirrored - first]
        return moving_average(part, 2 * half + 1)[:, half:-half]

    return LazyTimeSeries(total, read)


@lru_cache(maxsize=32)
def _row_weights(centres: bytes, shape: ShapeSettings) -> NDArray[np.float32]:
    """Return the weight of each row's gain in that of every shaped row [shaped row, row]."""
    hz = np.frombuffer(centres)
    # A row at 0 Hz, as spectrograms have, counts as an octave below the next one.
    lowest = float(hz[hz > 0].min(initial=np.inf))
    octaves = np.log2(np.maximum(hz, lowest / 2 if np.isfinite(lowest) else 1.0))
    weights = _smoothing_weights(octaves, shape.smooth_octaves)
    return (limit_shares(hz, shape)[:, None] * weights).astype(np.float32)


def _smoothing_weights(octaves: FloatArray, width: float) -> FloatArray:
    """Return the matrix [row, row] that averages over a Hann window `width` octaves wide at half height.

    Every octave counts equally, however dense the rows are. Rows and columns are scaled to the sums
    of an average in both directions (Sinkhorn and Knopp 1967), so the mean over octaves stays.
    """
    if width == 0 or len(octaves) < 2:
        return np.eye(len(octaves))
    distance = np.minimum(np.abs(octaves[:, None] - octaves), width) / width
    kernel = np.where(distance < 1, 0.5 + 0.5 * np.cos(np.pi * distance), 0.0)
    kernel *= np.gradient(octaves)  # octaves that a row represents
    scale = np.ones(len(octaves))
    for _ in range(_SCALING_ROUNDS):
        scale = np.sqrt(scale / (kernel @ scale))
    weights = scale[:, None] * kernel * scale
    averaging: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return averaging


def limit_shares(hz: FloatArray, shape: ShapeSettings) -> FloatArray:
    """Return the share [frequency] of a mask that the limits keep: 1 inside, 0 half an octave outside."""
    octaves = np.log2(np.maximum(hz, 1e-3))
    outside = np.zeros(len(hz))
    if shape.low_hz is not None:
        outside = np.maximum(outside, np.log2(shape.low_hz) - octaves)
    if shape.high_hz is not None:
        outside = np.maximum(outside, octaves - np.log2(shape.high_hz))
    share: FloatArray = 0.5 + 0.5 * np.cos(np.pi * np.minimum(outside / LIMIT_FADE_OCTAVES, 1.0))
    return share
