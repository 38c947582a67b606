"""Random draws for training, and means of takes by weight."""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

TakeWeights = Sequence[float] | None
"""Weight of each frame of each take; None gives all the same weight."""


def sample_takes(
    lengths: Sequence[int], count: int, generator: "torch.Generator", weights: TakeWeights = None
) -> list[int]:
    """Draw indices of takes with replacement: uniformly, or by length times weight."""
    import torch  # only in training

    if weights is None:
        return torch.randint(len(lengths), (count,), generator=generator).tolist()
    # Weights are per frame, so the probability of a take is its frames times its weight.
    mass = torch.tensor(lengths, dtype=torch.float64) * torch.tensor(weights, dtype=torch.float64)
    return torch.multinomial(mass, count, replacement=True, generator=generator).tolist()


def split_generator(generator: "torch.Generator", count: int) -> "list[torch.Generator]":
    """Return generators of independent numbers, for work in parallel."""
    import torch  # only in training

    seeds = torch.randint(2**62, (count,), generator=generator).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def interpolate_noise(
    count: int, points: tuple[int, int], size: tuple[int, int], generator: "torch.Generator"
) -> "torch.Tensor":
    """Return smooth random fields [count, row, frame]: normal values at points, bilinear between them.

    Parameters
    ----------
    points, size : (int, int)
        Rows and frames of the coarse grid, and of the fields.
    """
    import torch  # only in training

    coarse = torch.randn(count, 1, *points, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=True)[:, 0]


def weighted_mean(takes: Iterable[NDArray[np.float32]], weights: TakeWeights = None) -> NDArray[np.float32]:
    """Return the weighted mean [row] of all frames of takes [row, frame], one in memory at a time."""
    take_weights = iter(weights) if weights is not None else repeat(1.0)
    # Double precision: the sum of hours of frames would lose digits in single.
    total, weight_sum = np.zeros(1), 0.0
    for take in takes:
        weight = next(take_weights)
        total = total + take.sum(axis=1, dtype=np.float64) * weight
        weight_sum += take.shape[1] * weight
    return (total / weight_sum).astype(np.float32)
