"""Fréchet distance between two folders' features, which need no pairs: plain functions on arrays.

Fréchet distance of the Gaussians that fit both clouds of points (Dowson & Landau 1982; for audio,
Kilgour et al. 2019). Estimated from few recordings it comes out too large, by about 1 / their
number: so it is estimated from parts of what there is too, and the line through those against
1 / share is followed to where the data would be endless (Chong & Forsyth 2020; for audio, Gui et
al. 2024). Parts are drawn by stretches, since the frames of one stretch are no independent draws.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

MIN_STRETCHES = 6
_FRACTIONS = (1 / 2, 3 / 5, 3 / 4, 1.0)
_DRAWS = 24


class Gaussian(NamedTuple):
    """Mean [feature] and covariance [feature, feature] of a cloud of points."""

    mean: FloatArray
    covariance: FloatArray


class FrechetEstimate(NamedTuple):
    """A Fréchet distance, in the square of the features' unit.

    Parameters
    ----------
    distance : float
        Extrapolated to endless data. As an unbiased estimate of what may be 0 it may come out
        a little below 0.
    error : float
        Its standard error: the spread of the distances from half of the stretches
        (delete-d jackknife, Shao & Wu 1989, d one half).
    plain : float
        From all there is, its bias left in.
    """

    distance: float
    error: float
    plain: float


def fit_gaussian(points: FloatArray) -> Gaussian:
    """Fit points [point, feature].

    The covariance is the plain one: one shrunk towards a sphere (Ledoit & Wolf 2004) bends the
    line that `extrapolate_frechet_distance` follows, and of a bias of 2.5 leaves 1.6 where this leaves 0.2 of 4.9
    (equal Gaussians of 32 features, 120 points each: `benchmarks/frechet.py`).
    """
    return Gaussian(points.mean(axis=0), np.cov(points, rowvar=False))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), in the square of the features' unit."""
    # Σ_a Σ_b has the eigenvalues of the symmetric Σ_a^½ Σ_b Σ_a^½.
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ b.covariance @ root)
    apart = float(np.square(a.mean - b.mean).sum())
    spread = float(np.trace(a.covariance) + np.trace(b.covariance))
    return apart + spread - 2 * float(np.sqrt(mixed.clip(0)).sum())


def extrapolate_frechet_distance(a: Sequence[FloatArray], b: Sequence[FloatArray], rng: np.random.Generator) -> FrechetEstimate:
    """Fréchet distance between two folders, its dependence on their size taken off.

    Parameters
    ----------
    a, b : sequences of arrays [point, feature]
        Stretches of the folders' recordings, `MIN_STRETCHES` of each at least.
    rng : Generator
        Draws the parts.
    """
    assert min(len(a), len(b)) >= MIN_STRETCHES
    drawn = [
        np.array([_subset_distance(a, b, share, rng) for _ in range(_DRAWS if share < 1 else 1)])
        for share in _FRACTIONS
    ]
    means = [float(distances.mean()) for distances in drawn]
    # Sizes are rounded to whole stretches: what counts is the share that was really drawn.
    scarcity = [0.5 * (len(a) / _subset_size(a, s) + len(b) / _subset_size(b, s)) for s in _FRACTIONS]
    endless = float(np.polynomial.Polynomial.fit(scarcity, means, 1)(0.0))
    return FrechetEstimate(endless, float(drawn[0].std(ddof=1)), means[-1])


def _subset_distance(
    a: Sequence[FloatArray], b: Sequence[FloatArray], fraction: float, rng: np.random.Generator
) -> float:
    parts = (
        np.concatenate([side[i] for i in rng.permutation(len(side))[: _subset_size(side, fraction)]])
        for side in (a, b)
    )
    return frechet_distance(*map(fit_gaussian, parts))


def _subset_size(side: Sequence[FloatArray], fraction: float) -> int:
    return round(fraction * len(side))
