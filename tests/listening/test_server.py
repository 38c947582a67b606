"""The server reveals no condition to the page, and loses no answer."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tonewood.listening.analysis import analyze_answers
from tonewood.listening.database import AnswerDatabase, count_answers, list_participants, screens_of
from tonewood.listening.definition import ANSWERS_FILE, CONSENT_FILE, ListeningTest
from tonewood.listening.server import create_listening_app

BuiltTest = tuple[ListeningTest, Path]
CopyTest = Callable[[str], BuiltTest]


class Visitor:
    """A listener's page without a browser."""

    def __init__(self, test: ListeningTest, folder: Path) -> None:
        self.test, self.folder = test, folder
        self.client = TestClient(create_listening_app(test, folder))
        joined = self.client.post("/api/listeners", json={"agreed": True})
        self.headers = {"X-Listener": joined.json()["listener"]}
        self.seen = [joined.text]

    def state(self) -> dict[str, Any]:
        answer = self.client.get("/api/screen", headers=self.headers)
        self.seen.append(answer.text)
        body: dict[str, Any] = answer.json()
        return body

    def sounds(self, state: dict[str, Any]) -> list[Any]:
        path = f"/api/screens/{state['screen']}/sounds/"
        places = range(len(state["labels"]))
        return [self.client.get(f"{path}{k}", headers=self.headers) for k in places]

    def put(self, screen: int, value: Any, final: bool = True) -> Any:
        content = {"value": value, "final": final, "seconds": 1.5}
        return self.client.put(f"/api/screens/{screen}", headers=self.headers, json=content)

    def answer(self, state: dict[str, Any]) -> Any:
        simple = {"volume": "set", "hearing": "3", "headphones": "2"}
        value: Any = simple.get(state["stage"], "A")
        if value == "A" and self.test.kind == "mushra":
            value = {label: 50 for label in state["labels"] if label != "reference"}
        return self.put(state["screen"], value)


@pytest.mark.parametrize("kind", ["pairs", "abx", "mushra"])
def test_responses_do_not_reveal_conditions(copy_test: CopyTest, kind: str) -> None:
    test, folder = copy_test(kind)
    visitor = Visitor(test, folder)
    headers, sizes = set(), set()
    while (state := visitor.state())["stage"] != "done":
        sounds = visitor.sounds(state)
        if state["stage"] in ("training", "trial"):
            headers |= {json.dumps(sorted(dict(item.headers).items())) for item in sounds}
            sizes |= {len(item.content) for item in sounds}
            assert len({item.content for item in sounds}) == len(sounds)
        visitor.seen.append(visitor.answer(state).text)
    assert len(sizes) == len(headers) == 1
    page = [visitor.client.get(path).text for path in ("/", "/page.js", "/player.js", "/api/test")]
    reported = "\n".join([*visitor.seen, *page]).lower()
    secret = [*test.conditions, *(item.file.removesuffix(".wav") for item in test.stimuli), test.key]
    secret += [item.piece for item in test.excerpts] + ["right", "excerpt", "trial_", str(folder)]
    page_text = "\n".join(page).lower()
    for word in secret:
        # Words of the page itself, such as "right", are removed first: they reveal nothing.
        assert word.lower() not in reported.replace(page_text, ""), word
    assert not re.search(r"https?://", "\n".join(page))
    assert state["code"] == test.completion_code(visitor.headers["X-Listener"])


def test_only_current_screen_is_playable_and_answerable(copy_test: CopyTest) -> None:
    test, folder = copy_test("pairs")
    visitor = Visitor(test, folder)
    state = visitor.state()
    ahead = visitor.client.get("/api/screens/1/sounds/0", headers=visitor.headers)
    assert ahead.status_code == 404
    assert visitor.client.get("/api/screens/0/sounds/7", headers=visitor.headers).status_code == 404
    assert visitor.put(1, "A").status_code == 409
    assert visitor.put(0, "B").status_code == 422
    assert visitor.answer(state).json()["screen"] == 1
    assert visitor.put(0, "set").status_code == 409  # kept, and not to be changed
    assert visitor.client.get("/api/screen", headers={"X-Listener": "x"}).status_code == 404
    assert visitor.client.get("/api/screen").status_code == 422
    for path in ("/test.json", "/..%2ftest.json", "/answers.sqlite", "/docs", "/openapi.json"):
        assert visitor.client.get(path).status_code == 404
    assert visitor.client.post("/api/listeners", json={"agreed": False}).status_code == 422


def test_draft_answer_is_stored_and_returned(copy_test: CopyTest) -> None:
    test, folder = copy_test("mushra")
    visitor = Visitor(test, folder)
    while (state := visitor.state())["stage"] != "trial":
        visitor.answer(state)
    assert visitor.put(state["screen"], {"B": 30}, final=False).status_code == 200
    assert visitor.put(state["screen"], {"B": 30}).status_code == 422  # not all of them
    assert visitor.put(state["screen"], {"B": 130}, final=False).status_code == 422
    assert visitor.put(state["screen"], {"reference": 3}, final=False).status_code == 422
    again = TestClient(create_listening_app(test, folder))
    back = again.get("/api/screen", headers=visitor.headers).json()
    assert (back["screen"], back["draft"]) == (state["screen"], {"B": 30})


def test_consent_text_is_read_from_its_file(copy_test: CopyTest) -> None:
    test, folder = copy_test("pairs")
    (folder / CONSENT_FILE).write_text("Listen & tell.")
    visitor = Visitor(test, folder)
    assert visitor.client.get("/api/test").json()["consent"] == "Listen & tell."
    with sqlite3.connect(folder / ANSWERS_FILE) as stored:
        assert stored.execute("SELECT consent FROM listener").fetchone() == ("Listen & tell.",)
        assert stored.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_deleted_listener_leaves_no_trace(copy_test: CopyTest) -> None:
    test, folder = copy_test("pairs")
    staying, leaving = Visitor(test, folder), Visitor(test, folder)
    for visitor in (staying, leaving):
        for _ in range(3):
            visitor.answer(visitor.state())
    identity = leaving.headers["X-Listener"].encode()
    assert any(identity in path.read_bytes() for path in folder.glob("answers.sqlite*"))
    # Another connection is open, so that SQLite does not delete the log with the last one.
    watching = sqlite3.connect(folder / ANSWERS_FILE)
    watching.execute("SELECT count(*) FROM answer").fetchone()
    assert leaving.client.delete("/api/listeners", headers=leaving.headers).status_code == 200
    assert leaving.client.get("/api/screen", headers=leaving.headers).status_code == 404
    for path in folder.glob("answers.sqlite*"):
        assert identity not in path.read_bytes()
    watching.close()
    assert [item.listener.id for item in list_participants(test, AnswerDatabase(folder / ANSWERS_FILE))] == [
        staying.headers["X-Listener"]
    ]
    assert AnswerDatabase(folder / ANSWERS_FILE).add_listener("yes").number == 1  # the number is free again


def test_active_choice_is_stored_and_adapts(copy_test: CopyTest) -> None:
    test, folder = copy_test("pairs")
    test = test.model_copy(update={"choice": "active"})
    visitor = Visitor(test, folder)
    sounds_of_trials = []
    while (state := visitor.state())["stage"] != "done":
        if state["stage"] == "trial":
            first, again = (visitor.sounds(visitor.state()) for _ in range(2))
            contents = [answer.content for answer in first]
            assert contents == [answer.content for answer in again]
            sounds_of_trials.append(contents)
        visitor.answer(state)
    assert len(sounds_of_trials) == test.per_listener + test.repeats
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    (person,) = list_participants(test, answers)
    *chosen, repeated = person.responses
    assert {item.question.trial for item in chosen} == set(range(len(test.trials)))
    # The last screen repeats one of the chosen, with exchanged sides.
    before = next(k for k, item in enumerate(chosen) if item.screen_number == repeated.repeat_of)
    assert sounds_of_trials[-1] == sounds_of_trials[before][::-1]
    assert repeated.question.trial == chosen[before].question.trial
    result = analyze_answers(test, answers)
    assert result.consistency is not None
    # "A" is now the other sound.
    assert (result.consistency.successes, result.consistency.total) == (0, 1)
    assert result.pairs[0].answers.total == len(chosen)


@contextmanager
def served(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command and return the address that it prints."""
    command = [sys.executable, "-m", "tonewood", "listen", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def send_request(address: str, method: str, path: str, listener: str = "", content: Any = None) -> Any:
    where, _, token = address.partition("?token=")
    headers = {"Authorization": f"Bearer {token}", "X-Listener": listener}
    body = None if content is None else json.dumps(content).encode()
    if body:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(where + path, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def test_killed_server_keeps_answers_and_address(copy_test: CopyTest) -> None:
    _, folder = copy_test("pairs")
    with served(folder) as (process, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[0-9a-f]{32}", address)
        listener = send_request(address, "POST", "api/listeners", content={"agreed": True})["listener"]
        content = {"value": "set", "final": True, "seconds": 1}
        state = send_request(address, "PUT", "api/screens/0", listener, content)
        draft = {"value": "B", "final": False, "seconds": 2}
        send_request(address, "PUT", f"api/screens/{state['screen']}", listener, draft)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert count_answers(folder / ANSWERS_FILE) == 2
    with served(folder) as (_, again):
        assert again.partition("?")[2] == address.partition("?")[2]
        back = send_request(again, "GET", "api/screen", listener)
        assert (back["screen"], back["draft"]) == (state["screen"], "B")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            send_request(again.partition("?")[0], "GET", "api/test")


def test_screens_are_reproducible_across_servers(copy_test: CopyTest) -> None:
    test, folder = copy_test("abx")
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    listener = answers.add_listener("yes")
    assert screens_of(test, answers, listener) == screens_of(
        test, AnswerDatabase(folder / ANSWERS_FILE), listener
    )
