"""The plug-in's engine, compiled once for all tests; they are skipped where there is no compiler."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.conftest import Samples, made_once

PLUGIN = Path(__file__).parents[2] / "plugin"


class Processed(NamedTuple):
    """Output of the engine, and what it reports."""

    samples: Samples
    report: dict[str, Any]


class Block(NamedTuple):
    """How the engine processes the next samples; `size` 0 resets it."""

    size: int
    amount: float = 1.0
    low_hz: float = 0.0
    high_hz: float = 0.0
    smooth_octaves: float = 0.0
    mid_side: int = 0
    freeze: int = 0
    delta: int = 0
    bypass: int = 0
    model: int = 0


class Engine:
    """The engine in a process of its own."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def run(
        self, model: Path, rate: int, samples: Samples, blocks: Iterable[Block] = (Block(512),)
    ) -> Processed:
        """Process samples (channels, samples)."""
        return self.run_models([model], rate, samples, blocks)

    def run_models(
        self, models: list[Path], rate: int, samples: Samples, blocks: Iterable[Block]
    ) -> Processed:
        """Process samples (channels, samples) with a choice of models."""
        ended = self.start(models, rate, samples, "\n".join(" ".join(map(str, block)) for block in blocks))
        assert ended.returncode == 0, ended.stderr
        output = np.frombuffer(ended.stdout, "<f4").reshape(-1, samples.shape[0]).T
        return Processed(output, json.loads(ended.stderr))

    def start(
        self, models: list[Path], rate: int, samples: Samples, script: str = ""
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run the program, whatever its exit code is."""
        path = models[0].with_suffix(".blocks")
        path.write_text(script)
        command = [self.program, str(rate), str(samples.shape[0]), path, *models]
        data = samples.T.astype("<f4").tobytes()
        return subprocess.run(list(map(str, command)), input=data, capture_output=True)


def compile_engine(folder: Path, target: str, *variables: str) -> Path:
    """Build a program of the plug-in's Makefile that needs a compiler only."""
    if not (shutil.which("make") and shutil.which("c++")):
        pytest.skip("make or a C++ compiler is not installed")
    build = ["make", "-s", "-j2", "-C", str(PLUGIN), f"BUILD={folder}", *variables, f"{folder}/{target}"]
    ended = subprocess.run(build, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "warning" not in ended.stderr
    return folder / target


@pytest.fixture(scope="session")
def engine(shared: Path) -> Engine:
    """Return the engine."""
    folder = shared / "plugin"
    return Engine(made_once(shared / "engine", lambda: compile_engine(folder, "offline")))
