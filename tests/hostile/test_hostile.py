"""A share of the campaign of `scripts/hostile.py`: damaged inputs to everything that reads them."""

from pathlib import Path

import pytest

from tests.hostile.harness import tried
from tests.hostile.readers import FORMATS, Reader, everything
from tonewood.files.modelfile import Model

SHARE = 150  # of each reader


@pytest.fixture(scope="module")
def readers(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    """All of them."""
    return everything(model, tmp_path_factory.mktemp("seeds"))


NAMES = [
    *(f"audio {name}" for name in FORMATS), "recipe", "manifest csv", "manifest jsonl",
    "preferences", "ratings", "model", "card", "checkpoint", "cache",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_damage_ends_in_one_line(readers: dict[str, Reader], name: str, tmp_path: Path) -> None:
    reader = readers[name]
    folder = tmp_path / "in"
    folder.mkdir()
    found = tried(reader, reader.inputs(SHARE, seed=0), folder)
    assert found.findings == []
    assert found.total == SHARE
    assert found.refused > 0 or name == "cache"  # which makes anew what it cannot read
    assert {it.name for it in tmp_path.iterdir()} == {"in"}


def test_what_is_right_is_read(readers: dict[str, Reader], tmp_path: Path) -> None:
    for name, reader in readers.items():
        found = tried(reader, iter(reader.seeds), tmp_path)
        if name != "checkpoint":  # whose seed is of another training
            assert (found.read, found.findings) == (len(reader.seeds), []), name


def test_every_reader_is_asked(readers: dict[str, Reader]) -> None:
    assert sorted(readers) == sorted(NAMES)
