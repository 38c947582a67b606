"""Which take is drawn next."""

from collections.abc import Iterable, Sequence
from itertools import repeat

import torch
from torch import Tensor

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
