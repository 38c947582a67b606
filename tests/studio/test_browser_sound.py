"""What is heard, in a real browser: joined to the sample, and looped."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.studio.conftest import Live
from tests.studio.page import played, position, until

# Notes when every piece of sound starts, and how long it lasts, on the audio clock.
WATCH = """
window.pieces = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, offset) {
  window.pieces.push([when, this.buffer.duration - offset]);
  return start.call(this, when, offset);
};
"""


def test_pieces_of_sound_join_to_the_sample(visit: Callable[..., Any], live: Live, enhanced: str) -> None:
    page = visit()
    page.context.add_init_script(WATCH)
    page.goto(f"{live.url}?#/s/{enhanced}")
    page.wait_for_selector(".overview > div")
    page.keyboard.press("Space")
    until(page, lambda: len(page.evaluate("pieces")) >= 10)
    page.keyboard.press("Space")
    pieces = page.evaluate("pieces")
    inputs, outputs = pieces[0::2], pieces[1::2]
    assert inputs == outputs  # at the same moments, so that A/B is only a matter of gains
    for (when, lasts), (then, _) in itertools.pairwise(inputs):
        assert then - when - lasts == pytest.approx(0, abs=1e-3 / 44_100)


def test_a_loop_is_drawn_and_kept_to(visit: Callable[..., Any], live: Live, enhanced: str) -> None:
    page = visit()
    page.goto(f"{live.url}#/s/{enhanced}")
    page.wait_for_selector(".overview > div")
    page.keyboard.press("l")
    box = page.locator(".layer").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.26 * box["width"], box["y"] + 60, steps=3)
    page.mouse.up()
    assert page.get_by_role("button", name="Loop").first.get_attribute("aria-pressed") == "true"
    page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + 90)
    page.keyboard.press("Space")
    played(page, 1.9)
    positions: list[float] = []

    def went_round() -> bool:
        positions.append(position(page))
        return any(later < earlier for earlier, later in itertools.pairwise(positions))

    until(page, went_round)
    assert max(positions) <= 2.75
