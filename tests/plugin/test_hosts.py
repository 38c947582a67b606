"""The finished plug-in in hosts: LV2 as a workstation loads it, and LV2's own validator.

The build takes a minute and more, hence the mark `long`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tonewood
from tests.conftest import Samples, made_once
from tests.plugin.clap_host import ClapPlugin
from tests.plugin.conftest import PLUGIN
from tests.plugin.lv2_host import Lv2Plugin
from tests.plugin.test_engine import EQUAL_DB, error_db, largest_step, music, random_blocks
from tonewood.export.plugin_file import export_plugin_file

pytestmark = pytest.mark.long

# As the plug-in's parameters follow one another; `enabled` is the opposite of bypass.
DEFAULTS = {
    "amount": 100.0, "low": 20.0, "high": 20_000.0, "smoothing": 0.0, "mid_side": 0.0, "delta": 0.0,
    "freeze": 0.0, "enabled": 1.0, "model": 0.0,
}  # fmt: skip
FILE_CHOICE = 2.0
RATE = 48_000


def build_plugin(folder: Path) -> Path:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    variables = [f"BUILD={folder}", f"PYTHON={sys.executable}"]
    command = ["make", "-s", "-j2", "-C", str(PLUGIN), *variables]
    check = subprocess.run([*command, "check"], capture_output=True, text=True)
    if check.returncode:
        pytest.skip(check.stderr.splitlines()[0])
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return folder / "bin"


@pytest.fixture(scope="session")
def plugins(shared: Path) -> Path:
    """Return the folder of the built plug-ins."""
    return made_once(shared / "plugins", lambda: build_plugin(shared / "plugin-build"))


def open_plugin(plugins: Path, channels: int = 2, rate: int = RATE, **parameters: float) -> Lv2Plugin:
    name = "tonewood" if channels == 2 else "tonewood-mono"
    plugin = Lv2Plugin(plugins / f"{name}.lv2", rate, channels, (DEFAULTS | parameters).values())
    plugin.activate()
    return plugin


def set_parameter(plugin: Lv2Plugin, name: str, value: float) -> None:
    plugin.parameters[list(DEFAULTS).index(name)].value = value


def play(plugin: Lv2Plugin, samples: Samples, seed: int = 0) -> Samples:
    """Process samples in blocks of random sizes."""
    rng, parts, start = np.random.default_rng(seed), [], 0
    while start < samples.shape[1]:
        count = int(rng.choice([1, 64, 441, 512, 8_192]))
        parts.append(plugin.process(samples[:, start : start + count]))
        start += count
    return np.concatenate(parts, axis=1)


def test_all_formats_are_built(plugins: Path) -> None:
    for name in ("tonewood", "tonewood-mono"):
        assert (plugins / f"{name}.clap").is_file()
        assert list((plugins / f"{name}.vst3").rglob("*.so"))
        assert (plugins / f"{name}.lv2" / "manifest.ttl").is_file()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_plugin_in_a_host_equals_stream(plugins: Path, rate: int, channels: int) -> None:
    samples = music(rate, channels)
    plugin = open_plugin(plugins, channels, rate)
    output = play(plugin, samples)
    stream = tonewood.Stream("cello", rate, channels)
    assert error_db(output, stream.process(samples)) < EQUAL_DB
    assert plugin.latency == stream.latency
    plugin.close()


@pytest.mark.parametrize("channels", [1, 2])
def test_clap_with_automated_amount_equals_stream(plugins: Path, channels: int) -> None:
    samples = music(RATE, channels)
    name, identity = ("tonewood", "stereo") if channels == 2 else ("tonewood-mono", "mono")
    plugin = ClapPlugin(plugins / f"{name}.clap", f"tonewood.{identity}", RATE, channels)
    stream = tonewood.Stream("cello", RATE, channels)
    output, expected, start = [], [], 0
    for block in random_blocks(samples.shape[1], channels):
        stream.amount = block.amount
        part = samples[:, start : start + block.size]
        output.append(plugin.process(part, {0: 100 * block.amount}))
        expected.append(stream.process(part))
        start += block.size
    assert error_db(np.concatenate(output, axis=1), np.concatenate(expected, axis=1)) < EQUAL_DB
    assert plugin.latency == stream.latency
    plugin.close()


def test_clap_saves_and_restores_its_state(plugins: Path, tmp_path: Path) -> None:
    path = export_plugin_file(tonewood.load("soundfont-cello"), tmp_path / "mine.twp").output
    plugin = ClapPlugin(plugins / "tonewood.clap", "tonewood.stereo", RATE, 2)
    plugin.process(music(RATE, 2), {0: 150.0, 4: 1.0})
    state = plugin.save().replace(b"model-file\0\0", f"model-file\0{path}\0".encode())
    other = ClapPlugin(plugins / "tonewood.clap", "tonewood.stereo", RATE, 2)
    other.load(state)
    assert other.save() == state
    assert b"amount\x00150" in state


def test_instances_do_not_disturb_each_other(plugins: Path) -> None:
    samples, other = music(RATE, 2), music(RATE, 2)[::-1]
    alone = open_plugin(plugins)
    expected = alone.process(samples)
    first, second = open_plugin(plugins), open_plugin(plugins)
    half = samples.shape[1] // 2
    parts = []
    for span in (slice(0, half), slice(half, None)):
        parts.append(first.process(samples[:, span]))
        second.process(other[:, span])
    assert np.array_equal(np.concatenate(parts, axis=1), expected)


def test_activation_starts_anew(plugins: Path) -> None:
    samples = music(RATE, 2)
    plugin = open_plugin(plugins)
    expected = plugin.process(samples)
    plugin.process(samples[:, :1_000])
    plugin.deactivate()
    plugin.activate()
    assert np.array_equal(plugin.process(samples), expected)


def test_bypass_is_delayed_input_without_a_click(plugins: Path) -> None:
    samples = music(RATE, 2)
    plugin = open_plugin(plugins)
    plugin.process(samples)
    set_parameter(plugin, "enabled", 0)
    output = plugin.process(samples)
    settled = slice(plugin.latency + RATE // 50, None)
    assert np.allclose(
        output[:, settled], samples[:, RATE // 50 : samples.shape[1] - plugin.latency], atol=1e-7
    )
    assert largest_step(output) < 2 * largest_step(samples)


def test_state_keeps_the_model_file(plugins: Path, tmp_path: Path) -> None:
    path = export_plugin_file(tonewood.load("soundfont-cello"), tmp_path / "mine.twp").output
    plugin = open_plugin(plugins, model=FILE_CHOICE)
    (key,) = plugin.save()
    plugin.restore({key: f"{path}\0".encode()})
    plugin.deactivate()
    plugin.activate()
    samples = np.tile(music(RATE, 2), (1, 2))
    output = plugin.process(samples)
    later = slice(samples.shape[1] // 2, None)  # after the change from the bundled model
    expected = tonewood.Stream("soundfont-cello", RATE, 2).process(samples)
    assert error_db(output[:, later], expected[:, later]) < -20
    assert plugin.save() == {key: f"{path}\0".encode()}


def test_damaged_file_leaves_the_model(plugins: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.twp"
    path.write_bytes(b"TWPLUGIN" + bytes(100))
    samples = music(RATE, 2)
    expected = open_plugin(plugins).process(samples)
    plugin = open_plugin(plugins, model=FILE_CHOICE)
    (key,) = plugin.save()
    plugin.restore({key: f"{path}\0".encode()})
    assert np.array_equal(plugin.process(samples), expected)


def test_description_is_valid(plugins: Path) -> None:
    if not (shutil.which("lv2_validate") and shutil.which("sord_validate")):
        pytest.skip("lv2_validate needs the packages lv2-dev and sordi")
    files = sorted((plugins / "tonewood.lv2").glob("*.ttl"))
    ended = subprocess.run(["lv2_validate", *map(str, files)], capture_output=True, text=True)
    # DPF also states the names that MOD devices show, whose vocabulary is not part of LV2.
    errors = [
        part for part in (ended.stdout + ended.stderr).split("error: ")[1:] if "moddevices.com" not in part
    ]
    assert errors == []
