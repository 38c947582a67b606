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
    listener_offset = rng.normal(0, 6, (listeners, 1, 1)) * np.array([0.1, 1, 1, 1])
    scores = LEVELS + listener_offset + rng.normal(0, 6, (listeners, trials, 4)) * np.array([0.3, 1, 1, 1])
    return np.asarray(np.clip(scores, 0, 100))


def test_post_screening_follows_the_standard(rng: np.random.Generator) -> None:
    scores = ratings(rng, listeners=5, trials=20)
    scores[:, :, 0], scores[:, :, 3] = 95, 30
    scores[1, :3, 0] = 80  # 15 % of the trials: not more than 15 %
    scores[2, :4, 0] = 80
    scores[3, :4, 3] = 95
    assert find_unreliable_listeners(scores, 0, 3).tolist() == [False, False, True, True, False]
    assert find_unreliable_listeners(scores, 0).tolist() == [False, False, True, False, False]
    scores[:, :4, 3] = 95  # where all do, the anchor is not audible
    assert find_unreliable_listeners(scores, 0, 3).tolist() == [False, False, True, False, False]
    scores[2, 4:] = np.nan
    assert find_unreliable_listeners(scores, 0)[2]


def test_medians_are_over_listener_means(rng: np.random.Generator) -> None:
    scores = ratings(rng)
    for median, level in zip(condition_medians(scores), LEVELS, strict=True):
        assert median.listeners == 14
        assert median.low is not None
        assert median.high is not None
        assert median.low < median.median < median.high
        assert median.median == pytest.approx(level, abs=6)
        assert median.quarter < median.three_quarters
    scores[0, :, 1] = np.nan
    assert len(listener_means(scores)) == 13


def test_median_interval_covers_the_median() -> None:
    rng = np.random.default_rng(7)
    covered = []
    for _ in range(300):
        low, high = median_interval(100 - rng.exponential(20, 15))
        assert low is not None
        assert high is not None
        covered.append(low <= 100 - 20 * np.log(2) <= high)
    assert 0.92 <= np.mean(covered) <= 0.98
    assert median_interval(np.arange(5.0)) == (None, None)
    assert median_interval(np.arange(6.0)) != (None, None)


def test_tests_detect_differences_and_only_those(rng: np.random.Generator) -> None:
    scores = ratings(rng)
    result = friedman_test(scores)
    assert result is not None
    assert result.p < 1e-6
    gaps = {(item.first, item.second): item for item in compare_conditions(scores)}
    assert len(gaps) == 6
    assert gaps[1, 3].p_holm < 0.01
    assert gaps[1, 3].median == pytest.approx(40, abs=8)
    means = listener_means(scores)
    assert gaps[1, 2].p == pytest.approx(stats.wilcoxon(means[:, 1], means[:, 2]).pvalue)
    same = np.repeat(scores[:, :, :1], 3, axis=2)
    assert friedman_test(same) is None
    assert all(item.p_holm == 1 for item in compare_conditions(same))


def test_mixed_effects_recover_the_truth(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    listener_offset, piece = rng.normal(0, 8, (14, 1, 1)), rng.normal(0, 5, (1, 9, 1))
    scores = LEVELS * 0.5 + listener_offset + piece + rng.normal(0, 8, (14, 9, 4))
    scores[0, 0, 1] = np.nan
    result = fit_mixed_effects(scores)
    assert [item.condition for item in result] == [1, 2, 3]
    for item in result:
        assert item.low < item.estimate < item.high
        assert item.estimate == pytest.approx((LEVELS[item.condition] - LEVELS[0]) * 0.5, abs=4)
    monkeypatch.setitem(sys.modules, "statsmodels.regression.mixed_linear_model", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[stats\]'"):
        fit_mixed_effects(scores)
