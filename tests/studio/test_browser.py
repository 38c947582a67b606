"""The page in a real browser: open, enhance, compare, change, take away; with eyes and without."""

import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.studio.conftest import EXAMPLE, Live

playwright = pytest.importorskip("playwright.sync_api")

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"
NAMES = ("chromium", "chromium-browser", "google-chrome")
# Sound is played though nobody hears it, and without a click before it.
ARGUMENTS = (
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    # A microphone that beeps.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of the system's."""
    named = os.environ.get("TONEWOOD_CHROMIUM")
    path = named or next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium on this machine: install it, or name it in TONEWOOD_CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, live: Live) -> Iterator[Callable[..., Any]]:
    """Open pages; whatever asked another host or went wrong in them fails the test."""
    contexts, asked, wrong = [], [], []

    def opened(width: int = 1_280, scheme: str = "light", **more: Any) -> Any:
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, **more)
        contexts.append(context)
        context.set_default_timeout(30_000)
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda it: wrong.extend([it.text] if it.type == "error" else []))
        page.goto(live.url)
        return page

    yield opened
    for context in contexts:
        context.close()
    outside = [url for url in asked if not url.startswith((live.url, "blob:", "data:"))]
    assert not outside
    assert not wrong


@pytest.fixture(scope="module")
def enhanced(live: Live) -> str:
    """Id of a session whose search is done."""
    from tests.studio.conftest import ended
    from tests.studio.conftest import opened as uploaded

    with live.client() as client:
        session = uploaded(client, EXAMPLE, "phrase.flac")
        job = client.post(f"/api/sessions/{session['id']}/enhance", json={}).json()
        assert ended(client, job)["state"] == "done"
    return str(session["id"])


def until(page: Any, holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something to hold; the page's policy forbids Playwright's own way."""
    for _ in range(int(seconds / 0.05)):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never came to hold")


def retold(page: Any, part: Any) -> None:
    """Wait until a part of the page says something else."""
    told = part.inner_text()
    until(page, lambda: part.inner_text() != told, 60)


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
        before = position(page)
        page.keyboard.press(key)
        assert page.get_by_role("button", name=name).get_attribute("aria-pressed") == "true"
        played(page, before)
        assert position(page) < before + 3  # it went on from where it was
    # The slider is heard: a new generation of sound was scheduled.
    slider = page.locator("#amount")
    slider.press("PageDown")
    measured = "performance.getEntriesByName('change-to-sound').length"
    until(page, lambda: page.evaluate(measured) > 0)
    slider.press("End")
    page.keyboard.press("Space")
    until(page, lambda: page.inner_text(".amount output") == "100 %")
    page.wait_for_timeout(200)
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
    page.wait_for_timeout(500)
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
    page.wait_for_timeout(200)
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


def test_a_note_is_worked_by_keys_alone(
    visit: Callable[..., Any], live: Live, enhanced: str
) -> None:
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


def test_a_slider_of_the_list_stays_in_the_hand(
    visit: Callable[..., Any], live: Live, enhanced: str
) -> None:
    page = visit()
    page.goto(f"{live.url}#/s/{enhanced}")
    page.get_by_role("button", name="Add a note").click()
    slider = page.locator(".notes input")
    node, box = slider.element_handle(), slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.6 * box["width"], middle)
    page.mouse.down()
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


def test_a_recording_too_large_is_refused_with_the_limit(
    visit: Callable[..., Any], live: Live, tmp_path: Path
) -> None:
    page = visit()
    large = tmp_path / "large.wav"
    with large.open("wb") as file:
        file.truncate(2**31 + 2**29)
    page.set_input_files("input[type=file]", large)
    page.wait_for_selector("text=large.wav has 2.50 GiB; 2.00 GiB are taken at most")


def test_search_again_keeps_pinned_notes(
    visit: Callable[..., Any], live: Live, enhanced: str
) -> None:
    page = visit()
    page.goto(f"{live.url}#/s/{enhanced}")
    page.get_by_role("button", name="Add a note").click()
    page.locator(".note").press("p")
    until(page, lambda: "pinned" in page.locator(".note").get_attribute("aria-label"))
    before = state(live, enhanced)["found"]
    page.get_by_role("button", name="Search again").click()
    until(page, lambda: state(live, enhanced)["found"] != before, 60)
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
        client.post(f"/api/sessions/{session}/enhance", json={"steps": 200})
    figure = page.locator(".progress-slot .figure")
    until(page, lambda: figure.count() == 1 and "score" in figure.inner_text(), 60)
    cancel = page.get_by_role("button", name="Cancel")
    node, box = cancel.element_handle(), cancel.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    for _ in range(3):
        retold(page, figure)
    assert page.evaluate("it => it === document.querySelector('.progress-slot button')", node)
    page.mouse.up()
    page.wait_for_selector("text=Cancelled; nothing was changed.")


def test_the_microphone_is_recorded(visit: Callable[..., Any], live: Live) -> None:
    page = visit()
    page.get_by_role("button", name="Record", exact=True).click()
    stop = page.get_by_role("button", name="Stop")
    until(page, lambda: stop.count() == 1 and "0:01" in stop.inner_text())
    stop.click()
    page.wait_for_selector(".session")
    assert page.inner_text(".title").startswith("Recording ")
    assert "WAV float" in page.inner_text(".facts")


# Notes when every piece of sound starts, and how long it lasts, on the audio clock.
WATCH = """
window.pieces = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, offset) {
  window.pieces.push([when, this.buffer.duration - offset]);
  return start.call(this, when, offset);
};
"""


def test_pieces_of_sound_join_to_the_sample(
    visit: Callable[..., Any], live: Live, enhanced: str
) -> None:
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
    seen = []
    for _ in range(40):
        page.wait_for_timeout(40)
        seen.append(position(page))
    assert max(seen) <= 2.75
    assert any(b < a for a, b in itertools.pairwise(seen))  # it went round


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
