"""Helpers of the browser tests: waits and measurements."""

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile

from tests.studio.conftest import LONGEST_WAIT_S, Live


def wait_until(page: Any, holds: Callable[[], bool], seconds: float = LONGEST_WAIT_S) -> None:
    """Wait for a condition; the content security policy forbids Playwright's own wait."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never came to hold")


# Resolves after the next drawing. The page says with aria-busy that parts of the picture have not arrived.
_DRAWN = """new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
  const canvas = document.querySelector(".picture canvas");
  done(canvas.getAttribute("aria-busy") === "false" ? canvas.toDataURL() : null);
})))"""


def picture(page: Any) -> str:
    """Return the pixels of the picture once all parts of it have arrived."""
    shown: list[str] = []

    def arrives() -> bool:
        pixels = page.evaluate(_DRAWN)
        if pixels:
            shown.append(pixels)
        return bool(pixels)

    wait_until(page, arrives)
    return shown[-1]


def press(page: Any, part: Any, position: dict[str, float] | None = None) -> None:
    """Press the pointer on an element and hold it. Try again if the element moved before the press."""

    def presses() -> bool:
        part.hover(position=position)  # waits until it stops moving
        page.mouse.down()
        pressed: bool = part.evaluate("it => it === document.activeElement")
        if not pressed:
            page.mouse.up()
        return pressed

    wait_until(page, presses)


def wait_for_change(page: Any, part: Any) -> None:
    """Wait until the text of an element changes."""
    text = part.inner_text()
    wait_until(page, lambda: part.inner_text() != text)


def position(page: Any) -> float:
    """Return the position in seconds that the page shows."""
    return float(page.inner_text(".time b").split(":")[1])


def wait_until_played(page: Any, seconds: float) -> None:
    """Wait until playback has passed a position."""
    wait_until(page, lambda: position(page) > seconds)


def choose_folder(page: Any, folder: str) -> None:
    """Choose the folder that the dialogue shows."""
    wait_until(page, lambda: folder in page.inner_text(".trail"))
    page.get_by_role("button", name="Choose this folder").click()


def sound(live: Live, session: str) -> np.ndarray:
    """Return the first channel of the downloaded output."""
    with live.client() as client:
        answer = client.get(f"/api/sessions/{session}/take/audio?format=wav")
    samples, _ = soundfile.read(io.BytesIO(answer.content), always_2d=True)
    first: np.ndarray = samples[:, 0]
    return first


def state(live: Live, session: str) -> dict[str, Any]:
    """Return the current state of a session."""
    with live.client() as client:
        current: dict[str, Any] = client.get(f"/api/sessions/{session}/state").json()
    return current


def edit(live: Live, session: str) -> dict[str, Any]:
    """Return the edit of a session as the server has it."""
    stored: dict[str, Any] = state(live, session)["edit"]
    return stored


def level_db(samples: np.ndarray, start_s: float, end_s: float, low: float, high: float) -> float:
    """Return the level in a band over a time range."""
    part = samples[int(start_s * 44_100) : int(end_s * 44_100)]
    power = np.abs(np.fft.rfft(part * np.hanning(len(part)))) ** 2
    hz = np.fft.rfftfreq(len(part), 1 / 44_100)
    return 10 * float(np.log10(power[(hz > low) & (hz < high)].sum()))
