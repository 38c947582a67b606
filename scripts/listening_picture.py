"""Draw docs/images/listening.png: two screens of a listening test, as a browser shows them.

    python scripts/listening_picture.py [-o docs/images/listening.png]

Needs Chromium, playwright and pillow. The sounds are of our own making.
"""

import argparse
import io
import shutil
import tempfile
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import soundfile
import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tonewood import web
from tonewood.listening import builder, stimuli
from tonewood.listening.definition import ListeningTest
from tonewood.listening.server import create_listening_app

RATE, SECONDS, WIDTH, HEIGHT = 22_050, 6.0, 620, 800
CONDITIONS = {"good": 600.0, "plain": 2_500.0, "odd": 1_400.0}


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", type=Path, default=Path("docs/images/listening.png"))
    out: Path = parser.parse_args().o
    with tempfile.TemporaryDirectory() as folder:
        screens = [
            _screen(Path(folder), kind, scheme) for kind, scheme in (("pairs", "light"), ("mushra", "dark"))
        ]
    picture = Image.new("RGB", (WIDTH * len(screens), HEIGHT))
    for place, screen in enumerate(screens):
        picture.paste(Image.open(io.BytesIO(screen)), (WIDTH * place, 0))
    picture.quantize(128).save(out, optimize=True)


def _screen(root: Path, kind: str, scheme: str) -> bytes:
    """Return a picture (PNG) of a question while a sound plays."""
    folders = [_condition(root / kind / name, hz) for name, hz in CONDITIONS.items()]
    pieces = list(stimuli.pieces_from_conditions(folders[1:]))
    if kind == "mushra":
        pieces = stimuli.add_reference(pieces, folders[0])
    reference = "good" if kind == "mushra" else None
    plan = builder.make_plan(kind=kind, seconds=5.0, checked=False, reference=reference, title="Two cellos")
    *_, test = builder.build_listening_test(pieces, plan, root / kind / "test")
    assert isinstance(test, ListeningTest)
    guarded = web.secure(create_listening_app(test, root / kind / "test"), token=test.access_token)
    server = uvicorn.Server(uvicorn.Config(guarded, port=0, log_level="error", ws="none"))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        more: dict[str, Any] = {"color_scheme": scheme}
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, **more)
        page.goto(web.server_url("127.0.0.1", port, test.access_token))
        _begin(page)
        screenshot = page.screenshot()
        browser.close()
    server.should_exit = True
    thread.join(10)
    return screenshot


def _begin(page: Page) -> None:
    """Go to the first scored question, and play."""
    page.get_by_label("I have read this").check()
    page.get_by_role("button", name="Begin", exact=True).click()
    page.get_by_role("button", name="This is comfortable").click()
    page.get_by_role("button", name="Play A").click()
    page.get_by_role("button", name="Play B").click()
    if page.locator(".rating input").count():
        for name, value in (("A", 78), ("B", 31)):
            page.get_by_label(f"Rating of {name}").fill(str(value))
    else:
        page.locator("input[value=B]").check()
    page.wait_for_timeout(1_500)


def _condition(folder: Path, formant_hz: float) -> Path:
    """Write a folder with one recording: harmonic notes with one formant."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    time = np.arange(round(0.4 * RATE)) / RATE
    notes = []
    for _ in range(round(SECONDS / 0.4)):
        hz = 110 * 2 ** (rng.integers(0, 24) / 12) * np.arange(1, 40)
        body = 1 / (1 + ((hz - formant_hz) / 400) ** 2) + 0.02
        notes.append(np.exp(-2 * time) * (body @ np.sin(2 * np.pi * hz[:, None] * time)))
    wave = np.concatenate(notes)
    soundfile.write(folder / "take.wav", 0.2 * wave / np.abs(wave).max(), RATE)
    return folder


if __name__ == "__main__":
    main()
