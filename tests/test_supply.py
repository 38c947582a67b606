"""What Tonewood is built from is locked, licensed and looked up; what is built is the same."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
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


lock = script("lock")
licences = script("licences")
vulnerabilities = script("vulnerabilities")
LOCKS = {name: (ROOT / "requirements" / name).read_text("utf-8") for name in lock.EXTRAS}
HASH = "sha256:" + "0" * 64


# --- The lock


def test_the_locks_hold_what_constraints_pin_each_with_its_hashes() -> None:
    assert lock.faults(LOCKS, lock.constrained()) == []
    names = [pin.name for text in LOCKS.values() for pin in lock.pins(text)]
    assert len(names) == len(set(names))
    assert "torch" not in names


def test_the_developers_lock_has_all_that_their_tools_need() -> None:
    missing: set[str] = set()
    needed = {licences.plain(it.name) for it in licences.needed("tonewood", ["dev"], missing)}
    assert missing == set()
    assert needed - {"torch"} <= {pin.name for pin in lock.pins(LOCKS["dev.txt"])}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a==1 \\\n    --hash={HASH}\n", []),
        (f"a==1 ; os_name == 'nt' \\\n    --hash={HASH} \\\n    --hash={HASH}\n", []),
        (f"a==2 --hash={HASH}\n", ["dev.txt: a==2, constraints.txt has 1"]),
        (f"a==1 --hash={HASH}\nb.B==1 --hash={HASH}\n",
         ["dev.txt: b-b==1, constraints.txt has no version"]),
        ("a==1\n", ["dev.txt: a==1 has no SHA-256"]),
        (f"a==1 --hash={HASH} --hash=md5:{'0' * 32}\n", ["dev.txt: a==1 has no SHA-256"]),
        ("# a==1\n", ["a==1 is in no lock"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_lock_is_said(text: str, said: list[str]) -> None:
    assert lock.faults({"dev.txt": text}, {"a": "1", "torch": "2"}) == said


def test_the_lock_knows_what_torch_needs() -> None:
    # The index's own build for Linux needs CUDA besides, the build for the CPU does not.
    stated = map(Requirement, requires("torch") or ())
    cuda = re.compile("nvidia|cuda|triton")
    needs = {
        f"{licences.plain(it.name)}{it.specifier}"
        for it in stated
        if not cuda.match(it.name) and (it.marker is None or it.marker.evaluate({"extra": ""}))
    }
    assert needs == {it.replace(" ", "") for it in lock.NEEDS_OF_TORCH}


# --- Licences


def test_every_package_that_is_needed_has_a_licence_of_the_list() -> None:
    missing: set[str] = set()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    packages = list(licences.needed("tonewood", project["optional-dependencies"], missing))
    assert licences.faults(packages) == []
    # What is for releases, or for Google's store, is looked at by `make package`.
    release = {pin.name for pin in lock.pins(LOCKS["release.txt"])}
    assert missing <= release
    assert {"torch", "numpy", "synctoolbox", "pytest", "llvmlite"} <= {it.name for it in packages}


@pytest.mark.parametrize(
    ("name", "licence", "good"),
    [
        ("a", "MIT", True),
        ("a", "GPL-3.0-only OR MIT", True),
        ("a", "MIT AND BSD-3-Clause", True),
        ("a", "GPL-3.0-only AND MIT", False),
        ("a", "GNU General Public License v3 (GPLv3)", False),
        ("a", "LGPL-2.1-or-later", False),
        ("a", "nothing stated", False),
        ("soxr", "LGPL-2.1-or-later", True),
        ("soxr", "GPL-2.0-or-later", False),
        ("SoXR", "LGPL-2.1-or-later", True),
    ],
)
def test_a_licence_is_on_the_list_or_accepted_from_one_package(name: str, licence: str, good: bool) -> None:
    said = licences.faults([licences.Licensed(name, "1", licence)])
    assert said == ([] if good else [f"{name} 1: {licence} is not on the list of scripts/licences.py"])


def test_what_brings_copyleft_along_is_named_in_the_notice() -> None:
    for name in ("soxr", "libsndfile", "PyAV", "libx264"):
        assert name in NOTICE
    assert set(licences.EXCEPTIONS) == {"soxr", "docutils"}


@pytest.mark.parametrize(
    ("about", "licence"),
    [
        ("License-Expression: MIT\nLicense: GPL\n", "MIT"),
        ("Classifier: License :: OSI Approved :: MIT License\nLicense: x\n", "MIT"),
        ("Classifier: License :: OSI Approved\nLicense: ISC\n  and its text\n", "ISC"),
        ("Classifier: Topic :: Multimedia\n", "nothing stated"),
        ("Classifier: License :: OSI Approved :: MIT License\n"
         "Classifier: License :: OSI Approved :: GNU General Public License (GPL)\n",
         "MIT AND GNU General Public License (GPL)"),
    ],
)  # fmt: skip
def test_a_licence_is_read_in_all_three_ways(tmp_path: Path, about: str, licence: str) -> None:
    folder = tmp_path / "a-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: a\nVersion: 1\n{about}")
    assert licences.stated(licences.Distribution.at(folder)) == licence


# --- Vulnerabilities


def test_what_was_not_looked_up_is_not_called_unharmed() -> None:
    good = {"name": "a", "version": "1", "vulns": []}
    fault = {"id": "CVE-1", "fix_versions": ["2"]}
    bad = {"name": "b", "version": "1", "vulns": [fault]}
    lost = {"name": "c", "skip_reason": "Dependency not found on PyPI"}

    def code(*packages: object) -> int:
        found: int = vulnerabilities.judge(json.dumps({"dependencies": packages})).code
        return found

    assert code(good) == 0
    assert code(good, bad) == code(good, bad, lost) == 1
    assert code(good, lost) == code(lost) == code() == 3
    assert vulnerabilities.judge("Traceback").code == 3
    said = vulnerabilities.judge(json.dumps({"dependencies": [bad]})).lines
    assert said == ["b 1: CVE-1, mended in 2"]


# --- The same wheel, wherever and whenever it is built


def test_a_wheel_is_the_same_to_the_byte_from_another_copy_of_the_tree(tmp_path: Path) -> None:
    package = script("package")
    trees = [ROOT, package.copied(tmp_path / "tree")]
    code = "import hatchling.build as it, sys; print(it.build_wheel(sys.argv[1]))"
    digests = set()
    for number, tree in enumerate(trees):
        folder = tmp_path / f"dist{number}"
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        environment.pop("SOURCE_DATE_EPOCH", None)
        ran = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        digests.add(package.digest(folder / ran.stdout.split()[-1]))
    assert len(digests) == 1
