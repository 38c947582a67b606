"""Which take is drawn next.

Bootstrap intervals of means over pieces: plain functions on arrays.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tonewood.utils.arrays import FloatArray

TakeWeights = Sequence[float] | None
"""How much every moment of each take counts against the others; None where all count alike."""


def sample_takes(
    lengths: Sequence[int], count: int, generator: torch.Generator, weights: TakeWeights = None
) -> list[int]:
    """Draw so many takes, with repeats.

    Where all moments count alike every take is as likely as any other. With shares a take is as
    likely as what counts of it: its length times its share.
    """
    if weights is None:
        return torch.randint(len(lengths), (count,), generator=generator).tolist()
    weight = torch.tensor(lengths, dtype=torch.float64) * torch.tensor(weights, dtype=torch.float64)
    return torch.multinomial(weight, count, replacement=True, generator=generator).tolist()


def weighted_mean(takes: Iterable[Tensor], weights: TakeWeights = None) -> Tensor:
    """Mean [row] of all frames of some takes [row, frame], as far as each take counts.

    One take after the other, in double precision: no more than one need be in memory.
    """
    counts = iter(weights) if weights is not None else repeat(1.0)
    total, counted = torch.zeros((), dtype=torch.float64), 0.0
    for take in takes:
        share = next(counts)
        total = total + take.sum(dim=1, dtype=torch.float64) * share
        counted += take.shape[1] * share
    return (total / counted).float()


BOOTSTRAP_DRAWS = 10_000


class BootstrapInterval(NamedTuple):
    """A mean and what it may be, had other pieces been played: 95 %; none for a single piece."""

    mean: float
    low: float | None
    high: float | None


def bootstrap_interval(
    values: FloatArray, rng: np.random.Generator, draws: int = BOOTSTRAP_DRAWS
) -> BootstrapInterval:
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
