"""Tiles, curves, saliency and samples of a session."""

import io
import json
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from tests.studio.conftest import NOTE, change_edit, decode_samples, wait_for_job
from tonewood.studio.session_masks import load_found_masks, mask_path
from tonewood.studio.state import StudioState
from tonewood.studio.tiles import TILE_COLUMNS, TILE_ROWS


def test_tiles_show_the_recording_at_each_zoom_level(client: TestClient, session: dict[str, Any]) -> None:
    for axis in ("log", "mel"):
        for level in (0, 3, 9):
            answer = client.get(f"/api/sessions/{session['id']}/tiles/input/{axis}/{level}/0")
            tile = np.frombuffer(answer.content, np.uint8).reshape(TILE_ROWS, TILE_COLUMNS)
            assert tile.max() > 60
            assert "immutable" in answer.headers["cache-control"]
    beyond = client.get(f"/api/sessions/{session['id']}/tiles/input/log/0/900")
    assert not np.frombuffer(beyond.content, np.uint8).any()


@pytest.mark.parametrize("place", ["log/99/0", "log/0/-1", "bark/0/0", "log/x/0"])
def test_invalid_tile_address_is_rejected(client: TestClient, session: dict[str, Any], place: str) -> None:
    answer = client.get(f"/api/sessions/{session['id']}/tiles/input/{place}")
    assert answer.status_code == 422
    assert "error" in answer.json()


def test_note_appears_at_its_place_in_mask_tile(client: TestClient, session: dict[str, Any]) -> None:
    def tile() -> np.ndarray:
        answer = client.get(f"/api/sessions/{session['id']}/tiles/mask/log/3/0")
        return np.frombuffer(answer.content, np.uint8).reshape(TILE_ROWS, TILE_COLUMNS).astype(int)

    before = tile()
    change_edit(client, session, notes=[NOTE])
    difference = tile() - before
    row, column = np.unravel_index(difference.argmax(), difference.shape)
    hz = 40 * (8_000 / 40) ** (row / (TILE_ROWS - 1))
    assert 600 <= hz <= 1_200
    assert 1.5 <= (column + 0.5) * 0.0025 * 8 <= 2.5
    assert abs(difference.max() - 4 * 9) <= 1  # in quarter-decibels, both rounded
    assert np.abs(difference[:, : int(1.2 / 0.02)]).max() <= 1
    client.post(f"/api/sessions/{session['id']}/undo")


def test_mask_tile_of_a_cancelled_search_is_empty(client: TestClient, session: dict[str, Any]) -> None:
    """The page may ask for a part of a search in the moment in which it is cancelled."""
    base = f"/api/sessions/{session['id']}"
    assert client.get(f"{base}/tiles/mask/log/3/0?found=99").status_code == 204
    assert client.get(f"{base}/filter?found=99").status_code == 404


def test_output_tile_is_empty_until_the_edit_is_rendered(client: TestClient, session: dict[str, Any]) -> None:
    base = f"/api/sessions/{session['id']}"

    def answer_to(key: str) -> int:
        return client.get(f"{base}/tiles/output/log/3/0?key={key}").status_code

    before = client.get(f"{base}/state").json()["key"]
    after = change_edit(client, session, notes=[{**NOTE, "gain_db": -7.5}])["key"]
    assert (answer_to(before), answer_to(after)) == (204, 204)
    client.post(f"{base}/undo")


def test_waveform_and_average_eq(client: TestClient, session: dict[str, Any]) -> None:
    peaks = client.get(f"/api/sessions/{session['id']}/waveform").json()["peaks"]
    assert 0.1 < max(peaks) <= 1
    curve = client.get(f"/api/sessions/{session['id']}/curve?axis=mel").json()
    assert all(a <= b for a, b in zip(curve["low"], curve["high"], strict=True))
    assert max(map(abs, curve["mean"])) > 0.5


def test_saliency_is_computed_on_request(client: TestClient, session: dict[str, Any]) -> None:
    path = f"/api/sessions/{session['id']}/tiles/saliency/log/3/0"
    assert client.get(path).status_code == 404
    job = client.post(f"/api/sessions/{session['id']}/explain").json()
    assert wait_for_job(client, job)["state"] == "done"
    tile = np.frombuffer(client.get(path).content, np.uint8)
    assert tile.min() < 120 or tile.max() > 136
    saliency = client.get(f"/api/sessions/{session['id']}").json()["saliency"]
    assert saliency["reach"] > 0


def test_played_range_equals_downloaded_file(client: TestClient, session: dict[str, Any]) -> None:
    change_edit(client, session, amount=0.6, notes=[NOTE])
    base = f"/api/sessions/{session['id']}"
    early = decode_samples(client.get(f"{base}/sound/output?start=20000&stop=24000"))
    estimated = json.loads(client.get(f"{base}/sound/output?start=0&stop=9").headers["x-levels"])
    download = client.get(f"{base}/take/audio?format=wav")
    assert "take-enhanced.wav" in download.headers["content-disposition"]
    whole, rate = soundfile.read(io.BytesIO(download.content), always_2d=True, dtype="float32")
    assert (rate, whole.shape) == (16_000, (96_000, 2))
    late = client.get(f"{base}/sound/output?start=20000&stop=24000")
    levels = json.loads(late.headers["x-levels"])
    assert levels["exact"]
    np.testing.assert_allclose(decode_samples(late), whole[20_000:24_000].T, atol=2**-23)
    # Before the full rendering only the level differs, which is estimated.
    assert not estimated["exact"]
    assert abs(estimated["output_db"] - levels["output_db"]) < 0.5
    gain = 10 ** ((levels["output_db"] - estimated["output_db"]) / 20)
    np.testing.assert_allclose(early * gain, decode_samples(late), atol=1e-4)


def test_lost_mask_is_an_error_and_not_silence(session: dict[str, Any], studio_state: StudioState) -> None:
    stored, current = studio_state.session_and_state(session["id"])
    assert current.mask_number is not None
    path = mask_path(stored.folder, current.mask_number)
    aside = path.rename(path.with_suffix(".aside"))
    try:
        with pytest.raises(FileNotFoundError):
            load_found_masks(stored, current, studio_state.model_for_edit(stored, current))[0]
    finally:
        aside.rename(path)


def test_filter_of_the_page_has_the_mask_and_the_levels(
    client: TestClient, session: dict[str, Any], studio_state: StudioState
) -> None:
    base = f"/api/sessions/{session['id']}"
    state = change_edit(client, session, amount=0.5, notes=[NOTE])
    grid = client.get(f"{base}/filter").json()
    assert (grid["window"], grid["hop"], grid["fft"]) == (480, 160, 960)
    chunks = [
        np.frombuffer(client.get(f"{base}/filter/{number}?found={grid['found']}").content, "<i2")
        for number in range(2)
    ]
    steps = np.concatenate(chunks).reshape(-1, len(grid["row_hz"]))
    stored, current = studio_state.session_and_state(session["id"])
    mask = load_found_masks(stored, current, studio_state.model_for_edit(stored, current))[0]
    np.testing.assert_allclose(steps.T * grid["step_db"], mask.gain_db, atol=1e-5)
    for wrong in (f"2?found={grid['found']}", "0?found=99"):
        assert client.get(f"{base}/filter/{wrong}").status_code == 404
    table = client.post(f"{base}/levels", json=state["edit"]).json()
    at = dict(zip(table["amounts"], table["levels"], strict=True))
    assert list(at) == sorted(at)
    assert at[0.5]["output_db"] == pytest.approx(state["levels"]["output_db"])
    assert at[0.0]["output_db"] == 0
    client.post(f"{base}/undo")


def test_zero_amount_returns_the_recording(client: TestClient, session: dict[str, Any]) -> None:
    base = f"/api/sessions/{session['id']}/sound"
    untouched = decode_samples(client.get(f"{base}/input?start=100&stop=900"))
    np.testing.assert_array_equal(
        decode_samples(client.get(f"{base}/output?start=100&stop=900&amount=0")), untouched
    )


@pytest.mark.parametrize("query", ["start=5&stop=5", "start=0&stop=9999999", "start=999999&stop=9999999"])
def test_invalid_sample_range_is_rejected(client: TestClient, session: dict[str, Any], query: str) -> None:
    answer = client.get(f"/api/sessions/{session['id']}/sound/output?{query}")
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert "not a valid range" in answer.json()["error"]
    else:  # cut to the recording
        assert decode_samples(answer).shape[1] == 96_000


def test_audio_supports_range_requests(client: TestClient, session: dict[str, Any]) -> None:
    for which in ("input", "output"):
        path = f"/api/sessions/{session['id']}/audio/{which}"
        part = client.get(path, headers={"range": "bytes=100-199"})
        assert part.status_code == 206
        assert part.content == client.get(path).content[100:200]
