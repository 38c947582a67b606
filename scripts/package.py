"""Build the distributions, check them, try the wheel on every installed Python, list dependencies.

    python scripts/package.py [-o dist]

Needs `pip install '.[release]'` and a package index. Writes the wheel, the source distribution and
`sbom.cdx.json`, a bill of materials (CycloneDX) of an environment with the wheel and nothing else.
Both are built twice, the second time from a copy with other dates and permissions, and must be equal
to the byte; the SHA-256 of each is printed. The licences of all installed packages are checked.
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
REQUIRED_FILES = (
    "tonewood/py.typed",
    "tonewood/bundled/NOTICE.md",
    "tonewood/bundled/cello.tonewood",
    "tonewood/bundled/example.flac",
    "tonewood/bundled/soundfont-cello.tonewood",
    "tonewood/listening/web/index.html",
    "tonewood/studio/static/index.html",
    "tonewood/studio/static/licences.txt",
)
MAX_WHEEL_BYTES = 6_000_000
"""A sixth more than the models, the example and the code take."""


def check_wheel(wheel: Path) -> list[str]:
    """List files that a wheel lacks and files that do not belong in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        code = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    errors = [f"{name} is missing" for name in REQUIRED_FILES if name not in names]
    errors += [f"{name} is not part of the package" for name in code if not _belongs(name)]
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}
    errors += [f"{name} is missing" for name in sources - code]
    if not wheel.name.endswith("-py3-none-any.whl"):
        errors.append(f"{wheel.name} is not for every Python 3 and every machine")
    if wheel.stat().st_size > MAX_WHEEL_BYTES:
        errors.append(f"{wheel.name} has {wheel.stat().st_size} bytes; at most {MAX_WHEEL_BYTES}")
    return errors


def _belongs(name: str) -> bool:
    excluded = ("/tests/", "/__pycache__/", "/node_modules/")
    return (
        name.startswith("tonewood/")
        and not any(part in f"/{name}" for part in excluded)
        and not name.endswith((".ipynb", ".ts", ".pyc"))
    )


def main() -> None:
    """Build, check, try and list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist")
    output = parser.parse_args().output.resolve()
    shutil.rmtree(output, ignore_errors=True)
    run(sys.executable, "-m", "piplicenses", cwd=ROOT)
    wheel, source = build(ROOT, output)
    with tempfile.TemporaryDirectory() as folder:
        second = build(copy_tree(Path(folder) / "tree"), Path(folder) / "dist")
        differing = [path.name for path in second if sha256(path) != sha256(output / path.name)]
        if differing:
            sys.exit(f"{' and '.join(differing)} differ when built again from a copy")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, source)
    errors = check_wheel(wheel)
    if errors:
        sys.exit("\n".join(errors))
    with tempfile.TemporaryDirectory() as folder:
        interpreters = [install(wheel, python, Path(folder)) for python in pythons()]
        bill = output / "sbom.cdx.json"
        run(
            *(sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"),
            *("--pyproject", ROOT / "pyproject.toml", "-o", bill, interpreters[0]),
        )
    for path in (wheel, source, bill):
        print(f"{path} {path.stat().st_size // 1000} kB, SHA-256 {sha256(path)}")


def build(tree: Path, output: Path) -> tuple[Path, Path]:
    """Build the source distribution, and the wheel from it; return the wheel and the source."""
    # hatchling is installed already, so the build needs no network.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", output, tree)
    (wheel,), (source,) = output.glob("*.whl"), output.glob("*.tar.gz")
    return wheel, source


def copy_tree(target: Path, root: Path = ROOT) -> Path:
    """Copy the source tree with new dates and other permissions, as on another machine."""
    excluded = (".git", ".venv", "node_modules", "dist", "site", "demo", "build", "corpus")
    shutil.copytree(root, target, ignore=shutil.ignore_patterns(*excluded), copy_function=shutil.copy)
    for path in target.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    return target


def sha256(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pythons() -> list[str]:
    """Return the installed interpreters of the supported versions."""
    interpreters = []
    for version in PYTHONS:
        named = shutil.which(f"python{version}")
        # A version manager may put a stub on the path for a version that is not installed.
        if named and subprocess.run([named, "--version"], capture_output=True).returncode == 0:
            interpreters.append(named)
    return interpreters or [sys.executable]


def install(wheel: Path, python: str, folder: Path) -> Path:
    """Install a wheel into an empty environment, run it there, and return its interpreter."""
    environment = folder / Path(python).name
    run(python, "-m", "venv", environment)
    inside = environment / "bin" / "python"
    quiet = ("-qq", "--disable-pip-version-check")
    run(inside, "-m", "pip", "install", *quiet, "-c", ROOT / "constraints.txt", wheel)
    for call in (("--help",), ("info", "cello"), ("score", ROOT / "src/tonewood/bundled/example.flac")):
        run(environment / "bin" / "tonewood", *call, cwd=folder)
        run(inside, "-m", "tonewood", *call, cwd=folder)
    run(inside, "-c", "import sys, importlib.util; sys.exit(importlib.util.find_spec('torch') is not None)")
    print(f"{python}: installed and run")
    return inside


def run(*call: str | Path, cwd: Path | None = None) -> None:
    """Run a command; show its output only if it fails."""
    # hatchling's own date is constant; SOURCE_DATE_EPOCH would change the bytes.
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    process = subprocess.run(
        call,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if process.returncode:
        sys.exit(f"{' '.join(map(str, call))}\n{process.stdout.decode(errors='replace')}")


if __name__ == "__main__":
    main()
