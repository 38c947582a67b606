"""What a listener's page can learn, and that no answer is lost."""

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

Made = tuple[ListeningTest, Path]
Copied = Callable[[str], Made]


class Visitor:
    """A page in words."""

    def __init__(self, test: ListeningTest, folder: Path) -> None:
        self.test, self.folder = test, folder
        self.client = TestClient(create_listening_app(test, folder))
        joined = self.client.post("/api/listeners", json={"agreed": True})
        self.headers = {"X-Listener": joined.json()["listener"]}
        self.seen = [joined.text]

    def state(self) -> dict[str, Any]:
        answer = self.client.get("/api/screen", headers=self.headers)
        self.seen.append(answer.text)
        made: dict[str, Any] = answer.json()
        return made

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
def test_nothing_that_is_sent_gives_a_condition_away(copied: Copied, kind: str) -> None:
    test, folder = copied(kind)
    visitor = Visitor(test, folder)
    headers, sizes = set(), set()
    while (state := visitor.state())["stage"] != "done":
        sounds = visitor.sounds(state)
        if state["stage"] in ("training", "trial"):
            headers |= {json.dumps(sorted(dict(it.headers).items())) for it in sounds}
            sizes |= {len(it.content) for it in sounds}
            assert len({it.content for it in sounds}) == len(sounds)
        visitor.seen.append(visitor.answer(state).text)
    assert len(sizes) == len(headers) == 1
    page = [visitor.client.get(path).text for path in ("/", "/page.js", "/player.js", "/api/test")]
    told = "\n".join([*visitor.seen, *page]).lower()
    secret = [*test.conditions, *(it.file.removesuffix(".wav") for it in test.stimuli), test.key]
    secret += [it.piece for it in test.excerpts] + ["right", "excerpt", "trial_", str(folder)]
    page_text = "\n".join(page).lower()
    for word in secret:
        # Words of the page itself, such as "right" in an answer that is none, say nothing.
        assert word.lower() not in told.replace(page_text, ""), word
    assert not re.search(r"https?://", "\n".join(page))
    assert state["code"] == test.completion_code(visitor.headers["X-Listener"])


def test_only_the_screen_at_hand_can_be_heard_and_answered(copied: Copied) -> None:
    test, folder = copied("pairs")
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


def test_half_an_answer_is_kept_and_given_back(copied: Copied) -> None:
    test, folder = copied("mushra")
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


def test_the_consent_is_the_experimenters(copied: Copied) -> None:
    test, folder = copied("pairs")
    (folder / CONSENT_FILE).write_text("Listen & tell.")
    visitor = Visitor(test, folder)
    assert visitor.client.get("/api/test").json()["consent"] == "Listen & tell."
    with sqlite3.connect(folder / ANSWERS_FILE) as stored:
        assert stored.execute("SELECT consent FROM listener").fetchone() == ("Listen & tell.",)
        assert stored.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_who_leaves_leaves_nothing(copied: Copied) -> None:
    test, folder = copied("pairs")
    stays, leaves = Visitor(test, folder), Visitor(test, folder)
    for visitor in (stays, leaves):
        for _ in range(3):
            visitor.answer(visitor.state())
    identity = leaves.headers["X-Listener"].encode()
    assert any(identity in path.read_bytes() for path in folder.glob("answers.sqlite*"))
    # Somebody else has the file open, so that its log outlives every other connection.
    watching = sqlite3.connect(folder / ANSWERS_FILE)
    watching.execute("SELECT count(*) FROM answer").fetchone()
    assert leaves.client.delete("/api/listeners", headers=leaves.headers).status_code == 200
    assert leaves.client.get("/api/screen", headers=leaves.headers).status_code == 404
    for path in folder.glob("answers.sqlite*"):
        assert identity not in path.read_bytes()
    watching.close()
    assert [it.listener.id for it in list_participants(test, AnswerDatabase(folder / ANSWERS_FILE))] == [
        stays.headers["X-Listener"]
    ]
    assert AnswerDatabase(folder / ANSWERS_FILE).add_listener("yes").number == 1  # the place is free again


def test_active_choice_is_kept_and_learns(copied: Copied) -> None:
    test, folder = copied("pairs")
    test = test.model_copy(update={"choice": "active"})
    visitor = Visitor(test, folder)
    asked = []
    while (state := visitor.state())["stage"] != "done":
        if state["stage"] == "trial":
            first, again = (visitor.sounds(visitor.state()) for _ in range(2))
            assert [it.content for it in first] == [it.content for it in again]
            asked.append([it.content for it in first])
        visitor.answer(state)
    assert len(asked) == test.per_listener + test.repeats
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    (person,) = list_participants(test, answers)
    *chosen, repeated = person.responses
    assert {it.question.trial for it in chosen} == set(range(len(test.trials)))
    # What comes again at the end is one of those that were chosen, its sides changed.
    before = next(k for k, it in enumerate(chosen) if it.screen_number == repeated.repeat_of)
    assert asked[-1] == asked[before][::-1]
    assert repeated.question.trial == chosen[before].question.trial
    found = analyze_answers(test, answers)
    assert found.consistency is not None
    assert (found.consistency.successes, found.consistency.total) == (
        0,
        1,
    )  # "A" is now the other one
    assert found.pairs[0].answers.total == len(chosen)


@contextmanager
def served(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command itself, and the address that it prints."""
    command = [sys.executable, "-m", "tonewood", "listen", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def asked(address: str, method: str, path: str, listener: str = "", content: Any = None) -> Any:
    where, _, token = address.partition("?token=")
    headers = {"Authorization": f"Bearer {token}", "X-Listener": listener}
    body = None if content is None else json.dumps(content).encode()
    if body:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(where + path, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def test_a_killed_server_loses_nothing_and_keeps_its_address(copied: Copied) -> None:
    _, folder = copied("pairs")
    with served(folder) as (process, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[0-9a-f]{32}", address)
        listener = asked(address, "POST", "api/listeners", content={"agreed": True})["listener"]
        content = {"value": "set", "final": True, "seconds": 1}
        state = asked(address, "PUT", "api/screens/0", listener, content)
        draft = {"value": "B", "final": False, "seconds": 2}
        asked(address, "PUT", f"api/screens/{state['screen']}", listener, draft)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert count_answers(folder / ANSWERS_FILE) == 2
    with served(folder) as (_, again):
        assert again.partition("?")[2] == address.partition("?")[2]
        back = asked(again, "GET", "api/screen", listener)
        assert (back["screen"], back["draft"]) == (state["screen"], "B")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            asked(again.partition("?")[0], "GET", "api/test")


def test_a_listeners_screens_do_not_depend_on_the_server(copied: Copied) -> None:
    test, folder = copied("abx")
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    listener = answers.add_listener("yes")
    assert screens_of(test, answers, listener) == screens_of(
        test, AnswerDatabase(folder / ANSWERS_FILE), listener
    )
