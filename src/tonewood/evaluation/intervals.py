"""Bootstrap intervals of means over pieces: plain functions on arrays."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

BOOTSTRAP_DRAWS = 10_000


class BootstrapInterval(NamedTuple):
    """A mean and what it may be, had other pieces been played: 95 %; none for a single piece."""

    mean: float
    low: float | None
    high: float | None


def bootstrap_interval(values: FloatArray, rng: np.random.Generator, draws: int = BOOTSTRAP_DRAWS) -> BootstrapInterval:
    """Mean of values [piece] with its percentile bootstrap interval (Efron 1979).

    The draws' departures from the mean are widened by √(n / (n − 1)), for the percentiles of
    few pieces lie too close (Hesterberg 2015). A paired difference between two methods is the
    interval of the pieces' differences.

    Examples
    --------
    >>> interval(np.array([1.0, 1.0, 1.0]), np.random.default_rng(0))
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return BootstrapInterval(mean, None, None)
    means = values[rng.integers(count, size=(draws, count))].mean(axis=1)
    wide = mean + (means - mean) * np.sqrt(count / (count - 1))
    low, high = np.quantile(wide, [0.025, 0.975])
    return BootstrapInterval(mean, float(low), float(high))
