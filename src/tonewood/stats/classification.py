"""Classify two groups of recordings by a few features each, and give the result an interval.

Linear discriminants with cross-validation, a permutation statistic, and intervals of shares
(Wilson) and means (bootstrap).
"""

from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.setting_types import Settings
from tonewood.utils.arrays import FloatArray

BOOTSTRAP_DRAWS = 10_000
_FOLDS, _CONFIDENCE = 10, 0.95
_SHRINKAGE = 0.1  # keeps the covariance invertible with more features than recordings


class Accuracy(Settings):
    """Balanced accuracy on held-out recordings, and its 95 % interval."""

    mean: float
    low: float
    high: float


class BootstrapInterval(NamedTuple):
    """A mean and its 95 % interval over other samples; None for a single value."""

    mean: float
    low: float | None
    high: float | None


def hotelling_t(values: FloatArray, shuffles: NDArray[np.int64], first_count: int) -> FloatArray:
    """Return Hotelling's T [shuffle] between the first `first_count` recordings and the rest.

    The recordings of values [recording, feature] are taken in each order of shuffles
    [shuffle, recording].
    """
    n, d = values.shape
    centred = values - values.mean(axis=0)
    scatter = centred.T @ centred
    statistics = []
    # Split so that the covariances of all shuffles never exist at once.
    for orders in np.array_split(shuffles, max(1, shuffles.size * d // 2**22)):
        first_mean = centred[orders[:, :first_count]].mean(axis=1)
        gap = first_mean * (n / (n - first_count))  # the weighted means of both groups sum to 0
        weight = first_count * (n - first_count) / n
        # Within = total - between: no shuffle has to be centred.
        within = (scatter - weight * gap[:, :, None] * gap[:, None, :]) / (n - 2)
        within = within + _SHRINKAGE / n * np.trace(scatter) / (n * d) * np.eye(d)
        solved = np.linalg.solve(within, gap[:, :, None])[:, :, 0]
        statistics.append(np.sqrt(np.maximum(0.0, weight * (gap * solved).sum(axis=1))))
    return np.concatenate(statistics)


def stratified_folds(is_source: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the fold [recording] of each recording, with both sides in every fold."""
    # No more folds than recordings of the smaller side, or some folds would lack it.
    fold = np.zeros(len(is_source), dtype=np.int64)
    count = max(1, min(_FOLDS, int(is_source.sum()), int((~is_source).sum())))
    for side in (is_source, ~is_source):
        fold[side] = rng.permutation(int(side.sum())) % count
    return fold


def lda_cross_validate(
    values: FloatArray, is_source: NDArray[np.bool_], folds: NDArray[Any], shrinkage: float = 0.01
) -> FloatArray:
    """Return whether each row [row] of values [row, feature] is classified right, held out by fold.

    Linear discriminant analysis with equal priors; a tie counts 0.5.
    """
    correct = np.full(len(values), 0.5)
    for fold in np.unique(folds):
        train, held_out = folds != fold, folds == fold
        sides = [values[train & side] for side in (~is_source, is_source)]
        if not all(len(side) for side in sides):
            continue
        means = [side.mean(axis=0) for side in sides]
        centred = np.concatenate([s - m for s, m in zip(sides, means, strict=True)])
        within = centred.T @ centred / len(centred)
        d = values.shape[1]
        within = within + (shrinkage * np.trace(within) / max(d, 1) + 1e-12) * np.eye(d)
        direction = np.linalg.solve(within, means[1] - means[0])
        side_of = np.sign((values[held_out] - (means[0] + means[1]) / 2) @ direction)
        correct[held_out] = 0.5 + 0.5 * side_of * np.where(is_source[held_out], 1.0, -1.0)
    return correct


def balanced_accuracy(correct: FloatArray, is_source: NDArray[np.bool_]) -> Accuracy:
    """Return the mean of both sides' accuracies, from correct [recording], with its interval.

    Wilson's intervals of both sides are joined by the method of variance estimates recovery (Zou &
    Donner 2008). The result is wider than 0 even if all are right.
    """
    squares, means = np.zeros(2), []
    for side in (~is_source, is_source):
        mean = float(correct[side].mean())
        low, high = wilson_interval(mean, int(side.sum()))
        squares += np.square([mean - low, high - mean])
        means.append(mean)
    centre = sum(means) / 2
    below, above = np.sqrt(squares) / 2
    return Accuracy(mean=centre, low=max(0.0, centre - below), high=min(1.0, centre + above))


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval (1927) of a share of `count` observations."""
    z = float(NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2))
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return min(share, float(centre - spread)), max(share, float(centre + spread))


def bootstrap_interval(
    values: FloatArray, rng: np.random.Generator, draws: int = BOOTSTRAP_DRAWS
) -> BootstrapInterval:
    """Return the mean of values [item] with its percentile bootstrap interval (Efron 1979).

    For a paired difference between two methods, pass the differences of the items.

    Examples
    --------
    >>> bootstrap_interval(np.array([1.0, 1.0, 1.0]), np.random.default_rng(0))
    BootstrapInterval(mean=1.0, low=1.0, high=1.0)
    """
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return BootstrapInterval(mean, None, None)
    means = values[rng.integers(count, size=(draws, count))].mean(axis=1)
    # Percentiles of few items lie too close; this factor corrects their spread (Hesterberg 2015).
    wide = mean + (means - mean) * np.sqrt(count / (count - 1))
    low, high = np.quantile(wide, [0.025, 0.975])
    return BootstrapInterval(mean, float(low), float(high))
