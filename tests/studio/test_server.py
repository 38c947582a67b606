"""Each route of the studio and each refusal, in this process; searches in their own."""

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

from tests.studio.conftest import ended, heard, opened
from tonewood.files.recipe import load as load_recipe
from tonewood.studio.desk import Desk
from tonewood.studio.tiles import COLUMNS, ROWS
from tonewood.workflow import corrections

NOTE = {"id": "n1", "seconds": 2.0, "hz": 900.0, "width_s": 1.0, "height_hz": 600.0, "gain_db": 9.0}


@pytest.fixture(scope="module")
def session(client: TestClient, take: Path) -> dict[str, Any]:
    """An opened recording, enhanced."""
    opened_ = opened(client, take)
    job = client.post(f"/api/sessions/{opened_['id']}/enhance", json={"force": True, "steps": 2})
    done = ended(client, job.json())
    assert done["state"] == "done", done
    assert [step["number"] for step in done["told"]["steps"]] == [0, 1, 2]
    told: dict[str, Any] = client.get(f"/api/sessions/{opened_['id']}").json()
    return told


def edit(client: TestClient, session: dict[str, Any], **changes: Any) -> dict[str, Any]:
    state = client.get(f"/api/sessions/{session['id']}/state").json()
    answer = client.put(f"/api/sessions/{session['id']}/edit", json={**state["edit"], **changes})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


# --- The page


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


# --- Opening


def test_a_recording_is_kept_under_a_name_of_our_own(client: TestClient, take: Path) -> None:
    session = opened(client, take, "../../etc/pass\x1bwd.WAV")
    assert session["title"] == "pass\\x1bwd.WAV"
    desk: Desk = client.app.app.state.desk  # type: ignore[attr-defined]
    folder = desk.store.folder / "sessions" / session["id"]
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
    client: TestClient, desk: Desk, content: bytes, told: str
) -> None:
    before = sorted((desk.store.folder / "sessions").iterdir())
    answer = client.post("/api/recordings?name=song.wav", content=content)
    assert answer.status_code == 400
    assert told in answer.json()["error"]
    assert str(desk.store.folder) not in answer.json()["error"]
    assert sorted((desk.store.folder / "sessions").iterdir()) == before


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


# --- Seeing


def test_tiles_show_the_recording_at_every_zoom(
    client: TestClient, session: dict[str, Any]
) -> None:
    for axis in ("log", "mel"):
        for level in (0, 3, 9):
            answer = client.get(f"/api/sessions/{session['id']}/tiles/input/{axis}/{level}/0")
            tile = np.frombuffer(answer.content, np.uint8).reshape(ROWS, COLUMNS)
            assert tile.max() > 60
            assert "immutable" in answer.headers["cache-control"]
    beyond = client.get(f"/api/sessions/{session['id']}/tiles/input/log/0/900")
    assert not np.frombuffer(beyond.content, np.uint8).any()


@pytest.mark.parametrize("place", ["log/99/0", "log/0/-1", "bark/0/0", "log/x/0"])
def test_a_tile_that_cannot_be_is_refused(
    client: TestClient, session: dict[str, Any], place: str
) -> None:
    answer = client.get(f"/api/sessions/{session['id']}/tiles/input/{place}")
    assert answer.status_code == 422
    assert "error" in answer.json()


def test_a_note_shows_in_the_mask_where_it_lies(
    client: TestClient, session: dict[str, Any]
) -> None:
    def tile() -> np.ndarray:
        answer = client.get(f"/api/sessions/{session['id']}/tiles/mask/log/3/0")
        return np.frombuffer(answer.content, np.uint8).reshape(ROWS, COLUMNS).astype(int)

    before = tile()
    edit(client, session, notes=[NOTE])
    difference = tile() - before
    row, column = np.unravel_index(difference.argmax(), difference.shape)
    hz = 40 * (8_000 / 40) ** (row / (ROWS - 1))
    assert 600 <= hz <= 1_200
    assert 1.5 <= (column + 0.5) * 0.0025 * 8 <= 2.5
    assert abs(difference.max() - 4 * 9) <= 1  # in quarter-decibels, both rounded
    assert np.abs(difference[:, : int(1.2 / 0.02)]).max() <= 1
    client.post(f"/api/sessions/{session['id']}/undo")


def test_waveform_and_average_eq(client: TestClient, session: dict[str, Any]) -> None:
    peaks = client.get(f"/api/sessions/{session['id']}/waveform").json()["peaks"]
    assert 0.1 < max(peaks) <= 1
    curve = client.get(f"/api/sessions/{session['id']}/curve?axis=mel").json()
    assert all(a <= b for a, b in zip(curve["low"], curve["high"], strict=True))
    assert max(map(abs, curve["mean"])) > 0.5


def test_saliency_comes_when_it_is_asked_for(client: TestClient, session: dict[str, Any]) -> None:
    path = f"/api/sessions/{session['id']}/tiles/saliency/log/3/0"
    assert client.get(path).status_code == 404
    job = client.post(f"/api/sessions/{session['id']}/explain").json()
    assert ended(client, job)["state"] == "done"
    tile = np.frombuffer(client.get(path).content, np.uint8)
    assert tile.min() < 120 or tile.max() > 136
    told = client.get(f"/api/sessions/{session['id']}").json()["saliency"]
    assert told["reach"] > 0


# --- Hearing


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


def test_any_piece_is_the_downloaded_file(client: TestClient, session: dict[str, Any]) -> None:
    edit(client, session, amount=0.6, notes=[NOTE])
    base = f"/api/sessions/{session['id']}"
    early = heard(client.get(f"{base}/sound/output?start=20000&stop=24000"))
    estimated = json.loads(client.get(f"{base}/sound/output?start=0&stop=9").headers["x-levels"])
    taken = client.get(f"{base}/take/audio?format=wav")
    assert "take-enhanced.wav" in taken.headers["content-disposition"]
    whole, rate = soundfile.read(io.BytesIO(taken.content), always_2d=True, dtype="float32")
    assert (rate, whole.shape) == (16_000, (96_000, 2))
    late = client.get(f"{base}/sound/output?start=20000&stop=24000")
    levels = json.loads(late.headers["x-levels"])
    assert levels["exact"]
    np.testing.assert_allclose(heard(late), whole[20_000:24_000].T, atol=2**-23)
    # Before the whole is there, what is heard is the same but for its level, which is estimated.
    assert not estimated["exact"]
    assert abs(estimated["output_db"] - levels["output_db"]) < 0.5
    gain = 10 ** ((levels["output_db"] - estimated["output_db"]) / 20)
    np.testing.assert_allclose(early * gain, heard(late), atol=1e-4)


def test_amount_0_is_the_recording(client: TestClient, session: dict[str, Any]) -> None:
    base = f"/api/sessions/{session['id']}/sound"
    untouched = heard(client.get(f"{base}/input?start=100&stop=900"))
    np.testing.assert_array_equal(
        heard(client.get(f"{base}/output?start=100&stop=900&amount=0")), untouched
    )


@pytest.mark.parametrize(
    "query", ["start=5&stop=5", "start=0&stop=9999999", "start=999999&stop=9999999"]
)
def test_a_piece_that_cannot_be_is_refused(
    client: TestClient, session: dict[str, Any], query: str
) -> None:
    answer = client.get(f"/api/sessions/{session['id']}/sound/output?{query}")
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert "can be had at once" in answer.json()["error"]
    else:  # cut to the recording
        assert heard(answer).shape[1] == 96_000


def test_files_are_played_in_ranges(client: TestClient, session: dict[str, Any]) -> None:
    for which in ("input", "output"):
        path = f"/api/sessions/{session['id']}/audio/{which}"
        part = client.get(path, headers={"range": "bytes=100-199"})
        assert part.status_code == 206
        assert part.content == client.get(path).content[100:200]


# --- Changing


def test_undo_and_redo_go_through_all_edits(client: TestClient, take: Path) -> None:
    session = opened(client, take)
    base = f"/api/sessions/{session['id']}"
    edit(client, session, amount=0.5)
    last = edit(client, session, notes=[NOTE])
    assert (last["undo"], last["redo"]) == (True, False)
    assert client.post(f"{base}/undo").json()["edit"]["notes"] == []
    first = client.post(f"{base}/undo").json()
    assert (first["edit"]["amount"], first["undo"], first["redo"]) == (1.0, False, True)
    assert client.post(f"{base}/undo").json() == first
    assert client.post(f"{base}/redo").json()["edit"]["amount"] == 0.5
    edit(client, session, amount=0.25)
    assert not client.get(f"{base}/state").json()["redo"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": 1.5},
        {"amount": "loud"},
        {"notes": [{**NOTE, "gain_db": 99}]},
        {"notes": [{**NOTE, "id": "../x"}]},
        {"notes": [{**NOTE, "seconds": float("1e99")}]},
        {"notes": [{**NOTE, "id": f"n{n}"} for n in range(201)]},
        {"areas": [{"id": "a", "amount": 3}]},
        {"colour": "red"},
    ],
)
def test_an_edit_that_cannot_be_is_refused(
    client: TestClient, session: dict[str, Any], wrong: dict[str, Any]
) -> None:
    answer = client.put(f"/api/sessions/{session['id']}/edit", json=wrong)
    assert answer.status_code == 422
    assert "\n" not in answer.json()["error"]


def test_a_new_search_keeps_what_is_pinned(client: TestClient, session: dict[str, Any]) -> None:
    base = f"/api/sessions/{session['id']}"
    pinned = {**NOTE, "id": "kept", "pinned": True}
    before = edit(client, session, amount=1.0, notes=[pinned, {**NOTE, "id": "gone", "hz": 3_000}])
    job = client.post(f"{base}/again", json={"force": True, "steps": 2}).json()
    assert ended(client, job)["state"] == "done"
    after = client.get(f"{base}/state").json()
    assert [note["id"] for note in after["edit"]["notes"]] == ["kept"]
    assert after["found"] != before["found"]
    back = client.post(f"{base}/undo").json()
    assert len(back["edit"]["notes"]) == 2
    assert back["found"] == before["found"]


def test_before_a_search_there_is_nothing_to_search_again(client: TestClient, take: Path) -> None:
    session = opened(client, take)
    answer = client.post(f"/api/sessions/{session['id']}/again", json={})
    assert answer.status_code == 400
    assert "enhance the recording first" in answer.json()["error"]
    for what in ("recipe", "certificate"):
        assert client.get(f"/api/sessions/{session['id']}/take/{what}").status_code == 400


def test_notes_sound_without_a_search(client: TestClient, take: Path) -> None:
    session = opened(client, take)
    edit(client, session, notes=[NOTE])
    taken = client.get(f"/api/sessions/{session['id']}/take/audio?format=wav")
    whole, _ = soundfile.read(io.BytesIO(taken.content), always_2d=True)
    before, _ = soundfile.read(take, always_2d=True)
    assert np.abs(whole - before).max() > 0.01


def test_another_model_is_for_the_next_search(client: TestClient, session: dict[str, Any]) -> None:
    path = f"/api/sessions/{session['id']}/model"
    assert client.put(path, json={"model": "cello"}).json()["state"]["model"] == "tiny"
    assert client.put(path, json={"model": "../../x"}).status_code == 400
    client.put(path, json={"model": "tiny"})


# --- Trusting


def test_a_certificate_is_told_in_plain_words(client: TestClient, session: dict[str, Any]) -> None:
    certificate = session["state"]["certificate"]
    assert certificate["current"]
    titles = {it["title"] for it in certificate["statements"]}
    assert {"Scorer", "Judge", "Smoothness", "Near the reference"} <= titles
    assert set(certificate["scorer"]) == {"before", "after"}


# --- Taking away


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
    assert "error" in answer.json()


def test_recipe_and_picture(client: TestClient, session: dict[str, Any], tmp_path: Path) -> None:
    edit(client, session, amount=0.5, notes=[NOTE])
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
    correction = corrections.load(str(tmp_path / "a.recipe.json"))
    taken = {
        it["name"]: client.get(f"{base}/equaliser/{it['name']}").content
        for it in told["equalisers"]
    }
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
    edit(client, session, amount=0.7, notes=[NOTE])
    base = f"/api/sessions/{session['id']}"
    kept = client.get(f"{base}/take/session").content
    answer = client.post("/api/recordings?name=a.tonewood-session", content=kept)
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


# --- Folders


def places(client: TestClient, *names: str) -> list[str]:
    folders = {it["name"]: it["id"] for it in client.get("/api/places").json()["folders"]}
    return [folders[name] for name in names]


def test_folders_are_chosen_by_ids(client: TestClient, root: Path) -> None:
    top = client.get("/api/places").json()
    assert [it["name"] for it in top["folders"]] == ["empty", "good", "takes"]
    takes = places(client, "takes")[0]
    told = client.get(f"/api/places?at={takes}").json()
    assert told["sounds"] == 5
    assert [it["name"] for it in told["trail"]] == [root.name, "takes"]
    for wrong in (str(root), "../..", "0" * 24):
        assert client.get("/api/places", params={"at": wrong}).status_code == 404


def test_a_link_out_of_the_root_is_not_followed(
    client: TestClient, root: Path, tmp_path: Path
) -> None:
    (root / "out").symlink_to(tmp_path)
    try:
        assert "out" not in [it["name"] for it in client.get("/api/places").json()["folders"]]
    finally:
        (root / "out").unlink()


def test_an_audit_gives_its_verdict_before_training(client: TestClient) -> None:
    good, takes = places(client, "good", "takes")
    job = client.post("/api/audits", json={"reference": good, "source": good})
    assert job.status_code == 400
    assert "both folders" in job.json()["error"]
    job = client.post("/api/audits", json={"reference": good, "source": takes}).json()
    done = ended(client, job)
    assert done["state"] == "failed"  # one of the takes is broken, and is named
    assert "broken.wav" in done["told"]["error"]


def test_a_model_is_trained_with_a_curve(client: TestClient, root: Path) -> None:
    (root / "takes" / "broken.wav").rename(root / "broken.wav")
    try:
        good, takes = places(client, "good", "takes")
        audit = client.post("/api/audits", json={"reference": good, "source": takes}).json()
        assert ended(client, audit)["told"]["verdict"] in (
            "untested",
            "fine",
            "beware",
            "confounded",
        )
        body = {"reference": good, "source": takes, "name": "My Cello!", "domain": "tests"}
        done = ended(client, client.post("/api/trainings", json=body).json())
        assert done["state"] == "done", done
        assert {point["who"] for point in done["told"]["curve"]} == {"scorer", "judge"}
        assert "my-cello" in [model["name"] for model in client.get("/api/models").json()]
        again = client.post("/api/trainings", json=body)
        assert again.status_code == 400
        assert "already" in again.json()["error"]
    finally:
        (root / "broken.wav").rename(root / "takes" / "broken.wav")


def test_a_folder_is_enhanced_take_by_take(client: TestClient, root: Path) -> None:
    takes, empty = places(client, "takes", "empty")
    body = {"input": takes, "output": empty, "into": "done", "model": "tiny", "amount": 0.5}
    done = ended(client, client.post("/api/batches", json=body).json())
    assert done["state"] == "done"
    rows = done["told"]["rows"]
    assert [row["state"] for row in rows] == ["failed", *["done"] * 4]
    assert {path.name for path in (root / "empty" / "done").glob("*.wav")} == {
        f"takes{n}.wav" for n in range(4)
    }
    for which in ("input", "output"):
        assert client.get(f"/api/jobs/{done['id']}/files/1/{which}").status_code == 200
    for missing in ("0/output", "9/input", "1/recipe"):
        assert client.get(f"/api/jobs/{done['id']}/files/{missing}").status_code == 404
    again = ended(client, client.post("/api/batches", json=body).json())
    assert {row["state"] for row in again["told"]["rows"]} == {"failed"}
    assert "exists" in again["told"]["rows"][1]["error"]


@pytest.mark.parametrize("into", ["../out", "a/b", ".hidden"])
def test_a_new_folder_has_a_plain_name(client: TestClient, into: str) -> None:
    takes, empty = places(client, "takes", "empty")
    body = {"input": takes, "output": empty, "into": into, "model": "tiny"}
    answer = client.post("/api/batches", json=body)
    assert answer.status_code == 400
    assert "no plain name" in answer.json()["error"]


def test_a_job_is_cancelled(client: TestClient, take: Path) -> None:
    session = opened(client, take)
    asked = {"force": True, "steps": 200}
    job = client.post(f"/api/sessions/{session['id']}/enhance", json=asked).json()
    client.delete(f"/api/jobs/{job['id']}")
    assert ended(client, job)["state"] == "cancelled"
    assert client.get(f"/api/sessions/{session['id']}/state").json()["found"] is None
    assert client.get("/api/jobs/none").status_code == 404
