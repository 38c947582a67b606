"""Search for the smallest sufficient scorer (paper, section III): sizes trained on the same splits."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from tonewood.data.loading import RecordingProgress, load_sides, plan_side_normalization
from tonewood.html_report import save_figure
from tonewood.scorer.training import (
    LabelledTakes,
    TrainedScorer,
    ValidationCheck,
    euclidean_loss,
    train_scorer,
)
from tonewood.settings import ModelSettings, ScorerSettings, SpectrumSettings, TrainingSettings
from tonewood.training.networks import hold_out_takes
from tonewood.utils.files import atomic_path
from tonewood.utils.parallel import check_device


class ScorerSize(NamedTuple):
    """Settings `scorer.width` and `scorer.depth`."""

    width: int
    depth: int


# 325 to 93,249 parameters, about doubling from size to size.
SIZES = (
    ScorerSize(12, 1), ScorerSize(6, 2), ScorerSize(9, 2), ScorerSize(8, 3),
    ScorerSize(12, 3), ScorerSize(16, 3), ScorerSize(20, 4), ScorerSize(32, 4),
)  # fmt: skip
TRIALS_PER_SIZE = 3


class SizeTrial(NamedTuple):
    """A split of the takes and a seed, the same for every size."""

    seed: int
    train: LabelledTakes
    held_out: LabelledTakes


class TrialMean(NamedTuple):
    """Mean over trials, and its standard error."""

    mean: float
    error: float

    @classmethod
    def from_values(cls, values: Sequence[float]) -> "TrialMean":
        """Average one value per trial, at least two."""
        return cls(statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)))


@dataclass(frozen=True)
class SizeResult:
    """Results of one size on held-out takes."""

    size: ScorerSize
    parameters: int
    # Balanced accuracy, and squared error with both sides weighted equally, of each trial
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    windows: int  # number of held-out windows in all trials
    seconds: float

    @property
    def accuracy(self) -> TrialMean:
        """Held-out accuracy."""
        return TrialMean.from_values(self.accuracies)

    @property
    def standard_error(self) -> float:
        """Standard error of the accuracy, over trials or over windows, whichever is larger.

        Trials without any error do not differ, although the windows leave an uncertainty: that of the
        binomial proportion after adding two of each outcome (Agresti & Coull 1998).
        """
        total = self.windows + 4  # two successes and two failures more
        share = (self.accuracy.mean * self.windows + 2) / total
        return max(self.accuracy.error, math.sqrt(share * (1 - share) / total))

    @property
    def loss(self) -> TrialMean:
        """Held-out loss."""
        return TrialMean.from_values(self.losses)


class SizeProgress(NamedTuple):
    """A validation check during one training; sizes and trials are numbered from 1."""

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
    """Train every size on every trial; yields `SizeProgress`, and a `SizeResult` per size.

    Parameters
    ----------
    trials : sequence of SizeTrial
        At least two, for a standard error.
    scorer : ScorerSettings
        Width and depth are replaced.
    """
    assert len(trials) >= 2
    for number, size in enumerate(sizes, start=1):
        # The same splits and seeds for every size, so that only the size differs.
        settings = scorer.replace(width=size.width, depth=size.depth)
        fits: list[TrainedScorer] = []
        for index, trial in enumerate(trials, start=1):
            for event in train_scorer(
                trial.train, trial.held_out, settings, spectrum, training, seed=trial.seed, device=device
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
    """Return the smallest size whose accuracy is within one standard error of the best.

    The one-standard-error rule of Breiman, Friedman, Olshen & Stone, *Classification and Regression
    Trees* (1984), 3.4.3, with the error of the best size; of equally good ones, of the smallest.
    """
    rising = sorted(results, key=lambda result: result.parameters)
    best = max(rising, key=lambda result: result.accuracy.mean)  # max returns the first of equals
    sufficient = best.accuracy.mean - best.standard_error
    return next(result for result in rising if result.accuracy.mean >= sufficient)


def find_knee(results: Sequence[SizeResult]) -> SizeResult:
    """Return the size beyond which more parameters add little: the one farthest above the chord.

    After Satopää et al., *Finding a "Kneedle" in a Haystack* (2011), over the logarithm of the
    parameters. The curve is the running maximum of the accuracy, so it never falls; the knee of a
    flat curve is its first size.
    """
    rising = sorted(results, key=lambda result: result.parameters)
    x = _scale_to_unit([math.log(result.parameters) for result in rising])
    # Both axes in [0, 1]: the chord is the diagonal, and y - x the height above it.
    y = _scale_to_unit(list(accumulate((result.accuracy.mean for result in rising), max)))
    above_chord = [b - a for a, b in zip(x, y, strict=True)]
    return rising[above_chord.index(max(above_chord))]


def _scale_to_unit(values: Sequence[float]) -> list[float]:
    """Scale rising values to [0, 1]; equal values become 0."""
    low, high = values[0], values[-1]
    return [(value - low) / ((high - low) or 1.0) for value in values]


@dataclass(frozen=True)
class SizeSearchResult:
    """Results of all sizes, fewest parameters first."""

    results: tuple[SizeResult, ...]

    @property
    def chosen(self) -> SizeResult:
        """Smallest size within one standard error of the best accuracy."""
        return smallest_sufficient(self.results)

    @property
    def knee(self) -> SizeResult:
        """Size beyond which more parameters add little."""
        return find_knee(self.results)

    @property
    def options(self) -> str:
        """Options of `train` for the chosen size."""
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
) -> Iterator[RecordingProgress | SizeProgress | SizeResult | SizeSearchResult]:
    """Train every size on the same splits; yields progress and, last, the `SizeSearchResult`.

    The first trial has the seed and split that `train` uses with these settings; the seed increases
    by 1 from trial to trial.

    Parameters
    ----------
    reference, source : Path
        Folders, without pairs.
    settings : ModelSettings
        The scorer's width and depth are replaced.

    Raises
    ------
    FolderError, AudioError
        A folder, or a recording in it, cannot be used for training.
    DeviceError
        The device does not exist.
    """
    check_device(device)
    normalization = yield from plan_side_normalization(reference, source, settings)
    takes = yield from load_sides(reference, source, settings, normalization=normalization)
    training = settings.training
    seeds = range(training.seed, training.seed + trials)
    size_trials = [SizeTrial(seed, *hold_out_takes(takes, training.held_out, seed)) for seed in seeds]
    results = []
    for event in evaluate_sizes(
        size_trials, settings.scorer, settings.spectrum, training, sizes=sizes, device=device
    ):
        yield event
        if isinstance(event, SizeResult):
            results.append(event)
    yield SizeSearchResult(tuple(sorted(results, key=lambda result: result.parameters)))


def plot_scorer_sizes(path: Path, search: SizeSearchResult, *, overwrite: bool = False) -> None:
    """Plot held-out accuracy and loss over the number of parameters, as a PNG."""
    # Imported here, since matplotlib takes a second and is rarely needed.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    parameters = [result.parameters for result in search.results]
    marks = (
        (search.knee, {"marker": "D", "s": 110, "facecolor": "none", "edgecolor": "tab:orange"}),
        (search.chosen, {"marker": "o", "s": 220, "facecolor": "none", "edgecolor": "tab:red"}),
    )
    for axes, name in zip(panels, ("accuracy", "loss"), strict=True):
        estimates = [getattr(result, name) for result in search.results]
        axes.errorbar(
            parameters,
            [estimate.mean for estimate in estimates],
            [estimate.error for estimate in estimates],
            marker=".",
            capsize=3,
        )
        for (result, style), label in zip(marks, ("knee", "chosen"), strict=True):
            axes.scatter([result.parameters], [getattr(result, name).mean], label=label, **style)
        axes.set(xscale="log", ylabel=f"held-out {name}")
        axes.grid(alpha=0.3)
    panels[0].legend()
    panels[1].set_xlabel("parameters")
    size = search.chosen.size
    figure.suptitle(
        f"width {size.width}, depth {size.depth}: the smallest scorer within one standard error of the best"
    )
    with atomic_path(path, overwrite) as temporary:
        save_figure(figure, temporary, dpi=110)
