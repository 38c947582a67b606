"""Random draws and means of takes by weight."""

from collections.abc import Iterable, Sequence
from itertools import repeat

import torch
from torch import Tensor

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
