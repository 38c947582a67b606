"""Masks of their own for mid and side, or for each channel, in the studio."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from tests.studio.conftest import NOTE, change_edit, decode_samples, upload_recording, wait_for_job
from tonewood.enhancement.reapply import render_recipe
from tonewood.setting_types import ChannelLink
from tonewood.studio.session_masks import load_found_masks
from tonewood.studio.state import StudioState


@pytest.fixture(params=[("mid-side", ["mid", "side"]), ("off", ["0", "1"])], ids=["mid-side", "off"])
def separate(
    request: pytest.FixtureRequest, client: TestClient, take: Path
) -> tuple[dict[str, Any], ChannelLink]:
    """Upload a stereo recording and find separate masks."""
    link, names = request.param
    session = upload_recording(client, take)
    options = {"force": True, "steps": 2, "link": link}
    job = client.post(f"/api/sessions/{session['id']}/enhance", json=options).json()
    assert wait_for_job(client, job)["state"] == "done"
    state = client.get(f"/api/sessions/{session['id']}/state").json()
    assert (state["link"], state["components"]) == (link, names)
    return session, link


def test_separate_masks_are_heard_drawn_and_exported(
    client: TestClient, separate: tuple[dict[str, Any], ChannelLink], take: Path, tmp_path: Path
) -> None:
    session, _ = separate
    base = f"/api/sessions/{session['id']}"
    state = change_edit(client, session, amount=0.8, notes=[{**NOTE, "seconds": 3.0}])

    def heard() -> np.ndarray:
        return decode_samples(client.get(f"{base}/sound/output?start=40000&stop=60000"))

    # A range that is rendered alone is that of the whole, but for the estimated loudness.
    before = heard()
    wait_for_job(client, client.post(f"{base}/whole").json())
    after = heard()
    gain = np.vdot(before, after) / np.vdot(before, before)
    np.testing.assert_allclose(gain * before, after, atol=1e-4)
    assert abs(20 * np.log10(gain)) < 1

    # Each component has its own levels and gains.
    for kind in ("input", "mask", "output"):
        path = f"{base}/tiles/{kind}/log/3/0?key={state['key']}"
        tiles = [client.get(f"{path}&component={name}").content for name in state["components"]]
        assert tiles[0] != tiles[1], kind
    other = "side" if state["components"] == ["0", "1"] else "1"
    assert client.get(f"{base}/tiles/mask/log/3/0?component={other}").status_code == 204

    # The recipe has all masks; one equaliser cannot stand for them.
    recipe = tmp_path / "take.wav.recipe.json"
    recipe.write_bytes(client.get(f"{base}/take/recipe").content)
    render_recipe(recipe, take, tmp_path / "again.wav")
    expected, _ = soundfile.read(io.BytesIO(client.get(f"{base}/take/audio?format=wav").content))
    np.testing.assert_allclose(soundfile.read(tmp_path / "again.wav")[0], expected, atol=1e-4)
    refused = client.get(f"{base}/take/equaliser/apo")
    assert refused.status_code == 400
    assert "separate masks" in refused.json()["error"]

    # A session file brings them back.
    archive = client.get(f"{base}/take/session").content
    copy = client.post("/api/recordings?name=take.tonewood-session", content=archive).json()
    assert copy["state"]["components"] == state["components"]


def test_new_search_keeps_each_mask_under_a_pinned_note(
    client: TestClient, studio_state: StudioState, separate: tuple[dict[str, Any], ChannelLink]
) -> None:
    session, link = separate
    base = f"/api/sessions/{session['id']}"
    change_edit(client, session, notes=[{**NOTE, "seconds": 3.0, "width_s": 2.0, "pinned": True}])

    def masks() -> tuple[Any, ...]:
        stored, state = studio_state.session_and_state(session["id"])
        return load_found_masks(stored, state, studio_state.model_for_edit(stored, state))

    before = masks()
    options = {"force": True, "steps": 2, "link": link, "keep": "pinned"}
    assert wait_for_job(client, client.post(f"{base}/again", json=options).json())["state"] == "done"
    after = masks()
    at = np.array([NOTE["hz"]]), np.array([3.0])
    for old, new in zip(before, after, strict=True):
        assert new.gain_at(*at)[0, 0] == pytest.approx(old.gain_at(*at)[0, 0], abs=0.1)
    # One mask for all again.
    options["link"] = "all"
    assert wait_for_job(client, client.post(f"{base}/again", json=options).json())["state"] == "done"
    assert len(masks()) == 1
    assert client.get(f"{base}/state").json()["components"] == []


def test_mono_recording_has_one_mask_and_mid_of_three_channels_is_refused(
    client: TestClient, tmp_path: Path, rng: np.random.Generator
) -> None:
    answers = []
    for channels in (1, 3):
        path = tmp_path / f"take{channels}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal((32_000, channels)), 16_000)
        session = upload_recording(client, path)
        options = {"force": True, "steps": 0, "link": "mid-side"}
        answers.append((session, client.post(f"/api/sessions/{session['id']}/enhance", json=options)))
    (mono, started), (_, refused) = answers
    assert wait_for_job(client, started.json())["state"] == "done"
    assert client.get(f"/api/sessions/{mono['id']}/state").json()["components"] == []
    assert refused.status_code == 400
    assert "mid and side need 2" in refused.json()["error"]
