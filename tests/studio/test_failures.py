"""Failures: a killed server, a full disk, a clock that is set back."""

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

from tests.studio.conftest import upload_recording
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
    """Limit every file to a number of bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def add_session(database: SessionDatabase) -> str:
    name, folder = database.create_session_folder()
    (folder / "upload.wav").write_bytes(b"sound")
    database.add_session(name, "a", SOUND, "cello")
    return name


def leave_files(database: SessionDatabase, name: str) -> list[Path]:
    """Create the files that a killed server leaves, and return their paths."""
    _, half = database.create_session_folder()  # an incomplete upload
    (half / "upload.wav").write_bytes(b"so")
    session = database.folder / "sessions" / name
    left = [session / "taken-0-0.wav", session / "part-1.i16", session / ".tonewood-0123456789abcdef.npy"]
    left.append(database.models_folder / ".tonewood-0123456789abcdef.tonewood")
    for path in left:
        path.write_bytes(b"half")
    return [half, *left]


def test_leftovers_of_killed_server_are_removed_at_start(tmp_path: Path) -> None:
    database = SessionDatabase(tmp_path)
    name = add_session(database)
    left = leave_files(database, name)
    for path in left:
        os.utime(path, (2**33, 2**33))  # by a clock that was set back later
    database.close()
    again = SessionDatabase(tmp_path)
    assert [path for path in left if path.exists()] == []
    assert [item.id for item in again.list_sessions()] == [name]
    assert (tmp_path / "sessions" / name / "upload.wav").read_bytes() == b"sound"
    again.close()


def test_files_of_another_server_stay(tmp_path: Path) -> None:
    first = SessionDatabase(tmp_path)
    name = add_session(first)
    left = [path for path in leave_files(first, name) if not path.name.startswith(".")]
    second = SessionDatabase(tmp_path)
    assert all(path.exists() for path in left)
    other = add_session(second)
    assert {item.id for item in first.list_sessions()} == {name, other}
    first.close()
    third = SessionDatabase(tmp_path)  # the second still runs
    assert all(path.exists() for path in left)
    second.close()
    third.close()
    SessionDatabase(tmp_path).close()
    assert not any(path.exists() for path in left)


def test_full_disk_is_reported_and_upload_removed(
    client: TestClient, studio_state: StudioState, take: Path
) -> None:
    session = upload_recording(client, take)
    base = f"/api/sessions/{session['id']}"
    before = client.get(f"{base}/state").json()
    existing = sorted(path.name for path in (studio_state.database.folder / "sessions").iterdir())
    log = studio_state.database.folder / "studio.db-wal"
    with full(log.stat().st_size):
        answer = client.put(f"{base}/edit", json={"amount": 0.25})
        search = client.post(f"{base}/enhance", json={"steps": 0})
        upload = client.post("/api/recordings?name=a.wav", content=take.read_bytes())
    for item in (answer, search, upload):
        assert item.status_code == 507, item.text
    assert "cannot be stored" in answer.json()["error"]
    assert client.get(f"{base}/state").json() == before
    assert sorted(path.name for path in (studio_state.database.folder / "sessions").iterdir()) == existing
    assert client.put(f"{base}/edit", json={"amount": 0.25}).json()["edit"]["amount"] == 0.25
    assert [job for job in studio_state.jobs.active.values() if job.session == session["id"]] == []


@pytest.mark.parametrize("share", [0.3, 1.05, 1.2])
def test_disk_that_fills_during_decoding_is_reported(
    client: TestClient, studio_state: StudioState, take: Path, share: float
) -> None:
    content = take.read_bytes()  # of 24 bits; decoded it has 32
    existing = sorted(path.name for path in (studio_state.database.folder / "sessions").iterdir())
    with full(int(share * len(content))):
        answer = client.post("/api/recordings?name=a.wav", content=content)
    assert answer.status_code == 507, answer.text
    assert "disk is full" in answer.json()["error"]
    assert sorted(path.name for path in (studio_state.database.folder / "sessions").iterdir()) == existing


@pytest.mark.parametrize("most", [50, 1_000, 300_000])
def test_disk_that_fills_during_array_write_is_reported(tmp_path: Path, most: int) -> None:
    path, array = tmp_path / "whole.npy", np.arange(200_000, dtype=np.float32).reshape(2, -1)
    with full(most), pytest.raises(OutputError, match="the disk is full"):
        save_array(path, array)
    assert list(tmp_path.iterdir()) == []
    for order in (array, np.asfortranarray(array), array[:, ::3]):
        save_array(path, order)
        assert np.array_equal(np.load(path, mmap_mode="r"), order)


def test_session_file_is_written_with_clock_before_1980(
    client: TestClient, studio_state: StudioState, take: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = upload_recording(client, take)
    now = [40_000_000.0]

    def back() -> float:
        now[0] -= 3_600
        return now[0]

    for path in (studio_state.database.folder / "sessions" / session["id"]).iterdir():
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
    reported: dict[str, Any] = answer.json()
    return reported


def test_import_of_wrong_model_leaves_no_file(studio_state: StudioState, model_file: Path) -> None:
    before = sorted(studio_state.database.models_folder.iterdir())
    with pytest.raises(ModelError, match="another model than the one it names"):
        studio_state.models.import_model(model_file.read_bytes(), "another", "0" * 64)
    assert sorted(studio_state.database.models_folder.iterdir()) == before
