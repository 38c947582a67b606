import dataclasses
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tonewood.dsp.chunking import SEGMENT_FRAMES
from tonewood.dsp.features import cut_windows
from tonewood.scorer.network import Scorer, audible_windows, score_windows
from tonewood.scorer.training import (
    LabelledTakes,
    TrainedScorer,
    ValidationCheck,
    augment_crops,
    draw_crops,
    measure_calibration,
    stretch_scores,
    train_scorer,
)
from tonewood.scorer.training_loop import initial_scorer
from tonewood.setting_types import TrainingTargets
from tonewood.settings import BandSettings, ScorerSettings, SpectrumSettings, TrainingSettings
from tonewood.utils.arrays import Levels

PAPER = SpectrumSettings()
TINY = ScorerSettings(bands=BandSettings(count=16), depth=2, width=4, crop_seconds=0.5, dropout=0.2)
BRIEF = TrainingSettings(
    batch=8, steps=40, check_every=10, patience=4, tilt_db=1, mask_db=1, learning_rate=0.02
)

GRADED = BRIEF.replace(batch=16, steps=200, check_every=50)


def take(tilt_db: float, seed: int, frames: int = 160) -> Levels:
    """Return rows of noise with a slope and a level in dB."""
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(tilt_db, -tilt_db, 16)[:, None]
    level = -30 + 6 * torch.randn(1, generator=generator)
    return (level + slope + 4 * torch.randn(16, frames, generator=generator)).numpy()


def toy(first: int, count: int = 4) -> LabelledTakes:
    return LabelledTakes(
        reference=[take(8.0, first + i) for i in range(count)],
        source=[take(-8.0, first + 100 + i) for i in range(count)],
    )


def toy_with_ways(first: int, count: int = 4) -> LabelledTakes:
    """Return the toy, and ways from each source take to the reference's tilt."""
    takes = toy(first, count)
    correction = np.linspace(16.0, -16.0, 16, dtype=np.float32)[:, None]
    return dataclasses.replace(takes, pairs=[(rows, rows + correction) for rows in takes.source])


def trained(
    seed: int = 0,
    held_out: LabelledTakes | None = None,
    training: TrainingSettings = BRIEF,
    train: LabelledTakes | None = None,
) -> tuple[list[ValidationCheck], TrainedScorer]:
    events = list(train_scorer(train or toy(0), held_out or toy(50, 2), TINY, PAPER, training, seed=seed))
    checks = [event for event in events if isinstance(event, ValidationCheck)]
    assert isinstance(events[-1], TrainedScorer)
    assert len(checks) == len(events) - 1
    return checks, events[-1]


@pytest.fixture(scope="module")
def trained_once() -> tuple[list[ValidationCheck], TrainedScorer]:
    return trained()


def held_out_loss(fit: TrainedScorer) -> float:
    reference, source = fit.reference_scores, fit.source_scores
    return 0.5 * float(np.square(reference).mean() + np.square(1 - source).mean())


def test_two_tilts_are_separated_on_held_out_takes(
    trained_once: tuple[list[ValidationCheck], TrainedScorer],
) -> None:
    checks, fit = trained_once
    assert fit.accuracy == 1.0
    assert (fit.reference_scores < 0.5).all()
    assert (fit.source_scores > 0.5).all()
    assert [check.step for check in checks] == [10, 20, 30, 40]
    assert {check.steps for check in checks} == {40}
    assert checks[-1].accuracy == 1.0
    assert checks[-1].held_out_loss < 0.25 > checks[-1].loss
    assert fit.steps == 40
    assert fit.windows == 16  # two sides of two takes of 160 frames, in windows of 50
    assert fit.seconds > 0


def test_trained_scorer_has_arrays(trained_once: tuple[list[ValidationCheck], TrainedScorer]) -> None:
    scorer = trained_once[1].scorer
    assert all(isinstance(weight, np.ndarray) for weight in scorer.weights.values())


def test_reported_accuracy_is_that_of_the_scorer(
    trained_once: tuple[list[ValidationCheck], TrainedScorer],
) -> None:
    fit = trained_once[1]
    again = np.concatenate([score_windows(fit.scorer, rows) for rows in toy(50, 2).reference])
    np.testing.assert_array_equal(again, fit.reference_scores)
    assert fit.calibration == measure_calibration(fit.reference_scores, fit.source_scores)


def test_training_is_independent_of_level(
    trained_once: tuple[list[ValidationCheck], TrainedScorer],
) -> None:
    rows = take(3.0, 999)
    scores = [score_windows(trained_once[1].scorer, rows + gain) for gain in (-20.0, 0.0, 20.0)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)
    np.testing.assert_allclose(scores[2], scores[1], atol=1e-3)


def test_same_seed_gives_same_bits(
    trained_once: tuple[list[ValidationCheck], TrainedScorer],
) -> None:
    torch.rand(3)  # whatever the global generator's state
    checks, fit = trained()
    assert checks == trained_once[0]
    for name, value in trained_once[1].scorer.weights.items():
        np.testing.assert_array_equal(value, fit.scorer.weights[name], name)


def test_other_seed_gives_other_scorer(trained_once: tuple[list[ValidationCheck], TrainedScorer]) -> None:
    other = trained(seed=1)[1].scorer.weights
    assert not np.array_equal(other["linear.weight"], trained_once[1].scorer.weights["linear.weight"])


def test_training_keeps_global_random_state() -> None:
    before = torch.get_rng_state()
    trained(training=BRIEF.replace(steps=2))
    trained(train=toy_with_ways(0), held_out=toy_with_ways(50, 2), training=BRIEF.replace(steps=2))
    assert torch.equal(before, torch.get_rng_state())


def test_best_weights_are_returned_and_patience_stops() -> None:
    """With swapped labels of the held-out takes, training increases the held-out loss."""
    right = toy(50, 2)
    swapped = LabelledTakes(reference=right.source, source=right.reference)
    patient = BRIEF.replace(steps=200, check_every=5, patience=3, learning_rate=0.01)
    checks, fit = trained(held_out=swapped, training=patient)
    losses = [check.held_out_loss for check in checks]
    assert min(losses) < losses[-1] - 0.05
    best = losses.index(min(losses))
    assert len(checks) == best + 1 + 3
    assert fit.steps == checks[-1].step < 200
    assert held_out_loss(fit) == pytest.approx(min(losses), abs=1e-6)


def test_last_step_is_validated() -> None:
    checks, _ = trained(training=BRIEF.replace(steps=13))
    assert [check.step for check in checks] == [10, 13]


def test_accuracy_is_balanced() -> None:
    """Many correct source windows do not hide wrong reference takes."""
    held_out = LabelledTakes(reference=[take(-8.0, 1)], source=[take(-8.0, 2, frames=1_000), take(-8.0, 3)])
    _, fit = trained(held_out=held_out)
    right = 0.5 * ((fit.reference_scores < 0.5).mean() + (fit.source_scores >= 0.5).mean())
    assert fit.accuracy == pytest.approx(float(right))
    assert fit.accuracy == pytest.approx(0.5, abs=0.1)


@given(total=st.integers(1, 400), frames=st.integers(1, 120))
def test_windows_cover_the_take_and_the_last_ends_with_it(total: int, frames: int) -> None:
    rows = np.tile(np.arange(total, dtype=np.float32), (3, 1))
    cut = cut_windows(rows, frames)
    assert cut.shape[1:] == (3, min(frames, total))
    assert set(cut.flatten().tolist()) == set(range(total))
    assert cut[-1, 0, -1] == total - 1
    assert len(cut) == -(-total // frames)
    starts = cut[:, 0, 0].tolist()
    assert all(0 < later - sooner <= frames for sooner, later in pairwise(starts))
    assert (np.diff(cut[:, 0]) == 1).all()


def test_audible_windows_are_those_within_range_of_the_loudest() -> None:
    cut = np.full((4, 8, 10), -100.0, dtype=np.float32)
    cut[0, 2, 3], cut[1, 0, 0], cut[2, 7, 9] = -10, -54, -56
    assert audible_windows(cut).tolist() == [True, True, False, False]
    assert audible_windows(cut, range_db=200).all()


def test_row_mean_is_the_same_for_long_and_short_takes() -> None:
    """Compare the mean row of takes longer than a segment with an explicit mean."""
    long, short = take(-8.0, 1, frames=SEGMENT_FRAMES + 700), take(-3.0, 2)
    takes = LabelledTakes(reference=[long, short], source=[take(4.0, 3)], take_weights=[2.0, 1.0])
    *_, fit = train_scorer(takes, takes, TINY, PAPER, BRIEF.replace(steps=1), seed=0)
    assert isinstance(fit, TrainedScorer)
    scorer = fit.scorer

    def relative(rows: Levels) -> Levels:
        difference: Levels = rows - scorer.level(rows[None])[0]
        return difference.clip(-TINY.range_db)

    reference = np.concatenate([relative(long), relative(long), relative(short)], axis=1).mean(axis=1)
    source = relative(takes.source[0]).mean(axis=1)
    np.testing.assert_allclose(scorer.weights["row_mean"], (reference + source) / 2, atol=1e-4)


def test_silent_windows_are_not_scored() -> None:
    scorer = initial_scorer(TINY, PAPER, torch.Generator().manual_seed(0))
    rows = take(8.0, 3, frames=200)
    rows[:, 50:150] = -120
    scores = score_windows(scorer, rows)
    assert scores.shape == (2,)
    alone = scorer.score(rows[None, :, :50])
    assert scores[0] == pytest.approx(alone.item(), abs=1e-6)


def test_scores_are_independent_of_the_batches() -> None:
    """Batches of 64 windows have no influence on the scores."""
    scorer = initial_scorer(TINY, PAPER, torch.Generator().manual_seed(0))
    rows = take(8.0, 3, frames=70 * 50)
    scores = score_windows(scorer, rows)
    assert scores.shape == (70,)
    for index in (0, 63, 64, 69):
        alone = scorer.score(rows[None, :, index * 50 : (index + 1) * 50])
        assert scores[index].item() == pytest.approx(alone.item(), abs=1e-6)


def ramp(frames: int) -> Levels:
    """Return two equal rows that count the frames."""
    return np.tile(np.arange(frames, dtype=np.float32), (2, 1))


def test_crops_are_drawn_uniformly_over_time() -> None:
    """41 places in one take, 141 in the other: each gets 1 / 182 of the crops."""
    first, second = ramp(50), 1_000 + ramp(150)
    crops = draw_crops([first, second], 36_400, 10, torch.Generator().manual_seed(0))
    assert crops.shape == (36_400, 2, 10)
    assert (crops.diff(dim=2) == 1).all()
    draws = Counter(crops[:, 0, 0].long().tolist())
    assert sorted(draws) == [*range(41), *range(1_000, 1_141)]
    # Expected 200 each; chi-square over its 181 degrees of freedom has mean 181, spread 19.
    counts = torch.tensor([*draws.values()])
    assert ((counts - 200.0).square() / 200).sum() == pytest.approx(181, abs=5 * 19)
    assert counts.min() > 130
    assert counts.max() < 270


@pytest.mark.parametrize("lengths", [(3,), (7, 10), (1, 25)])
def test_short_take_is_repeated(lengths: Sequence[int]) -> None:
    takes = [ramp(n) for n in lengths]
    crops = draw_crops(takes, 50, 10, torch.Generator().manual_seed(0))
    assert crops.shape == (50, 2, 10)
    for crop in crops:
        steps = crop[0].diff()
        assert ((steps == 1) | (steps < 0) | (steps == 0)).all()
        assert crop.max() < max(lengths)


def test_same_generator_gives_same_crops() -> None:
    takes = [take(0.0, 1), take(0.0, 2)]
    draws = [draw_crops(takes, 8, 20, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_augmentation_changes_each_crop_and_keeps_the_mean() -> None:
    crops = torch.from_numpy(take(0.0, 1, frames=60)).expand(3_000, -1, -1)
    training = TrainingSettings(tilt_db=3, mask_db=3)
    change = augment_crops(crops, training, torch.Generator().manual_seed(0)) - crops
    assert change.shape == crops.shape
    assert (change.abs().amax(dim=(1, 2)) > 0.01).all()
    assert change.mean().abs() < 0.05
    assert change.mean(dim=0).abs().max() < 0.4
    # An end of a tilt has the spread of the setting, and the mask comes on top of it.
    assert 2.9 < change[:, 0].std() < 4.5


def test_augmentation_is_straight_tilts_and_smooth_masks() -> None:
    crops = torch.zeros(200, 48, 120)
    none = TrainingSettings(tilt_db=0, mask_db=0)
    assert torch.equal(augment_crops(crops, none, torch.Generator()), crops)
    tilted = augment_crops(crops, TrainingSettings(tilt_db=3, mask_db=0), torch.Generator())
    assert tilted.diff(dim=2).abs().max() == 0
    assert tilted.diff(dim=1).diff(dim=1).abs().max() < 1e-5
    assert tilted.mean(dim=1).abs().max() < 1e-5
    masked = augment_crops(crops, TrainingSettings(tilt_db=0, mask_db=3), torch.Generator())
    assert masked.diff(dim=1).abs().mean() < 0.25 * masked.abs().mean()
    assert masked.diff(dim=2).abs().mean() < 0.1 * masked.abs().mean()


def scores_of(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


@given(
    reference=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30),
    source=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30),
)
def test_calibration_equals_the_sum(reference: list[float], source: list[float]) -> None:
    result = measure_calibration(scores_of(*reference), scores_of(*source))
    labelled = [(score, 0) for score in reference] + [(score, 1) for score in source]
    bins: dict[int, list[tuple[float, int]]] = {}
    for score, label in labelled:
        bin_index = int(
            np.float32(score) * np.float32(10)
        )  # 0.3 in single precision, times ten, as it rounds
        bins.setdefault(min(9, bin_index), []).append((score, label))
    error = 0.0
    for bin_index, used in enumerate(sorted(bins)):
        inside = bins[used]
        mean = sum(score for score, _ in inside) / len(inside)
        share = sum(label for _, label in inside) / len(inside)
        assert result.mean_score[bin_index] == pytest.approx(mean, abs=1e-5)
        assert result.share_source[bin_index] == pytest.approx(share, abs=1e-5)
        assert result.count[bin_index] == len(inside)
        error += len(inside) / len(labelled) * abs(mean - share)
    assert result.error == pytest.approx(error, abs=1e-5)
    assert sum(result.count) == len(labelled)


@pytest.fixture(scope="module")
def graded_once() -> TrainedScorer:
    return trained(train=toy_with_ways(0), held_out=toy_with_ways(50, 2), training=GRADED)[1]


def test_graded_scorer_orders_parts_of_a_way(graded_once: TrainedScorer) -> None:
    ways = toy_with_ways(900, 3).pairs
    scores = [
        np.concatenate(
            [score_windows(graded_once.scorer, start + share * (end - start)) for start, end in ways]
        ).mean()
        for share in (0.0, 0.5, 1.0)
    ]
    assert scores[0] > scores[1] + 0.15
    assert scores[1] > scores[2] + 0.15
    assert 0.25 < scores[1] < 0.75


def test_graded_scorer_separates_the_folders(graded_once: TrainedScorer) -> None:
    assert graded_once.accuracy == 1.0


def medians(scorer: Scorer, takes: LabelledTakes) -> tuple[float, float]:
    sides = ([score_windows(scorer, take) for take in side] for side in (takes.reference, takes.source))
    reference, source = (float(np.median(np.concatenate(side))) for side in sides)
    return reference, source


@pytest.mark.parametrize("factor", [0.2, 0.6])
def test_stretched_scores_lie_about_the_middle_and_keep_their_order(
    factor: float, graded_once: TrainedScorer
) -> None:
    """The factor draws all logits towards another middle, as too little training does."""
    takes, best = toy(50, 2), graded_once.scorer
    linear = {name: best.weights[name] * np.float32(factor) for name in ("linear.weight", "linear.bias")}
    linear["linear.bias"] = linear["linear.bias"] + np.float32(0.7)
    drawn = Scorer(best.settings, best.spectrum, best.weights | linear)
    stretched = stretch_scores(drawn, takes)
    before, after = medians(drawn, takes), medians(stretched, takes)
    assert sum(after) == pytest.approx(1, abs=1e-3)
    assert after[0] >= 0.049
    assert after[1] - after[0] > 1.3 * (before[1] - before[0])
    scores = [np.concatenate([score_windows(s, take) for take in takes.source]) for s in (drawn, stretched)]
    assert (np.argsort(scores[0], kind="stable") == np.argsort(scores[1], kind="stable")).all()


def test_scores_of_folders_that_are_not_told_apart_stay(graded_once: TrainedScorer) -> None:
    takes = toy(50, 2)
    swapped = LabelledTakes(takes.source, takes.reference)
    assert stretch_scores(graded_once.scorer, swapped) is graded_once.scorer


@pytest.mark.parametrize("targets", ["labels", "graded"])
def test_without_graded_targets_or_ways_the_labels_are_learnt(
    trained_once: tuple[list[ValidationCheck], TrainedScorer], targets: TrainingTargets
) -> None:
    """Both give the scorer of the labels: ways with targets of labels, graded targets without ways."""
    takes = (toy_with_ways(0), toy_with_ways(50, 2)) if targets == "labels" else (toy(0), toy(50, 2))
    checks, fit = trained(train=takes[0], held_out=takes[1], training=BRIEF.replace(targets=targets))
    assert checks == trained_once[0]
    for name, value in trained_once[1].scorer.weights.items():
        np.testing.assert_array_equal(value, fit.scorer.weights[name], name)


def test_ways_change_the_scorer(trained_once: tuple[list[ValidationCheck], TrainedScorer]) -> None:
    checks, fit = trained(train=toy_with_ways(0), held_out=toy(50, 2))
    labels = trained_once[1].scorer.weights["linear.weight"]
    assert not np.array_equal(fit.scorer.weights["linear.weight"], labels)
    # Held-out ways take part in the held-out loss.
    with_ways, _ = trained(train=toy_with_ways(0), held_out=toy_with_ways(50, 2))
    assert with_ways[0].loss == checks[0].loss
    assert with_ways[0].held_out_loss > checks[0].held_out_loss


def test_smallest_batch_trains_on_ways() -> None:
    checks, _ = trained(train=toy_with_ways(0), training=BRIEF.replace(batch=2, steps=2))
    assert checks[-1].step == 2


@pytest.mark.parametrize("check_index", [0, 2])
def test_resumed_graded_training_gives_the_same_scorer(check_index: int) -> None:
    takes = toy_with_ways(0), toy_with_ways(50, 2)
    states = []
    for event in train_scorer(*takes, TINY, PAPER, BRIEF, seed=0):
        if isinstance(event, ValidationCheck):
            assert event.run is not None
            states.append(event.run.state())
    assert isinstance(event, TrainedScorer)
    *_, again = train_scorer(*takes, TINY, PAPER, BRIEF, seed=0, state=states[check_index])
    assert isinstance(again, TrainedScorer)
    for name, value in event.scorer.weights.items():
        np.testing.assert_array_equal(value, again.scorer.weights[name], name)


def test_calibration_error_of_calibrated_and_overconfident_scores() -> None:
    honest = measure_calibration(scores_of(*[0.25] * 3, 0.75), scores_of(0.25, *[0.75] * 3))
    assert honest.error == pytest.approx(0, abs=1e-6)
    boastful = measure_calibration(scores_of(1.0), scores_of(0.0))
    assert boastful.error == pytest.approx(1)


def test_labelled_takes_are_frozen() -> None:
    takes = LabelledTakes(reference=[ramp(3)], source=[])
    with pytest.raises(dataclasses.FrozenInstanceError):
        takes.source = [ramp(3)]  # type: ignore[misc]
