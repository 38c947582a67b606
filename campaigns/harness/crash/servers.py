"""Kill servers while pages send requests: everything that was confirmed must be kept."""

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

from campaigns.harness.crash.runs import KillResult, cpu_seconds, environment, kill_after, leftover_files
from tonewood.listening.definition import ANSWERS_FILE

_TIMEOUT_S = 900.0
# Errors of a client whose server is killed.
_CONNECTION_ERRORS = (OSError, http.client.IncompleteRead, json.JSONDecodeError, EOFError)


class ServerProcess:
    """A server in its own process."""

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
        self.ready_event = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.ready_event.set()

    def ready(self) -> "ServerProcess":
        """Wait for the address."""
        assert self.ready_event.wait(_TIMEOUT_S)
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
        """Send a request; return the answer, parsed if it is JSON."""
        url, _, token = self.address.partition("?token=")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if listener:
            headers["X-Listener"] = listener
        body = raw
        if content is not None:
            body, headers["Content-Type"] = json.dumps(content).encode(), "application/json"
        request = urllib.request.Request(f"{url.rstrip('/')}/{path}", body, headers, method=method)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            body = answer.read()
        return json.loads(body) if body[:1] in (b"{", b"[") else body

    def stop(self, how: int) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(how)
        code = self.process.wait(_TIMEOUT_S)
        self.ready_event.wait(5)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


class PageThread(threading.Thread):
    """Client that sends requests until the server is gone."""

    def __init__(self, server: ServerProcess, visit: Callable[["PageThread"], None]) -> None:
        super().__init__(daemon=True)
        self.server, self.visit = server, visit
        self.sent: dict[Any, Any] = {}  # not confirmed yet
        self.confirmed: dict[Any, Any] = {}
        self.error: Exception | None = None

    def run(self) -> None:
        """Run the visit as soon as the server is ready."""
        try:
            if self.server.ready_event.wait(_TIMEOUT_S) and self.server.address:
                self.visit(self)
        except urllib.error.HTTPError as error:
            self.error = error
        except _CONNECTION_ERRORS:
            pass
        except Exception as error:
            self.error = error

    def send_and_record(self, name: Any, value: Any, ask: Callable[[], Any]) -> Any:
        """Send a request that stores a value, and record its confirmation."""
        self.sent[name] = value
        answer = ask()
        self.confirmed[name] = value
        del self.sent[name]
        return answer


def kill_server(
    server: ServerProcess, pages: list[PageThread], seconds: float, scene: str, at: float, least: int = 0
) -> KillResult:
    """Kill a server after some seconds of processor time, while pages send requests.

    It is killed later if fewer values than `least` were confirmed until then.
    """
    for page in pages:
        page.start()
    while sum(len(page.confirmed) for page in pages) < least and any(page.is_alive() for page in pages):
        time.sleep(0.004)
    kill_after(server.process, seconds)
    when = "in" if server.address else "before"
    server.stop(signal.SIGKILL)
    for page in pages:
        page.join(_TIMEOUT_S)
    errors = [f"a page failed: {page.error!r}" for page in pages if page.error]
    return KillResult(scene, at, when, errors)


def check_database(path: Path) -> list[str]:
    """List the errors that SQLite finds in a database."""
    connection = sqlite3.connect(path)
    messages = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    connection.close()
    return [f"{path.name}: {message}" for message in messages if message != "ok"] + [
        str(row) for row in broken
    ]


# --- listening


def answer_questions(page: PageThread) -> None:
    """Take part in the test again and again, with drafts before answers."""
    server = page.server
    while True:
        listener_id = server.ask("POST", "api/listeners", {"agreed": True})["listener"]
        page.confirmed["joined", listener_id] = True
        state = server.ask("GET", "api/screen", listener=listener_id)
        while state["stage"] != "done":
            number = state["screen"]
            choice = "set" if state["stage"] == "volume" else random.choice("AB")
            for value, final in (("B", False), (choice, True)):
                if state["stage"] == "volume" and not final:
                    continue
                content = {"value": value, "final": final, "seconds": 1}
                ask = partial(server.ask, "PUT", f"api/screens/{number}", content, listener_id)
                answer = page.send_and_record((listener_id, number), (value, final), ask)
            state = answer


def kill_listening(
    test: Path, work: Path, seconds: float, at: float, name: str = "listen serve", least: int = 0
) -> KillResult:
    """Kill `listen serve` while two listeners answer; see `kill_server`."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(test, work / "test")
    (work / "tmp").mkdir()
    files_before = {path.name for path in (work / "test").iterdir()}
    serve = ["listen", "serve", str(work / "test")]
    server = ServerProcess(serve, work)
    pages = [PageThread(server, answer_questions) for _ in range(2)]
    result = kill_server(server, pages, seconds, name, at, least)
    database = work / "test" / ANSWERS_FILE
    if database.exists():
        result.errors += check_database(database)
        result.errors += _lost_answers(database, pages)
    again = ServerProcess(serve, work).ready()
    listeners = {key[1] for page in pages for key in page.confirmed if key[0] == "joined"}
    for listener_id in listeners:
        again.ask("GET", "api/screen", listener=listener_id)
    last = PageThread(again, take_part_once)
    last.start()
    last.join(_TIMEOUT_S)
    if last.error or "whole" not in last.confirmed:
        result.errors.append(f"nobody could take part afterwards: {last.error!r}")
    code = again.stop(signal.SIGTERM)
    result.errors += _leftovers(work, {*files_before, ANSWERS_FILE}, code)
    return result


def run_listening(test: Path, work: Path) -> tuple[float, float]:
    """Processor time of `listen serve`, in seconds: of its start, and with forty listeners."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(test, work / "test")
    (work / "tmp").mkdir()
    server = ServerProcess(["listen", "serve", str(work / "test")], work).ready()
    start = cpu_seconds(server.process.pid)
    for _ in range(40):
        take_part_once(PageThread(server, take_part_once))
    seconds = cpu_seconds(server.process.pid)
    server.stop(signal.SIGTERM)
    return start, seconds


def take_part_once(page: PageThread) -> None:
    """Take part once."""
    listener_id = page.server.ask("POST", "api/listeners", {"agreed": True})["listener"]
    state = page.server.ask("GET", "api/screen", listener=listener_id)
    while state["stage"] != "done":
        value = "set" if state["stage"] == "volume" else "A"
        content = {"value": value, "final": True, "seconds": 1}
        state = page.server.ask("PUT", f"api/screens/{state['screen']}", content, listener=listener_id)
    page.confirmed["whole"] = state["code"]


def _lost_answers(database: Path, pages: list[PageThread]) -> list[str]:
    connection = sqlite3.connect(database)
    rows = connection.execute("SELECT listener, screen, value, final FROM answer").fetchall()
    people = {row[0] for row in connection.execute("SELECT id FROM listener")}
    connection.close()
    stored = {
        (listener_id, screen): (json.loads(value), bool(final)) for listener_id, screen, value, final in rows
    }
    errors = []
    for page in pages:
        for key, value in page.confirmed.items():
            if key[0] == "joined":
                errors += [] if key[1] in people else [f"listener {key[1]} is lost"]
            elif stored.get(key) not in (value, page.sent.get(key, value)):
                errors.append(f"the answer {key} is {stored.get(key)}, {value} was confirmed")
    return errors


def _leftovers(work: Path, expected_files: set[str], code: int) -> list[str]:
    errors = [] if code in (0, 143, -15) else [f"stopped, it exited with {code}"]
    names = {path.name for path in (work / "test").iterdir()}
    errors += [f"{name} is left" for name in sorted(names - expected_files)]
    return errors + [f"tmp/{name} is left" for name in leftover_files(work / "tmp")]


# --- the studio


class Studio:
    """Actions of the studio's pages: open, search, edit, undo, redo and download."""

    def __init__(self, take: Path, model: str) -> None:
        self.content, self.model = take.read_bytes(), model
        self.recipe: bytes | None = None

    def serve(self, work: Path) -> ServerProcess:
        """Start a studio."""
        options = ["--no-browser", "--folder", str(work / "out"), "-m", self.model]
        return ServerProcess(["studio", *options, "--root", str(work / "tmp")], work)

    def visit(self, page: PageThread) -> None:
        """Visit again and again, until the server is gone."""
        while True:
            self.visit_once(page)
            page.confirmed["rounds"] = page.confirmed.get("rounds", 0) + 1

    def visit_once(self, page: PageThread) -> str:
        """Open a recording, search, edit, undo, redo and download; return the session's name."""
        ask = page.server.ask
        name: str = ask("POST", "api/recordings?name=take.wav", raw=self.content)["id"]
        page.confirmed["session", name] = True
        at = f"api/sessions/{name}"
        page.confirmed["found", name] = self.search(page, name)["told"]["found"]
        edit = ask("GET", f"{at}/state")["edit"]
        for amount in (0.5, 0.7):
            put = partial(ask, "PUT", f"{at}/edit", {**edit, "amount": amount})
            page.send_and_record(("amount", name), amount, put)
        page.send_and_record(("amount", name), 0.5, lambda: ask("POST", f"{at}/undo"))
        ask("GET", f"{at}/take/audio")
        ask("GET", f"{at}/take/session")
        page.send_and_record(("amount", name), 0.7, lambda: ask("POST", f"{at}/redo"))
        return name

    def search(self, page: PageThread, name: str) -> Any:
        """Search a mask and wait for the end."""
        ask = page.server.ask
        job = ask("POST", f"api/sessions/{name}/enhance", {"steps": 2, "force": True})
        while (job := ask("GET", f"api/jobs/{job['id']}"))["state"] in ("queued", "running"):
            time.sleep(0.05)
        assert job["state"] == "done", job
        return job

    def run_undisturbed(self, work: Path) -> float:
        """Make an undisturbed visit and keep its final recipe.

        Returns the processor time of the start and two visits, in seconds.
        """
        _create_folders(work)
        server = self.serve(work).ready()
        start = cpu_seconds(server.process.pid)
        page = PageThread(server, lambda page: None)
        name = self.visit_once(page)
        seconds = 2 * cpu_seconds(server.process.pid) - start
        self.recipe = _download_recipe(server, name)
        server.stop(signal.SIGTERM)
        return seconds

    def kill(self, work: Path, seconds: float, at: float) -> KillResult:
        """Kill the studio while two pages send requests."""
        _create_folders(work)
        server = self.serve(work)
        pages = [PageThread(server, self.visit) for _ in range(2)]
        result = kill_server(server, pages, seconds, "studio", at)
        database = work / "out" / "studio.db"
        if database.exists():
            result.errors += check_database(database)
        again = self.serve(work).ready()
        result.errors += self._lost_edits(again, pages)
        page = PageThread(again, lambda page: None)
        name = self.visit_once(page)
        if _download_recipe(again, name) != self.recipe:
            result.errors.append("a search after the kill differs from an undisturbed one")
        # Interrupted searches must be possible again.
        confirmed = {key for client in pages for key in client.confirmed if isinstance(key, tuple)}
        for kind, session in sorted(confirmed):
            if kind == "session" and ("found", session) not in confirmed:
                self.search(page, session)
        running = [job for job in again.ask("GET", "api/jobs") if job["state"] == "running"]
        result.errors += [f"a job still runs: {job}" for job in running]
        sessions = {session["id"] for session in again.ask("GET", "api/sessions")}
        code = again.stop(signal.SIGTERM)
        if code not in (0, 143, -15):
            result.errors.append(f"stopped, it exited with {code}")
        result.errors += check_database(database) + self._leftovers(work, sessions)
        return result

    def _lost_edits(self, server: ServerProcess, pages: list[PageThread]) -> list[str]:
        errors = []
        for page in pages:
            for key, value in page.confirmed.items():
                if not isinstance(key, tuple):
                    continue
                kind, name = key
                try:
                    state = server.ask("GET", f"api/sessions/{name}/state")
                except urllib.error.HTTPError as error:
                    errors.append(f"session {name} is lost: {error}")
                    continue
                if kind == "amount":
                    amount = state["edit"]["amount"]
                    if amount not in (value, page.sent.get(key, value)):
                        errors.append(f"{key} is {amount}, {value} was confirmed")
                elif kind == "found" and state["found"] is None:
                    errors.append(f"the mask of {name} is lost")
        return errors

    def _leftovers(self, work: Path, sessions: set[str]) -> list[str]:
        out = work / "out"
        errors = [f"{path.name} is left" for path in out.iterdir() if path.name not in _STUDIO_FILES]
        folders = {path.name for path in (out / "sessions").iterdir()}
        errors += [f"a folder without a session is left: {name}" for name in folders - sessions]
        for path in (out / "sessions").rglob("*"):
            if not _SESSION_FILE.fullmatch(path.name) and path.is_file():
                errors.append(f"{path.relative_to(out)} is left")
        return errors + [f"tmp/{name} is left" for name in leftover_files(work / "tmp")]


_STUDIO_FILES = {"studio.db", "studio.db-wal", "studio.db-shm", "sessions", "models"}
_SESSION_FILE = re.compile(
    r"upload\.wav|input\.f32|bands\.npz|anchor\.json|found-\d+\.recipe\.json"
    r"|whole-[0-9a-f]{20}\.(npy|json)"
)


def _create_folders(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    for name in ("out", "tmp"):
        (work / name).mkdir(parents=True)


def _download_recipe(server: ServerProcess, name: str) -> Any:
    return server.ask("GET", f"api/sessions/{name}/take/recipe")
