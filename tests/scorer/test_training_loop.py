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


def start(generator_seed: int = 0, **training: Unpack[TrainingChanges]) -> TrainingRun:
    settings = tiny_settings()
    generator = torch.Generator().manual_seed(generator_seed)
    scorer = Scorer(settings.scorer, settings.spectrum, generator)
    return TrainingRun(scorer, TrainingSettings().replace(**training), generator)


def step(run: TrainingRun) -> None:
    """Take one training step on random input."""
    rows = len(run.scorer.row_mean)
    rows_db = 6 * torch.randn(4, rows, 100, generator=run.generator) - 40
    run.update(run.scorer.logit(rows_db).square().mean())


def weights(run: TrainingRun) -> list[Tensor]:
    return [value.clone() for value in run.scorer.state_dict().values()]


def are_equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_best_weights_are_loaded() -> None:
    run = start()
    seen = []
    for loss in (0.5, 0.2, 0.4, 0.2 - 1e-6):  # the last gains too little to count
        step(run)
        run.record_validation(loss)
        seen.append(weights(run))
    assert run.checks_without_gain == 2
    run.load_best()
    assert are_equal(weights(run), seen[1])
    assert not are_equal(seen[1], seen[3])


def test_resumed_run_equals_uninterrupted_run() -> None:
    run = start()
    for loss in (0.3, 0.6):
        step(run)
        run.record_validation(loss)
    checkpoint = run.state()
    other = start(generator_seed=1)
    other.resume(checkpoint)
    assert (other.step, other.checks_without_gain, other.best_loss) == (2, 1, 0.3)
    for current in (run, other):
        step(current)
    assert are_equal(weights(run), weights(other))
    for current in (run, other):
        current.load_best()
    assert are_equal(weights(run), weights(other))


def test_checkpoint_does_not_change_with_later_steps() -> None:
    run = start()
    step(run)
    checkpoint = run.state()
    before = {name: value.clone() for name, value in checkpoint.items()}
    step(run)
    assert all(torch.equal(before[name], value) for name, value in checkpoint.items())


@pytest.mark.parametrize(("patience", "ends"), [(1, 2), (3, 4)])
def test_patience_stops_the_run(patience: int, ends: int) -> None:
    run = start(patience=patience)
    checks = 0
    while not run.finished:
        step(run)
        run.record_validation(0.1)
        checks += 1
    assert checks == ends


def test_validation_is_due_at_intervals_and_at_the_end() -> None:
    run = start(steps=7, check_every=3)
    due = []
    while not run.finished:
        step(run)
        due.append(run.validation_due)
    assert due == [False, False, True, False, False, True, True]


def test_gradients_are_reset_before_each_step() -> None:
    run, once = start(), start()
    for current in (run, once):
        step(current)
    for parameter in once.scorer.parameters():
        parameter.grad = None
    for current in (run, once):
        step(current)
    assert are_equal(weights(run), weights(once))
