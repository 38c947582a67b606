"""Forged or damaged tests and answers, which would leave the folder or fail later."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tonewood.errors import FolderError, OutputError
from tonewood.listening import database
from tonewood.listening.analysis import analyze_answers
from tonewood.listening.database import AnswerDatabase, screens_of
from tonewood.listening.definition import ANSWERS_FILE, TEST_FILE, ListeningTest, load_listening_test
from tonewood.listening.server import create_listening_app

BuiltTest = tuple[ListeningTest, Path]
CopyTest = Callable[[str], BuiltTest]
Change = Callable[[dict[str, Any]], object]


def first(name: str, **changes: object) -> Change:
    return lambda tree: tree[name][0].update(changes)


FORGED: dict[str, tuple[str, Change]] = {
    "a file in a parent folder": ("pairs", first("stimuli", file="../../../etc/passwd")),
    "a file by an absolute path": ("pairs", first("stimuli", file="/etc/passwd")),
    "a check in a parent folder": ("abx", first("checks", file="../test.json")),
    "a file of an unknown excerpt": ("pairs", first("stimuli", excerpt=99)),
    "a file of an unknown condition": ("mushra", first("stimuli", condition="none")),
    "a trial of an unknown excerpt": ("pairs", first("trials", excerpt=99)),
    "a trial of a negative excerpt": ("pairs", first("trials", excerpt=-1)),
    "a trial of one condition": ("pairs", first("trials", conditions=["odd"])),
    "a trial of one condition twice": ("pairs", first("trials", conditions=["odd", "odd"])),
    "a trial of an unknown condition": ("pairs", first("trials", conditions=["odd", "none"])),
    "too few conditions to rate": ("mushra", first("trials", conditions=["odd", "plain"])),
    "no trials": ("pairs", lambda tree: tree.update(trials=[])),
    "a condition twice": ("pairs", lambda tree: tree.update(conditions=["odd", "odd", "plain"])),
    "MUSHRA without a reference": ("mushra", lambda tree: tree.update(reference=None)),
    "pairs declared as MUSHRA": ("pairs", lambda tree: tree.update(kind="mushra")),
    "MUSHRA declared as pairs": ("mushra", lambda tree: tree.update(kind="pairs")),
    "a negative seed": ("pairs", lambda tree: tree.update(seed=-1)),
    "more trials than the test has": ("pairs", lambda tree: tree.update(per_listener=10**9)),
    "a rate of 0": ("pairs", lambda tree: tree.update(rate=0)),
    "ABX with active choice": ("abx", lambda tree: tree.update(choice="active")),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_test_is_rejected(copy_test: CopyTest, name: str) -> None:
    kind, change = FORGED[name]
    _, folder = copy_test(kind)
    tree = json.loads((folder / TEST_FILE).read_text())
    change(tree)
    (folder / TEST_FILE).write_text(json.dumps(tree))
    with pytest.raises(FolderError, match="damaged or is not a listening test") as refused:
        load_listening_test(folder)
    assert "\n" not in str(refused.value)


@pytest.fixture
def answer_all(copy_test: CopyTest, answer_test: Callable[..., str]) -> Callable[[str], BuiltTest]:
    """Return a function that copies a test with one listener's answers."""

    def copy_and_answer(kind: str) -> BuiltTest:
        test, folder = copy_test(kind)
        taste = dict.fromkeys(test.conditions, 50.0) | {"right": 1.0}
        taste |= {test.reference: 99.0} if test.reference else {}
        answer_test(test, folder, taste)
        assert analyze_answers(test, AnswerDatabase(folder / ANSWERS_FILE)).participants
        return test, folder

    return copy_and_answer


SCREEN = {"stage": "trial", "trial": 0, "right": None, "again": None}
FORGED_ANSWERS = {
    "a value of a wrong type": "UPDATE answer SET value = '{}'",
    "a value that is not JSON": "UPDATE answer SET value = '[[['",
    "a value of bytes": "UPDATE answer SET value = x'ff'",
    "a rating beyond the scale": "UPDATE answer SET value = replace(value, '.', 'e300')",
    "a screen number of text": "UPDATE answer SET screen = 'x' || rowid",
    "a time of text": "UPDATE answer SET seconds = 'long'",
    "a listener number of text": "UPDATE listener SET number = 'one'",
    "a listener number beyond the limit": "UPDATE listener SET number = 1000000000000",
    "a listener id of bytes": "UPDATE listener SET id = x'ff'",
    "an empty screen": "INSERT INTO asked SELECT id, 3, 'null' FROM listener",
    "a screen of another test": "INSERT INTO asked SELECT id, 3, ? FROM listener",
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (k, name)
        for k in ("pairs", "mushra")
        for name in FORGED_ANSWERS
        if k == "mushra" or "scale" not in name
    ],
)
def test_forged_answers_are_reported_as_damaged(
    answer_all: Callable[[str], BuiltTest], kind: str, name: str
) -> None:
    test, folder = answer_all(kind)
    slots = [["A", "../../etc/passwd", "odd"], ["B", "../../etc/passwd", "plain"]]
    parameters = (json.dumps({**SCREEN, "slots": slots}),) if "?" in FORGED_ANSWERS[name] else ()
    with sqlite3.connect(folder / ANSWERS_FILE) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        assert connection.execute(FORGED_ANSWERS[name], parameters).rowcount > 0
    connection.close()
    with pytest.raises(OutputError, match="is damaged: restore it from a copy"):
        analyze_answers(test, AnswerDatabase(folder / ANSWERS_FILE))


def test_damaged_answer_file_is_reported_in_one_line(copy_test: CopyTest) -> None:
    _, folder = copy_test("pairs")
    path = folder / ANSWERS_FILE
    AnswerDatabase(path).add_listener("yes")
    content = path.read_bytes()
    assert b"NOT NULL REFERENCES" in content
    path.write_bytes(content.replace(b"NOT NULL REFERENCES", b'NOT "ULL REFERENCES'))
    with pytest.raises(OutputError, match="malformed database schema") as refused:
        AnswerDatabase(path)
    with pytest.raises(FolderError, match="malformed database schema") as unread:
        database.count_answers(path)
    assert "\n" not in str(refused.value) + str(unread.value)


@pytest.mark.parametrize("kind", ["pairs", "abx", "mushra"])
def test_repeats_alone_do_not_count_as_answers(answer_all: Callable[[str], BuiltTest], kind: str) -> None:
    test, folder = answer_all(kind)
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    (listener,) = answers.list_listeners()
    screens = screens_of(test, answers, listener)
    repeats = [number for number, screen in screens.items() if screen.repeat_of is not None]
    assert repeats
    with sqlite3.connect(folder / ANSWERS_FILE) as connection:
        connection.execute(f"DELETE FROM answer WHERE screen NOT IN ({', '.join(map(str, repeats))})")
    connection.close()
    with pytest.raises(FolderError, match="no answers yet"):
        analyze_answers(test, answers)


@pytest.mark.parametrize("kind", ["pairs", "abx", "mushra"])
def test_answer_of_wrong_shape_gives_422(copy_test: CopyTest, kind: str) -> None:
    test, folder = copy_test(kind)
    with TestClient(create_listening_app(test, folder), base_url="http://127.0.0.1:8766") as client:
        listener = client.post("/api/listeners", json={"agreed": True}).json()["listener"]
        headers = {"X-Listener": listener}
        seen = set()
        while (state := client.get("/api/screen", headers=headers).json())["stage"] != "done":
            seen.add(state["stage"])
            rated = state["stage"] in ("training", "trial") and kind == "mushra"
            labels = [label for label in state["labels"] if label not in ("reference", "X")]
            right: Any = dict.fromkeys(labels, 50) if rated else "A"
            right = {"volume": "set", "hearing": "1", "headphones": "1"}.get(state["stage"], right)
            wrong = ["C", "", "set" if right != "set" else "1", {}, {"A": 1}, {"X": 2, "": 1}]
            for value in (*wrong, *([dict.fromkeys(labels, 100.5)] if rated else [])):
                body = {"value": value, "final": True, "seconds": 1}
                path = f"/api/screens/{state['screen']}"
                assert client.put(path, headers=headers, json=body).status_code == 422, (state, value)
            body = {"value": right, "final": True, "seconds": 1}
            assert client.put(path, headers=headers, json=body).is_success
        assert {"volume", "training", "trial"} <= seen


def test_number_of_listeners_is_limited(copy_test: CopyTest, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = copy_test("pairs")
    monkeypatch.setattr(database, "MAX_LISTENERS", 2)
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    assert [answers.add_listener("yes").number for _ in range(2)] == [0, 1]
    with pytest.raises(OutputError, match="2 listeners, the maximum"):
        answers.add_listener("yes")
    assert len(answers.list_listeners()) == 2
