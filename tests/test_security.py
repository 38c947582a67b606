"""What docs/security.md promises of the source itself."""

import ast
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tonewood.errors import ModelError
from tonewood.model.model_file import read_model_file

SOURCE = Path(__file__).parents[1] / "src" / "tonewood"
# Dask's messages between a client and its own workers, which no file holds.
OWN_MESSAGES = SOURCE / "batch" / "dask_backend.py"
RUNS = {"eval", "exec", "compile", "__import__"}
UNPICKLES = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}


def calls(tree: ast.AST) -> Iterator[str]:
    """Names of what is called, as in torch.load."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_source_never_executes_or_unpickles_data() -> None:
    for path in SOURCE.rglob("*.py"):
        text = path.read_text("utf-8")
        tree = ast.parse(text)
        imported = {
            alias.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
        }
        called = set(calls(tree))
        if path != OWN_MESSAGES:
            assert not imported & UNPICKLES, path
        assert not called & RUNS, path
        assert not {name for name in called if name.endswith(("torch.load", "yaml.load"))}, path
        assert "allow_pickle=True" not in text, path
        assert "shell=True" not in text, path


@pytest.mark.parametrize("shape", [[2**40], [2**20, 2**20], [2**63, 2**63], [-1], [1.5], ["9"]])
def test_header_that_claims_a_terabyte_allocates_no_memory(tmp_path: Path, shape: list[object]) -> None:
    size = 2**42
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}
    metadata = {"format": "tonewood", "version": "2", "settings": "{}", "card": "{}", "sha256": ""}
    head = json.dumps({"__metadata__": metadata, "scorer.x": entry}).encode()
    path = tmp_path / "large.tonewood"
    path.write_bytes(struct.pack("<Q", len(head)) + head)
    with pytest.raises(ModelError, match="is not a Tonewood model, or is damaged"):
        read_model_file(path)
    path.write_bytes(struct.pack("<Q", 2**40) + head)
    with pytest.raises(ModelError, match="is not a Tonewood model, or is damaged"):
        read_model_file(path)


def test_every_documented_attack_has_a_test() -> None:
    page = (SOURCE.parents[1] / "docs" / "security.md").read_text("utf-8")
    rows = [
        line.split("|")[1:-1]
        for line in page.split("## Pages")[1].split("\n## ")[0].splitlines()
        if line.startswith("|")
    ]
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parent.rglob("test_*.py"))
    assert len(rows) > 10
    for attack, _, tried in rows[2:]:
        names = re.findall(r"`(test_\w+)`", tried)
        assert names, attack
        for name in names:
            assert f"\ndef {name}(" in tests, name
