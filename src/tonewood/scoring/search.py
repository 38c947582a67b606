"""How small the scorer can be (paper III): a ladder of sizes, each tried on the same splits."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from tonewood.scoring.training import Check, Fit, Takes, euclidean_loss, train_scorer
from tonewood.settings import ScorerSettings, SpectrumSettings, TrainingSettings


class Size(NamedTuple):
    """`scorer.width` and `scorer.depth`."""

    width: int
    depth: int


# About twice the parameters from rung to rung, 325 to 93,249.
LADDER = (
    Size(12, 1), Size(6, 2), Size(9, 2), Size(8, 3), Size(12, 3), Size(16, 3), Size(20, 4),
    Size(32, 4),
)  # fmt: skip


class Trial(NamedTuple):
    """One split of the takes, and the seed that draws all else; every size gets the same."""

    seed: int
    train: Takes
    held_out: Takes


class Estimate(NamedTuple):
    """Mean over trials and its standard error."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """From one value a trial, two at least."""
        return cls(statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)))


@dataclass(frozen=True)
class Rung:
    """One size and how it does on takes that it never saw.

    Parameters
    ----------
    accuracies : tuple of float
        Balanced held-out accuracy of each trial.
    losses : tuple of float
        Held-out squared error of each trial, both sides weighing the same.
    windows : int
        Held-out windows of all trials.
    """

    size: Size
    parameters: int
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    windows: int
    seconds: float

    @property
    def accuracy(self) -> Estimate:
        """Held-out accuracy."""
        return Estimate.of(self.accuracies)

    @property
    def doubt(self) -> float:
        """Standard error of the accuracy, by the trials or by the windows, whichever is larger.

        Trials without a single error do not differ, and yet so many windows leave room for some:
        the binomial error after two more of each kind (Agresti & Coull 1998).
        """
        total = self.windows + 4
        share = (self.accuracy.mean * self.windows + 2) / total
        return max(self.accuracy.error, math.sqrt(share * (1 - share) / total))

    @property
    def loss(self) -> Estimate:
        """Held-out loss."""
        return Estimate.of(self.losses)


class Look(NamedTuple):
    """A check during one training; sizes and trials count from 1."""

    size: Size
    number: int
    sizes: int
    trial: int
    trials: int
    check: Check


def climb(
    trials: Sequence[Trial],
    scorer: ScorerSettings,
    spectrum: SpectrumSettings,
    training: TrainingSettings,
    *,
    sizes: Sequence[Size] = LADDER,
    device: str = "cpu",
) -> Iterator[Look | Rung]:
    """Train every size on every trial; yields a `Look` at every check and a `Rung` a size.

    Parameters
    ----------
    trials : sequence of Trial
        Two at least: one has no standard error.
    scorer : ScorerSettings
        All of the scorer but width and depth.
    """
    assert len(trials) >= 2
    for number, size in enumerate(sizes, start=1):
        settings = scorer.model_copy(update=size._asdict())
        fits: list[Fit] = []
        for index, trial in enumerate(trials, start=1):
            for event in train_scorer(
                trial.train,
                trial.held_out,
                settings,
                spectrum,
                training,
                seed=trial.seed,
                device=device,
            ):
                if isinstance(event, Check):
                    yield Look(size, number, len(sizes), index, len(trials), event)
                else:
                    fits.append(event)
        yield Rung(
            size=size,
            parameters=fits[0].scorer.parameter_count,
            accuracies=tuple(fit.accuracy for fit in fits),
            windows=sum(fit.windows for fit in fits),
            losses=tuple(euclidean_loss(fit.reference_scores, fit.source_scores) for fit in fits),
            seconds=math.fsum(fit.seconds for fit in fits),
        )


def smallest_sufficient(rungs: Sequence[Rung]) -> Rung:
    """The fewest parameters within one standard error of the best accuracy.

    Breiman, Friedman, Olshen & Stone, *Classification and Regression Trees* (1984), 3.4.3. The
    error is the best rung's `doubt`; of several best the smallest counts.
    """
    rising = sorted(rungs, key=lambda rung: rung.parameters)
    best = max(rising, key=lambda rung: rung.accuracy.mean)  # max keeps the first of equals
    enough = best.accuracy.mean - best.doubt
    return next(rung for rung in rising if rung.accuracy.mean >= enough)


def knee(rungs: Sequence[Rung]) -> Rung:
    """Where more parameters stop paying: farthest above the chord of the curve.

    After Satopää et al., *Finding a "Kneedle" in a Haystack* (2011): both axes scaled to 0..1,
    parameters by their logarithm. The curve is the best accuracy that so many parameters or fewer
    gave, so that it never falls. A curve that never rises has its knee at its foot.
    """
    rising = sorted(rungs, key=lambda rung: rung.parameters)
    across = _scaled([math.log(rung.parameters) for rung in rising])
    up = _scaled(list(accumulate((rung.accuracy.mean for rung in rising), max)))
    above = [y - x for x, y in zip(across, up, strict=True)]
    return rising[above.index(max(above))]


def _scaled(values: Sequence[float]) -> list[float]:
    """Rising values brought to 0..1; all 0 where they are equal."""
    low, high = values[0], values[-1]
    return [(value - low) / ((high - low) or 1.0) for value in values]
