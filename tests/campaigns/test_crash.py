"""Short share of `campaigns/crash.py`: killed commands continue to the same files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from campaigns.harness.crash.commands import make_test
from campaigns.harness.crash.runs import (
    Command,
    ForkServer,
    UndisturbedRun,
    kill_after_share,
    kill_at_step,
)
from campaigns.harness.crash.servers import kill_listening
from tests.campaigns.conftest import PreparedCommand


@pytest.mark.parametrize(
    ("prepared", "shares"),
    [
        ("enhance, a file", (0.5, 1)),
        ("enhance, --parquet", (0.6, 1)),
        ("listen new", (0.5, 1)),
        ("train", (0.6,)),
    ],
    indirect=["prepared"],
)
def test_command_killed_at_a_step_on_the_disk_continues(
    prepared: PreparedCommand, fork_server: ForkServer, shares: tuple[float, ...]
) -> None:
    command, work, undisturbed, steps = prepared
    for share in shares:
        result = kill_at_step(command, work, undisturbed, round(share * steps), fork_server)
        assert result.errors == []


def test_command_killed_at_a_moment_continues(
    command_by_name: Callable[[str], Command],
    undisturbed: Callable[[str], tuple[UndisturbedRun, int]],
    fork_server: ForkServer,
    tmp_path: Path,
) -> None:
    """The command is killed after four seconds of processor time: every moment must be safe."""
    whole = undisturbed("enhance, a folder")[0]._replace(seconds=4.0)
    killed = command_by_name("enhance, a folder")
    assert kill_after_share(killed, tmp_path / "work", whole, 1.0, fork_server).errors == []


def test_confirmed_answers_survive_a_kill(inputs: Path, tmp_path: Path) -> None:
    test = make_test(inputs, tmp_path / "test")
    result = kill_listening(test, tmp_path / "work", 0.0, 0.5, least=40)
    assert result.errors == []
