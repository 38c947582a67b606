"""Short share of `campaigns/fuzz.py`: damaged inputs to everything that reads them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from campaigns.harness.fuzz.all_readers import all_readers
from campaigns.harness.fuzz.readers import FORMATS, Reader
from campaigns.harness.fuzz.runner import run_inputs
from tonewood.model.model import Model

SHARE = 60  # of each reader


@pytest.fixture(scope="module")
def readers(
    model: Model, model_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Reader]]:
    """Return all readers by name."""
    with all_readers(model, str(model_file), tmp_path_factory.mktemp("seeds")) as readers_by_name:
        yield readers_by_name


NAMES = [
    *(f"audio {name}" for name in FORMATS), "recipe", "manifest csv", "manifest jsonl",
    "preferences", "ratings", "model", "card", "checkpoint", "cache", "session",
    *(f"{name} {kind}" for kind in ("pairs", "abx", "mushra")
      for name in ("json of", "sqlite of", "webmushra", "reseval")),
    "requests studio", "requests listening",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_damaged_input_ends_in_one_line(readers: dict[str, Reader], name: str, tmp_path: Path) -> None:
    reader = readers[name]
    folder = tmp_path / "in"
    folder.mkdir()
    result = run_inputs(reader, reader.inputs(SHARE, seed=0), folder, limit_s=120)
    assert [outcome for _, outcome in result.findings] == []
    assert result.total == SHARE
    assert result.refused > 0 or name == "cache"  # damaged entries are recomputed
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_valid_input_is_read(readers: dict[str, Reader], tmp_path: Path) -> None:
    for name, reader in readers.items():
        result = run_inputs(reader, iter(reader.seeds), tmp_path, limit_s=120)
        assert result.findings == [], name
        if name.startswith("requests"):  # some are about unknown sessions
            assert result.read > result.refused > 0, name
        elif name == "checkpoint":  # it belongs to another training
            assert result.refused == len(reader.seeds)
        else:
            assert result.refused == 0, name


def test_every_reader_is_fuzzed(readers: dict[str, Reader]) -> None:
    assert sorted(readers) == sorted(NAMES)
