"""Serving an application until it is interrupted."""

import socket
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from tonewood.errors import CallError, MissingExtraError, printable

if TYPE_CHECKING:
    from starlette.types import ASGIApp


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

    from tonewood.serving.patience import with_head_timeout

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
