"""The picture in a browser: rendering of closed pages, preview, views, pointer readout, zoom, pitch axis."""

import re
from collections.abc import Callable
from typing import Any

from tests.studio.browser_page import edit, picture, state, wait_until
from tests.studio.conftest import Live


def test_edit_of_a_closed_page_is_rendered_when_it_is_opened_again(
    visit: Callable[..., Any], open_session: Callable[[], Any], live: Live, enhanced_session: str
) -> None:
    page = open_session()
    page.get_by_role("button", name="Add a note").click()
    wait_until(page, lambda: len(edit(live, enhanced_session)["notes"]) == 1)
    page.context.close()
    again = visit()
    again.goto(f"{live.url}#/s/{enhanced_session}")
    again.wait_for_selector(".verdict")
    wait_until(again, lambda: again.locator(".rechecking").count() == 0)
    assert state(live, enhanced_session)["whole"]


def test_picture_shows_gains_before_the_rendering(
    visit: Callable[..., Any], live: Live, enhanced_session: str
) -> None:
    page = visit()
    page.route("**/whole", lambda route: route.fulfill(json={"id": "never", "state": "queued"}))
    page.goto(f"{live.url}#/s/{enhanced_session}")
    page.wait_for_selector(".overview > div")
    page.wait_for_selector(".verdict")

    def view(name: str) -> str:
        page.get_by_role("button", name=name, exact=True).click()
        return picture(page)

    # Levels, gains and both are three pictures, from both ways of listening.
    page.keyboard.press("1")
    assert len({view("Gain"), view("Both"), view("Level")}) == 3
    page.keyboard.press("2")

    def comes_back() -> bool:
        # Once the page knows the loudness of the output, all pictures change a last time.
        views = [view(name) for name in ("Level", "Gain", "Both", "Level")]
        return len(set(views)) == 3 and views[0] == views[-1]

    wait_until(page, comes_back)

    # The picture follows what is heard, and the slider, without a rendering.
    level = picture(page)
    page.keyboard.press("1")
    original = picture(page)
    assert original != level
    page.keyboard.press("2")
    page.locator("#amount").press("PageDown")
    assert picture(page) not in (original, level)
    page.keyboard.press("1")
    assert picture(page) == original

    readout = re.compile(
        r"^\d:\d\d\.\d\d · .*Hz · [A-G]♯?\d [+−]\d+ ct · −\d+ dB → −\d+ dB \(gain [+−]?\d+\.\d dB\)$"
    )
    layer = page.locator(".layer").bounding_box()
    page.mouse.move(layer["x"] + layer["width"] / 2, layer["y"] + layer["height"] / 2)
    wait_until(page, lambda: readout.match(page.inner_text(".readout")) is not None)
    assert "The EQ boosts most at" in page.locator(".picture canvas").get_attribute("aria-label")

    # Frequencies are zoomed with Alt and the wheel; the pitch axis marks open strings.
    page.select_option("[data-select=axis]", "cello")
    wait_until(page, lambda: page.locator(".rows .open").all_inner_texts() == ["C2", "G2", "D3", "A3"])
    page.keyboard.down("Alt")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Alt")
    wait_until(page, lambda: "C2" not in page.locator(".rows span").all_inner_texts())
    page.keyboard.press("0")
    wait_until(page, lambda: "C2" in page.locator(".rows span").all_inner_texts())
    page.locator("#amount").dblclick()
    wait_until(page, lambda: edit(live, enhanced_session)["amount"] == 1.0)

    # The average EQ of the visible range is compared with that of the whole recording.
    assert page.locator(".average .whole").count() == 0
    page.get_by_role("button", name="Average EQ").click()
    wait_until(page, lambda: page.locator(".average .whole").count() == 1)


def test_picture_fills_the_window_and_the_side_scrolls_alone(open_session: Callable[[], Any]) -> None:
    page = open_session()
    page.wait_for_selector(".verdict")
    page.evaluate("for (const it of document.querySelectorAll('details')) it.open = true")
    page.locator(".side").evaluate("it => it.scrollTo(0, 500)")
    assert page.locator(".side").evaluate("it => it.scrollTop") > 0
    assert page.evaluate("scrollY") == 0
    height = page.locator(".picture").bounding_box()["height"]
    page.set_viewport_size({"width": 1_280, "height": 1_100})
    wait_until(page, lambda: page.locator(".picture").bounding_box()["height"] > height + 190)


SMALL_TARGETS = """[...document.querySelectorAll("button, a, select, input:not(.hidden), summary")]
    .filter(it => it.offsetParent && !it.matches(".skip, .link"))
    .map(it => [it.getAttribute("aria-label") || it.textContent, it.getBoundingClientRect()])
    .filter(([_, box]) => box.width < 44 || box.height < 44).map(([name]) => name)"""


def test_phone_has_large_targets_a_fixed_transport_and_pinch(
    visit: Callable[..., Any], live: Live, enhanced_session: str
) -> None:
    page = visit(390, has_touch=True, is_mobile=True)
    page.goto(f"{live.url}#/s/{enhanced_session}")
    page.wait_for_selector(".verdict")
    assert page.evaluate(SMALL_TARGETS) == []
    page.evaluate("scrollTo(0, 900)")
    bar = page.locator(".transport").bounding_box()
    assert bar["y"] + bar["height"] == 900
    page.evaluate("scrollTo(0, 0)")

    # Two fingers that part zoom time and frequency.
    labels = page.locator(".rows, .times").all_inner_texts()
    box = page.locator(".layer").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)

    def put(kind: str, apart: float) -> None:
        points = [
            {"x": x - apart, "y": y - apart, "id": 1},
            {"x": x + apart, "y": y + apart, "id": 2},
        ]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points if apart else []})

    put("touchStart", 30)
    for apart in (40, 60, 90):
        put("touchMove", apart)
    put("touchEnd", 0)
    wait_until(
        page,
        lambda: all(
            a != b for a, b in zip(page.locator(".rows, .times").all_inner_texts(), labels, strict=True)
        ),
    )
