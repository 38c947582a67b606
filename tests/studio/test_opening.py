"""What a page is given, and what may be opened; in this process."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from tests.studio.conftest import opened
from tonewood.studio.state import StudioState


def test_the_page_comes_with_a_policy_that_holds(client: TestClient) -> None:
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


def test_what_is_not_there_is_said_in_json(client: TestClient) -> None:
    for path in ("/api/nothing", "/nothing", "/assets/../../app.py", "/%2e%2e/app.py"):
        assert client.get(path).status_code == 404


def test_a_recording_is_kept_under_a_name_of_our_own(client: TestClient, take: Path) -> None:
    session = opened(client, take, "../../etc/pass\x1bwd.WAV")
    assert session["title"] == "pass\\x1bwd.WAV"
    desk: StudioState = client.app.app.state.desk  # type: ignore[attr-defined]
    folder = desk.database.folder / "sessions" / session["id"]
    assert sorted(path.name for path in folder.iterdir()) == ["input.f32", "upload.wav"]
    assert client.delete(f"/api/sessions/{session['id']}").status_code == 200
    assert not folder.exists()
    assert client.get(f"/api/sessions/{session['id']}").status_code == 404


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"no sound at all", "not audio in a format that can be read"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "damaged header"),
        (b"PK\x05\x06" + bytes(18), "neither a recording nor a session file"),
    ],
)
def test_what_is_no_recording_is_refused_and_leaves_nothing(
    client: TestClient, desk: StudioState, content: bytes, told: str
) -> None:
    before = sorted((desk.database.folder / "sessions").iterdir())
    answer = client.post("/api/recordings?name=song.wav", content=content)
    assert answer.status_code == 400
    assert told in answer.json()["error"]
    assert str(desk.database.folder) not in answer.json()["error"]
    assert sorted((desk.database.folder / "sessions").iterdir()) == before


def test_silence_is_called_by_its_title(client: TestClient) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(16_000), 16_000, format="WAV")
    answer = client.post("/api/recordings?name=rest.wav", content=buffer.getvalue())
    assert answer.json()["error"].startswith("rest.wav is silent")


def test_models_are_told_with_what_they_are_for(client: TestClient) -> None:
    models = {model["name"]: model for model in client.get("/api/models").json()}
    assert next(iter(models)) == "tiny"
    assert models["cello"]["domain"] == "solo cello, sampled notes, dry"
    assert 0.5 < models["cello"]["accuracy"] <= 1
