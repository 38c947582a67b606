"""Measure the waits of the studio in a headless Chromium, with short and long recordings.

    python benchmarks/studio.py [--docs docs/studio.md] [--scratch FOLDER] [--minutes 3 60]

A studio as `tonewood studio` starts it, on the same machine as the browser. Every wait is what the
page itself marks: from the start of navigation, from the end of the upload, from the slider's event
to the moment that its sound is due. Needs `pip install '.[dev]'`, Chromium, 3 GB of disk an hour.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2 as httpx
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright
from speed.sounds import record

MODEL = "soundfont-cello"
ARGUMENTS = ["--no-sandbox", "--mute-audio", "--autoplay-policy=no-user-gesture-required"]
MARK = "performance.getEntriesByName('{}')[0]?.startTime ?? null"
SLIDER_WAITS = "performance.getEntriesByName('change-to-sound').map(entry => entry.duration)"
CLIENTS, REQUESTS, TURNS = 10, 15, 100


class Waits(NamedTuple):
    """Repeated measurements of one wait, ms."""

    what: str
    goal: str
    ms: list[float]

    def row(self) -> str:
        middle, last = np.median(self.ms), np.max(self.ms)
        return f"|{self.what}|{self.goal}|{_format_ms(middle)}|{_format_ms(last)}|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, help="page to fill")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp/tonewood-speed"))
    parser.add_argument("--minutes", type=int, nargs="*", default=[3, 60])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    waits = measure_waits(options)
    table = "\n".join(
        [
            f"{os.cpu_count()} cores, load {load:.1f} before; recordings in stereo at 44.1 kHz.",
            "",
            "||goal|median|longest|",
            "|---|---:|---:|---:|",
            *(wait.row() for wait in waits),
        ]
    )
    print(table)
    if options.docs:
        begin, end = "<!-- waits: begin -->\n", "<!-- waits: end -->"
        page = options.docs.read_text()
        head, tail = page.split(begin)[0], page.split(end)[1]
        options.docs.write_text(head + begin + table + "\n" + end + tail)


def measure_waits(options: argparse.Namespace) -> list[Waits]:
    """Measure everything, the short recording first."""
    waits: list[Waits] = []
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        with serve_studio(Path(folder)) as address:
            waits.append(measure_first_page(browser, address, options.repeats))
            sessions = []
            for minutes in options.minutes:
                take = record(options.scratch / f"{minutes} min.wav", 60 * minutes)
                session, measured = measure_recording(browser, address, take, minutes, options.repeats)
                sessions.append(session)
                waits += measured
                print(*(wait.row() for wait in waits), sep="\n", flush=True)
            if len(sessions) > 1:
                waits.append(measure_beside_search(browser, address, sessions[0], sessions[-1]))
        browser.close()
    return waits


def measure_first_page(browser: Browser, address: str, repeats: int) -> Waits:
    """Measure the time until the page is usable, with an empty cache."""
    ms = []
    for _ in range(repeats):
        page = browser.new_page()
        page.goto(address)
        ms.append(wait_for_value(page, MARK.format("page-ready")))
        page.close()
    return Waits("first page ready", "1 s", ms)


def measure_recording(
    browser: Browser, address: str, take: Path, minutes: int, repeats: int
) -> tuple[str, list[Waits]]:
    """Measure all waits with one recording; return its session and the waits."""
    name = f"{minutes} min" if minutes < 60 else f"{minutes // 60} h"
    visible_ms = []
    for _ in range(repeats if minutes < 60 else 1):
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector(".drop")
        page.set_input_files("input[type=file]", take)
        visible = wait_for_value(page, MARK.format("spectrogram-visible"), 300)
        upload_end = page.evaluate("performance.getEntriesByName('upload-ended').at(-1).startTime")
        visible_ms.append(visible - upload_end)
        session = page.url.rsplit("/", 1)[1]
        page.close()
    ready_ms = []
    for _ in range(repeats):
        if ready_ms:
            page.close()
        page = browser.new_page()  # the last one stays: a search ends when its last page goes
        page.goto(f"{address}#/s/{session}")
        ready_ms.append(wait_for_value(page, MARK.format("page-ready")))
    with httpx.Client(base_url=address, timeout=600) as client:
        base = f"/api/sessions/{session}"
        start_time = time.perf_counter()
        search(client, base)
        search_ms = 1000 * (time.perf_counter() - start_time)
        tile_ms = all_tiles(client, base)
        sound_ms = slider(browser, f"{address}#/s/{session}")
        request_ms = ten_clients(client, address, base)
    page.close()
    return session, [
        Waits(f"{name}: spectrogram after upload", "1.5 s" * (minutes <= 3), visible_ms),
        Waits(f"{name}: its page ready", "1 s", ready_ms),
        Waits(f"{name}: enhanced", "", [search_ms]),
        Waits(f"{name}: a tile", "", tile_ms),
        Waits(f"{name}: amount slider to sound", "20 ms", sound_ms),
        Waits(f"{name}: {CLIENTS} clients, beside a search", "", request_ms),
    ]


def search(client: httpx.Client, base: str) -> None:
    job = client.post(f"{base}/enhance", json={"force": True}).json()
    while job["state"] in ("queued", "running"):
        time.sleep(0.1)
        job = client.get(f"/api/jobs/{job['id']}").json()
    assert job["state"] == "done", job


def all_tiles(client: httpx.Client, base: str) -> list[float]:
    """Measure the first request of each picture, at every zoom level and three positions."""
    session = client.get(base).json()
    axes, key, ms = session["axes"], session["state"]["key"], []
    for level in range(axes["levels"]):
        count = int(np.ceil(session["seconds"] / (axes["finest_s"] * 2**level * axes["columns"])))
        for number in sorted({0, count // 2, count - 1}):
            for kind in ("input", "mask", "output"):
                path = f"{base}/tiles/{kind}/mel/{level}/{number}?key={key}"
                ms.append(time_request(client, path))
    return ms


def slider(browser: Browser, address: str) -> list[float]:
    """Measure the slider during playback, from its event until its sound leaves the audio graph.

    Between, the rendering of an amount takes over, and the next turn starts from that.
    """
    page = browser.new_page()
    page.goto(address)
    wait_for_value(page, MARK.format("page-ready"))
    page.keyboard.press("Space")
    page.wait_for_timeout(1_000)
    for turn in range(TURNS):
        page.wait_for_timeout(100)
        page.evaluate(
            "amount => { const slider = document.getElementById('amount'); slider.value = amount;"
            "slider.dispatchEvent(new Event('input')) }",
            0.95 - 0.01 * (turn % 90),
        )
        wait_for_value(page, f"{SLIDER_WAITS}.length > {turn} || null")
        if turn % 20 == 19:
            page.evaluate("document.getElementById('amount').dispatchEvent(new Event('change'))")
            page.wait_for_timeout(5_000)
    sound_ms: list[float] = page.evaluate(SLIDER_WAITS)
    page.close()
    return sound_ms


def measure_beside_search(browser: Browser, address: str, played: str, searched: str) -> Waits:
    """Measure the slider of one session while the mask of another is searched."""
    page = browser.new_page()
    page.goto(f"{address}#/s/{searched}")
    with httpx.Client(base_url=address, timeout=60) as client:
        job = client.post(f"/api/sessions/{searched}/enhance", json={"force": True, "steps": 200}).json()
        sound_ms = slider(browser, f"{address}#/s/{played}")
        assert client.get(f"/api/jobs/{job['id']}").json()["state"] == "running"
        client.delete(f"/api/jobs/{job['id']}")
    page.close()
    return Waits("the same, beside a search of the longest", "60 ms", sound_ms)


def ten_clients(client: httpx.Client, address: str, base: str) -> list[float]:
    """Measure ten clients at once, at different positions, while a search runs."""
    samples = client.get(base).json()["sound"]["samples"]
    job = client.post(f"{base}/enhance", json={"force": True, "steps": 200}).json()

    def look(number: int) -> list[float]:
        rng = np.random.default_rng(number)
        ms = []
        with httpx.Client(base_url=address, timeout=60) as own_client:
            for _ in range(REQUESTS):
                start = int(rng.integers(0, samples - 44_100))
                for path in (
                    "/",
                    f"{base}/tiles/input/log/{rng.integers(2, 6)}/0",
                    f"{base}/sound/output?start={start}&stop={start + 44_100}",
                ):
                    ms.append(time_request(own_client, path))
        return ms

    with ThreadPoolExecutor(CLIENTS) as pool:
        ms = [wait for waits in pool.map(look, range(CLIENTS)) for wait in waits]
    client.delete(f"/api/jobs/{job['id']}")
    return ms


def time_request(client: httpx.Client, path: str) -> float:
    start_time = time.perf_counter()
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return 1000 * (time.perf_counter() - start_time)


def wait_for_value(page: Page, expression: str, seconds: float = 30) -> Any:
    """Wait for the value of an expression."""
    for _ in range(int(seconds / 0.02)):
        if (value := page.evaluate(expression)) is not None:
            return value
        page.wait_for_timeout(20)
    raise TimeoutError(expression)


def _format_ms(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1_000 else f"{ms / 1000:.1f} s"


@contextmanager
def serve_studio(folder: Path) -> Iterator[str]:
    """Run a studio during a block; yield its address."""
    command = [sys.executable, "-m", "tonewood", "studio", "--port", "0", "--no-browser"]
    command += ["--folder", str(folder), "-m", MODEL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
