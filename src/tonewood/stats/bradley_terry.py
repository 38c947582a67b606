"""Strengths behind pairwise choices (Bradley & Terry 1952), and which pair teaches most.

P(i is preferred to j) = σ(θ_i − θ_j), Σθ = 0. Estimates maximise the likelihood with Jeffreys'
prior (Firth 1993), which takes off the bias of few answers and stays finite where one side won
always. Intervals are those of the penalised profile likelihood (Heinze & Schemper 2002).

Choices of listeners who differ: how far what was found holds for others than those asked.

A listener's answers are alike, so that exact intervals, which take all answers for independent,
are too narrow. Two ways out, both checked on simulated listeners: a logistic model with a random
intercept for each listener, and the jackknife that leaves out one listener at a time.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats
from scipy.sparse.csgraph import connected_components

from tonewood.utils.arrays import FloatArray

_LOGISTIC_TO_PROBIT = 1.702  # σ(x) ≈ Φ(x / 1.702), to a hundredth (Camilli 1994)
_MAX_ITERATIONS = 100
_MAX_LOGIT = 40.0  # logits that no answers tell apart


class Strengths(NamedTuple):
    """Strengths [item] in logits, their mean 0, with 95 % intervals.

    Parameters
    ----------
    covariance : array [item, item]
        Inverse information at the estimate, of rank one less than the items.
    separated : bool
        Whether some items won always, so that plain maximum likelihood would have no bound.
    """

    strength: FloatArray
    low: FloatArray
    high: FloatArray
    covariance: FloatArray
    separated: bool

    def preference_probability(self, i: int, j: int) -> tuple[float, float, float]:
        """Probability that i is preferred to j, and its 95 % interval by the covariance."""
        gap = self.strength[i] - self.strength[j]
        spread = np.sqrt(self.covariance[i, i] + self.covariance[j, j] - 2 * self.covariance[i, j])
        ends = gap + np.array([0.0, -1.0, 1.0]) * stats.norm.isf(0.025) * spread
        middle, low, high = 1 / (1 + np.exp(-ends))
        return float(middle), float(low), float(high)


def is_connected(wins: FloatArray) -> bool:
    """Whether every item can be reached from every other by compared pairs."""
    return int(connected_components(wins + wins.T > 0, directed=False)[0]) == 1


def estimate_strengths(wins: FloatArray) -> FloatArray:
    """Strengths [item] alone, of what `is_connected` holds of; as `fit` finds them."""
    design, won, total = _pair_counts(np.asarray(wins, dtype=np.float64))
    basis = _zero_sum_basis(len(wins))
    start = np.zeros(len(wins) - 1)
    return basis @ _maximize_likelihood(start, design @ basis, np.zeros(len(won)), won, total)


def fit_strengths(wins: FloatArray) -> Strengths:
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
    if not is_connected(wins):
        raise ValueError("some items were never compared, not even by way of others")
    count = len(wins)
    design, won, total = _pair_counts(wins)
    basis = _zero_sum_basis(count)
    theta = estimate_strengths(wins)
    information = _fisher_information(theta, design, total)
    best = _penalized_likelihood(theta, design, won, total, basis)
    limit = best - stats.chi2.isf(0.05, 1) / 2
    low, high = np.empty(count), np.empty(count)
    for item in range(count):
        along, across = _profile_directions(item, count)

        def excess(
            value: float,
            along: FloatArray = along,
            across: FloatArray = across,
            own: float = theta[item],
        ) -> float:
            start, offset = across.T @ (theta - along * own), design @ (along * value)
            inner = _maximize_likelihood(start, design @ across, offset, won, total, design @ basis)
            at = along * value + across @ inner
            return _penalized_likelihood(at, design, won, total, basis) - float(limit)

        low[item] = _profile_crossing(excess, theta[item], -1.0)
        high[item] = _profile_crossing(excess, theta[item], 1.0)
    separated = int(connected_components(wins > 0, connection="strong")[0]) > 1
    inverse = basis @ np.linalg.inv(basis.T @ information @ basis) @ basis.T
    return Strengths(theta, low, high, inverse, separated)


class StrengthPosterior(NamedTuple):
    """Strengths [item] as far as the answers tell: mean and covariance, after Laplace."""

    mean: FloatArray
    covariance: FloatArray


def estimate_posterior(wins: FloatArray, spread: float = 2.0) -> StrengthPosterior:
    """Gaussian of the strengths around their most probable values.

    Parameters
    ----------
    wins : array [item, item]
    spread : float
        Standard deviation of strengths beforehand, logits; keeps unheard items in play.
    """
    design, won, total = _pair_counts(np.asarray(wins, dtype=np.float64))
    count = len(wins)
    theta = np.zeros(count)
    prior = np.eye(count) / spread**2
    for _ in range(_MAX_ITERATIONS):
        chance = _sigmoid(design @ theta)
        slope = design.T @ (won - total * chance) - theta / spread**2
        step = np.linalg.solve(_fisher_information(theta, design, total) + prior, slope)
        theta = theta + step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-8:
            break
    precision = _fisher_information(theta, design, total) + prior
    return StrengthPosterior(theta, np.asarray(np.linalg.inv(precision), dtype=np.float64))


def information_gain(posterior: StrengthPosterior) -> FloatArray:
    """Expected information [pair] that an answer on a pair would bring about the order.

    Pairs are in the order of `numpy.triu_indices(items, 1)`. It is how much the quadratic entropy,
    P(1 − P), of the sign of every gap between two strengths is expected to fall (DeGroot 1962),
    summed over the gaps: the expected fall of the mean squared error of the order. Shannon's does
    as well at first, and later stays too long with what is nearly settled. Gaps are jointly
    Gaussian and the logistic nearly a normal of 1.702 times the width, so an answer and a sign are
    two thresholds, at h and k, of normals correlated by ρ; to first order in ρ the fall is
    ρ² φ(h)² φ(k)² / (p(1 − p)).
    """
    first, second = np.triu_indices(len(posterior.mean), 1)
    gap = posterior.mean[first] - posterior.mean[second]
    rows = posterior.covariance[first] - posterior.covariance[second]
    shared = rows[:, first] - rows[:, second]  # covariance of the gaps [pair, pair]
    variance = np.diag(shared)
    answered = variance + _LOGISTIC_TO_PROBIT**2
    told = _threshold_information(gap / np.sqrt(answered)) / answered
    open_still = np.square(stats.norm.pdf(gap / np.sqrt(variance))) / variance
    gain: FloatArray = told * (np.square(shared) @ open_still)
    return gain


def most_informative_pair(wins: FloatArray, rng: np.random.Generator, spread: float = 2.0) -> tuple[int, int]:
    """Pair whose answer would teach most; among equals one is drawn."""
    gain = information_gain(estimate_posterior(wins, spread))
    best = np.flatnonzero(gain >= gain.max() * (1 - 1e-9))
    place = best[rng.integers(len(best))]
    first, second = np.triu_indices(len(wins), 1)
    return int(first[place]), int(second[place])


def _pair_counts(wins: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Design [pair, item], wins [pair] of the first, and answers [pair], of the pairs compared."""
    first, second = np.nonzero(np.triu(wins + wins.T, 1))
    rows = np.arange(len(first))
    design = np.zeros((len(first), len(wins)))
    design[rows, first], design[rows, second] = 1.0, -1.0
    won = wins[first, second]
    return design, won, won + wins[second, first]


def _zero_sum_basis(count: int) -> FloatArray:
    """Orthonormal basis [item, count - 1] of what sums to zero."""
    basis: FloatArray = np.linalg.svd(np.eye(count) - 1 / count)[0][:, : count - 1]
    return basis


def _profile_directions(item: int, count: int) -> tuple[FloatArray, FloatArray]:
    """Direction [item] in which one strength moves by 1, and a basis of those that leave it."""
    along = (np.eye(count)[item] - 1 / count) / (1 - 1 / count)
    others = np.delete(np.arange(count), item)
    across = np.zeros((count, count - 2))
    across[others] = _zero_sum_basis(count - 1)
    return along, across


def _maximize_likelihood(
    start: FloatArray,
    design: FloatArray,
    offset: FloatArray,
    won: FloatArray,
    total: FloatArray,
    full_design: FloatArray | None = None,
) -> FloatArray:
    """Maximise the penalised likelihood by its modified score; `full_design` is the full design."""
    at = start
    full_design = design if full_design is None else full_design
    for _ in range(_MAX_ITERATIONS):
        if not at.size:
            break
        chance = _sigmoid(offset + design @ at)
        weight = total * chance * (1 - chance)
        inverse = np.linalg.inv(
            full_design.T @ (weight[:, None] * full_design) + 1e-12 * np.eye(full_design.shape[1])
        )
        leverage = weight * np.einsum("pi,ij,pj->p", full_design, inverse, full_design)
        score = design.T @ (won - total * chance + leverage * (0.5 - chance))
        curvature = design.T @ ((weight + 1e-9)[:, None] * design)
        step = np.linalg.solve(curvature, score)
        step *= min(1.0, 1.0 / max(1e-12, float(np.abs(step).max())))
        at = at + step
        if np.abs(step).max() < 1e-7:
            break
    return at


def _penalized_likelihood(
    theta: FloatArray,
    design: FloatArray,
    won: FloatArray,
    total: FloatArray,
    basis: FloatArray,
) -> float:
    """Log likelihood plus half the log determinant of the information."""
    gap = design @ theta
    likelihood = float(won @ gap - total @ np.logaddexp(0.0, gap))
    sign, size = np.linalg.slogdet(basis.T @ _fisher_information(theta, design, total) @ basis)
    return likelihood + 0.5 * float(size) if sign > 0 else -np.inf


def _fisher_information(theta: FloatArray, design: FloatArray, total: FloatArray) -> FloatArray:
    chance = _sigmoid(design @ theta)
    found: FloatArray = design.T @ ((total * chance * (1 - chance))[:, None] * design)
    return found


def _profile_crossing(excess: Callable[[float], float], middle: float, side: float) -> float:
    """Where the profile falls to its limit on one side of the estimate."""
    reach = 0.5
    while excess(middle + side * reach) > 0:
        reach *= 1.6
        if reach > _MAX_LOGIT:
            return side * np.inf
    inside = optimize.brentq(lambda r: excess(middle + side * r), 0.0, reach, xtol=1e-4)
    return float(middle + side * inside)


def _sigmoid(x: FloatArray) -> FloatArray:
    return 0.5 * (1 + np.tanh(x / 2))


def _threshold_information(x: FloatArray) -> FloatArray:
    """φ(x)² / (Φ(x) Φ(−x)): how much a threshold at x tells of what lies near it."""
    x = np.clip(x, -8.0, 8.0)
    found: FloatArray = stats.norm.pdf(x) ** 2 / (stats.norm.cdf(x) * stats.norm.sf(x))
    return found


# Trapezoids integrate what falls off like a normal to machine precision once they are narrower
# than it; so narrow they are for up to some two hundred answers of a listener on one pair.
_NODES = np.linspace(-6.0, 6.0, 121)
_LOG_WEIGHTS = stats.norm.logpdf(_NODES) + np.log(_NODES[1] - _NODES[0])
MIN_LISTENERS = 6
_MAX_MEAN_LOGIT, _MAX_SPREAD_LOGIT = (
    9.0,
    5.0,
)  # logits: as good as certain; listeners who agree on nothing


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
        lambda mu: -best(mu)[0],
        bounds=(-_MAX_MEAN_LOGIT, _MAX_MEAN_LOGIT),
        method="bounded",
        options={"xatol": 1e-3},
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

    low: FloatArray
    high: FloatArray


def jackknife_intervals(wins: FloatArray) -> StrengthIntervals | None:
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
    if count < 3 or not all(is_connected(whole - own) for own in wins):
        return None
    without = np.array([estimate_strengths(whole - own) for own in wins])
    spread = np.sqrt((count - 1) / count * np.square(without - without.mean(axis=0)).sum(axis=0))
    middle, reach = estimate_strengths(whole), stats.t.isf(0.025, count - 1) * spread
    return StrengthIntervals(middle - reach, middle + reach)
