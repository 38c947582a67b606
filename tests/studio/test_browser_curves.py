"""A curve from a file in a browser: read, drawn, heard, rendered, stored in the recipe, undone."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.studio.browser_page import edit, state, wait_until
from tests.studio.browser_sound import Recorder, plays
from tests.studio.conftest import EXAMPLE, NOTE, Live, change_edit, decode_samples
from tonewood.enhancement.reapply import render_recipe

HOUSE = "* Room EQ Wizard\n* Freq(Hz) SPL(dB)\n30 8.0\n300 0.0\n2000 -6.0\n12000 4.0\n"
POINTS = [[30.0, 8.0], [300.0, 0.0], [2_000.0, -6.0], [12_000.0, 4.0]]


def test_curve_of_a_file_is_heard_rendered_and_undone(
    visit: Callable[..., Any], live: Live, enhanced_session: str, tmp_path: Path
) -> None:
    base = f"/api/sessions/{enhanced_session}"
    house = tmp_path / "house.txt"
    house.write_text(HOUSE)

    def server(which: str) -> np.ndarray:
        with live.client() as client:
            channel: np.ndarray = decode_samples(client.get(f"{base}/sound/{which}?start=0&stop=176400"))[0]
        return channel

    def shown() -> list[float]:
        with live.client() as client:
            mean: list[float] = client.get(f"{base}/curve?axis=log").json()["mean"]
        return mean

    shape = {
        "smooth_octaves": 0.3,
        "smooth_seconds": 0.2,
        "low_hz": 60.0,
        "high_hz": None,
        "direction": "both",
    }
    with live.client() as client:
        change_edit(client, {"id": enhanced_session}, shape=shape, notes=[{**NOTE, "seconds": 1.0}])
        while client.get(base).json()["jobs"]:  # a rendering for the test before would change the levels
            time.sleep(0.1)
    plain = shown()

    page = visit(bypass_csp=True)  # the worklet that records is not the server's
    recorder = Recorder(page, server("input"))
    page.route("**/whole", lambda route: route.fulfill(json={"id": "never", "state": "queued"}))
    page.goto(f"{live.url}?#/s/{enhanced_session}")
    page.wait_for_selector(".overview > div")
    page.get_by_role("button", name="Loop", exact=True).click()
    with page.expect_response("**/levels?found=*"):
        page.keyboard.press("Space")
    kept = partial(edit, live, enhanced_session)

    # Added, and instead: the page filters as the server renders.
    page.set_input_files(".curve-file input", house)
    wait_until(page, lambda: kept().get("curve") == {"points": POINTS, "replaces_static": False})
    wait_until(page, lambda: plays(recorder, server("output")))
    assert page.locator(".average .file").count() == 1
    assert "30 Hz–12.0 kHz, −6.0 dB to +8.0 dB" in page.inner_text(".curve-file")
    added = shown()
    page.get_by_role("button", name="Instead").click()
    wait_until(page, lambda: kept()["curve"]["replaces_static"])
    wait_until(page, lambda: plays(recorder, server("output")))
    assert shown() != added != plain

    # The rendering and its recipe hold the curve.
    page.unroute("**/whole")
    page.keyboard.press("Space")
    page.reload()
    wait_until(page, lambda: state(live, enhanced_session)["whole"])
    recipe = tmp_path / "house.flac.recipe.json"
    with live.client() as client:
        recipe.write_bytes(client.get(f"{base}/take/recipe").content)
        (tmp_path / "studio.wav").write_bytes(client.get(f"{base}/take/audio?format=wav").content)
    render_recipe(recipe, EXAMPLE, tmp_path / "again.wav")
    studio, again = (soundfile.read(tmp_path / name)[0] for name in ("studio.wav", "again.wav"))
    np.testing.assert_allclose(again, studio, atol=1e-4)

    # Undo takes back the choice, then the curve.
    page.wait_for_selector(".curve-file [data-replaces=true][aria-pressed=true]")
    page.keyboard.press("Control+z")
    wait_until(page, lambda: not kept()["curve"]["replaces_static"])
    page.keyboard.press("Control+z")
    wait_until(page, lambda: "curve" not in kept())
    page.get_by_role("button", name="From a file …").wait_for()
    wait_until(page, lambda: page.locator(".average .file").count() == 0)
