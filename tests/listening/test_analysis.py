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

BuiltTest = tuple[ListeningTest, Path]
CopyTest = Callable[[str], BuiltTest]
AnswerTest = Callable[..., str]


def test_planted_preference_is_detected(copy_test: CopyTest, answer_test: AnswerTest) -> None:
    test, folder = copy_test("pairs")
    for seed in range(30):
        answer_test(test, folder, {"plain": 0.0, "odd": 1.5}, seed)
    result = analyze_answers(test, AnswerDatabase(folder / ANSWERS_FILE))
    (pair,) = result.pairs
    assert (pair.first, pair.second) == ("plain", "odd")
    assert pair.answers.total == 30 * test.per_listener  # repeats are not counted
    assert pair.answers.low <= 1 / (1 + np.exp(1.5)) <= pair.answers.high
    assert pair.p_holm < 1e-6
    assert set(pair.where) == {"mask", "random"}
    assert sum(item.total for item in pair.where.values()) == pair.answers.total
    assert result.strengths is not None
    assert result.strengths.strength[1] == pytest.approx(0.75, abs=0.4)
    assert result.consistency is not None
    assert result.consistency.total == 30 * test.repeats
    assert result.first_side is not None
    assert result.first_side.low <= 0.5 <= result.first_side.high


def test_abx_separates_detection_from_guessing(copy_test: CopyTest, answer_test: AnswerTest) -> None:
    test, folder = copy_test("abx")
    taste = {"plain": 0.0, "odd": 0.0, "right": 0.9}
    for seed in range(15):
        answer_test(test, folder, taste, seed)
    result = analyze_answers(test, AnswerDatabase(folder / ANSWERS_FILE), headphones_only=True)
    assert result.excluded_count == 0
    assert all(item.headphones and item.hearing == 1 for item in result.participants)
    (pair,) = result.pairs
    assert pair.answers.low <= 0.9 <= pair.answers.high
    assert pair.sensitivity is not None
    assert pair.sensitivity.low > 1
    assert pair.answers.p < 1e-6


def test_mushra_excludes_listeners_who_miss_the_reference(
    copy_test: CopyTest, answer_test: AnswerTest
) -> None:
    test, folder = copy_test("mushra")
    taste = {"good": 97.0, "plain": 60.0, "odd": 75.0, "anchor 7 kHz": 50.0, "anchor 3.5 kHz": 20.0}
    for seed in range(10):
        answer_test(test, folder, taste, seed)
    answer_test(test, folder, {**taste, "good": 70.0}, 11)
    result = analyze_answers(test, AnswerDatabase(folder / ANSWERS_FILE)).ratings
    assert result is not None
    assert result.excluded == ("L11",)
    for name, item in zip(result.conditions, result.medians, strict=True):
        assert item.median == pytest.approx(taste[name], abs=4)
    assert result.friedman is not None
    assert result.friedman.p < 1e-4
    assert not isinstance(result.effects, str)


@pytest.mark.parametrize("kind", ["pairs", "abx", "mushra"])
def test_report_is_complete_and_usable_for_training(
    copy_test: CopyTest, answer_test: AnswerTest, tmp_path: Path, kind: str
) -> None:
    test, folder = copy_test(kind)
    taste = {"good": 97.0, "plain": 60.0, "odd": 75.0, "anchor 7 kHz": 50.0, "anchor 3.5 kHz": 20.0}
    for seed in range(6):
        answer_test(test, folder, {**taste, "right": 0.8}, seed)
    result = analyze_answers(test, AnswerDatabase(folder / ANSWERS_FILE))
    out = tmp_path / "report"
    report.check_results_folder(out, overwrite=False)
    page = report.write_listening_report(out, folder, result)
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
        answers = read_answer_tables(out / "answers.csv", None, training)
        assert len(answers.preferences) == 6 * test.per_listener
        assert all(path.is_file() for item in answers.preferences for path in item)
        assert set(answers.groups.values()) == {"piece0", "piece1"}
    if kind == "mushra":
        answers = read_answer_tables(None, out / "ratings.csv", training)
        assert all(item.file.is_file() for item in answers.ratings)
        by_file = {item.file: item.condition for item in test.stimuli}
        for item in answers.ratings:
            assert 100 * item.value == pytest.approx(taste[by_file[item.file.name]], abs=4)


def test_analysis_without_answers_is_rejected(copy_test: CopyTest, answer_test: AnswerTest) -> None:
    test, folder = copy_test("pairs")
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    answers.add_listener("yes")
    with pytest.raises(FolderError, match="no answers yet"):
        analyze_answers(test, answers)


def test_required_listeners_are_estimated(built_tests: dict[str, BuiltTest]) -> None:
    numbers: dict[str, Any] = {kind: required_listeners(test) for kind, (test, _) in built_tests.items()}
    assert all(item.listeners >= 2 and "80 %" in item.text for item in numbers.values())
    assert required_listeners(built_tests["pairs"][0], 0.9).listeners < numbers["pairs"].listeners
