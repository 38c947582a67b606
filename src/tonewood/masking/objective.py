"""The objective (paper III): L_c(X + M) + alpha‖M - M_prior‖² + beta Var(M)."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from tonewood.settings import SearchSettings

ScoreFunction = Callable[[Tensor], Tensor]
"""Rows [batch, row, frame] in dB → score [batch], differentiable; any callable will do."""


class Objective(NamedTuple):
    """The objective's value and its parts, each a scalar tensor."""

    total: Tensor
    score: Tensor
    distance: Tensor  # dB², mean over cells
    variance: Tensor  # dB²


def objective(
    score: Tensor, mask_db: Tensor, anchor_db: Tensor, settings: SearchSettings
) -> Objective:
    """Add the two penalties to a mean score.

    Parameters
    ----------
    score : Tensor, scalar
        Mean of L_c(X + M) over what is scored.
    mask_db, anchor_db : Tensor [..., row, frame]
        Mask, and the prior it is pulled towards (0 dB: the paper's ‖X_inp - X_t‖²).
    """
    distance = (mask_db - anchor_db).square().mean()
    variance = mask_db.var(correction=0)
    total = score + settings.alpha * distance + settings.beta * variance
    return Objective(total, score, distance, variance)
