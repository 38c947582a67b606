"""What ten people do with a studio at once, and what becomes of it: answers, waits, faults."""

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
_PAUSE_S = 0.4  # between two things that somebody does, on average
_WAIT_S = 300.0  # for an answer; generous, because the machine may be busy


@dataclass
class Tally:
    """What became of many requests.

    Parameters
    ----------
    light_ms : list of float
        Waits for what a page asks all the time: lists, states, tiles, pieces of sound.
    faults : list of str
        Answers that should not be: any 5xx, any 4xx that was not asked for, broken connections.
    """

    answers: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    light_ms: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def p(self, share: float) -> float:
        """Wait in ms that so large a share of the light requests does not pass."""
        return float(np.quantile(self.light_ms or [0.0], share))


class Client:
    """Somebody with a page, a few sessions, and a connection that breaks now and then."""

    def __init__(self, url: str, seed: int, tally: Tally, most_sessions: int = 3) -> None:
        self.url, self.tally, self.most = url, tally, most_sessions
        self.random = Random(seed)
        self.http = httpx.Client(base_url=url, timeout=_WAIT_S)
        self.sessions: list[str] = []
        self.takes = takes(seed)
        self.acts: list[tuple[int, Callable[[], None]]] = [
            (30, self.look), (4, self.upload), (3, self.search), (3, self.cancel), (6, self.edit),
            (2, self.save), (2, self.take), (4, self.listen), (2, self.drop_upload),
            (2, self.drop_download), (1, self.damaged), (2, self.forget), (1, self.whole),
        ]  # fmt: skip

    def __call__(self, until: float, least: int = 0) -> None:
        """Do one thing after the other until a moment of the monotonic clock, and so many."""
        weights = [weight for weight, _ in self.acts]
        with self.http:
            self._safely(self.upload)
            done = 0
            while time.monotonic() < until or done < least:
                done += 1
                (act,) = self.random.choices([it for _, it in self.acts], weights)
                self._safely(act)
                time.sleep(self.random.expovariate(1 / _PAUSE_S))
            while self.sessions:
                self._safely(self.forget)

    def _safely(self, act: Callable[[], None]) -> None:
        if not self.sessions and act != self.upload:
            act = self.upload
        try:
            act()
            what = self.tally.done
        except (httpx.HTTPError, OSError) as error:
            with self.tally.lock:
                self.tally.faults.append(f"{act.__name__}: {error!r}")
            return
        with self.tally.lock:
            what[act.__name__] += 1

    def asked(
        self, method: str, path: str, *, light: bool = False, may: tuple[int, ...] = (), **more: Any
    ) -> Any:
        """An answer, counted; it is a fault if its status is none of those it may have."""
        began = time.perf_counter()
        answer = self.http.request(method, path, **more)
        ms = 1000 * (time.perf_counter() - began)
        code = answer.status_code
        with self.tally.lock:
            self.tally.answers[f"{code // 100}xx"] += 1
            if light:
                self.tally.light_ms.append(ms)
            if not 200 <= code < 300 and code not in may:
                self.tally.faults.append(f"{method} {path}: {code} {answer.text[:200]}")
        return answer

    @property
    def base(self) -> str:
        """Where one of the own sessions is."""
        return f"/api/sessions/{self.random.choice(self.sessions)}"

    # --- what people do

    def look(self) -> None:
        """A page is opened and scrolled: all of it light."""
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
            self.asked("GET", path, light=True)

    def upload(self) -> None:
        """A recording is dropped on the page."""
        while len(self.sessions) >= self.most:
            self.forget()
        content = self.random.choice(self.takes)
        answer = self.asked("POST", "/api/recordings?name=a%20take.wav", content=content)
        if answer.status_code == 201:
            self.sessions.append(answer.json()["id"])

    def search(self) -> None:
        """A few steps are searched, and waited for."""
        job = self.asked("POST", f"{self.base}/enhance", json={"steps": 1, "force": True}).json()
        self.ended(job)

    def cancel(self) -> None:
        """A search is begun and thought better of."""
        job = self.asked("POST", f"{self.base}/enhance", json={"steps": 20, "force": True}).json()
        time.sleep(self.random.random())
        self.asked("DELETE", f"/api/jobs/{job['id']}")

    def whole(self) -> None:
        """All of an edit is rendered."""
        answer = self.asked("POST", f"{self.base}/whole").json()
        if "id" in answer:
            self.ended(answer)

    def edit(self) -> None:
        """Amount and a note are moved, and a step is taken back."""
        base = self.base
        note = {**NOTE, "gain_db": self.random.uniform(-12, 12)}
        for _ in range(3):
            body = {"amount": self.random.random(), "notes": [note]}
            self.asked("PUT", f"{base}/edit", json=body)
        self.asked("POST", f"{base}/{self.random.choice(('undo', 'redo'))}")

    def save(self) -> None:
        """A session is saved as a file, and opened from it."""
        content = self.asked("GET", f"{self.base}/take/session").content
        while len(self.sessions) >= self.most:
            self.forget()
        answer = self.asked("POST", "/api/recordings?name=a.tonewood-session", content=content)
        if answer.status_code == 201:
            self.sessions.append(answer.json()["id"])

    def take(self) -> None:
        """The output is downloaded, for which it is rendered."""
        suffix = self.random.choice(("wav", "flac", "ogg"))
        self.asked("GET", f"{self.base}/take/audio?format={suffix}")

    def listen(self) -> None:
        """A page lives by the events of a session for a moment, and is closed."""
        name = self.base.rsplit("/", 1)[1]
        with self.http.stream("GET", f"/api/events?session={name}") as stream:
            assert next(stream.iter_lines()) == ": hello"
            time.sleep(self.random.random())

    def damaged(self) -> None:
        """What is no recording is refused."""
        content = b"RIFF" + self.random.randbytes(5_000)
        self.asked("POST", "/api/recordings?name=a.wav", content=content, may=(400,))

    def forget(self) -> None:
        """A session is forgotten, whatever is under way for it."""
        name = self.sessions.pop(self.random.randrange(len(self.sessions)))
        self.asked("DELETE", f"/api/sessions/{name}")

    def drop_upload(self) -> None:
        """The connection breaks while a recording is sent."""
        content = self.random.choice(self.takes)
        with connected(self.url) as wire:
            wire.sendall(head("POST", "/api/recordings?name=a.wav", self.url, len(content)))
            wire.sendall(content[: self.random.randrange(len(content))])
            time.sleep(0.2 * self.random.random())
            self._break(wire)

    def drop_download(self) -> None:
        """The connection breaks while a recording is received."""
        with connected(self.url) as wire:
            wire.sendall(head("GET", f"{self.base}/audio/input", self.url))
            wire.recv(self.random.randrange(1, 2_000))
            self._break(wire)

    def _break(self, wire: socket.socket) -> None:
        if self.random.random() < 0.5:  # at once, by a reset
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def ended(self, job: dict[str, Any]) -> None:
        """Wait until a job is over, as a page would ask."""
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            now = self.asked("GET", f"/api/jobs/{job['id']}", light=True).json()
            if now["state"] not in ("queued", "running"):
                if now["state"] == "failed":
                    with self.tally.lock:
                        self.tally.faults.append(f"{job['kind']}: {now['told'].get('error')}")
                return
            time.sleep(0.2)


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A connection of one's own to a server."""
    place = urlsplit(url)
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port), timeout=_WAIT_S) as wire:
        yield wire


def head(method: str, path: str, url: str, length: int | None = None, *more: str) -> bytes:
    """A request up to its body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def takes(seed: int) -> list[bytes]:
    """A few recordings of a few seconds, in several formats."""
    made = []
    for number, (container, seconds) in enumerate((("WAV", 2.0), ("FLAC", 4.0), ("WAV", 6.0))):
        sink = io.BytesIO()
        samples = instrument(seconds, channels=1 + number % 2, seed=seed)
        soundfile.write(sink, samples.T, 16_000, format=container, subtype="PCM_16")
        made.append(sink.getvalue())
    return made


def crowd(url: str, clients: int, seconds: float, seed: int = 0, least: int = 0) -> Tally:
    """Let so many clients at a studio for so long, and until each has done so much at least."""
    tally = Tally()
    until = time.monotonic() + seconds
    people = [Client(url, 1_000 * seed + number, tally) for number in range(clients)]
    threads = [threading.Thread(target=it, args=(until, least), daemon=True) for it in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 3 * _WAIT_S)
    if any(it.is_alive() for it in threads):
        tally.faults.append("a client still waits for an answer")
    return tally


def emptied(url: str) -> None:
    """Forget all sessions of a studio."""
    with httpx.Client(base_url=url, timeout=_WAIT_S) as http:
        for session in http.get("/api/sessions").json():
            http.delete(f"/api/sessions/{session['id']}")
