"""Notes, areas and searches in the hand, in a real browser: by pointer, by keys, in two tabs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.studio.conftest import Live
from tests.studio.page import position, retold, state, until


def test_a_note_is_worked_by_keys_alone(visit: Callable[..., Any], live: Live, enhanced: str) -> None:
    page = visit()
    page.goto(f"{live.url}#/s/{enhanced}")
    page.get_by_role("button", name="Add a note").focus()
    page.keyboard.press("Enter")
    note = page.locator(".note")
    note.wait_for()
    told = [note.get_attribute("aria-label")]
    for key in ("ArrowRight", "ArrowUp", "Shift+ArrowRight", "-", "p", "m"):
        note.press(key)
        until(page, lambda: note.get_attribute("aria-label") != told[-1])
        told.append(note.get_attribute("aria-label"))
    assert "pinned, muted" in told[-1]
    assert "+5.0 dB" in told[-1]
    assert told[1].split(",")[1] != told[0].split(",")[1]
    note.press("Delete")
    until(page, lambda: page.locator(".note").count() == 0)


def test_an_area_is_held_by_its_label_and_worked_by_keys(
    visit: Callable[..., Any], live: Live, enhanced: str
) -> None:
    page = visit()
    page.goto(f"{live.url}#/s/{enhanced}")
    page.wait_for_selector(".overview > div")
    page.get_by_role("button", name="Add an area").click()
    area = page.locator(".area")
    told = [area.get_attribute("aria-label")]
    assert "all of it, 2.00 kHz–20.0 kHz" in told[0]
    for key in ("-", "ArrowDown", "Shift+ArrowUp", "Shift+ArrowLeft"):
        area.press(key)
        until(page, lambda: area.get_attribute("aria-label") != told[-1])
        told.append(area.get_attribute("aria-label"))
    assert "45 %" in told[1]
    assert "all of it" not in told[-1]
    box = page.locator(".area .gain").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 5, box["y"] + 65, steps=3)
    page.mouse.up()
    until(page, lambda: area.get_attribute("aria-label") != told[-1])
    # Below it, the picture is still the picture's: a click goes there.
    whole = page.locator(".layer").bounding_box()
    page.mouse.click(whole["x"] + whole["width"] / 2, whole["y"] + 0.3 * whole["height"])
    until(page, lambda: position(page) > 4)
    area.press("Delete")
    until(page, lambda: page.locator(".area").count() == 0)


def test_a_slider_of_the_list_stays_in_the_hand(visit: Callable[..., Any], live: Live, enhanced: str) -> None:
    page = visit()
    page.goto(f"{live.url}#/s/{enhanced}")
    page.get_by_role("button", name="Add a note").click()
    slider = page.locator(".notes input")
    width = slider.bounding_box()["width"]
    slider.hover(position={"x": 0.6 * width, "y": 5})  # which waits until it stands still
    page.mouse.down()
    node, box = slider.element_handle(), slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    # Meanwhile the edit before is rendered, and told.
    until(page, lambda: (now := state(live, enhanced))["whole"] and now["edit"]["notes"])
    until(page, lambda: "examined" not in page.inner_text(".certificate"))
    page.mouse.move(box["x"] + 0.75 * box["width"], middle, steps=3)
    assert page.evaluate("it => it === document.querySelector('.notes input')", node)
    page.mouse.up()
    note = page.locator(".note")
    until(page, lambda: "+1" in note.get_attribute("aria-label"))
    note.press("Delete")
    until(page, lambda: page.locator(".note").count() == 0)


def test_two_tabs_show_the_same_edit(visit: Callable[..., Any], live: Live, enhanced: str) -> None:
    page = visit()
    page.goto(f"{live.url}#/s/{enhanced}")
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector(".overview > div")
    page.get_by_role("button", name="Add an area").click()
    until(other, lambda: other.locator(".area").count() == 1)
    other.keyboard.press("Control+z")
    until(page, lambda: page.locator(".area").count() == 0)


def test_search_again_keeps_pinned_notes(visit: Callable[..., Any], live: Live, enhanced: str) -> None:
    page = visit()
    page.goto(f"{live.url}#/s/{enhanced}")
    page.get_by_role("button", name="Add a note").click()
    page.locator(".note").press("p")
    until(page, lambda: "pinned" in page.locator(".note").get_attribute("aria-label"))
    before = state(live, enhanced)["found"]
    page.get_by_role("button", name="Search again").click()
    until(page, lambda: state(live, enhanced)["found"] != before)
    until(page, lambda: page.locator(".progress-slot > *").count() == 0)
    assert page.locator(".note").count() == 1
    page.locator(".note").press("Delete")
    until(page, lambda: page.locator(".note").count() == 0)


def test_cancel_stays_under_the_hand_while_the_search_is_told(
    visit: Callable[..., Any], live: Live, lasting: Path
) -> None:
    page = visit()
    page.set_input_files("input[type=file]", lasting)
    page.wait_for_selector(".session")
    session = page.url.rsplit("/", 1)[1]
    with live.client() as client:
        asked = client.post(f"/api/sessions/{session}/enhance", json={"steps": 200})
        assert asked.is_success, asked.text
    figure = page.locator(".progress-slot .figure")
    until(page, lambda: figure.count() == 1 and "score" in figure.inner_text())
    cancel = page.get_by_role("button", name="Cancel")
    cancel.hover()  # which waits until it stands still
    page.mouse.down()
    node = cancel.element_handle()
    for _ in range(3):
        retold(page, figure)
    assert page.evaluate("it => it === document.querySelector('.progress-slot button')", node)
    page.mouse.up()
    page.wait_for_selector("text=Cancelled; nothing was changed.")
