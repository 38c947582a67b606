"""Markup in names, titles and model cards is shown as text and never runs.

The content security policy would stop a script too; it is bypassed here, so that the page has to
be right by itself.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.studio.browser_page import wait_until
from tests.studio.conftest import EXAMPLE, MODEL, Live, wait_for_job
from tonewood.model.model import load_model

EVIL = "\"'><img src=x onerror=ran=1><svg onload=ran=1>{{7*7}}${7*7}"
INJECTED = "[typeof ran, document.querySelectorAll('img[src=x], svg[onload], script:not([src])').length]"


@pytest.fixture
def hostile(live: Live, root: Path) -> Iterator[str]:
    """Create a model card, folder names and a session title with markup; return the session's id."""
    studio = Path(live.command[live.command.index("--folder") + 1])
    model = load_model(MODEL)
    card = model.card.model_copy(
        update={
            "domain": EVIL,
            "licence": EVIL,
            "reference": model.card.reference.model_copy(update={"name": EVIL}),
        }
    )
    replace(model, card=card).save(studio / "models" / "evil.tonewood")
    folder = root / EVIL
    folder.mkdir()
    samples, rate = soundfile.read(EXAMPLE, dtype="float32", always_2d=True)
    path = folder / f"{EVIL}.flac"
    with soundfile.SoundFile(path, "w", rate, samples.shape[1], "PCM_16", format="FLAC") as file:
        file.title = file.artist = file.comment = EVIL
        file.write(samples)
    with live.client() as client:
        answer = client.post("/api/recordings", params={"name": path.name}, content=path.read_bytes())
        session = answer.json()["id"]
        client.put(f"/api/sessions/{session}/model", json={"model": "evil"})
        job = client.post(f"/api/sessions/{session}/enhance", json={"steps": 0, "force": True})
        assert wait_for_job(client, job.json())["state"] == "done"
        yield session
        client.delete(f"/api/sessions/{session}")
    (studio / "models" / "evil.tonewood").unlink()
    shutil.rmtree(folder)


def test_markup_in_names_and_model_cards_is_escaped(
    visit: Callable[..., Any], live: Live, hostile: str
) -> None:
    page = visit(bypass_csp=True)

    def harmless(reported: str) -> None:
        wait_until(page, lambda: reported in page.inner_text("body"))
        page.wait_for_timeout(200)
        assert page.evaluate(INJECTED) == ["undefined", 0]

    harmless("onerror=ran=1")  # the list of sessions
    page.goto(f"{live.url}#/s/{hostile}")
    page.wait_for_selector(".session")
    assert EVIL in page.inner_text(".title")
    harmless("onerror=ran=1")
    page.goto(f"{live.url}#/folder")
    page.get_by_role("button", name="Choose: Recordings to enhance").click()
    harmless(EVIL)
    page.locator(".places").get_by_role("button", name="onerror").first.click()
    wait_until(page, lambda: EVIL in page.inner_text(".trail"))
    harmless(EVIL)
    page.goto(f"{live.url}#/train")
    page.wait_for_timeout(300)
    assert page.evaluate(INJECTED) == ["undefined", 0]


def test_downloads_are_not_rendered_as_pages(live: Live, hostile: str) -> None:
    with live.client() as client:
        base = f"/api/sessions/{hostile}"
        for path in ("take/audio", "take/recipe", "take/session", "take/certificate"):
            answer = client.get(f"{base}/{path}")
            assert answer.status_code == 200
            assert "html" not in answer.headers["content-type"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            disposition = answer.headers["content-disposition"]
            assert disposition.startswith("attachment; ")
            assert "<" not in disposition
            assert "\n" not in disposition
