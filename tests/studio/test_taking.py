"""What is taken away, and session files that come back."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import soundfile
from starlette.testclient import TestClient

from tests.studio.conftest import NOTE, kept
from tonewood.files.recipe import load as load_recipe
from tonewood.studio.desk import Desk
from tonewood.studio.taking import EQUALISERS, Equaliser


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "ogg", "mp3", "opus", "caf"])
def test_sound_in_any_format(client: TestClient, session: dict[str, Any], suffix: str) -> None:
    answer = client.get(f"/api/sessions/{session['id']}/take/audio?format={suffix}")
    assert answer.status_code == 200
    if suffix not in ("mp3", "caf", "opus"):  # which soundfile reads only from files
        samples, rate = soundfile.read(io.BytesIO(answer.content), always_2d=True)
        assert (rate, samples.shape) == (16_000, (96_000, 2))


@pytest.mark.parametrize("suffix", ["exe", "..", "tonewood"])
def test_a_format_that_is_none_is_refused(
    client: TestClient, session: dict[str, Any], suffix: str
) -> None:
    answer = client.get(f"/api/sessions/{session['id']}/take/audio?format={suffix}")
    assert answer.status_code in (400, 422)
    assert "/" not in answer.json()["error"]  # where it lies is no page's business


def test_recipe_and_picture(client: TestClient, session: dict[str, Any], tmp_path: Path) -> None:
    kept(client, session, amount=0.5, notes=[NOTE])
    path = tmp_path / "a.recipe.json"
    path.write_bytes(client.get(f"/api/sessions/{session['id']}/take/recipe").content)
    recipe = load_recipe(path)
    assert recipe.settings.render.amount == 0.5
    assert recipe.mask.rows > 48
    assert recipe.input.name == "take.wav"
    picture = client.get(f"/api/sessions/{session['id']}/take/picture")
    assert picture.content.startswith(b"\x89PNG")


def test_an_equaliser_is_made_from_the_recipe(
    client: TestClient, session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(recipe: Path, out: Path) -> None:
        out.write_text(f"{load_recipe(recipe).mask.rows} rows")

    monkeypatch.setitem(EQUALISERS, "rows", Equaliser("Rows", ".txt", write))
    told = client.get("/api/formats").json()
    assert told["equalisers"][-1] == {"name": "rows", "title": "Rows"}
    assert ".flac" in told["sounds"]
    base = f"/api/sessions/{session['id']}/take/equaliser"
    assert client.get(f"{base}/rows").text.endswith(" rows")
    assert client.get(f"{base}/none").status_code == 404


def test_a_session_file_reopens_exactly(client: TestClient, session: dict[str, Any]) -> None:
    kept(client, session, amount=0.7, notes=[NOTE])
    base = f"/api/sessions/{session['id']}"
    content = client.get(f"{base}/take/session").content
    answer = client.post("/api/recordings?name=a.tonewood-session", content=content)
    assert answer.status_code == 201, answer.text
    other = answer.json()
    assert other["state"]["edit"] == client.get(f"{base}/state").json()["edit"]
    assert other["state"]["key"] == client.get(f"{base}/state").json()["key"]
    ours, theirs = (
        client.get(f"/api/sessions/{id}/take/audio?format=wav").content
        for id in (session["id"], other["id"])
    )
    assert ours == theirs
    assert client.post(f"/api/sessions/{other['id']}/undo").json()["found"] == 0


def test_a_session_file_with_other_names_in_it_is_refused(
    client: TestClient, session: dict[str, Any], desk: Desk
) -> None:
    kept = client.get(f"/api/sessions/{session['id']}/take/session").content
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(kept)) as old, zipfile.ZipFile(buffer, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename == "session.json":
                told = json.loads(content)
                told["sound"]["upload"] = "../../outside.wav"
                content = json.dumps(told).encode()
            name = "../../outside.wav" if item.filename.startswith("upload") else item.filename
            new.writestr(name, content)
    answer = client.post("/api/recordings?name=a", content=buffer.getvalue())
    # Its recording is taken under our own name, or it is refused; nothing lands outside.
    assert not list(desk.store.folder.parent.rglob("outside.wav"))
    assert answer.status_code in (201, 400)
