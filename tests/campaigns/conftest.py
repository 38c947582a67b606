"""Fixtures of the short campaigns of killed commands."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from campaigns.harness.crash.commands import MINIMAL_OPTIONS, all_commands, make_inputs
from campaigns.harness.crash.runs import Command, ForkServer, UndisturbedRun, count_steps


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of recordings of a few seconds."""
    return make_inputs(tmp_path_factory.mktemp("crash"), files=2)


@pytest.fixture(scope="session")
def command_by_name(inputs: Path) -> Callable[[str], Command]:
    """Return commands by name, with the least work that they can do."""
    return all_commands(inputs, MINIMAL_OPTIONS).__getitem__


@pytest.fixture(scope="session")
def undisturbed(
    command_by_name: Callable[[str], Command],
    fork_server: ForkServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[UndisturbedRun, int]]:
    """Return the outputs and number of steps of an undisturbed command; each is run once."""

    @cache
    def run(name: str) -> tuple[UndisturbedRun, int]:
        return count_steps(command_by_name(name), tmp_path_factory.mktemp("whole"), fork_server)

    return run


class PreparedCommand(NamedTuple):
    """A command, an empty folder to run it in, and what an undisturbed run does there."""

    command: Command
    work: Path
    undisturbed: UndisturbedRun
    steps: int

    def first(self) -> list[str]:
        """Empty the folder; return the arguments of the first run."""
        return self.command.first(self.command.fresh(self.work))

    def again(self) -> list[str]:
        """Return the arguments of a later run."""
        return self.command.again(self.work)


@pytest.fixture
def prepared(
    request: pytest.FixtureRequest,
    command_by_name: Callable[[str], Command],
    undisturbed: Callable[[str], tuple[UndisturbedRun, int]],
    tmp_path: Path,
) -> PreparedCommand:
    """Prepare the command that a test names in its parameters."""
    return PreparedCommand(command_by_name(request.param), tmp_path / "work", *undisturbed(request.param))


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Run commands as forks of one process."""
    with ForkServer() as server:
        yield server
