"""The page in a browser; skipped if the machine has none."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tonewood import web
from tonewood.listening.database import AnswerDatabase, list_participants
from tonewood.listening.definition import ANSWERS_FILE, CONSENT_FILE, ListeningTest
from tonewood.listening.server import create_listening_app

BuiltTest = tuple[ListeningTest, Path]
CopyTest = Callable[[str], BuiltTest]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    place = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    if place is None:
        pytest.skip("no Chromium here: install it to test the page in a browser")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Serve a test in this process and open its page; requests and errors are recorded."""
    import uvicorn

    servers, contexts = [], []

    def open_page(test: ListeningTest, folder: Path, **more: Any) -> Any:
        guarded = web.secure(create_listening_app(test, folder), token=test.access_token)
        server = uvicorn.Server(uvicorn.Config(guarded, port=0, log_level="error", ws="none"))
        thread = Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        context = browser.new_context(viewport={"width": 900, "height": 800}, **more)
        contexts.append(context)
        context.set_default_timeout(300_000)  # a busy machine may take long to reach a state
        page = context.new_page()
        page.faults, page.urls = [], []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda message: message.type == "error" and page.faults.append(message.text))
        page.on("request", lambda request: page.urls.append(request.url))
        page.goto(web.server_url("127.0.0.1", port, test.access_token))
        return page

    yield open_page
    for context in contexts:
        context.close()
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)


def begin_test(page: Any) -> None:
    page.get_by_label("I have read this").check()
    page.get_by_role("button", name="Begin", exact=True).click()
    page.get_by_role("button", name="This is comfortable").click()


def heading(page: Any) -> str:
    page.wait_for_selector("main h2")
    return str(page.inner_text("main h2"))


def next_screen(page: Any, act: Callable[[], None]) -> None:
    before = page.eval_on_selector("#progress", "bar => bar.value")
    act()
    page.wait_for_function(
        """before => document.querySelector('#progress').value != before
                 && document.querySelector('main h2')""",
        arg=before,
    )


def test_whole_test_works_by_keyboard(copy_test: CopyTest, visit: Callable[..., Any]) -> None:
    test, folder = copy_test("pairs")
    page = visit(test, folder)
    page.wait_for_selector("#agreed")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_selector("#volume")
    next_screen(page, lambda: page.keyboard.press("Enter"))
    for number in range(test.training + test.per_listener + test.repeats):
        assert heading(page) == test.question
        following = page.get_by_role("button", name="Next")
        assert following.is_disabled()
        page.keyboard.press("a")
        page.wait_for_selector('.sound[aria-label="Play A"][aria-pressed=true]')
        page.keyboard.press("b")
        page.wait_for_selector('.sound[aria-label="Play B"][aria-pressed=true]')
        assert following.is_disabled()  # played, but not answered
        if number % 2:
            page.keyboard.press("Shift+B")
        else:
            page.locator("input[value=B]").focus()
            page.keyboard.press("Space")
        assert following.is_enabled()
        next_screen(page, lambda: page.keyboard.press("Enter"))
    assert heading(page) == "Thank you"
    (person,) = list_participants(test, AnswerDatabase(folder / ANSWERS_FILE))
    assert person.finished
    assert page.inner_text(".code") == person.code
    assert [response.value for response in person.responses] == ["B"] * len(person.responses)
    assert page.faults == []
    origin = page.url.rstrip("/")
    assert all(url.startswith((origin, "data:")) for url in page.urls)


def test_switching_between_sounds_is_synchronous(copy_test: CopyTest, visit: Callable[..., Any]) -> None:
    test, folder = copy_test("pairs")
    page = visit(test, folder)
    page.wait_for_selector("#agreed")
    # The page's own player in an offline context: a ramp by A, twice the ramp by B, switched.
    result = page.evaluate(
        """async () => {
          const { Player } = await import("./player.js");
          const rate = 44100, length = rate;
          const Real = window.AudioContext;
          const offline = new OfflineAudioContext(1, length, rate);
          window.AudioContext = function () { return offline; };
          const player = new Player(rate);
          window.AudioContext = Real;
          offline.resume = async () => {};
          player.buffers = [1, 2].map((scale) => {
            const buffer = offline.createBuffer(1, 2 * rate, rate);
            const own = buffer.getChannelData(0);
            own.forEach((_, k) => { own[k] = scale * (k + 1) / (4 * rate); });
            return buffer;
          });
          await player.play();
          offline.suspend(0.5).then(() => {
            player.choose(1);
            OfflineAudioContext.prototype.resume.call(offline);
          });
          const out = (await offline.startRendering()).getChannelData(0);
          const begins = out.findIndex((value) => value > 0);
          return { begins, out: Array.from(out), switches: player.switches };
        }"""
    )
    out, begins = result["out"], result["begins"]
    rate = 44_100
    ramp = [(k - begins + 1) / (4 * rate) for k in range(rate)]
    switched = next(k for k in range(begins, rate) if out[k] > 1.001 * ramp[k] + 1e-6)
    assert abs(switched - 0.5 * rate) < 200
    after = switched + round(0.006 * rate)
    assert max(abs(out[k] - ramp[k]) for k in range(begins, switched - 1)) < 1e-5
    # The other condition continues at the same sample.
    assert max(abs(out[k] - 2 * ramp[k]) for k in range(after, rate)) < 1e-5
    assert all(out[k] >= 0.99 * ramp[k] for k in range(switched, after))
    assert result["switches"] == 1


def test_closed_tab_continues_at_its_screen(copy_test: CopyTest, visit: Callable[..., Any]) -> None:
    test, folder = copy_test("mushra")
    page = visit(test, folder, color_scheme="dark")
    page.wait_for_selector("#agreed")
    begin_test(page)
    page.wait_for_selector(".rating input")
    for name in ("A", "B"):
        with page.expect_response(lambda response: response.request.method == "PUT"):
            page.get_by_label(f"Rating of {name}").fill("30")
    page.keyboard.press("d")
    with page.expect_response(lambda response: response.request.method == "PUT"):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("r")
    page.keyboard.press("ArrowUp")  # no rating while the reference plays
    again = page.context.new_page()
    page.close()
    again.goto(page.url)
    again.get_by_role("button", name="Go on").click()
    again.wait_for_selector(".rating input")
    assert again.get_by_label("Rating of B").input_value() == "30"
    assert again.locator("output").all_inner_texts()[:4] == ["30", "30", "–", "51"]


def test_listener_can_delete_all_answers(copy_test: CopyTest, visit: Callable[..., Any]) -> None:
    test, folder = copy_test("pairs")
    page = visit(test, folder)
    page.wait_for_selector("#agreed")
    begin_test(page)
    page.wait_for_selector(".sound")
    page.get_by_role("button", name="Delete my answers").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.wait_for_selector("#agreed")
    assert AnswerDatabase(folder / ANSWERS_FILE).list_listeners() == []
    assert page.evaluate("localStorage.getItem('tonewood-listener')") is None


EVIL = "\"'><img src=x onerror=ran=1><svg onload=ran=1>"
INJECTED = "[typeof ran, document.querySelectorAll('img[src=x], svg[onload]').length]"


def test_markup_in_titles_and_consent_is_escaped(copy_test: CopyTest, visit: Callable[..., Any]) -> None:
    test, folder = copy_test("pairs")
    (folder / CONSENT_FILE).write_text(f"Listen {EVIL}", encoding="utf-8")
    # The content security policy is bypassed: the page itself must be safe.
    page = visit(test.model_copy(update={"title": EVIL, "question": EVIL}), folder, bypass_csp=True)
    page.wait_for_selector("#agreed")
    assert EVIL in page.inner_text("body")
    assert f"Listen {EVIL}" in page.inner_text("body")
    assert page.evaluate(INJECTED) == ["undefined", 0]
    begin_test(page)
    page.wait_for_selector(".sound")
    assert heading(page) == EVIL
    assert page.evaluate(INJECTED) == ["undefined", 0]
    assert page.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_with_sufficient_contrast(
    copy_test: CopyTest, visit: Callable[..., Any], scheme: str
) -> None:
    test, folder = copy_test("mushra")
    page = visit(test, folder, color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 700})
    page.wait_for_selector("#agreed")
    begin_test(page)
    page.wait_for_selector(".rating input")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 360
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, progress")].filter((node) =>
             !(node.getAttribute("aria-label") || node.innerText || node.labels?.length)).length"""
    )
    assert unnamed == 0
    small = page.evaluate(
        """() => [...document.querySelectorAll("main button")].filter((node) =>
             node.getBoundingClientRect().height < 44).length"""
    )
    assert small == 0
    for place, ratio in page.evaluate(CONTRAST).items():
        assert ratio >= 4.5, place


CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
  // Relative luminance of WCAG 2: sRGB values made linear, weighted by the eye's sensitivity.
  const luminance = (rgb) => rgb.map((value) => value / 255)
    .map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, k) => sum + value * [0.2126, 0.7152, 0.0722][k], 0);
  const background = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!color.startsWith("rgba(0, 0, 0, 0")) return parse(color);
    }
    return [255, 255, 255];
  };
  const ratios = {};
  const names = "h1 h2 p.quiet p.count button.main .sound .plain legend .scale";
  for (const name of names.split(" ")) {
    const node = document.querySelector(name);
    if (!node) continue;
    const [a, b] = [luminance(parse(getComputedStyle(node).color)), luminance(background(node))];
    ratios[name] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return ratios;
}"""
