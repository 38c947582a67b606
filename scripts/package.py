"""Build what is published, check it, try it on every Python that is here, and list what it brings.

    python scripts/package.py [-o dist]

Needs `pip install '.[release]'` and a package index. Writes the wheel, the source distribution and
`sbom.cdx.json`, a bill of materials (CycloneDX) of an environment with the wheel and nothing else.
Both are built twice, the second time from a copy with other dates and rights, and must be the same
to the byte; the SHA-256 of each is printed. The licences of all that any extra brings are checked.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
NEEDED = (
    "tonewood/py.typed",
    "tonewood/bundled/NOTICE.md",
    "tonewood/bundled/cello.tonewood",
    "tonewood/bundled/example.flac",
    "tonewood/bundled/soundfont-cello.tonewood",
    "tonewood/listening/web/index.html",
    "tonewood/studio/static/index.html",
    "tonewood/studio/static/licences.txt",
)
MOST_BYTES = 6_000_000
"""Of the wheel: a sixth more than the models, the example and the code take."""


def faults(wheel: Path) -> list[str]:
    """Say what a wheel lacks, and what it holds that nobody needs who installs it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        code = {it for it in names if not it.partition("/")[0].endswith(".dist-info")}
    found = [f"{name} is missing" for name in NEEDED if name not in names]
    found += [f"{name} is no part of the package" for name in code if not _belongs(name)]
    kept = {str(it.relative_to(ROOT / "src")) for it in (ROOT / "src").rglob("*.py")}
    found += [f"{name} is missing" for name in kept - code]
    if not wheel.name.endswith("-py3-none-any.whl"):
        found.append(f"{wheel.name} is not for every Python 3 and every machine")
    if wheel.stat().st_size > MOST_BYTES:
        found.append(f"{wheel.name} has {wheel.stat().st_size} bytes; at most {MOST_BYTES}")
    return found


def _belongs(name: str) -> bool:
    odd = ("/tests/", "/__pycache__/", "/node_modules/")
    return (
        name.startswith("tonewood/")
        and not any(it in f"/{name}" for it in odd)
        and not name.endswith((".ipynb", ".ts", ".pyc"))
    )


def main() -> None:
    """Build, check, try, list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist")
    output = parser.parse_args().output.resolve()
    shutil.rmtree(output, ignore_errors=True)
    run(sys.executable, ROOT / "scripts" / "licences.py", "--every-extra")
    wheel, source = build(ROOT, output)
    with tempfile.TemporaryDirectory() as folder:
        again = build(copied(Path(folder) / "tree"), Path(folder) / "dist")
        differing = [it.name for it in again if digest(it) != digest(output / it.name)]
        if differing:
            sys.exit(f"{' and '.join(differing)} came out otherwise when built again from a copy")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, source)
    found = faults(wheel)
    if found:
        sys.exit("\n".join(found))
    with tempfile.TemporaryDirectory() as folder:
        tried = [install(wheel, python, Path(folder)) for python in pythons()]
        bill = output / "sbom.cdx.json"
        run(
            *(sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"),
            *("--pyproject", ROOT / "pyproject.toml", "-o", bill, tried[0]),
        )
    for path in (wheel, source, bill):
        print(f"{path} {path.stat().st_size // 1000} kB, SHA-256 {digest(path)}")


def build(tree: Path, output: Path) -> tuple[Path, Path]:
    """Build the source distribution, and the wheel from it; return the wheel and the source."""
    # hatchling is here already, so that nothing is fetched to build.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", output, tree)
    (wheel,), (source,) = output.glob("*.whl"), output.glob("*.tar.gz")
    return wheel, source


def copied(place: Path, root: Path = ROOT) -> Path:
    """Copy what a build reads, as another machine may hold it: files of today, the owner's own."""
    unread = (".git", ".venv", "node_modules", "dist", "site", "demo", "build", "corpus")
    shutil.copytree(root, place, ignore=shutil.ignore_patterns(*unread), copy_function=shutil.copy)
    for path in place.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    return place


def digest(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pythons() -> list[str]:
    """Return the interpreters that are here, of the versions that are promised."""
    found = []
    for version in PYTHONS:
        named = shutil.which(f"python{version}")
        # A version manager's stand-in may be on the path for what is not there.
        if named and subprocess.run([named, "--version"], capture_output=True).returncode == 0:
            found.append(named)
    return found or [sys.executable]


def install(wheel: Path, python: str, folder: Path) -> Path:
    """Install a wheel into an empty environment, run it there, and return its interpreter."""
    place = folder / Path(python).name
    run(python, "-m", "venv", place)
    inside = place / "bin" / "python"
    quiet = ("-qq", "--disable-pip-version-check")
    run(inside, "-m", "pip", "install", *quiet, "-c", ROOT / "constraints.txt", wheel)
    for call in (("--help",), ("info", "cello")):
        run(place / "bin" / "tonewood", *call, cwd=folder)
        run(inside, "-m", "tonewood", *call, cwd=folder)
    print(f"{python}: installed and run")
    return inside


def run(*call: str | Path, cwd: Path | None = None) -> None:
    """Run a command; what it says is shown only if it fails."""
    # A date of somebody's own would make other bytes than hatchling's, which is always the same.
    environment = {it: value for it, value in os.environ.items() if it != "SOURCE_DATE_EPOCH"}
    ran = subprocess.run(
        call,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if ran.returncode:
        sys.exit(f"{' '.join(map(str, call))}\n{ran.stdout.decode(errors='replace')}")


if __name__ == "__main__":
    main()
