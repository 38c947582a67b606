"""Sizes of a mask, over all of its cells and where there is sound."""

from typing import NamedTuple, Self

import numpy as np

from tonewood.dsp.chunking import TimeSeries, split_segments
from tonewood.dsp.features import power_of_db
from tonewood.utils.arrays import FloatArray, Levels

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
