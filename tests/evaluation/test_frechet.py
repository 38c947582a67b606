import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from tonewood.evaluation.metrics import (
    MIN_STRETCHES,
    Gaussian,
    extrapolate_frechet_distance,
    fit_gaussian,
    frechet_distance,
)

Floats = NDArray[np.float64]


def random_gaussian(features: int, rng: np.random.Generator, shift: float = 0.0) -> Gaussian:
    root = rng.standard_normal((features, features)) / np.sqrt(features)
    return Gaussian(np.full(features, shift), root @ root.T + 0.3 * np.eye(features))


def points(of: Gaussian, count: int, rng: np.random.Generator) -> list[Floats]:
    """Return stretches of one point each."""
    drawn = rng.multivariate_normal(of.mean, of.covariance, size=count)
    return [point[None] for point in drawn]


def test_frechet_distance_equals_the_formula(rng: np.random.Generator) -> None:
    a, b = random_gaussian(5, rng), random_gaussian(5, rng, 0.4)
    root = sqrtm(a.covariance @ b.covariance).real
    slow = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(slow, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(slow, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_shift_and_scale() -> None:
    one, four = np.eye(3), 4 * np.eye(3)
    unit = Gaussian(np.zeros(3), one)
    assert frechet_distance(unit, Gaussian(np.full(3, 2.0), one)) == pytest.approx(12)
    assert frechet_distance(unit, Gaussian(np.zeros(3), four)) == pytest.approx(3)


def test_gaussian_has_the_moments_of_the_points(rng: np.random.Generator) -> None:
    fitted = fit_gaussian(np.array([[0.0, 1.0], [2.0, 1.0]]))
    assert fitted.mean.tolist() == [1, 1]
    assert fitted.covariance.tolist() == [[2, 0], [0, 0]]


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_extrapolation_removes_the_bias_of_few_points(shift: float) -> None:
    rng = np.random.default_rng(5)
    a, b = random_gaussian(16, rng), random_gaussian(16, rng, shift)
    b = a if shift == 0 else b
    true = frechet_distance(a, b)
    estimates = [extrapolate_frechet_distance(points(a, 60, rng), points(b, 60, rng), rng) for _ in range(12)]
    plain = np.mean([item.plain for item in estimates]) - true
    better = np.mean([item.distance for item in estimates]) - true
    error = np.std([item.distance for item in estimates], ddof=1)
    assert plain > 2
    assert abs(better) < 0.25 * plain
    assert 0.4 * error < np.mean([item.error for item in estimates]) < 3 * error


def test_extrapolation_is_reproducible_with_few_stretches() -> None:
    rng = np.random.default_rng(1)
    a, b = (list(rng.standard_normal((MIN_STRETCHES, 50, 3))) for _ in range(2))
    first, second = (
        extrapolate_frechet_distance(a, [stretch + 1 for stretch in b], np.random.default_rng(3))
        for _ in range(2)
    )
    assert first == second
    assert first.distance == pytest.approx(3, abs=1.5)
