"""The built page in the package matches its sources."""

import hashlib
from pathlib import Path

import pytest

from tonewood.studio.app import STATIC_FOLDER

WEB = Path(__file__).parents[2] / "web"


def test_built_page_matches_its_sources() -> None:
    if not WEB.is_dir():
        pytest.skip("no sources of the page here")
    hasher = hashlib.sha256()
    names = [
        path.relative_to(WEB).as_posix()
        for path in WEB.rglob("*")
        if path.is_file() and "node_modules" not in path.parts and ".vite" not in path.parts
    ]
    for name in sorted(names):
        hasher.update(f"{name}\0".encode() + (WEB / name).read_bytes() + b"\0")
    expected = (STATIC_FOLDER / "sources.sha256").read_text().strip()
    assert hasher.hexdigest() == expected, "the page's sources changed: run `make studio`"


def test_built_page_is_small_and_lists_licences() -> None:
    files = [path for path in STATIC_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2**20
    licences = (STATIC_FOLDER / "licences.txt").read_text()
    assert "wavesurfer.js 8" in licences
    assert "SIL Open Font License" in licences


def test_built_page_refers_to_no_other_host() -> None:
    for path in STATIC_FOLDER.rglob("*"):
        if path.suffix in (".js", ".css", ".html"):
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
            assert "http://" not in text, path.name
            assert "https://" not in text, path.name
