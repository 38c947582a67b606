import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tonewood.mask.search import compute_objective
from tonewood.settings import SearchSettings


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
    mask, anchor = rng.normal(0, 4, (3, 5)), rng.normal(0, 2, (3, 5))
    parts = compute_objective(
        torch.tensor(0.3, dtype=torch.float64),
        torch.from_numpy(mask),
        torch.from_numpy(anchor),
        SearchSettings(score=weight, alpha=alpha, beta=beta, guide=guide),
        None if energy is None else torch.tensor(energy, dtype=torch.float64),
    )
    distance = sum((m - a) ** 2 for m, a in zip(mask.flat, anchor.flat, strict=True)) / 15
    mean = sum(mask.flat) / 15
    variance = sum((m - mean) ** 2 for m in mask.flat) / 15
    assert parts.score.item() == 0.3
    assert parts.distance.item() == pytest.approx(distance)
    assert parts.variance.item() == pytest.approx(variance)
    total = weight * 0.3 + alpha * distance + beta * variance
    total += 2 * alpha * (guide or 0) * (energy or 0) / 15
    assert parts.total.item() == pytest.approx(total)


def test_constant_mask_has_no_variance_and_prior_no_distance() -> None:
    settings = SearchSettings(score=1, alpha=1, beta=1)
    flat = torch.full((4, 6), 3.0)
    parts = compute_objective(torch.tensor(0.5), flat, torch.zeros(4, 6), settings)
    assert parts.variance.item() == 0
    assert parts.distance.item() == 9
    at_prior = compute_objective(torch.tensor(0.5), flat, flat, settings)
    assert at_prior.distance.item() == 0
    assert at_prior.total.item() == 0.5


def test_objective_without_penalties_is_the_score() -> None:
    mask = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    parts = compute_objective(torch.tensor(0.7), mask, -mask, SearchSettings(score=1, alpha=0, beta=0))
    assert parts.total.item() == pytest.approx(0.7)


def test_gradient_of_the_penalties() -> None:
    """Of alpha mean (M - A)² + beta Var(M): 2 (alpha (M - A) + beta (M - mean M)) / cells."""
    generator = torch.Generator().manual_seed(0)
    mask, anchor = (torch.randn(3, 4, generator=generator) for _ in range(2))
    mask.requires_grad_()
    settings = SearchSettings(alpha=0.5, beta=0.25)
    compute_objective(torch.tensor(0.0), mask, anchor, settings).total.backward()  # type: ignore[no-untyped-call]
    expected = 2 / 12 * (0.5 * (mask - anchor) + 0.25 * (mask - mask.mean()))
    assert mask.grad is not None
    assert torch.allclose(mask.grad, expected, atol=1e-6)
