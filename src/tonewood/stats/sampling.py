"""Random sampling: takes of a data set by weight, and bootstrap intervals of means."""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tonewood.utils.arrays import FloatArray

BOOTSTRAP_DRAWS = 10_000

TakeWeights = Sequence[float] | None
"""Weight of each frame of each take; None gives all the same weight."""


def sample_takes(
    lengths: Sequence[int], count: int, generator: torch.Generator, weights: TakeWeights = None
) -> list[int]:
    """Draw indices of takes with replacement: uniformly, or by length times weight."""
    if weights is None:
        return torch.randint(len(lengths), (count,), generator=generator).tolist()
    # Weights are per frame, so the probability of a take is its frames times its weight.
    mass = torch.tensor(lengths, dtype=torch.float64) * torch.tensor(weights, dtype=torch.float64)
    return torch.multinomial(mass, count, replacement=True, generator=generator).tolist()


def weighted_mean(takes: Iterable[Tensor], weights: TakeWeights = None) -> Tensor:
    """Return the weighted mean [row] of all frames of takes [row, frame], one in memory at a time."""
    take_weights = iter(weights) if weights is not None else repeat(1.0)
    # Double precision: the sum of hours of frames would lose digits in single.
    total, weight_sum = torch.zeros((), dtype=torch.float64), 0.0
    for take in takes:
        weight = next(take_weights)
        total = total + take.sum(dim=1, dtype=torch.float64) * weight
        weight_sum += take.shape[1] * weight
    return (total / weight_sum).float()


class BootstrapInterval(NamedTuple):
    """A mean and its 95 % interval over other samples; None for a single value."""

    mean: float
    low: float | None
    high: float | None


def bootstrap_interval(
    values: FloatArray, rng: np.random.Generator, draws: int = BOOTSTRAP_DRAWS
) -> BootstrapInterval:
    """Return the mean of values [item] with its percentile bootstrap interval (Efron 1979).

    For a paired difference between two methods, pass the differences of the items.

    Examples
    --------
    >>> bootstrap_interval(np.array([1.0, 1.0, 1.0]), np.random.default_rng(0))
    BootstrapInterval(mean=1.0, low=1.0, high=1.0)
    """
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return BootstrapInterval(mean, None, None)
    means = values[rng.integers(count, size=(draws, count))].mean(axis=1)
    # Percentiles of few items lie too close; this factor corrects their spread (Hesterberg 2015).
    wide = mean + (means - mean) * np.sqrt(count / (count - 1))
    low, high = np.quantile(wide, [0.025, 0.975])
    return BootstrapInterval(mean, float(low), float(high))
