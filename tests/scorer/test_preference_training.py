import numpy as np
import pytest
import torch

from tonewood.scorer.preference_training import (
    ListenerData,
    agreement,
    mean_logit,
    preference_loss,
    train_preference_scorer,
)
from tonewood.scorer.training import LabelledTakes, TrainedScorer, ValidationCheck
from tonewood.settings import BandSettings, ScorerSettings, SpectrumSettings, TrainingSettings
from tonewood.utils.arrays import Levels

PAPER = SpectrumSettings()
TINY = ScorerSettings(bands=BandSettings(count=16), depth=2, width=4, crop_seconds=0.5)
BRIEF = TrainingSettings(batch=8, steps=60, check_every=10, patience=6, learning_rate=0.02)
EMPTY = torch.zeros(0, dtype=torch.long)


def take(tilt_db: float, seed: int) -> Levels:
    """Return rows of noise with a slope and a random level."""
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(-tilt_db, tilt_db, 16)[:, None]
    level = -30 + 6 * torch.randn(1, generator=generator)
    return (level + slope + 4 * torch.randn(16, 120, generator=generator)).numpy()


def answers_for(first: int, count: int, answers: int, *, rated: bool = False) -> ListenerData:
    """Return takes of random tilt, of which the brighter is preferred or rated higher."""
    generator = torch.Generator().manual_seed(first)
    tilt = 8 * torch.randn(count, generator=generator)
    rows = [take(float(t), first + k) for k, t in enumerate(tilt)]
    a = torch.randint(count, (answers,), generator=generator)
    b = (a + 1 + torch.randint(count - 1, (answers,), generator=generator)) % count
    first_won = torch.rand(answers, generator=generator) < torch.sigmoid(tilt[a] - tilt[b])
    better, worse = torch.where(first_won, a, b), torch.where(first_won, b, a)
    target = torch.sigmoid(-tilt / 8)
    if rated:
        better = worse = EMPTY
    else:
        target = target[:0]
    return ListenerData(
        rows, [str(k) for k in range(count)], better, worse,
        torch.arange(count) if rated else EMPTY, target, tilt > tilt.median(),
    )  # fmt: skip


def train_on(
    train: ListenerData,
    held_out: ListenerData,
    seed: int = 0,
    labels: tuple[LabelledTakes, LabelledTakes] | None = None,
) -> TrainedScorer:
    *checks, fit = train_preference_scorer(train, held_out, TINY, PAPER, BRIEF, labels=labels, seed=seed)
    assert isinstance(fit, TrainedScorer)
    assert all(isinstance(event, ValidationCheck) for event in checks)
    return fit


@pytest.mark.parametrize("rated", [False, True])
def test_preference_for_brightness_is_learnt(rated: bool) -> None:
    fit = train_on(answers_for(0, 24, 200, rated=rated), answers_for(100, 10, 60, rated=rated))
    unseen = [-12.0, -4.0, 4.0, 12.0]
    logits = [mean_logit(fit.scorer, take(tilt, 900 + k)) for k, tilt in enumerate(unseen)]
    assert sorted(logits, reverse=True) == logits  # a low score is what is wanted
    assert fit.accuracy >= 0.8


def test_same_seed_gives_same_scorer() -> None:
    train, held_out = answers_for(0, 12, 60), answers_for(100, 6, 20)
    one_run, again, other = (train_on(train, held_out, seed).scorer.weights for seed in (1, 1, 2))
    assert all(np.array_equal(value, again[name]) for name, value in one_run.items())
    assert any(not np.array_equal(value, other[name]) for name, value in one_run.items())


def test_folder_labels_add_to_the_answers() -> None:
    takes = LabelledTakes([take(10, 500 + k) for k in range(4)], [take(-10, 600 + k) for k in range(4)])
    held_out_takes = LabelledTakes([take(10, 700)], [take(-10, 701)])
    fit = train_on(answers_for(0, 12, 60), answers_for(100, 6, 20), labels=(takes, held_out_takes))
    assert fit.takes == 2
    assert np.median(fit.reference_scores) < 0.4 < 0.6 < np.median(fit.source_scores)


def test_pairs_between_groups_are_dropped_from_both() -> None:
    data = answers_for(0, 6, 40)
    part = data.select_groups({"0", "1", "2"})
    assert [np.array_equal(a, b) for a, b in zip(part.rows, data.rows[:3], strict=True)] == [True] * 3
    inside = [(int(a), int(b)) for a, b in zip(data.better, data.worse, strict=True) if a < 3 and b < 3]
    assert list(zip(part.better.tolist(), part.worse.tolist(), strict=True)) == inside
    halves = data.split_by_preference()
    assert len(halves.reference) + len(halves.source) == 6


def test_agreement_and_loss_follow_the_order() -> None:
    data = answers_for(0, 4, 0)
    pairs = ListenerData(
        data.rows, data.groups, torch.tensor([0, 1]), torch.tensor([1, 2]), EMPTY,
        torch.zeros(0), data.in_better_half,
    )  # fmt: skip
    assert agreement(torch.tensor([-2.0, 0.0, 1.0, 5.0]), pairs) == 1
    assert agreement(torch.tensor([-2.0, 0.0, -1.0, 5.0]), pairs) == 0.5
    assert preference_loss(torch.zeros(4), pairs) == pytest.approx(0.6931, abs=1e-4)
    rated = ListenerData(
        data.rows, data.groups, EMPTY, EMPTY, torch.arange(3), torch.tensor([0.0, 0.5, 1.0]),
        data.in_better_half,
    )  # fmt: skip
    assert agreement(torch.tensor([-3.0, 0.0, 3.0, 0.0]), rated) == 1
    assert preference_loss(torch.tensor([-30.0, 0.0, 30.0, 0.0]), rated) == pytest.approx(0, abs=1e-6)
