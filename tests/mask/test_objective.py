import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonewood.mask.search import EnergyFunction, Objective, SearchProblem
from tonewood.settings import SearchSettings
from tonewood.utils.arrays import Levels


class ConstantScore:
    """Score that no mask changes."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, windows: Levels) -> Levels:
        return np.full(len(windows), self.value, np.float32)

    def gradient(self, windows: Levels) -> Levels:
        return np.zeros_like(windows)


def evaluate(
    score: float,
    mask: Levels,
    anchor: Levels,
    settings: SearchSettings,
    guide_energy: EnergyFunction | None = None,
) -> Objective:
    """Return the objective of a mask on a recording of 0 dB."""
    problem = SearchProblem(
        ConstantScore(score), np.zeros_like(mask), anchor, settings, 100, 60.0, guide_energy
    )
    return Objective(problem, mask, [0])


@given(
    weight=st.floats(0, 3),
    alpha=st.floats(0, 2),
    beta=st.floats(0, 2),
    guide=st.one_of(st.none(), st.floats(0, 3)),
    energy=st.one_of(st.none(), st.floats(-50, 50)),
    seed=st.integers(0, 50),
)
def test_objective_equals_the_formula(
    weight: float,
    alpha: float,
    beta: float,
    guide: float | None,
    energy: float | None,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    mask, anchor = (rng.normal(0, spread, (3, 5)).astype(np.float32) for spread in (4, 2))
    settings = SearchSettings(score=weight, alpha=alpha, beta=beta, guide=guide)
    guide_energy = None if energy is None else lambda rows: (energy, np.ones_like(rows))
    parts = evaluate(0.25, mask, anchor, settings, guide_energy)
    values, anchors = mask.ravel().astype(float), anchor.ravel().astype(float)
    distance = sum((m - a) ** 2 for m, a in zip(values, anchors, strict=True)) / 15
    mean = sum(values) / 15
    variance = sum((m - mean) ** 2 for m in values) / 15
    assert parts.score == 0.25
    assert parts.distance == pytest.approx(distance, rel=1e-5)
    assert parts.variance == pytest.approx(variance, rel=1e-5)
    total = weight * 0.25 + alpha * distance + beta * variance
    total += 2 * alpha * (guide or 0) * (energy or 0) / 15
    assert parts.total == pytest.approx(total, rel=1e-5, abs=1e-5)


def test_constant_mask_has_no_variance_and_prior_no_distance() -> None:
    settings = SearchSettings(score=1, alpha=1, beta=1)
    flat = np.full((4, 6), 3, np.float32)
    parts = evaluate(0.5, flat, np.zeros_like(flat), settings)
    assert parts.variance == 0
    assert parts.distance == 9
    at_prior = evaluate(0.5, flat, flat, settings)
    assert at_prior.distance == 0
    assert at_prior.total == 0.5


def test_objective_without_penalties_is_the_score() -> None:
    mask = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    parts = evaluate(0.7, mask, -mask, SearchSettings(score=1, alpha=0, beta=0))
    assert parts.total == pytest.approx(0.7)
    assert (parts.gradient == 0).all()


def test_gradient_of_the_penalties() -> None:
    """Of alpha mean (M - A)² + beta Var(M): 2 (alpha (M - A) + beta (M - mean M)) / cells."""
    mask, anchor = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    parts = evaluate(0.0, mask, anchor, SearchSettings(alpha=0.5, beta=0.25, guide=0))
    expected = 2 / 12 * (0.5 * (mask - anchor) + 0.25 * (mask - mask.mean()))
    assert np.allclose(parts.gradient, expected, atol=1e-6)


@given(error_db=st.floats(-40, 40), limit_db=st.floats(0, 20))
def test_feedback_corrects_a_cell_up_to_the_limit(error_db: float, limit_db: float) -> None:
    mask = np.zeros((3, 5), np.float32)
    problem = SearchProblem(
        ConstantScore(0.0), mask, mask, SearchSettings(), 100, 60.0,
        render_feedback=lambda mask_db: mask_db + np.float32(error_db), max_feedback_db=limit_db,
    )  # fmt: skip
    assert np.allclose(problem.achieved_gain(mask), min(max(error_db, -limit_db), limit_db), atol=1e-4)
