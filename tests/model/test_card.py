"""Model cards: their entries, and escaping in Markdown."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tonewood.model.card import NOT_STATED, accuracy_warnings, card_lines, card_markdown, citation_lines
from tonewood.model.model import Model
from tonewood.training.pipeline import Provenance, train_model

Run = Callable[..., Any]


def test_card_lines_have_all_entries(model: Model) -> None:
    fields = {entry.name: " ".join(entry.lines) for entry in card_lines(model)}
    assert list(fields) == [
        *("domain", "reference", "source", "scorer", "judge", "prior"),
        *("guide", "audit", "trained", "licence", "cite"),
    ]
    assert "guide" not in {entry.name for entry in card_lines(replace(model, way_guide=None))}
    assert fields["domain"] == fields["licence"] == NOT_STATED
    assert "4 takes, 1.1 minutes" in fields["source"]
    assert "held-out takes" in fields["scorer"]
    assert model.digest[:16] in fields["cite"]
    assert "Verma" in fields["cite"]


def test_interval_contains_the_accuracy_and_is_wide_for_few_takes(model: Model) -> None:
    item = model.card.scorer
    low, high = item.accuracy_interval
    assert low <= item.accuracy <= high
    assert item.takes == 2  # one of four, on each side
    assert high - low > 0.3


def test_network_near_chance_is_reported(model: Model) -> None:
    assert accuracy_warnings(model.card) == []
    assert model.card.judge is not None
    judge = model.card.judge.model_copy(update={"accuracy": 0.52, "accuracy_interval": (0.3, 0.7)})
    (warning,) = accuracy_warnings(model.card.model_copy(update={"judge": judge}))
    assert warning.startswith("the judge cannot tell the folders apart: it is right on 52 % of")


@pytest.mark.usefixtures("fitted_correction")
def test_provenance_is_in_the_card(training_folders: Any, small: Callable[..., Any]) -> None:
    origin = Provenance("a | b", "CC0-1.0", "one\ntwo")
    reference, source = training_folders
    *_, output = train_model(reference, source, small(judge=False), provenance=origin)
    assert isinstance(output, Model)
    assert (output.card.domain, output.card.licence, output.card.notice) == origin
    page = card_markdown(output)
    assert "license: cc0-1.0\n" in page
    assert "a \\| b" in page
    assert "## Notice\n\n```\none\ntwo\n```\n" in page


def test_markdown_has_metadata_and_a_row_per_entry(model: Model) -> None:
    page = card_markdown(model)
    _, front, body = page.split("---\n", 2)
    assert "library_name: tonewood" in front
    assert "license" not in front  # not stated, so not claimed
    for entry in card_lines(model):
        assert f"| {entry.name} | " in body


@pytest.mark.parametrize("name", ["a|b", "<script>", "[x](y)", "two\nlines", "`x`"])
def test_markdown_escapes_names(model: Model, name: str) -> None:
    card = model.card.model_copy(update={"source": model.card.source.model_copy(update={"name": name})})
    (row,) = [
        line
        for line in card_markdown(replace(model, card=card)).splitlines()
        if line.startswith("| source |")
    ]
    assert row.count("|") - row.count("\\|") == 3
    assert "<script" not in row.replace("\\<", "")


def test_citation_names_the_model(model: Model) -> None:
    other = replace(model, guide_weight=model.guide_weight + 1)
    assert citation_lines(other) != citation_lines(model)


def test_info_prints_markdown_or_json(run: Run, model_file: Path) -> None:
    assert run("info", model_file, "--markdown").out.startswith("---\nlibrary_name: tonewood\n")
    assert run("info", model_file, "--json").objects[0]["card"]["scorer"]["takes"] == 2
    both = run("info", model_file, "--markdown", "--json")
    assert both.code == 2
    assert "--markdown and --json cannot be used together" in both.err
