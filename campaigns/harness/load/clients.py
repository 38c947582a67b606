"""Simulated users of a studio, and the answers, waits and errors that they get."""

import io
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import numpy as np
import soundfile

from campaigns.harness.audio import instrument

NOTE = {"id": "n1", "seconds": 1.0, "hz": 900.0, "width_s": 0.5, "height_hz": 400.0, "gain_db": 6.0}
_PAUSE_S = 0.4  # mean pause between two actions
_WAIT_S = 300.0  # for an answer; generous, because the machine may be busy


@dataclass
class LoadResult:
    """Outcomes of many requests.

    Parameters
    ----------
    light_ms : list of float
        Waits for frequent requests of a page: lists, states, tiles, pieces of audio.
    errors : list of str
        Unexpected answers: any 5xx, unprovoked 4xx, broken connections.
    """

    answers: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    light_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def p(self, share: float) -> float:
        """Return a quantile of the waits of light requests, in ms."""
        return float(np.quantile(self.light_ms or [0.0], share))


class Client:
    """User with a page, a few sessions, and a connection that breaks at times."""

    def __init__(self, url: str, seed: int, result: LoadResult, max_sessions: int = 3) -> None:
        self.url, self.result, self.max_sessions = url, result, max_sessions
        self.random = Random(seed)
        self.http = httpx.Client(base_url=url, timeout=_WAIT_S)
        self.sessions: list[str] = []
        self.recordings = recordings(seed)
        self.acts: list[tuple[int, Callable[[], None]]] = [
            (30, self.look), (4, self.upload), (3, self.search), (3, self.cancel), (6, self.edit),
            (2, self.save), (2, self.take), (4, self.listen), (2, self.drop_upload),
            (2, self.drop_download), (1, self.damaged), (2, self.forget), (1, self.whole),
        ]  # fmt: skip

    def __call__(self, until: float, least: int = 0) -> None:
        """Do random actions until a time of the monotonic clock, and at least a number of them."""
        weights = [weight for weight, _ in self.acts]
        with self.http:
            self._safely(self.upload)
            done = 0
            while time.monotonic() < until or done < least:
                done += 1
                (act,) = self.random.choices([act for _, act in self.acts], weights)
                self._safely(act)
                time.sleep(self.random.expovariate(1 / _PAUSE_S))
            while self.sessions:
                self._safely(self.forget)

    def _safely(self, act: Callable[[], None]) -> None:
        if not self.sessions and act != self.upload:
            act = self.upload
        try:
            act()
        except (httpx.HTTPError, OSError) as error:
            with self.result.lock:
                self.result.errors.append(f"{act.__name__}: {error!r}")
            return
        with self.result.lock:
            self.result.done[act.__name__] += 1

    def request(
        self, method: str, path: str, *, light: bool = False, may: tuple[int, ...] = (), **more: Any
    ) -> Any:
        """Send a request and count its answer; other statuses than 2xx and `may` are errors."""
        began = time.perf_counter()
        answer = self.http.request(method, path, **more)
        ms = 1000 * (time.perf_counter() - began)
        code = answer.status_code
        with self.result.lock:
            self.result.answers[f"{code // 100}xx"] += 1
            if light:
                self.result.light_ms.append(ms)
            if not 200 <= code < 300 and code not in may:
                self.result.errors.append(f"{method} {path}: {code} {answer.text[:200]}")
        return answer

    @property
    def base(self) -> str:
        """Path of a random own session."""
        return f"/api/sessions/{self.random.choice(self.sessions)}"

    # --- actions

    def look(self) -> None:
        """Open and scroll a page, with light requests only."""
        base, random = self.base, self.random
        axis, level = random.choice(("log", "mel")), random.randrange(4)
        start = random.randrange(4_000)
        for path in random.sample(
            (
                "/", "/api/sessions", "/api/models", "/api/formats", base, f"{base}/state",
                f"{base}/waveform", f"{base}/curve?axis={axis}",
                f"{base}/tiles/input/{axis}/{level}/0", f"{base}/tiles/mask/{axis}/{level}/0",
                f"{base}/sound/input?start={start}&stop={start + 16_000}",
                f"{base}/sound/output?start={start}&stop={start + 16_000}&amount=0.5",
            ),
            4,
        ):  # fmt: skip
            self.request("GET", path, light=True)

    def upload(self) -> None:
        """Upload a recording."""
        while len(self.sessions) >= self.max_sessions:
            self.forget()
        content = self.random.choice(self.recordings)
        answer = self.request("POST", "/api/recordings?name=a%20take.wav", content=content)
        if answer.status_code == 201:
            self.sessions.append(answer.json()["id"])

    def search(self) -> None:
        """Search a few steps and wait for the end."""
        job = self.request("POST", f"{self.base}/enhance", json={"steps": 1, "force": True}).json()
        self.wait_for_end(job)

    def cancel(self) -> None:
        """Start a search and cancel it."""
        job = self.request("POST", f"{self.base}/enhance", json={"steps": 20, "force": True}).json()
        time.sleep(self.random.random())
        self.request("DELETE", f"/api/jobs/{job['id']}")

    def whole(self) -> None:
        """Render the whole recording."""
        answer = self.request("POST", f"{self.base}/whole").json()
        if "id" in answer:
            self.wait_for_end(answer)

    def edit(self) -> None:
        """Change amount and a note, then undo or redo."""
        base = self.base
        note = {**NOTE, "gain_db": self.random.uniform(-12, 12)}
        for _ in range(3):
            body = {"amount": self.random.random(), "notes": [note]}
            self.request("PUT", f"{base}/edit", json=body)
        self.request("POST", f"{base}/{self.random.choice(('undo', 'redo'))}")

    def save(self) -> None:
        """Save a session to a file and open it again."""
        content = self.request("GET", f"{self.base}/take/session").content
        while len(self.sessions) >= self.max_sessions:
            self.forget()
        answer = self.request("POST", "/api/recordings?name=a.tonewood-session", content=content)
        if answer.status_code == 201:
            self.sessions.append(answer.json()["id"])

    def take(self) -> None:
        """Download the output, which is rendered for it."""
        suffix = self.random.choice(("wav", "flac", "ogg"))
        self.request("GET", f"{self.base}/take/audio?format={suffix}")

    def listen(self) -> None:
        """Receive the events of a session for a moment."""
        name = self.base.rsplit("/", 1)[1]
        with self.http.stream("GET", f"/api/events?session={name}") as stream:
            assert next(stream.iter_lines()) == ": hello"
            time.sleep(self.random.random())

    def damaged(self) -> None:
        """Upload a damaged file, which is refused."""
        content = b"RIFF" + self.random.randbytes(5_000)
        self.request("POST", "/api/recordings?name=a.wav", content=content, may=(400,))

    def forget(self) -> None:
        """Delete a session, even with running jobs."""
        name = self.sessions.pop(self.random.randrange(len(self.sessions)))
        self.request("DELETE", f"/api/sessions/{name}")

    def drop_upload(self) -> None:
        """Break the connection during an upload."""
        content = self.random.choice(self.recordings)
        with open_connection(self.url) as connection:
            connection.sendall(request_head("POST", "/api/recordings?name=a.wav", self.url, len(content)))
            connection.sendall(content[: self.random.randrange(len(content))])
            time.sleep(0.2 * self.random.random())
            self._break(connection)

    def drop_download(self) -> None:
        """Break the connection during a download."""
        with open_connection(self.url) as connection:
            connection.sendall(request_head("GET", f"{self.base}/audio/input", self.url))
            connection.recv(self.random.randrange(1, 2_000))
            self._break(connection)

    def _break(self, connection: socket.socket) -> None:
        if self.random.random() < 0.5:  # immediately, by a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def wait_for_end(self, job: dict[str, Any]) -> None:
        """Poll a job until its end, as a page does."""
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            now = self.request("GET", f"/api/jobs/{job['id']}", light=True).json()
            if now["state"] not in ("queued", "running"):
                if now["state"] == "failed":
                    with self.result.lock:
                        self.result.errors.append(f"{job['kind']}: {now['told'].get('error')}")
                return
            time.sleep(0.2)


@contextmanager
def open_connection(url: str) -> Iterator[socket.socket]:
    """Open a connection to a server."""
    place = urlsplit(url)
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port), timeout=_WAIT_S) as connection:
        yield connection


def request_head(method: str, path: str, url: str, length: int | None = None, *more: str) -> bytes:
    """Encode the head of a request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def recordings(seed: int) -> list[bytes]:
    """Return short recordings in several formats."""
    contents = []
    for number, (container, seconds) in enumerate((("WAV", 2.0), ("FLAC", 4.0), ("WAV", 6.0))):
        sink = io.BytesIO()
        samples = instrument(seconds, channels=1 + number % 2, seed=seed)
        soundfile.write(sink, samples.T, 16_000, format=container, subtype="PCM_16")
        contents.append(sink.getvalue())
    return contents


def run_clients(url: str, clients: int, seconds: float, seed: int = 0, least: int = 0) -> LoadResult:
    """Run clients on a studio for some seconds, until each has done `least` actions."""
    result = LoadResult()
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=Client(url, 1_000 * seed + number, result), args=(until, least), daemon=True)
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 3 * _WAIT_S)
    if any(thread.is_alive() for thread in threads):
        result.errors.append("a client still waits for an answer")
    return result


def delete_sessions(url: str) -> None:
    """Delete all sessions of a studio."""
    with httpx.Client(base_url=url, timeout=_WAIT_S) as http:
        for session in http.get("/api/sessions").json():
            http.delete(f"/api/sessions/{session['id']}")
