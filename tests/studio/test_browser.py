"""The page in a browser: upload, compare, edit, download; folders; accessibility."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.studio.browser_page import (
    choose_folder,
    level_db,
    position,
    sound,
    state,
    wait_until,
    wait_until_played,
)
from tests.studio.conftest import EXAMPLE, Live, upload_recording

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"


def test_upload_enhance_edit_undo_download_and_reload(
    live: Live, visit: Callable[..., Any], tmp_path: Path
) -> None:
    page = visit()
    page.set_input_files("input[type=file]", EXAMPLE)
    page.wait_for_selector(".session")
    session = page.url.rsplit("/", 1)[1]

    # Nothing is called enhanced before there is something.
    assert page.get_by_role("link", name="Audio").count() == 0
    assert page.get_by_role("button", name="Enhanced").is_disabled()
    assert page.locator("#amount").is_disabled()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Shortcuts").get_by_role("button", name="Close").click()

    # Enhance: the score falls, the certificate comes.
    page.get_by_role("button", name="Enhance", exact=True).click()
    page.wait_for_selector(".verdict.good")
    assert page.get_by_role("button", name="Enhanced").get_attribute("aria-pressed") == "true"

    # A/B at the same position, by keys, while it plays.
    page.keyboard.press("Space")
    wait_until_played(page, 0.3)
    for key, name in (("1", "Original"), ("3", "Difference"), ("2", "Enhanced")):
        before, start = position(page), time.monotonic()
        page.keyboard.press(key)
        assert page.get_by_role("button", name=name).get_attribute("aria-pressed") == "true"
        wait_until_played(page, before)
        now, elapsed = position(page), time.monotonic() - start
        assert now < before + elapsed + 3  # playback continued from the same position
    # The slider is heard: the page filters with the new amount.
    slider = page.locator("#amount")
    slider.press("PageDown")
    wait_until(page, lambda: state(live, session)["edit"]["amount"] < 1.0)
    measured = "performance.getEntriesByName('change-to-sound').length"
    wait_until(page, lambda: page.evaluate(measured) > 0)
    assert page.evaluate("performance.getEntriesByName('change-to-approximation').length") == 0
    slider.dblclick()
    page.keyboard.press("Space")
    wait_until(page, lambda: page.inner_text(".amount .value") == "100 %")
    wait_until(page, lambda: state(live, session)["edit"]["amount"] == 1.0)
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
    wait_until(page, lambda: "−10.0 dB" in note.get_attribute("aria-label"))
    wait_until(page, lambda: [item["gain_db"] for item in state(live, session)["edit"]["notes"]] == [-10.0])
    changed = sound(live, session)
    inside = [level_db(item, 4.4, 5.6, 850, 1_200) for item in (plain, changed)]
    lower = [level_db(item, 4.4, 5.6, 100, 400) for item in (plain, changed)]
    later = [level_db(item, 7.0, 8.0, 850, 1_200) for item in (plain, changed)]
    matching = lower[1] - lower[0]  # all of it became louder, to be as loud as before
    assert later[1] - later[0] == pytest.approx(matching, abs=0.1)
    assert inside[1] - inside[0] - matching == pytest.approx(-10, abs=1.0)

    # Undo restores the sound exactly.
    def undone() -> bool:
        page.keyboard.press("Control+z")
        page.wait_for_timeout(150)
        return int(page.locator(".note").count()) == 0

    wait_until(page, undone)
    wait_until(page, lambda: state(live, session)["edit"]["notes"] == [])
    np.testing.assert_array_equal(sound(live, session), plain)
    page.keyboard.press("Control+Shift+z")
    wait_until(page, lambda: page.locator(".note").count() == 1)

    # Download with the page's links.
    assert "Found with soundfont-cello" in page.inner_text(".certificate")
    page.locator("summary", has_text="Documents").click()
    for link, ending in (("Audio", ".flac"), ("Recipe", ".recipe.json"), ("Session", "-session")):
        with page.expect_download() as download:
            page.get_by_role("link", name=link, exact=True).click()
        assert download.value.suggested_filename.endswith(ending)
        assert Path(download.value.path()).stat().st_size > 1_000

    # A reload changes nothing.
    page.reload()
    page.wait_for_selector(".note")
    assert "Note of" in page.locator(".note").get_attribute("aria-label")
    assert page.locator(".verdict.good").count() == 1


def test_session_is_renamed_and_deletion_is_undone(visit: Callable[..., Any], live: Live) -> None:
    page = visit()
    with live.client() as client:
        session = upload_recording(client, EXAMPLE, "three.flac")["id"]

    def titles() -> list[str]:
        with live.client() as client:
            return [item["title"] for item in client.get("/api/sessions").json() if item["id"] == session]

    page.reload()
    # Its waveform is drawn beside its name.
    drawing = page.locator("li", has_text="three.flac").locator(".thumbnail path")
    wait_until(page, lambda: (drawing.get_attribute("d") or "").count("M") == 48)
    page.get_by_role("button", name="Rename three.flac").click()
    page.keyboard.type("Suite, take 3")
    page.keyboard.press("Enter")
    wait_until(page, lambda: titles() == ["Suite, take 3"])
    delete = page.get_by_role("button", name="Delete Suite, take 3")
    delete.click()
    wait_until(page, lambda: delete.count() == 0)
    page.get_by_role("button", name="Undo").click()
    delete.click()
    wait_until(page, lambda: delete.count() == 0)
    assert titles() == ["Suite, take 3"]
    page.goto(f"{live.url}#/train")  # the page is left: the deletion is final
    wait_until(page, lambda: titles() == [])


def test_page_reports_upload_limit(visit: Callable[..., Any], live: Live, tmp_path: Path) -> None:
    page = visit()
    large = tmp_path / "large.wav"
    with large.open("wb") as file:
        file.truncate(2**31 + 2**29)
    page.set_input_files("input[type=file]", large)
    page.wait_for_selector("text=large.wav has 2.50 GiB; the limit is 2.00 GiB")


def test_page_records_from_microphone(visit: Callable[..., Any], live: Live) -> None:
    page = visit()
    page.get_by_role("button", name="Record", exact=True).click()
    stop = page.get_by_role("button", name="Stop")
    wait_until(page, lambda: stop.count() == 1 and "0:01" in stop.inner_text())
    stop.click()
    page.wait_for_selector(".session")
    assert page.inner_text(".title").startswith("Recording ")
    assert "WAV float" in page.inner_text(".facts")


def test_page_enhances_and_plays_a_folder(visit: Callable[..., Any], live: Live) -> None:
    page = visit()
    page.goto(f"{live.url}#/folder")
    for field, folder in (("Recordings to enhance", "short"), ("Save in", "empty")):
        page.get_by_role("button", name=f"Choose: {field}").click()
        page.locator(".places").get_by_role("button", name=folder).click()
        choose_folder(page, folder)
    page.get_by_role("button", name="Enhance the folder").click()
    wait_until(page, lambda: page.locator("tbody tr").count() == 3)
    page.wait_for_selector("text=2 of 3 done, 1 failed")
    page.get_by_role("button", name="Play original of short1.wav").click()
    assert page.locator("button[aria-pressed=true] .icon.solid").count() == 1
    page.get_by_role("button", name="Failed 1").click()
    assert page.locator("tbody tr").count() == 1
    page.get_by_role("button", name="All 3").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("name,state,verdict,before,after,change_db")
    assert len(lines) == 4
    # A row opens in the studio with the mask that was found, and without a new search.
    page.get_by_role("button", name="Open short1.wav in the studio").click()
    page.wait_for_selector(".session .verdict")
    assert page.inner_text(".title") == "short1.wav"


def test_page_starts_training_after_audit(visit: Callable[..., Any], live: Live) -> None:
    page = visit()
    page.goto(f"{live.url}#/train")
    train = page.get_by_role("button", name="Train", exact=True)
    for field, folder in (("Reference folder", "good"), ("Source folder", "takes")):
        assert train.is_disabled()
        page.get_by_role("button", name=f"Choose: {field}").click()
        page.locator(".places").get_by_role("button", name=folder).click()
        choose_folder(page, folder)
    page.get_by_role("button", name="Check the folders").click()
    page.wait_for_selector(".slot .error")  # the broken recording is named
    assert "broken.wav" in page.inner_text(".slot .error")
    assert train.is_disabled()


RUN_AXE = """axe.run().then(it => it.violations.map(
    v => [v.id, v.nodes.map(n => n.html.slice(0, 200) + n.failureSummary)]))"""
VIEWS = ("", "#/train", "#/folder", "#/s/{}")


@pytest.mark.parametrize(
    ("width", "scheme"), [(1_920, "light"), (1_280, "dark"), (768, "light"), (360, "dark")]
)
def test_page_is_accessible(
    visit: Callable[..., Any], live: Live, enhanced_session: str, width: int, scheme: str
) -> None:
    """Check contrast and labels with axe, and the width on a phone."""
    page = visit(width, scheme, bypass_csp=True)  # axe styles what it measures
    for view in VIEWS:
        page.goto(f"{live.url}{view.format(enhanced_session)}")
        wait_until(page, lambda: page.evaluate("performance.getEntriesByName('page-ready').length") > 0)
        page.wait_for_timeout(300)
        page.evaluate("for (const it of document.querySelectorAll('details')) it.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        if AXE.exists():
            page.evaluate(AXE.read_text(encoding="utf-8"))
            result = page.evaluate(RUN_AXE)
            assert result == [], view
        page.evaluate("performance.clearMarks()")
    if not AXE.exists():
        pytest.skip("axe-core is not here: run `npm ci` in web/")
