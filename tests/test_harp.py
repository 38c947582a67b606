"""The endpoint for HARP, called as that program does: upload, call, event stream, download."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from tonewood import harp
from tonewood.batch import enhance_file
from tonewood.model.model import load_model
from tonewood.web import secure

EXAMPLE = Path(__file__).parents[1] / "src/tonewood/bundled/example.flac"


@pytest.fixture(scope="module")
def take() -> bytes:
    samples, rate = soundfile.read(EXAMPLE, dtype="int16", always_2d=True)
    stream = io.BytesIO()
    soundfile.write(stream, samples[: 2 * rate], rate, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    app = secure(
        harp.create_harp_app(load_model("soundfont-cello"), tmp_path),
        limits_by_path=harp.UPLOAD_LIMITS,
    )
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def call_endpoint(client: Any, name: str, *data: object) -> tuple[str, Any]:
    """Return the name and the data of the last event of a call."""
    started = client.post(f"/gradio_api/call/{name}", json={"data": list(data)})
    assert started.status_code == 200, started.text
    stream = client.get(f"/gradio_api/call/{name}/{started.json()['event_id']}").text
    *_, last = stream.strip().split("\n\n")
    event, payload = last.split("\n")
    return event.removeprefix("event: "), json.loads(payload.removeprefix("data: "))


def upload(client: Any, content: bytes, name: str = "take.flac") -> dict[str, Any]:
    sent = client.post("/gradio_api/upload", files={"files": (name, content, "audio/midi")})
    assert sent.status_code == 200, sent.text
    return {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}


def test_controls_describe_the_inputs_in_order(client: TestClient) -> None:
    event, (endpoint,) = call_endpoint(client, "controls")
    assert event == "complete"
    assert set(endpoint) == {"card", "inputs", "outputs"}
    assert set(endpoint["card"]) == {"name", "description", "author", "tags"}
    assert [item["type"] for item in endpoint["inputs"]] == ["audio_track", "slider", "toggle"]
    assert [item["type"] for item in endpoint["outputs"]] == ["audio_track", "json"]
    slider = endpoint["inputs"][1]
    assert slider["minimum"] <= slider["value"] <= slider["maximum"]
    assert all({"label", "info"} <= set(item) for item in endpoint["inputs"] + endpoint["outputs"])


def test_recording_is_enhanced_in_its_format_with_a_verdict(
    client: TestClient, take: bytes, tmp_path: Path
) -> None:
    event, (sound, verdict) = call_endpoint(client, "process", upload(client, take), 1.0, False)
    assert event == "complete"
    assert sound["meta"] == {"_type": "gradio.FileData"}
    content = client.get(sound["url"]).content
    before, after = (soundfile.info(io.BytesIO(data)) for data in (take, content))
    assert (after.frames, after.samplerate, after.channels, after.format, after.subtype) == (
        before.frames, before.samplerate, before.channels, before.format, before.subtype,
    )  # fmt: skip
    assert content != take
    assert verdict["meta"] == {"_type": "pyharp.LabelList"}
    assert verdict["labels"][0]["label"] in ("good", "limited")
    assert not list(tmp_path.glob("*.json"))


def test_amount_zero_returns_the_recording(client: TestClient, take: bytes) -> None:
    _, (sound, _) = call_endpoint(client, "process", upload(client, take), 0.0, False)
    output, _ = soundfile.read(io.BytesIO(client.get(sound["url"]).content))
    original, _ = soundfile.read(io.BytesIO(take))
    assert np.abs(output - original).max() < 1e-3


def test_unusable_inputs_are_one_line(client: TestClient, take: bytes) -> None:
    event, answer = call_endpoint(client, "process", upload(client, b"no sound", "a.wav"), 1.0, False)
    assert event == "error"
    assert answer["error"].startswith("the recording ")
    assert "\n" not in answer["error"]
    stored = upload(client, take)
    for data, words in (
        (({"path": "../../etc/passwd"}, 1.0, False), "send it again"),
        ((stored, 1.5, False), "an amount from 0 to 1"),
        ((stored,), "the inputs are wrong"),
        ((None, 1.0, False), "the inputs are wrong"),
    ):
        event, answer = call_endpoint(client, "process", *data)
        assert event == "error"
        assert words in answer["error"]


def test_uploaded_names_never_become_paths(client: TestClient, take: bytes, tmp_path: Path) -> None:
    name = upload(client, take, "../../evil/take.flac")["path"]
    assert (tmp_path / name).read_bytes() == take
    assert name.endswith(".flac")
    assert "evil" not in name
    assert client.get("/gradio_api/file=../pyproject.toml").status_code == 404
    assert client.get("/gradio_api/call/process/none").status_code == 404
    assert client.post("/gradio_api/call/train", json={"data": []}).status_code == 422
    assert client.post("/gradio_api/upload", data={"files": "text"}).status_code == 422


def test_oldest_files_are_removed(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harp, "MAX_KEPT_FILES", 2)
    names = [upload(client, bytes([number]))["path"] for number in range(4)]
    assert {path.name for path in tmp_path.iterdir()} == set(names[2:])


def test_search_is_cancelled_between_two_steps(
    client: TestClient, take: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = enhance_file.enhance_file

    def slow(*arguments: Any, **options: Any) -> Iterator[Any]:
        for event in whole(*arguments, **options):
            yield event
            call_endpoint(client, "cancel")

    monkeypatch.setattr(harp, "enhance_file", slow)
    event, answer = call_endpoint(client, "process", upload(client, take), 1.0, False)
    assert (event, answer) == ("error", {"error": "cancelled"})


def test_harp_rejects_cross_site_requests(client: TestClient) -> None:
    headers = {"Origin": "http://example.com"}
    refused = client.post("/gradio_api/call/controls", json={"data": []}, headers=headers)
    assert refused.status_code == 403


def test_harp_command_prints_its_address_and_removes_its_folder(tmp_path: Path, take: bytes) -> None:
    command = [sys.executable, "-m", "tonewood", "harp", "--port", "0", "-m", "soundfont-cello"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            with httpx.Client(base_url=address, timeout=300) as client:
                assert "Tonewood" in client.get("/").text
                event, (endpoint,) = call_endpoint(client, "controls")
                upload(client, take)
            assert list(tmp_path.glob("*/*.flac"))
            assert (event, endpoint["card"]["name"]) == ("complete", "Tonewood: soundfont-cello")
        finally:
            process.terminate()
    assert not list(tmp_path.glob("tonewood-*"))


def test_harp_command_rejects_remote_hosts(run: Callable[..., Any]) -> None:
    ran = run("harp", "--host", "0.0.0.0")
    assert ran.code == 2
    assert "ssh -L" in ran.err
