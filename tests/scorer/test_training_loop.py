"""Training runs: best weights, early stopping and checkpoints."""

from typing import Unpack

import pytest
import torch
from torch import Tensor

from tests.conftest import tiny_settings
from tonewood.scorer.training_loop import TrainingRun, initial_scorer
from tonewood.setting_types import TrainingChanges
from tonewood.settings import TrainingSettings


def start(generator_seed: int = 0, **training: Unpack[TrainingChanges]) -> TrainingRun:
    settings = tiny_settings()
    generator = torch.Generator().manual_seed(generator_seed)
    scorer = initial_scorer(settings.scorer, settings.spectrum, generator).as_tensors()
    return TrainingRun(scorer, TrainingSettings().replace(**training), generator)


def step(run: TrainingRun) -> None:
    """Take one training step on random input."""
    rows = len(run.scorer.weights["row_mean"])
    rows_db = 6 * torch.randn(4, rows, 100, generator=run.generator) - 40
    run.update(run.scorer.logit(rows_db).square().mean())


def weights(run: TrainingRun) -> list[Tensor]:
    return [value.detach().clone() for value in run.scorer.weights.values()]


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
    for parameter in once.scorer.trained_weights():
        parameter.grad = None
    for current in (run, once):
        step(current)
    assert are_equal(weights(run), weights(once))


def test_checkpoint_names_are_those_of_earlier_versions() -> None:
    run = start()
    step(run)
    names = [f"{kind}.{name}" for kind in ("scorer", "best") for name in run.scorer.weights]
    names += [f"optimiser.{k}.{name}" for k in range(6) for name in ("step", "exp_avg", "exp_avg_sq")]
    assert list(run.state()) == ["told", "generator", *names]
    assert run.state()["optimiser.0.exp_avg"].shape == run.scorer.weights["convolutions.0.weight"].shape
    assert run.state()["optimiser.5.exp_avg"].shape == run.scorer.weights["linear.bias"].shape


def test_checkpoint_of_another_scorer_is_rejected() -> None:
    run = start()
    step(run)
    state = run.state() | {"scorer.linear.bias": torch.zeros(1, 1)}
    with pytest.raises(ValueError, match=r"linear.bias has shape .*, not \(1,\)"):
        start().resume(state)
    del state["scorer.linear.bias"]
    with pytest.raises(KeyError, match=r"linear\.bias"):
        start().resume(state)


def test_initial_weights_keep_global_random_state() -> None:
    before = torch.get_rng_state()
    start()
    assert torch.equal(before, torch.get_rng_state())
