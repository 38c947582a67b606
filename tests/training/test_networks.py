"""Split of takes and ways for the networks."""

from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Folders, tiny_settings
from tests.training.conftest import Split
from tonewood.data.dataset import TrainingRecording
from tonewood.data.loading import DatasetSide
from tonewood.training.networks import CheckEvent, TakeWay, hold_out_takes
from tonewood.training.pipeline import train_model
from tonewood.utils.arrays import Levels

SIDES: tuple[DatasetSide, ...] = ("reference", "source")


def recording(group: str, value: float) -> TrainingRecording:
    """Return a recording of which only group, duration and levels are known."""
    features: Any = type("Features", (), {"rows_db": np.full((1, 1), value, np.float32)})()
    unknown = cast(Any, None)
    return TrainingRecording(Path(group), group, 1.0, "", features, unknown, unknown)


@given(seed=st.integers(0, 1_000), share=st.floats(0.1, 0.5), groups=st.integers(2, 7))
def test_ways_follow_the_groups_of_their_side(seed: int, share: float, groups: int) -> None:
    """Groups of the same name on both sides are different groups."""
    takes, ways = {}, []
    for side in SIDES:
        # The level of each take and way is a number of its own.
        offset = 1_000 * SIDES.index(side)
        takes[side] = [recording(f"day{k}", float(offset + k)) for k in range(groups)]
        for k, excerpt in product(range(groups), range(2)):
            level = np.full((1, 1), offset + k, np.float32)
            ways.append(TakeWay(side, f"day{k}", (level, level + excerpt)))
    parts = hold_out_takes(takes, share, seed, ways)
    for part in parts:
        own = sorted(rows.item() for rows in (*part.reference, *part.source))
        assert sorted(start.item() for start, _ in part.pairs) == sorted(2 * own)
    assert sum(len(part.pairs) for part in parts) == len(ways)


def test_split_without_ways_has_no_pairs() -> None:
    takes = {side: [recording(f"day{k}", k) for k in range(4)] for side in SIDES}
    assert [list(part.pairs) for part in hold_out_takes(takes, 0.25, 0)] == [[], []]


def are_alike(one: Levels, other: Levels) -> bool:
    """Compare levels [row, frame] in dB, but for the overall level and the rounding of half precision."""
    return np.allclose(one - one.mean(), other - other.mean(), atol=0.2)


@pytest.mark.usefixtures("fitted_correction")
def test_training_of_folders_uses_the_ways_of_both_sides(
    training_folders: Folders, splits: list[Split]
) -> None:
    """Of four takes a side, one is held out; ends of reference ways and starts of source ways are takes."""
    events = train_model(*training_folders, tiny_settings(steps=1))
    judged = (isinstance(event, CheckEvent) and event.network == "judge" for event in events)
    assert any(judged)
    events.close()  # type: ignore[attr-defined]
    assert len(splits) == 2
    for split in splits:
        assert [len(part.pairs) for part in split] == [6, 2]
        for part in split:
            for rows in part.source:
                assert sum(are_alike(start, rows) for start, _ in part.pairs) == 1
            for rows in part.reference:
                assert sum(are_alike(end, rows) for _, end in part.pairs) == 1


@pytest.mark.usefixtures("fitted_correction")
def test_ways_need_graded_targets(training_folders: Folders) -> None:
    """With labels, the same folders give another scorer, of the same accuracy on these simple sounds."""
    losses = []
    for targets in ("graded", "labels"):
        settings = tiny_settings(steps=1).replace(training={"targets": targets})
        events = train_model(*training_folders, settings)
        losses.append(next(event.check.loss for event in events if isinstance(event, CheckEvent)))
        events.close()  # type: ignore[attr-defined]
    assert losses[0] != losses[1]
