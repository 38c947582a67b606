"""Proportions of right or preferred answers: exact intervals, d′, and sample sizes.

Plain functions on counts. Answers that share a piece or a listener are alike, and an interval that
takes them for independent is too narrow; `mean_over_listeners` counts listeners instead.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

CONFIDENCE_LEVEL = 0.95
_SIGNIFICANCE, _MAX_LISTENERS = 0.05, 10_000  # of the test that a sample size is for

_WILCOXON_EFFICIENCY = 0.864  # its minimum, relative to the t test (Hodges & Lehmann 1956)
_MAX_SENSITIVITY = 15.0  # d′ above which all answers are right in double precision


class Proportion(NamedTuple):
    """A share of answers, its 95 % interval, and p of the exact binomial test against chance."""

    successes: int
    total: int
    share: float
    low: float
    high: float
    p: float


class Sensitivity(NamedTuple):
    """d′ with its 95 % interval; `high` is None where all answers are right."""

    d: float
    low: float
    high: float | None


class ListenerMean(NamedTuple):
    """Mean of the listeners' shares and its 95 % interval, by Student's t.

    There is no interval for one listener, or if all have the same share.
    """

    listeners: int
    mean: float
    low: float | None
    high: float | None


def binomial_proportion(count: int, total: int, *, alternative: str = "two-sided") -> Proportion:
    """Return a share of answers with its exact interval (Clopper & Pearson 1934).

    Parameters
    ----------
    alternative : {"two-sided", "greater"}
        Of the test; the interval always has two sides.

    Examples
    --------
    >>> result = binomial_proportion(15, 20)
    >>> round(result.low, 3), round(result.high, 3), round(result.p, 4)
    (0.509, 0.913, 0.0414)
    """
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"{count} of {total} answers is not a share")
    # Quantiles of the beta distribution: closed, while scipy's `proportion_ci` searches for a root.
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low = float(stats.beta.ppf(tail, count, total - count + 1)) if count else 0.0
    high = float(stats.beta.isf(tail, count + 1, total - count)) if count < total else 1.0
    p = float(stats.binomtest(count, total, alternative=alternative).pvalue)
    return Proportion(count, total, count / total, low, high, p)


def mean_over_listeners(counts: Sequence[int], totals: Sequence[int]) -> ListenerMean:
    """Return the mean share over listeners, each with the same weight."""
    shares = np.array([c / n for c, n in zip(counts, totals, strict=True) if n], dtype=float)
    number, mean = len(shares), float(shares.mean())
    # Equal shares have a variance of 0, which says nothing about other listeners.
    if number < 2 or not np.ptp(shares):
        return ListenerMean(number, mean, None, None)
    quantile = stats.t.isf((1 - CONFIDENCE_LEVEL) / 2, number - 1)
    margin = float(quantile * shares.std(ddof=1) / np.sqrt(number))
    return ListenerMean(number, mean, max(0.0, mean - margin), min(1.0, mean + margin))


def abx_correct(d: float) -> float:
    """Return the share of right ABX answers at a sensitivity d′, by the differencing rule.

    Macmillan & Creelman, *Detection Theory* (2005), eq. 9.7, for stimuli that change from trial to
    trial, as excerpts do.
    """
    first, second = d / np.sqrt(2), d / np.sqrt(6)
    cdf = stats.norm.cdf
    return float(cdf(first) * cdf(second) + cdf(-first) * cdf(-second))


def abx_sensitivity(correct: int, total: int) -> Sensitivity:
    """Return d′ of ABX answers, with the interval of the share converted to d′."""
    proportion = binomial_proportion(correct, total)
    # All right has no finite d′; the share counts as (n + ½) / (n + 1).
    share = proportion.share if correct < total else (correct + 0.5) / (total + 1)
    high = None if correct == total else _invert_abx_correct(proportion.high)
    return Sensitivity(_invert_abx_correct(share), _invert_abx_correct(proportion.low), high)


def _invert_abx_correct(correct: float) -> float:
    # At or below chance there is no sensitivity; the curve has no inverse there.
    if correct <= 0.5:
        return 0.0
    if correct >= abx_correct(_MAX_SENSITIVITY):
        return _MAX_SENSITIVITY
    return float(optimize.brentq(lambda d: abx_correct(d) - correct, 0.0, _MAX_SENSITIVITY))


def listeners_for_choice(
    expected: float,
    answers: int,
    *,
    correlation: float = 0.05,
    power: float = 0.8,
    alternative: str = "two-sided",
    max_listeners: int = _MAX_LISTENERS,
) -> int | None:
    """Return the smallest number of listeners that detects a share other than one half, if any.

    The power of the exact binomial test is a sawtooth over the number of answers; the result holds
    for every larger number too. n answers of one listener count as n / (1 + (n - 1) correlation)
    (Kish 1965).

    Parameters
    ----------
    expected : float
        Smallest share of interest: of preferring one, or of right ABX answers.
    answers : int
        Of each listener.
    correlation : float
        Intraclass correlation of one listener's answers.
    """
    # The test is against one half, so a share of one half is never detected.
    if not 0 < expected < 1 or expected == 0.5:
        raise ValueError(f"a share of {expected}: it must lie between 0 and 1 and not be one half")
    if answers < 1 or not 0 <= correlation <= 1:
        raise ValueError(f"{answers} answers with a correlation of {correlation}: use at least 1, and 0 to 1")
    effective = answers / (1 + (answers - 1) * correlation)

    def is_enough(listeners: int) -> bool:
        return _binomial_power(int(listeners * effective), expected, alternative) >= power

    return _smallest_count(is_enough, max_listeners)


def listeners_for_ratings(difference: float, standard_deviation: float, *, power: float = 0.8) -> int | None:
    """Return the smallest number of listeners that detects a difference of two conditions, if any.

    By the noncentral t distribution of paired differences. Ratings are hardly ever normal, so the
    number is divided by the efficiency of the Wilcoxon test.

    Parameters
    ----------
    difference : float
        Smallest difference of interest, in points of the scale.
    standard_deviation : float
        Of that difference between listeners.
    """
    if standard_deviation <= 0 or difference == 0:
        raise ValueError(
            f"difference {difference}, standard deviation {standard_deviation}: neither may be 0, nor the "
            "standard deviation negative"
        )

    def is_enough(listeners: int) -> bool:
        effective = listeners * _WILCOXON_EFFICIENCY
        if effective < 2:  # without a degree of freedom there is no t distribution
            return False
        limit = stats.t.isf(_SIGNIFICANCE / 2, effective - 1)
        shift = abs(difference) / standard_deviation * np.sqrt(effective)
        return bool(stats.nct.sf(limit, effective - 1, shift) >= power)

    return _smallest_count(is_enough, _MAX_LISTENERS)


def holm_adjust(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p values [test] adjusted for multiple tests (Holm 1979).

    Examples
    --------
    >>> holm_adjust(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    scaled = p[order] * np.arange(len(p), 0, -1)
    # Running maximum: a larger p must not be adjusted to a smaller value.
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted


def _binomial_power(total: int, expected: float, alternative: str) -> float:
    if total == 0:
        return 0.0
    counts = np.arange(total + 1)
    upper = stats.binom.sf(counts - 1, total, 0.5)
    # At one half the distribution is symmetric: the lower tail is the upper one reversed.
    p = upper if alternative == "greater" else 2 * np.minimum(upper, upper[::-1])
    return float(stats.binom.pmf(counts, total, expected)[p <= _SIGNIFICANCE].sum())


def _smallest_count(is_enough: Callable[[int], bool], maximum: int) -> int | None:
    """Return the smallest number from which on `is_enough` holds, for a sawtooth."""
    top = 1
    while not is_enough(top):
        top *= 2
        if top > maximum:
            return None
    # Twice as far, beyond the last tooth, and down to the first failure.
    top = min(maximum, 2 * top + 20)
    while top > 1 and is_enough(top - 1):
        top -= 1
    return top
