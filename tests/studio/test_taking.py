"""What is taken away, and session files that come back."""

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

from tests.studio.conftest import NOTE, kept, opened
from tonewood.enhancement.recipe import load_recipe as load_recipe
from tonewood.export import export
from tonewood.studio.state import StudioState


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "ogg", "mp3", "opus", "caf"])
def test_sound_in_any_format(client: TestClient, session: dict[str, Any], suffix: str) -> None:
    answer = client.get(f"/api/sessions/{session['id']}/take/audio?format={suffix}")
    assert answer.status_code == 200
    if suffix not in ("mp3", "caf", "opus"):  # which soundfile reads only from files
        samples, rate = soundfile.read(io.BytesIO(answer.content), always_2d=True)
        assert (rate, samples.shape) == (16_000, (96_000, 2))


@pytest.mark.parametrize("suffix", ["exe", "..", "tonewood"])
def test_a_format_that_is_none_is_refused(client: TestClient, session: dict[str, Any], suffix: str) -> None:
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


def test_equalisers_do_what_the_recipe_does(
    client: TestClient, session: dict[str, Any], tmp_path: Path
) -> None:
    told = client.get("/api/formats").json()
    assert ".flac" in told["sounds"]
    base = f"/api/sessions/{session['id']}/take"
    (tmp_path / "a.recipe.json").write_bytes(client.get(f"{base}/recipe").content)
    correction = export.load_correction(str(tmp_path / "a.recipe.json"))
    taken = {it["name"]: client.get(f"{base}/equaliser/{it['name']}").content for it in told["equalisers"]}
    for phase in ("linear", "minimum"):
        response, rate = soundfile.read(io.BytesIO(taken.pop(f"impulse-{phase}")))
        hz = np.array([100.0, 1_000.0, 7_000.0])
        turns = np.exp(-2j * np.pi * hz[:, None] / rate * np.arange(len(response)))
        level_db = 20 * np.log10(np.abs(turns @ response))
        assert level_db == pytest.approx(correction.average_db(hz) + correction.gain_db, abs=0.1)
    for name in ("apo", "autoeq", "rew", "camilladsp"):
        assert len(re.findall(r"\bPK\b|Peaking", taken.pop(name).decode())) >= 5
    assert set(taken) == {"automation", "reaper"}
    rows = taken["automation"].decode().splitlines()
    assert len(rows) == 1 + math.ceil(session["seconds"] / 0.05)
    assert client.get(f"{base}/equaliser/none").status_code == 404


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
        client.get(f"/api/sessions/{id}/take/audio?format=wav").content for id in (session["id"], other["id"])
    )
    assert ours == theirs
    assert client.post(f"/api/sessions/{other['id']}/undo").json()["found"] == 0


def test_a_session_file_with_other_names_in_it_is_refused(
    client: TestClient, session: dict[str, Any], desk: StudioState
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
    assert not list(desk.database.folder.parent.rglob("outside.wav"))
    assert answer.status_code in (201, 400)


def test_what_is_taken_keeps_the_recordings_tags(
    client: TestClient, tmp_path: Path, play: Callable[..., Any]
) -> None:
    path = tmp_path / "take.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16", format="FLAC") as file:
        file.title = "Sarabande"
        file.write(play(1.5, 16_000)[0])
    session = opened(client, path)
    for suffix in ("flac", "wav"):
        taken = client.get(f"/api/sessions/{session['id']}/take/audio?format={suffix}")
        assert soundfile.SoundFile(io.BytesIO(taken.content)).title == "Sarabande"
