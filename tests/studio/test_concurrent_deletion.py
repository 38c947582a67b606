"""Sessions that are deleted, and clients that disconnect, during a request."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.studio.conftest import upload_recording
from tonewood.studio import job_queue, routes_media
from tonewood.studio.app import create_secure_studio_app, create_studio_app
from tonewood.studio.database import StudioJob
from tonewood.studio.state import StudioState


def test_session_deleted_during_tile_gives_404(
    client: TestClient, studio_state: StudioState, take: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = upload_recording(client, take)
    drawn = routes_media._cached_spectrogram_tile.__wrapped__

    def slow(*values: Any) -> Any:
        studio_state.database.delete_session(session["id"])
        return drawn(*values)

    monkeypatch.setattr(routes_media, "_cached_spectrogram_tile", slow)
    answer = client.get(f"/api/sessions/{session['id']}/tiles/input/mel/0/0")
    assert answer.status_code == 404
    assert "session does not exist" in answer.json()["error"]


def test_session_deleted_before_sending_gives_404(
    client: TestClient, studio_state: StudioState, take: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = upload_recording(client, take)
    get_session = studio_state.database.get_session

    def forgotten(name: str) -> Any:
        known = get_session(name)
        monkeypatch.undo()
        studio_state.database.delete_session(name)
        return known

    monkeypatch.setattr(studio_state.database, "get_session", forgotten)
    answer = client.get(f"/api/sessions/{session['id']}/audio/input")
    assert answer.status_code == 404


def test_missing_file_of_existing_session_is_an_internal_error(
    client: TestClient, studio_state: StudioState, take: Path
) -> None:
    session = upload_recording(client, take)
    for path in (studio_state.database.folder / "sessions" / session["id"]).iterdir():
        path.unlink()
    outside_client = TestClient(
        create_secure_studio_app(studio_state),
        base_url="http://127.0.0.1:8765",
        raise_server_exceptions=False,
    )
    for path in ("audio/input", "waveform"):
        answer = outside_client.get(f"/api/sessions/{session['id']}/{path}")
        assert answer.status_code == 500
        assert "internal error in Tonewood" in answer.json()["error"]
    client.delete(f"/api/sessions/{session['id']}")


def test_aborted_upload_is_removed_without_error(client: TestClient, studio_state: StudioState) -> None:
    folder = studio_state.database.folder / "sessions"
    before = sorted(folder.iterdir())
    coming = iter([
        {"type": "http.request", "body": b"RIFF" * 100, "more_body": True},
        {"type": "http.disconnect"},
    ])  # fmt: skip

    async def receive() -> Any:
        return next(coming)

    async def send(message: Any) -> None:
        assert message.get("status") != 500

    scope = {
        "type": "http", "method": "POST", "path": "/api/recordings", "query_string": b"name=a.wav",
        "headers": [(b"host", b"localhost")], "http_version": "1.1", "scheme": "http",
        "app": None, "root_path": "",
    }  # fmt: skip
    asyncio.run(create_studio_app(studio_state)(scope, receive, send))
    assert sorted(folder.iterdir()) == before


def test_new_folder_needs_a_plain_name(client: TestClient) -> None:
    home = client.get("/api/places").json()
    places = {item["name"]: item["id"] for item in home["folders"]}
    for name in ("a\0b", "a\nb", "..", "a/b", "/tmp/a", ".hidden"):
        request = {"input": places["takes"], "output": home["id"], "model": "cello", "into": name}
        answer = client.post("/api/batches", json=request)
        assert answer.status_code == 400, name
        assert "is not a plain folder name" in answer.json()["error"]


@pytest.mark.parametrize("route", ["sound/input?start=0&stop=9&", "tiles/mask/log/0/0?"])
@pytest.mark.parametrize("number", [2**53, 2**63, 2**64, 10**30])
def test_huge_edit_number_is_rejected(
    client: TestClient, session: dict[str, Any], route: str, number: int
) -> None:
    answer = client.get(f"/api/sessions/{session['id']}/{route}edit={number}")
    assert answer.status_code in (404, 422)


class _Undying:
    """A process that is still running after kill and join."""

    exitcode = None

    def kill(self) -> None: ...

    def join(self, seconds: float) -> None: ...

    def close(self) -> None:
        raise ValueError("Cannot close a process while it is still running")


def test_queue_survives_a_slow_process_and_unexpected_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[StudioJob] = []
    worker_queue = job_queue._WorkerQueue("test", reported.append, lambda job: None)
    worker_queue.process = _Undying()
    worker_queue._kill()
    assert worker_queue.process is None

    def work(job: StudioJob) -> Any:
        raise KeyError("what nobody foresaw")

    monkeypatch.setattr(worker_queue, "_execute", work)
    jobs = [StudioJob(str(k), None, "whole", "queued", {}, {}, 0.0) for k in range(2)]
    for job in jobs:
        worker_queue.pending.put(job)
    worker_queue.pending.put(None)
    worker_queue.thread.join(20)
    assert [job.state for job in jobs] == ["failed", "failed"]
    assert "internal error in Tonewood" in jobs[1].progress["error"]
