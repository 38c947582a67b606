"""What servers are sent, and listening tests keep: all that is right, to be damaged."""

import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2 as httpx
import numpy as np
import soundfile
from starlette.testclient import TestClient

from tests.conftest import instrument
from tests.hostile.mutations import BYTES, TEXT, mutated, worded
from tests.hostile.readers import LIMIT_BYTES, LIMIT_S, Reader, all_files, recipe_of
from tests.load.process import sample
from tonewood.errors import TonewoodError
from tonewood.files.modelfile import Model
from tonewood.listening import build, exchange, foreign, pieces
from tonewood.listening.answers import Answers
from tonewood.listening.design import ANSWERS, TEST, Test, load
from tonewood.listening.replies import laid
from tonewood.listening.results import results
from tonewood.listening.sessions import REFERENCE
from tonewood.studio.app import studio
from tonewood.studio.desk import Desk

Say = Callable[..., bytes]
NOTE = {"id": "n", "seconds": 1.0, "hz": 900.0, "width_s": 0.5, "height_hz": 400.0, "gain_db": 6.0}
EDIT = {"amount": 0.7, "notes": [NOTE], "areas": []}
NOBODY = "0" * 16
PATIENCE_S = 0.1  # for an answer to a request that may be half of one


class RefusedError(TonewoodError):
    """The server said no, with a status that is the sender's fault."""


@contextmanager
def everything(model: Model, model_file: str, folder: Path) -> Iterator[dict[str, Reader]]:
    """Readers of all that comes from others, by name; servers run as long as it lasts.

    Parameters
    ----------
    model, model_file
        The same, loaded and as the studio is told it.
    folder : Path
        An empty one.
    """
    folder.mkdir(exist_ok=True)
    recipe = recipe_of(model, folder)
    recording = (folder / "seed.wav").read_bytes()
    with ExitStack() as stack:
        desk = Desk(folder / "desk", model_file, folder)
        client = stack.enter_context(TestClient(studio(desk), base_url="http://127.0.0.1:8765"))
        tests = listening(folder)
        yield {
            **all_files(model, recipe, folder),
            **answers(tests, folder / "scratch"),
            "session": sessions(desk, client, recording, recipe),
            "requests studio": stack.enter_context(
                requests_to_studio(model_file, folder, recording)
            ),
            "requests listening": stack.enter_context(requests_to_test(tests["pairs"][1])),
        }


# --- session files


def sessions(desk: Desk, client: TestClient, recording: bytes, recipe: bytes) -> Reader:
    """A reader of session files: the route that takes them, as a page sends one."""

    def read(path: Path) -> None:
        answer = client.post("/api/recordings?name=a.tonewood-session", content=path.read_bytes())
        if answer.status_code == 201:
            client.delete(f"/api/sessions/{answer.json()['id']}")
        left = [*(desk.store.folder / "sessions").iterdir(), *desk.store.sessions()]
        assert not left, left
        judged(answer.status_code, answer.text)

    seed = session_file(client, recording, recipe)
    return Reader(".tonewood-session", (seed,), read, (_inside, _inside, *BYTES))


def session_file(client: TestClient, recording: bytes, recipe: bytes) -> bytes:
    """A session file that holds all that one may."""
    session = client.post("/api/recordings?name=seed.wav", content=recording).json()["id"]
    client.put(f"/api/sessions/{session}/edit", json=EDIT)
    parts = unpacked(client.get(f"/api/sessions/{session}/take/session").content)
    client.delete(f"/api/sessions/{session}")
    told = json.loads(parts["session.json"])
    for entry in told["history"]:
        entry["found"] = 0
    sink = io.BytesIO()
    np.savez(sink, power=np.ones((2, 1)), hz=np.array([100.0, 200.0]))
    # The studio knows the model by its digest, so that nothing need be brought; it is damaged
    # as a model file already.
    return packed(
        {
            **parts,
            "session.json": json.dumps(told).encode(),
            "model.tonewood": b"known by its digest",
            "found-0.recipe.json": recipe,
            "bands.npz": sink.getvalue(),
            "anchor.json": b"[0.0, null]",
        }
    )


def unpacked(content: bytes) -> dict[str, bytes]:
    """What a zip archive holds, by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts: dict[str, bytes]) -> bytes:
    """A zip archive of parts, its checksums right."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return sink.getvalue()


def _inside(content: bytes, random: Random) -> bytes:
    """An archive with damage to one of its parts."""
    try:
        parts = unpacked(content)
    except Exception:  # damaged before: whatever zipfile says of it
        return content
    if not parts:
        return content
    name = random.choice(sorted(parts))
    kinds = TEXT if name.endswith(".json") else BYTES
    parts[name] = mutated(parts[name], kinds, random)
    return packed(parts)


# --- answers to listening tests


def listening(folder: Path) -> dict[str, tuple[Test, Path]]:
    """A test of each kind, and its folder."""
    for number, name in enumerate(("good", "plain", "odd")):
        place = folder / "conditions" / name
        place.mkdir(parents=True)
        for piece in range(2):
            wave = instrument(6.0, formant_hz=600.0 + 900.0 * number, seed=piece)
            soundfile.write(place / f"piece{piece}.wav", wave.T, 16_000)
    made = {}
    for kind in ("pairs", "abx", "mushra"):
        found = list(
            pieces.from_conditions([folder / "conditions" / it for it in ("plain", "odd")])
        )
        if kind == "mushra":
            found = pieces.with_reference(found, folder / "conditions" / "good")
        plan = build.planned(
            kind=kind, seconds=5.0, repeats=1, checked=False, seed=3, title="Ours",
            reference="good" if kind == "mushra" else None,
        )  # fmt: skip
        *_, test = build.build(found, plan, folder / kind)
        assert isinstance(test, Test)
        made[kind] = (test, folder / kind)
    return made


def answers(tests: dict[str, tuple[Test, Path]], scratch: Path) -> dict[str, Reader]:
    """Readers of tests, of the answers they keep, and of the tables that other tests keep."""
    made = {}
    for kind, (test, folder) in tests.items():
        _answered(test, folder)
        for name, suffix, kinds in ((TEST, ".json", TEXT), (ANSWERS, ".sqlite", BYTES)):
            seed = (folder / name).read_bytes()
            read = partial(_told, folder, name, scratch / kind)
            made[f"{suffix[1:]} of {kind}"] = Reader(suffix, (seed,), read, kinds)
        for came_from, told in (("webmushra", _webmushra), ("reseval", _reseval)):
            seed = _table(told(test))
            made[f"{came_from} {kind}"] = Reader(
                ".csv", (seed,), partial(exchange.read, test, came_from), TEXT
            )
    return made


def _answered(test: Test, folder: Path) -> None:
    """Let two take part."""
    kept = Answers(folder / ANSWERS)
    for _ in range(2):
        listener = kept.join("yes")
        for place, screen in laid(test, kept, listener).items():
            value: Any = screen.right or "A"
            if screen.stage == "volume":
                value = "set"
            elif screen.stage in ("training", "trial") and test.kind == "mushra":
                value = {
                    it.label: 99.0 if it.condition == test.reference else 50.0
                    for it in screen.slots
                    if it.label != REFERENCE
                }
            assert kept.keep(listener.id, place, value, final=True, seconds=1.0)


def _told(folder: Path, name: str, scratch: Path, path: Path) -> None:
    """Results of a test one of whose files is another."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for own in (TEST, ANSWERS):
        shutil.copy(path if own == name else folder / own, scratch / own)
    results(load(scratch), Answers(scratch / ANSWERS))


Row = dict[str, object]


def _webmushra(test: Test) -> list[Row]:
    rows: list[Row] = []
    for trial in range(len(test.trials)):
        named = {"session_test_id": "t", "session_uuid": "u", "trial_id": f"t{trial}"}
        keys = [foreign.keys(test)[it] for it in test.trials[trial].conditions]
        if test.kind == "abx":
            named["choice_reference"] = "reference"
            right = foreign.keys(test)[foreign.same(test, trial)]
            (wrong,) = (it for it in keys if it != right)
            rows.append({**named, "choice_non_reference": wrong, "choice_answer": "correct"})
        elif test.kind == "pairs":
            rows += [{**named, "stimuli": it, "stimuli_rating": k} for k, it in enumerate(keys, 1)]
        else:
            hidden = [it for it in keys if it != foreign.keys(test)[test.reference or ""]]
            rows += [
                {**named, "rating_stimulus": it, "rating_score": 40, "rating_time": 9}
                for it in ("reference", *hidden)
            ]
    return rows


def _reseval(test: Test) -> list[Row]:
    said = {"mushra": "050" * len(test.conditions)}.get(test.kind, "C01")
    return [
        {"Stem": f"t{trial}", "Participant": "p", "Response": said}
        for trial in range(len(test.trials))
    ]


def _table(rows: list[Row]) -> bytes:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


# --- raw requests


@contextmanager
def served(
    arguments: list[str], scratch: Path, seeds: Callable[[str, Say], list[bytes]]
) -> Iterator[Reader]:
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


def judged(status: int, told: str) -> None:
    """Pass what was taken; refuse what was refused; nothing else may be."""
    assert status < 500, f"{status}: {told}"
    if status >= 400:
        raise RefusedError(str(status))


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
    listener = Answers(folder / ANSWERS).join("yes").id
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
