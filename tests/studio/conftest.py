"""A studio that really runs, and what its tests share."""

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

from tonewood.studio.app import create_secure_studio_app
from tonewood.studio.state import StudioState

EXAMPLE = Path(__file__).parents[2] / "src/tonewood/bundled/example.flac"
MODEL = "soundfont-cello"
NOTE = {"id": "n1", "seconds": 2.0, "hz": 900.0, "width_s": 1.0, "height_hz": 600.0, "gain_db": 9.0}

LONGEST_WAIT_S = 300
"""Bound of every wait: a test waits for a state, and a busy machine may take long to reach it."""

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Sound is played though nobody hears it, and without a click before it.
ARGUMENTS = (
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    # A microphone that beeps.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


class Live:
    """`tonewood studio` as a process of its own, which may be killed and started again."""

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
        assert self.url.startswith("http://"), "the studio did not start"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=LONGEST_WAIT_S)

    def kill(self) -> None:
        """End it as a power cut would."""
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
def root(tmp_path_factory: pytest.TempPathFactory, play: Callable[..., Any]) -> Path:
    """A home with folders in it: takes to enhance, and two to learn from."""
    root = tmp_path_factory.mktemp("home")
    for side, formant in (("takes", 2_500.0), ("good", 600.0)):
        for number in range(4):
            path = root / side / f"{side}{number}.wav"
            path.parent.mkdir(exist_ok=True)
            samples = play(16, formant_hz=formant, seed=number + (9 if side == "good" else 0))
            soundfile.write(path, samples.T, 16_000)
    (root / "takes" / "broken.wav").write_bytes(b"RIFF")
    (root / "empty").mkdir()
    return root


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Live]:
    """A studio with the example's model."""
    server = Live(tmp_path_factory.mktemp("studio"), root)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def desk(
    tmp_path_factory: pytest.TempPathFactory,
    model_file: Path,
    root: Path,
    small: Callable[..., Any],
) -> StudioState:
    """A studio's desk with the tiny model, which trains tiny models."""
    few = [
        f"{group}={value}"
        for group, value in (
            ("scorer.depth", 2), ("scorer.width", 4), ("scorer.crop_seconds", 1.0),
            ("training.steps", 20), ("training.check_every", 10), ("training.batch", 8),
            ("training.held_out", 0.25), ("priors.neighbours.frames", 512),
            ("priors.neighbours.codes", 64), ("priors.network.steps", 20),
            ("priors.network.width", 8), ("guide.steps", 20), ("guide.width", 8),
        )
    ]  # fmt: skip
    return StudioState(tmp_path_factory.mktemp("desk"), str(model_file), root, few)


@pytest.fixture(scope="session")
def client(desk: StudioState) -> Iterator[TestClient]:
    """A client of an application over that desk, in this process."""
    with TestClient(create_secure_studio_app(desk), base_url="http://127.0.0.1:8765") as client:
        yield client


@pytest.fixture(scope="session")
def take(tmp_path_factory: pytest.TempPathFactory, play: Callable[..., Any]) -> Path:
    """Six seconds in stereo, 24 bits, of a name that is no path."""
    path = tmp_path_factory.mktemp("in") / "take.wav"
    soundfile.write(path, play(6, 16_000, 2).T, 16_000, "PCM_24")
    return path


@pytest.fixture(scope="session")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording so long that two hundred steps outlast any test."""
    path = tmp_path_factory.mktemp("in") / "lasting.wav"
    samples, rate = soundfile.read(EXAMPLE, dtype="float32", always_2d=True)
    soundfile.write(path, np.resize(samples, (150 * rate, samples.shape[1])), rate)
    return path


@pytest.fixture(scope="module")
def session(client: TestClient, take: Path) -> dict[str, Any]:
    """An opened recording, enhanced."""
    fresh = opened(client, take)
    job = client.post(f"/api/sessions/{fresh['id']}/enhance", json={"force": True, "steps": 2})
    done = ended(client, job.json())
    assert done["state"] == "done", done
    assert [step["number"] for step in done["told"]["steps"]] == [0, 1, 2]
    told: dict[str, Any] = client.get(f"/api/sessions/{fresh['id']}").json()
    return told


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of the system's."""
    playwright = pytest.importorskip("playwright.sync_api")
    named = os.environ.get("TONEWOOD_CHROMIUM")
    path = named or next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium on this machine: install it, or name it in TONEWOOD_CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, live: Live) -> Iterator[Callable[..., Any]]:
    """Open pages; whatever asked another host or went wrong in them fails the test."""
    contexts, asked, wrong = [], [], []

    def opened(width: int = 1_280, scheme: str = "light", **more: Any) -> Any:
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, **more)
        contexts.append(context)
        context.set_default_timeout(1_000 * LONGEST_WAIT_S)
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda it: wrong.extend([it.text] if it.type == "error" else []))
        page.goto(live.url)
        return page

    yield opened
    for context in contexts:
        context.close()
    outside = [url for url in asked if not url.startswith((live.url, "blob:", "data:"))]
    assert not outside
    assert not wrong


@pytest.fixture(scope="module")
def enhanced(live: Live) -> str:
    """Id of a session whose search is done."""
    with live.client() as client:
        session = opened(client, EXAMPLE, "phrase.flac")
        job = client.post(f"/api/sessions/{session['id']}/enhance", json={}).json()
        assert ended(client, job)["state"] == "done"
    return str(session["id"])


def kept(client: TestClient, session: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """State of a session after some parts of its edit were changed."""
    state = client.get(f"/api/sessions/{session['id']}/state").json()
    answer = client.put(f"/api/sessions/{session['id']}/edit", json={**state["edit"], **changes})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def opened(client: Any, path: Path, name: str | None = None) -> dict[str, Any]:
    """Session of an uploaded recording."""
    answer = client.post("/api/recordings", params={"name": name or path.name}, content=path.read_bytes())
    assert answer.status_code == 201, answer.text
    session: dict[str, Any] = answer.json()
    return session


def ended(client: Any, job: dict[str, Any], seconds: float = LONGEST_WAIT_S) -> dict[str, Any]:
    """A job when it is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now: dict[str, Any] = client.get(f"/api/jobs/{job['id']}").json()
        if now["state"] not in ("queued", "running"):
            return now
        time.sleep(0.05)
    raise AssertionError(f"{job['kind']} did not end: {now}")


def heard(answer: Any) -> np.ndarray:
    """Samples (channels, samples) of an answer of the sound route."""
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.content, "<f4").reshape(int(answer.headers["x-channels"]), -1)
