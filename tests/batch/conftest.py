"""Fixtures and helpers of the tests of batch runs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import soundfile

from tests.conftest import Samples

Play = Callable[..., Samples]
# `force`, because the small instrument may be unlike the tiny model's source.
FEW = (
    "--steps", "2", "--set", "search.stop_at_reference=false", "--set", "force=true",
    "--set", "certificate.control_steps=0",
)  # fmt: skip


@pytest.fixture
def take(tmp_path: Path, play: Play) -> Path:
    """Return a good recording, alone in a folder `in`."""
    path = tmp_path / "in" / "good.wav"
    path.parent.mkdir()
    soundfile.write(path, play(1.2).T, 16_000)
    return path


def file_tree(folder: Path) -> list[str]:
    """Return every file below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def raise_os_error(code: int) -> Callable[..., NoReturn]:
    """Return a function that raises the OSError of a code."""

    def raise_error(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return raise_error
