"""Choices of listeners who differ: how far what was found holds for others than those asked.

A listener's answers are alike, so that exact intervals, which take all answers for independent,
are too narrow. Two ways out, both checked on simulated listeners: a logistic model with a random
intercept for each listener, and the jackknife that leaves out one listener at a time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from tonewood.evaluation import bradley_terry

Float64Array = NDArray[np.float64]

# Trapezoids integrate what falls off like a normal to machine precision once they are narrower
# than it; so narrow they are for up to some two hundred answers of a listener on one pair.
_NODES = np.linspace(-6.0, 6.0, 121)
_LOG_WEIGHTS = stats.norm.logpdf(_NODES) + np.log(_NODES[1] - _NODES[0])
MIN_LISTENERS = 6
_MAX_MEAN_LOGIT, _MAX_SPREAD_LOGIT = 9.0, 5.0  # logits: as good as certain; listeners who agree on nothing


class MixedLogit(NamedTuple):
    """A share by a model in which listeners are drawn at random.

    Parameters
    ----------
    share : float
        Of the middle listener: half of all listeners choose so more often.
    low, high : float
        Its 95 % interval.
    p : float
        Of the middle listener's being at one half.
    spread : float
        Standard deviation of listeners, logits; 0 where they differ no more than by chance.
    """

    listeners: int
    share: float
    low: float
    high: float
    p: float
    spread: float


def fit_mixed_logit(counts: Sequence[int], totals: Sequence[int]) -> MixedLogit | None:
    """Share of answers by a logistic model with a random intercept for each listener.

    logit P(first | listener) = μ + σz, z ~ N(0, 1), integrated numerically; maximum likelihood,
    and for μ the ends and the test of the profile likelihood.

    Parameters
    ----------
    counts, totals : sequence of int
        Of each listener: answers for the first, and all.

    Returns
    -------
    Mixed or None
        None for fewer than six listeners, who tell too little of how others differ.
    """
    asked = [(c, n) for c, n in zip(counts, totals, strict=True) if n]
    if len(asked) < MIN_LISTENERS:
        return None
    kinds, times = np.unique(np.array(asked, dtype=np.float64), axis=0, return_counts=True)

    def likelihood(mu: float, sigma: float) -> float:
        at = mu + sigma * _NODES
        yes, no = special.log_expit(at), special.log_expit(-at)
        each = kinds[:, :1] * yes + (kinds[:, 1:] - kinds[:, :1]) * no
        return float(times @ special.logsumexp(each + _LOG_WEIGHTS, axis=1))

    def best(mu: float) -> tuple[float, float]:
        found = optimize.minimize_scalar(
            lambda sigma: -likelihood(mu, sigma),
            bounds=(0, _MAX_SPREAD_LOGIT),
            method="bounded",
            options={"xatol": 1e-3},
        )
        none = likelihood(mu, 0.0)
        return (none, 0.0) if none >= -found.fun else (float(-found.fun), float(found.x))

    top = optimize.minimize_scalar(
        lambda mu: -best(mu)[0], bounds=(-_MAX_MEAN_LOGIT, _MAX_MEAN_LOGIT), method="bounded", options={"xatol": 1e-3}
    )
    mu, (highest, spread) = float(top.x), best(float(top.x))
    limit = highest - stats.chi2.isf(0.05, 1) / 2

    def end(side: float) -> float:
        if best(side * _MAX_MEAN_LOGIT)[0] >= limit:
            return side * np.inf
        return float(optimize.brentq(lambda it: best(it)[0] - limit, mu, side * _MAX_MEAN_LOGIT, xtol=1e-3))

    middle, low, high = map(float, special.expit([mu, end(-1.0), end(1.0)]))
    p = float(stats.chi2.sf(max(0.0, 2 * (highest - best(0.0)[0])), 1))
    return MixedLogit(len(asked), middle, low, high, p, spread)


class StrengthIntervals(NamedTuple):
    """95 % intervals [item] of strengths, logits."""

    low: Float64Array
    high: Float64Array


def jackknife_intervals(wins: Float64Array) -> StrengthIntervals | None:
    """Intervals of Bradley-Terry strengths that hold for other listeners too.

    Each listener is left out in turn (Efron & Stein 1981); Student's t with a degree of freedom
    less than listeners.

    Parameters
    ----------
    wins : array [listener, item, item]
        As of `bradley_terry.fit`, of each listener.

    Returns
    -------
    Ends or None
        None for fewer than three listeners, or where one alone joins the items.
    """
    wins = wins[wins.any(axis=(1, 2))]
    count, whole = len(wins), wins.sum(axis=0)
    if count < 3 or not all(bradley_terry.is_connected(whole - own) for own in wins):
        return None
    without = np.array([bradley_terry.estimate_strengths(whole - own) for own in wins])
    spread = np.sqrt((count - 1) / count * np.square(without - without.mean(axis=0)).sum(axis=0))
    middle, reach = bradley_terry.estimate_strengths(whole), stats.t.isf(0.025, count - 1) * spread
    return StrengthIntervals(middle - reach, middle + reach)
