"""The objective (paper III): L_c(X + M) + alpha‖M - M_prior‖² + beta Var(M), and the guide."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from tonewood.settings import SearchSettings

ScoreFunction = Callable[[Tensor], Tensor]
"""Rows [batch, row, frame] in dB → a value [batch], differentiable; any callable will do."""


class Objective(NamedTuple):
    """The objective's value and its parts, each a scalar tensor."""

    total: Tensor
    score: Tensor
    distance: Tensor  # dB², mean over cells
    variance: Tensor  # dB²


def compute_objective(
    score: Tensor,
    mask_db: Tensor,
    prior_db: Tensor,
    settings: SearchSettings,
    energy_db2: Tensor | None = None,
) -> Objective:
    """Add the penalties to the neural losses.

    Parameters
    ----------
    score : Tensor, scalar
        Mean of L_c(X + M) over what is scored.
    mask_db, prior_db : Tensor [row, frame]
        Mask, and the prior it is pulled towards (0 dB: the paper's ‖X_inp - X_t‖²).
    energy_db2 : Tensor, scalar, optional
        Guide's energy, a sum over cells; counts twice alpha times its mean, so that against the
        norm alone its minimum lies where the mask has moved by the energy's gradient.
    """
    distance = (mask_db - prior_db).square().mean()
    variance = mask_db.var(correction=0)
    total = settings.score * score + settings.alpha * distance + settings.beta * variance
    if energy_db2 is not None and settings.guide:
        total = total + 2 * settings.alpha * settings.guide * energy_db2 / mask_db.numel()
    return Objective(total, score, distance, variance)
