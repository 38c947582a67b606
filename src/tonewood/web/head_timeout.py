"""Time limit for the head of a request, which uvicorn has no option for."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class _RequestHeadTimeout(H11Protocol):
    """Connection that is closed if its client sends too slowly while the server waits.

    The security middleware limits the time of a body that the application reads. This class covers the
    rest: the head of a request, and what remains of a body after an early answer.
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
        """Run the timer while the server waits for the client; more bytes do not restart it."""
        # h11: IDLE until the head is complete, then SEND_BODY until the body is.
        client_state = self.conn.their_state
        awaits_head = client_state is h11.IDLE
        awaits_rest = client_state is h11.SEND_BODY and self.cycle.response_complete
        if not (awaits_head or awaits_rest):
            self._stop_timer()
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.timeout_s, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def with_head_timeout(seconds: float) -> type[asyncio.Protocol]:
    """Return an HTTP protocol for uvicorn that waits at most `seconds` for the head of a request."""

    class TimedProtocol(_RequestHeadTimeout):
        timeout_s = seconds

    return TimedProtocol
