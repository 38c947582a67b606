"""Who may ask, from where, how much; and what a page may load."""

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from tonewood.errors import shown
from tonewood.serving.names import ANY, LOCAL

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; font-src 'self'; connect-src 'self'; worker-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Content security policy: all from this server, nothing inline."""

_SAFE = frozenset({"GET", "HEAD"})
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "microphone=(self), camera=(), geolocation=()"),
)


@dataclass(frozen=True)
class Limits:
    """What one request may bring.

    Parameters
    ----------
    body_bytes : int
        Most bytes of a body.
    seconds : float
        Longest time that a body may take to arrive.
    """

    body_bytes: int = 2**20
    seconds: float = 30.0


class _RefusedError(Exception):
    """A request that is not let in: status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class _Guard:
    """ASGI application that lets in what is allowed to another."""

    def __init__(
        self,
        app: "ASGIApp",
        token: str | None,
        hosts: Collection[str],
        limits: Limits,
        larger: Mapping[str, Limits],
    ) -> None:
        self.app, self.token, self.limits, self.larger = app, token, limits, larger
        self.any_address = not ANY.isdisjoint(hosts)
        self.hosts = frozenset(name.lower() for name in hosts) | LOCAL
        digest = hashlib.sha256((token or "").encode()).hexdigest()
        # Cookies know no ports: without a name of its own, one server would log out another.
        self.cookie = f"tonewood-{digest[:12]}"

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve a request, or refuse it in one line."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page here opens a socket
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        answer = _secured(send)
        limits = self.larger.get(scope["path"], self.limits)
        try:
            self._check_host(headers)
            self._check_origin(scope, headers)
            if self._enters(scope):
                await self._admit(scope, answer)
                return
            self._check_token(headers)
            if int(headers.get("content-length", "0") or 0) > limits.body_bytes:
                raise _too_large(limits)
        except _RefusedError as refused:
            await _refuse(answer, refused)
            return
        except ValueError:
            await _refuse(answer, _RefusedError(400, "the length of the request is no number"))
            return
        await self._pass_on(scope, receive, answer, limits)

    async def _pass_on(
        self, scope: "Scope", receive: "Receive", answer: "Send", limits: Limits
    ) -> None:
        """Hand on a request whose body is counted and timed; what passes a limit ends it.

        The application may make an answer of its own of what stopped it; ours takes its place.
        """
        body = _Body(receive, limits)
        started = False

        async def send(message: "Message") -> None:
            nonlocal started
            if body.refused is None or started:
                started = True
                await answer(message)

        with contextlib.suppress(_RefusedError):
            await self.app(scope, body.receive, send)
        if body.refused is not None and not started:
            await _refuse(answer, body.refused)

    def _check_host(self, headers: Mapping[str, str]) -> None:
        name = _hostname(headers.get("host", ""))
        if name in self.hosts or (self.any_address and _is_address(name)):
            return
        raise _RefusedError(421, f"this server does not go by the name {shown(name)!r}")

    def _check_origin(self, scope: "Scope", headers: Mapping[str, str]) -> None:
        site = headers.get("sec-fetch-site", "same-origin")
        opened = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("same-origin", "none") and not (opened and scope["path"] == "/"):
            raise _RefusedError(403, "another site's page may not ask this server")
        origin = headers.get("origin")
        if origin is None or (scope["method"] in _SAFE and origin == "null"):
            return
        scheme, _, place = origin.lower().partition("://")
        if scheme not in ("http", "https") or place != headers.get("host", "").lower():
            raise _RefusedError(403, "another site's page may not ask this server")

    def _check_token(self, headers: Mapping[str, str]) -> None:
        if self.token is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = _cookie(headers.get("cookie", ""), self.cookie)
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise _RefusedError(401, "a token is needed: open the address that the server printed")

    def _enters(self, scope: "Scope") -> bool:
        """Whether a page is opened with the right token in its address."""
        if self.token is None or scope["method"] != "GET":
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return hmac.compare_digest(given.encode(), self.token.encode())

    async def _admit(self, scope: "Scope", send: "Send") -> None:
        """Keep the token as a cookie that no script reads, and take it out of the address."""
        cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
        # One slash: two would be the beginning of another server's address.
        place = "/" + quote(scope["path"].lstrip("/\\"))
        headers = [(b"location", place.encode()), (b"set-cookie", cookie.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def guarded(
    app: "ASGIApp",
    *,
    token: str | None = None,
    hosts: Collection[str] = LOCAL,
    limits: Limits = Limits(),
    larger: Mapping[str, Limits] | None = None,
) -> "ASGIApp":
    """Guard an application.

    Parameters
    ----------
    app : ASGI application
        It may set a `Content-Security-Policy` of its own; otherwise `POLICY` holds.
    token : str, optional
        Needed of everybody: as `?token=` when the page is opened, which makes it a cookie, or as
        `Authorization: Bearer`.
    hosts : collection of str
        Names by which the server may be called, beside this machine's own; see `names_of`.
    limits : Limits
        Of every request.
    larger : mapping of path to Limits, optional
        Paths that take more, such as uploads.

    Returns
    -------
    ASGI application
        Refuses with a status and `{"error": reason}`: 401 no token, 403 another site's page,
        408 too slow, 413 too large, 421 another name.
    """
    return _Guard(app, token, hosts, limits, larger or {})


def _secured(send: "Send") -> "Send":
    """Send with the headers that every answer has, unless it has its own."""

    async def secured(message: "Message") -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            there = {name.lower() for name, _ in headers}
            wanted = (("Content-Security-Policy", POLICY), ("Cache-Control", "no-store"), *_HEADERS)
            headers += [
                (name.encode(), value.encode())
                for name, value in wanted
                if name.lower().encode() not in there
            ]
            message = {**message, "headers": headers}
        await send(message)

    return secured


class _Body:
    """A body of so many bytes within so many seconds."""

    def __init__(self, receive: "Receive", limits: Limits) -> None:
        self.source, self.limits = receive, limits
        self.received, self.whole = 0, False
        self.end: float | None = None
        self.refused: _RefusedError | None = None

    async def receive(self) -> "Message":
        """Next piece; what comes after the last is the end of the connection, which may wait."""
        if self.whole:
            return await self.source()
        loop = asyncio.get_running_loop()
        self.end = self.end or loop.time() + self.limits.seconds
        try:
            message = await asyncio.wait_for(self.source(), self.end - loop.time())
        except TimeoutError:
            told = f"the request took longer than {self.limits.seconds:g} s: send less at once"
            self.refused = _RefusedError(408, told)
            raise self.refused from None
        self.received += len(message.get("body", b""))
        self.whole = not message.get("more_body", False)
        if self.received > self.limits.body_bytes:
            self.refused = _too_large(self.limits)
            raise self.refused
        return message


def _too_large(limits: Limits) -> _RefusedError:
    size = limits.body_bytes
    told = f"{size / 2**30:g} GiB" if size >= 2**30 else f"{size / 2**20:g} MiB"
    return _RefusedError(413, f"this is more than {told}, the most that is taken: send less")


async def _refuse(send: "Send", refused: _RefusedError) -> None:
    body = json.dumps({"error": refused.reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_HOST = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[\w.-]+))(?::\d{1,5})?", re.ASCII)


def _hostname(host: str) -> str:
    """Name in a Host header; empty where there is more in it than name and port."""
    found = _HOST.fullmatch(host)
    return (found["six"] or found["name"]).lower() if found else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _cookie(header: str, name: str) -> str:
    try:
        jar: SimpleCookie = SimpleCookie(header)
    except CookieError:
        return ""
    found: Any = jar.get(name)
    return str(found.value) if found is not None else ""
