"""Serving an application until it is interrupted."""

import socket
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from tonewood.errors import CallError, MissingExtraError, shown

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def check_extra(what: str, extra: str, *more: str) -> None:
    """Raise MissingExtraError if there is nothing to serve with."""
    needed = (*more, "fastapi", "uvicorn")
    try:
        for name in needed:
            import_module(name)
    except ImportError:
        raise MissingExtraError(
            f"{what} needs {' and '.join(needed)}: pip install 'tonewood[{extra}]'"
        ) from None


PATIENCE_S = 10.0


def serve(
    app: "ASGIApp",
    *,
    host: str,
    port: int,
    ready: Callable[[int], None] = lambda port: None,
    patience_s: float = PATIENCE_S,
) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    app : ASGI application
        A `guarded` one.
    port : int
        0 takes any that is free.
    ready : callable
        Called with the port once requests are answered.
    patience_s : float
        Longest time in seconds that the head of a request may take; for bodies see `Limits`.

    Raises
    ------
    CallError
        The address cannot be bound.
    """
    import uvicorn

    from tonewood.serving.patience import patient

    bound = _bound(host, port)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready(bound.getsockname()[1])

    config = uvicorn.Config(
        app, log_level="critical", access_log=False, server_header=False, lifespan="on", ws="none",
        timeout_graceful_shutdown=1, http=patient(patience_s),
    )  # fmt: skip
    with bound:
        Server(config).run(sockets=[bound])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise CallError(
            f"{shown(host)} port {port} cannot be served ({why}): name another --port or --host"
        ) from None
    return bound
