"""Downloads, and session files that are uploaded again."""

import io
import json
import math
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from tests.studio.conftest import NOTE, change_edit, upload_recording
from tonewood.enhancement.recipe import load_recipe
from tonewood.export import export
from tonewood.studio.state import StudioState


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "ogg", "mp3", "opus", "caf"])
def test_audio_downloads_in_each_format(client: TestClient, session: dict[str, Any], suffix: str) -> None:
    answer = client.get(f"/api/sessions/{session['id']}/take/audio?format={suffix}")
    assert answer.status_code == 200
    if suffix not in ("mp3", "caf", "opus"):  # which soundfile reads only from files
        samples, rate = soundfile.read(io.BytesIO(answer.content), always_2d=True)
        assert (rate, samples.shape) == (16_000, (96_000, 2))


@pytest.mark.parametrize("suffix", ["exe", "..", "tonewood"])
def test_unknown_audio_format_is_rejected(client: TestClient, session: dict[str, Any], suffix: str) -> None:
    answer = client.get(f"/api/sessions/{session['id']}/take/audio?format={suffix}")
    assert answer.status_code in (400, 422)
    assert "/" not in answer.json()["error"]  # the page does not receive the path


def test_recipe_and_picture_are_downloaded(
    client: TestClient, session: dict[str, Any], tmp_path: Path
) -> None:
    change_edit(client, session, amount=0.5, notes=[NOTE])
    path = tmp_path / "a.recipe.json"
    path.write_bytes(client.get(f"/api/sessions/{session['id']}/take/recipe").content)
    recipe = load_recipe(path)
    assert recipe.settings.render.amount == 0.5
    assert recipe.mask.rows > 48
    assert recipe.input.name == "take.wav"
    picture = client.get(f"/api/sessions/{session['id']}/take/picture")
    assert picture.content.startswith(b"\x89PNG")


def test_equalizer_exports_match_the_recipe(
    client: TestClient, session: dict[str, Any], tmp_path: Path
) -> None:
    formats = client.get("/api/formats").json()
    assert ".flac" in formats["sounds"]
    base = f"/api/sessions/{session['id']}/take"
    (tmp_path / "a.recipe.json").write_bytes(client.get(f"{base}/recipe").content)
    correction = export.load_correction(str(tmp_path / "a.recipe.json"))
    exports = {
        entry["name"]: client.get(f"{base}/equaliser/{entry['name']}").content
        for entry in formats["equalisers"]
    }
    for phase in ("linear", "minimum"):
        response, rate = soundfile.read(io.BytesIO(exports.pop(f"impulse-{phase}")))
        hz = np.array([100.0, 1_000.0, 7_000.0])
        turns = np.exp(-2j * np.pi * hz[:, None] / rate * np.arange(len(response)))
        level_db = 20 * np.log10(np.abs(turns @ response))
        assert level_db == pytest.approx(correction.average_db(hz) + correction.gain_db, abs=0.1)
    for name in ("apo", "autoeq", "rew", "camilladsp"):
        assert len(re.findall(r"\bPK\b|Peaking", exports.pop(name).decode())) >= 5
    assert exports.pop("graphic-eq").startswith(b"GraphicEQ: ")
    assert set(exports) == {"automation", "reaper"}
    rows = exports["automation"].decode().splitlines()
    assert len(rows) == 1 + math.ceil(session["seconds"] / 0.05)
    assert client.get(f"{base}/equaliser/none").status_code == 404


def test_session_file_restores_the_session(client: TestClient, session: dict[str, Any]) -> None:
    change_edit(client, session, amount=0.7, notes=[NOTE])
    base = f"/api/sessions/{session['id']}"
    content = client.get(f"{base}/take/session").content
    answer = client.post("/api/recordings?name=a.tonewood-session", content=content)
    assert answer.status_code == 201, answer.text
    other = answer.json()
    assert other["state"]["edit"] == client.get(f"{base}/state").json()["edit"]
    assert other["state"]["key"] == client.get(f"{base}/state").json()["key"]
    ours, theirs = (
        client.get(f"/api/sessions/{id}/take/audio?format=wav").content for id in (session["id"], other["id"])
    )
    assert ours == theirs
    assert client.post(f"/api/sessions/{other['id']}/undo").json()["found"] == 0


def test_session_file_with_unknown_entries_is_rejected(
    client: TestClient, session: dict[str, Any], studio_state: StudioState
) -> None:
    original = client.get(f"/api/sessions/{session['id']}/take/session").content
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(original)) as old, zipfile.ZipFile(buffer, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename == "session.json":
                tree = json.loads(content)
                tree["sound"]["upload"] = "../../outside.wav"
                content = json.dumps(tree).encode()
            name = "../../outside.wav" if item.filename.startswith("upload") else item.filename
            new.writestr(name, content)
    answer = client.post("/api/recordings?name=a", content=buffer.getvalue())
    # The recording is stored under a neutral name or rejected; no file is written outside.
    assert not list(studio_state.database.folder.parent.rglob("outside.wav"))
    assert answer.status_code in (201, 400)


def test_downloaded_audio_keeps_tags(client: TestClient, tmp_path: Path, play: Callable[..., Any]) -> None:
    path = tmp_path / "take.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16", format="FLAC") as file:
        file.title = "Sarabande"
        file.write(play(1.5, 16_000)[0])
    session = upload_recording(client, path)
    for suffix in ("flac", "wav"):
        download = client.get(f"/api/sessions/{session['id']}/take/audio?format={suffix}")
        assert soundfile.SoundFile(io.BytesIO(download.content)).title == "Sarabande"
