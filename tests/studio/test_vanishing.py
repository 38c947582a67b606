"""Sessions that are forgotten, and clients that go, while something is done for them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.studio.conftest import opened
from tonewood.studio import job_queue, routes_media
from tonewood.studio.app import create_secure_studio_app, create_studio_app
from tonewood.studio.database import StudioJob
from tonewood.studio.state import StudioState


def test_forgotten_while_it_is_drawn(
    client: TestClient, desk: StudioState, take: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(client, take)
    drawn = routes_media._cached_spectrogram_tile.__wrapped__

    def slow(*given: Any) -> Any:
        desk.database.delete_session(session["id"])
        return drawn(*given)

    monkeypatch.setattr(routes_media, "_cached_spectrogram_tile", slow)
    answer = client.get(f"/api/sessions/{session['id']}/tiles/input/mel/0/0")
    assert answer.status_code == 404
    assert "no such session" in answer.json()["error"]


def test_forgotten_before_it_is_sent(
    client: TestClient, desk: StudioState, take: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(client, take)
    found = desk.database.get_session

    def forgotten(name: str) -> Any:
        known = found(name)
        monkeypatch.undo()
        desk.database.delete_session(name)
        return known

    monkeypatch.setattr(desk.database, "get_session", forgotten)
    answer = client.get(f"/api/sessions/{session['id']}/audio/input")
    assert answer.status_code == 404


def test_a_file_that_is_missing_though_its_session_is_there_is_our_fault(
    client: TestClient, desk: StudioState, take: Path
) -> None:
    session = opened(client, take)
    for path in (desk.database.folder / "sessions" / session["id"]).iterdir():
        path.unlink()
    frank = TestClient(
        create_secure_studio_app(desk),
        base_url="http://127.0.0.1:8765",
        raise_server_exceptions=False,
    )
    for path in ("audio/input", "waveform"):
        answer = frank.get(f"/api/sessions/{session['id']}/{path}")
        assert answer.status_code == 500
        assert "in Tonewood itself" in answer.json()["error"]
    client.delete(f"/api/sessions/{session['id']}")


def test_an_upload_that_breaks_off_leaves_nothing_and_no_fault(client: TestClient, desk: StudioState) -> None:
    folder = desk.database.folder / "sessions"
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
    asyncio.run(create_studio_app(desk)(scope, receive, send))
    assert sorted(folder.iterdir()) == before


def test_a_new_folder_has_a_plain_name(client: TestClient) -> None:
    home = client.get("/api/places").json()
    places = {it["name"]: it["id"] for it in home["folders"]}
    for name in ("a\0b", "a\nb", "..", "a/b", "/tmp/a", ".hidden"):
        asked = {"input": places["takes"], "output": home["id"], "model": "cello", "into": name}
        answer = client.post("/api/batches", json=asked)
        assert answer.status_code == 400, name
        assert "is no plain name" in answer.json()["error"]


@pytest.mark.parametrize("route", ["sound/input?start=0&stop=9&", "tiles/mask/log/0/0?"])
@pytest.mark.parametrize("number", [2**53, 2**63, 2**64, 10**30])
def test_an_edit_beyond_all_numbers(
    client: TestClient, session: dict[str, Any], route: str, number: int
) -> None:
    answer = client.get(f"/api/sessions/{session['id']}/{route}edit={number}")
    assert answer.status_code in (404, 422)


class _Undying:
    """A process that takes its time to end."""

    exitcode = None

    def kill(self) -> None: ...

    def join(self, seconds: float) -> None: ...

    def close(self) -> None:
        raise ValueError("Cannot close a process while it is still running")


def test_a_lane_outlives_a_process_that_does_not_end_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[StudioJob] = []
    lane = job_queue._WorkerQueue("test", told.append, lambda job: None)
    lane.process = _Undying()
    lane._kill()
    assert lane.process is None

    def work(job: StudioJob) -> Any:
        raise KeyError("what nobody foresaw")

    monkeypatch.setattr(lane, "_work", work)
    ones = [StudioJob(str(k), None, "whole", "queued", {}, {}, 0.0) for k in range(2)]
    for job in ones:
        lane.pending.put(job)
    lane.pending.put(None)
    lane.thread.join(20)
    assert [job.state for job in ones] == ["failed", "failed"]
    assert "in Tonewood itself" in ones[1].progress["error"]
