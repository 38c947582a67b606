import numpy as np
import pytest
from scipy import stats

from tonewood.stats.proportions import (
    abx_correct,
    abx_sensitivity,
    binomial_proportion,
    holm_adjust,
    listeners_for_choice,
    listeners_for_ratings,
    mean_over_listeners,
)


def coverage(covered: list[bool]) -> float:
    return float(np.mean(covered))


def test_exact_interval_equals_scipy() -> None:
    for count, total in ((0, 7), (3, 7), (7, 7), (61, 100)):
        result = binomial_proportion(count, total)
        exact = stats.binomtest(count, total).proportion_ci(0.95, "exact")
        assert (result.low, result.high) == pytest.approx((exact.low, exact.high))
        assert result.low <= result.share <= result.high
    with pytest.raises(ValueError, match="8 of 7 answers"):
        binomial_proportion(8, 7)


def test_proportion_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    result = [binomial_proportion(int(k), 400) for k in rng.binomial(400, 0.65, 300)]
    assert 0.93 <= coverage([item.low <= 0.65 <= item.high for item in result]) <= 0.98


def test_differing_listeners_need_the_wider_interval() -> None:
    rng = np.random.default_rng(2)
    pooled, each = [], []
    for _ in range(300):
        counts = rng.binomial(16, rng.beta(6.5, 3.5, 20))
        exact = binomial_proportion(int(counts.sum()), 320)
        spread = mean_over_listeners(counts.tolist(), [16] * 20)
        assert spread.low is not None
        assert spread.high is not None
        pooled.append(exact.low <= 0.65 <= exact.high)
        each.append(spread.low <= 0.65 <= spread.high)
    assert coverage(pooled) < 0.90  # takes answers of one listener for independent
    assert 0.92 <= coverage(each) <= 0.98
    assert mean_over_listeners([3], [4]).low is None
    assert mean_over_listeners([4, 4, 4], [4, 4, 4]) == (
        3,
        1.0,
        None,
        None,
    )  # equal shares have no interval


def test_abx_sensitivity_inverts_abx_correct() -> None:
    assert abx_correct(0.0) == pytest.approx(0.5)
    for d in (0.5, 1.5, 3.0):
        total = 100_000
        result = abx_sensitivity(round(total * abx_correct(d)), total)
        assert result.d == pytest.approx(d, abs=0.01)
        assert result.high is not None
        assert result.low < d < result.high
    perfect = abx_sensitivity(20, 20)
    assert perfect.high is None
    assert 2 < perfect.low < perfect.d < 6
    assert abx_sensitivity(5, 20) == (0.0, 0.0, 0.0)


def test_abx_correct_equals_simulation() -> None:
    # Simulation of the differencing rule: signal plus noise at every presentation.
    rng = np.random.default_rng(3)
    d, trials = 1.5, 200_000
    x, a, b = rng.normal(0, 1, trials), rng.normal(0, 1, trials), rng.normal(d, 1, trials)
    right = np.abs(x - a) < np.abs(x - b)  # X was A
    assert right.mean() == pytest.approx(abx_correct(d), abs=0.005)


def test_power_equals_simulation() -> None:
    needed = listeners_for_choice(0.7, 8, correlation=0.0)
    assert needed is not None
    rng = np.random.default_rng(4)
    for number, enough in ((needed, True), (needed // 2, False)):
        p = [binomial_proportion(int(k), number * 8).p for k in rng.binomial(number * 8, 0.7, 400)]
        assert (np.mean(np.array(p) < 0.05) > 0.77) == enough
    alike = listeners_for_choice(0.7, 8, correlation=0.3)
    assert alike is not None
    assert alike > needed
    assert listeners_for_choice(0.501, 1, max_listeners=50) is None
    with pytest.raises(ValueError, match="one half"):
        listeners_for_choice(0.5, 8)
    few, many = (listeners_for_ratings(d, 15.0) for d in (15.0, 5.0))
    assert few is not None
    assert many is not None
    assert few < many
    with pytest.raises(ValueError, match="neither may be 0"):
        listeners_for_ratings(0.0, 15.0)


def test_holm_adjustment_is_monotonic() -> None:
    p = np.array([0.2, 0.001, 0.04, 0.03])
    adjusted = holm_adjust(p)
    assert (adjusted >= p).all()
    assert (np.argsort(adjusted, kind="stable")[0], adjusted[1]) == (1, pytest.approx(0.004))
