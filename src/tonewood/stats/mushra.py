"""Analysis of MUSHRA ratings, 0 to 100, of several conditions of one sound (ITU-R BS.1534-3)."""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tonewood.errors import MissingExtraError
from tonewood.stats.proportions import holm_adjust
from tonewood.utils.arrays import FloatArray

# Post-screening of listeners, BS.1534-3, 4.1.2; the share of failed listeners is ours.
MIN_REFERENCE_RATING, MAX_ANCHOR_RATING, MAX_FAILED_TRIALS, MAX_FAILED_LISTENERS = 90.0, 90.0, 0.15, 0.25


class ConditionMedian(NamedTuple):
    """Median of a condition with its 95 % interval, and quartiles of all ratings.

    Each listener counts once, by the mean of its ratings. The interval is None for too few
    listeners.
    """

    listeners: int
    median: float
    low: float | None
    high: float | None
    quarter: float
    three_quarters: float


class ConditionDifference(NamedTuple):
    """Two conditions compared over listeners by Wilcoxon's signed-rank test."""

    first: int
    second: int
    median: float
    p: float
    p_holm: float


class FriedmanTest(NamedTuple):
    """Friedman's test of all conditions, with listeners as blocks."""

    statistic: float
    p: float


class MixedEffect(NamedTuple):
    """Difference of a condition from the first, by a mixed model, with its 95 % interval."""

    condition: int
    estimate: float
    low: float
    high: float
    p: float


def find_unreliable_listeners(
    ratings: FloatArray, reference: int, anchor: int | None = None
) -> NDArray[np.bool_]:
    """Return a mask of the listeners [listener] to exclude (BS.1534-3, 4.1.2).

    These rate the hidden reference below 90, or the mid-range anchor above 90, on more than 15 %
    of the trials. Trials whose anchor more than a quarter of the listeners rate above 90 do not
    count: there the anchor is hardly audible.

    Parameters
    ----------
    ratings : array [listener, trial, condition]
        NaN where nothing was rated.
    reference, anchor : int
        Conditions that are the hidden reference and the mid-range anchor.
    """
    hidden = ratings[:, :, reference]
    excluded = _true_fraction(hidden < MIN_REFERENCE_RATING, ~np.isnan(hidden)) > MAX_FAILED_TRIALS
    if anchor is not None:
        low = ratings[:, :, anchor]
        is_rated = ~np.isnan(low)
        failed = low > MAX_ANCHOR_RATING
        most = MAX_FAILED_LISTENERS * np.maximum(1, is_rated.sum(axis=0))
        counts = failed.sum(axis=0) <= most
        excluded |= _true_fraction(failed & counts, is_rated & counts) > MAX_FAILED_TRIALS
    return excluded


def _true_fraction(mask: NDArray[np.bool_], valid: NDArray[np.bool_]) -> FloatArray:
    fraction: FloatArray = (mask & valid).sum(axis=1) / np.maximum(1, valid.sum(axis=1))
    return fraction


def listener_means(ratings: FloatArray) -> FloatArray:
    """Return mean ratings [listener, condition] of those who rated all conditions."""
    is_rated = ~np.isnan(ratings)
    number = is_rated.sum(axis=1)
    complete = (number > 0).all(axis=1)
    # Those who skipped a condition would shift the paired comparisons.
    means: FloatArray = np.where(is_rated, ratings, 0.0).sum(axis=1)[complete] / number[complete]
    return means


def condition_medians(ratings: FloatArray) -> list[ConditionMedian]:
    """Return the median of each condition of ratings [listener, trial, condition]."""
    means = listener_means(ratings)
    medians = []
    for condition in range(ratings.shape[2]):
        values = ratings[:, :, condition]
        quarter, upper = np.quantile(values[~np.isnan(values)], [0.25, 0.75])
        low, high = median_interval(means[:, condition])
        middle = float(np.median(means[:, condition]))
        medians.append(ConditionMedian(len(means), middle, low, high, float(quarter), float(upper)))
    return medians


def median_interval(values: FloatArray) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a median between order statistics; None for fewer than six values.

    Interpolated (Hettmansperger & Sheather 1986).
    """
    count = len(values)
    ordered = np.sort(values)
    # The narrowest pair of order statistics with at least 95 %.
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
    """Return the confidence of the interval between the depth-th smallest and largest value."""
    return float(1 - 2 * stats.binom.cdf(depth - 1, count, 0.5))


def friedman_test(ratings: FloatArray) -> FriedmanTest | None:
    """Return Friedman's test of ratings [listener, trial, condition].

    None for fewer than two listeners or three conditions, or where all ratings are equal.
    """
    means = listener_means(ratings)
    if len(means) < 2 or means.shape[1] < 3 or (np.ptp(means, axis=1) == 0).all():
        return None
    # Ranks within a listener do not depend on the part of the scale that this listener uses.
    result = stats.friedmanchisquare(*means.T)
    return FriedmanTest(float(result.statistic), float(result.pvalue))


def compare_conditions(ratings: FloatArray) -> list[ConditionDifference]:
    """Compare every two conditions of ratings [listener, trial, condition], with Holm's correction."""
    means = listener_means(ratings)
    pairs = list(combinations(range(ratings.shape[2]), 2))
    gaps = [means[:, i] - means[:, j] for i, j in pairs]
    medians = [float(np.median(gap)) if len(gap) else 0.0 for gap in gaps]
    p_values = [_wilcoxon_p(gap) for gap in gaps]
    adjusted = holm_adjust(np.array(p_values))
    return [
        ConditionDifference(i, j, median, p, float(p_holm))
        for (i, j), median, p, p_holm in zip(pairs, medians, p_values, adjusted, strict=True)
    ]


def _wilcoxon_p(gap: FloatArray) -> float:
    if not gap.any():
        return 1.0
    # The exact distribution exists only without ties, and is slow for many listeners.
    is_tied = len(np.unique(np.abs(gap))) < len(gap) or not gap.all()
    method = "exact" if not is_tied and len(gap) <= 50 else "approx"
    # Pratt keeps zero differences: without them the agreement of listeners would be overstated.
    return float(stats.wilcoxon(gap, zero_method="pratt", method=method).pvalue)


def fit_mixed_effects(ratings: FloatArray) -> list[MixedEffect]:
    """Fit differences from the first condition, with random listeners and trials.

    MissingExtraError if statsmodels is not installed.
    """
    try:
        from statsmodels.regression.mixed_linear_model import MixedLM
    except ImportError:
        raise MissingExtraError("mixed effects need statsmodels: pip install '.[stats]'") from None
    import warnings

    listener, trial, condition = np.nonzero(~np.isnan(ratings))
    values = ratings[listener, trial, condition]
    count = ratings.shape[2]
    # Treatment coding: the first column is the mean of the first condition.
    design = np.eye(count)[condition]
    design[:, 0] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance of 0 is a valid estimate, not a fault
        model = MixedLM(
            values,
            design,
            groups=np.zeros(len(values)),  # one group: crossed effects are variance components
            exog_vc=_crossed_random_effects(listener, trial),
        )
        fit = model.fit(reml=True)
    ends = np.asarray(fit.conf_int())
    return [
        MixedEffect(k, float(fit.fe_params[k]), float(ends[k, 0]), float(ends[k, 1]), float(fit.pvalues[k]))
        for k in range(1, count)
    ]


def _crossed_random_effects(listener: NDArray[np.integer[Any]], trial: NDArray[np.integer[Any]]) -> object:
    from statsmodels.regression.mixed_linear_model import VCSpec

    names = ["listener", "trial"]
    indicators = [np.eye(int(index.max()) + 1)[index] for index in (listener, trial)]
    labels = [
        [f"{name}{k}" for k in range(indicator.shape[1])]
        for name, indicator in zip(names, indicators, strict=True)
    ]
    return VCSpec(names, [[label] for label in labels], [[indicator] for indicator in indicators])
