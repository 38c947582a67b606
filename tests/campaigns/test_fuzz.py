"""A share of the campaign of `campaigns/fuzz.py`: damaged inputs to everything that reads them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from campaigns.harness.fuzz.all_readers import everything
from campaigns.harness.fuzz.readers import FORMATS, Reader
from campaigns.harness.fuzz.runner import tried
from tonewood.model.model import Model

SHARE = 150  # of each reader


@pytest.fixture(scope="module")
def readers(
    model: Model, model_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Reader]]:
    """All of them."""
    with everything(model, str(model_file), tmp_path_factory.mktemp("seeds")) as found:
        yield found


NAMES = [
    *(f"audio {name}" for name in FORMATS), "recipe", "manifest csv", "manifest jsonl",
    "preferences", "ratings", "model", "card", "checkpoint", "cache", "session",
    *(f"{name} {kind}" for kind in ("pairs", "abx", "mushra")
      for name in ("json of", "sqlite of", "webmushra", "reseval")),
    "requests studio", "requests listening",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_damage_ends_in_one_line(readers: dict[str, Reader], name: str, tmp_path: Path) -> None:
    reader = readers[name]
    folder = tmp_path / "in"
    folder.mkdir()
    found = tried(reader, reader.inputs(SHARE, seed=0), folder)
    assert [how for _, how in found.findings] == []
    assert found.total == SHARE
    assert found.refused > 0 or name == "cache"  # which makes anew what it cannot read
    assert {it.name for it in tmp_path.iterdir()} == {"in"}


def test_what_is_right_is_read(readers: dict[str, Reader], tmp_path: Path) -> None:
    for name, reader in readers.items():
        found = tried(reader, iter(reader.seeds), tmp_path)
        assert found.findings == [], name
        if name.startswith("requests"):  # some of which are about nobody
            assert found.read > found.refused > 0, name
        elif name == "checkpoint":  # of another training
            assert found.refused == len(reader.seeds)
        else:
            assert found.refused == 0, name


def test_every_reader_is_asked(readers: dict[str, Reader]) -> None:
    assert sorted(readers) == sorted(NAMES)
