"""Strengths behind pairwise choices (Bradley & Terry 1952), and which pair teaches most.

P(i is preferred to j) = σ(θ_i − θ_j), Σθ = 0. Estimates maximise the likelihood with Jeffreys'
prior (Firth 1993), which takes off the bias of few answers and stays finite where one side won
always. Intervals are those of the penalised profile likelihood (Heinze & Schemper 2002).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float64]

_PROBIT = 1.702  # σ(x) ≈ Φ(x / 1.702), to a hundredth (Camilli 1994)
_STEPS = 100
_FAR = 40.0  # logits that no answers tell apart


class Strengths(NamedTuple):
    """Strengths [item] in logits, their mean 0, with 95 % intervals.

    Parameters
    ----------
    covariance : array [item, item]
        Inverse information at the estimate, of rank one less than the items.
    separated : bool
        Whether some items won always, so that plain maximum likelihood would have no bound.
    """

    strength: Floats
    low: Floats
    high: Floats
    covariance: Floats
    separated: bool

    def preferred(self, i: int, j: int) -> tuple[float, float, float]:
        """Probability that i is preferred to j, and its 95 % interval by the covariance."""
        gap = self.strength[i] - self.strength[j]
        spread = np.sqrt(self.covariance[i, i] + self.covariance[j, j] - 2 * self.covariance[i, j])
        ends = gap + np.array([0.0, -1.0, 1.0]) * stats.norm.isf(0.025) * spread
        middle, low, high = 1 / (1 + np.exp(-ends))
        return float(middle), float(low), float(high)


def connected(wins: Floats) -> bool:
    """Whether every item can be reached from every other by compared pairs."""
    return int(connected_components(wins + wins.T > 0, directed=False)[0]) == 1


def strengths(wins: Floats) -> Floats:
    """Strengths [item] alone, of what `connected` holds of; as `fit` finds them."""
    design, won, total = _grouped(np.asarray(wins, dtype=np.float64))
    basis = _centred(len(wins))
    start = np.zeros(len(wins) - 1)
    return basis @ _ascend(start, design @ basis, np.zeros(len(won)), won, total)


def fit(wins: Floats) -> Strengths:
    """Strengths of items by how often each was preferred to each.

    Parameters
    ----------
    wins : array [item, item]
        wins[i, j]: answers that preferred i to j.

    Raises
    ------
    ValueError
        Items that no chain of answers compares have no common scale.
    """
    wins = np.asarray(wins, dtype=np.float64)
    if not connected(wins):
        raise ValueError("some items were never compared, not even by way of others")
    count = len(wins)
    design, won, total = _grouped(wins)
    basis = _centred(count)
    theta = strengths(wins)
    information = _information(theta, design, total)
    best = _penalised(theta, design, won, total, basis)
    limit = best - stats.chi2.isf(0.05, 1) / 2
    low, high = np.empty(count), np.empty(count)
    for item in range(count):
        along, across = _profile(item, count)

        def excess(
            value: float, along: Floats = along, across: Floats = across, own: float = theta[item]
        ) -> float:
            start, offset = across.T @ (theta - along * own), design @ (along * value)
            inner = _ascend(start, design @ across, offset, won, total, design @ basis)
            at = along * value + across @ inner
            return _penalised(at, design, won, total, basis) - float(limit)

        low[item] = _crossing(excess, theta[item], -1.0)
        high[item] = _crossing(excess, theta[item], 1.0)
    separated = int(connected_components(wins > 0, connection="strong")[0]) > 1
    inverse = basis @ np.linalg.inv(basis.T @ information @ basis) @ basis.T
    return Strengths(theta, low, high, inverse, separated)


class Posterior(NamedTuple):
    """Strengths [item] as far as the answers tell: mean and covariance, after Laplace."""

    mean: Floats
    covariance: Floats


def posterior(wins: Floats, spread: float = 2.0) -> Posterior:
    """Gaussian of the strengths around their most probable values.

    Parameters
    ----------
    wins : array [item, item]
    spread : float
        Standard deviation of strengths beforehand, logits; keeps unheard items in play.
    """
    design, won, total = _grouped(np.asarray(wins, dtype=np.float64))
    count = len(wins)
    theta = np.zeros(count)
    prior = np.eye(count) / spread**2
    for _ in range(_STEPS):
        chance = _sigmoid(design @ theta)
        slope = design.T @ (won - total * chance) - theta / spread**2
        step = np.linalg.solve(_information(theta, design, total) + prior, slope)
        theta = theta + step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-8:
            break
    precision = _information(theta, design, total) + prior
    return Posterior(theta, np.asarray(np.linalg.inv(precision), dtype=np.float64))


def information_gain(known: Posterior) -> Floats:
    """Expected information [pair] that an answer on a pair would bring about the order.

    Pairs are in the order of `numpy.triu_indices(items, 1)`. It is how much the quadratic entropy,
    P(1 − P), of the sign of every gap between two strengths is expected to fall (DeGroot 1962),
    summed over the gaps: the expected fall of the mean squared error of the order. Shannon's does
    as well at first, and later stays too long with what is nearly settled. Gaps are jointly
    Gaussian and the logistic nearly a normal of 1.702 times the width, so an answer and a sign are
    two thresholds, at h and k, of normals correlated by ρ; to first order in ρ the fall is
    ρ² φ(h)² φ(k)² / (p(1 − p)).
    """
    first, second = np.triu_indices(len(known.mean), 1)
    gap = known.mean[first] - known.mean[second]
    rows = known.covariance[first] - known.covariance[second]
    shared = rows[:, first] - rows[:, second]  # covariance of the gaps [pair, pair]
    variance = np.diag(shared)
    answered = variance + _PROBIT**2
    told = _sharpness(gap / np.sqrt(answered)) / answered
    open_still = np.square(stats.norm.pdf(gap / np.sqrt(variance))) / variance
    gain: Floats = told * (np.square(shared) @ open_still)
    return gain


def most_telling(wins: Floats, rng: np.random.Generator, spread: float = 2.0) -> tuple[int, int]:
    """Pair whose answer would teach most; among equals one is drawn."""
    gain = information_gain(posterior(wins, spread))
    best = np.flatnonzero(gain >= gain.max() * (1 - 1e-9))
    place = best[rng.integers(len(best))]
    first, second = np.triu_indices(len(wins), 1)
    return int(first[place]), int(second[place])


def _grouped(wins: Floats) -> tuple[Floats, Floats, Floats]:
    """Design [pair, item], wins [pair] of the first, and answers [pair], of the pairs compared."""
    first, second = np.nonzero(np.triu(wins + wins.T, 1))
    rows = np.arange(len(first))
    design = np.zeros((len(first), len(wins)))
    design[rows, first], design[rows, second] = 1.0, -1.0
    won = wins[first, second]
    return design, won, won + wins[second, first]


def _centred(count: int) -> Floats:
    """Orthonormal basis [item, count - 1] of what sums to zero."""
    basis: Floats = np.linalg.svd(np.eye(count) - 1 / count)[0][:, : count - 1]
    return basis


def _profile(item: int, count: int) -> tuple[Floats, Floats]:
    """Direction [item] in which one strength moves by 1, and a basis of those that leave it."""
    along = (np.eye(count)[item] - 1 / count) / (1 - 1 / count)
    others = np.delete(np.arange(count), item)
    across = np.zeros((count, count - 2))
    across[others] = _centred(count - 1)
    return along, across


def _ascend(
    start: Floats,
    design: Floats,
    offset: Floats,
    won: Floats,
    total: Floats,
    whole: Floats | None = None,
) -> Floats:
    """Maximise the penalised likelihood by its modified score; `whole` is the full design."""
    at = start
    whole = design if whole is None else whole
    for _ in range(_STEPS):
        if not at.size:
            break
        chance = _sigmoid(offset + design @ at)
        weight = total * chance * (1 - chance)
        inverse = np.linalg.inv(
            whole.T @ (weight[:, None] * whole) + 1e-12 * np.eye(whole.shape[1])
        )
        leverage = weight * np.einsum("pi,ij,pj->p", whole, inverse, whole)
        score = design.T @ (won - total * chance + leverage * (0.5 - chance))
        curvature = design.T @ ((weight + 1e-9)[:, None] * design)
        step = np.linalg.solve(curvature, score)
        step *= min(1.0, 1.0 / max(1e-12, float(np.abs(step).max())))
        at = at + step
        if np.abs(step).max() < 1e-7:
            break
    return at


def _penalised(theta: Floats, design: Floats, won: Floats, total: Floats, basis: Floats) -> float:
    """Log likelihood plus half the log determinant of the information."""
    gap = design @ theta
    likelihood = float(won @ gap - total @ np.logaddexp(0.0, gap))
    sign, size = np.linalg.slogdet(basis.T @ _information(theta, design, total) @ basis)
    return likelihood + 0.5 * float(size) if sign > 0 else -np.inf


def _information(theta: Floats, design: Floats, total: Floats) -> Floats:
    chance = _sigmoid(design @ theta)
    found: Floats = design.T @ ((total * chance * (1 - chance))[:, None] * design)
    return found


def _crossing(excess: Callable[[float], float], middle: float, side: float) -> float:
    """Where the profile falls to its limit on one side of the estimate."""
    reach = 0.5
    while excess(middle + side * reach) > 0:
        reach *= 1.6
        if reach > _FAR:
            return side * np.inf
    inside = optimize.brentq(lambda r: excess(middle + side * r), 0.0, reach, xtol=1e-4)
    return float(middle + side * inside)


def _sigmoid(x: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(x / 2))


def _sharpness(x: Floats) -> Floats:
    """φ(x)² / (Φ(x) Φ(−x)): how much a threshold at x tells of what lies near it."""
    x = np.clip(x, -8.0, 8.0)
    found: Floats = stats.norm.pdf(x) ** 2 / (stats.norm.cdf(x) * stats.norm.sf(x))
    return found
