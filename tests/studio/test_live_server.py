"""The studio in a process: events, many clients, disconnecting pages, restart after a kill."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.studio.conftest import EXAMPLE, Live, upload_recording, wait_for_job


@contextmanager
def events(live: Live, session: str) -> Iterator[Iterator[dict[str, Any]]]:
    """Yield the jobs that a session's page receives from now on."""
    with live.client() as client, client.stream("GET", f"/api/events?session={session}") as stream:
        lines = stream.iter_lines()
        assert next(lines) == ": hello"
        yield (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))


def test_search_reports_each_step(live: Live) -> None:
    jobs = []
    with live.client() as client:
        session = upload_recording(client, EXAMPLE)
        with events(live, session["id"]) as page:
            client.post(f"/api/sessions/{session['id']}/enhance", json={})
            for job in page:
                jobs.append(job)
                if job["state"] == "done":
                    break
    assert {job["state"] for job in jobs} <= {"queued", "running", "done"}
    counts = [len(job["told"].get("steps", [])) for job in jobs]
    assert counts == sorted(counts)
    assert set(counts) == set(range(counts[-1] + 1))  # none first, then one at a time
    scores = [step["score"] for step in jobs[-1]["told"]["steps"]]
    assert scores[-1] < scores[0]


def test_search_is_cancelled_when_its_page_disconnects(live: Live, long_recording: Path) -> None:
    with live.client() as client:
        session = upload_recording(client, long_recording)
        options = {"steps": 200}
        with events(live, session["id"]) as page:
            job = client.post(f"/api/sessions/{session['id']}/enhance", json=options).json()
            assert next(page)["kind"] == "enhance"
        assert wait_for_job(client, job)["state"] == "cancelled"
        # The next job starts.
        other = upload_recording(client, EXAMPLE)
        again = client.post(f"/api/sessions/{other['id']}/enhance", json={"steps": 0}).json()
        assert wait_for_job(client, again)["state"] == "done"


def test_ten_clients_are_served_during_a_search(live: Live, long_recording: Path) -> None:
    with live.client() as client:
        session = upload_recording(client, long_recording)
        base = f"/api/sessions/{session['id']}"
        job = client.post(f"{base}/enhance", json={"steps": 200}).json()

        def look(number: int) -> list[int]:
            with live.client() as mine:
                return [
                    mine.get(path).status_code
                    for path in (
                        "/",
                        f"{base}/tiles/input/mel/{number % 4}/0",
                        f"{base}/tiles/mask/log/2/{number % 3}",
                        f"{base}/sound/output?start={1000 * number}&stop={1000 * number + 9000}",
                    )
                ]

        with ThreadPoolExecutor(10) as pool:
            assert list(pool.map(look, range(10))) == [[200] * 4] * 10
        assert client.get(f"/api/jobs/{job['id']}").json()["state"] == "running"
        client.delete(f"/api/jobs/{job['id']}")
        wait_for_job(client, job)


def test_killed_server_restarts_with_its_sessions(tmp_path: Path, root: Path) -> None:
    live = Live(tmp_path / "studio", root)
    note = {"id": "n", "seconds": 2, "hz": 900, "width_s": 1, "height_hz": 500, "gain_db": 6}
    with live.client() as client:
        session = upload_recording(client, EXAMPLE)
        base = f"/api/sessions/{session['id']}"
        client.put(f"{base}/edit", json={"amount": 0.5, "notes": [note]})
        job = client.post(f"{base}/enhance", json={"steps": 200}).json()
        while client.get(f"/api/jobs/{job['id']}").json()["state"] == "queued":
            time.sleep(0.02)
    live.kill()
    live.start()
    try:
        with live.client() as client:
            view = client.get(base).json()
            assert view["state"]["edit"]["notes"][0]["gain_db"] == 6
            assert view["state"]["undo"]
            assert client.get(f"/api/jobs/{job['id']}").json()["state"] == "interrupted"
            assert client.post(f"{base}/undo").json()["edit"]["amount"] == 1.0
            assert client.get(f"{base}/tiles/input/log/3/0").status_code == 200
    finally:
        live.stop()


def test_damaged_database_is_reported_in_one_line(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "studio.db").write_text("no database, whatever its name says " * 40)
    ran = run("studio", "--no-browser", "--folder", tmp_path)
    assert ran.code == 1
    assert "cannot store sessions" in ran.err


def test_address_for_other_machines_has_a_token(tmp_path: Path, root: Path) -> None:
    live = Live(tmp_path / "studio", root, "--host", "0.0.0.0")
    try:
        place, token = live.url.split("?token=")
        live.url = "http://127.0.0.1:" + place.rsplit(":", 1)[1]
        with live.client() as client:
            assert client.get("/api/models").status_code == 401
            assert client.get("/").status_code == 401
            entered = client.get(f"/?token={token}")
            assert entered.status_code == 303
            assert client.get("/api/models").status_code == 200
    finally:
        live.stop()


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        (("--port", "99999"), "port"),
        (("-m", "nothing.tonewood"), "neither a model file nor a bundled model"),
        (("--root", "/does/not/exist"), "is not a folder"),
        (("--host", "256.256.256.256", "--port", "0"), "cannot serve at"),
    ],
)
def test_invalid_options_are_reported_in_one_line(
    run: Callable[..., Any], tmp_path: Path, options: tuple[str, ...], reported: str
) -> None:
    ran = run("studio", "--no-browser", "--folder", tmp_path / "s", *options)
    assert ran.code in (1, 2)
    assert reported in ran.err
    assert ran.out == ""
