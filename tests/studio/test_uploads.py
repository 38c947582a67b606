"""The page, and uploads that are accepted or rejected."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from tests.studio.conftest import upload_recording
from tonewood.studio.state import StudioState


def test_page_has_a_content_security_policy(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert f'content="{nonce}"' in answer.text
    assert "unsafe" not in policy
    assert "http" not in policy
    script = answer.text.split('src="')[1].split('"')[0]
    built = client.get(script)
    assert built.status_code == 200
    assert "immutable" in built.headers["cache-control"]
    assert client.get("/").headers["content-security-policy"] != policy


def test_unknown_path_is_reported_as_json(client: TestClient) -> None:
    for path in ("/api/nothing", "/nothing", "/assets/../../app.py", "/%2e%2e/app.py"):
        assert client.get(path).status_code == 404


def test_upload_is_stored_under_a_neutral_name(client: TestClient, take: Path) -> None:
    session = upload_recording(client, take, "../../etc/pass\x1bwd.WAV")
    assert session["title"] == "pass\\x1bwd.WAV"
    studio_state: StudioState = client.app.app.state.studio  # type: ignore[attr-defined]
    folder = studio_state.database.folder / "sessions" / session["id"]
    assert sorted(path.name for path in folder.iterdir()) == ["input.f32", "upload.wav"]
    assert client.delete(f"/api/sessions/{session['id']}").status_code == 200
    assert not folder.exists()
    assert client.get(f"/api/sessions/{session['id']}").status_code == 404


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (b"", "is empty"),
        (b"no sound at all", "not audio in a format that can be read"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "damaged header"),
        (b"PK\x05\x06" + bytes(18), "neither a recording nor a session file"),
    ],
)
def test_invalid_upload_is_rejected_and_removed(
    client: TestClient, studio_state: StudioState, content: bytes, reported: str
) -> None:
    before = sorted((studio_state.database.folder / "sessions").iterdir())
    answer = client.post("/api/recordings?name=song.wav", content=content)
    assert answer.status_code == 400
    assert reported in answer.json()["error"]
    assert str(studio_state.database.folder) not in answer.json()["error"]
    assert sorted((studio_state.database.folder / "sessions").iterdir()) == before


def test_silent_upload_is_reported_by_title(client: TestClient) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(16_000), 16_000, format="WAV")
    answer = client.post("/api/recordings?name=rest.wav", content=buffer.getvalue())
    assert answer.json()["error"].startswith("rest.wav is silent")


def test_models_are_listed_with_their_domain(client: TestClient) -> None:
    models = {model["name"]: model for model in client.get("/api/models").json()}
    assert next(iter(models)) == "tiny"
    assert models["cello"]["domain"] == "solo cello, sampled notes, dry"
    assert 0.5 < models["cello"]["accuracy"] <= 1
