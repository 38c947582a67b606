"""Models in folders and on the Hub: the real client against a fake server."""

import base64
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

import tonewood
from tonewood.errors import MissingExtraError, ModelError, OutputError
from tonewood.model.card import card_markdown
from tonewood.model.model import Model

COMMIT = "a" * 40


def test_model_folder_loads_equal(model: Model, tmp_path: Path) -> None:
    tonewood.save_pretrained(model, tmp_path / "tiny")
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == [
        "README.md",
        "model.tonewood",
    ]
    back = tonewood.from_pretrained(tmp_path / "tiny")
    assert (back.digest, back.name, back.card) == (model.digest, "tiny", model.card)
    page = (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8")
    assert page == card_markdown(model)
    assert page.startswith("---\nlibrary_name: tonewood\n")


def test_existing_model_folder_is_not_replaced(model: Model, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(OutputError, match=r"README\.md exists"):
        tonewood.save_pretrained(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    tonewood.save_pretrained(model, tmp_path, overwrite=True)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == card_markdown(model)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"contains no model\.tonewood: name a folder"):
        tonewood.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is neither a folder nor a repository's name"):
        tonewood.from_pretrained(tmp_path / "none" / "such")


def test_missing_huggingface_hub_names_the_extra(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (
        lambda: tonewood.from_pretrained("somebody/cello"),
        lambda: tonewood.push_to_hub(model, "somebody/cello"),
    ):
        with pytest.raises(MissingExtraError, match=r"pip install '\.\[hub\]'"):
            call()
    tonewood.save_pretrained(model, tmp_path / "x")  # folders need no library
    assert tonewood.from_pretrained(tmp_path / "x").digest == model.digest


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put a loaded client into the state of HF_HUB_OFFLINE=1; return the folder of its cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_cached_repository_loads_without_a_network(model: Model, offline: Path) -> None:
    existing = offline / "models--somebody--cello"
    tonewood.save_pretrained(model, existing / "snapshots" / COMMIT)
    (existing / "refs").mkdir()
    (existing / "refs" / "main").write_text(COMMIT)
    back = tonewood.from_pretrained("somebody/cello")
    assert (back.digest, back.name) == (model.digest, "cello")
    assert tonewood.from_pretrained("somebody/cello", revision=COMMIT).digest == model.digest
    with pytest.raises(ModelError, match="neither a folder nor in the cache"):
        tonewood.from_pretrained("somebody/else")


def test_pushing_needs_a_network(model: Model, offline: Path) -> None:
    with pytest.raises(ModelError, match="the Hub cannot be reached: go online"):
        tonewood.push_to_hub(model, "somebody/cello")


class Hub(BaseHTTPRequestHandler):
    """Server with the endpoints of the Hub that an upload and a download use."""

    files: dict[str, bytes]
    status = 200

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if type(self).status != 200:
            return self.answer(type(self).status, b"{}")
        output: dict[str, Any] = {"url": "https://huggingface.co/somebody/cello"}
        if "/preupload/" in self.path:
            names = [item["path"] for item in json.loads(sent)["files"]]
            files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            output = {"files": files}
        elif "/commit/" in self.path:
            for line in map(json.loads, sent.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    type(self).files[value["path"]] = base64.b64decode(value["content"])
            output = {
                "commitUrl": f"https://huggingface.co/somebody/cello/commit/{COMMIT}",
                "commitOid": COMMIT,
            }
        return self.answer(200, json.dumps(output).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        name = self.path.split("/")[-1]
        if not self.path.startswith("/somebody/cello/resolve/"):
            return self.answer(404, b"", X_Error_Code="RepoNotFound")
        if name not in type(self).files:
            return self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        body = type(self).files[name]
        return self.answer(200, body, ETag=f'"{len(body)}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    kind = type("OneHub", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    place = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", place)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        place + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    yield kind
    server.shutdown()
    server.server_close()
    thread.join()


def test_pushed_model_is_downloaded_again(model: Model, hub: type[Hub]) -> None:
    url = tonewood.push_to_hub(model, "somebody/cello")
    assert url.endswith(COMMIT)
    assert sorted(hub.files) == ["README.md", "model.tonewood"]
    assert b"# cello" in hub.files["README.md"]
    back = tonewood.from_pretrained("somebody/cello")
    assert (back.digest, back.name) == (model.digest, "cello")


def test_missing_or_refused_repository_is_one_error(model: Model, hub: type[Hub]) -> None:
    with pytest.raises(ModelError, match="does not exist on the Hub, or is private"):
        tonewood.from_pretrained("somebody/else")
    with pytest.raises(ModelError, match=r"contains no model\.tonewood: name another repository"):
        tonewood.from_pretrained("somebody/cello")
    hub.files["model.tonewood"] = b"no model at all"
    with pytest.raises(ModelError, match="is not a Tonewood model, or is damaged"):
        tonewood.from_pretrained("somebody/cello")
    hub.status = 403
    with pytest.raises(ModelError, match=r"the Hub refuses access \(status 403\)"):
        tonewood.push_to_hub(model, "somebody/cello")


def test_unreachable_hub_is_one_error(model: Model, hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="the Hub cannot be reached: check the network"):
        tonewood.push_to_hub(model, "somebody/cello")
