"""The page in a real browser: open, compare, change, take away; folders; nobody shut out."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.studio.conftest import EXAMPLE, Live
from tests.studio.page import chosen, level_db, played, position, sound, state, until

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"


def test_open_enhance_compare_change_undo_take_away_reload(
    live: Live, visit: Callable[..., Any], tmp_path: Path
) -> None:
    page = visit()
    page.set_input_files("input[type=file]", EXAMPLE)
    page.wait_for_selector(".session")
    session = page.url.rsplit("/", 1)[1]

    # Enhance: the score falls, the certificate comes.
    page.get_by_role("button", name="Enhance", exact=True).click()
    page.wait_for_selector(".verdict.good")
    assert page.get_by_role("button", name="Enhanced").get_attribute("aria-pressed") == "true"

    # A/B at the same position, by keys, while it plays.
    page.keyboard.press("Space")
    played(page, 0.3)
    for key, name in (("1", "Original"), ("3", "What changed"), ("2", "Enhanced")):
        before, start = position(page), time.monotonic()
        page.keyboard.press(key)
        assert page.get_by_role("button", name=name).get_attribute("aria-pressed") == "true"
        played(page, before)
        now, elapsed = position(page), time.monotonic() - start
        assert now < before + elapsed + 3  # playback continued from the same position
    # The slider is heard: a new generation of sound was scheduled.
    slider = page.locator("#amount")
    slider.press("PageDown")
    until(page, lambda: state(live, session)["edit"]["amount"] < 1.0)
    measured = "performance.getEntriesByName('change-to-sound').length"
    until(page, lambda: page.evaluate(measured) > 0)
    slider.press("End")
    page.keyboard.press("Space")
    until(page, lambda: page.inner_text(".amount output") == "100 %")
    until(page, lambda: state(live, session)["edit"]["amount"] == 1.0)
    plain = sound(live, session)

    # A note, drawn with the pointer and turned up by keys, is in the file, and only where it lies.
    page.keyboard.press("n")
    box = page.locator(".layer").bounding_box()
    high, low = (1 - np.log(hz / 40) / np.log(20_000 / 40) for hz in (1_400, 700))
    left, right = (box["x"] + box["width"] * s / 10 for s in (4.0, 6.0))
    page.mouse.move(left, box["y"] + box["height"] * high)
    page.mouse.down()
    page.mouse.move(right, box["y"] + box["height"] * low, steps=4)
    page.mouse.up()
    note = page.locator(".note")
    assert "+6.0 dB" in note.get_attribute("aria-label")
    for _ in range(16):  # down: up, the bound on all gains might hold it
        page.keyboard.press("-")
    until(page, lambda: "−10.0 dB" in note.get_attribute("aria-label"))
    until(page, lambda: [it["gain_db"] for it in state(live, session)["edit"]["notes"]] == [-10.0])
    changed = sound(live, session)
    inside = [level_db(it, 4.4, 5.6, 850, 1_200) for it in (plain, changed)]
    lower = [level_db(it, 4.4, 5.6, 100, 400) for it in (plain, changed)]
    later = [level_db(it, 7.0, 8.0, 850, 1_200) for it in (plain, changed)]
    matching = lower[1] - lower[0]  # all of it became louder, to be as loud as before
    assert later[1] - later[0] == pytest.approx(matching, abs=0.1)
    assert inside[1] - inside[0] - matching == pytest.approx(-10, abs=1.0)

    # Undo brings the sound back, to the last bit.
    def undone() -> bool:
        page.keyboard.press("Control+z")
        page.wait_for_timeout(150)
        return int(page.locator(".note").count()) == 0

    until(page, undone)
    until(page, lambda: state(live, session)["edit"]["notes"] == [])
    np.testing.assert_array_equal(sound(live, session), plain)
    page.keyboard.press("Control+Shift+z")
    until(page, lambda: page.locator(".note").count() == 1)

    # Take away, by the page's own links.
    for link, ending in (("Audio", ".flac"), ("Recipe", ".recipe.json"), ("Session", "-session")):
        with page.expect_download() as download:
            page.get_by_role("link", name=link, exact=True).click()
        assert download.value.suggested_filename.endswith(ending)
        assert Path(download.value.path()).stat().st_size > 1_000

    # Loaded again, all is as it was.
    page.reload()
    page.wait_for_selector(".note")
    assert "Note of" in page.locator(".note").get_attribute("aria-label")
    assert page.locator(".verdict.good").count() == 1


def test_a_recording_too_large_is_refused_with_the_limit(
    visit: Callable[..., Any], live: Live, tmp_path: Path
) -> None:
    page = visit()
    large = tmp_path / "large.wav"
    with large.open("wb") as file:
        file.truncate(2**31 + 2**29)
    page.set_input_files("input[type=file]", large)
    page.wait_for_selector("text=large.wav has 2.50 GiB; 2.00 GiB are taken at most")


def test_the_microphone_is_recorded(visit: Callable[..., Any], live: Live) -> None:
    page = visit()
    page.get_by_role("button", name="Record", exact=True).click()
    stop = page.get_by_role("button", name="Stop")
    until(page, lambda: stop.count() == 1 and "0:01" in stop.inner_text())
    stop.click()
    page.wait_for_selector(".session")
    assert page.inner_text(".title").startswith("Recording ")
    assert "WAV float" in page.inner_text(".facts")


def test_folders_are_chosen_enhanced_and_played(visit: Callable[..., Any], live: Live) -> None:
    page = visit()
    page.goto(f"{live.url}#/folder")
    for field, folder in (("folder of recordings", "takes"), ("where to", "empty")):
        page.get_by_role("button", name=f"Choose the {field}").click()
        page.locator(".places").get_by_role("button", name=folder).click()
        chosen(page, folder)
    page.get_by_role("button", name="Enhance the folder").click()
    until(page, lambda: page.locator("tbody tr").count() == 5)
    page.wait_for_selector("text=5 recordings done, of which 1 failed")
    page.get_by_role("button", name="Play original of takes1.wav").click()
    assert page.locator("button[aria-pressed=true] .icon.solid").count() == 1
    page.get_by_role("button", name="Failed 1").click()
    assert page.locator("tbody tr").count() == 1


def test_training_starts_after_the_audit(visit: Callable[..., Any], live: Live) -> None:
    page = visit()
    page.goto(f"{live.url}#/train")
    train = page.get_by_role("button", name="Train", exact=True)
    for field, folder in (("reference folder", "good"), ("source folder", "takes")):
        assert train.is_disabled()
        page.get_by_role("button", name=f"Choose the {field}").click()
        page.locator(".places").get_by_role("button", name=folder).click()
        chosen(page, folder)
    page.get_by_role("button", name="Check the folders").click()
    page.wait_for_selector(".slot .error")  # one take is broken, and named
    assert "broken.wav" in page.inner_text(".slot .error")
    assert train.is_disabled()


RUN_AXE = """axe.run().then(it => it.violations.map(
    v => [v.id, v.nodes.map(n => n.html.slice(0, 200) + n.failureSummary)]))"""
VIEWS = ("", "#/train", "#/folder", "#/s/{}")


@pytest.mark.parametrize(("width", "scheme"), [(1_280, "light"), (1_280, "dark"), (360, "light")])
def test_nobody_is_shut_out(
    visit: Callable[..., Any], live: Live, enhanced: str, width: int, scheme: str
) -> None:
    """Contrast, labels and the like, by axe; and nothing wider than a phone."""
    page = visit(width, scheme, bypass_csp=True)  # axe styles what it measures
    for view in VIEWS:
        page.goto(f"{live.url}{view.format(enhanced)}")
        until(page, lambda: page.evaluate("performance.getEntriesByName('page-ready').length") > 0)
        page.wait_for_timeout(300)
        page.evaluate("for (const it of document.querySelectorAll('details')) it.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        if AXE.exists():
            page.evaluate(AXE.read_text(encoding="utf-8"))
            found = page.evaluate(RUN_AXE)
            assert found == [], view
        page.evaluate("performance.clearMarks()")
    if not AXE.exists():
        pytest.skip("axe-core is not here: run `npm ci` in web/")
