"""The documentation builds without warnings, loads nothing from other hosts, and matches the CLI."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from runpy import run_path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import tonewood

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def option_names(command: Any) -> set[str]:
    names = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    return {name for name in names if name.startswith("-")} | {"--help"}


COMMANDS = run_path(str(ROOT / "scripts" / "options.py"))["commands"]
OPTIONS = {name: option_names(command) for name, command in COMMANDS()}
ANY = set().union(*OPTIONS.values()) | {"--install-completion", "--show-completion"}
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


class Links(HTMLParser):
    """Resources that a page loads, and targets of its links."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.targets: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("src", "href", "data", "poster"):
                (self.targets if tag == "a" else self.loaded).add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_pages_load_nothing_from_other_hosts_and_links_exist(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) == len(list(DOCS.rglob("*.md")))
    for page in pages:
        links = Links()
        links.feed(page.read_text("utf-8"))
        assert {url for url in links.loaded if urlsplit(url).netloc} == set(), page.name
        assert any(url.endswith(".css") for url in links.loaded)
        for link in links.loaded | links.targets:
            parts = urlsplit(link)
            if not parts.scheme and parts.path:
                assert (page.parent / unquote(parts.path)).exists(), f"{page.name}: {link}"


def test_style_sheets_load_nothing_from_other_hosts(site: Path) -> None:
    for sheet in site.rglob("*.css"):
        urls = re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^)\s]+", sheet.read_text())
        assert urls == [], sheet.name


def test_python_page_documents_every_public_name(site: Path) -> None:
    documented = set(re.findall(r'id="tonewood\.(\w+)"', (site / "api.html").read_text("utf-8")))
    assert documented >= set(tonewood.__all__)


@pytest.mark.parametrize("command", OPTIONS)
def test_every_command_has_a_page_with_all_its_options(command: str) -> None:
    text = (DOCS / "howto" / f"{command.split()[0]}.md").read_text("utf-8")
    assert f"tonewood {command}" in text
    table = text.split(f"<!-- options:begin {command} -->")[1].split("<!-- options:end -->")[0]
    assert set(OPTION.findall(table)) >= OPTIONS[command] - {"--help"}
    assert f"]({command.split()[0]}.md)" in (DOCS / "howto" / "index.md").read_text("utf-8")


def test_lists_of_options_match_the_command_line() -> None:
    script = str(ROOT / "scripts" / "options.py")
    result = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_pages_have_valid_options(page: Path) -> None:
    text = page.read_text("utf-8").replace("\\\n", " ")
    for call in re.findall(r"(?:^|[`$ ])tonewood ((?:[a-z]+)[^`\n|#]*)", text, re.MULTILINE):
        command = next((name for name in OPTIONS if f"{call} ".startswith(f"{name} ")), None)
        if command:
            assert set(OPTION.findall(call)) <= OPTIONS[command] | {"--help"}, call
    if page.parent.name == "howto":
        code = re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", text, re.DOTALL)
        code_text = " ".join(block for pair in code for block in pair if "podman" not in block)
        assert set(OPTION.findall(code_text)) <= ANY


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = set(re.findall(r"([\w/-]+\.md)$", text, re.MULTILINE))
    assert pages == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert yaml.safe_load(text)["theme"]["font"] is False


def test_audio_files_of_the_documentation_are_small() -> None:
    sounds = list((DOCS / "sounds").iterdir())
    assert sounds
    assert all(sound.stat().st_size <= 200_000 for sound in sounds)
