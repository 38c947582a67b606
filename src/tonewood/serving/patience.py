"""Connections that are waited for, but not for ever."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


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
        patience_s = seconds

    return Patient
