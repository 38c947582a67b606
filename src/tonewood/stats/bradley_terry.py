"""Bradley-Terry strengths of items from pairwise choices, and models of listeners who differ.

P(i is preferred to j) = σ(θ_i − θ_j), Σθ = 0 (Bradley & Terry 1952). Estimates maximize the
likelihood with Jeffreys' prior (Firth 1993), which removes the bias of few answers and stays finite
where one side always won. Intervals are those of the penalized profile likelihood (Heinze &
Schemper 2002).

The answers of one listener are alike, so intervals that take all answers for independent are too
narrow. Two methods account for it, both checked on simulated listeners: a logistic model with a
random intercept for each listener, and the jackknife over listeners.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats
from scipy.sparse.csgraph import connected_components

from tonewood.utils.arrays import FloatArray

MIN_LISTENERS = 6
"""Fewer are too few to estimate how much listeners differ."""

_LOGISTIC_TO_PROBIT = 1.702  # σ(x) ≈ Φ(x / 1.702), to a hundredth (Camilli 1994)
_MAX_ITERATIONS = 100
_MAX_LOGIT = 40.0  # beyond it the likelihood is flat in double precision

# The trapezoidal rule integrates a normal density to machine precision if its steps are narrower.
# Multiplied by a listener's likelihood it stays wide enough up to about two hundred answers.
_NODES = np.linspace(-6.0, 6.0, 121)
_LOG_WEIGHTS = stats.norm.logpdf(_NODES) + np.log(_NODES[1] - _NODES[0])
_MAX_MEAN_LOGIT = 9.0  # practically certain
_MAX_SPREAD_LOGIT = 5.0  # listeners who agree on nothing
_minimize_bounded = partial(optimize.minimize_scalar, method="bounded", options={"xatol": 1e-3})


class Strengths(NamedTuple):
    """Strengths [item] in logits with mean 0, and 95 % intervals.

    The covariance [item, item] is the inverse information; its rank is one less than the number of
    items. `separated` is True if some items always won: plain maximum likelihood diverges.
    """

    strength: FloatArray
    low: FloatArray
    high: FloatArray
    covariance: FloatArray
    separated: bool

    def preference_probability(self, i: int, j: int) -> tuple[float, float, float]:
        """Return the probability that i is preferred to j, and its 95 % interval."""
        gap = self.strength[i] - self.strength[j]
        spread = np.sqrt(self.covariance[i, i] + self.covariance[j, j] - 2 * self.covariance[i, j])
        ends = gap + np.array([0.0, -1.0, 1.0]) * stats.norm.isf(0.025) * spread
        middle, low, high = 1 / (1 + np.exp(-ends))
        return float(middle), float(low), float(high)


class StrengthPosterior(NamedTuple):
    """Gaussian posterior of strengths [item], by Laplace's approximation."""

    mean: FloatArray
    covariance: FloatArray


class _PairCounts(NamedTuple):
    """Compared pairs: design [pair, item], wins [pair] of the first item, and answers [pair]."""

    design: FloatArray
    won: FloatArray
    total: FloatArray

    @classmethod
    def from_wins(cls, wins: FloatArray) -> "_PairCounts":
        first, second = np.nonzero(np.triu(wins + wins.T, 1))
        rows = np.arange(len(first))
        design = np.zeros((len(first), len(wins)))
        design[rows, first], design[rows, second] = 1.0, -1.0
        won = wins[first, second]
        return cls(design, won, won + wins[second, first])

    def information(self, theta: FloatArray) -> FloatArray:
        """Return the Fisher information [item, item]."""
        p = _sigmoid(self.design @ theta)
        information: FloatArray = self.design.T @ ((self.total * p * (1 - p))[:, None] * self.design)
        return information

    def penalized_likelihood(self, theta: FloatArray, basis: FloatArray) -> float:
        """Return the log likelihood plus half the log determinant of the information."""
        gap = self.design @ theta
        likelihood = float(self.won @ gap - self.total @ np.logaddexp(0.0, gap))
        sign, size = np.linalg.slogdet(basis.T @ self.information(theta) @ basis)
        return likelihood + 0.5 * float(size) if sign > 0 else -np.inf


def is_connected(wins: FloatArray) -> bool:
    """Return True if compared pairs connect all items, so that they have a common scale."""
    return int(connected_components(wins + wins.T > 0, directed=False)[0]) == 1


def estimate_strengths(wins: FloatArray) -> FloatArray:
    """Return the strengths [item] of `fit_strengths`, without intervals."""
    pairs = _PairCounts.from_wins(np.asarray(wins, dtype=np.float64))
    basis = _zero_sum_basis(len(wins))
    design = pairs.design @ basis
    start, offset = np.zeros(len(wins) - 1), np.zeros(len(pairs.won))
    return basis @ _maximize_likelihood(start, design, offset, pairs, full_design=design)


def fit_strengths(wins: FloatArray) -> Strengths:
    """Fit the strengths of items and their intervals to wins [item, item].

    wins[i, j] is the number of answers that preferred i to j. ValueError if the answers do not
    connect all items.
    """
    wins = np.asarray(wins, dtype=np.float64)
    if not is_connected(wins):
        raise ValueError("some items are not connected to the others by any comparison")
    count = len(wins)
    pairs = _PairCounts.from_wins(wins)
    basis = _zero_sum_basis(count)
    theta = estimate_strengths(wins)
    information = pairs.information(theta)
    # The interval ends where the profile falls by half the χ² quantile.
    limit = pairs.penalized_likelihood(theta, basis) - stats.chi2.isf(0.05, 1) / 2
    low, high = np.empty(count), np.empty(count)
    for item in range(count):
        along, across = _profile_directions(item, count)

        def excess(
            value: float, along: FloatArray = along, across: FloatArray = across, mode: float = theta[item]
        ) -> float:
            start, offset = across.T @ (theta - along * mode), pairs.design @ (along * value)
            inner = _maximize_likelihood(
                start, pairs.design @ across, offset, pairs, full_design=pairs.design @ basis
            )
            at = along * value + across @ inner
            return pairs.penalized_likelihood(at, basis) - float(limit)

        low[item] = _profile_crossing(excess, theta[item], -1.0)
        high[item] = _profile_crossing(excess, theta[item], 1.0)
    # Strong connection: no group of items won all its comparisons with the others.
    separated = int(connected_components(wins > 0, connection="strong")[0]) > 1
    inverse = basis @ np.linalg.inv(basis.T @ information @ basis) @ basis.T
    return Strengths(theta, low, high, inverse, separated)


def estimate_posterior(wins: FloatArray, spread: float = 2.0) -> StrengthPosterior:
    """Return the Gaussian around the most probable strengths.

    `spread` is the standard deviation of the prior in logits. The prior keeps items without answers possible.
    """
    pairs = _PairCounts.from_wins(np.asarray(wins, dtype=np.float64))
    count = len(wins)
    theta = np.zeros(count)
    prior = np.eye(count) / spread**2
    for _ in range(_MAX_ITERATIONS):
        p = _sigmoid(pairs.design @ theta)
        slope = pairs.design.T @ (pairs.won - pairs.total * p) - theta / spread**2
        step = np.linalg.solve(pairs.information(theta) + prior, slope)
        # Newton steps of at most 2 logits: full ones overshoot far from the mode.
        theta = theta + step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-8:
            break
    precision = pairs.information(theta) + prior
    return StrengthPosterior(theta, np.asarray(np.linalg.inv(precision), dtype=np.float64))


def information_gain(posterior: StrengthPosterior) -> FloatArray:
    """Return the expected information [pair] about the order from one answer on each pair.

    Pairs are in the order of `numpy.triu_indices(items, 1)`. The gain is the expected fall of the
    quadratic entropy P(1 − P) of the sign of every gap between two strengths (DeGroot 1962), summed
    over gaps: the expected fall of the mean squared error of the order. Shannon's entropy performs
    as well at first, but later keeps asking about pairs that are nearly settled.

    Gaps are jointly Gaussian, and the logistic function is nearly a normal one of 1.702 times the
    width. So an answer and a sign are thresholds at h and k of normals correlated by ρ; to first
    order in ρ the fall is ρ² φ(h)² φ(k)² / (p(1 − p)).
    """
    first, second = np.triu_indices(len(posterior.mean), 1)
    gap = posterior.mean[first] - posterior.mean[second]
    rows = posterior.covariance[first] - posterior.covariance[second]
    gap_covariance = rows[:, first] - rows[:, second]  # [pair, pair]
    variance = np.diag(gap_covariance)
    answer_variance = variance + _LOGISTIC_TO_PROBIT**2
    answer_term = _threshold_information(gap / np.sqrt(answer_variance)) / answer_variance
    sign_term = np.square(stats.norm.pdf(gap / np.sqrt(variance))) / variance
    gain: FloatArray = answer_term * (np.square(gap_covariance) @ sign_term)
    return gain


def most_informative_pair(wins: FloatArray, rng: np.random.Generator) -> tuple[int, int]:
    """Return the pair with the largest information gain; `rng` decides between equals."""
    gain = information_gain(estimate_posterior(wins))
    best = np.flatnonzero(gain >= gain.max() * (1 - 1e-9))
    pair = best[rng.integers(len(best))]
    first, second = np.triu_indices(len(wins), 1)
    return int(first[pair]), int(second[pair])


def _zero_sum_basis(count: int) -> FloatArray:
    """Return an orthonormal basis [item, count - 1] of the vectors that sum to zero."""
    # The singular vectors of the centring matrix; the last one is the constant.
    basis: FloatArray = np.linalg.svd(np.eye(count) - 1 / count)[0][:, : count - 1]
    return basis


def _profile_directions(item: int, count: int) -> tuple[FloatArray, FloatArray]:
    """Return the direction [item] that moves one strength by 1, and a basis that leaves it fixed."""
    along = (np.eye(count)[item] - 1 / count) / (1 - 1 / count)
    others = np.delete(np.arange(count), item)
    across = np.zeros((count, count - 2))
    across[others] = _zero_sum_basis(count - 1)
    return along, across


def _maximize_likelihood(
    start: FloatArray, design: FloatArray, offset: FloatArray, pairs: _PairCounts, full_design: FloatArray
) -> FloatArray:
    """Maximize the penalized likelihood over `design` by Firth's modified score."""
    at = start
    for _ in range(_MAX_ITERATIONS):
        if not at.size:
            break
        p = _sigmoid(offset + design @ at)
        weight = pairs.total * p * (1 - p)
        information = full_design.T @ (weight[:, None] * full_design)
        inverse = np.linalg.inv(information + 1e-12 * np.eye(full_design.shape[1]))
        # The derivative of Jeffreys' penalty: leverages h times (1/2 − p).
        leverage = weight * np.einsum("pi,ij,pj->p", full_design, inverse, full_design)
        score = design.T @ (pairs.won - pairs.total * p + leverage * (0.5 - p))
        curvature = design.T @ ((weight + 1e-9)[:, None] * design)
        step = np.linalg.solve(curvature, score)
        step *= min(1.0, 1.0 / max(1e-12, float(np.abs(step).max())))
        at = at + step
        if np.abs(step).max() < 1e-7:
            break
    return at


def _profile_crossing(excess: Callable[[float], float], middle: float, side: float) -> float:
    """Return where the profile falls to its limit on one side of the estimate."""
    distance = 0.5
    while excess(middle + side * distance) > 0:
        distance *= 1.6
        if distance > _MAX_LOGIT:
            return side * np.inf
    root = optimize.brentq(lambda r: excess(middle + side * r), 0.0, distance, xtol=1e-4)
    return float(middle + side * root)


def _sigmoid(x: FloatArray) -> FloatArray:
    return 0.5 * (1 + np.tanh(x / 2))  # no overflow at either end


def _threshold_information(x: FloatArray) -> FloatArray:
    """Return φ(x)² / (Φ(x) Φ(−x))."""
    x = np.clip(x, -8.0, 8.0)  # beyond, Φ(−x) underflows and the quotient is 0 / 0
    information: FloatArray = stats.norm.pdf(x) ** 2 / (stats.norm.cdf(x) * stats.norm.sf(x))
    return information


# --- Listeners who differ


class MixedLogit(NamedTuple):
    """Share of answers by a model with random listeners."""

    listeners: int
    # Share of the median listener, and its 95 % interval
    share: float
    low: float
    high: float
    p: float  # of the hypothesis that the median listener's share is one half
    spread: float  # standard deviation between listeners, logits; 0 where chance explains their differences


def fit_mixed_logit(counts: Sequence[int], totals: Sequence[int]) -> MixedLogit | None:
    """Fit a logistic model with a random intercept for each listener; None if they are too few.

    logit P(first | listener) = μ + σz, z ~ N(0, 1), integrated numerically; maximum likelihood, with interval
    and test of μ from the profile likelihood. `counts` and `totals` are answers for the first item, and all
    answers, of each listener.
    """
    answers = [(c, n) for c, n in zip(counts, totals, strict=True) if n]
    if len(answers) < MIN_LISTENERS:
        return None
    # Listeners with the same answers have the same likelihood: each kind is computed once.
    kinds, times = np.unique(np.array(answers, dtype=np.float64), axis=0, return_counts=True)

    profile = partial(_profile_over_spread, kinds, times)
    # Maximum of the profile; the interval ends where it falls by half the χ² quantile.
    top = _minimize_bounded(lambda mu: -profile(mu)[0], bounds=(-_MAX_MEAN_LOGIT, _MAX_MEAN_LOGIT))
    mu, (highest, spread) = float(top.x), profile(float(top.x))
    limit = highest - stats.chi2.isf(0.05, 1) / 2

    def interval_end(side: float) -> float:
        if profile(side * _MAX_MEAN_LOGIT)[0] >= limit:
            return side * np.inf
        end = optimize.brentq(lambda x: profile(x)[0] - limit, mu, side * _MAX_MEAN_LOGIT, xtol=1e-3)
        return float(end)

    middle, low, high = map(float, special.expit([mu, interval_end(-1.0), interval_end(1.0)]))
    p = float(stats.chi2.sf(max(0.0, 2 * (highest - profile(0.0)[0])), 1))
    return MixedLogit(len(answers), middle, low, high, p, spread)


def _mixed_log_likelihood(kinds: FloatArray, times: NDArray[np.intp], mu: float, sigma: float) -> float:
    """Return the log likelihood of answers (first item, all) [kind, 2] that occur `times` [kind]."""
    logits = mu + sigma * _NODES
    yes, no = special.log_expit(logits), special.log_expit(-logits)
    each = kinds[:, :1] * yes + (kinds[:, 1:] - kinds[:, :1]) * no + _LOG_WEIGHTS
    # Sum of exponentials written out: `special.logsumexp` takes ten times as long on arrays this small.
    largest = each.max(axis=1)
    return float(times @ (largest + np.log(np.exp(each - largest[:, None]).sum(axis=1))))


def _profile_over_spread(kinds: FloatArray, times: NDArray[np.intp], mu: float) -> tuple[float, float]:
    """Return the largest log likelihood at a mean, and the spread that has it."""
    result = _minimize_bounded(
        lambda sigma: -_mixed_log_likelihood(kinds, times, mu, sigma), bounds=(0, _MAX_SPREAD_LOGIT)
    )
    # The bounded search never reaches 0, where equal listeners have their maximum.
    without_spread = _mixed_log_likelihood(kinds, times, mu, 0.0)
    if without_spread >= -result.fun:
        return without_spread, 0.0
    return float(-result.fun), float(result.x)


class StrengthIntervals(NamedTuple):
    """95 % intervals [item] of strengths in logits."""

    low: FloatArray
    high: FloatArray


def jackknife_intervals(wins: FloatArray) -> StrengthIntervals | None:
    """Return intervals of strengths from wins [listener, item, item] (Efron & Stein 1981).

    Each listener is left out in turn; Student's t with one degree of freedom less than listeners.
    None for fewer than three listeners, or where one listener alone connects the items.
    """
    wins = wins[wins.any(axis=(1, 2))]
    count, total = len(wins), wins.sum(axis=0)
    if count < 3 or not all(is_connected(total - listener) for listener in wins):
        return None
    left_out = np.array([estimate_strengths(total - listener) for listener in wins])
    spread = np.sqrt((count - 1) / count * np.square(left_out - left_out.mean(axis=0)).sum(axis=0))
    middle, margin = estimate_strengths(total), stats.t.isf(0.025, count - 1) * spread
    return StrengthIntervals(middle - margin, middle + margin)
