"""A share of the campaign of `campaigns/crash.py`: commands that are killed, and go on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from campaigns.harness.crash.commands import make_test
from campaigns.harness.crash.runs import (
    Nursery,
    Scene,
    Whole,
    killed_at_step,
    killed_in_time,
    undisturbed,
)
from campaigns.harness.crash.servers import kill_listening


@pytest.mark.parametrize(
    ("name", "share"),
    [("enhance, a file", 6), ("enhance, --parquet", 4), ("listen new", 3), ("train", 2)],
)
def test_killed_at_a_step_on_the_disk(
    scene: Callable[[str], Scene],
    through: Callable[[str], tuple[Whole, int]],
    nursery: Nursery,
    tmp_path: Path,
    name: str,
    share: int,
) -> None:
    asked, work = scene(name), tmp_path / "work"
    whole, steps = through(name)
    chosen = range(steps // share, steps, steps // share)
    deaths = [killed_at_step(asked, work, whole, step, nursery) for step in (*chosen, steps)]
    assert [death for death in deaths if death.wrong] == []
    assert len(deaths) >= share


def test_killed_at_a_moment(scene: Callable[[str], Scene], nursery: Nursery, tmp_path: Path) -> None:
    asked, work = scene("enhance, a folder"), tmp_path / "work"
    whole = undisturbed(asked, work)
    deaths = [killed_in_time(asked, work, whole, at, nursery) for at in (0.4, 0.9)]
    assert [death for death in deaths if death.wrong] == []
    assert {death.when for death in deaths} <= {"before", "in", "after"}


def test_answers_that_were_confirmed_are_there(inputs: Path, tmp_path: Path) -> None:
    test = make_test(inputs, tmp_path / "test")
    death = kill_listening(test, tmp_path / "work", 4.0, 0.5)
    assert death.wrong == []
