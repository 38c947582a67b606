"""What is published: the wheel's contents and description, the extras, and their absence."""

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from email.parser import Parser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from fsspec.registry import _registry
from packaging.requirements import Requirement

from tonewood.errors import MissingExtraError
from tonewood.model.model import load_pretrained
from tonewood.stats.mushra import fit_mixed_effects

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
FOR_DEVELOPERS = {"dev", "docs", "release"}


@pytest.fixture(scope="module")
def package() -> ModuleType:
    spec = spec_from_file_location("package", ROOT / "scripts" / "package.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    code = f"import hatchling.build; print(hatchling.build.build_wheel({str(folder)!r}))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return folder / ran.stdout.strip().splitlines()[-1]


def test_wheel_contains_exactly_the_package(package: ModuleType, wheel: Path) -> None:
    assert package.check_wheel(wheel) == []


@pytest.mark.parametrize(
    ("drop", "add", "message"),
    [
        ("tonewood/studio/static/index.html", None, "index.html is missing"),
        ("tonewood/dsp/features.py", None, "features.py is missing"),
        (None, "tests/test_api.py", "not part of the package"),
        (None, "tonewood/cello.ipynb", "not part of the package"),
    ],
)
def test_faults_of_a_wheel_are_found(
    package: ModuleType, wheel: Path, tmp_path: Path, drop: str, add: str, message: str
) -> None:
    spoilt = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(spoilt, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name != drop:
                new.writestr(name, old.read(name))
        if add:
            new.writestr(add, "")
    errors = package.check_wheel(spoilt)
    assert errors
    assert all(message in error for error in errors)


def test_wheel_metadata_is_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        points = next(name for name in names if name.endswith("entry_points.txt"))
        about = Parser().parsestr(archive.read(metadata).decode("utf-8"))
        assert "tonewood = tonewood.cli:main" in archive.read(points).decode("utf-8")
    assert about["Name"] == "tonewood"
    assert about["Version"] == PROJECT["version"]
    assert about["License-Expression"] == "Apache-2.0"
    assert about["Requires-Python"] == ">=3.11.5"
    assert about["Description-Content-Type"] == "text/markdown"
    assert set(about.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])
    licences = {Path(path).name for path in about.get_all("License-File") or []}
    assert licences == {"LICENSE", "NOTICE", "NOTICE.md"}
    assert "# Tonewood" in str(about.get_payload())


def test_base_installation_has_no_torch() -> None:
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert names.isdisjoint({"torch", "pyloudnorm", "matplotlib", "librosa"})
    with_torch = {
        extra
        for extra, lines in PROJECT["optional-dependencies"].items()
        if "torch" in {Requirement(line).name for line in lines}
    }
    assert with_torch == {"train", "pitch", "captum", "onnx", "dev"}


def test_version_is_the_same_everywhere() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == PROJECT["version"]
    assert cited["license"] == PROJECT["license"]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"version {PROJECT['version']}" in (ROOT / "docs" / "licence.md").read_text("utf-8")


def test_test_requirements_are_pinned() -> None:
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {plain(line.partition("==")[0]) for line in lines if not line.startswith("#")}
    groups = (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    assert {plain(Requirement(line).name) for group in groups for line in group} <= pinned
    assert lines[2:] == sorted(lines[2:], key=str.lower)


# --- Every extra, and the line that stands for it when it is absent

ABSENT = {
    "align": ("synctoolbox.dtw.mrmsdtw", "evaluate --pairs plain good"),
    "captum": ("captum", "explain take.wav -o page.html --method integrated"),
    "cluster": ("distributed", "score take.wav --workers 1"),
    "gcs": ("gcsfs", "score gs://bucket/take.wav"),
    "s3": ("s3fs", "score s3://bucket/take.wav"),
    "datasets": ("mirdata", "manifest tinysol --data-home . --reference a=1 --source a=2 -o l.csv"),
    "media": ("av", "score take.m4a"),
    "listen": ("fastapi", "listen serve test"),
    "live": ("sounddevice", "live --list-devices"),
    "onnx": ("onnxscript", "onnx cello -o scorer.onnx"),
    "pitch": ("librosa", "explain take.wav -o page.html"),
    "plot": ("matplotlib", "enhance take.wav -o out.wav --plot"),
    "studio": ("uvicorn", "studio --no-browser"),
}


@pytest.mark.parametrize("extra", ABSENT)
def test_missing_extra_is_named_with_its_installation(
    run: Callable[..., Any], tone: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, extra: str,
) -> None:  # fmt: skip
    for name in ("take.wav", "plain/a.wav", "good/a.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, tone(1.0).T, 44_100)
    (tmp_path / "take.m4a").write_bytes(b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom")
    module, call = ABSENT[extra]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    # As if nothing had asked for it yet.
    monkeypatch.delitem(sys.modules, "tonewood.batch.dask_backend", raising=False)
    monkeypatch.delitem(_registry, extra, raising=False)
    before = sorted(tmp_path.rglob("*"))
    ran = run(*call.split())
    assert (ran.code, ran.out) == (1, "")
    assert re.fullmatch(rf"tonewood: .*pip install '\.\[{extra}\]'.*\n", ran.err), ran.err
    assert sorted(tmp_path.rglob("*")) == before


def test_mixed_effects_without_stats_name_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.regression.mixed_linear_model", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[stats\]'"):
        fit_mixed_effects(np.zeros((2, 2, 2)))


def test_repositories_without_hub_name_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[hub\]'"):
        load_pretrained("somebody/somewhere-not-here")


def test_every_extra_is_tested_and_documented() -> None:
    extras = set(PROJECT["optional-dependencies"]) - FOR_DEVELOPERS
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == extras
    # Without `train`: tests/test_without_torch.py; without `perceptual`: tests/evaluation/test_zimtohrli.py.
    assert set(ABSENT) | {"stats", "hub", "train", "perceptual"} == extras
