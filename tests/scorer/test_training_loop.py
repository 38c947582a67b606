"""Training runs: best weights, early stopping and checkpoints."""

from typing import Unpack

import pytest
import torch
from torch import Tensor

from tests.conftest import tiny_settings
from tonewood.scorer.network import Scorer
from tonewood.scorer.training_loop import TrainingRun
from tonewood.setting_types import TrainingChanges
from tonewood.settings import TrainingSettings


def begun(generator_seed: int = 0, **training: Unpack[TrainingChanges]) -> TrainingRun:
    settings = tiny_settings()
    generator = torch.Generator().manual_seed(generator_seed)
    scorer = Scorer(settings.scorer, settings.spectrum, generator)
    return TrainingRun(scorer, TrainingSettings().replace(**training), generator)


def step(course: TrainingRun) -> None:
    """Take one training step on random input."""
    rows = len(course.scorer.row_mean)
    drawn = 6 * torch.randn(4, rows, 100, generator=course.generator) - 40
    course.update(course.scorer.logit(drawn).square().mean())


def weights(course: TrainingRun) -> list[Tensor]:
    return [it.clone() for it in course.scorer.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_best_weights_are_loaded() -> None:
    course = begun()
    seen = []
    for loss in (0.5, 0.2, 0.4, 0.2 - 1e-6):  # the last gains too little to count
        step(course)
        course.record_validation(loss)
        seen.append(weights(course))
    assert course.checks_without_gain == 2
    course.load_best()
    assert same(weights(course), seen[1])
    assert not same(seen[1], seen[3])


def test_resumed_run_equals_uninterrupted_run() -> None:
    course = begun()
    for loss in (0.3, 0.6):
        step(course)
        course.record_validation(loss)
    kept = course.state()
    other = begun(generator_seed=1)
    other.resume(kept)
    assert (other.step, other.checks_without_gain, other.best_loss) == (2, 1, 0.3)
    for it in (course, other):
        step(it)
    assert same(weights(course), weights(other))
    for it in (course, other):
        it.load_best()
    assert same(weights(course), weights(other))


def test_checkpoint_does_not_change_with_later_steps() -> None:
    course = begun()
    step(course)
    kept = course.state()
    before = {name: it.clone() for name, it in kept.items()}
    step(course)
    assert all(torch.equal(before[name], it) for name, it in kept.items())


@pytest.mark.parametrize(("patience", "ends"), [(1, 2), (3, 4)])
def test_patience_stops_the_run(patience: int, ends: int) -> None:
    course = begun(patience=patience)
    looks = 0
    while not course.finished:
        step(course)
        course.record_validation(0.1)
        looks += 1
    assert looks == ends


def test_validation_is_due_at_intervals_and_at_the_end() -> None:
    course = begun(steps=7, check_every=3)
    due = []
    while not course.finished:
        step(course)
        due.append(course.validation_due)
    assert due == [False, False, True, False, False, True, True]


def test_gradients_are_reset_before_each_step() -> None:
    course, once = begun(), begun()
    for it in (course, once):
        step(it)
    for parameter in once.scorer.parameters():
        parameter.grad = None
    for it in (course, once):
        step(it)
    assert same(weights(course), weights(once))
