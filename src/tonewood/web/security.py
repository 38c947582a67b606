"""Access control of local servers: host names, origin, token, size and time limits, security headers."""

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
    """Return the host names that requests to a server bound to `host` may use."""
    names = {host.lower()}
    if host in WILDCARD_HOSTS:
        # In a local network, mDNS gives each machine the name NAME.local besides.
        machine = socket.gethostname().lower()
        names |= {machine, f"{machine}.local"}
    return frozenset(names) | LOOPBACK_HOSTS


def is_loopback(host: str) -> bool:
    """Return True if only this machine reaches a server bound to `host`."""
    return host in LOOPBACK_HOSTS


def server_url(host: str, port: int, token: str | None = None) -> str:
    """Return the address to open, with the token."""
    if host in WILDCARD_HOSTS:
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host  # RFC 3986: an IPv6 address in brackets
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; font-src 'self'; connect-src 'self'; worker-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Content security policy: everything from this server, nothing inline."""

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
    """Limits of one request: maximum size of its body, and maximum time for it to arrive."""

    body_bytes: int = 2**20
    seconds: float = 30.0


class _RejectedRequestError(Exception):
    """A rejected request: status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class _SecurityMiddleware:
    """ASGI middleware that passes allowed requests on to an application."""

    def __init__(
        self,
        app: "ASGIApp",
        token: str | None,
        hosts: Collection[str],
        limits: RequestLimits,
        limits_by_path: Mapping[str, RequestLimits],
    ) -> None:
        self.app, self.token, self.limits, self.limits_by_path = app, token, limits, limits_by_path
        self.accepts_any_address = not WILDCARD_HOSTS.isdisjoint(hosts)
        self.hosts = frozenset(name.lower() for name in hosts) | LOOPBACK_HOSTS
        digest = hashlib.sha256((token or "").encode()).hexdigest()
        # Cookies ignore ports: with one name for all, a second server would log out the first.
        self.cookie_name = f"tonewood-{digest[:12]}"

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve a request, or reject it with a reason."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page uses web sockets
            await send({"type": "websocket.close", "code": 1008})  # RFC 6455: policy violation
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        answer = _with_security_headers(send)
        limits = self.limits_by_path.get(scope["path"], self.limits)
        try:
            # Cheap checks first: a request from another site must not reach the token comparison.
            self._check_host(headers)
            self._check_origin(scope, headers)
            if self._is_token_login(scope):
                await self._set_cookie(scope, answer)
                return
            self._check_token(headers)
            # A body without a stated length is counted as it arrives.
            if int(headers.get("content-length", "0") or 0) > limits.body_bytes:
                raise _body_too_large(limits)
        except _RejectedRequestError as rejection:
            await _send_rejection(answer, rejection)
            return
        except ValueError:
            await _send_rejection(answer, _RejectedRequestError(400, "content-length is not a number"))
            return
        await self._forward(scope, receive, answer, limits)

    async def _forward(
        self, scope: "Scope", receive: "Receive", answer: "Send", limits: RequestLimits
    ) -> None:
        """Pass a request on, and end it if its body exceeds a limit.

        The application may turn the exception into an answer; the rejection replaces it.
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
        raise _RejectedRequestError(421, f"this server does not have the name {printable(name)!r}")

    def _check_origin(self, scope: "Scope", headers: Mapping[str, str]) -> None:
        # Old browsers do not send sec-fetch-site; for them the Origin header below decides.
        site = headers.get("sec-fetch-site", "same-origin")
        is_opened_by_user = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        # A link from another site may open the start page, but nothing else.
        if site not in ("same-origin", "none") and not (is_opened_by_user and scope["path"] == "/"):
            raise _RejectedRequestError(403, "pages of other sites may not send requests to this server")
        origin = headers.get("origin")
        # Reads change nothing, so an opaque origin ("null") may make them.
        if origin is None or (scope["method"] in _SAFE_METHODS and origin == "null"):
            return
        scheme, _, authority = origin.lower().partition("://")
        if scheme not in ("http", "https") or authority != headers.get("host", "").lower():
            raise _RejectedRequestError(403, "pages of other sites may not send requests to this server")

    def _check_token(self, headers: Mapping[str, str]) -> None:
        if self.token is None:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = _read_cookie(headers.get("cookie", ""), self.cookie_name)
        # Constant time, so that response times do not reveal a prefix of the token.
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            raise _RejectedRequestError(
                401, "the token is missing or wrong: open the address that the server printed"
            )

    def _is_token_login(self, scope: "Scope") -> bool:
        """Return True if a page is opened with the right token in its address."""
        if self.token is None or scope["method"] != "GET":
            return False
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return hmac.compare_digest(token.encode(), self.token.encode())

    async def _set_cookie(self, scope: "Scope", send: "Send") -> None:
        """Store the token in a cookie that scripts cannot read, and remove it from the address."""
        cookie = f"{self.cookie_name}={self.token}; HttpOnly; SameSite=Strict; Path=/"
        # Exactly one slash: a location that starts with two would lead to another server.
        path = "/" + quote(scope["path"].lstrip("/\\"))
        headers = [(b"location", path.encode()), (b"set-cookie", cookie.encode())]
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
    """Wrap an application with access control, limits and security headers.

    Parameters
    ----------
    app : ASGI application
        It may set its own `Content-Security-Policy`; the default is `CONTENT_SECURITY_POLICY`.
    token : str, optional
        Required with every request: as `?token=` when the page is opened, which stores it in a cookie, or
        as `Authorization: Bearer`.
    hosts : collection of str
        Allowed host names besides the loopback names; see `accepted_hostnames`.
    limits : RequestLimits
        For every other path.
    limits_by_path : mapping of path to RequestLimits, optional
        Paths with their own limits, such as uploads.

    Returns
    -------
    ASGI application
        Rejects requests with a status and `{"error": reason}`: 401 no token, 403 another site's page,
        408 too slow, 413 too large, 421 unknown host name.
    """
    return _SecurityMiddleware(app, token, hosts, limits, limits_by_path or {})


def _with_security_headers(send: "Send") -> "Send":
    """Add the security headers to an answer, except those that it sets itself."""

    async def send_secured(message: "Message") -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            present = {name.lower() for name, _ in headers}
            defaults = (
                ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
                ("Cache-Control", "no-store"),
                *_SECURITY_HEADERS,
            )
            headers += [
                (name.encode(), value.encode())
                for name, value in defaults
                if name.lower().encode() not in present
            ]
            message = {**message, "headers": headers}
        await send(message)

    return send_secured


class _LimitedBody:
    """Body of a request, which raises an error when it exceeds a limit."""

    def __init__(self, receive: "Receive", limits: RequestLimits) -> None:
        self.receive_message, self.limits = receive, limits
        self.received_bytes, self.is_complete = 0, False
        self.deadline: float | None = None
        self.rejection: _RejectedRequestError | None = None

    async def receive(self) -> "Message":
        """Return the next message; after the body, wait for the end of the connection without a limit."""
        if self.is_complete:
            return await self.receive_message()
        # One deadline for the whole body: a limit for each part would never end one that comes byte by byte.
        loop = asyncio.get_running_loop()
        self.deadline = self.deadline or loop.time() + self.limits.seconds
        try:
            message = await asyncio.wait_for(self.receive_message(), self.deadline - loop.time())
        except TimeoutError:
            reason = f"the request took longer than {self.limits.seconds:g} s: send less at once"
            self.rejection = _RejectedRequestError(408, reason)
            raise self.rejection from None
        self.received_bytes += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        if self.received_bytes > self.limits.body_bytes:
            self.rejection = _body_too_large(self.limits)
            raise self.rejection
        return message


def _body_too_large(limits: RequestLimits) -> _RejectedRequestError:
    size = limits.body_bytes
    limit = f"{size / 2**30:g} GiB" if size >= 2**30 else f"{size / 2**20:g} MiB"
    return _RejectedRequestError(413, f"the request is larger than {limit}: send less")


async def _send_rejection(send: "Send", rejection: _RejectedRequestError) -> None:
    # The rest of a rejected body is not read, so no other request can follow on this connection.
    body = json.dumps({"error": rejection.reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": rejection.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_HOST_HEADER = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[\w.-]+))(?::\d{1,5})?", re.ASCII)


def _parse_hostname(host: str) -> str:
    """Return the name in a Host header; empty if the header is malformed."""
    match = _HOST_HEADER.fullmatch(host)
    return (match["six"] or match["name"]).lower() if match else ""


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
    morsel: Any = jar.get(name)
    return str(morsel.value) if morsel is not None else ""
