"""The endpoint for HARP, asked as that program asks: upload, call, event stream, download."""

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
    with TestClient(app, base_url="http://127.0.0.1:7860") as made:
        yield made


def asked(client: Any, name: str, *data: object) -> tuple[str, Any]:
    """What a call ends with: the name of its last event, and its data."""
    begun = client.post(f"/gradio_api/call/{name}", json={"data": list(data)})
    assert begun.status_code == 200, begun.text
    stream = client.get(f"/gradio_api/call/{name}/{begun.json()['event_id']}").text
    *_, last = stream.strip().split("\n\n")
    event, payload = last.split("\n")
    return event.removeprefix("event: "), json.loads(payload.removeprefix("data: "))


def uploaded(client: Any, content: bytes, name: str = "take.flac") -> dict[str, Any]:
    sent = client.post("/gradio_api/upload", files={"files": (name, content, "audio/midi")})
    assert sent.status_code == 200, sent.text
    return {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}


def test_controls_describe_the_inputs_in_order(
    client: TestClient,
) -> None:
    event, (told,) = asked(client, "controls")
    assert event == "complete"
    assert set(told) == {"card", "inputs", "outputs"}
    assert set(told["card"]) == {"name", "description", "author", "tags"}
    assert [it["type"] for it in told["inputs"]] == ["audio_track", "slider", "toggle"]
    assert [it["type"] for it in told["outputs"]] == ["audio_track", "json"]
    slider = told["inputs"][1]
    assert slider["minimum"] <= slider["value"] <= slider["maximum"]
    assert all({"label", "info"} <= set(it) for it in told["inputs"] + told["outputs"])


def test_recording_is_enhanced_in_its_format_with_a_verdict(
    client: TestClient, take: bytes, tmp_path: Path
) -> None:
    event, (sound, verdict) = asked(client, "process", uploaded(client, take), 1.0, False)
    assert event == "complete"
    assert sound["meta"] == {"_type": "gradio.FileData"}
    content = client.get(sound["url"]).content
    before, after = (soundfile.info(io.BytesIO(it)) for it in (take, content))
    assert (after.frames, after.samplerate, after.channels, after.format, after.subtype) == (
        before.frames, before.samplerate, before.channels, before.format, before.subtype,
    )  # fmt: skip
    assert content != take
    assert verdict["meta"] == {"_type": "pyharp.LabelList"}
    assert verdict["labels"][0]["label"] in ("good", "limited")
    assert not list(tmp_path.glob("*.json"))


def test_amount_zero_returns_the_recording(client: TestClient, take: bytes) -> None:
    _, (sound, _) = asked(client, "process", uploaded(client, take), 0.0, False)
    made, _ = soundfile.read(io.BytesIO(client.get(sound["url"]).content))
    was, _ = soundfile.read(io.BytesIO(take))
    assert np.abs(made - was).max() < 1e-3


def test_unusable_inputs_are_one_line(client: TestClient, take: bytes) -> None:
    event, told = asked(client, "process", uploaded(client, b"no sound", "a.wav"), 1.0, False)
    assert event == "error"
    assert told["error"].startswith("the recording ")
    assert "\n" not in told["error"]
    here = uploaded(client, take)
    for data, words in (
        (({"path": "../../etc/passwd"}, 1.0, False), "send it again"),
        ((here, 1.5, False), "an amount from 0 to 1"),
        ((here,), "the inputs are wrong"),
        ((None, 1.0, False), "the inputs are wrong"),
    ):
        event, told = asked(client, "process", *data)
        assert event == "error"
        assert words in told["error"]


def test_uploaded_names_never_become_paths(client: TestClient, take: bytes, tmp_path: Path) -> None:
    name = uploaded(client, take, "../../evil/take.flac")["path"]
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
    names = [uploaded(client, bytes([it]))["path"] for it in range(4)]
    assert {it.name for it in tmp_path.iterdir()} == set(names[2:])


def test_search_is_cancelled_between_two_steps(
    client: TestClient, take: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = enhance_file.enhance_file

    def slow(*given: Any, **more: Any) -> Iterator[Any]:
        for event in whole(*given, **more):
            yield event
            asked(client, "cancel")

    monkeypatch.setattr(harp, "enhance_file", slow)
    event, told = asked(client, "process", uploaded(client, take), 1.0, False)
    assert (event, told) == ("error", {"error": "cancelled"})


def test_harp_rejects_cross_site_requests(client: TestClient) -> None:
    headers = {"Origin": "http://example.com"}
    refused = client.post("/gradio_api/call/controls", json={"data": []}, headers=headers)
    assert refused.status_code == 403


def test_harp_command_prints_its_address_and_removes_its_folder(tmp_path: Path, take: bytes) -> None:
    command = [sys.executable, "-m", "tonewood", "harp", "--port", "0", "-m", "soundfont-cello"]
    place = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=place) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            with httpx.Client(base_url=address, timeout=300) as client:
                assert "Tonewood" in client.get("/").text
                event, (told,) = asked(client, "controls")
                uploaded(client, take)
            assert list(tmp_path.glob("*/*.flac"))
            assert (event, told["card"]["name"]) == ("complete", "Tonewood: soundfont-cello")
        finally:
            process.terminate()
    assert not list(tmp_path.glob("tonewood-*"))


def test_harp_command_rejects_remote_hosts(run: Callable[..., Any]) -> None:
    ran = run("harp", "--host", "0.0.0.0")
    assert ran.code == 2
    assert "ssh -L" in ran.err
