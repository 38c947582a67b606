"""Folders of this machine: chosen, audited, learnt from, enhanced; and jobs cancelled."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.studio.conftest import ended, opened


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


def test_a_link_out_of_the_root_is_not_followed(client: TestClient, root: Path, tmp_path: Path) -> None:
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
    # The same again finds it done already; anything else is refused, and replaces nothing.
    again = ended(client, client.post("/api/batches", json=body).json())
    assert [row["state"] for row in again["told"]["rows"]] == ["failed", *["done"] * 4]
    other = ended(client, client.post("/api/batches", json={**body, "amount": 0.6}).json())
    assert {row["state"] for row in other["told"]["rows"]} == {"failed"}
    assert "exists" in other["told"]["rows"][1]["error"]


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
