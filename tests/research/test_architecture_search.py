import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tonewood.research.architecture_search import (
    SIZES,
    ScorerSize,
    SizeProgress,
    SizeResult,
    SizeTrial,
    TrialMean,
    evaluate_sizes,
    find_knee,
    smallest_sufficient,
)
from tonewood.scorer.training import LabelledTakes, TrainedScorer, euclidean_loss, train_scorer
from tonewood.scorer.training_loop import initial_scorer
from tonewood.settings import BandSettings, ScorerSettings, SpectrumSettings, TrainingSettings
from tonewood.utils.arrays import Levels

PAPER = SpectrumSettings()
TINY = ScorerSettings(bands=BandSettings(count=16), crop_seconds=0.5)
BRIEF = TrainingSettings(batch=8, steps=20, check_every=10, tilt_db=1, mask_db=1, learning_rate=0.02)
TWO_SIZES = (ScorerSize(3, 1), ScorerSize(4, 2))


def size_result(parameters: int, *accuracies: float, windows: int = 10**9) -> SizeResult:
    losses = tuple(1 - a for a in accuracies)
    return SizeResult(ScorerSize(parameters, 1), parameters, accuracies, losses, windows, 0.0)


def test_trial_mean_is_mean_and_standard_error() -> None:
    # Deviations -1, 0, 1: a sample variance of 1, over three trials.
    assert TrialMean.from_values([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1 / math.sqrt(3)))


def test_smallest_size_within_one_standard_error_of_the_best_is_sufficient() -> None:
    # Deviations of ±0.04: a standard error of 0.04 / √3 = 0.0231, so 0.8769 is sufficient.
    best = size_result(1_000, 0.86, 0.90, 0.94)
    assert best.accuracy.error == pytest.approx(0.04 / math.sqrt(3))
    within, below = size_result(100, 0.878, 0.878, 0.878), size_result(10, 0.876, 0.876, 0.876)
    worse = size_result(10_000, 0.89, 0.89, 0.89)
    assert smallest_sufficient([worse, best, below, within]) is within
    assert smallest_sufficient([worse, best, below]) is best


def test_standard_error_is_that_of_the_best_size() -> None:
    # The small size varies widely, the best one not at all: only an equal accuracy is sufficient.
    steady, varying = size_result(1_000, 0.90, 0.90, 0.90), size_result(10, 0.70, 0.89, 1.0)
    assert smallest_sufficient([varying, steady]) is steady


def test_trials_without_error_have_the_standard_error_of_their_windows() -> None:
    # (528 + 2) / 532 correct: a standard error of √(0.9962 · 0.0038 / 532) = 0.27 %.
    perfect = size_result(1_000, 1.0, 1.0, 1.0, windows=528)
    assert perfect.accuracy.error == 0
    assert perfect.standard_error == pytest.approx(math.sqrt(530 / 532 * 2 / 532 / 532))
    assert smallest_sufficient(
        [perfect, size_result(100, 0.998, 0.998), size_result(10, 0.996, 0.996)]
    ) == size_result(100, 0.998, 0.998)


def test_smallest_of_equally_good_sizes_is_sufficient() -> None:
    # The larger standard error of the larger size must not include the smallest one either.
    low, small, large = (
        size_result(10, 0.9, 0.9),
        size_result(100, 0.95, 0.95),
        size_result(1_000, 0.85, 1.05),
    )
    assert smallest_sufficient([large, small, low]) is small


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.5, 0.9, 0.92, 0.94], 1),  # above the chord by 0.58, 0.29
        ([0.5, 0.6, 0.9, 0.9], 2),
        ([0.5, 0.9, 0.6, 0.9], 1),  # the running maximum does not fall
        ([0.8, 0.8, 0.8, 0.8], 0),
        ([0.9, 0.8, 0.8, 0.7], 0),
    ],
)
def test_knee_is_farthest_above_the_chord(accuracies: Sequence[float], expected: int) -> None:
    results = [size_result(10 ** (n + 1), a, a) for n, a in enumerate(accuracies)]
    assert find_knee(results) is results[expected]
    assert find_knee(results[::-1]) is results[expected]


def test_knee_uses_the_logarithm_of_the_parameters() -> None:
    # Above the chord by 0.27 and 0.08; on a linear axis it would be 0.59 and 0.65.
    results = [size_result(n, a, a) for n, a in ((1, 0.0), (10, 0.6), (100, 0.75), (1_000, 1.0))]
    assert find_knee(results) is results[1]


def test_sizes_have_325_to_93249_parameters() -> None:
    settings = ScorerSettings()
    counts = [
        initial_scorer(
            settings.replace(width=size.width, depth=size.depth), PAPER, torch.Generator()
        ).parameter_count
        for size in SIZES
    ]
    assert counts == [325, 829, 1_729, 3_713, 8_161, 14_337, 36_681, 93_249]
    # The default is one of the sizes, so that a search evaluates it.
    assert ScorerSize(settings.width, settings.depth) in SIZES


def test_loss_weights_both_sides_equally() -> None:
    # Mean squares 0.125 over two windows and 0.25 over four.
    reference, source = (np.array(scores, np.float32) for scores in ([0.0, 0.5], [1.0, 0.0, 1.0, 1.0]))
    assert euclidean_loss(reference, source) == pytest.approx((0.125 + 0.25) / 2)


def take(tilt_db: float, seed: int) -> Levels:
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(tilt_db, -tilt_db, 16)[:, None]
    return (slope - 30 + 4 * torch.randn(16, 160, generator=generator)).numpy()


def takes(first: int, count: int) -> LabelledTakes:
    return LabelledTakes(
        reference=[take(3.0, first + i) for i in range(count)],
        source=[take(-3.0, first + 100 + i) for i in range(count)],
    )


@pytest.fixture(scope="module")
def trials() -> list[SizeTrial]:
    return [SizeTrial(seed, takes(10 * seed, 3), takes(10 * seed + 5, 2)) for seed in (3, 4)]


@pytest.fixture(scope="module")
def events(trials: list[SizeTrial]) -> list[SizeProgress | SizeResult]:
    return list(evaluate_sizes(trials, TINY, PAPER, BRIEF, sizes=TWO_SIZES))


def test_every_size_is_trained_on_every_trial(events: list[SizeProgress | SizeResult]) -> None:
    checks = [event for event in events if isinstance(event, SizeProgress)]
    assert [(e.size, e.number, e.sizes, e.trial, e.trials, e.check.step) for e in checks] == [
        (size, number, 2, trial, 2, step)
        for number, size in enumerate(TWO_SIZES, start=1)
        for trial in (1, 2)
        for step in (10, 20)
    ]
    results = [event for event in events if isinstance(event, SizeResult)]
    assert [result.size for result in results] == list(TWO_SIZES)
    assert events[-1] is results[-1]
    assert [result.parameters for result in results] == [3 * 26 + 4, 4 * 26 + 8 * 37 + 9]
    assert all(len(result.accuracies) == len(result.losses) == 2 for result in results)
    assert all(result.accuracy.mean > 0.9 and result.seconds > 0 for result in results)


def test_size_result_equals_training_that_size_alone(
    events: list[SizeProgress | SizeResult], trials: list[SizeTrial]
) -> None:
    last = events[-1]
    assert isinstance(last, SizeResult)
    settings = TINY.replace(width=4, depth=2)
    for index, trial in enumerate(trials):
        *_, fit = train_scorer(trial.train, trial.held_out, settings, PAPER, BRIEF, seed=trial.seed)
        assert isinstance(fit, TrainedScorer)
        assert last.accuracies[index] == fit.accuracy
        assert last.losses[index] == euclidean_loss(fit.reference_scores, fit.source_scores)
    assert last.losses[0] != last.losses[1]
