"""Fixtures of the studio's tests: a server process, an in-process client, a browser."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from campaigns.harness.training import TINY_TRAINING
from tests.conftest import Folders
from tonewood.studio.app import create_secure_studio_app
from tonewood.studio.state import StudioState

EXAMPLE = Path(__file__).parents[2] / "src/tonewood/bundled/example.flac"
MODEL = "soundfont-cello"
NOTE = {"id": "n1", "seconds": 2.0, "hz": 900.0, "width_s": 1.0, "height_hz": 600.0, "gain_db": 9.0}

LONGEST_WAIT_S = 300
"""Bound of every wait: a test waits for a state, and a busy machine may take long to reach it."""

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Play sound without an audio device, and without a click before.
ARGUMENTS = (
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    # A fake microphone that beeps.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


class Live:
    """`tonewood studio` in a process that can be killed and restarted."""

    def __init__(self, folder: Path, root: Path, *more: str) -> None:
        self.command = [
            sys.executable, "-m", "tonewood", "studio", "--port", "0", "--no-browser",
            "--folder", str(folder), "--root", str(root), "-m", MODEL, *more,
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TERM": "dumb"}
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        if not self.url.startswith("http://"):
            self.close()
            raise AssertionError("the studio did not start")

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=LONGEST_WAIT_S)

    def kill(self) -> None:
        """Kill the process as a power failure would."""
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def stop(self) -> None:
        self.process.terminate()
        self.close()

    def close(self) -> None:
        self.process.wait(LONGEST_WAIT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture(scope="session")
def root(
    tmp_path_factory: pytest.TempPathFactory, play: Callable[..., Any], training_folders: Folders
) -> Path:
    """Return a home folder with short recordings to enhance and two folders to train from."""
    root = tmp_path_factory.mktemp("home")
    for side, takes in (("takes", training_folders.source), ("good", training_folders.reference)):
        (root / side).mkdir()
        for number, path in enumerate(sorted(takes.rglob("*.wav"))):
            shutil.copy(path, root / side / f"{side}{number}.wav")
    (root / "short").mkdir()
    for number in range(2):
        soundfile.write(root / "short" / f"short{number}.wav", play(3, seed=number).T, 16_000)
    for folder in ("takes", "short"):
        (root / folder / "broken.wav").write_bytes(b"RIFF")
    (root / "empty").mkdir()
    return root


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Live]:
    """Run a studio with the example's model."""
    server = Live(tmp_path_factory.mktemp("studio"), root)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def studio_state(
    tmp_path_factory: pytest.TempPathFactory,
    model_file: Path,
    root: Path,
) -> StudioState:
    """Return a studio's state with a tiny model and settings for tiny trainings."""
    return StudioState(tmp_path_factory.mktemp("desk"), str(model_file), root, list(TINY_TRAINING))


@pytest.fixture(scope="session")
def client(studio_state: StudioState) -> Iterator[TestClient]:
    """Return a client of an application in this process."""
    with TestClient(create_secure_studio_app(studio_state), base_url="http://127.0.0.1:8765") as client:
        yield client


@pytest.fixture(scope="session")
def take(tmp_path_factory: pytest.TempPathFactory, play: Callable[..., Any]) -> Path:
    """Write a recording of six seconds, stereo, 24 bits."""
    path = tmp_path_factory.mktemp("in") / "take.wav"
    soundfile.write(path, play(6, 16_000, 2).T, 16_000, "PCM_24")
    return path


@pytest.fixture(scope="session")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a recording so long that its search lasts longer than any test."""
    path = tmp_path_factory.mktemp("in") / "lasting.wav"
    samples, rate = soundfile.read(EXAMPLE, dtype="float32", always_2d=True)
    soundfile.write(path, np.resize(samples, (150 * rate, samples.shape[1])), rate)
    return path


@pytest.fixture(scope="module")
def session(client: TestClient, take: Path) -> dict[str, Any]:
    """Upload and enhance a recording."""
    fresh = upload_recording(client, take)
    job = client.post(f"/api/sessions/{fresh['id']}/enhance", json={"force": True, "steps": 2})
    finished = wait_for_job(client, job.json())
    assert finished["state"] == "done", finished
    assert [step["number"] for step in finished["told"]["steps"]] == [0, 1, 2]
    view: dict[str, Any] = client.get(f"/api/sessions/{fresh['id']}").json()
    return view


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start the system's Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    named = os.environ.get("TONEWOOD_CHROMIUM")
    path = named or next((executable for name in NAMES if (executable := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium on this machine: install it, or name it in TONEWOOD_CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, live: Live) -> Iterator[Callable[..., Any]]:
    """Open pages; requests to other hosts and errors on the page fail the test."""
    contexts, requests, wrong = [], [], []
    # An edit that another page was faster with is joined and sent again.
    expected = "412 (Precondition Failed)"

    def report(message: Any) -> None:
        if message.type == "error" and expected not in message.text:
            wrong.append(f"{message.text}: {message.location['url']}")

    def open_page(width: int = 1_280, scheme: str = "light", **more: Any) -> Any:
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, **more)
        contexts.append(context)
        context.set_default_timeout(1_000 * LONGEST_WAIT_S)
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", report)
        page.goto(live.url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    outside = [url for url in requests if not url.startswith((live.url, "blob:", "data:"))]
    assert not outside
    assert not wrong


@pytest.fixture(scope="module")
def shared_session(live: Live) -> str:
    """Return the id of a session that is enhanced once for all tests of a module."""
    with live.client() as client:
        session = upload_recording(client, EXAMPLE, "phrase.flac")
        job = client.post(f"/api/sessions/{session['id']}/enhance", json={}).json()
        assert wait_for_job(client, job)["state"] == "done"
    return str(session["id"])


@pytest.fixture
def enhanced_session(live: Live, shared_session: str) -> str:
    """Return the id of an enhanced session without edits, whatever the test before left."""
    with live.client() as client:
        change_edit(client, {"id": shared_session}, notes=[], areas=[], amount=1.0, shape={}, curve={})
    return shared_session


@pytest.fixture
def open_session(visit: Callable[..., Any], live: Live, enhanced_session: str) -> Callable[[], Any]:
    """Return a function that opens the page of the enhanced session."""

    def open_page() -> Any:
        page = visit()
        page.goto(f"{live.url}#/s/{enhanced_session}")
        page.wait_for_selector(".overview > div")
        return page

    return open_page


def change_edit(client: Any, session: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Change parts of a session's edit and return its state."""
    state = client.get(f"/api/sessions/{session['id']}/state").json()
    answer = client.put(f"/api/sessions/{session['id']}/edit", json={**state["edit"], **changes})
    assert answer.status_code == 200, answer.text
    changed: dict[str, Any] = answer.json()
    return changed


def upload_recording(client: Any, path: Path, name: str | None = None) -> dict[str, Any]:
    """Upload a recording and return its session."""
    answer = client.post("/api/recordings", params={"name": name or path.name}, content=path.read_bytes())
    assert answer.status_code == 201, answer.text
    session: dict[str, Any] = answer.json()
    return session


def wait_for_job(client: Any, job: dict[str, Any], seconds: float = LONGEST_WAIT_S) -> dict[str, Any]:
    """Wait for a job and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now: dict[str, Any] = client.get(f"/api/jobs/{job['id']}").json()
        if now["state"] not in ("queued", "running"):
            return now
        time.sleep(0.05)
    raise AssertionError(f"{job['kind']} did not end: {now}")


def decode_samples(answer: Any) -> np.ndarray:
    """Return the samples (channels, samples) in a response of the sound route."""
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.content, "<f4").reshape(int(answer.headers["x-channels"]), -1)
