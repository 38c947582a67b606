"""Which take is drawn next."""

from collections.abc import Sequence

import torch
from torch import Tensor

Shares = Sequence[float] | None
"""How much every moment of each take counts against the others; None where all count alike."""


def drawn(
    lengths: Sequence[int], count: int, generator: torch.Generator, shares: Shares = None
) -> list[int]:
    """Draw so many takes, with repeats.

    Where all moments count alike every take is as likely as any other. With shares a take is as
    likely as what counts of it: its length times its share.
    """
    if shares is None:
        return torch.randint(len(lengths), (count,), generator=generator).tolist()
    weight = torch.tensor(lengths, dtype=torch.float64) * torch.tensor(shares, dtype=torch.float64)
    return torch.multinomial(weight, count, replacement=True, generator=generator).tolist()


def shared_mean(takes: Sequence[Tensor], shares: Shares = None) -> Tensor:
    """Mean [row] of all frames of some takes [row, frame], as far as each take counts."""
    if shares is None:
        return torch.cat(list(takes), dim=1).mean(dim=1)
    pairs = list(zip(takes, shares, strict=True))
    total = sum(take.shape[1] * share for take, share in pairs)
    return torch.stack([take.sum(dim=1) * share for take, share in pairs]).sum(dim=0) / total
