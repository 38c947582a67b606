"""Ratings from 0 to 100 of several conditions of one sound (MUSHRA, ITU-R BS.1534-3)."""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tonewood.errors import MissingExtraError
from tonewood.stats.proportions import holm_adjust
from tonewood.utils.arrays import FloatArray

MIN_REFERENCE_RATING, MAX_ANCHOR_RATING, MAX_FAILED_TRIALS, MAX_FAILED_LISTENERS = (
    90.0,
    90.0,
    0.15,
    0.25,
)


class ConditionMedian(NamedTuple):
    """A condition: median over listeners with its 95 % interval, and quartiles of all ratings.

    Each listener counts once, by the mean of its ratings. Where listeners are too few for an
    interval it is None.
    """

    listeners: int
    median: float
    low: float | None
    high: float | None
    quarter: float
    three_quarters: float


class ConditionDifference(NamedTuple):
    """Two conditions compared listener by listener, by Wilcoxon's signed ranks."""

    first: int
    second: int
    median: float
    p: float
    p_holm: float


class FriedmanTest(NamedTuple):
    """Whether the conditions differ at all, listeners being the blocks."""

    statistic: float
    p: float


class MixedEffect(NamedTuple):
    """A condition less the first, of a mixed model, with its 95 % interval."""

    condition: int
    estimate: float
    low: float
    high: float
    p: float


def find_unreliable_listeners(
    ratings: FloatArray, reference: int, anchor: int | None = None
) -> NDArray[np.bool_]:
    """Who is left out [listener] (BS.1534-3, 4.1.2).

    Who rates the hidden reference below 90, or the mid-range anchor above 90, on more than 15 %
    of the trials. A trial whose anchor more than a quarter of the listeners rate above 90 is
    not held against anyone: there the filter took little away.

    Parameters
    ----------
    ratings : array [listener, trial, condition]
        From 0 to 100; NaN where nothing was rated.
    reference, anchor : int
        Conditions: the hidden reference, the mid-range anchor.
    """
    hidden = ratings[:, :, reference]
    out = _true_fraction(hidden < MIN_REFERENCE_RATING, ~np.isnan(hidden)) > MAX_FAILED_TRIALS
    if anchor is not None:
        low = ratings[:, :, anchor]
        heard = ~np.isnan(low)
        missed = low > MAX_ANCHOR_RATING
        harmless = missed.sum(axis=0) > MAX_FAILED_LISTENERS * np.maximum(1, heard.sum(axis=0))
        out |= _true_fraction(missed & ~harmless, heard & ~harmless) > MAX_FAILED_TRIALS
    return out


def _true_fraction(of: NDArray[np.bool_], among: NDArray[np.bool_]) -> FloatArray:
    share: FloatArray = (of & among).sum(axis=1) / np.maximum(1, among.sum(axis=1))
    return share


def listener_means(ratings: FloatArray) -> FloatArray:
    """Mean rating [listener, condition] over trials; who rated not all conditions is left out."""
    counted = ~np.isnan(ratings)
    number = counted.sum(axis=1)
    whole = (number > 0).all(axis=1)
    means: FloatArray = np.where(counted, ratings, 0.0).sum(axis=1)[whole] / number[whole]
    return means


def condition_medians(ratings: FloatArray) -> list[ConditionMedian]:
    """Median of each condition of ratings [listener, trial, condition]."""
    means = listener_means(ratings)
    found = []
    for condition in range(ratings.shape[2]):
        own = ratings[:, :, condition]
        every = own[~np.isnan(own)]
        quarter, upper = np.quantile(every, [0.25, 0.75])
        low, high = median_interval(means[:, condition])
        middle = float(np.median(means[:, condition]))
        found.append(ConditionMedian(len(means), middle, low, high, float(quarter), float(upper)))
    return found


def median_interval(values: FloatArray) -> tuple[float | None, float | None]:
    """95 % interval of the median, between order statistics (Hettmansperger & Sheather 1986).

    Fewer than six values bound no median with so much confidence.
    """
    count = len(values)
    ordered = np.sort(values)
    depth = int(stats.binom.ppf(0.025, count, 0.5))
    while depth > 0 and _interval_confidence(depth, count) < 0.95:
        depth -= 1
    if depth == 0:
        return None, None
    outer, inner = _interval_confidence(depth, count), _interval_confidence(depth + 1, count)
    part = (outer - 0.95) / (outer - inner)
    weight = (count - depth) * part / (depth + (count - 2 * depth) * part)
    low = (1 - weight) * ordered[depth - 1] + weight * ordered[depth]
    high = (1 - weight) * ordered[count - depth] + weight * ordered[count - depth - 1]
    return float(low), float(high)


def _interval_confidence(depth: int, count: int) -> float:
    """Confidence of the interval between the depth-th smallest and largest of so many."""
    return float(1 - 2 * stats.binom.cdf(depth - 1, count, 0.5))


def friedman_test(ratings: FloatArray) -> FriedmanTest | None:
    """Friedman's test of ratings [listener, trial, condition]; None for what it cannot be asked."""
    means = listener_means(ratings)
    if len(means) < 2 or means.shape[1] < 3 or (np.ptp(means, axis=1) == 0).all():
        return None
    found = stats.friedmanchisquare(*means.T)
    return FriedmanTest(float(found.statistic), float(found.pvalue))


def compare_conditions(ratings: FloatArray) -> list[ConditionDifference]:
    """Every two conditions of ratings [listener, trial, condition] compared, corrected by Holm."""
    means = listener_means(ratings)
    pairs = list(combinations(range(ratings.shape[2]), 2))
    raw, gaps = [], []
    for i, j in pairs:
        gap = means[:, i] - means[:, j]
        gaps.append(float(np.median(gap)) if len(gap) else 0.0)
        raw.append(_wilcoxon_p(gap))
    corrected = holm_adjust(np.array(raw))
    return [
        ConditionDifference(i, j, gap, p, float(ph))
        for (i, j), gap, p, ph in zip(pairs, gaps, raw, corrected, strict=True)
    ]


def _wilcoxon_p(gap: FloatArray) -> float:
    if not gap.any():
        return 1.0
    # Exact for few without ties; permutations of signs are what ties leave of exactness.
    tied = len(np.unique(np.abs(gap))) < len(gap) or not gap.all()
    method = "exact" if not tied and len(gap) <= 50 else "approx"
    return float(stats.wilcoxon(gap, zero_method="pratt", method=method).pvalue)


def fit_mixed_effects(ratings: FloatArray) -> list[MixedEffect]:
    """Conditions less the first, by a mixed model: listeners and trials are drawn at random.

    Raises
    ------
    MissingExtraError
        statsmodels is not installed.
    """
    try:
        from statsmodels.regression.mixed_linear_model import MixedLM
    except ImportError:
        raise MissingExtraError("mixed effects need statsmodels: pip install '.[stats]'") from None
    import warnings

    listener, trial, condition = np.nonzero(~np.isnan(ratings))
    values = ratings[listener, trial, condition]
    count = ratings.shape[2]
    fixed = np.eye(count)[condition]
    fixed[:, 0] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance of 0 is an answer, not a fault
        model = MixedLM(
            values,
            fixed,
            groups=np.zeros(len(values)),
            exog_vc=_crossed_random_effects(listener, trial),
        )
        made = model.fit(reml=True)
    ends = np.asarray(made.conf_int())
    return [
        MixedEffect(k, *(float(it) for it in (made.fe_params[k], *ends[k], made.pvalues[k])))
        for k in range(1, count)
    ]


def _crossed_random_effects(listener: NDArray[np.integer[Any]], trial: NDArray[np.integer[Any]]) -> object:
    from statsmodels.regression.mixed_linear_model import VCSpec

    indicator = [np.eye(int(of.max()) + 1)[of] for of in (listener, trial)]
    names = ["listener", "trial"]
    labels = [[f"{name}{k}" for k in range(it.shape[1])] for name, it in zip(names, indicator, strict=True)]
    return VCSpec(names, [[label] for label in labels], [[it] for it in indicator])
