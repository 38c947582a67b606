"""Models of differing listeners, on simulated ones."""

import numpy as np
import pytest
from scipy.special import expit

from tonewood.stats import bradley_terry
from tonewood.stats.bradley_terry import fit_mixed_logit, jackknife_intervals

STRENGTHS = np.array([-0.9, 0.1, 0.8])


def test_mixed_logit_interval_covers_the_median_listener() -> None:
    covered, naive = [], []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        counts = rng.binomial(16, expit(0.6 + rng.normal(0, 1, 20)))
        result = fit_mixed_logit(counts.tolist(), [16] * 20)
        assert result is not None
        covered.append(result.low <= expit(0.6) <= result.high)
        share, reach = counts.sum() / 320, 1.96 * np.sqrt(0.25 / 320)
        naive.append(abs(share - expit(0.6)) <= reach)
    assert 0.90 <= np.mean(covered) <= 0.99
    assert np.mean(naive) < 0.88  # takes all answers for independent


def test_equal_listeners_have_no_spread() -> None:
    result = fit_mixed_logit([7, 8, 9, 8, 7, 9, 8, 8], [10] * 8)
    assert result is not None
    assert result.spread == 0.0
    assert result.share == pytest.approx(0.8, abs=0.001)
    # Likelihood of a plain binomial at both ends: 1.92 below its top.
    for end in (result.low, result.high):
        fall = 64 * np.log(0.8 / end) + 16 * np.log(0.2 / (1 - end))
        assert fall == pytest.approx(1.9207, abs=0.01)
    apart = fit_mixed_logit([0, 10, 0, 10, 0, 10, 10, 0], [10] * 8)
    assert apart is not None
    assert apart.spread > 2
    assert apart.p > 0.5


def test_unanimous_answers_have_no_bound_on_that_side() -> None:
    always = fit_mixed_logit([6] * 8, [6] * 8)
    never = fit_mixed_logit([0] * 8, [6] * 8)
    assert always is not None
    assert never is not None
    assert (always.high, never.low) == (1.0, 0.0)
    assert always.low == pytest.approx(1 - never.high, abs=1e-3)
    assert always.low > 0.8
    assert fit_mixed_logit([3] * 5, [6] * 5) is None  # too few to estimate how listeners differ
    assert fit_mixed_logit([3] * 8, [6] * 5 + [0] * 3) is None


def answers(listeners: int, spread: float, each: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    strengths = STRENGTHS + rng.normal(0, spread, (listeners, 3))
    wins = np.zeros((listeners, 3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        wins[:, i, j] = rng.binomial(each, expit(strengths[:, i] - strengths[:, j]))
        wins[:, j, i] = each - wins[:, i, j]
    return wins


@pytest.mark.parametrize("tests", [70, pytest.param(300, marks=pytest.mark.long)])
def test_jackknife_intervals_cover_the_strengths(tests: int) -> None:
    spread = 1.0
    planted = bradley_terry.estimate_strengths(answers(200_000, spread, 1, 0).sum(axis=0))
    covered, covered_pooled = [], []
    for seed in range(tests):
        wins = answers(16, spread, 6, seed)
        ends, fitted = jackknife_intervals(wins), bradley_terry.fit_strengths(wins.sum(axis=0))
        assert ends is not None
        covered += ((ends.low <= planted) & (planted <= ends.high)).tolist()
        covered_pooled += ((fitted.low <= planted) & (planted <= fitted.high)).tolist()
    assert 0.92 <= np.mean(covered) <= 0.99
    assert np.mean(covered_pooled) < 0.88


def test_one_connecting_listener_has_no_jackknife() -> None:
    wins = np.zeros((4, 3, 3))
    wins[:, 0, 1] = wins[1:, 1, 0] = 2
    assert jackknife_intervals(wins) is None
    wins[0, 1, 2] = 1
    assert jackknife_intervals(wins) is None
    wins[1, 2, 1] = 1
    assert jackknife_intervals(wins) is not None
