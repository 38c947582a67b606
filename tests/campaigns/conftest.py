"""What is shared by the tests of sudden deaths and other trouble."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from campaigns.harness.crash.commands import LEAST, make_inputs, scenes
from campaigns.harness.crash.runs import Nursery, Scene, Whole, steps_of


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of seconds."""
    return make_inputs(tmp_path_factory.mktemp("sudden"), files=2)


@pytest.fixture(scope="session")
def scene(inputs: Path) -> Callable[[str], Scene]:
    """A command by name, with the least work that it can do."""
    return scenes(inputs, LEAST).__getitem__


@pytest.fixture(scope="session")
def through(
    scene: Callable[[str], Scene], nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Whole, int]]:
    """What a command by name makes undisturbed, and its steps on the disk; run once."""

    @cache
    def run(name: str) -> tuple[Whole, int]:
        return steps_of(scene(name), tmp_path_factory.mktemp("whole"), nursery)

    return run


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Commands as forks of one process."""
    with Nursery() as there:
        yield there
