"""Optimiser steps of a scorer's training, with checkpoints, early stopping and several processes.

A checkpoint holds all that the next step depends on, random state included, so that a resumed
training gives exactly the same scorer. Processes started by `torchrun` share each batch.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from tonewood.errors import CallError, DeviceError
from tonewood.scorer.network import Scorer, loudness_row, scorer_shapes
from tonewood.settings import ScorerSettings, SpectrumSettings, TrainingSettings
from tonewood.utils.layers import check_shapes, tensors_below

_MIN_LOSS_GAIN = 1e-4  # of the held-out loss; a smaller improvement does not count
_RANK_SEED_STRIDE = 7_919  # the judge's seed is the next number, so processes must be further apart

TrainingState = Mapping[str, Tensor]
"""All values of a training run, by name."""


class TrainingRun:
    """A scorer in training, its optimiser, and the best weights so far.

    Within torch.distributed, every process draws its part of each batch, and gradients are averaged.

    Parameters
    ----------
    scorer : Scorer
        Tensors on the device of the training.
    training : TrainingSettings
    generator : torch.Generator
        Source of all random numbers after the initial weights.
    """

    def __init__(self, scorer: Scorer, training: TrainingSettings, generator: torch.Generator) -> None:
        self.scorer, self.training, self.generator = scorer, training, generator
        self._trained: list[Tensor] = [weight.requires_grad_() for weight in scorer.trained_weights()]
        self._optimiser = torch.optim.AdamW(
            self._trained, lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self._scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, training.steps)
        self.step = self.checks_without_gain = 0
        self.finished = False
        self.best_loss = float("inf")
        self._best = _clone_weights(scorer)
        # All processes start from the same weights, which are drawn before; their crops must differ.
        if process_rank():
            generator.manual_seed(generator.initial_seed() + _RANK_SEED_STRIDE * process_rank())

    @property
    def local_batch(self) -> int:
        """Number of crops per side that this process draws for a step."""
        return self.training.batch // world_size()

    @property
    def validation_due(self) -> bool:
        """True if the held-out takes are to be scored now."""
        return not self.step % self.training.check_every or self.step == self.training.steps

    def iterate_checks(self, draw_loss: Callable[[], Tensor]) -> Iterator[float]:
        """Step down losses until the end; yields the last loss whenever the scorer is to be validated."""
        while not self.finished:
            loss = draw_loss()
            self.update(loss)
            if self.validation_due:
                yield loss.item()

    def update(self, loss: Tensor) -> None:
        """Take one step along the gradient of a loss."""
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        # The mean of the processes' gradients is that of the whole batch.
        if world_size() > 1:
            for parameter in self._trained:
                assert parameter.grad is not None
                distributed.all_reduce(parameter.grad)
                parameter.grad /= world_size()
        self._optimiser.step()
        self._scheduler.step()
        self.step += 1
        self.finished = self.step >= self.training.steps

    def record_validation(self, held_out_loss: float) -> None:
        """Keep the weights if they are the best; stop after `patience` checks without improvement."""
        if held_out_loss < self.best_loss - _MIN_LOSS_GAIN:
            self.best_loss, self.checks_without_gain = held_out_loss, 0
            self._best = _clone_weights(self.scorer)
        else:
            self.checks_without_gain += 1
            self.finished = self.finished or self.checks_without_gain >= self.training.patience

    def load_best(self) -> None:
        """Load the best weights into the scorer."""
        self._load_weights(self._best)

    def state(self) -> dict[str, Tensor]:
        """Return a checkpoint: all that the next step depends on."""
        # The schedule is recursive: the step and the current rate are all of its state.
        (rate,) = self._scheduler.get_last_lr()
        progress = [self.step, self.checks_without_gain, self.finished, self.best_loss, rate]
        # Keys are part of the file format of checkpoints.
        state = {"told": torch.tensor(progress, dtype=torch.float64)}
        state["generator"] = self.generator.get_state()
        for name, weights in (("scorer", self.scorer.weights), ("best", self._best)):
            state |= {f"{name}.{key}": value.detach().cpu().clone() for key, value in weights.items()}
        for number, moments in self._optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{number}.{key}": value.cpu().clone() for key, value in moments.items()}
        return state

    def resume(self, state: TrainingState) -> None:
        """Continue from a checkpoint; KeyError or ValueError if it does not match."""
        step, checks_without_gain, finished, self.best_loss, rate = state["told"].tolist()
        self.step, self.checks_without_gain, self.finished = (
            int(step),
            int(checks_without_gain),
            bool(finished),
        )
        self.generator.set_state(state["generator"])
        self._load_weights(tensors_below("scorer.", state))
        self._best = tensors_below("best.", state)
        optimiser = self._optimiser.state_dict()
        optimiser["state"] = {}
        for key, value in tensors_below("optimiser.", state).items():
            number, name = key.split(".", 1)
            optimiser["state"].setdefault(int(number), {})[name] = value
        for group in optimiser["param_groups"]:
            group["lr"] = rate
        self._optimiser.load_state_dict(optimiser)
        position = {"last_epoch": self.step, "_step_count": self.step + 1, "_last_lr": [rate]}
        self._scheduler.load_state_dict({**self._scheduler.state_dict(), **position})

    def _load_weights(self, weights: Mapping[str, Tensor]) -> None:
        check_shapes(weights, scorer_shapes(self.scorer.settings, self.scorer.spectrum))
        # In place: the optimiser holds the same tensors.
        with torch.no_grad():
            for name, weight in self.scorer.weights.items():
                weight.copy_(weights[name])


def start_run(
    settings: ScorerSettings,
    spectrum: SpectrumSettings,
    training: TrainingSettings,
    row_mean: Callable[[Scorer], NDArray[np.float32]],
    *,
    seed: int,
    device: str,
    state: TrainingState | None,
) -> TrainingRun:
    """Build a scorer on a device, and its training run; continues from `state` if given.

    `row_mean` returns the mean relative level [row] of the training data, for a scorer of arrays.
    """
    generator = torch.Generator().manual_seed(seed)
    scorer = initial_scorer(settings, spectrum, generator)
    scorer.weights["row_mean"] = row_mean(scorer)
    run = TrainingRun(scorer.as_tensors(device), training, generator)
    if state is not None:
        run.resume(state)
    return run


def initial_scorer(
    settings: ScorerSettings, spectrum: SpectrumSettings, generator: torch.Generator
) -> Scorer:
    """Return a scorer of arrays with random weights and a mean row of 0 dB."""
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in scorer_shapes(settings, spectrum).items():
        tensor = torch.zeros(shape)
        if name.endswith(".weight"):  # He initialisation
            torch.nn.init.kaiming_normal_(tensor, nonlinearity="relu", generator=generator)
        weights[name] = tensor.numpy()
    weights["linear.weight"] *= np.float32(0.1)  # first scores near 0.5, where the sigmoid is not flat
    weights["loud_row"] = loudness_row(settings, spectrum).astype(np.float32)
    return Scorer(settings, spectrum, weights)


def process_rank() -> int:
    """Return the rank of this process; 0 if it is the only one."""
    return distributed.get_rank() if _is_distributed() else 0


def world_size() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if _is_distributed() else 1


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        distributed.barrier()


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _clone_weights(scorer: Scorer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in scorer.weights.items()}


@contextmanager
def distributed_group(device: str, training: TrainingSettings) -> Iterator[str]:
    """Connect the processes that `torchrun` started; yields the device of this one.

    CallError if the batch is not a multiple of the number of processes. DeviceError if the machine has fewer
    CUDA devices than processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield device
        return
    if training.batch % count:
        raise CallError(
            f"training.batch is {training.batch}, which {count} processes cannot share: set a multiple "
            f"of {count}"
        )
    if device == "cuda":
        index = int(os.environ["LOCAL_RANK"])
        if index >= torch.cuda.device_count():
            raise DeviceError(
                f"process {index} has no CUDA device; this machine has "
                f"{torch.cuda.device_count()}: start that many processes at most"
            )
        torch.cuda.set_device(index)
        device = f"cuda:{index}"
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()
