"""Readers of raw HTTP requests: running servers, with valid requests to damage."""

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

from campaigns.harness.fuzz.mutations import BYTES, TEXT, replace_token
from campaigns.harness.fuzz.readers import LIMIT_BYTES, Reader
from campaigns.harness.load.process import sample
from tonewood.errors import TonewoodError
from tonewood.listening.database import AnswerDatabase
from tonewood.listening.definition import ANSWERS_FILE

EncodeRequest = Callable[..., bytes]
NOTE = {"id": "n", "seconds": 1.0, "hz": 900.0, "width_s": 0.5, "height_hz": 400.0, "gain_db": 6.0}
EDIT = {"amount": 0.7, "notes": [NOTE], "areas": []}
UNKNOWN_ID = "0" * 16
ANSWER_WAIT_S = 0.1  # before the client ends its half of the connection


class RefusedError(TonewoodError):
    """The server refused a request with a 4xx status."""


def check_status(status: int, text: str) -> None:
    """Raise RefusedError for 4xx; AssertionError for 5xx."""
    assert status < 500, f"{status}: {text}"
    if status >= 400:
        raise RefusedError(str(status))


@contextmanager
def server_reader(
    arguments: list[str], scratch: Path, seeds: Callable[[str, EncodeRequest], list[bytes]]
) -> Iterator[Reader]:
    """Run a server as users start it; yield a reader that sends requests to its port.

    Parameters
    ----------
    seeds : callable
        Takes the server's address and a request encoder; returns valid requests.
    """
    errors = scratch / f"{arguments[0]}.err"
    with errors.open("wb") as error_log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tonewood", *arguments, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=error_log,
            text=True,
            env={**os.environ, "TERM": "dumb"},
        )
    assert process.stdout is not None
    place = urlsplit(process.stdout.readline().strip())
    port, (*_, token) = place.port, place.query.partition("token=")
    assert port is not None, errors.read_text()
    initial_bytes = sample(process.pid).rss

    def read(path: Path) -> None:
        answer_bytes = send_request(port, path.read_bytes())
        error_text = errors.read_text()
        assert not error_text, error_text
        assert sample(process.pid).rss < initial_bytes + LIMIT_BYTES
        for session_id in _CREATED_SESSION.findall(answer_bytes):
            send_request(port, request("DELETE", f"/api/sessions/{session_id.decode()}", port=port))
        statuses = [int(digits) for digits in _STATUS_LINE.findall(answer_bytes)]
        check_status(max(statuses, default=400), repr(answer_bytes[:300]))

    try:
        fixed_headers = (f"Authorization: Bearer {token}",) if token else ()
        wires = seeds(f"http://{place.netloc}", partial(request, port=port, fixed_headers=fixed_headers))
        yield Reader(
            ".http",
            tuple(wires),
            read,
            (_damage_body, _damage_body, _damage_target, _damage_target, replace_token, *BYTES),
        )
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


_STATUS_LINE = re.compile(rb"^HTTP/1\.1 (\d\d\d) ", re.MULTILINE)
_CREATED_SESSION = re.compile(rb'^HTTP/1\.1 201 .*?"id":"([0-9a-f]{16})"', re.DOTALL)


def _damage_target(wire: bytes, random: Random) -> bytes:
    """Damage the target of a request, keeping it a valid address."""
    line, rest = wire.split(b"\r\n", 1) if b"\r\n" in wire else (wire, b"")
    method, _, target = line.partition(b" ")
    target = random.choice(TEXT)(target.removesuffix(b" HTTP/1.1"), random)[:2_000]
    if random.random() < 0.1:
        method = random.choice((b"GET", b"PUT", b"POST", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH"))
    return b"%b %b HTTP/1.1\r\n%b" % (method, quote(target, safe="/?&=%:,").encode(), rest)


def _damage_body(wire: bytes, random: Random) -> bytes:
    """Damage the body of a request and correct its length."""
    head, _, body = wire.partition(b"\r\n\r\n")
    if not body:
        return _damage_target(wire, random)
    body = random.choice(TEXT)(body, random)
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head)
    return head + b"\r\n\r\n" + body


def request(
    method: str,
    path: str,
    body: bytes | None = None,
    *more: str,
    port: int,
    fixed_headers: tuple[str, ...] = (),
) -> bytes:
    """Encode a request that closes its connection."""
    host = f"Host: 127.0.0.1:{port}"
    lines = [f"{method} {path} HTTP/1.1", host, *fixed_headers, *more, "Connection: close"]
    if body is not None:
        kind = "json" if body[:1] in (b"{", b"[") else "octet-stream"
        lines += [f"Content-Type: application/{kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def send_request(port: int, wire: bytes) -> bytes:
    """Send a request and return the whole answer.

    Raises
    ------
    AssertionError
        The server keeps the connection open after the client has ended its half.
    """
    answer_bytes = b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(ANSWER_WAIT_S)
        try:
            connection.sendall(wire)
            while piece := connection.recv(65_536):
                answer_bytes += piece
        except TimeoutError:
            connection.settimeout(60.0)
            try:
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(65_536):
                    answer_bytes += piece
            except TimeoutError:
                raise AssertionError(f"no end in 60 s after {answer_bytes[:300]!r}") from None
            except OSError:
                pass
        except OSError:  # closed early: the answer so far counts
            pass
    return answer_bytes


def valid_studio_requests(recording: bytes, session: str, encode: EncodeRequest) -> list[bytes]:
    """Return valid requests to a studio with a session."""
    at = f"/api/sessions/{session}"
    edit = json.dumps(EDIT).encode()
    search = json.dumps({"steps": 3, "force": True}).encode()
    return [
        *(encode("GET", path) for path in (
            "/", "/api/models", "/api/sessions", "/api/jobs", "/api/formats", "/api/places",
            at, f"{at}/state", f"{at}/waveform", f"{at}/curve?axis=log",
            f"{at}/tiles/input/mel/0/0", f"{at}/tiles/output/log/1/0?key=x",
            f"{at}/tiles/mask/log/0/0?edit=0&key=x", f"{at}/tiles/saliency/mel/0/0",
            f"{at}/sound/input?start=0&stop=4000", f"{at}/sound/output?start=9&stop=99&amount=0.5",
            f"{at}/take/session", f"{at}/take/certificate", f"{at}/take/equaliser/csv",
            f"{at}/audio/input", f"/api/jobs/{UNKNOWN_ID}", f"/api/jobs/{UNKNOWN_ID}/files/0/input",
        )),
        encode("GET", f"{at}/audio/input", None, "Range: bytes=0-99"),
        encode("GET", "/api/events?session=x", None, "Last-Event-ID: 1"),
        encode("PUT", f"{at}/edit", edit), encode("POST", f"{at}/undo"), encode("POST", f"{at}/redo"),
        encode("PUT", f"{at}/model", b'{"model": "soundfont-cello"}'),
        encode("POST", "/api/recordings?name=a.wav", recording),
        # An unknown session, so that nothing is searched or deleted.
        *(encode("POST", f"/api/sessions/{UNKNOWN_ID}/{action}", search) for action in ("enhance", "again")),
        encode("POST", f"/api/sessions/{UNKNOWN_ID}/explain"),
        encode("DELETE", f"/api/sessions/{UNKNOWN_ID}"),
        encode("DELETE", f"/api/jobs/{UNKNOWN_ID}"),
        *(encode("POST", f"/api/{jobs}", json.dumps({"reference": UNKNOWN_ID, "source": UNKNOWN_ID}).encode())
          for jobs in ("audits", "trainings")),
        encode("POST", "/api/batches", json.dumps({"folder": UNKNOWN_ID, "model": "x"}).encode()),
    ]  # fmt: skip


@contextmanager
def studio_requests(model_file: str, folder: Path, recording: bytes) -> Iterator[Reader]:
    """Run a studio; yield a reader of requests."""

    def seeds(url: str, encode: EncodeRequest) -> list[bytes]:
        answer = httpx.post(f"{url}/api/recordings?name=seed.wav", content=recording)
        return valid_studio_requests(recording, answer.json()["id"], encode)

    options = ["--folder", str(folder / "studio"), "--root", str(folder), "-m", model_file]
    with server_reader(["studio", "--no-browser", *options], folder, seeds) as reader:
        yield reader


@contextmanager
def listening_requests(folder: Path) -> Iterator[Reader]:
    """Run a listening test; yield a reader of requests."""
    listener = AnswerDatabase(folder / ANSWERS_FILE).add_listener("yes").id
    listener_header = f"X-Listener: {listener}"

    def seeds(url: str, encode: EncodeRequest) -> list[bytes]:
        answer = json.dumps({"value": "set", "final": False, "seconds": 1.5}).encode()
        return [
            *(encode("GET", path) for path in ("/", "/page.js", "/player.js", "/page.css", "/api/test")),
            encode("POST", "/api/listeners", b'{"agreed": true}'),
            encode("GET", "/api/screen", None, listener_header),
            encode("GET", "/api/screens/0/sounds/0", None, listener_header),
            encode("PUT", "/api/screens/0", answer, listener_header),
            encode("DELETE", "/api/listeners", None, "X-Listener: nobody"),
        ]

    with server_reader(["listen", "serve", str(folder)], folder, seeds) as reader:
        yield reader
