"""How small the scorer can be (paper III): a ladder of sizes, each tried on the same splits.

Two folders → the smallest scorer that is good enough (paper III: few parameters).
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from tonewood.data.loading import (
    AuditProgress,
    SideLoadProgress,
    load_sides,
    plan_side_normalization,
)
from tonewood.scorer.training import (
    LabelledTakes,
    TrainedScorer,
    ValidationCheck,
    euclidean_loss,
    train_scorer,
)
from tonewood.settings import ModelSettings, ScorerSettings, SpectrumSettings, TrainingSettings
from tonewood.training.scorers import hold_out_takes
from tonewood.utils.atomic_write import atomic_path
from tonewood.utils.device import check_device


class ScorerSize(NamedTuple):
    """`scorer.width` and `scorer.depth`."""

    width: int
    depth: int


# About twice the parameters from rung to rung, 325 to 93,249.
SIZES = (
    ScorerSize(12, 1), ScorerSize(6, 2), ScorerSize(9, 2), ScorerSize(8, 3), ScorerSize(12, 3), ScorerSize(16, 3), ScorerSize(20, 4),
    ScorerSize(32, 4),
)  # fmt: skip


class SizeTrial(NamedTuple):
    """One split of the takes, and the seed that draws all else; every size gets the same."""

    seed: int
    train: LabelledTakes
    held_out: LabelledTakes


class TrialMean(NamedTuple):
    """Mean over trials and its standard error."""

    mean: float
    error: float

    @classmethod
    def from_values(cls, values: Sequence[float]) -> "TrialMean":
        """From one value a trial, two at least."""
        return cls(statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)))


@dataclass(frozen=True)
class SizeResult:
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

    size: ScorerSize
    parameters: int
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    windows: int
    seconds: float

    @property
    def accuracy(self) -> TrialMean:
        """Held-out accuracy."""
        return TrialMean.from_values(self.accuracies)

    @property
    def standard_error(self) -> float:
        """Standard error of the accuracy, by the trials or by the windows, whichever is larger.

        Trials without a single error do not differ, and yet so many windows leave room for some:
        the binomial error after two more of each kind (Agresti & Coull 1998).
        """
        total = self.windows + 4
        share = (self.accuracy.mean * self.windows + 2) / total
        return max(self.accuracy.error, math.sqrt(share * (1 - share) / total))

    @property
    def loss(self) -> TrialMean:
        """Held-out loss."""
        return TrialMean.from_values(self.losses)


class SizeProgress(NamedTuple):
    """A check during one training; sizes and trials count from 1."""

    size: ScorerSize
    number: int
    sizes: int
    trial: int
    trials: int
    check: ValidationCheck


def evaluate_sizes(
    trials: Sequence[SizeTrial],
    scorer: ScorerSettings,
    spectrum: SpectrumSettings,
    training: TrainingSettings,
    *,
    sizes: Sequence[ScorerSize] = SIZES,
    device: str = "cpu",
) -> Iterator[SizeProgress | SizeResult]:
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
        fits: list[TrainedScorer] = []
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
                if isinstance(event, ValidationCheck):
                    yield SizeProgress(size, number, len(sizes), index, len(trials), event)
                else:
                    fits.append(event)
        yield SizeResult(
            size=size,
            parameters=fits[0].scorer.parameter_count,
            accuracies=tuple(fit.accuracy for fit in fits),
            windows=sum(fit.windows for fit in fits),
            losses=tuple(euclidean_loss(fit.reference_scores, fit.source_scores) for fit in fits),
            seconds=math.fsum(fit.seconds for fit in fits),
        )


def smallest_sufficient(results: Sequence[SizeResult]) -> SizeResult:
    """The fewest parameters within one standard error of the best accuracy.

    Breiman, Friedman, Olshen & Stone, *Classification and Regression Trees* (1984), 3.4.3. The
    error is the best rung's `doubt`; of several best the smallest counts.
    """
    rising = sorted(results, key=lambda rung: rung.parameters)
    best = max(rising, key=lambda rung: rung.accuracy.mean)  # max keeps the first of equals
    enough = best.accuracy.mean - best.standard_error
    return next(rung for rung in rising if rung.accuracy.mean >= enough)


def find_knee(results: Sequence[SizeResult]) -> SizeResult:
    """Where more parameters stop paying: farthest above the chord of the curve.

    After Satopää et al., *Finding a "Kneedle" in a Haystack* (2011): both axes scaled to 0..1,
    parameters by their logarithm. The curve is the best accuracy that so many parameters or fewer
    gave, so that it never falls. A curve that never rises has its knee at its foot.
    """
    rising = sorted(results, key=lambda rung: rung.parameters)
    across = _scale_to_unit([math.log(rung.parameters) for rung in rising])
    up = _scale_to_unit(list(accumulate((rung.accuracy.mean for rung in rising), max)))
    above = [y - x for x, y in zip(across, up, strict=True)]
    return rising[above.index(max(above))]


def _scale_to_unit(values: Sequence[float]) -> list[float]:
    """Rising values brought to 0..1; all 0 where they are equal."""
    low, high = values[0], values[-1]
    return [(value - low) / ((high - low) or 1.0) for value in values]


TRIALS_PER_SIZE = 3


@dataclass(frozen=True)
class SizeSearchResult:
    """Every size tried, fewest parameters first, and what follows from them."""

    results: tuple[SizeResult, ...]

    @property
    def chosen(self) -> SizeResult:
        """The smallest within one standard error of the best accuracy."""
        return smallest_sufficient(self.results)

    @property
    def knee(self) -> SizeResult:
        """Where more parameters stop paying."""
        return find_knee(self.results)

    @property
    def options(self) -> str:
        """The chosen size as `train` takes it."""
        size = self.chosen.size
        return f"--set scorer.width={size.width} --set scorer.depth={size.depth}"


def search_sizes(
    reference: Path,
    source: Path,
    settings: ModelSettings,
    *,
    sizes: Sequence[ScorerSize] = SIZES,
    trials: int = TRIALS_PER_SIZE,
    device: str = "cpu",
) -> Iterator[AuditProgress | SideLoadProgress | SizeProgress | SizeResult | SizeSearchResult]:
    """Try every size on the same splits; yields its progress and, last, the `SizeSearchResult`.

    The first trial's seed and split are those that `train` uses with these settings, the next
    trials' the numbers after it.

    Parameters
    ----------
    reference, source : Path
        Folders; what they hold need not correspond.
    settings : ModelSettings
        All but the scorer's width and depth, which the ladder sets.

    Raises
    ------
    FolderError, AudioError
        A folder or a recording in it cannot teach; it is named.
    DeviceError
        There is no such device.
    """
    check_device(device)
    fix = yield from plan_side_normalization(reference, source, settings)
    takes = yield from load_sides(reference, source, settings, normalization=fix)
    training = settings.training
    seeds = range(training.seed, training.seed + trials)
    tried = [SizeTrial(seed, *hold_out_takes(takes, training.held_out, seed)) for seed in seeds]
    rungs = []
    for event in evaluate_sizes(
        tried, settings.scorer, settings.spectrum, training, sizes=sizes, device=device
    ):
        yield event
        if isinstance(event, SizeResult):
            rungs.append(event)
    yield SizeSearchResult(tuple(sorted(rungs, key=lambda rung: rung.parameters)))


def plot_scorer_sizes(path: Path, ladder: SizeSearchResult, *, overwrite: bool = False) -> None:
    """Draw held-out accuracy and loss against parameters, knee and choice marked, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    parameters = [rung.parameters for rung in ladder.results]
    marks = (
        (ladder.knee, {"marker": "D", "s": 110, "facecolor": "none", "edgecolor": "tab:orange"}),
        (ladder.chosen, {"marker": "o", "s": 220, "facecolor": "none", "edgecolor": "tab:red"}),
    )
    for axes, name in zip(panels, ("accuracy", "loss"), strict=True):
        estimates = [getattr(rung, name) for rung in ladder.results]
        axes.errorbar(
            parameters,
            [estimate.mean for estimate in estimates],
            [estimate.error for estimate in estimates],
            marker=".",
            capsize=3,
        )
        for (rung, style), label in zip(marks, ("knee", "chosen"), strict=True):
            axes.scatter([rung.parameters], [getattr(rung, name).mean], label=label, **style)
        axes.set(xscale="log", ylabel=f"held-out {name}")
        axes.grid(alpha=0.3)
    panels[0].legend()
    panels[1].set_xlabel("parameters")
    size = ladder.chosen.size
    figure.suptitle(
        f"width {size.width}, depth {size.depth}: the smallest scorer within one standard error of the best"
    )
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=110)
