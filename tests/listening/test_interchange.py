"""Export to webMUSHRA and ReSEval and import of answers; the schemas follow their code."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import soundfile
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tonewood.errors import CallError, FolderError, InputFileError, OutputError
from tonewood.listening import interchange
from tonewood.listening.analysis import analyze_answers
from tonewood.listening.database import AnswerDatabase
from tonewood.listening.definition import ANSWERS_FILE, ListeningTest

BuiltTest = tuple[ListeningTest, Path]
CopyTest = Callable[[str], BuiltTest]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Page(Strict):
    """Fields that webMUSHRA reads from a page's configuration."""

    id: str
    name: str
    content: str


class Consent(Page):
    type: Literal["consent"]
    mustConsent: bool  # noqa: N815


class Compared(Page):
    showWaveform: bool  # noqa: N815
    enableLooping: bool  # noqa: N815
    reference: str
    stimuli: dict[str, str] = Field(min_length=1)


class Mushra(Compared):
    type: Literal["mushra"]
    createAnchor35: bool  # noqa: N815
    createAnchor70: bool  # noqa: N815
    stimuli: dict[str, str] = Field(min_length=1, max_length=12)


class PairedComparison(Compared):
    type: Literal["paired_comparison"]
    stimuli: dict[str, str] = Field(min_length=1, max_length=1)  # each makes a page of the same id


class Answer(Strict):
    value: str
    label: str


class LikertMultiStimulus(Page):
    type: Literal["likert_multi_stimulus"]
    mustRate: bool  # noqa: N815
    stimuli: dict[str, str]
    response: list[Answer] = Field(min_length=2)


class Finish(Strict):
    type: Literal["finish"]
    name: str
    content: str
    showResults: bool  # noqa: N815
    writeResults: bool  # noqa: N815


Question = Annotated[Mushra | PairedComparison | LikertMultiStimulus, Field(discriminator="type")]


class Top(Strict):
    testname: str
    testId: str = Field(pattern=r"^[a-z0-9_-]+$")  # noqa: N815  (its service names a folder so)
    bufferSize: Literal[256, 512, 1024, 2048, 4096, 8192, 16384]  # noqa: N815
    stopOnErrors: bool  # noqa: N815
    showButtonPreviousPage: bool  # noqa: N815
    remoteService: Literal["service/write.php"]  # noqa: N815
    pages: tuple[Consent, tuple[Any, ...], Finish]


@pytest.mark.parametrize("kind", ["pairs", "abx", "mushra"])
def test_webmushra_schema_accepts_the_export(
    built_tests: dict[str, BuiltTest], tmp_path: Path, kind: str
) -> None:
    test, folder = built_tests[kind]
    awkward = 'A "test": #1, it\'s {é} \\ [0]'
    test = test.model_copy(update={"title": awkward})
    path = interchange.export_listening_test(test, folder, "webmushra", tmp_path / "Our Test")
    assert path == tmp_path / "Our Test" / "configs" / "our-test.yaml"
    written = path.read_text()
    # Its YAML parser reads brackets only within one line.
    for line in written.splitlines():
        value = re.sub(r"^(\s*(-|\w+:))+\s*", "", line)
        assert not value or isinstance(json.loads(value), str | int | bool)
    config = Top.model_validate_json(json.dumps(yaml.safe_load(written)))
    assert config.testname == awkward
    first, *trials = config.pages[1]
    assert first == "random"
    questions = [TypeAdapter(Question).validate_python(page) for page in trials]
    assert [item.id for item in questions] == [f"t{k}" for k in range(len(test.trials))]
    for page in trials:
        files = [*page["stimuli"].values(), *([page["reference"]] if "reference" in page else [])]
        infos = [soundfile.info(tmp_path / "Our Test" / file) for file in files]
        # Its validator: 12 s at most, all alike in rate, length and channels.
        assert all(item.duration <= 12 for item in infos)
        assert len({(item.samplerate, item.frames, item.channels) for item in infos}) == 1
        assert "reference" not in page["stimuli"]  # the name that it gives the hidden one
        assert not any(name in str(page) for name in ("plain", "odd", "piece"))
    with pytest.raises(OutputError, match="exists"):
        interchange.export_listening_test(test, folder, "webmushra", tmp_path / "Our Test")
    with pytest.raises(CallError, match="choose webmushra or reseval"):
        interchange.export_listening_test(test, folder, "other", tmp_path / "x")
    with pytest.raises(OutputError, match="cannot be created"):
        interchange.export_listening_test(test, folder, "reseval", path / "below a file")


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_mushra_ratings_are_imported_from_webmushra(copy_test: CopyTest, tmp_path: Path) -> None:
    test, folder = copy_test("mushra")
    score = {"reference": 96, "C02": 40, "C03": 70, "C04": 20, "C05": 50}
    rows = [
        {"session_test_id": "t", "session_uuid": who, "trial_id": f"t{k}", "rating_stimulus": key,
         "rating_score": value, "rating_time": 2500, "rating_comment": ""}
        for who in ("u1", "u2") for k in range(len(test.trials)) for key, value in score.items()
    ]  # fmt: skip
    path = table(tmp_path / "mushra.csv", rows)
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    used = interchange.import_answers(answers, interchange.read_imported_answers(test, "webmushra", path))
    assert used == (2, 2 * len(test.trials))
    assert interchange.import_answers(
        answers, interchange.read_imported_answers(test, "webmushra", path)
    ) == (0, 0)  # known already
    result = analyze_answers(test, answers)
    assert [item.name for item in result.participants] == ["I2", "I1"]
    assert result.ratings is not None
    expected = {name: score.get(f"C{k:02d}", 96) for k, name in enumerate(test.conditions, start=1)}
    assert {
        name: item.median
        for name, item in zip(result.ratings.conditions, result.ratings.medians, strict=True)
    } == expected
    assert not any(b"u1" in p.read_bytes() for p in folder.glob("answers.sqlite*"))
    assert answers.add_listener("yes").number == 0


def other(test: ListeningTest, trial: int) -> str:
    """Return webMUSHRA's name of the condition that is not X."""
    named, right = interchange.condition_keys(test), interchange.abx_target(test, trial)
    (name,) = (named[item] for item in test.trials[trial].conditions if item != right)
    return name


def test_choices_are_imported_from_webmushra(copy_test: CopyTest, tmp_path: Path) -> None:
    test, folder = copy_test("abx")
    rows = [
        {"session_test_id": "t", "trial_id": f"t{k}", "choice_reference": "reference",
         "choice_non_reference": other(test, k), "choice_time": 900, "choice_comment": "",
         "choice_answer": "incorrect" if k == 0 else "undecided" if (k, who) == (1, 2)
         else "correct"}
        for who in range(3) for k in range(len(test.trials))
    ]  # fmt: skip
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    path = table(tmp_path / "paired_comparison.csv", rows)
    assert interchange.import_answers(
        answers, interchange.read_imported_answers(test, "webmushra", path)
    ) == (3, 11)
    (pair,) = analyze_answers(test, answers).pairs
    assert (pair.answers.successes, pair.answers.total) == (8, 11)
    # The service adds to its table; what is known already adds nothing.
    path = table(path, [*rows, *rows[: len(test.trials)]])
    assert interchange.import_answers(
        answers, interchange.read_imported_answers(test, "webmushra", path)
    ) == (1, 4)

    test, folder = copy_test("pairs")
    rows = [
        {"session_test_id": "t", "trial_id": f"t{k}", "stimuli_rating": f" {value} ",
         "stimuli": key, "rating_time": 1}
        for k in range(len(test.trials))
        for key, value in (("C02", 4), ("C01", 4 if k == 1 else 2))
    ]  # fmt: skip
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    interchange.import_answers(
        answers,
        interchange.read_imported_answers(test, "webmushra", table(tmp_path / "lms.csv", rows)),
    )
    (pair,) = analyze_answers(test, answers).pairs
    assert (pair.answers.successes, pair.answers.total) == (0, 3)  # a tie prefers neither


@pytest.mark.parametrize("kind", ["pairs", "abx", "mushra"])
def test_reseval_export_and_import(copy_test: CopyTest, tmp_path: Path, kind: str) -> None:
    test, folder = copy_test(kind)
    out = interchange.export_listening_test(test, folder, "reseval", tmp_path / "out")
    (group,) = (path for path in out.iterdir() if path.is_dir())
    conditions = sorted(path.name for path in group.iterdir())
    stems = {name: sorted(item.stem for item in (group / name).iterdir()) for name in conditions}
    assert all(item == [f"t{k}" for k in range(len(test.trials))] for item in stems.values())
    assert ("reference" in conditions) == (kind == "abx")
    keys = [f"C{k:02d}" for k in range(1, len(test.conditions) + 1)]
    assert [name for name in conditions if name != "reference"] == keys
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    said = "C02" if kind != "mushra" else "095030060020050"
    rows = [
        {"Stem": f"t{k}", "Participant": "p", "OrderAsked": k, "Response": said}
        for k in range(len(test.trials))
    ]
    assert (
        interchange.import_answers(
            answers,
            interchange.read_imported_answers(test, "reseval", table(tmp_path / "responses.csv", rows)),
        )[0]
        == 1
    )
    result = analyze_answers(test, answers)
    if kind == "pairs":
        assert result.pairs[0].answers.successes == 0
    elif kind == "abx":
        # X is what lies in the reference's folder: right is who names it.
        right = sum(
            (group / "reference" / f"t{k}.wav").read_bytes()
            == (folder / "stimuli" / test.file_by_condition()[item.excerpt, "odd", 1]).read_bytes()
            for k, item in enumerate(test.trials)
        )
        assert result.pairs[0].answers.successes == right
    else:
        assert result.ratings is not None
        assert [item.median for item in result.ratings.medians] == [95, 30, 60, 20, 50]


def test_second_import_loses_no_answer(copy_test: CopyTest, tmp_path: Path) -> None:
    """In ReSEval each pair is a separate test, which the same person may take."""
    test, folder = copy_test("pairs")
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    for stem, used in (("t0", (1, 1)), ("t1", (0, 1)), ("t1", (0, 0))):
        row = {"Stem": stem, "Participant": "p", "Response": "C01"}
        arguments = interchange.read_imported_answers(test, "reseval", table(tmp_path / "r.csv", [row]))
        assert interchange.import_answers(answers, arguments) == used
    assert analyze_answers(test, answers).pairs[0].answers.total == 2


@pytest.mark.parametrize(
    ("kind", "came_from", "row", "why"),
    [
        ("mushra", "webmushra", {"rating_stimulus": "C02", "rating_score": "NA"}, "'NA' is no"),
        ("mushra", "webmushra", {"rating_stimulus": "C02", "rating_score": "101"}, "0 to 100"),
        ("mushra", "webmushra", {"rating_stimulus": "C02", "rating_score": "50"}, "ratings of C02"),
        ("mushra", "reseval", {"Participant": "p", "Response": "101030060020050"}, "to 100"),
        ("mushra", "reseval", {"Participant": "p", "Response": "-10030060020050"}, "to 100"),
        ("pairs", "webmushra", {"stimuli": "C01", "stimuli_rating": " 6 "}, "1 to 5"),
        ("abx", "webmushra", {"choice_non_reference": "C09", "choice_answer": "correct"}, "'C09'"),
        ("abx", "webmushra", {"choice_non_reference": "C01", "choice_answer": "yes"}, "'yes'"),
    ],
)
def test_invalid_imported_answers_are_rejected(
    built_tests: dict[str, BuiltTest],
    tmp_path: Path,
    kind: str,
    came_from: str,
    row: dict[str, Any],
    why: str,
) -> None:
    trial = {"trial_id" if came_from == "webmushra" else "Stem": "t0"}
    path = table(tmp_path / "r.csv", [{**trial, **row}])
    with pytest.raises(FolderError, match=why) as refused:
        interchange.read_imported_answers(built_tests[kind][0], came_from, path)
    assert "line 2" in str(refused.value)


def test_tables_of_another_test_are_rejected(copy_test: CopyTest, tmp_path: Path) -> None:
    test, folder = copy_test("pairs")
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    good = {"Stem": "t0", "Participant": "p", "Response": "C01"}
    for change, why in (
        ({"Stem": "t99"}, "line 2: 't99' is not a trial"),
        ({"Response": "C07"}, "not a condition of trial t0"),
    ):
        path = table(tmp_path / "r.csv", [{**good, **change}])
        with pytest.raises(FolderError, match=why):
            interchange.read_imported_answers(test, "reseval", path)
    with pytest.raises(FolderError, match="has no column Stem"):
        interchange.read_imported_answers(test, "reseval", table(tmp_path / "r.csv", [{"a": 1}]))
    with pytest.raises(InputFileError, match="cannot be read"):
        interchange.read_imported_answers(test, "reseval", tmp_path / "none.csv")
    assert not answers.list_listeners()
