"""Who is let in, and what every answer says to the browser."""

import asyncio
import hmac
import re
import sys
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tonewood import web
from tonewood.errors import CallError, MissingExtraError
from tonewood.web import RequestLimits, secure, server


async def _echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())} bytes")


def client(base_url: str = "http://127.0.0.1:8765", **options: Any) -> TestClient:
    app = Starlette(routes=[Route("/{rest:path}", _echo, methods=["GET", "POST"])])
    return TestClient(secure(app, **options), base_url=base_url, follow_redirects=False)


def test_local_page_has_strict_security_headers() -> None:
    answer = client().get("/")
    assert answer.text == "0 bytes"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


OTHER_NAMES = [
    "evil.example", "127.0.0.1.evil.example", "10.0.0.7", "", "[::", "evil.example@127.0.0.1",
    "127.0.0.1@evil.example", "localhost/evil.example", "localhost:80:90", "localhost evil.example",
    "localhost.", "[::1", "127.0.0.1#", "0x7f000001", "127.1",
]  # fmt: skip


@pytest.mark.parametrize("host", OTHER_NAMES)
def test_unknown_host_name_is_rejected(host: str) -> None:
    answer = client().get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "does not have the name" in answer.json()["error"]


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1", "[::1]:8765"])
def test_loopback_names_are_accepted(host: str) -> None:
    assert client().get("/", headers={"host": host}).status_code == 200


def test_wildcard_host_accepts_addresses_but_not_domains() -> None:
    everywhere = client(hosts=web.accepted_hostnames("0.0.0.0"))
    assert everywhere.get("/", headers={"host": "192.168.1.5:8765"}).status_code == 200
    assert everywhere.get("/", headers={"host": "rebound.example"}).status_code == 421


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "http://127.0.0.1:9999"},
    {"origin": "null"},
    {"origin": "http://["},
    {"origin": "https://127.0.0.1:8765.evil.example"},
    {"origin": "http://127.0.0.1:8765@evil.example"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_cross_site_post_is_rejected(headers: dict[str, str]) -> None:
    answer = client().post("/change", headers=headers)
    assert answer.status_code == 403
    assert "pages of other sites" in answer.json()["error"]


def test_cross_site_link_is_accepted_but_embedding_is_not() -> None:
    cross = {"sec-fetch-site": "cross-site"}
    linked = client().get("/", headers={**cross, "sec-fetch-mode": "navigate"})
    assert linked.status_code == 200
    assert client().get("/sound", headers={**cross, "sec-fetch-mode": "no-cors"}).status_code == 403
    away = client().get("/sound", headers={**cross, "sec-fetch-mode": "navigate"})
    assert away.status_code == 403


def test_same_origin_post_is_accepted() -> None:
    headers = {"origin": "http://127.0.0.1:8765", "sec-fetch-site": "same-origin"}
    assert client().post("/change", headers=headers, content=b"abc").text == "3 bytes"


def test_request_without_token_is_rejected() -> None:
    browser = client(token="secret")
    for answer in (browser.get("/"), browser.get("/?token=guess"), browser.post("/change")):
        assert answer.status_code == 401
        assert "open the address" in answer.json()["error"]


def test_token_in_address_becomes_http_only_cookie() -> None:
    browser = client(token="secret")
    entered = browser.get("/?token=secret")
    assert entered.status_code == 303
    assert entered.headers["location"] == "/"
    assert "HttpOnly; SameSite=Strict" in entered.headers["set-cookie"]
    assert browser.get("/").status_code == 200


TOKEN = "secret-0123456789"
WRONG_TOKENS = [
    "", " ", TOKEN[:-1], TOKEN[1:], TOKEN + "0", TOKEN.upper(), TOKEN[:-1] + "8", TOKEN * 2, "é",
    "secret", "None", "null", "0",
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_TOKENS)
def test_partial_token_is_rejected_everywhere(wrong: str) -> None:
    browser = client(token=TOKEN)
    browser.get("/", params={"token": TOKEN})
    (cookie,) = browser.cookies
    browser.cookies.clear()
    sent = wrong.encode("latin-1")
    headers = [
        {},
        {"authorization": b"Bearer " + sent},
        {"authorization": b"Basic " + TOKEN.encode()},
        {"authorization": TOKEN.encode()},
        {"cookie": cookie.encode() + b"=" + sent},
        {"cookie": b"tonewood=" + TOKEN.encode()},
        {"x-token": TOKEN.encode()},
    ]
    for more in headers:
        pairs = [(name.encode(), value) for name, value in more.items()]
        assert browser.get("/", headers=pairs).status_code == 401, more
    assert browser.get("/", params={"token": wrong}).status_code == 401
    # By address a page is opened, and nothing is changed.
    assert browser.post("/change", params={"token": TOKEN}).status_code == 401


def test_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def spied(received: bytes, right: bytes) -> bool:
        compared.append((received, right))
        return received == right

    browser = client(token=TOKEN)
    monkeypatch.setattr(hmac, "compare_digest", spied)
    # Were it compared in any other way too, these would be let in, or out.
    browser.get("/", params={"token": "a"})
    browser.get("/", headers={"authorization": "Bearer b"})
    assert (b"a", TOKEN.encode()) in compared
    assert (b"b", TOKEN.encode()) in compared
    monkeypatch.setattr(hmac, "compare_digest", lambda received, right: True)
    assert browser.get("/", headers={"authorization": "Bearer b"}).status_code == 303
    monkeypatch.setattr(hmac, "compare_digest", lambda received, right: False)
    for more in ({"params": {"token": TOKEN}}, {"headers": {"authorization": f"Bearer {TOKEN}"}}):
        assert browser.get("/", **more).status_code == 401  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["//evil.example/", "/%0d%0aSet-Cookie:%20a=b/", "/\\evil.example"])
def test_login_never_redirects_to_another_host(path: str) -> None:
    browser = client(token=TOKEN)
    entered = browser.get(f"http://127.0.0.1:8765{path}?token={TOKEN}")
    assert entered.status_code == 303
    where = entered.headers["location"]
    assert re.fullmatch(r"/(?![/\\])[\x21-\x7e]*", where)
    assert entered.headers.get_list("set-cookie")[0].count("=") == 3


def test_websocket_is_closed_before_it_opens() -> None:
    with pytest.raises(WebSocketDisconnect) as ended, client().websocket_connect("/"):
        pass
    assert ended.value.code == 1008


def test_bearer_token_is_accepted() -> None:
    browser = client(token="secret")
    assert browser.get("/", headers={"authorization": "Bearer secret"}).status_code == 200
    assert browser.get("/", headers={"authorization": "Bearer wrong"}).status_code == 401


def test_body_above_the_limit_is_rejected_with_or_without_length() -> None:
    browser = client(
        limits=RequestLimits(body_bytes=100), limits_by_path={"/upload": RequestLimits(body_bytes=200)}
    )
    assert browser.post("/change", content=b"x" * 100).status_code == 200
    assert browser.post("/change", content=b"x" * 101).status_code == 413
    unstated = browser.post("/change", content=(b"x" * 60 for _ in range(2)))
    assert unstated.status_code == 413
    assert "the request is larger than" in unstated.json()["error"]
    assert browser.post("/upload", content=b"x" * 150).status_code == 200
    assert browser.post("/change", headers={"content-length": "many"}).status_code == 400


def test_missing_body_times_out() -> None:
    async def never() -> Any:
        await asyncio.sleep(60)

    async def ask() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        app = Starlette(routes=[Route("/{rest:path}", _echo, methods=["POST"])])
        scope = {
            "type": "http", "method": "POST", "path": "/change", "query_string": b"",
            "headers": [(b"host", b"localhost")], "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        await secure(app, limits=RequestLimits(seconds=0.01))(scope, never, send)
        return sent

    assert asyncio.run(ask())[0]["status"] == 408


def test_missing_module_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    web.require_server_extra("the studio", "studio")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[studio\]'"):
        web.require_server_extra("the studio", "studio")


def test_server_url_has_host_port_and_token() -> None:
    assert web.server_url("127.0.0.1", 8765) == "http://127.0.0.1:8765/"
    assert web.server_url("::1", 80, "abc") == "http://[::1]:80/?token=abc"
    assert web.is_loopback("localhost")
    assert not web.is_loopback("0.0.0.0")


def test_port_in_use_is_named() -> None:
    with server._bind_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CallError, match=rf"cannot serve at .* port {port} .*another --port"):
            server._bind_socket("127.0.0.1", port)
