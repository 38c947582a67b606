"""Classification statistics against explicit formulas and published tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tonewood.stats.classification import (
    balanced_accuracy,
    hotelling_t,
    lda_cross_validate,
    stratified_folds,
    wilson_interval,
)


def labels(reference: int, source: int) -> NDArray[np.bool_]:
    return np.arange(reference + source) >= reference


def test_wilson_at_known_points() -> None:
    # Newcombe (1998), table I.
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0 / 20, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.randoms(use_true_random=False))
def test_accuracy_interval_contains_the_accuracy(reference: int, source: int, random: object) -> None:
    correct = np.random.default_rng(reference * source).choice([0.0, 0.5, 1.0], reference + source)
    result = balanced_accuracy(correct, labels(reference, source))
    assert 0 <= result.low <= result.mean + 1e-12
    assert result.mean - 1e-12 <= result.high <= 1


def test_more_recordings_narrow_the_accuracy_interval() -> None:
    few, many = (balanced_accuracy(np.ones(2 * n), labels(n, n)) for n in (5, 50))
    assert few.mean == many.mean == 1
    assert few.low < many.low < 1


def test_hotelling_equals_the_explicit_formula(rng: np.random.Generator) -> None:
    values = rng.standard_normal((14, 3))
    shuffles = np.stack([rng.permutation(14) for _ in range(5)])
    result = hotelling_t(values, shuffles, 6)
    whole = values - values.mean(axis=0)
    ridge = 0.1 / 14 * np.square(whole).sum() / (14 * 3)
    for shuffle, t in zip(shuffles, result, strict=True):
        first, rest = whole[shuffle[:6]], whole[shuffle[6:]]
        gap = first.mean(axis=0) - rest.mean(axis=0)
        within = sum((part - part.mean(axis=0)).T @ (part - part.mean(axis=0)) for part in (first, rest))
        pooled = within / 12 + ridge * np.eye(3)
        assert t == pytest.approx(np.sqrt(6 * 8 / 14 * gap @ np.linalg.inv(pooled) @ gap))


def test_folds_hold_both_sides(rng: np.random.Generator) -> None:
    is_source = labels(13, 25)
    folds = stratified_folds(is_source, rng)
    assert set(folds) == set(range(10))
    for fold in range(10):
        assert 1 <= (folds[~is_source] == fold).sum() <= 2
        assert 2 <= (folds[is_source] == fold).sum() <= 3


def test_held_out_rows_do_not_train_the_classifier(rng: np.random.Generator) -> None:
    # Each recording is a fold, with one feature that identifies it: memorizing would be right.
    is_source = labels(20, 20)
    identity = np.eye(40) * np.where(is_source, 1.0, -1.0)[:, None]
    correct = lda_cross_validate(identity, is_source, np.arange(40))
    assert correct.mean() < 0.6
    apart = rng.standard_normal((40, 2)) + 10 * is_source[:, None]
    assert lda_cross_validate(apart, is_source, np.arange(40)).all()
