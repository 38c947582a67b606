import sys

import numpy as np
import pytest
from scipy import stats

from tonewood.errors import MissingExtraError
from tonewood.stats.mushra import (
    compare_conditions,
    condition_medians,
    find_unreliable_listeners,
    fit_mixed_effects,
    friedman_test,
    listener_means,
    median_interval,
)

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
LEVELS = np.array([95.0, 70.0, 55.0, 30.0])


def ratings(rng: np.random.Generator, listeners: int = 14, trials: int = 8) -> Array:
    own = rng.normal(0, 6, (listeners, 1, 1)) * np.array([0.1, 1, 1, 1])
    made = LEVELS + own + rng.normal(0, 6, (listeners, trials, 4)) * np.array([0.3, 1, 1, 1])
    return np.asarray(np.clip(made, 0, 100))


def test_post_screening_follows_the_standard(rng: np.random.Generator) -> None:
    given = ratings(rng, listeners=5, trials=20)
    given[:, :, 0], given[:, :, 3] = 95, 30
    given[1, :3, 0] = 80  # 15 % of the trials: not more than 15 %
    given[2, :4, 0] = 80
    given[3, :4, 3] = 95
    assert find_unreliable_listeners(given, 0, 3).tolist() == [False, False, True, True, False]
    assert find_unreliable_listeners(given, 0).tolist() == [False, False, True, False, False]
    given[:, :4, 3] = 95  # where everybody does, the anchor was no anchor
    assert find_unreliable_listeners(given, 0, 3).tolist() == [False, False, True, False, False]
    given[2, 4:] = np.nan
    assert find_unreliable_listeners(given, 0)[2]


def test_medians_are_over_listener_means(rng: np.random.Generator) -> None:
    given = ratings(rng)
    found = condition_medians(given)
    for it, level in zip(found, LEVELS, strict=True):
        assert it.listeners == 14
        assert it.low is not None
        assert it.high is not None
        assert it.low < it.median < it.high
        assert it.median == pytest.approx(level, abs=6)
        assert it.quarter < it.three_quarters
    given[0, :, 1] = np.nan
    assert len(listener_means(given)) == 13


def test_median_interval_covers_the_median() -> None:
    rng = np.random.default_rng(7)
    held = []
    for _ in range(300):
        low, high = median_interval(100 - rng.exponential(20, 15))
        assert low is not None
        assert high is not None
        held.append(low <= 100 - 20 * np.log(2) <= high)
    assert 0.92 <= np.mean(held) <= 0.98
    assert median_interval(np.arange(5.0)) == (None, None)
    assert median_interval(np.arange(6.0)) != (None, None)


def test_tests_detect_differences_and_only_those(rng: np.random.Generator) -> None:
    given = ratings(rng)
    found = friedman_test(given)
    assert found is not None
    assert found.p < 1e-6
    gaps = {(it.first, it.second): it for it in compare_conditions(given)}
    assert len(gaps) == 6
    assert gaps[1, 3].p_holm < 0.01
    assert gaps[1, 3].median == pytest.approx(40, abs=8)
    means = listener_means(given)
    assert gaps[1, 2].p == pytest.approx(stats.wilcoxon(means[:, 1], means[:, 2]).pvalue)
    same = np.repeat(given[:, :, :1], 3, axis=2)
    assert friedman_test(same) is None
    assert all(it.p_holm == 1 for it in compare_conditions(same))


def test_mixed_effects_recover_the_truth(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    own, piece = rng.normal(0, 8, (14, 1, 1)), rng.normal(0, 5, (1, 9, 1))
    given = LEVELS * 0.5 + own + piece + rng.normal(0, 8, (14, 9, 4))
    given[0, 0, 1] = np.nan
    found = fit_mixed_effects(given)
    assert [it.condition for it in found] == [1, 2, 3]
    for it in found:
        assert it.low < it.estimate < it.high
        assert it.estimate == pytest.approx((LEVELS[it.condition] - LEVELS[0]) * 0.5, abs=4)
    monkeypatch.setitem(sys.modules, "statsmodels.regression.mixed_linear_model", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[stats\]'"):
        fit_mixed_effects(given)
