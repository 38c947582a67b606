"""A studio whose server died, whose disk is full, whose clock went back; in this process."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.studio.conftest import opened
from tonewood.errors import ModelError, OutputError
from tonewood.studio.database import RecordingInfo, SessionDatabase
from tonewood.studio.state import StudioState
from tonewood.studio.uploads import save_array

SOUND = RecordingInfo(
    name="a", upload="upload.wav", encoding=("WAV", "PCM_16", "FILE"), sha256="0", rate=16_000,
    channels=1, samples=16_000, clipped=False,
)  # fmt: skip


@contextmanager
def full(most_bytes: int) -> Iterator[None]:
    """A disk that takes so many bytes of every file, and no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def entered(store: SessionDatabase) -> str:
    name, folder = store.create_session_folder()
    (folder / "upload.wav").write_bytes(b"sound")
    store.add_session(name, "a", SOUND, "cello")
    return name


def ruins(store: SessionDatabase, name: str) -> list[Path]:
    """What a server that is killed leaves."""
    _, half = store.create_session_folder()  # an upload that never came whole
    (half / "upload.wav").write_bytes(b"so")
    session = store.folder / "sessions" / name
    left = [session / "taken-0-0.wav", session / ".tonewood-0123456789abcdef.npy"]
    left.append(store.models_folder / ".tonewood-0123456789abcdef.tonewood")
    for path in left:
        path.write_bytes(b"half")
    return [half, *left]


def test_what_a_killed_server_left_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    store = SessionDatabase(tmp_path)
    name = entered(store)
    left = ruins(store, name)
    for path in left:
        os.utime(path, (2**33, 2**33))  # by a clock that has been set back since
    store.close()
    again = SessionDatabase(tmp_path)
    assert [path for path in left if path.exists()] == []
    assert [it.id for it in again.list_sessions()] == [name]
    assert (tmp_path / "sessions" / name / "upload.wav").read_bytes() == b"sound"
    again.close()


def test_what_another_server_works_on_stays(tmp_path: Path) -> None:
    first = SessionDatabase(tmp_path)
    name = entered(first)
    left = [path for path in ruins(first, name) if not path.name.startswith(".")]
    second = SessionDatabase(tmp_path)
    assert all(path.exists() for path in left)
    other = entered(second)
    assert {it.id for it in first.list_sessions()} == {name, other}
    first.close()
    third = SessionDatabase(tmp_path)  # the second still runs
    assert all(path.exists() for path in left)
    second.close()
    third.close()
    SessionDatabase(tmp_path).close()
    assert not any(path.exists() for path in left)


def test_a_full_disk_is_told_and_nothing_of_it_is_kept(
    client: TestClient, desk: StudioState, take: Path
) -> None:
    session = opened(client, take)
    base = f"/api/sessions/{session['id']}"
    before = client.get(f"{base}/state").json()
    there = sorted(path.name for path in (desk.database.folder / "sessions").iterdir())
    log = desk.database.folder / "studio.db-wal"
    with full(log.stat().st_size):
        answer = client.put(f"{base}/edit", json={"amount": 0.25})
        asked = client.post(f"{base}/enhance", json={"steps": 0})
        upload = client.post("/api/recordings?name=a.wav", content=take.read_bytes())
    for it in (answer, asked, upload):
        assert it.status_code == 507, it.text
    assert "cannot be kept" in answer.json()["error"]
    assert client.get(f"{base}/state").json() == before
    assert sorted(path.name for path in (desk.database.folder / "sessions").iterdir()) == there
    assert client.put(f"{base}/edit", json={"amount": 0.25}).json()["edit"]["amount"] == 0.25
    assert [job for job in desk.jobs.active.values() if job.session == session["id"]] == []


@pytest.mark.parametrize("share", [0.3, 1.05, 1.2])
def test_a_disk_that_is_full_in_the_middle_of_a_recording_is_told(
    client: TestClient, desk: StudioState, take: Path, share: float
) -> None:
    content = take.read_bytes()  # of 24 bits; decoded it has 32
    there = sorted(path.name for path in (desk.database.folder / "sessions").iterdir())
    with full(int(share * len(content))):
        answer = client.post("/api/recordings?name=a.wav", content=content)
    assert answer.status_code == 507, answer.text
    assert "disk is full" in answer.json()["error"]
    assert sorted(path.name for path in (desk.database.folder / "sessions").iterdir()) == there


@pytest.mark.parametrize("most", [50, 1_000, 300_000])
def test_a_disk_that_is_full_in_the_middle_of_an_array_is_told(tmp_path: Path, most: int) -> None:
    path, array = tmp_path / "whole.npy", np.arange(200_000, dtype=np.float32).reshape(2, -1)
    with full(most), pytest.raises(OutputError, match="the disk is full"):
        save_array(path, array)
    assert list(tmp_path.iterdir()) == []
    for order in (array, np.asfortranarray(array), array[:, ::3]):
        save_array(path, order)
        assert np.array_equal(np.load(path, mmap_mode="r"), order)


def test_a_session_is_taken_away_by_a_clock_before_1980(
    client: TestClient, desk: StudioState, take: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(client, take)
    now = [40_000_000.0]

    def back() -> float:
        now[0] -= 3_600
        return now[0]

    for path in (desk.database.folder / "sessions" / session["id"]).iterdir():
        os.utime(path, (1, 1))
    monkeypatch.setattr(time, "time", back)
    for amount in (0.3, 0.6):
        assert client.put(f"/api/sessions/{session['id']}/edit", json={"amount": amount}).is_success
    answer = client.get(f"/api/sessions/{session['id']}/take/session")
    assert answer.status_code == 200, answer.text
    copy = opened_again(client, answer.content)
    assert copy["state"]["edit"]["amount"] == 0.6
    undone = client.post(f"/api/sessions/{copy['id']}/undo").json()
    assert undone["edit"]["amount"] == 0.3


def opened_again(client: TestClient, content: bytes) -> dict[str, Any]:
    answer = client.post("/api/recordings?name=a.tonewood-session", content=content)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_model_that_is_not_the_one_named_leaves_nothing(desk: StudioState, model_file: Path) -> None:
    before = sorted(desk.database.models_folder.iterdir())
    with pytest.raises(ModelError, match="not the one that the session was made with"):
        desk.models.import_model(model_file.read_bytes(), "another", "0" * 64)
    assert sorted(desk.database.models_folder.iterdir()) == before
