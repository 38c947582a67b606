"""The documentation builds without a warning, loads nothing from elsewhere, and fits the CLI."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from typer.main import get_command

import tonewood
from tonewood import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def commands(group: object = None, path: str = "") -> Iterator[tuple[str, set[str]]]:
    for name, command in (group or get_command(cli.cli_app)).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            names = {it for p in command.params for it in (*p.opts, *p.secondary_opts)}
            yield f"{path}{name}", {it for it in names if it.startswith("-")} | {"--help"}


OPTIONS = dict(commands())
ANY = set().union(*OPTIONS.values()) | {"--install-completion", "--show-completion"}
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


class Links(HTMLParser):
    """What a page loads by itself, and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.led: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("src", "href", "data", "poster"):
                (self.led if tag == "a" else self.loaded).add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def test_every_page_is_whole_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) == len(list(DOCS.rglob("*.md")))
    for page in pages:
        links = Links()
        links.feed(page.read_text("utf-8"))
        assert {it for it in links.loaded if urlsplit(it).netloc} == set(), page.name
        assert any(it.endswith(".css") for it in links.loaded)
        for link in links.loaded | links.led:
            parts = urlsplit(link)
            if not parts.scheme and parts.path:
                assert (page.parent / unquote(parts.path)).exists(), f"{page.name}: {link}"


def test_nothing_is_asked_of_other_hosts_by_style(site: Path) -> None:
    for sheet in site.rglob("*.css"):
        asked = re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^)\s]+", sheet.read_text())
        assert asked == [], sheet.name


def test_the_python_page_tells_every_public_name(site: Path) -> None:
    told = set(re.findall(r'id="tonewood\.(\w+)"', (site / "api.html").read_text("utf-8")))
    assert told >= set(tonewood.__all__)


@pytest.mark.parametrize("command", OPTIONS)
def test_every_command_has_a_page_with_all_its_options(command: str) -> None:
    text = (DOCS / "howto" / f"{command.split()[0]}.md").read_text("utf-8")
    assert f"tonewood {command}" in text
    table = text.split(f"<!-- options:begin {command} -->")[1].split("<!-- options:end -->")[0]
    assert set(OPTION.findall(table)) >= OPTIONS[command] - {"--help"}
    assert f"]({command.split()[0]}.md)" in (DOCS / "howto" / "index.md").read_text("utf-8")


def test_the_tables_of_options_are_those_of_the_command_line() -> None:
    script = str(ROOT / "scripts" / "options.py")
    ran = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda it: str(it.relative_to(ROOT)))
def test_every_call_that_a_page_shows_is_one_that_the_command_line_takes(page: Path) -> None:
    text = page.read_text("utf-8").replace("\\\n", " ")
    for call in re.findall(r"(?:^|[`$ ])tonewood ((?:[a-z]+)[^`\n|#]*)", text, re.MULTILINE):
        named = next((it for it in OPTIONS if f"{call} ".startswith(f"{it} ")), None)
        if named:
            assert set(OPTION.findall(call)) <= OPTIONS[named] | {"--help"}, call
    if page.parent.name == "howto":
        code = re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", text, re.DOTALL)
        shown = " ".join(block for pair in code for block in pair if "podman" not in block)
        assert set(OPTION.findall(shown)) <= ANY


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = set(re.findall(r"([\w/-]+\.md)$", text, re.MULTILINE))
    assert named == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert yaml.safe_load(text)["theme"]["font"] is False


def test_sounds_of_the_documentation_are_small() -> None:
    sounds = list((DOCS / "sounds").iterdir())
    assert sounds
    assert all(sound.stat().st_size <= 200_000 for sound in sounds)
