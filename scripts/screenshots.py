"""Take the pictures of `docs/studio.md`: every view of the studio, in a headless Chromium.

    python scripts/screenshots.py -o docs/images

Needs `pip install '.[dev]'` and Chromium. Recordings are the bundled example and pieces of it; each
picture has 256 colours and stays under 300 kB.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from tonewood import enhance, load

EXAMPLE = Path(__file__).parents[1] / "src/tonewood/bundled/example.flac"
MODEL = "soundfont-cello"
MOST_BYTES = 300_000
OWN_COLOURS = 56
DESK: ViewportSize = {"width": 1360, "height": 850}
PHONE: ViewportSize = {"width": 390, "height": 844}
# Colours of all text on a page, as red, green and blue.
INKS = """[...new Set(
    [...document.querySelectorAll('body *')].map(it => getComputedStyle(it).color)
    )].slice(0, 24).map(it => it.match(/[0-9.]+/g).slice(0, 3).map(Math.round))"""


def main() -> None:
    """Start a studio, go through its views, and write a PNG of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images"))
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        root = Path(temporary) / "Recordings"
        write_folders(root)
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))))
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        with run_studio(Path(temporary) / "studio", root) as address:
            tour(browser, address, lambda name, page: keep(output / f"studio-{name}.png", page))
        browser.close()


def tour(browser: Browser, address: str, shot: Callable[[str, Page], None]) -> None:
    """Take pictures of all views."""
    page = browser.new_page(viewport=DESK, color_scheme="light")
    page.goto(address)
    page.set_input_files("input[type=file]", EXAMPLE)
    page.wait_for_selector(".session")
    page.wait_for_timeout(1_000)
    shot("opened", page)

    page.get_by_role("button", name="Enhance", exact=True).click()
    page.wait_for_selector(".verdict")
    page.wait_for_timeout(1_000)
    shot("enhanced", page)

    for (left, right), (low, high), keys in (
        ((0.445, 0.60), (1_900, 3_200), "++p"),
        ((0.83, 0.95), (85, 180), "-" * 15),
        ((0.15, 0.27), (4_200, 6_500), "-" * 10),
    ):
        draw(page, "n", left, right, low, high)
        for key in keys:
            page.keyboard.press(key)
    draw(page, "a", 0.30, 0.43, 300, 700)
    page.wait_for_selector(".rechecking")
    page.wait_for_selector(".rechecking", state="detached")
    page.locator(".note.pinned").click()
    page.wait_for_timeout(300)
    shot("notes", page)

    page.select_option("[data-select=colours]", "saliency")
    page.wait_for_selector(".progress-slot .progress")
    page.wait_for_selector(".progress-slot .progress", state="detached", timeout=120_000)
    page.wait_for_timeout(1_000)
    page.locator("summary", has_text="Checks").click()
    shot("saliency", page)
    page.select_option("[data-select=colours]", "mask")

    session = page.url
    phone = browser.new_page(viewport=PHONE, has_touch=True)
    phone.goto(session)
    phone.wait_for_timeout(1_500)
    shot("phone", phone)
    phone.close()

    masks(page, address, shot)
    page.goto(f"{address}#/")
    page.wait_for_selector(".recents a")
    shot("home", page)
    folder(page, address, shot)
    train(page, address, shot)


def masks(page: Page, address: str, shot: Callable[[str, Page], None]) -> None:
    """Find masks for mid and side of a stereo recording, and add a curve."""
    samples, rate = soundfile.read(EXAMPLE, dtype="float32")
    recording, curve = io.BytesIO(), b"hz,dB\n30,5\n200,1\n1000,0\n4000,-2\n16000,-6\n"
    soundfile.write(recording, np.stack([samples, 0.6 * np.roll(samples, 500)], axis=1), rate, format="WAV")
    page.goto(f"{address}#/")
    name = "Suite in stereo.wav"
    page.set_input_files(
        "input[type=file]", {"name": name, "mimeType": "audio/wav", "buffer": recording.getvalue()}
    )
    page.get_by_role("combobox", name="Masks").select_option("Mid and side")
    page.get_by_role("button", name="Enhance", exact=True).click()
    page.locator(".components").get_by_role("button", name="Side").click()
    page.set_input_files(".curve-file input", {"name": "house.csv", "mimeType": "text/csv", "buffer": curve})
    page.wait_for_selector(".rechecking")
    page.wait_for_selector(".rechecking", state="detached")
    page.locator(".curve-file").scroll_into_view_if_needed()
    page.wait_for_timeout(4_000)  # until the message is gone
    shot("masks", page)


def folder(page: Page, address: str, shot: Callable[[str, Page], None]) -> None:
    """Enhance a folder."""
    page.goto(f"{address}#/folder")
    choose(page, "Recordings to enhance", "Suite, first takes")
    choose(page, "Save in")
    page.get_by_role("button", name="Enhance the folder").click()
    page.wait_for_selector(".results >> text=6 of 7 done, 1 failed", timeout=120_000)
    page.get_by_role("button", name="Play enhanced").nth(1).click()
    page.wait_for_timeout(300)
    page.evaluate("scrollTo(0, 400)")
    shot("folder", page)


def train(page: Page, address: str, shot: Callable[[str, Page], None]) -> None:
    """Audit two folders and start a training."""
    page.goto(f"{address}#/train")
    choose(page, "Reference folder", "Good cello")
    choose(page, "Source folder", "Plain cello")
    page.fill("#name", "good cello")
    page.fill("#domain", "solo cello, dry")
    page.get_by_role("button", name="Check the folders").click()
    page.wait_for_selector(".slot .verdict", timeout=60_000)
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_selector(".curve .line.judge", state="attached", timeout=600_000)
    page.wait_for_timeout(2_000)
    page.evaluate("scrollTo(0, 1000)")
    shot("train", page)
    page.get_by_role("button", name="Cancel").click()


def choose(page: Page, field: str, name: str | None = None) -> None:
    """Choose a folder right below the root, or the root itself."""
    page.get_by_role("button", name=f"Choose: {field}").click()
    page.wait_for_selector(".places li")
    if name:
        page.locator(".places").get_by_role("button", name=name).click()
        page.wait_for_timeout(300)
    page.get_by_role("button", name="Choose this folder").click()


def draw(page: Page, tool: str, left: float, right: float, low: float, high: float) -> None:
    """Draw a note or an area, from shares of the width and two frequencies."""
    from math import log

    box: Any = page.locator(".layer").bounding_box()
    heights = [box["y"] + box["height"] * (1 - log(hz / 40) / log(500)) for hz in (high, low)]
    page.keyboard.press(tool)
    page.mouse.move(box["x"] + left * box["width"], heights[0])
    page.mouse.down()
    page.mouse.move(box["x"] + right * box["width"], heights[1], steps=5)
    page.mouse.up()
    page.wait_for_timeout(150)


def keep(path: Path, page: Page) -> None:
    """Write a picture in 256 colours, or fewer if it is too large."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    # The page's own colours as they are, the picture's by median cut; without dither, what is
    # even stays even, and packs well.
    counted: Any = sorted(image.getcolors(1 << 24) or [], reverse=True)
    own = [tuple(map(int, colour)) for colour in page.evaluate(INKS)]
    own += [colour for _, colour in counted[: OWN_COLOURS - len(own)]]
    for colours in (256, 128, 64):
        cut = image.quantize(colours - len(own)).getpalette() or []
        palette = Image.new("P", (1, 1))
        palette.putpalette([*(value for colour in own for value in colour), *cut])
        buffer = io.BytesIO()
        reduced = image.quantize(palette=palette, dither=Image.Dither.NONE)
        reduced.save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MOST_BYTES:
            break
    path.write_bytes(buffer.getvalue())
    print(f"{path} {buffer.tell() // 1024} kB")


@contextmanager
def run_studio(folder: Path, root: Path) -> Iterator[str]:
    """Run a studio during a block; yield its address."""
    command = [sys.executable, "-m", "tonewood", "studio", "--port", "0", "--no-browser"]
    command += ["--folder", str(folder), "--root", str(root), "-m", MODEL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def write_folders(root: Path) -> None:
    """Write folders to enhance and for training: excerpts of the example, plain and enhanced."""
    samples, rate = soundfile.read(EXAMPLE, dtype="float32", always_2d=True)
    good = enhance(samples.T, rate, load(MODEL)).samples.T
    piece = len(samples) // 5
    names = ("Prelude", "Allemande", "Courante", "Sarabande", "Gigue")
    for folder, content in (("Plain cello", samples), ("Good cello", good)):
        for turn in range(7):
            path = root / folder / f"{folder.split()[0].lower()} take {turn + 1}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            start = turn * piece // 8
            soundfile.write(path, content[start:], rate)
    for number, name in enumerate(names):
        path = root / "Suite, first takes" / f"{number + 1} {name}.flac"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples[number * piece : (number + 1) * piece], rate)
    mixed = 0.5 * good[:piece] + 0.5 * samples[:piece]
    soundfile.write(root / "Suite, first takes" / "6 Encore.flac", mixed, rate)
    (root / "Suite, first takes" / "7 Interrupted.flac").write_bytes(EXAMPLE.read_bytes()[:90_000])


if __name__ == "__main__":
    main()
