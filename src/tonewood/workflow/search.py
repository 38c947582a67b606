"""Two folders → the smallest scorer that is good enough (paper III: few parameters)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tonewood.scoring.search import (
    LADDER,
    Look,
    Rung,
    Size,
    Trial,
    climb,
    knee,
    smallest_sufficient,
)
from tonewood.settings import ModelSettings
from tonewood.workflow.audit import Listened
from tonewood.workflow.courses import hold_out
from tonewood.workflow.sides import Loaded, load_sides, plan_fix
from tonewood.workflow.train import check_device

TRIALS = 3


@dataclass(frozen=True)
class Ladder:
    """Every size tried, fewest parameters first, and what follows from them."""

    rungs: tuple[Rung, ...]

    @property
    def chosen(self) -> Rung:
        """The smallest within one standard error of the best accuracy."""
        return smallest_sufficient(self.rungs)

    @property
    def knee(self) -> Rung:
        """Where more parameters stop paying."""
        return knee(self.rungs)

    @property
    def options(self) -> str:
        """The chosen size as `train` takes it."""
        size = self.chosen.size
        return f"--set scorer.width={size.width} --set scorer.depth={size.depth}"


def search(
    reference: Path,
    source: Path,
    settings: ModelSettings,
    *,
    sizes: Sequence[Size] = LADDER,
    trials: int = TRIALS,
    device: str = "cpu",
) -> Iterator[Listened | Loaded | Look | Rung | Ladder]:
    """Try every size on the same splits; yields its progress and, last, the `Ladder`.

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
    fix = yield from plan_fix(reference, source, settings)
    takes = yield from load_sides(reference, source, settings, fix=fix)
    training = settings.training
    seeds = range(training.seed, training.seed + trials)
    tried = [Trial(seed, *hold_out(takes, training.held_out, seed)) for seed in seeds]
    rungs = []
    for event in climb(
        tried, settings.scorer, settings.spectrum, training, sizes=sizes, device=device
    ):
        yield event
        if isinstance(event, Rung):
            rungs.append(event)
    yield Ladder(tuple(sorted(rungs, key=lambda rung: rung.parameters)))
