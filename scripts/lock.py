"""Lock what is installed to work on Tonewood and to release it: versions, markers, hashes.

    python scripts/lock.py [--check]

Needs `pip install '.[release]'` and a package index. The versions are those of constraints.txt;
the files of requirements/ add where each package is needed and the hashes of all its files, so that
one lock holds on every system and every Python. torch alone has no hash: its build for the CPU is
another file than the index's own.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "requirements"
EXTRAS = {"dev.txt": ("dev",), "release.txt": ()}
"""What each lock is for; the release's has every extra, less what the developers' lock has."""
UNHASHED = "torch"
OLDEST = "3.11.5"
"""The oldest Python that the tools run on, as `requires-python` states."""
NEEDS_OF_TORCH = (
    "filelock",
    "fsspec>=0.8.5",
    "jinja2",
    "networkx>=2.5.1",
    "setuptools>=77.0.3",
    "sympy>=1.13.3",
    "typing-extensions>=4.10.0",
)
"""Stated here, since the index's own build for Linux needs gigabytes of CUDA besides."""


class Pin(NamedTuple):
    """A locked package."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def plain(name: str) -> str:
    """Return the one spelling that an index knows a package by."""
    return re.sub(r"[-_.]+", "-", name).lower()


def constrained() -> dict[str, str]:
    """Return the versions of constraints.txt by name."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.partition("==") for line in lines if not line.startswith("#"))
    return {plain(name): version for name, _, version in pairs}


def pins(text: str) -> Iterator[Pin]:
    """Read a lock."""
    for line in text.replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            told, *hashes = re.split(r"\s+--hash=", line.strip())
            requirement, _, marker = told.partition(";")
            name, _, version = requirement.partition("==")
            yield Pin(plain(name), version.strip(), marker.strip(), tuple(hashes))


def faults(locks: dict[str, str], versions: dict[str, str]) -> list[str]:
    """Say in what the locks differ from constraints.txt, and what has no hash."""
    found = []
    every = [(name, pin) for name, text in locks.items() for pin in pins(text)]
    for name, pin in every:
        if pin.version != versions.get(pin.name):
            wanted = versions.get(pin.name, "no version")
            found.append(f"{name}: {pin.name}=={pin.version}, constraints.txt has {wanted}")
        if not pin.hashes or not all(re.fullmatch("sha256:[0-9a-f]{64}", h) for h in pin.hashes):
            found.append(f"{name}: {pin.name}=={pin.version} has no SHA-256")
    missing = versions.keys() - {pin.name for _, pin in every} - {UNHASHED}
    return found + [f"{name}=={versions[name]} is in no lock" for name in sorted(missing)]


def resolve() -> dict[str, str]:
    """Ask the index for all hashes of what constraints.txt names."""
    said: dict[str, str] = {}
    version = constrained()[UNHASHED]
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "uv.toml"
        needs = ", ".join(f'"{it}"' for it in NEEDS_OF_TORCH)
        settings.write_text(
            f'[[dependency-metadata]]\nname = "{UNHASHED}"\nversion = "{version}"\n'
            f"requires-dist = [{needs}]\n",
            "utf-8",
        )
        for name, extras in EXTRAS.items():
            known = {pin.name for text in said.values() for pin in pins(text)}
            call = (
                *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet"),
                *("--config-file", str(settings), "--constraints", "constraints.txt"),
                *("--universal", "--python-version", OLDEST, "--generate-hashes"),
                *("--no-annotate", "--custom-compile-command", "make lock", "--strip-extras"),
                *([f"--extra={it}" for it in extras] or ["--all-extras"]),
                *(f"--no-emit-package={it}" for it in sorted({UNHASHED, "tonewood", *known})),
            )
            ran = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
            if ran.returncode:
                sys.exit(ran.stderr)
            said[name] = ran.stdout
    return said


def main() -> None:
    """Write the locks, or look whether they are what the index says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on a difference")
    check = parser.parse_args().check
    locks = resolve()
    found = faults(locks, constrained())
    for name, text in locks.items():
        path = LOCKS / name
        if not check:
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            found.append(f"{path} is not what the index says: make lock")
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
