"""Serving an application until it is interrupted.

Connections that are waited for, but not for ever.
"""

import asyncio
import socket
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tonewood.errors import CallError, MissingExtraError, printable

if TYPE_CHECKING:
    from starlette.types import ASGIApp


class _RequestHeadTimeout(H11Protocol):
    """One connection, which is cut where its client drips what a server waits for.

    A body that an application reads is timed by the guard, whose limits differ from route to
    route. Before that, nobody looks at the clock, nor when an answer came before the body's end.
    """

    timeout_s: float
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._update_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_timer()

    def _update_timer(self) -> None:
        """Let the clock run while it is the client's turn; more bytes do not wind it up again."""
        theirs = self.conn.their_state
        head = theirs is h11.IDLE
        rest = theirs is h11.SEND_BODY and self.cycle.response_complete
        if not (head or rest):
            self._stop_timer()
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.timeout_s, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def with_head_timeout(seconds: float) -> type[asyncio.Protocol]:
    """Protocol of a server that waits so many seconds, and no longer."""

    class Patient(_RequestHeadTimeout):
        timeout_s = seconds

    return Patient


def require_server_extra(feature: str, extra: str, *more_modules: str) -> None:
    """Raise MissingExtraError if there is nothing to serve with."""
    needed = (*more_modules, "fastapi", "uvicorn")
    try:
        for name in needed:
            import_module(name)
    except ImportError:
        raise MissingExtraError(
            f"{feature} needs {' and '.join(needed)}: pip install 'tonewood[{extra}]'"
        ) from None


REQUEST_HEAD_TIMEOUT_S = 10.0


def run_server(
    app: "ASGIApp",
    *,
    host: str,
    port: int,
    on_ready: Callable[[int], None] = lambda port: None,
    head_timeout_s: float = REQUEST_HEAD_TIMEOUT_S,
) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    app : ASGI application
        A `secure` one.
    port : int
        0 takes any that is free.
    on_ready : callable
        Called with the port once requests are answered.
    head_timeout_s : float
        Longest time in seconds that the head of a request may take; for bodies see `RequestLimits`.

    Raises
    ------
    CallError
        The address cannot be bound.
    """
    import uvicorn

    bound = _bind_socket(host, port)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                on_ready(bound.getsockname()[1])

    config = uvicorn.Config(
        app, log_level="critical", access_log=False, server_header=False, lifespan="on", ws="none",
        timeout_graceful_shutdown=1, http=with_head_timeout(head_timeout_s),
    )  # fmt: skip
    with bound:
        Server(config).run(sockets=[bound])


def _bind_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise CallError(
            f"{printable(host)} port {port} cannot be served ({why}): name another --port or --host"
        ) from None
    return bound
