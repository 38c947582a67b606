"""Attacks of docs/security.md on a running studio: paths, host names, other sites, fetching."""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from campaigns.harness.load.clients import open_connection
from tests.studio.conftest import Live
from tonewood.studio.app import create_studio_app
from tonewood.studio.state import StudioState

CLIMBING = [
    "/../../../../etc/passwd", "/..%2f..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
    "/assets/../../app.py", "/assets/..%2f..%2fapp.py", "/assets/%2e%2e%2f%2e%2e%2fapp.py",
    "/assets/..\\..\\app.py", "/assets/..%5c..%5capp.py", "/assets//etc/passwd", "//etc/passwd",
    "/assets/%252e%252e/app.py", "/..;/app.py", "/%00", "/assets/%00/../../app.py",
    "file:///etc/passwd", "http://127.0.0.1/../../etc/passwd", "/studio.db", "/../studio.db",
    "/api/sessions/..%2f..%2fstudio.db", "/api/sessions/../studio.db/audio/input",
    "/api/jobs/..%2f..%2fstudio.db/files/0/input", "/api/places?at=..%2f..", "/api/places?at=/etc",
]  # fmt: skip


def send_request(live: Live, method: str, path: str, *more: str, host: str | None = None) -> bytes:
    """Send a raw request, which no client library corrects, and return the response."""
    place = live.url.removeprefix("http://").rstrip("/") if host is None else host
    lines = [f"{method} {path} HTTP/1.1", f"Host: {place}", "Connection: close", *more, "", ""]
    pieces = []
    with open_connection(live.url) as wire:
        wire.sendall("\r\n".join(lines).encode("latin-1"))
        while piece := wire.recv(65_536):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("path", CLIMBING)
def test_path_traversal_is_rejected(live: Live, path: str) -> None:
    response = send_request(live, "GET", path)
    assert response[:13] in (b"HTTP/1.1 404 ", b"HTTP/1.1 400 ", b"HTTP/1.1 422 ")
    for secret in (b"root:", b"import ", b"SQLite"):
        assert secret not in response


@pytest.mark.parametrize("host", ["rebound.example", "rebound.example:80", "127.0.0.1@x.example"])
def test_dns_rebinding_is_rejected(live: Live, host: str) -> None:
    for path in ("/", "/api/sessions", "/assets/none.js"):
        assert send_request(live, "GET", path, host=host).startswith(b"HTTP/1.1 421 ")
    assert send_request(live, "GET", "/", "Host: localhost", host=host)[:13] == b"HTTP/1.1 400 "  # two


@pytest.mark.parametrize(
    "headers",
    [
        ("Origin: http://evil.example",),
        ("Origin: null",),
        ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"),
        ("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors"),
        ("Origin: http://evil.example", "Content-Type: text/plain"),
    ],
)
def test_cross_site_requests_change_nothing(live: Live, headers: tuple[str, ...]) -> None:
    before = send_request(live, "GET", "/api/sessions").split(b"\r\n\r\n")[1]
    for method, path in (
        ("POST", "/api/recordings?name=a.wav"), ("DELETE", "/api/sessions/0123456789abcdef"),
        ("PUT", "/api/sessions/0123456789abcdef/edit"), ("POST", "/api/batches"),
        ("POST", "/api/trainings"),
    ):  # fmt: skip
        response = send_request(live, method, path, "Content-Length: 0", *headers)
        assert response.startswith(b"HTTP/1.1 403 "), path
    assert send_request(live, "GET", "/api/sessions").split(b"\r\n\r\n")[1] == before


@pytest.fixture
def canary() -> Iterator[tuple[str, list[Any]]]:
    """Listen at a local address and record its visitors."""
    came: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        over = threading.Event()

        def wait() -> None:
            while not over.is_set():
                try:
                    wire, who = listening.accept()
                except TimeoutError:
                    continue
                came.append(who)
                wire.close()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/take.wav", came
        over.set()
        thread.join()


def test_ssrf_no_submitted_text_is_fetched(
    client: TestClient, session: dict[str, Any], canary: tuple[str, list[Any]]
) -> None:
    address, came = canary
    base = f"/api/sessions/{session['id']}"
    playlist = f"#EXTM3U\n#EXTINF:10,\n{address}\n".encode()
    concat = f"ffconcat version 1.0\nfile '{address}'\n".encode()
    cue = f'FILE "{address}" WAVE\n'.encode()
    for content in (address.encode(), playlist, concat, cue):
        for suffix in ("wav", "m4a", "mp4", "m3u8", "tonewood-session"):
            route = f"/api/recordings?name=a.{suffix}"
            assert client.post(route, content=content).status_code in (400, 501)
    for method, path, body in (
        ("POST", f"/api/recordings?name={address}", b""),
        ("PUT", f"{base}/model", json.dumps({"model": address}).encode()),
        ("GET", f"/api/places?at={address}", b""),
        ("GET", f"{base}/take/equaliser/{address}", b""),
        ("POST", "/api/audits", json.dumps({"reference": address, "source": address}).encode()),
        ("GET", f"/api/events/{address}", b""),
    ):
        headers = {"Content-Type": "application/json", "Referer": address, "X-Forwarded-Host": "x"}
        answer = client.request(method, path, content=body, headers=headers)
        assert 400 <= answer.status_code < 500, path
    assert came == []
    with socket.create_connection(("127.0.0.1", int(address.split(":")[2].split("/")[0]))):
        pass  # a visitor would have been recorded


def test_ssrf_no_route_accepts_a_url(studio_state: StudioState) -> None:
    document = create_studio_app(studio_state).openapi()
    text = json.dumps(document).lower()
    assert '"format": "uri"' not in text
    names = {
        parameter["name"]
        for path in document["paths"].values()
        for operation in path.values()
        for parameter in operation.get("parameters", [])
    }
    for model in document["components"]["schemas"].values():
        names |= set(model.get("properties", {}))
    assert not {item for item in names if item in ("url", "uri", "address", "href", "path", "file")}


@pytest.mark.parametrize("content", [b"[" * 500_000, b'{"a":' * 100_000, b'{"notes":' + b"[" * 900])
def test_deeply_nested_json_is_rejected(client: TestClient, session: dict[str, Any], content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for method, path in (("PUT", "edit"), ("PUT", "model"), ("POST", "enhance")):
        route = f"/api/sessions/{session['id']}/{path}"
        answer = client.request(method, route, content=content, headers=headers)
        assert answer.status_code in (400, 422)
        assert "\n" not in answer.json()["error"]


def test_oversized_bodies_are_rejected_by_route(client: TestClient, session: dict[str, Any]) -> None:
    large = b'{"amount": 1, "x": "' + b"x" * 2**20 + b'"}'
    route = f"/api/sessions/{session['id']}/edit"
    for content in (large, iter([large])):
        answer = client.put(route, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
    headers = {"content-length": str(2**31 + 1)}
    answer = client.post("/api/recordings?name=a.wav", content=b"RIFF", headers=headers)
    assert answer.status_code == 413
