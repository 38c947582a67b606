"""Short share of `campaigns/crash.py`: killed commands continue to the same files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from campaigns.harness.crash.commands import make_test
from campaigns.harness.crash.runs import (
    Command,
    ForkServer,
    kill_after_share,
    kill_at_step,
    run_undisturbed,
)
from campaigns.harness.crash.servers import kill_listening
from tests.campaigns.conftest import PreparedCommand


@pytest.mark.parametrize(
    ("prepared", "share"),
    [("enhance, a file", 4), ("enhance, --parquet", 3), ("listen new", 2), ("train", 2)],
    indirect=["prepared"],
)
def test_command_killed_at_a_step_on_the_disk_continues(
    prepared: PreparedCommand, fork_server: ForkServer, share: int
) -> None:
    command, work, undisturbed, steps = prepared
    chosen = range(steps // share, steps, steps // share)
    results = [kill_at_step(command, work, undisturbed, step, fork_server) for step in (*chosen, steps)]
    assert [result for result in results if result.errors] == []
    assert len(results) >= share


def test_command_killed_at_a_moment_continues(
    command_by_name: Callable[[str], Command], fork_server: ForkServer, tmp_path: Path
) -> None:
    killed, work = command_by_name("enhance, a folder"), tmp_path / "work"
    outputs = run_undisturbed(killed, work)
    results = [kill_after_share(killed, work, outputs, at, fork_server) for at in (0.4, 0.9)]
    assert [result for result in results if result.errors] == []
    assert {result.when for result in results} <= {"before", "in", "after"}


def test_confirmed_answers_survive_a_kill(inputs: Path, tmp_path: Path) -> None:
    test = make_test(inputs, tmp_path / "test")
    result = kill_listening(test, tmp_path / "work", 4.0, 0.5)
    assert result.errors == []
