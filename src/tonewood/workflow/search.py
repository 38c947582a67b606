"""Two folders → the smallest scorer that is good enough (paper III: few parameters)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tonewood.scoring.search import (
    SIZES,
    SizeProgress,
    SizeResult,
    ScorerSize,
    SizeTrial,
    evaluate_sizes,
    find_knee,
    smallest_sufficient,
)
from tonewood.settings import ModelSettings
from tonewood.workflow.audit import AuditProgress
from tonewood.workflow.courses import hold_out_takes
from tonewood.workflow.sides import SideLoadProgress, load_sides, plan_side_normalization
from tonewood.workflow.train import check_device

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
