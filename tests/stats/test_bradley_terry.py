import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import kendalltau, norm

from tonewood.stats.bradley_terry import (
    StrengthPosterior,
    estimate_posterior,
    fit_strengths,
    information_gain,
    is_connected,
    most_informative_pair,
)

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
PLANTED = np.array([-1.2, -0.4, 0.3, 1.3])


def simulate_wins(planted: Array, each: int, rng: np.random.Generator) -> Array:
    wins = np.zeros((len(planted), len(planted)))
    for i in range(len(planted)):
        for j in range(i + 1, len(planted)):
            wins[i, j] = rng.binomial(each, 1 / (1 + np.exp(planted[j] - planted[i])))
            wins[j, i] = each - wins[i, j]
    return wins


def test_two_items_reduce_to_a_proportion(rng: np.random.Generator) -> None:
    result = fit_strengths(np.array([[0.0, 300.0], [100.0, 0.0]]))
    assert result.strength[0] - result.strength[1] == pytest.approx(np.log(3), abs=0.01)
    assert result.preference_probability(0, 1)[0] == pytest.approx(0.75, abs=0.002)


def test_estimate_maximizes_the_penalized_likelihood(rng: np.random.Generator) -> None:
    wins = simulate_wins(PLANTED, 6, rng)

    def negative(free: Array) -> float:
        theta = np.append(free, -free.sum())
        gap = theta[:, None] - theta[None, :]
        chance = 1 / (1 + np.exp(-gap))
        weight = (wins + wins.T) * chance * (1 - chance)
        information = np.diag(weight.sum(axis=1)) - weight
        # A determinant of the centred information, up to a constant: without one row and column.
        size = np.linalg.slogdet(information[1:, 1:])[1]
        return float(-(wins * np.log(chance)).sum() - 0.5 * size)

    slow = minimize(negative, np.zeros(3), tol=1e-10).x
    result = fit_strengths(wins)
    np.testing.assert_allclose(result.strength, np.append(slow, -slow.sum()), atol=1e-3)
    assert result.strength.sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("tests", [60, pytest.param(240, marks=pytest.mark.long)])
def test_strength_intervals_cover_the_truth(tests: int) -> None:
    planted = PLANTED - PLANTED.mean()
    covered = []
    for seed in range(tests):
        result = fit_strengths(simulate_wins(planted, 8, np.random.default_rng(seed)))
        covered += ((result.low <= planted) & (planted <= result.high)).tolist()
    assert 0.92 <= np.mean(covered) <= 0.98


def test_item_that_always_won_has_a_finite_strength() -> None:
    wins = np.zeros((3, 3))
    wins[0, 1] = wins[1, 2] = wins[0, 2] = 5
    result = fit_strengths(wins)
    assert result.separated
    assert np.isfinite(result.strength).all()
    assert np.isfinite([result.low, result.high]).all()
    assert (np.diff(result.strength) < 0).all()
    assert not fit_strengths(wins + wins.T).separated


def test_unconnected_items_are_an_error() -> None:
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[2, 3] = 3
    assert not is_connected(wins)
    with pytest.raises(ValueError, match="not connected to the others"):
        fit_strengths(wins)


@given(st.integers(3, 6), st.integers(0, 1000))
def test_information_gain_falls_with_answers(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wins = np.triu(rng.integers(0, 4, (count, count)), 1).astype(float)
    gain = information_gain(estimate_posterior(wins))
    assert gain.shape == (count * (count - 1) // 2,)
    assert (gain > 0).all()
    assert information_gain(estimate_posterior(wins * 20 + wins.T * 20 + 60)).sum() < gain.sum()


def test_information_gain_equals_simulated_entropy_fall() -> None:
    # Simulated on strengths drawn from the posterior.
    rng = np.random.default_rng(5)
    posterior = StrengthPosterior(np.array([0.0, 0.5, 2.5]), np.diag([0.4, 0.3, 0.5]))
    drawn = rng.multivariate_normal(posterior.mean, posterior.covariance, 400_000)
    pairs = [(0, 1), (0, 2), (1, 2)]
    slow = []
    for i, j in pairs:
        answer = rng.random(len(drawn)) < 1 / (1 + np.exp(drawn[:, j] - drawn[:, i]))
        total = 0.0
        for a, b in pairs:
            sign = drawn[:, a] > drawn[:, b]
            after_yes, after_no = sign[answer].mean(), sign[~answer].mean()
            total += answer.mean() * (1 - answer.mean()) * (after_yes - after_no) ** 2
        slow.append(total)
    gain = information_gain(posterior)
    np.testing.assert_allclose(gain, slow, rtol=0.25)
    assert np.argmax(gain) == np.argmax(slow)


def test_adaptive_choice_needs_fewer_answers() -> None:
    count = 12
    curves: dict[bool, list[list[float]]] = {True: [], False: []}
    for seed in range(6):
        for active in curves:
            rng = np.random.default_rng(seed)
            planted = 2.5 * norm.ppf((rng.permutation(count) + 0.5) / count)
            wins, agreement = np.zeros((count, count)), list[float]()
            for _ in range(90):
                i, j = most_informative_pair(wins, rng) if active else rng.permutation(count)[:2]
                first = rng.random() < 1 / (1 + np.exp(planted[j] - planted[i]))
                wins[(i, j) if first else (j, i)] += 1
                agreement.append(kendalltau(planted, estimate_posterior(wins).mean).statistic)
            curves[active].append(agreement)
    random, adaptive = (np.nanmean(curves[active], axis=0) for active in (False, True))
    target = random[-10:].mean()
    assert int(np.argmax(adaptive >= target)) + 1 <= 0.65 * 90
