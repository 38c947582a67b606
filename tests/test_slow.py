"""Clients that drip: heads, bodies, and bodies that nobody reads; against a real server."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tonewood.web import RequestLimits, secure
from tonewood.web.server import with_head_timeout

PATIENCE_S = 0.3
Connect = Callable[[], socket.socket]


async def _read(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())} bytes")


async def _unread(request: Request) -> PlainTextResponse:
    return PlainTextResponse("not looked at")


async def _late(request: Request) -> PlainTextResponse:
    await asyncio.sleep(3 * PATIENCE_S)
    return PlainTextResponse("at last")


@pytest.fixture(scope="module")
def server() -> Iterator[uvicorn.Server]:
    routes = [Route(f"/{it.__name__}", it, methods=["GET", "POST"]) for it in (_read, _unread, _late)]
    app = secure(Starlette(routes=routes), limits=RequestLimits(seconds=PATIENCE_S))
    config = uvicorn.Config(
        app,
        port=0,
        log_level="critical",
        ws="none",
        http=with_head_timeout(PATIENCE_S),
        lifespan="off",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield server
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def connect(server: uvicorn.Server) -> Iterator[Connect]:
    port = server.servers[0].sockets[0].getsockname()[1]
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(("127.0.0.1", port), 300))


def head(path: str, *more: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *more, "", ""]).encode()


def answer(wire: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := wire.recv(4_096):
            pieces.append(piece)
    return b"".join(pieces)


def dripped(wire: socket.socket, drop: bytes) -> bytes:
    """Send a drop ever again until the server has enough of it, and give what it said."""
    wire.settimeout(PATIENCE_S / 10)
    said = b""
    for _ in range(1_000):
        try:
            wire.sendall(drop)
            piece = wire.recv(4_096)
        except TimeoutError:
            continue
        except OSError:
            return said
        if not piece:
            return said
        said += piece
    raise AssertionError("the server waits for ever")


def eventually(attempt: Callable[[], bool]) -> None:
    """Hold that something comes about, where a busy machine may make ourselves too slow for it."""
    assert any(attempt() for _ in range(20))


def test_a_slow_head_is_cut_off(connect: Connect) -> None:
    for first in (b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: y"):
        wire = connect()
        wire.sendall(first)
        assert dripped(wire, b"X-Drop: 1\r\n" if first else b"G") == b""


def test_who_says_nothing_is_cut_off(connect: Connect) -> None:
    assert answer(connect()) == b""


def test_many_slow_heads_keep_nobody_out(server: uvicorn.Server, connect: Connect) -> None:
    slow = [connect() for _ in range(100)]
    for wire in slow:
        wire.sendall(b"GET / HTTP/1.1\r\nHost: local")

    def quick() -> bool:
        wire = connect()
        wire.sendall(head("/_read", "Content-Length: 3", "Connection: close") + b"abc")
        return answer(wire).endswith(b"3 bytes")

    eventually(quick)
    for wire in slow:
        assert answer(wire) == b""
    assert not server.server_state.connections


def test_a_slow_body_is_given_up(connect: Connect) -> None:
    for length in ("Content-Length: 100000", "Transfer-Encoding: chunked"):

        def given_up(length: str = length) -> bool:
            wire = connect()
            wire.sendall(head("/_read", length))
            said = dripped(wire, b"1\r\nx\r\n")
            return said.startswith(b"HTTP/1.1 408 ") and b"took longer than" in said

        eventually(given_up)


def test_a_slow_body_that_nobody_reads_is_given_up(connect: Connect) -> None:
    def given_up() -> bool:
        wire = connect()
        wire.sendall(head("/_unread", "Content-Length: 100000"))
        return b"not looked at" in dripped(wire, b"x")

    eventually(given_up)


def test_a_slow_answer_is_waited_for(connect: Connect) -> None:
    def answered() -> bool:
        wire = connect()
        wire.sendall(head("/_late", "Content-Length: 0", "Connection: close"))
        return answer(wire).endswith(b"at last")

    eventually(answered)


def test_connections_may_be_kept_and_used_again(connect: Connect) -> None:
    def kept() -> bool:
        wire = connect()
        for _ in range(3):
            wire.sendall(head("/_read", "Content-Length: 2") + b"ab")
            said = b""
            while not said.endswith(b"2 bytes"):
                piece = wire.recv(4_096)
                if not piece:
                    return False
                said += piece
        return True

    eventually(kept)


def test_an_endless_head_is_refused(connect: Connect) -> None:
    wire = connect()
    with contextlib.suppress(OSError):
        wire.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 2**20)
    assert answer(wire)[:13] in (b"HTTP/1.1 400 ", b"")


def test_no_page_opens_a_socket(connect: Connect) -> None:
    for origin in ("http://localhost", "http://evil.example"):
        wire = connect()
        asked = head(
            "/_read", "Connection: Upgrade, close", "Upgrade: websocket", f"Origin: {origin}",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )  # fmt: skip
        wire.sendall(asked.replace(b"POST", b"GET"))
        assert b" 101 " not in answer(wire)
