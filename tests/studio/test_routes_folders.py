"""Folders on the server: choice, audit, training, batch; cancelled jobs."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.studio.conftest import upload_recording, wait_for_job


def places(client: TestClient, *names: str) -> list[str]:
    folders = {item["name"]: item["id"] for item in client.get("/api/places").json()["folders"]}
    return [folders[name] for name in names]


def test_folders_are_identified_by_ids(client: TestClient, root: Path) -> None:
    top = client.get("/api/places").json()
    assert [item["name"] for item in top["folders"]] == ["empty", "good", "short", "takes"]
    takes = places(client, "takes")[0]
    view = client.get(f"/api/places?at={takes}").json()
    assert view["sounds"] == 5
    assert [item["name"] for item in view["trail"]] == [root.name, "takes"]
    for wrong in (str(root), "../..", "0" * 24):
        assert client.get("/api/places", params={"at": wrong}).status_code == 404


def test_link_out_of_root_is_not_followed(client: TestClient, root: Path, tmp_path: Path) -> None:
    (root / "out").symlink_to(tmp_path)
    try:
        assert "out" not in [item["name"] for item in client.get("/api/places").json()["folders"]]
    finally:
        (root / "out").unlink()


def test_audit_job_reports_verdict(client: TestClient) -> None:
    good, takes = places(client, "good", "takes")
    job = client.post("/api/audits", json={"reference": good, "source": good})
    assert job.status_code == 400
    assert "both folders" in job.json()["error"]
    job = client.post("/api/audits", json={"reference": good, "source": takes}).json()
    finished = wait_for_job(client, job)
    assert finished["state"] == "failed"  # the broken recording is named
    assert "broken.wav" in finished["told"]["error"]


def test_training_job_reports_accuracy_curve(client: TestClient, root: Path) -> None:
    (root / "takes" / "broken.wav").rename(root / "broken.wav")
    try:
        good, takes = places(client, "good", "takes")
        audit = client.post("/api/audits", json={"reference": good, "source": takes}).json()
        assert wait_for_job(client, audit)["told"]["verdict"] in (
            "untested",
            "fine",
            "beware",
            "confounded",
        )
        body = {"reference": good, "source": takes, "name": "My Cello!", "domain": "tests"}
        finished = wait_for_job(client, client.post("/api/trainings", json=body).json())
        assert finished["state"] == "done", finished
        assert {point["who"] for point in finished["told"]["curve"]} == {"scorer", "judge"}
        assert "my-cello" in [model["name"] for model in client.get("/api/models").json()]
        again = client.post("/api/trainings", json=body)
        assert again.status_code == 400
        assert "already" in again.json()["error"]
    finally:
        (root / "broken.wav").rename(root / "takes" / "broken.wav")


def test_batch_job_reports_each_recording(client: TestClient, root: Path) -> None:
    short, empty = places(client, "short", "empty")
    body = {"input": short, "output": empty, "into": "done", "model": "tiny", "amount": 0.5}
    finished = wait_for_job(client, client.post("/api/batches", json=body).json())
    assert finished["state"] == "done"
    rows = finished["told"]["rows"]
    assert [row["state"] for row in rows] == ["failed", "done", "done"]
    assert {path.name for path in (root / "empty" / "done").glob("*.wav")} == {
        f"short{n}.wav" for n in range(2)
    }
    for which in ("input", "output"):
        assert client.get(f"/api/jobs/{finished['id']}/files/1/{which}").status_code == 200
    for missing in ("0/output", "9/input", "1/recipe"):
        assert client.get(f"/api/jobs/{finished['id']}/files/{missing}").status_code == 404
    # A row opens as a session with the batch's mask and amount.
    opened = client.post(f"/api/jobs/{finished['id']}/rows/1/session")
    assert opened.status_code == 201, opened.text
    view = opened.json()
    assert (view["title"], view["model"], view["state"]["found"]) == ("short0.wav", "tiny", 0)
    assert view["state"]["edit"]["amount"] == (0.0 if rows[1]["verdict"] == "unneeded" else 0.5)
    assert view["state"]["certificate"]["verdict"] == rows[1]["verdict"]
    assert client.post(f"/api/jobs/{finished['id']}/rows/0/session").status_code == 404
    # The same request finds finished files; another one is rejected and replaces nothing.
    again = wait_for_job(client, client.post("/api/batches", json=body).json())
    assert [row["state"] for row in again["told"]["rows"]] == ["failed", "done", "done"]
    other = wait_for_job(client, client.post("/api/batches", json={**body, "amount": 0.6}).json())
    assert {row["state"] for row in other["told"]["rows"]} == {"failed"}
    assert "exists" in other["told"]["rows"][1]["error"]


@pytest.mark.parametrize("into", ["../out", "a/b", ".hidden"])
def test_new_folder_needs_a_plain_name(client: TestClient, into: str) -> None:
    takes, empty = places(client, "takes", "empty")
    body = {"input": takes, "output": empty, "into": into, "model": "tiny"}
    answer = client.post("/api/batches", json=body)
    assert answer.status_code == 400
    assert "not a plain folder name" in answer.json()["error"]


def test_job_is_cancelled(client: TestClient, take: Path) -> None:
    session = upload_recording(client, take)
    options = {"force": True, "steps": 200}
    job = client.post(f"/api/sessions/{session['id']}/enhance", json=options).json()
    client.delete(f"/api/jobs/{job['id']}")
    assert wait_for_job(client, job)["state"] == "cancelled"
    assert client.get(f"/api/sessions/{session['id']}/state").json()["found"] is None
    assert client.get("/api/jobs/none").status_code == 404
