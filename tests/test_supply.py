"""Dependencies are pinned, licensed and checked for vulnerabilities; builds are reproducible."""

import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.metadata import requires
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
NOTICE = (ROOT / "NOTICE").read_text("utf-8")


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


vulnerabilities = script("vulnerabilities")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- Pinned versions

LINES = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
PINS = dict(line.split("==") for line in LINES if not line.startswith("#"))


def installed_requirements(package: str, extras: tuple[str, ...]) -> set[str]:
    """Return the canonical names of all that a package needs on this machine, directly or indirectly."""
    names: set[str] = set()
    visited: set[tuple[str, str]] = set()
    remaining = [(package, extra) for extra in ("", *extras)]
    while remaining:
        name, extra = remaining.pop()
        if (name, extra) in visited:
            continue
        visited.add((name, extra))
        for line in requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                names.add(canonical(requirement.name))
                remaining += [(requirement.name, inner) for inner in ("", *requirement.extras)]
    return names


def test_every_package_of_an_extra_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    pinned = {canonical(name) for name in PINS}
    assert {canonical(Requirement(line).name) for line in lines} - pinned == set()
    assert all(version[0].isdigit() for version in PINS.values())
    assert PINS["torch"] == "2.13.0"


def test_every_package_that_the_tools_need_is_pinned() -> None:
    assert installed_requirements("tonewood", ("dev",)) - {canonical(name) for name in PINS} == set()


# --- Actions and container


def test_actions_are_pinned_by_hash_and_their_release_is_named() -> None:
    uses = [
        line.strip() for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        for line in path.read_text("utf-8").splitlines() if re.search(r"\buses:", line)
    ]  # fmt: skip
    assert uses
    pinned = re.compile(r"- uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in uses if not pinned.fullmatch(line)] == []
    # One release of each action, or an update would miss some.
    assert len(set(uses)) == len({line.partition("@")[0] for line in uses})


def test_container_installs_the_pinned_versions_by_hash() -> None:
    lines = (ROOT / "container-requirements.txt").read_text("utf-8").replace("\\\n", " ").splitlines()
    locked = [line for line in lines if line and not line.startswith("#")]
    versions = [re.match(r"([\w.-]+)==([\w.]+)", line) for line in locked]
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", line) for line in locked)
    pins = {canonical(name): version for name, version in PINS.items()}
    assert {(canonical(match[1]), match[2]) for match in versions if match} <= set(pins.items())
    assert {"fastapi", "matplotlib", "numpy", "soundfile", "hatchling"} <= {
        canonical(match[1]) for match in versions if match
    }


# --- Licences


def test_copyleft_packages_are_named_in_the_notice() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    copyleft, unnamed = "soxr", "zimtohrli"
    assert tools["pip-licenses"]["ignore-packages"] == [copyleft, unnamed]
    (licence,) = (path for path in metadata.files(unnamed) or () if path.name == "LICENSE")
    assert "Apache License" in licence.read_text()
    assert not re.search(r"\bA?L?GPL", tools["pip-licenses"]["allow-only"])
    for name in ("soxr", "libsndfile", "PyAV", "libx264"):
        assert name in NOTICE


# --- Vulnerabilities


def test_unknown_packages_are_not_reported_as_safe() -> None:
    safe = {"name": "a", "version": "1", "vulns": []}
    vulnerability = {"id": "CVE-1", "fix_versions": ["2"]}
    vulnerable = {"name": "b", "version": "1", "vulns": [vulnerability]}
    unknown = {"name": "c", "skip_reason": "Dependency not found on PyPI"}

    def code(*packages: object) -> int:
        exit_code: int = vulnerabilities.evaluate(json.dumps({"dependencies": packages})).code
        return exit_code

    assert code(safe) == 0
    assert code(safe, vulnerable) == code(safe, vulnerable, unknown) == 1
    assert code(safe, unknown) == code(unknown) == code() == 3
    assert vulnerabilities.evaluate("Traceback").code == 3
    lines = vulnerabilities.evaluate(json.dumps({"dependencies": [vulnerable]})).lines
    assert lines == ["b 1: CVE-1, fixed in 2"]


# --- Reproducible builds


def test_wheels_from_two_copies_of_the_tree_are_identical(tmp_path: Path) -> None:
    package = script("package")
    trees = [ROOT, package.copy_tree(tmp_path / "tree")]
    code = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    digests = set()
    for number, tree in enumerate(trees):
        folder = tmp_path / f"dist{number}"
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        environment.pop("SOURCE_DATE_EPOCH", None)
        result = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        digests.add(package.sha256(folder / result.stdout.split()[-1]))
    assert len(digests) == 1
