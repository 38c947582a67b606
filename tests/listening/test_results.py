import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tonewood.errors import FolderError
from tonewood.listening import report
from tonewood.listening.analysis import analyze_answers, required_listeners
from tonewood.listening.database import AnswerDatabase
from tonewood.listening.definition import ANSWERS_FILE, ListeningTest
from tonewood.settings import TrainingSettings
from tonewood.training.preferences import read_answer_tables

Made = tuple[ListeningTest, Path]
Copied = Callable[[str], Made]
TakePart = Callable[..., str]


def test_a_planted_preference_is_found(copied: Copied, take_part: TakePart) -> None:
    test, folder = copied("pairs")
    for seed in range(30):
        take_part(test, folder, {"plain": 0.0, "odd": 1.5}, seed)
    found = analyze_answers(test, AnswerDatabase(folder / ANSWERS_FILE))
    (pair,) = found.pairs
    assert (pair.first, pair.second) == ("plain", "odd")
    assert pair.answers.total == 30 * test.per_listener  # what came again is not counted
    assert pair.answers.low <= 1 / (1 + np.exp(1.5)) <= pair.answers.high
    assert pair.p_holm < 1e-6
    assert set(pair.where) == {"mask", "random"}
    assert sum(it.total for it in pair.where.values()) == pair.answers.total
    assert found.strengths is not None
    assert found.strengths.strength[1] == pytest.approx(0.75, abs=0.4)
    assert found.consistency is not None
    assert found.consistency.total == 30 * test.repeats
    assert found.first_side is not None
    assert found.first_side.low <= 0.5 <= found.first_side.high


def test_abx_tells_right_from_guessed(copied: Copied, take_part: TakePart) -> None:
    test, folder = copied("abx")
    taste = {"plain": 0.0, "odd": 0.0, "right": 0.9}
    for seed in range(15):
        take_part(test, folder, taste, seed)
    found = analyze_answers(test, AnswerDatabase(folder / ANSWERS_FILE), headphones_only=True)
    assert found.excluded_count == 0
    assert all(it.headphones and it.hearing == 1 for it in found.participants)
    (pair,) = found.pairs
    assert pair.answers.low <= 0.9 <= pair.answers.high
    assert pair.sensitivity is not None
    assert pair.sensitivity.low > 1
    assert pair.answers.p < 1e-6


def test_mushra_leaves_out_who_does_not_know_the_reference(copied: Copied, take_part: TakePart) -> None:
    test, folder = copied("mushra")
    taste = {"good": 97.0, "plain": 60.0, "odd": 75.0, "anchor 7 kHz": 50.0, "anchor 3.5 kHz": 20.0}
    for seed in range(10):
        take_part(test, folder, taste, seed)
    take_part(test, folder, {**taste, "good": 70.0}, 11)
    found = analyze_answers(test, AnswerDatabase(folder / ANSWERS_FILE)).ratings
    assert found is not None
    assert found.excluded == ("L11",)
    for name, it in zip(found.conditions, found.medians, strict=True):
        assert it.median == pytest.approx(taste[name], abs=4)
    assert found.friedman is not None
    assert found.friedman.p < 1e-4
    assert not isinstance(found.effects, str)


@pytest.mark.parametrize("kind", ["pairs", "abx", "mushra"])
def test_the_report_is_whole_and_its_tables_can_be_learnt_from(
    copied: Copied, take_part: TakePart, tmp_path: Path, kind: str
) -> None:
    test, folder = copied(kind)
    taste = {"good": 97.0, "plain": 60.0, "odd": 75.0, "anchor 7 kHz": 50.0, "anchor 3.5 kHz": 20.0}
    for seed in range(6):
        take_part(test, folder, {**taste, "right": 0.8}, seed)
    found = analyze_answers(test, AnswerDatabase(folder / ANSWERS_FILE))
    out = tmp_path / "report"
    report.prepare_results_folder(out, overwrite=False)
    page = report.write_listening_report(out, folder, found)
    html = page.read_text()
    assert "http" not in html.replace("http-equiv", "")
    assert html.count("data:image/png") >= 1
    summary = json.loads((out / "results.json").read_text())
    assert summary["kind"] == kind
    assert len(summary["listeners"]) == 6
    with (out / "answers.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    trials = test.per_listener + test.repeats
    assert len(rows) == 6 * trials * (len(test.conditions) if kind == "mushra" else 1)
    training = TrainingSettings()
    if kind == "pairs":
        said = read_answer_tables(out / "answers.csv", None, training)
        assert len(said.preferences) == 6 * test.per_listener
        assert all(path.is_file() for it in said.preferences for path in it)
        assert set(said.groups.values()) == {"piece0", "piece1"}
    if kind == "mushra":
        said = read_answer_tables(None, out / "ratings.csv", training)
        assert all(it.file.is_file() for it in said.ratings)
        by_file = {it.file: it.condition for it in test.stimuli}
        for it in said.ratings:
            assert 100 * it.value == pytest.approx(taste[by_file[it.file.name]], abs=4)


def test_nothing_to_sum_up(copied: Copied, take_part: TakePart) -> None:
    test, folder = copied("pairs")
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    answers.add_listener("yes")
    with pytest.raises(FolderError, match="no answers to sum up"):
        analyze_answers(test, answers)


def test_listeners_needed_are_told_beforehand(made: dict[str, Made]) -> None:
    numbers: dict[str, Any] = {kind: required_listeners(test) for kind, (test, _) in made.items()}
    assert all(it.listeners >= 2 and "80 %" in it.text for it in numbers.values())
    assert required_listeners(made["pairs"][0], 0.9).listeners < numbers["pairs"].listeners
