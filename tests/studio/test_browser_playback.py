"""Playback in a browser: gapless ranges, loops, and edits that are filtered in the page."""

import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.studio.browser_page import position, state, wait_until, wait_until_played
from tests.studio.browser_sound import Recorder, gain_of, is_about_one, plays, residual_db
from tests.studio.conftest import NOTE, Live, change_edit, decode_samples

# Notes when every piece of sound starts, and how long it lasts, on the audio clock.
WATCH = """
window.pieces = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, offset) {
  window.pieces.push([when, this.buffer.duration - offset]);
  return start.call(this, when, offset);
};
"""


def test_played_ranges_join_without_gap(visit: Callable[..., Any], live: Live, enhanced_session: str) -> None:
    page = visit()
    page.context.add_init_script(WATCH)
    page.goto(f"{live.url}?#/s/{enhanced_session}")
    page.wait_for_selector(".overview > div")
    page.keyboard.press("Space")
    wait_until(page, lambda: len(page.evaluate("pieces")) >= 10)
    page.keyboard.press("Space")
    pieces = page.evaluate("pieces")
    inputs, outputs = pieces[0::2], pieces[1::2]
    assert inputs == outputs  # at the same times, so that A/B only changes gains
    for (when, lasts), (then, _) in itertools.pairwise(inputs):
        assert then - when - lasts == pytest.approx(0, abs=1e-3 / 44_100)


def test_loop_is_drawn_and_played(open_session: Callable[[], Any]) -> None:
    page = open_session()
    page.keyboard.press("l")
    box = page.locator(".layer").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.26 * box["width"], box["y"] + 60, steps=3)
    page.mouse.up()
    assert page.get_by_role("button", name="Loop").first.get_attribute("aria-pressed") == "true"
    page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + 90)
    page.keyboard.press("Space")
    wait_until_played(page, 1.9)
    positions: list[float] = []

    def went_round() -> bool:
        positions.append(position(page))
        return any(later < earlier for earlier, later in itertools.pairwise(positions))

    wait_until(page, went_round)
    assert max(positions) <= 2.75


def turn(page: Any, amount: float, event: str) -> None:
    """Move the amount slider (`input`) or let it go (`change`)."""
    page.evaluate(
        """([amount, event]) => {
          const slider = document.getElementById("amount");
          slider.value = amount;
          slider.dispatchEvent(new Event(event));
        }""",
        [amount, event],
    )


def is_at_a_gain(played: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether a millisecond is the expected one at a gain within 1 dB, estimated or exact."""
    return residual_db(played, expected) < -50 and is_about_one(gain_of(played, expected))


def fades(played: np.ndarray, parts: list[np.ndarray]) -> bool:
    """Return whether a millisecond is a mix of two sounds, whose shares change linearly."""
    ramp = np.linspace(-1, 1, len(played))
    columns = np.stack([column for part in parts for column in (part, part * ramp)], axis=1)
    shares, *_ = np.linalg.lstsq(columns, played, rcond=None)
    rest = played - columns @ shares
    return bool(np.mean(rest**2) < 1e-5 * np.mean(parts[1] ** 2)) and is_about_one(shares[0] + shares[2])


SOUNDS = "performance.getEntriesByName('change-to-sound').length"
APPROXIMATIONS = "performance.getEntriesByName('change-to-approximation').length"


def test_edit_is_filtered_in_the_page_until_its_rendering_takes_over(
    visit: Callable[..., Any], live: Live, enhanced_session: str
) -> None:
    base = f"/api/sessions/{enhanced_session}"

    def server(which: str, amount: float) -> np.ndarray:
        with live.client() as client:
            answer = client.get(f"{base}/sound/{which}?start=0&stop=176400&amount={amount}")
        channel: np.ndarray = decode_samples(answer)[0]
        return channel

    # Everything that changes a mask. The two notes overlap; one is above the mask's rows.
    shape = {
        "smooth_octaves": 0.4,
        "smooth_seconds": 0.35,
        "low_hz": 150.0,
        "high_hz": 5_000.0,
        "direction": "cut",
    }
    notes = [
        {**NOTE, "seconds": 1.0},
        {**NOTE, "id": "n2", "hz": 1_200.0, "seconds": 1.4, "gain_db": -14.0},
        {**NOTE, "id": "n3", "hz": 12_000.0, "height_hz": 4_000.0, "seconds": 0.7},
    ]
    area = {"id": "a", "start_s": 0.3, "end_s": 1.2, "low_hz": 300.0, "high_hz": 2_000.0, "amount": 2.0}
    with live.client() as client:
        change_edit(client, {"id": enhanced_session}, amount=0.7, shape=shape, notes=notes, areas=[area])
        while client.get(base).json()["jobs"]:  # a rendering for the test before would change the levels
            time.sleep(0.1)

    page = visit(bypass_csp=True)  # the worklet that records is not the server's
    recorder = Recorder(page, server("input", 1))
    page.route("**/whole", lambda route: route.fulfill(json={"id": "never", "state": "queued"}))
    page.goto(f"{live.url}?#/s/{enhanced_session}")
    page.wait_for_selector(".overview > div")
    page.get_by_role("button", name="Loop", exact=True).click()
    with page.expect_response("**/levels?found=*"):  # those of all amounts
        page.keyboard.press("Space")
    wait_until(page, lambda: len(page.evaluate("pieces")) > 1)

    def was_heard(changes: int) -> bool:
        return bool(page.evaluate(SOUNDS) >= changes)

    # The page interpolates the level of an amount that is not stored.
    for number, (amount, gain_db) in enumerate(((0.7, 0.001), (0.0, 0.001), (0.35, 0.1))):
        if number:
            turn(page, amount, "input")
            wait_until(page, partial(was_heard, number))
        wait_until(page, partial(plays, recorder, server("output", amount), gain_db))
    assert page.evaluate(APPROXIMATIONS) == 0

    # The rendering takes over: in no millisecond is anything heard but the output, at a gain.
    page.unroute("**/whole")
    amounts = itertools.cycle([0.35, 0.6])

    def takes_over_without_a_click() -> bool:
        """Render another amount. A busy machine may leave gaps in the sound: then it is tried again."""
        amount = next(amounts)
        begin, _ = recorder.wait_for(0)
        turn(page, amount, "input")
        turn(page, amount, "change")
        wait_until(page, lambda: rendered_amount() == amount)
        # Pieces of input and output that start together.
        wait_until(page, lambda: page.evaluate("pieces.at(-1)[0] === pieces.at(-2)[0]"))
        _, end = recorder.wait_for(2.0)
        sounds = [server("output", each) for each in (before[0], amount)]
        before[0], took_over = amount, False
        for place, run in recorder.played(begin, end):
            for at in range(0, len(run) - 44, 44):
                heard = run[at : at + 44]
                parts = [sound[place + at : place + at + 44] for sound in sounds]
                if min(np.max(np.abs(part)) for part in parts) < 1e-3:
                    continue
                if not any(is_at_a_gain(heard, part) for part in parts) and not fades(heard, parts):
                    return False
                took_over = took_over or (
                    residual_db(heard, parts[1]) < -90 and abs(gain_of(heard, parts[1]) - 1) < 1e-6
                )
        return took_over

    def rendered_amount() -> float | None:
        now = state(live, enhanced_session)
        return float(now["edit"]["amount"]) if now["whole"] else None

    before = [0.35]
    wait_until(page, takes_over_without_a_click)

    page.get_by_role("slider", name="Volume").press("Home")
    recorder.wait_for(0.3)

    def is_silent() -> bool:
        runs = recorder.played(*recorder.wait_for(0.2))
        return bool(runs) and max(np.max(np.abs(run)) for _, run in runs) < 1e-4

    wait_until(page, is_silent)


def test_browser_without_worklets_plays_a_mix_first(
    visit: Callable[..., Any], live: Live, enhanced_session: str
) -> None:
    page = visit()
    page.context.add_init_script("delete BaseAudioContext.prototype.audioWorklet")
    page.goto(f"{live.url}?#/s/{enhanced_session}")
    page.wait_for_selector(".overview > div")
    page.keyboard.press("Space")
    wait_until_played(page, 0.1)
    turn(page, 0.5, "input")
    wait_until(page, lambda: page.evaluate(SOUNDS) > 0)
    assert page.evaluate(APPROXIMATIONS) > 0
