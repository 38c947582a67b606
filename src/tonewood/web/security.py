"""Who may ask, from where, how much; and what a page may load.

By which names a server is called.
"""

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import json
import re
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from tonewood.errors import printable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
WILDCARD_HOSTS = frozenset({"0.0.0.0", "::"})


def accepted_hostnames(host: str) -> frozenset[str]:
    """Names by which a server bound to `host` may be called."""
    names = {host.lower()}
    if host in WILDCARD_HOSTS:
        machine = socket.gethostname().lower()
        names |= {machine, f"{machine}.local"}
    return frozenset(names) | LOOPBACK_HOSTS


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a server bound to `host`."""
    return host in LOOPBACK_HOSTS


def server_url(host: str, port: int, token: str | None = None) -> str:
    """Address to open, the token in it."""
    if host in WILDCARD_HOSTS:
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; font-src 'self'; connect-src 'self'; worker-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Content security policy: all from this server, nothing inline."""

_SAFE_METHODS = frozenset({"GET", "HEAD"})
_SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "microphone=(self), camera=(), geolocation=()"),
)


@dataclass(frozen=True)
class RequestLimits:
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


class _RejectedRequestError(Exception):
    """A request that is not let in: status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class _SecurityMiddleware:
    """ASGI application that lets in what is allowed to another."""

    def __init__(
        self,
        app: "ASGIApp",
        token: str | None,
        hosts: Collection[str],
        limits: RequestLimits,
        larger: Mapping[str, RequestLimits],
    ) -> None:
        self.app, self.token, self.limits, self.limits_by_path = app, token, limits, larger
        self.accepts_any_address = not WILDCARD_HOSTS.isdisjoint(hosts)
        self.hosts = frozenset(name.lower() for name in hosts) | LOOPBACK_HOSTS
        digest = hashlib.sha256((token or "").encode()).hexdigest()
        # Cookies know no ports: without a name of its own, one server would log out another.
        self.cookie_name = f"tonewood-{digest[:12]}"

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve a request, or refuse it in one line."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page here opens a socket
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        answer = _with_security_headers(send)
        limits = self.limits_by_path.get(scope["path"], self.limits)
        try:
            self._check_host(headers)
            self._check_origin(scope, headers)
            if self._is_token_login(scope):
                await self._set_cookie(scope, answer)
                return
            self._check_token(headers)
            if int(headers.get("content-length", "0") or 0) > limits.body_bytes:
                raise _body_too_large(limits)
        except _RejectedRequestError as refused:
            await _send_rejection(answer, refused)
            return
        except ValueError:
            await _send_rejection(
                answer, _RejectedRequestError(400, "the length of the request is no number")
            )
            return
        await self._forward(scope, receive, answer, limits)

    async def _forward(
        self, scope: "Scope", receive: "Receive", answer: "Send", limits: RequestLimits
    ) -> None:
        """Hand on a request whose body is counted and timed; what passes a limit ends it.

        The application may make an answer of its own of what stopped it; ours takes its place.
        """
        body = _LimitedBody(receive, limits)
        started = False

        async def send(message: "Message") -> None:
            nonlocal started
            if body.rejection is None or started:
                started = True
                await answer(message)

        with contextlib.suppress(_RejectedRequestError):
            await self.app(scope, body.receive, send)
        if body.rejection is not None and not started:
            await _send_rejection(answer, body.rejection)

    def _check_host(self, headers: Mapping[str, str]) -> None:
        name = _parse_hostname(headers.get("host", ""))
        if name in self.hosts or (self.accepts_any_address and _is_ip_address(name)):
            return
        raise _RejectedRequestError(421, f"this server does not go by the name {printable(name)!r}")

    def _check_origin(self, scope: "Scope", headers: Mapping[str, str]) -> None:
        site = headers.get("sec-fetch-site", "same-origin")
        opened = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("same-origin", "none") and not (opened and scope["path"] == "/"):
            raise _RejectedRequestError(403, "another site's page may not ask this server")
        origin = headers.get("origin")
        if origin is None or (scope["method"] in _SAFE_METHODS and origin == "null"):
            return
        scheme, _, place = origin.lower().partition("://")
        if scheme not in ("http", "https") or place != headers.get("host", "").lower():
            raise _RejectedRequestError(403, "another site's page may not ask this server")

    def _check_token(self, headers: Mapping[str, str]) -> None:
        if self.token is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = _read_cookie(headers.get("cookie", ""), self.cookie_name)
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise _RejectedRequestError(401, "a token is needed: open the address that the server printed")

    def _is_token_login(self, scope: "Scope") -> bool:
        """Whether a page is opened with the right token in its address."""
        if self.token is None or scope["method"] != "GET":
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return hmac.compare_digest(given.encode(), self.token.encode())

    async def _set_cookie(self, scope: "Scope", send: "Send") -> None:
        """Keep the token as a cookie that no script reads, and take it out of the address."""
        cookie = f"{self.cookie_name}={self.token}; HttpOnly; SameSite=Strict; Path=/"
        # One slash: two would be the beginning of another server's address.
        place = "/" + quote(scope["path"].lstrip("/\\"))
        headers = [(b"location", place.encode()), (b"set-cookie", cookie.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def secure(
    app: "ASGIApp",
    *,
    token: str | None = None,
    hosts: Collection[str] = LOOPBACK_HOSTS,
    limits: RequestLimits = RequestLimits(),
    limits_by_path: Mapping[str, RequestLimits] | None = None,
) -> "ASGIApp":
    """Guard an application.

    Parameters
    ----------
    app : ASGI application
        It may set a `Content-Security-Policy` of its own; otherwise `CONTENT_SECURITY_POLICY` holds.
    token : str, optional
        Needed of everybody: as `?token=` when the page is opened, which makes it a cookie, or as
        `Authorization: Bearer`.
    hosts : collection of str
        Names by which the server may be called, beside this machine's own; see `accepted_hostnames`.
    limits : RequestLimits
        Of every request.
    limits_by_path : mapping of path to RequestLimits, optional
        Paths that take more, such as uploads.

    Returns
    -------
    ASGI application
        Refuses with a status and `{"error": reason}`: 401 no token, 403 another site's page,
        408 too slow, 413 too large, 421 another name.
    """
    return _SecurityMiddleware(app, token, hosts, limits, limits_by_path or {})


def _with_security_headers(send: "Send") -> "Send":
    """Send with the headers that every answer has, unless it has its own."""

    async def secured(message: "Message") -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            there = {name.lower() for name, _ in headers}
            wanted = (
                ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
                ("Cache-Control", "no-store"),
                *_SECURITY_HEADERS,
            )
            headers += [
                (name.encode(), value.encode())
                for name, value in wanted
                if name.lower().encode() not in there
            ]
            message = {**message, "headers": headers}
        await send(message)

    return secured


class _LimitedBody:
    """A body of so many bytes within so many seconds."""

    def __init__(self, receive: "Receive", limits: RequestLimits) -> None:
        self.receive_message, self.limits = receive, limits
        self.received_bytes, self.is_complete = 0, False
        self.deadline: float | None = None
        self.rejection: _RejectedRequestError | None = None

    async def receive(self) -> "Message":
        """Next piece; what comes after the last is the end of the connection, which may wait."""
        if self.is_complete:
            return await self.receive_message()
        loop = asyncio.get_running_loop()
        self.deadline = self.deadline or loop.time() + self.limits.seconds
        try:
            message = await asyncio.wait_for(self.receive_message(), self.deadline - loop.time())
        except TimeoutError:
            told = f"the request took longer than {self.limits.seconds:g} s: send less at once"
            self.rejection = _RejectedRequestError(408, told)
            raise self.rejection from None
        self.received_bytes += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        if self.received_bytes > self.limits.body_bytes:
            self.rejection = _body_too_large(self.limits)
            raise self.rejection
        return message


def _body_too_large(limits: RequestLimits) -> _RejectedRequestError:
    size = limits.body_bytes
    told = f"{size / 2**30:g} GiB" if size >= 2**30 else f"{size / 2**20:g} MiB"
    return _RejectedRequestError(413, f"this is more than {told}, the most that is taken: send less")


async def _send_rejection(send: "Send", refused: _RejectedRequestError) -> None:
    body = json.dumps({"error": refused.reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_HOST_HEADER = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[\w.-]+))(?::\d{1,5})?", re.ASCII)


def _parse_hostname(host: str) -> str:
    """Name in a Host header; empty where there is more in it than name and port."""
    found = _HOST_HEADER.fullmatch(host)
    return (found["six"] or found["name"]).lower() if found else ""


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _read_cookie(header: str, name: str) -> str:
    try:
        jar: SimpleCookie = SimpleCookie(header)
    except CookieError:
        return ""
    found: Any = jar.get(name)
    return str(found.value) if found is not None else ""
