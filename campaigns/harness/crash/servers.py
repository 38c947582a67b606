"""Servers that are killed while pages ask them for things: what was confirmed must be there."""

import http.client
import json
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from campaigns.harness.crash.runs import Death, environment, kill_after, left_in, spent
from tonewood.listening.definition import ANSWERS_FILE

_LONGEST = 900.0
# What a page hears of a server that is killed while it answers.
_GONE = (OSError, http.client.IncompleteRead, json.JSONDecodeError, EOFError)


class Served:
    """A server as a process of its own, and its address once it has told it."""

    def __init__(self, arguments: list[str], work: Path) -> None:
        self.work = work
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tonewood", *arguments, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(work, work / "nothing"),
        )
        self.address = ""
        self.told = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.told.set()

    def ready(self) -> "Served":
        """Wait for the address."""
        assert self.told.wait(_LONGEST)
        assert self.address, "the server did not start"
        return self

    def ask(
        self,
        method: str,
        path: str,
        content: Any = None,
        listener: str = "",
        raw: bytes | None = None,
    ) -> Any:
        """An answer of the server, as JSON where it is such."""
        where, _, token = self.address.partition("?token=")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if listener:
            headers["X-Listener"] = listener
        body = raw
        if content is not None:
            body, headers["Content-Type"] = json.dumps(content).encode(), "application/json"
        request = urllib.request.Request(f"{where.rstrip('/')}/{path}", body, headers, method=method)
        with urllib.request.urlopen(request, timeout=_LONGEST) as answer:
            told = answer.read()
        return json.loads(told) if told[:1] in (b"{", b"[") else told

    def stop(self, how: int) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(how)
        code = self.process.wait(_LONGEST)
        self.told.wait(5)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


class Page(threading.Thread):
    """Somebody who goes on asking until the server is gone."""

    def __init__(self, server: Served, visit: Callable[["Page"], None]) -> None:
        super().__init__(daemon=True)
        self.server, self.visit = server, visit
        self.sent: dict[Any, Any] = {}  # what is on its way
        self.kept: dict[Any, Any] = {}  # what was confirmed
        self.error: Exception | None = None

    def run(self) -> None:
        """Ask, once there is somebody to ask."""
        try:
            if self.server.told.wait(_LONGEST) and self.server.address:
                self.visit(self)
        except urllib.error.HTTPError as error:
            self.error = error
        except _GONE:
            pass
        except Exception as error:
            self.error = error

    def does(self, name: Any, value: Any, ask: Callable[[], Any]) -> Any:
        """Ask for something that is to be kept, and note that it was confirmed."""
        self.sent[name] = value
        told = ask()
        self.kept[name] = value
        del self.sent[name]
        return told


def killed(server: Served, pages: list[Page], seconds: float, scene: str, at: float) -> Death:
    """Kill a server after so many seconds of processor time, its pages at work."""
    for page in pages:
        page.start()
    kill_after(server.process, seconds)
    when = "in" if server.address else "before"
    server.stop(signal.SIGKILL)
    for page in pages:
        page.join(_LONGEST)
    wrong = [f"a page failed: {page.error!r}" for page in pages if page.error]
    return Death(scene, at, when, wrong)


def checked(path: Path) -> list[str]:
    """What SQLite finds wrong with a database."""
    connection = sqlite3.connect(path)
    found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    connection.close()
    return [f"{path.name}: {it}" for it in found if it != "ok"] + [str(it) for it in broken]


# --- listening


def answering(page: Page) -> None:
    """Take part again and again, with drafts before answers."""
    server = page.server
    while True:
        who = server.ask("POST", "api/listeners", {"agreed": True})["listener"]
        page.kept["joined", who] = True
        state = server.ask("GET", "api/screen", listener=who)
        while state["stage"] != "done":
            number = state["screen"]
            final = "set" if state["stage"] == "volume" else random.choice("AB")
            for value, done in (("B", False), (final, True)):
                if state["stage"] == "volume" and not done:
                    continue
                content = {"value": value, "final": done, "seconds": 1}
                ask = partial(server.ask, "PUT", f"api/screens/{number}", content, who)
                told = page.does((who, number), (value, done), ask)
            state = told


def kill_listening(test: Path, work: Path, seconds: float, at: float, name: str = "listen serve") -> Death:
    """Kill `listen serve` while two listeners answer."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(test, work / "test")
    (work / "tmp").mkdir()
    there = {path.name for path in (work / "test").iterdir()}
    serve = ["listen", "serve", str(work / "test")]
    server = Served(serve, work)
    pages = [Page(server, answering) for _ in range(2)]
    death = killed(server, pages, seconds, name, at)
    database = work / "test" / ANSWERS_FILE
    if database.exists():
        death.wrong += checked(database)
        death.wrong += _answers_lost(database, pages)
    again = Served(serve, work).ready()
    listeners = {key[1] for page in pages for key in page.kept if key[0] == "joined"}
    for who in listeners:
        again.ask("GET", "api/screen", listener=who)
    last = Page(again, _one)
    last.start()
    last.join(_LONGEST)
    if last.error or "whole" not in last.kept:
        death.wrong.append(f"nobody could take part afterwards: {last.error!r}")
    code = again.stop(signal.SIGTERM)
    death.wrong += _left(work, {*there, ANSWERS_FILE}, code)
    return death


def whole_listening(test: Path, work: Path) -> tuple[float, float]:
    """Processor time of `listen serve`, in seconds: of its start, and with forty listeners."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(test, work / "test")
    (work / "tmp").mkdir()
    server = Served(["listen", "serve", str(work / "test")], work).ready()
    start = spent(server.process.pid)
    for _ in range(40):
        _one(Page(server, _one))
    seconds = spent(server.process.pid)
    server.stop(signal.SIGTERM)
    return start, seconds


def _one(page: Page) -> None:
    """Take part once."""
    who = page.server.ask("POST", "api/listeners", {"agreed": True})["listener"]
    state = page.server.ask("GET", "api/screen", listener=who)
    while state["stage"] != "done":
        value = "set" if state["stage"] == "volume" else "A"
        content = {"value": value, "final": True, "seconds": 1}
        state = page.server.ask("PUT", f"api/screens/{state['screen']}", content, listener=who)
    page.kept["whole"] = state["code"]


def _answers_lost(database: Path, pages: list[Page]) -> list[str]:
    connection = sqlite3.connect(database)
    rows = connection.execute("SELECT listener, screen, value, final FROM answer").fetchall()
    people = {row[0] for row in connection.execute("SELECT id FROM listener")}
    connection.close()
    there = {(who, screen): (json.loads(value), bool(final)) for who, screen, value, final in rows}
    wrong = []
    for page in pages:
        for key, value in page.kept.items():
            if key[0] == "joined":
                wrong += [] if key[1] in people else [f"listener {key[1]} is lost"]
            elif there.get(key) not in (value, page.sent.get(key, value)):
                wrong.append(f"the answer {key} is {there.get(key)}, {value} was confirmed")
    return wrong


def _left(work: Path, known: set[str], code: int) -> list[str]:
    wrong = [] if code in (0, 143, -15) else [f"stopped, it ended with {code}"]
    names = {path.name for path in (work / "test").iterdir()}
    wrong += [f"{name} is left" for name in sorted(names - known)]
    return wrong + [f"tmp/{name} is left" for name in left_in(work / "tmp")]


# --- the studio


class Studio:
    """What pages of the studio do: open, edit, search, take away, forget."""

    def __init__(self, take: Path, model: str) -> None:
        self.content, self.model = take.read_bytes(), model
        self.recipe: bytes | None = None

    def serve(self, work: Path) -> Served:
        """Start one."""
        given = ["--no-browser", "--folder", str(work / "out"), "-m", self.model]
        return Served(["studio", *given, "--root", str(work / "tmp")], work)

    def visit(self, page: Page) -> None:
        """Do everything, over and over."""
        while True:
            self.once(page)
            page.kept["rounds"] = page.kept.get("rounds", 0) + 1

    def once(self, page: Page) -> str:
        """Open a recording, search, edit, go back and forth, take it away; its session."""
        ask = page.server.ask
        name: str = ask("POST", "api/recordings?name=take.wav", raw=self.content)["id"]
        page.kept["session", name] = True
        at = f"api/sessions/{name}"
        page.kept["found", name] = self.search(page, name)["told"]["found"]
        edit = ask("GET", f"{at}/state")["edit"]
        for amount in (0.5, 0.7):
            put = partial(ask, "PUT", f"{at}/edit", {**edit, "amount": amount})
            page.does(("amount", name), amount, put)
        page.does(("amount", name), 0.5, lambda: ask("POST", f"{at}/undo"))
        ask("GET", f"{at}/take/audio")
        ask("GET", f"{at}/take/session")
        page.does(("amount", name), 0.7, lambda: ask("POST", f"{at}/redo"))
        return name

    def search(self, page: Page, name: str) -> Any:
        """Search a mask and wait for it."""
        ask = page.server.ask
        job = ask("POST", f"api/sessions/{name}/enhance", {"steps": 2, "force": True})
        while (job := ask("GET", f"api/jobs/{job['id']}"))["state"] in ("queued", "running"):
            time.sleep(0.05)
        assert job["state"] == "done", job
        return job

    def whole(self, work: Path) -> float:
        """An undisturbed visit: keep the recipe that it ends with.

        Returns processor time of the start and two visits, in seconds.
        """
        _fresh(work)
        server = self.serve(work).ready()
        start = spent(server.process.pid)
        page = Page(server, lambda page: None)
        name = self.once(page)
        seconds = 2 * spent(server.process.pid) - start
        self.recipe = server.ask("GET", f"api/sessions/{name}/take/recipe") and _recipe(server, name)
        server.stop(signal.SIGTERM)
        return seconds

    def kill(self, work: Path, seconds: float, at: float) -> Death:
        """Kill it while two pages are at work."""
        _fresh(work)
        server = self.serve(work)
        pages = [Page(server, self.visit) for _ in range(2)]
        death = killed(server, pages, seconds, "studio", at)
        database = work / "out" / "studio.db"
        if database.exists():
            death.wrong += checked(database)
        again = self.serve(work).ready()
        death.wrong += self._lost(again, pages)
        page = Page(again, lambda page: None)
        name = self.once(page)
        if _recipe(again, name) != self.recipe:
            death.wrong.append("a search after the death ends otherwise than an undisturbed one")
        # What was interrupted is done again, to the same end.
        for session in [key[1] for it in pages for key in it.kept if key[0] == "session"]:
            if ("found", session) not in {key for it in pages for key in it.kept}:
                self.search(page, session)
        open_ = [job for job in again.ask("GET", "api/jobs") if job["state"] == "running"]
        death.wrong += [f"a job still runs: {job}" for job in open_]
        sessions = {it["id"] for it in again.ask("GET", "api/sessions")}
        code = again.stop(signal.SIGTERM)
        if code not in (0, 143, -15):
            death.wrong.append(f"stopped, it ended with {code}")
        death.wrong += checked(database) + self._left(work, sessions)
        return death

    def _lost(self, server: Served, pages: list[Page]) -> list[str]:
        wrong = []
        for page in pages:
            for key, value in page.kept.items():
                if not isinstance(key, tuple):
                    continue
                kind, name = key
                try:
                    state = server.ask("GET", f"api/sessions/{name}/state")
                except urllib.error.HTTPError as error:
                    wrong.append(f"session {name} is lost: {error}")
                    continue
                if kind == "amount":
                    amount = state["edit"]["amount"]
                    if amount not in (value, page.sent.get(key, value)):
                        wrong.append(f"{key} is {amount}, {value} was confirmed")
                elif kind == "found" and state["found"] is None:
                    wrong.append(f"what was found in {name} is lost")
        return wrong

    def _left(self, work: Path, sessions: set[str]) -> list[str]:
        out = work / "out"
        wrong = [f"{it.name} is left" for it in out.iterdir() if it.name not in _STUDIO]
        folders = {it.name for it in (out / "sessions").iterdir()}
        wrong += [f"a folder of no session is left: {it}" for it in folders - sessions]
        for path in (out / "sessions").rglob("*"):
            if not _KNOWN.fullmatch(path.name) and path.is_file():
                wrong.append(f"{path.relative_to(out)} is left")
        return wrong + [f"tmp/{name} is left" for name in left_in(work / "tmp")]


_STUDIO = {"studio.db", "studio.db-wal", "studio.db-shm", "sessions", "models"}
_KNOWN = re.compile(
    r"upload\.wav|input\.f32|bands\.npz|anchor\.json|found-\d+\.recipe\.json"
    r"|whole-[0-9a-f]{20}\.(npy|json)"
)


def _fresh(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    for name in ("out", "tmp"):
        (work / name).mkdir(parents=True)


def _recipe(server: Served, name: str) -> Any:
    return server.ask("GET", f"api/sessions/{name}/take/recipe")
