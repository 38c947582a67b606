"""Sculpting in a browser: typed values, resets, wheel, harmonics, versions, and edits of two pages."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.studio.browser_page import edit, state, wait_until
from tests.studio.conftest import Live


def test_values_are_typed_reset_and_turned_with_alt(
    open_session: Callable[[], Any], live: Live, enhanced_session: str
) -> None:
    page = open_session()
    kept = partial(edit, live, enhanced_session)

    # Amount: a click on the value types one, a double click resets the slider.
    page.locator(".amount .value").click()
    page.keyboard.type("42,5")
    page.keyboard.press("Enter")
    wait_until(page, lambda: kept()["amount"] == 0.425)
    page.locator("#amount").dblclick()
    wait_until(page, lambda: kept()["amount"] == 1.0)

    page.get_by_role("button", name="Add a note").click()
    value = page.locator(".notes .value")
    value.click()
    page.keyboard.type("−3.4 dB")
    page.keyboard.press("Enter")
    wait_until(page, lambda: [note["gain_db"] for note in kept()["notes"]] == [-3.4])

    # The wheel turns a selected note only with Alt; turns in a row are one step of undo.
    page.locator(".note").focus()
    page.locator(".note").hover()
    page.mouse.wheel(0, -100)
    page.keyboard.down("Alt")
    for _ in range(3):
        page.mouse.wheel(0, -100)
    page.keyboard.up("Alt")
    wait_until(page, lambda: [note["gain_db"] for note in kept()["notes"]] == [-1.9])
    page.keyboard.press("Control+z")
    wait_until(page, lambda: [note["gain_db"] for note in kept()["notes"]] == [-3.4])


def test_shape_and_inverse_are_kept_and_reset(
    open_session: Callable[[], Any], live: Live, enhanced_session: str
) -> None:
    page = open_session()
    kept = partial(edit, live, enhanced_session)

    def is_kept(name: str, value: float) -> bool:
        return bool(kept().get("shape", {}).get(name) == value)

    for label, typed, name, value in (
        ("Smooth, pitch", "0.5", "smooth_octaves", 0.5),
        ("Smooth, time", "1.25 s", "smooth_seconds", 1.25),
        ("Low limit", "200", "low_hz", 200),
        ("High limit", "4k", "high_hz", 4_000),
    ):
        page.get_by_role("button", name=f"{label}: off").click()
        page.keyboard.type(typed)
        page.keyboard.press("Enter")
        wait_until(page, partial(is_kept, name, value))
    page.get_by_role("button", name="Cuts only").click()
    wait_until(page, lambda: kept()["shape"]["direction"] == "cut")
    page.locator(".amount .value").click()
    page.keyboard.type("-100")
    page.keyboard.press("Enter")
    wait_until(page, lambda: kept()["amount"] == -1.0)
    wait_until(page, lambda: state(live, enhanced_session)["whole"])
    page.wait_for_selector("text=Moved away from the reference")
    # Resetting everything leaves the shape out again.
    page.locator("#amount").dblclick()
    for label in ("Smooth, pitch", "Smooth, time", "Low limit", "High limit"):
        page.get_by_role("slider", name=label).dblclick()
    page.locator("[data-direction=both]").click()
    wait_until(page, lambda: "shape" not in kept() and kept()["amount"] == 1.0)


def test_harmonics_are_edited_and_deleted_as_one(
    open_session: Callable[[], Any], live: Live, enhanced_session: str
) -> None:
    page = open_session()
    page.get_by_role("button", name="Add a note").click()
    page.get_by_role("button", name="Add an area").click()
    page.get_by_role("button", name="Harmonics").click()
    page.locator(".notes .value").first.click()
    page.keyboard.type("-5")
    page.keyboard.press("Enter")

    def notes() -> Any:
        return edit(live, enhanced_session)["notes"]

    wait_until(page, lambda: len(notes()) > 3 and {note["gain_db"] for note in notes()} == {-5.0})
    lowest = notes()[0]["hz"]
    assert all(abs(note["hz"] - lowest * n) < 0.01 * note["hz"] for n, note in enumerate(notes(), 1))
    assert page.locator(".notes li").count() == 2
    # The Tab key stops once for all of them; Page Down goes from one to the next.
    assert page.locator('.layer .block[tabindex="0"]').count() == 1
    page.locator(".note").first.press("PageDown")
    assert page.evaluate("document.activeElement.classList.contains('area')")
    page.keyboard.press("PageUp")
    assert page.evaluate("document.activeElement === document.querySelector('.note')")
    # Solo loops the time of the note, and plays it.
    page.get_by_role("button", name="Solo").first.click()
    wait_until(page, lambda: page.get_by_role("button", name="Pause").count() == 1)
    assert page.get_by_role("button", name="Loop", exact=True).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert page.get_by_role("button", name="Loop", exact=True).get_attribute("aria-pressed") == "false"
    # The focus goes to the next item.
    page.locator(".note").first.press("Delete")
    wait_until(page, lambda: notes() == [])
    assert page.evaluate("document.activeElement.classList.contains('area')")


def test_versions_keep_their_edits(
    open_session: Callable[[], Any], live: Live, enhanced_session: str
) -> None:
    page = open_session()
    page.get_by_role("button", name="Version B").click()
    page.get_by_role("button", name="Add a note").click()
    wait_until(page, lambda: len(edit(live, enhanced_session)["notes"]) == 1)
    page.get_by_role("button", name="Version A").click()
    wait_until(page, lambda: edit(live, enhanced_session)["notes"] == [])
    page.get_by_role("button", name="Version B").click()
    wait_until(page, lambda: page.locator(".note").count() == 1)


def test_edits_of_two_pages_are_joined(visit: Callable[..., Any], live: Live, enhanced_session: str) -> None:
    # Pages of different browsers do not hear of each other.
    pages = [visit(), visit()]
    for page in pages:
        page.goto(f"{live.url}#/s/{enhanced_session}")
        page.wait_for_selector(".overview > div")
    pages[0].get_by_role("button", name="Add a note").click()
    pages[1].get_by_role("button", name="Add an area").click()
    pages[1].locator("#amount").press("PageDown")

    kept = partial(edit, live, enhanced_session)

    page = pages[1]
    wait_until(page, lambda: len(kept()["notes"]) == len(kept()["areas"]) == 1 and kept()["amount"] < 1)
    wait_until(page, lambda: page.locator(".note").count() == 1)
