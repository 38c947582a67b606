"""Run a web application until it is interrupted."""

import asyncio
import socket
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from tonewood.errors import CallError, MissingExtraError, failure_reason, printable

if TYPE_CHECKING:
    from starlette.types import ASGIApp

REQUEST_HEAD_TIMEOUT_S = 10.0  # `RequestLimits` has the limit of bodies


def require_server_extra(feature: str, extra: str, *more_modules: str) -> None:
    """Raise MissingExtraError if a module that the server needs is not installed."""
    modules = (*more_modules, "fastapi", "uvicorn")
    try:
        for name in modules:
            import_module(name)
    except ImportError:
        raise MissingExtraError(
            f"{feature} needs {' and '.join(modules)}: pip install '.[{extra}]'"
        ) from None


def run_server(
    app: "ASGIApp", *, host: str, port: int, on_ready: Callable[[int], None] = lambda port: None
) -> None:
    """Serve an application until it is interrupted.

    Parameters
    ----------
    app : ASGI application
        Made by `secure`.
    port : int
        0 takes any free port.
    on_ready : callable
        Called with the port as soon as the server answers.

    Raises
    ------
    CallError
        The address cannot be used.
    """
    import uvicorn

    listener = _bind_socket(host, port)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                on_ready(listener.getsockname()[1])

    # An event stream never ends by itself, so the shutdown waits one second for open answers and no longer.
    config = uvicorn.Config(
        app, log_level="critical", access_log=False, server_header=False, lifespan="on", ws="none",
        timeout_graceful_shutdown=1, http=with_head_timeout(REQUEST_HEAD_TIMEOUT_S),
    )  # fmt: skip
    with listener:
        Server(config).run(sockets=[listener])


def _bind_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    # Without it, a restart fails while old connections are in TIME_WAIT.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = failure_reason(error)
        raise CallError(
            f"cannot serve at {printable(host)} port {port} ({reason}): choose another --port or --host"
        ) from None
    return listener


def with_head_timeout(seconds: float) -> type[asyncio.Protocol]:
    """Return an HTTP protocol for uvicorn that waits at most `seconds` for the head of a request.

    uvicorn has no option for it. The security middleware limits the time of a body that an application reads.
    This protocol covers the rest: the head of a request, and what remains of a body after an early answer.
    """
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class TimedProtocol(H11Protocol):
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
            """Run the timer while the server waits for the client; more bytes do not restart it."""
            # h11: IDLE until the head is complete, then SEND_BODY until the body is.
            client_state = self.conn.their_state
            awaits_head = client_state is h11.IDLE
            awaits_rest = client_state is h11.SEND_BODY and self.cycle.response_complete
            if not (awaits_head or awaits_rest):
                self._stop_timer()
            elif self._timer is None and not self.transport.is_closing():
                self._timer = self.loop.call_later(seconds, self.transport.abort)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return TimedProtocol
