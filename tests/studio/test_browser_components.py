"""Masks of their own for mid and side in a browser: chosen, drawn, heard, edited, undone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.studio.browser_page import picture, state, wait_until
from tests.studio.browser_sound import Recorder, plays
from tests.studio.conftest import EXAMPLE, NOTE, Live, change_edit, decode_samples, upload_recording


@pytest.mark.parametrize(
    ("choice", "link", "titles"),
    [("Mid and side", "mid-side", ["Mid", "Side"]), ("Left and right", "off", ["Left", "Right"])],
)
def test_separate_masks_are_drawn_heard_edited_and_undone(
    visit: Callable[..., Any], live: Live, tmp_path: Path, choice: str, link: str, titles: list[str]
) -> None:
    samples, rate = soundfile.read(EXAMPLE, dtype="float32")
    left, right = samples[: 6 * rate], np.roll(samples, 500)[: 6 * rate]
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, 0.6 * right], axis=1), rate)
    with live.client() as client:
        session = upload_recording(client, tmp_path / "stereo.wav")["id"]
    base = f"/api/sessions/{session}"

    def server(which: str) -> np.ndarray:
        with live.client() as client:
            channel: np.ndarray = decode_samples(client.get(f"{base}/sound/{which}?start=0&stop=176400"))[0]
        return channel

    page = visit(bypass_csp=True)  # the worklet that records is not the server's
    recorder = Recorder(page, server("input"))
    page.goto(f"{live.url}?#/s/{session}")
    page.wait_for_selector(".overview > div")
    switch = page.get_by_role("group", name="Mask of")
    assert switch.count() == 0
    page.get_by_role("combobox", name="Masks").select_option(choice)
    page.get_by_role("button", name="Enhance", exact=True).click()
    switch.wait_for()  # once the masks are found
    assert state(live, session)["link"] == link
    assert switch.locator("button").all_inner_texts() == titles

    page.reload()  # the scale of the colours is known once the page is ready
    page.wait_for_selector(".overview > div")

    # The picture and the average EQ show one component, then the other.
    def average() -> str:
        return str(page.locator(".average .mean").get_attribute("points"))

    means = [average()]

    def shown(number: int) -> str:
        """Show a component and return its picture, once the scale of its colours is known."""
        switch.get_by_role("button", name=titles[number]).click()
        if len(means) == 1:
            wait_until(page, lambda: average() != means[0])
            means.append(average())
        wait_until(page, lambda: average() == means[number])
        return picture(page)

    shown(1)  # the loudest level of all sets the colours
    first, second = shown(0), shown(1)
    assert first != second
    assert shown(0) == first

    # An edit is of both masks. The page filters as the server renders.
    page.route("**/whole", lambda route: route.fulfill(json={"id": "never", "state": "queued"}))
    page.reload()
    page.wait_for_selector(".overview > div")
    with live.client() as client:
        change_edit(client, {"id": session}, amount=0.9, notes=[{**NOTE, "seconds": 1.0}])
    page.reload()
    page.wait_for_selector(".note")
    page.get_by_role("button", name="Loop", exact=True).click()
    with page.expect_response("**/levels?found=*"):
        page.keyboard.press("Space")
    wait_until(page, lambda: plays(recorder, server("output")))
    page.keyboard.press("Space")
    page.unroute("**/whole")
    page.reload()
    wait_until(page, lambda: state(live, session)["whole"])

    # One equaliser cannot stand for two masks.
    assert page.get_by_text("For your DAW or player").count() == 1
    assert page.get_by_text("For your DAW or player").is_hidden()

    # Undo goes back to before the search.
    def undone() -> bool:
        page.keyboard.press("Control+z")
        page.wait_for_timeout(150)
        return not state(live, session)["undo"]

    wait_until(page, undone)
    wait_until(page, lambda: switch.count() == 0)
