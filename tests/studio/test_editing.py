"""Edits, undo, searches that keep notes, and the certificate in a session's state."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from tests.studio.conftest import NOTE, change_edit, upload_recording, wait_for_job
from tonewood.studio.session_audio import save_band_power
from tonewood.studio.state import StudioState


def test_undo_and_redo_go_through_all_edits(client: TestClient, take: Path) -> None:
    session = upload_recording(client, take)
    base = f"/api/sessions/{session['id']}"
    change_edit(client, session, amount=0.5)
    last = change_edit(client, session, notes=[NOTE])
    assert (last["undo"], last["redo"]) == (True, False)
    assert client.post(f"{base}/undo").json()["edit"]["notes"] == []
    first = client.post(f"{base}/undo").json()
    assert (first["edit"]["amount"], first["undo"], first["redo"]) == (1.0, False, True)
    assert client.post(f"{base}/undo").json() == first
    assert client.post(f"{base}/redo").json()["edit"]["amount"] == 0.5
    change_edit(client, session, amount=0.25)
    assert not client.get(f"{base}/state").json()["redo"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": 2.5},
        {"amount": "loud"},
        {"notes": [{**NOTE, "gain_db": 99}]},
        {"notes": [{**NOTE, "id": "../x"}]},
        {"notes": [{**NOTE, "seconds": float("1e99")}]},
        {"notes": [{**NOTE, "id": f"n{n}"} for n in range(201)]},
        {"areas": [{"id": "a", "amount": 3}]},
        {"colour": "red"},
        {"curve": {"points": [[200, 1], [100, 2]]}},
        {"curve": {"points": [[n + 1, 0] for n in range(501)]}},
    ],
)
def test_invalid_edit_is_rejected(client: TestClient, session: dict[str, Any], wrong: dict[str, Any]) -> None:
    answer = client.put(f"/api/sessions/{session['id']}/edit", json=wrong)
    assert answer.status_code == 422
    assert "\n" not in answer.json()["error"]


def test_curve_files_are_read_or_refused_in_one_line(client: TestClient) -> None:
    def read(content: bytes) -> Any:
        return client.post("/api/curves", params={"name": "house.csv"}, content=content)

    expected = {"points": [[30.0, 6.0], [2_000.0, -1.5]], "replaces_static": False}
    assert read(b"hz,dB\n30,6\n2000,-1.5\n").json() == expected
    long = "\n".join(f"{20 + n},1" for n in range(3_000))
    assert len(read(long.encode()).json()["points"]) == 500
    refused = [b"", b"no curve\n", b"20,90\n30,90\n", b"20,1\n" * 250_000]
    for content in refused:
        answer = read(content)
        assert answer.status_code in (400, 413)
        assert "\n" not in answer.json()["error"]


def test_new_search_keeps_pinned_notes(client: TestClient, session: dict[str, Any]) -> None:
    base = f"/api/sessions/{session['id']}"
    pinned = {**NOTE, "id": "kept", "pinned": True}
    before = change_edit(client, session, amount=1.0, notes=[pinned, {**NOTE, "id": "gone", "hz": 3_000}])
    job = client.post(f"{base}/again", json={"force": True, "steps": 2}).json()
    assert wait_for_job(client, job)["state"] == "done"
    after = client.get(f"{base}/state").json()
    assert [note["id"] for note in after["edit"]["notes"]] == ["kept"]
    assert after["found"] != before["found"]
    back = client.post(f"{base}/undo").json()
    assert len(back["edit"]["notes"]) == 2
    assert back["found"] == before["found"]


def test_new_search_without_a_mask_is_rejected(client: TestClient, take: Path) -> None:
    session = upload_recording(client, take)
    answer = client.post(f"/api/sessions/{session['id']}/again", json={})
    assert answer.status_code == 400
    assert "enhance the recording first" in answer.json()["error"]
    for what in ("recipe", "certificate"):
        assert client.get(f"/api/sessions/{session['id']}/take/{what}").status_code == 400


def test_notes_are_audible_without_a_search(client: TestClient, take: Path) -> None:
    session = upload_recording(client, take)
    change_edit(client, session, notes=[NOTE])
    download = client.get(f"/api/sessions/{session['id']}/take/audio?format=wav")
    whole, _ = soundfile.read(io.BytesIO(download.content), always_2d=True)
    before, _ = soundfile.read(take, always_2d=True)
    assert np.abs(whole - before).max() > 0.01


def test_chosen_model_applies_to_next_search(client: TestClient, session: dict[str, Any]) -> None:
    path = f"/api/sessions/{session['id']}/model"
    assert client.put(path, json={"model": "cello"}).json()["state"]["model"] == "tiny"
    assert client.put(path, json={"model": "../../x"}).status_code == 400
    client.put(path, json={"model": "tiny"})


def test_cancelled_search_leaves_session_unchanged(
    client: TestClient, take: Path, studio_state: StudioState
) -> None:
    session = upload_recording(client, take)
    rng = np.random.default_rng(0)
    hz = np.array([100.0, 1_000.0])
    # What a search leaves behind that was cancelled, or killed, before it found anything.
    save_band_power(
        studio_state.database.get_session(session["id"]).folder,
        rng.normal(size=(2, 600)).astype(np.float32),
        hz,
    )
    levels = client.get(f"/api/sessions/{session['id']}/state").json()["levels"]
    assert (levels["input_db"], levels["difference_db"], levels["output_db"]) == (0, 0, 0)


def test_state_contains_certificate_lines(client: TestClient, session: dict[str, Any]) -> None:
    certificate = session["state"]["certificate"]
    assert certificate["current"]
    titles = {item["title"] for item in certificate["statements"]}
    assert {"Match score", "Second opinion", "Smoothness", "Distance to the reference"} <= titles
    assert set(certificate["scorer"]) == {"before", "after"}


def test_state_reports_missing_model_of_mask(
    client: TestClient, session: dict[str, Any], studio_state: StudioState, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = f"/api/sessions/{session['id']}"
    assert client.get(f"{base}/state").json()["lost"] is False
    monkeypatch.setattr(studio_state.models, "find_by_digest", lambda digest: None)
    state = client.get(f"{base}/state").json()
    assert state["lost"] is True
    assert state["model"] == "tiny"


def test_edit_of_another_page_is_not_replaced(client: TestClient, session: dict[str, Any]) -> None:
    base = f"/api/sessions/{session['id']}"
    old = client.get(f"{base}/state").json()
    change_edit(client, session, amount=0.31)
    refused = client.put(
        f"{base}/edit", json={**old["edit"], "amount": 0.9}, headers={"If-Match": old["key"]}
    )
    assert refused.status_code == 412
    now = client.get(f"{base}/state").json()
    assert now["edit"]["amount"] == 0.31
    kept = client.put(f"{base}/edit", json={**now["edit"], "amount": 0.9}, headers={"If-Match": now["key"]})
    assert kept.json()["edit"]["amount"] == 0.9


@pytest.mark.parametrize(("keep", "left"), [("all", ["a", "b"]), ("none", [])])
def test_new_search_keeps_the_notes_that_were_chosen(
    client: TestClient, session: dict[str, Any], keep: str, left: list[str]
) -> None:
    base = f"/api/sessions/{session['id']}"
    notes = [{**NOTE, "id": "a", "pinned": True}, {**NOTE, "id": "b", "hz": 3_000}]
    change_edit(client, session, amount=1.0, notes=notes)
    job = client.post(f"{base}/again", json={"force": True, "steps": 1, "keep": keep}).json()
    assert wait_for_job(client, job)["state"] == "done"
    after = client.get(f"{base}/state").json()["edit"]["notes"]
    assert [(note["id"], note["pinned"]) for note in after] == [
        (note["id"], note.get("pinned", False)) for note in notes if note["id"] in left
    ]


def test_session_is_renamed(client: TestClient, session: dict[str, Any]) -> None:
    base = f"/api/sessions/{session['id']}"
    assert client.put(f"{base}/title", json={"title": "  Suite, take 3 "}).json()["title"] == "Suite, take 3"
    assert client.put(f"{base}/title", json={"title": ""}).status_code == 422
    assert client.get(base).json()["title"] == "Suite, take 3"


def test_first_mask_starts_at_the_least_sufficient_amount(client: TestClient, take: Path) -> None:
    fresh = upload_recording(client, take)
    job = client.post(f"/api/sessions/{fresh['id']}/enhance", json={"steps": 1}).json()
    finished = wait_for_job(client, job)
    state = client.get(f"/api/sessions/{fresh['id']}/state").json()
    certificate = state["certificate"]
    expected = 0.0 if certificate["treatment"] == "unchanged" else finished["told"]["amount"]
    assert state["edit"]["amount"] == expected
    # Chosen amounts outlast a new search, but 0 % would have no effect.
    for amount, later in ((0.6, 0.6), (0.0, 1.0)):
        change_edit(client, fresh, amount=amount)
        job = client.post(f"/api/sessions/{fresh['id']}/enhance", json={"force": True, "steps": 1}).json()
        assert wait_for_job(client, job)["state"] == "done"
        assert client.get(f"/api/sessions/{fresh['id']}/state").json()["edit"]["amount"] == later
