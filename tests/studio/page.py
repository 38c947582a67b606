"""What tests in a browser wait for and measure."""

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile

from tests.studio.conftest import LONGEST_WAIT_S, Live


def until(page: Any, holds: Callable[[], bool], seconds: float = LONGEST_WAIT_S) -> None:
    """Wait for something to hold; the page's policy forbids Playwright's own way."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never came to hold")


def retold(page: Any, part: Any) -> None:
    """Wait until a part of the page says something else."""
    told = part.inner_text()
    until(page, lambda: part.inner_text() != told)


def position(page: Any) -> float:
    """Seconds that the page shows."""
    return float(page.inner_text(".time b").split(":")[1])


def played(page: Any, seconds: float) -> None:
    """Wait until playing has passed a moment."""
    until(page, lambda: position(page) > seconds)


def chosen(page: Any, folder: str) -> None:
    """Choose the folder that the dialogue has gone to."""
    until(page, lambda: folder in page.inner_text(".trail"))
    page.get_by_role("button", name="Choose this folder").click()


def sound(live: Live, session: str) -> np.ndarray:
    """The output as it is downloaded, (samples,)."""
    with live.client() as client:
        answer = client.get(f"/api/sessions/{session}/take/audio?format=wav")
    samples, _ = soundfile.read(io.BytesIO(answer.content), always_2d=True)
    first: np.ndarray = samples[:, 0]
    return first


def state(live: Live, session: str) -> dict[str, Any]:
    """How a session stands."""
    with live.client() as client:
        told: dict[str, Any] = client.get(f"/api/sessions/{session}/state").json()
    return told


def level_db(samples: np.ndarray, start_s: float, end_s: float, low: float, high: float) -> float:
    """Level in a band between two moments."""
    part = samples[int(start_s * 44_100) : int(end_s * 44_100)]
    power = np.abs(np.fft.rfft(part * np.hanning(len(part)))) ** 2
    hz = np.fft.rfftfreq(len(part), 1 / 44_100)
    return 10 * float(np.log10(power[(hz > low) & (hz < high)].sum()))
