"""Places in the queues, expected durations, and short recordings that pass long ones."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from tests.studio.conftest import upload_recording, wait_for_job


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a recording that is long enough for the queue of long ones."""
    path = tmp_path_factory.mktemp("in") / "long.wav"
    noise = np.random.default_rng(0).normal(0, 0.05, 8_000 * 301)
    soundfile.write(path, noise, 8_000)
    return path


def test_short_recording_passes_a_long_one(client: TestClient, take: Path, hour: Path) -> None:
    endless = {"force": True, "steps": 200}
    first, second = (upload_recording(client, hour)["id"] for _ in range(2))
    running = client.post(f"/api/sessions/{first}/enhance", json=endless).json()
    waiting = client.post(f"/api/sessions/{second}/enhance", json=endless).json()
    assert client.get(f"/api/jobs/{waiting['id']}").json()["ahead"] == 1
    assert running["expected_s"] > 0

    short = upload_recording(client, take)["id"]
    job = client.post(f"/api/sessions/{short}/enhance", json={"force": True, "steps": 1}).json()
    assert wait_for_job(client, job)["state"] == "done"
    assert client.get(f"/api/jobs/{running['id']}").json()["state"] in ("queued", "running")

    client.delete(f"/api/jobs/{running['id']}")
    assert wait_for_job(client, running)["state"] == "cancelled"
    assert client.get(f"/api/jobs/{waiting['id']}").json()["ahead"] == 0
    client.delete(f"/api/jobs/{waiting['id']}")
    assert wait_for_job(client, waiting)["state"] == "cancelled"
