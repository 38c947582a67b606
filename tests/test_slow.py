"""Slow clients: heads, bodies, and bodies that no route reads; with a real server."""

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

TIMEOUT_S = 0.3
Connect = Callable[[], socket.socket]


async def _read(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())} bytes")


async def _unread(request: Request) -> PlainTextResponse:
    return PlainTextResponse("not read")


async def _late(request: Request) -> PlainTextResponse:
    await asyncio.sleep(3 * TIMEOUT_S)
    return PlainTextResponse("late answer")


@pytest.fixture(scope="module")
def server() -> Iterator[uvicorn.Server]:
    routes = [
        Route(f"/{handler.__name__}", handler, methods=["GET", "POST"]) for handler in (_read, _unread, _late)
    ]
    app = secure(Starlette(routes=routes), limits=RequestLimits(seconds=TIMEOUT_S))
    config = uvicorn.Config(
        app,
        port=0,
        log_level="critical",
        ws="none",
        http=with_head_timeout(TIMEOUT_S),
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


def answer(connection: socket.socket) -> bytes:
    """Receive until the server closes the connection."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(4_096):
            pieces.append(piece)
    return b"".join(pieces)


def send_slowly(connection: socket.socket, drop: bytes) -> bytes:
    """Send a few bytes again and again until the server ends; return its answer."""
    connection.settimeout(TIMEOUT_S / 10)
    received = b""
    for _ in range(1_000):
        try:
            connection.sendall(drop)
            piece = connection.recv(4_096)
        except TimeoutError:
            continue
        except OSError:
            return received
        if not piece:
            return received
        received += piece
    raise AssertionError("the server never ends the connection")


def eventually(attempt: Callable[[], bool]) -> None:
    """Assert that one of several attempts succeeds; a busy machine may make this client too slow."""
    assert any(attempt() for _ in range(20))


def test_slow_head_is_cut_off(connect: Connect) -> None:
    for first in (b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: y"):
        connection = connect()
        connection.sendall(first)
        assert send_slowly(connection, b"X-Drop: 1\r\n" if first else b"G") == b""


def test_silent_connection_is_closed(connect: Connect) -> None:
    assert answer(connect()) == b""


def test_many_slow_heads_do_not_block_others(server: uvicorn.Server, connect: Connect) -> None:
    slow = [connect() for _ in range(100)]
    for connection in slow:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: local")

    def quick() -> bool:
        connection = connect()
        connection.sendall(head("/_read", "Content-Length: 3", "Connection: close") + b"abc")
        return answer(connection).endswith(b"3 bytes")

    eventually(quick)
    for connection in slow:
        assert answer(connection) == b""
    assert not server.server_state.connections


def test_slow_body_is_refused(connect: Connect) -> None:
    for length in ("Content-Length: 100000", "Transfer-Encoding: chunked"):

        def refused(length: str = length) -> bool:
            connection = connect()
            connection.sendall(head("/_read", length))
            received = send_slowly(connection, b"1\r\nx\r\n")
            return received.startswith(b"HTTP/1.1 408 ") and b"took longer than" in received

        eventually(refused)


def test_slow_body_that_no_route_reads_is_refused(connect: Connect) -> None:
    def refused() -> bool:
        connection = connect()
        connection.sendall(head("/_unread", "Content-Length: 100000"))
        return b"not read" in send_slowly(connection, b"x")

    eventually(refused)


def test_slow_answer_is_delivered(connect: Connect) -> None:
    def answered() -> bool:
        connection = connect()
        connection.sendall(head("/_late", "Content-Length: 0", "Connection: close"))
        return answer(connection).endswith(b"late answer")

    eventually(answered)


def test_connections_can_be_reused(connect: Connect) -> None:
    def reused() -> bool:
        connection = connect()
        for _ in range(3):
            connection.sendall(head("/_read", "Content-Length: 2") + b"ab")
            received = b""
            while not received.endswith(b"2 bytes"):
                piece = connection.recv(4_096)
                if not piece:
                    return False
                received += piece
        return True

    eventually(reused)


def test_endless_head_is_refused(connect: Connect) -> None:
    connection = connect()
    with contextlib.suppress(OSError):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 2**20)
    assert answer(connection)[:13] in (b"HTTP/1.1 400 ", b"")


def test_websocket_is_not_opened(connect: Connect) -> None:
    for origin in ("http://localhost", "http://evil.example"):
        connection = connect()
        request = head(
            "/_read", "Connection: Upgrade, close", "Upgrade: websocket", f"Origin: {origin}",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )  # fmt: skip
        connection.sendall(request.replace(b"POST", b"GET"))
        assert b" 101 " not in answer(connection)
