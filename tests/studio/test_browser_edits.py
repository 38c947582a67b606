"""Editing in a browser: notes, regions and searches, by pointer and keyboard, in two tabs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.studio.browser_page import edit, picture, position, press, state, wait_for_change, wait_until
from tests.studio.conftest import NOTE, Live, change_edit, upload_recording, wait_for_job


def test_note_is_edited_by_keyboard(open_session: Callable[[], Any]) -> None:
    page = open_session()
    page.get_by_role("button", name="Add a note").focus()
    page.keyboard.press("Enter")
    note = page.locator(".note")
    note.wait_for()
    reported = [note.get_attribute("aria-label")]
    for key in ("ArrowRight", "ArrowUp", "Shift+ArrowRight", "-", "p", "m"):
        note.press(key)
        wait_until(page, lambda: note.get_attribute("aria-label") != reported[-1])
        reported.append(note.get_attribute("aria-label"))
    assert "pinned, muted" in reported[-1]
    assert "+5.0 dB" in reported[-1]
    assert reported[1].split(",")[1] != reported[0].split(",")[1]
    note.press("Delete")
    wait_until(page, lambda: page.locator(".note").count() == 0)


def test_region_is_moved_by_label_and_edited_by_keyboard(open_session: Callable[[], Any]) -> None:
    page = open_session()
    page.get_by_role("button", name="Add an area").click()
    area = page.locator(".area")
    reported = [area.get_attribute("aria-label")]
    assert "all of it, 2.00 kHz–20.0 kHz" in reported[0]
    for key in ("-", "ArrowDown", "Shift+ArrowUp", "Shift+ArrowLeft"):
        area.press(key)
        wait_until(page, lambda: area.get_attribute("aria-label") != reported[-1])
        reported.append(area.get_attribute("aria-label"))
    assert "45 %" in reported[1]
    assert "all of it" not in reported[-1]
    box = page.locator(".area .gain").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 5, box["y"] + 65, steps=3)
    page.mouse.up()
    wait_until(page, lambda: area.get_attribute("aria-label") != reported[-1])
    # Below the label, a click still moves the position.
    whole = page.locator(".layer").bounding_box()
    page.mouse.click(whole["x"] + whole["width"] / 2, whole["y"] + 0.3 * whole["height"])
    wait_until(page, lambda: position(page) > 4)
    area.press("Delete")
    wait_until(page, lambda: page.locator(".area").count() == 0)


def press_slider(page: Any) -> Any:
    """Press the slider of a note at +6 dB, without moving it, and return it."""
    slider = page.locator(".notes input").first
    press(page, slider, {"x": 0.6 * slider.bounding_box()["width"], "y": 5})
    return slider


def move_slider(page: Any, slider: Any) -> None:
    """Move a pressed slider to about +15 dB."""
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + box["height"] / 2, steps=3)


def test_slider_keeps_focus_during_updates(
    open_session: Callable[[], Any], live: Live, enhanced_session: str
) -> None:
    page = open_session()
    page.get_by_role("button", name="Add a note").click()
    slider = press_slider(page)
    node = slider.element_handle()
    # Meanwhile the previous edit is rendered and reported.
    wait_until(page, lambda: (now := state(live, enhanced_session))["whole"] and now["edit"]["notes"])
    wait_until(page, lambda: "Rechecking" not in page.inner_text(".certificate"))
    move_slider(page, slider)
    assert page.evaluate("it => it === document.querySelector('.notes input')", node)
    page.mouse.up()
    wait_until(page, lambda: "+1" in page.locator(".note").get_attribute("aria-label"))


def test_change_by_slider_outlasts_an_edit_of_another_tab(
    open_session: Callable[[], Any], live: Live, enhanced_session: str
) -> None:
    page = open_session()
    page.get_by_role("button", name="Add a note").click()
    wait_until(page, lambda: edit(live, enhanced_session)["notes"])
    other = page.context.new_page()
    other.goto(page.url)
    slider = press_slider(page)
    move_slider(page, slider)
    asked = f"/api/sessions/{enhanced_session}/state"
    with page.expect_response(lambda response: response.url.endswith(asked)):
        other.get_by_role("button", name="Add an area").click()
    page.wait_for_timeout(500)  # for the page to apply the answer
    assert float(slider.input_value()) > 10
    page.mouse.up()
    wait_until(page, lambda: "+1" in page.locator(".note").get_attribute("aria-label"))
    wait_until(page, lambda: edit(live, enhanced_session)["notes"][0]["gain_db"] > 10)


def test_two_tabs_show_the_same_edit(open_session: Callable[[], Any]) -> None:
    page = open_session()
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector(".overview > div")
    page.get_by_role("button", name="Add an area").click()
    wait_until(other, lambda: other.locator(".area").count() == 1)
    other.keyboard.press("Control+z")
    wait_until(page, lambda: page.locator(".area").count() == 0)


def test_search_again_keeps_pinned_notes(
    open_session: Callable[[], Any], live: Live, enhanced_session: str
) -> None:
    page = open_session()
    page.get_by_role("button", name="Add a note").click()
    page.locator(".note").press("p")
    wait_until(page, lambda: "pinned" in page.locator(".note").get_attribute("aria-label"))
    before = state(live, enhanced_session)["found"]
    page.get_by_role("button", name="Add a note").click()
    wait_until(page, lambda: len(edit(live, enhanced_session)["notes"]) == 2)
    page.get_by_role("button", name="Search again").click()
    page.get_by_label("Only pinned notes (1)").check()
    page.get_by_role("dialog").get_by_role("button", name="Search again").click()
    wait_until(page, lambda: state(live, enhanced_session)["found"] != before)
    wait_until(page, lambda: page.locator(".progress-slot > *").count() == 0)
    wait_until(page, lambda: page.locator(".note").count() == 1)
    assert "pinned" in page.locator(".note").get_attribute("aria-label")
    page.locator(".note").press("Delete")
    wait_until(page, lambda: page.locator(".note").count() == 0)


def test_long_search_tells_its_minute_is_heard_in_part_and_cancelled(
    visit: Callable[..., Any], live: Live, long_recording: Path
) -> None:
    page = visit()
    page.set_input_files("input[type=file]", long_recording)
    page.wait_for_selector(".session")
    session = page.url.rsplit("/", 1)[1]
    with live.client() as client:
        answer = client.post(f"/api/sessions/{session}/enhance", json={"steps": 20})
        assert answer.is_success, answer.text
    figure = page.locator(".progress-slot .figure")
    wait_until(page, lambda: figure.count() == 1 and ":" in figure.inner_text())
    wait_until(page, lambda: "minute 1 of 3" in page.inner_text(".progress-slot"))

    # The first half minute can be seen and heard before the rest is found.
    enhanced = page.get_by_role("button", name="Enhanced")
    with page.expect_response(lambda response: "/tiles/mask/" in response.url and response.ok):
        wait_until(page, enhanced.is_enabled)
    assert page.get_by_role("link", name="Audio").count() == 0
    with page.expect_response(lambda response: "/filter/0?mask=0&found=0" in response.url and response.ok):
        page.keyboard.press("Space")
    page.keyboard.press("2")
    page.locator("#amount").press("PageDown")
    wait_until(page, lambda: page.evaluate("performance.getEntriesByName('change-to-sound').length") > 0)
    page.keyboard.press("Space")

    # The button stays the same element while the text beside it changes.
    cancel = page.get_by_role("button", name="Cancel")
    press(page, cancel)
    node = cancel.element_handle()
    for _ in range(3):
        wait_for_change(page, figure)
    assert page.evaluate("it => it === document.querySelector('.progress-slot button')", node)
    page.mouse.up()
    page.wait_for_selector("text=Cancelled; nothing was changed.")
    wait_until(page, enhanced.is_disabled)


def test_search_again_shows_and_plays_its_parts_over_the_mask_before(
    visit: Callable[..., Any], live: Live, long_recording: Path
) -> None:
    with live.client() as client:
        session = upload_recording(client, long_recording)
        base = f"/api/sessions/{session['id']}"
        first = client.post(f"{base}/enhance", json={"steps": 0}).json()
        assert wait_for_job(client, first)["state"] == "done"
        change_edit(client, session, notes=[{**NOTE, "pinned": True}])
        wait_for_job(client, client.post(f"{base}/whole").json())

        def chunk(number: int, found: int) -> bytes:
            content: bytes = client.get(f"{base}/filter/{number}?found={found}").content
            return content

        page = visit()
        page.goto(f"{live.url}#/s/{session['id']}")
        page.wait_for_selector(".overview > div")
        page.keyboard.press("1")  # the loudest level of all sets the colours
        picture(page)
        page.keyboard.press("2")
        before = picture(page)

        def draws_part(response: Any) -> bool:
            return "/tiles/mask/" in response.url and "&found=1" in response.url and bool(response.ok)

        with page.expect_response(draws_part):
            assert client.post(f"{base}/again", json={"steps": 60}).is_success
        with page.expect_response(lambda response: "?mask=0&found=1" in response.url and response.ok):
            page.keyboard.press("Space")
        # The first half minute is the new mask, the last one still the mask before.
        assert chunk(0, 1) != chunk(0, 0)
        assert chunk(28, 1) == chunk(28, 0)
        page.keyboard.press("Space")
        with page.expect_response(draws_part):
            page.reload()

        # After Cancel, everything is as before.
        page.get_by_role("button", name="Cancel").click()
        page.wait_for_selector("text=Cancelled; nothing was changed.")
        wait_until(page, lambda: picture(page) == before)
        assert client.get(f"{base}/state").json()["found"] == 0
