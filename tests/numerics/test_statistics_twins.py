"""Statistics of listeners and folders against their float64 twins."""

import numpy as np
from hypothesis import strategies as st

from campaigns.harness.numerics.law import SEEDS, law
from tests.numerics import references
from tests.numerics.sounds import Array
from tonewood.evaluation.metrics import Gaussian, frechet_distance
from tonewood.stats.bradley_terry import fit_strengths
from tonewood.stats.mushra import median_interval


def answers(seed: int, each: int, items: int) -> Array:
    """Wins [item, item] of items of random strengths."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(0, 1, items)
    wins = np.zeros((items, items))
    for i in range(items):
        for j in range(i):
            wins[i, j] = rng.binomial(each, 1 / (1 + np.exp(theta[j] - theta[i])))
            wins[j, i] = each - wins[i, j]
    return wins


@law(
    "Strengths (Bradley & Terry): the most of the penalised likelihood, by blind search",
    within=1e-6,
    unit="logits",
    examples=6,
    seed=SEEDS,
    each=st.integers(2, 30),
    items=st.integers(2, 4),
)
def test_strengths(seed: int, each: int, items: int) -> float:
    wins = answers(seed, each, items)
    return float(np.abs(fit_strengths(wins).strength - references.strengths(wins)).max())


@law(
    "Intervals of strengths: where the profile falls by half of χ² at 95 %",
    within=1e-3,
    unit="logits",
    examples=5,
    seed=SEEDS,
    each=st.integers(3, 30),
)
def test_intervals_of_strengths(seed: int, each: int) -> float:
    wins = answers(seed, each, 3)
    result = fit_strengths(wins)
    ends = [
        (result.low[item] if side < 0 else result.high[item]) - references.strength_end(wins, item, side)
        for item in range(3)
        for side in (-1.0, 1.0)
    ]
    return float(np.abs(ends).max())


@law(
    "Intervals of MUSHRA medians: interpolated order statistics",
    within=1e-9,
    unit="points",
    examples=30,
    seed=SEEDS,
    count=st.integers(7, 60),
)
def test_median_intervals(seed: int, count: int) -> float:
    values = np.random.default_rng(seed).uniform(0, 100, count)
    output, slow = median_interval(values), references.median_interval(values)
    return max(abs((a if a is not None else np.inf) - b) for a, b in zip(output, slow, strict=True))


@law(
    "Fréchet distance: Gaussians of common axes, by their spreads",
    within=1e-9,
    unit="of the distance",
    examples=20,
    seed=SEEDS,
    features=st.integers(1, 32),
)
def test_frechet_distance(seed: int, features: int) -> float:
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((features, features)))[0]
    a, b = rng.uniform(0, 3, (2, features))
    shift = rng.standard_normal(features)
    gaussians = (
        Gaussian(mean, rotation @ np.diag(spread**2) @ rotation.T)
        for mean, spread in ((np.zeros(features), a), (shift, b))
    )
    slow = references.frechet(a, b, shift)
    return abs(frechet_distance(*gaussians) - slow) / slow
