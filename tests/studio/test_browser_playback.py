"""Playback in a browser: gapless ranges and loops."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.studio.browser_page import position, wait_until, wait_until_played
from tests.studio.conftest import Live

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
