"""One scorer's training, step by step: kept, taken up again, and shared by several processes.

What is kept is all that the next step depends on, the random draws included: a training that is
taken up again ends with the very same scorer as one that was never stopped.

Several processes that train one scorer: what `torchrun` starts, joined by torch.distributed.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from tonewood.errors import CallError, DeviceError
from tonewood.scorer.network import Scorer
from tonewood.settings import TrainingSettings

_MIN_LOSS_GAIN = 1e-4  # in held-out loss, for it to count as one
_RANK_SEED_STRIDE = 7_919  # of the processes' seeds: far from the judge's, which is the next number

TrainingState = Mapping[str, Tensor]
"""All of a course, by name."""


class TrainingRun:
    """Weights on their way, with the best so far.

    Where torch.distributed has been joined, every process takes its part of each batch, draws for
    itself, and gradients are averaged; a single process draws and steps as without it.

    Parameters
    ----------
    scorer : Scorer
        On the device where it is trained.
    training : TrainingSettings
    generator : torch.Generator
        Has drawn the initial weights; draws all else from now on.
    """

    def __init__(self, scorer: Scorer, training: TrainingSettings, generator: torch.Generator) -> None:
        self.scorer, self.training, self.generator = scorer, training, generator
        self._optimiser = torch.optim.AdamW(
            scorer.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self._scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, training.steps)
        self.step = self.checks_without_gain = 0
        self.finished = False
        self.best_loss = float("inf")
        self._best = _clone_weights(scorer)
        if process_rank():
            generator.manual_seed(generator.initial_seed() + _RANK_SEED_STRIDE * process_rank())

    @property
    def local_batch(self) -> int:
        """Crops of each side that this process draws for a step."""
        return self.training.batch // world_size()

    @property
    def validation_due(self) -> bool:
        """Whether it is time for a look at what is held out."""
        return not self.step % self.training.check_every or self.step == self.training.steps

    def update(self, loss: Tensor) -> None:
        """Take one step down a loss."""
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if world_size() > 1:
            for parameter in self.scorer.parameters():
                assert parameter.grad is not None
                distributed.all_reduce(parameter.grad)
                parameter.grad /= world_size()
        self._optimiser.step()
        self._scheduler.step()
        self.step += 1
        self.finished = self.step >= self.training.steps

    def record_validation(self, held_out_loss: float) -> None:
        """Remember the weights if none were better; end where patience does."""
        if held_out_loss < self.best_loss - _MIN_LOSS_GAIN:
            self.best_loss, self.checks_without_gain = held_out_loss, 0
            self._best = _clone_weights(self.scorer)
        else:
            self.checks_without_gain += 1
            self.finished = self.finished or self.checks_without_gain >= self.training.patience

    def load_best(self) -> None:
        """Give the scorer the best weights of all looks."""
        self.scorer.load_state_dict(self._best)

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on."""
        (rate,) = self._scheduler.get_last_lr()
        told = [self.step, self.checks_without_gain, self.finished, self.best_loss, rate]
        kept = {"told": torch.tensor(told, dtype=torch.float64)}
        kept["generator"] = self.generator.get_state()
        for name, own in (("scorer", self.scorer.state_dict()), ("best", self._best)):
            kept |= {f"{name}.{key}": value.detach().cpu().clone() for key, value in own.items()}
        for number, of in self._optimiser.state_dict()["state"].items():
            kept |= {f"optimiser.{number}.{key}": value.cpu().clone() for key, value in of.items()}
        return kept

    def resume(self, state: TrainingState) -> None:
        """Take up where a state was taken; raises KeyError or RuntimeError otherwise."""
        step, waited, ended, self.best_loss, rate = state["told"].tolist()
        self.step, self.checks_without_gain, self.finished = int(step), int(waited), bool(ended)
        self.generator.set_state(state["generator"])
        self.scorer.load_state_dict(_strip_prefix("scorer.", state))
        self._best = _strip_prefix("best.", state)
        kept = self._optimiser.state_dict()
        kept["state"] = {}
        for key, value in _strip_prefix("optimiser.", state).items():
            number, name = key.split(".", 1)
            kept["state"].setdefault(int(number), {})[name] = value
        for group in kept["param_groups"]:
            group["lr"] = rate
        self._optimiser.load_state_dict(kept)
        at = {"last_epoch": self.step, "_step_count": self.step + 1, "_last_lr": [rate]}
        self._scheduler.load_state_dict({**self._scheduler.state_dict(), **at})


def process_rank() -> int:
    """Number of this process among those that train together; 0 where it trains alone."""
    return distributed.get_rank() if _is_distributed() else 0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _is_distributed() else 1


def barrier() -> None:
    """Wait until every process has come as far as this."""
    if world_size() > 1:
        distributed.barrier()


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _clone_weights(scorer: Scorer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in scorer.state_dict().items()}


def _strip_prefix(prefix: str, state: TrainingState) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@contextmanager
def distributed_group(device: str, training: TrainingSettings) -> Iterator[str]:
    """Join the processes that `torchrun` started; yields the device of this one.

    Alone, which may be under `torchrun` too, nothing is joined and nothing changes.

    Raises
    ------
    CallError
        Batches cannot be shared out among so many.
    DeviceError
        There are not as many CUDA devices on this machine as processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield device
        return
    if training.batch % count:
        raise CallError(
            f"training.batch is {training.batch}; {count} processes cannot share it out: set a "
            f"multiple of {count}"
        )
    if device == "cuda":
        place = int(os.environ["LOCAL_RANK"])
        if place >= torch.cuda.device_count():
            raise DeviceError(
                f"process {place} of this machine has no CUDA device of its own; there are "
                f"{torch.cuda.device_count()}: start no more processes than that"
            )
        torch.cuda.set_device(place)
        device = f"cuda:{place}"
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()
