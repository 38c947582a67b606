"""Answers that are right or wrong, this or that: exact intervals, d′, and how many are needed.

Plain functions on counts. What listeners share (the same piece, the same ear) makes answers
alike, and an interval that takes them for independent is too narrow; `by_listener` counts
listeners instead.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

CONFIDENCE_LEVEL = 0.95


class Proportion(NamedTuple):
    """A share of so many answers, its 95 % interval, and how likely chance does as much.

    Parameters
    ----------
    p : float
        Of the exact binomial test against chance.
    """

    successes: int
    total: int
    share: float
    low: float
    high: float
    p: float


class Sensitivity(NamedTuple):
    """d′ with its 95 % interval; an end that the answers do not bound is None."""

    d: float
    low: float
    high: float | None


class ListenerMean(NamedTuple):
    """Mean of the listeners' shares and its 95 % interval, by Student's t.

    None for one listener, and where all have one share, which tells nothing of how others differ.
    """

    listeners: int
    mean: float
    low: float | None
    high: float | None


def binomial_proportion(
    count: int, total: int, *, chance: float = 0.5, alternative: str = "two-sided"
) -> Proportion:
    """Share of answers with its exact interval (Clopper & Pearson 1934).

    Parameters
    ----------
    alternative : {"two-sided", "greater"}
        Of the test; the interval always has two sides.

    Examples
    --------
    >>> found = share(15, 20)
    >>> round(found.low, 3), round(found.high, 3), round(found.p, 4)
    (0.509, 0.913, 0.0414)
    """
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"{count} of {total} answers is no share")
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low = float(stats.beta.ppf(tail, count, total - count + 1)) if count else 0.0
    high = float(stats.beta.isf(tail, count + 1, total - count)) if count < total else 1.0
    p = float(stats.binomtest(count, total, chance, alternative=alternative).pvalue)
    return Proportion(count, total, count / total, low, high, p)


def mean_over_listeners(counts: Sequence[int], totals: Sequence[int]) -> ListenerMean:
    """Mean share over listeners, each counting once, whatever their answers have in common."""
    shares = np.array([c / n for c, n in zip(counts, totals, strict=True) if n], dtype=float)
    number, mean = len(shares), float(shares.mean())
    if number < 2 or not np.ptp(shares):
        return ListenerMean(number, mean, None, None)
    reach = float(stats.t.isf((1 - CONFIDENCE_LEVEL) / 2, number - 1) * shares.std(ddof=1) / np.sqrt(number))
    return ListenerMean(number, mean, max(0.0, mean - reach), min(1.0, mean + reach))


def abx_correct(d: float) -> float:
    """Share of right ABX answers at a sensitivity d′, by the differencing rule.

    Of Macmillan & Creelman, *Detection Theory* (2005), eq. 9.7: right where stimuli change from
    trial to trial, as excerpts do, and listeners compare distances.
    """
    first, second = d / np.sqrt(2), d / np.sqrt(6)
    cdf = stats.norm.cdf
    return float(cdf(first) * cdf(second) + cdf(-first) * cdf(-second))


def abx_sensitivity(correct: int, total: int) -> Sensitivity:
    """d′ of ABX answers; its interval is that of the share, carried over.

    Where all are right, the share counts as (n + ½) / (n + 1), for its d′ has no bound.
    """
    found = binomial_proportion(correct, total)
    at = found.share if correct < total else (correct + 0.5) / (total + 1)
    high = None if correct == total else _invert_abx_correct(found.high)
    return Sensitivity(_invert_abx_correct(at), _invert_abx_correct(found.low), high)


def _invert_abx_correct(correct: float) -> float:
    """Inverse of `abx_correct`, from 0 on."""
    if correct <= 0.5:
        return 0.0
    if correct >= abx_correct(15.0):
        return 15.0
    return float(optimize.brentq(lambda d: abx_correct(d) - correct, 0.0, 15.0))


def listeners_for_choice(
    expected: float,
    answers: int,
    *,
    correlation: float = 0.05,
    power: float = 0.8,
    alpha: float = 0.05,
    alternative: str = "two-sided",
    max_listeners: int = 10_000,
) -> int | None:
    """Smallest number of listeners that finds a share other than one half with such power.

    The exact binomial test's power rises in a saw's teeth with the answers; what is given holds
    for every larger number too. Answers of one listener are alike to a degree, and count as
    fewer: n answers as n / (1 + (answers - 1) likeness) (Kish 1965).

    Parameters
    ----------
    expected : float
        Share that would be worth finding: preferring one, or right in ABX.
    answers : int
        Each listener gives.
    correlation : float
        Intra-class correlation of one listener's answers.

    Returns
    -------
    int or None
        None where even `max_listeners` listeners would not do.
    """
    _check_power_settings(power, alpha)
    if not 0 < expected < 1 or expected == 0.5:
        raise ValueError(f"a share of {expected} cannot be told from one half")
    if answers < 1 or not 0 <= correlation <= 1:
        raise ValueError(f"{answers} answers with likeness {correlation} are no plan")
    each = answers / (1 + (answers - 1) * correlation)

    def enough(listeners: int) -> bool:
        return _binomial_power(int(listeners * each), expected, alpha, alternative) >= power

    return _smallest_count(enough, max_listeners)


def listeners_for_ratings(
    difference: float,
    standard_deviation: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    max_listeners: int = 10_000,
) -> int | None:
    """Smallest number of listeners that finds a difference between two conditions' ratings.

    By the noncentral t of paired differences, divided by the Wilcoxon test's least asymptotic
    efficiency, 0.864 (Hodges & Lehmann 1956), for ratings are hardly ever normal.

    Parameters
    ----------
    difference : float
        That would be worth finding, in points of the scale.
    standard_deviation : float
        Standard deviation, from listener to listener, of that difference.
    """
    _check_power_settings(power, alpha)
    if standard_deviation <= 0 or difference == 0:
        raise ValueError(f"a difference of {difference} with a spread of {standard_deviation} is no plan")

    def enough(listeners: int) -> bool:
        worth = listeners * 0.864
        if worth < 2:
            return False
        limit = stats.t.isf(alpha / 2, worth - 1)
        shift = abs(difference) / standard_deviation * np.sqrt(worth)
        return bool(stats.nct.sf(limit, worth - 1, shift) >= power)

    return _smallest_count(enough, max_listeners)


def holm_adjust(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities [test] made larger so that all of them may be read at once (Holm 1979).

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted


def _binomial_power(total: int, expected: float, alpha: float, alternative: str) -> float:
    if total == 0:
        return 0.0
    counts = np.arange(total + 1)
    upper = stats.binom.sf(counts - 1, total, 0.5)
    tail = upper if alternative == "greater" else 2 * np.minimum(upper, upper[::-1])
    found = tail <= alpha
    return float(stats.binom.pmf(counts, total, expected)[found].sum())


def _smallest_count(enough: Callable[[int], bool], maximum: int) -> int | None:
    """Smallest number from which on `enough` holds; its teeth are fewer than a tenth apart."""
    top = 1
    while not enough(top):
        top *= 2
        if top > maximum:
            return None
    top = min(maximum, 2 * top + 20)
    while top > 1 and enough(top - 1):
        top -= 1
    return top


def _check_power_settings(power: float, alpha: float) -> None:
    if not 0 < power < 1 or not 0 < alpha < 1:
        raise ValueError(f"a power of {power} at a level of {alpha} is no plan")
