"""Requests as they come over the wire to servers that run: all that is right, to be damaged."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from urllib.parse import quote, urlsplit

import httpx2 as httpx

from campaigns.harness.fuzz.mutations import BYTES, TEXT, worded
from campaigns.harness.fuzz.readers import LIMIT_BYTES, LIMIT_S, Reader
from campaigns.harness.load.process import sample
from tonewood.errors import TonewoodError
from tonewood.listening.database import AnswerDatabase
from tonewood.listening.definition import ANSWERS_FILE

Say = Callable[..., bytes]
NOTE = {"id": "n", "seconds": 1.0, "hz": 900.0, "width_s": 0.5, "height_hz": 400.0, "gain_db": 6.0}
EDIT = {"amount": 0.7, "notes": [NOTE], "areas": []}
NOBODY = "0" * 16
PATIENCE_S = 0.1  # for an answer to a request that may be half of one


class RefusedError(TonewoodError):
    """The server said no, with a status that is the sender's fault."""


def judged(status: int, told: str) -> None:
    """Pass what was taken; refuse what was refused; nothing else may be."""
    assert status < 500, f"{status}: {told}"
    if status >= 400:
        raise RefusedError(str(status))


@contextmanager
def served(arguments: list[str], scratch: Path, seeds: Callable[[str, Say], list[bytes]]) -> Iterator[Reader]:
    """A reader of what comes to the port of a server that runs as users start it.

    Parameters
    ----------
    seeds : callable
        Of the server's address and `request` there, right requests.
    """
    errors = scratch / f"{arguments[0]}.err"
    with errors.open("wb") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "tonewood", *arguments, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env={**os.environ, "TERM": "dumb"},
        )
    assert process.stdout is not None
    place = urlsplit(process.stdout.readline().strip())
    port, (*_, token) = place.port, place.query.partition("token=")
    assert port is not None, errors.read_text()
    begun = sample(process.pid).rss

    def read(path: Path) -> None:
        said = asked(port, path.read_bytes())
        complained = errors.read_text()
        assert not complained, complained
        assert sample(process.pid).rss < begun + LIMIT_BYTES
        for made in _MADE.findall(said):
            asked(port, request("DELETE", f"/api/sessions/{made.decode()}", port=port))
        judged(max((int(it) for it in _STATUS.findall(said)), default=400), repr(said[:300]))

    try:
        known = (f"Authorization: Bearer {token}",) if token else ()
        wires = seeds(f"http://{place.netloc}", partial(request, port=port, known=known))
        yield Reader(".http", tuple(wires), read, (_body, _body, _target, _target, worded, *BYTES))
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


_STATUS = re.compile(rb"^HTTP/1\.1 (\d\d\d) ", re.MULTILINE)
_MADE = re.compile(rb'^HTTP/1\.1 201 .*?"id":"([0-9a-f]{16})"', re.DOTALL)


def _target(wire: bytes, random: Random) -> bytes:
    """A request with damage to what it asks for, written as an address may be."""
    line, rest = wire.split(b"\r\n", 1) if b"\r\n" in wire else (wire, b"")
    method, _, asks = line.partition(b" ")
    asks = random.choice(TEXT)(asks.removesuffix(b" HTTP/1.1"), random)[:2_000]
    if random.random() < 0.1:
        method = random.choice((b"GET", b"PUT", b"POST", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH"))
    return b"%b %b HTTP/1.1\r\n%b" % (method, quote(asks, safe="/?&=%:,").encode(), rest)


def _body(wire: bytes, random: Random) -> bytes:
    """A request with damage to its body, which is as long as it says."""
    head, _, body = wire.partition(b"\r\n\r\n")
    if not body:
        return _target(wire, random)
    body = random.choice(TEXT)(body, random)
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head)
    return head + b"\r\n\r\n" + body


def request(
    method: str,
    path: str,
    body: bytes | None = None,
    *more: str,
    port: int,
    known: tuple[str, ...] = (),
) -> bytes:
    """A request as it goes over the wire, after which the connection is closed."""
    host = f"Host: 127.0.0.1:{port}"
    lines = [f"{method} {path} HTTP/1.1", host, *known, *more, "Connection: close"]
    if body is not None:
        kind = "json" if body[:1] in (b"{", b"[") else "octet-stream"
        lines += [f"Content-Type: application/{kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def asked(port: int, wire: bytes) -> bytes:
    """All that is answered; who has said half a request says no more, after a while.

    Raises
    ------
    AssertionError
        The connection stays open after the sender is gone.
    """
    said = b""
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.settimeout(PATIENCE_S)
        try:
            line.sendall(wire)
            while piece := line.recv(65_536):
                said += piece
        except TimeoutError:
            line.settimeout(LIMIT_S)
            try:
                line.shutdown(socket.SHUT_WR)
                while piece := line.recv(65_536):
                    said += piece
            except TimeoutError:
                raise AssertionError(f"no end in {LIMIT_S:g} s after {said[:300]!r}") from None
            except OSError:
                pass
        except OSError:  # closed at once, with more to read: what was said before counts
            pass
    return said


def to_studio(recording: bytes, session: str, say: Say) -> list[bytes]:
    """Right requests to a studio with a session."""
    at = f"/api/sessions/{session}"
    edit = json.dumps(EDIT).encode()
    search = json.dumps({"steps": 3, "force": True}).encode()
    return [
        *(say("GET", it) for it in (
            "/", "/api/models", "/api/sessions", "/api/jobs", "/api/formats", "/api/places",
            at, f"{at}/state", f"{at}/waveform", f"{at}/curve?axis=log",
            f"{at}/tiles/input/mel/0/0", f"{at}/tiles/output/log/1/0?key=x",
            f"{at}/tiles/mask/log/0/0?edit=0&key=x", f"{at}/tiles/saliency/mel/0/0",
            f"{at}/sound/input?start=0&stop=4000", f"{at}/sound/output?start=9&stop=99&amount=0.5",
            f"{at}/take/session", f"{at}/take/certificate", f"{at}/take/equaliser/csv",
            f"{at}/audio/input", f"/api/jobs/{NOBODY}", f"/api/jobs/{NOBODY}/files/0/input",
        )),
        say("GET", f"{at}/audio/input", None, "Range: bytes=0-99"),
        say("GET", "/api/events?session=x", None, "Last-Event-ID: 1"),
        say("PUT", f"{at}/edit", edit), say("POST", f"{at}/undo"), say("POST", f"{at}/redo"),
        say("PUT", f"{at}/model", b'{"model": "soundfont-cello"}'),
        say("POST", "/api/recordings?name=a.wav", recording),
        # Nobody's, so that nothing is searched, and nothing lost.
        *(say("POST", f"/api/sessions/{NOBODY}/{it}", search) for it in ("enhance", "again")),
        say("POST", f"/api/sessions/{NOBODY}/explain"), say("DELETE", f"/api/sessions/{NOBODY}"),
        say("DELETE", f"/api/jobs/{NOBODY}"),
        *(say("POST", f"/api/{it}", json.dumps({"reference": NOBODY, "source": NOBODY}).encode())
          for it in ("audits", "trainings")),
        say("POST", "/api/batches", json.dumps({"folder": NOBODY, "model": "x"}).encode()),
    ]  # fmt: skip


@contextmanager
def requests_to_studio(model_file: str, folder: Path, recording: bytes) -> Iterator[Reader]:
    """A reader of requests to a studio."""

    def seeds(url: str, say: Say) -> list[bytes]:
        answer = httpx.post(f"{url}/api/recordings?name=seed.wav", content=recording)
        return to_studio(recording, answer.json()["id"], say)

    own = ["--folder", str(folder / "studio"), "--root", str(folder), "-m", model_file]
    with served(["studio", "--no-browser", *own], folder, seeds) as reader:
        yield reader


@contextmanager
def requests_to_test(folder: Path) -> Iterator[Reader]:
    """A reader of requests to a listening test."""
    listener = AnswerDatabase(folder / ANSWERS_FILE).add_listener("yes").id
    me = f"X-Listener: {listener}"

    def seeds(url: str, say: Say) -> list[bytes]:
        given = json.dumps({"value": "set", "final": False, "seconds": 1.5}).encode()
        return [
            *(say("GET", it) for it in ("/", "/page.js", "/player.js", "/page.css", "/api/test")),
            say("POST", "/api/listeners", b'{"agreed": true}'),
            say("GET", "/api/screen", None, me),
            say("GET", "/api/screens/0/sounds/0", None, me),
            say("PUT", "/api/screens/0", given, me),
            say("DELETE", "/api/listeners", None, "X-Listener: nobody"),
        ]

    with served(["listen", "serve", str(folder)], folder, seeds) as reader:
        yield reader
