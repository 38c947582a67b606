"""Audio and host threads at work at once, under sanitizers, and without allocation on the audio thread."""

import subprocess
from pathlib import Path

import pytest

import tonewood
from tests.plugin.conftest import compile_engine
from tonewood.export.plugin_file import export_plugin_file


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    names = ("cello", "soundfont-cello")
    return [str(export_plugin_file(tonewood.load(name), folder / f"{name}.twp").output) for name in names]


def stress(program: Path, models: list[str]) -> None:
    ended = subprocess.run([str(program), *models, "3"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "no fault\n", "")


def test_audio_thread_never_allocates(shared: Path, models: list[str]) -> None:
    stress(compile_engine(shared / "plugin", "stress"), models)


@pytest.mark.long
@pytest.mark.parametrize("sanitizers", ["thread", "address,undefined"])
def test_sanitizers_find_nothing(shared: Path, models: list[str], sanitizers: str) -> None:
    flags = f"-fsanitize={sanitizers}"
    variables = f"CXXFLAGS=-O1 -g {flags} -fno-sanitize-recover=all", f"LDFLAGS={flags}"
    stress(compile_engine(shared / f"plugin-{sanitizers}", "stress", *variables), models)
