"""One scorer's training, step by step: kept, taken up again, and shared by several processes.

What is kept is all that the next step depends on, the random draws included: a training that is
taken up again ends with the very same scorer as one that was never stopped.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, distributed

from tonewood.scoring.scorer import Scorer
from tonewood.settings import TrainingSettings

_LEAST_GAIN = 1e-4  # in held-out loss, for it to count as one
_APART = 7_919  # of the processes' seeds: far from the judge's, which is the next number

State = Mapping[str, Tensor]
"""All of a course, by name."""


class Course:
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

    def __init__(
        self, scorer: Scorer, training: TrainingSettings, generator: torch.Generator
    ) -> None:
        self.scorer, self.training, self.generator = scorer, training, generator
        self._optimiser = torch.optim.AdamW(
            scorer.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, training.steps)
        self.step = self.waited = 0
        self.ended = False
        self.best_loss = float("inf")
        self._best = _copied(scorer)
        if rank():
            generator.manual_seed(generator.initial_seed() + _APART * rank())

    @property
    def batch(self) -> int:
        """Crops of each side that this process draws for a step."""
        return self.training.batch // world()

    @property
    def due(self) -> bool:
        """Whether it is time for a look at what is held out."""
        return not self.step % self.training.check_every or self.step == self.training.steps

    def learn(self, loss: Tensor) -> None:
        """Take one step down a loss."""
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if world() > 1:
            for parameter in self.scorer.parameters():
                assert parameter.grad is not None
                distributed.all_reduce(parameter.grad)
                parameter.grad /= world()
        self._optimiser.step()
        self._schedule.step()
        self.step += 1
        self.ended = self.step >= self.training.steps

    def look(self, held_out_loss: float) -> None:
        """Remember the weights if none were better; end where patience does."""
        if held_out_loss < self.best_loss - _LEAST_GAIN:
            self.best_loss, self.waited = held_out_loss, 0
            self._best = _copied(self.scorer)
        else:
            self.waited += 1
            self.ended = self.ended or self.waited >= self.training.patience

    def take_best(self) -> None:
        """Give the scorer the best weights of all looks."""
        self.scorer.load_state_dict(self._best)

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on."""
        (rate,) = self._schedule.get_last_lr()
        told = [self.step, self.waited, self.ended, self.best_loss, rate]
        kept = {"told": torch.tensor(told, dtype=torch.float64)}
        kept["generator"] = self.generator.get_state()
        for name, own in (("scorer", self.scorer.state_dict()), ("best", self._best)):
            kept |= {f"{name}.{key}": value.detach().cpu().clone() for key, value in own.items()}
        for number, of in self._optimiser.state_dict()["state"].items():
            kept |= {f"optimiser.{number}.{key}": value.cpu().clone() for key, value in of.items()}
        return kept

    def resume(self, state: State) -> None:
        """Take up where a state was taken; raises KeyError or RuntimeError otherwise."""
        step, waited, ended, self.best_loss, rate = state["told"].tolist()
        self.step, self.waited, self.ended = int(step), int(waited), bool(ended)
        self.generator.set_state(state["generator"])
        self.scorer.load_state_dict(_under("scorer.", state))
        self._best = _under("best.", state)
        kept = self._optimiser.state_dict()
        kept["state"] = {}
        for key, value in _under("optimiser.", state).items():
            number, name = key.split(".", 1)
            kept["state"].setdefault(int(number), {})[name] = value
        for group in kept["param_groups"]:
            group["lr"] = rate
        self._optimiser.load_state_dict(kept)
        at = {"last_epoch": self.step, "_step_count": self.step + 1, "_last_lr": [rate]}
        self._schedule.load_state_dict({**self._schedule.state_dict(), **at})


def rank() -> int:
    """Number of this process among those that train together; 0 where it trains alone."""
    return distributed.get_rank() if _joined() else 0


def world() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _joined() else 1


def wait() -> None:
    """Wait until every process has come as far as this."""
    if world() > 1:
        distributed.barrier()


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _copied(scorer: Scorer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in scorer.state_dict().items()}


def _under(prefix: str, state: State) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
