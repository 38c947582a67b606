"""The plug-in's engine beside `tonewood.Stream`, which is its slow twin."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

import tonewood
from tests.conftest import Samples, instrument
from tests.plugin.conftest import Block, Engine
from tonewood.export.plugin_file import MAX_PLUGIN_FILE_BYTES, export_plugin_file, serialize_plugin_file
from tonewood.settings import RenderSettings, ShapeSettings

EQUAL_DB = -80.0


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_plugin_file(tonewood.load("cello"), tmp_path_factory.mktemp("plugin") / "cello.twp").output


def music(rate: int, channels: int, seconds: float = 1.5) -> Samples:
    """Return notes of different timbre on each channel, with a pause."""
    waves = [instrument(seconds, rate, seed=seed)[0] for seed in range(channels)]
    samples = np.stack(waves).astype(np.float32)
    samples[:, rate // 2 : rate // 2 + rate // 10] = 0
    return samples


def random_blocks(total: int, seed: int) -> list[Block]:
    """Return blocks of random sizes and amounts that last `total` samples."""
    rng = np.random.default_rng(seed)
    sizes = rng.choice([1, 17, 64, 441, 512, 1_000, 8_192], size=total)
    count = int(np.searchsorted(np.cumsum(sizes), total)) + 1
    return [Block(int(size), float(rng.uniform(-1, 2))) for size in sizes[:count]]


def stream_output(rate: int, samples: Samples, blocks: list[Block]) -> Samples:
    stream = tonewood.Stream("cello", rate, samples.shape[0])
    parts, start = [], 0
    for block in blocks:
        stream.amount = block.amount
        parts.append(stream.process(samples[:, start : start + block.size]))
        start += block.size
    return np.concatenate(parts, axis=1)


def error_db(output: Samples, expected: Samples) -> float:
    return 10 * float(np.log10(np.square(output - expected).mean() / np.square(expected).mean()))


@pytest.mark.parametrize("name", ["cello", "soundfont-cello"])
def test_plugin_file_holds_what_its_documentation_says(name: str) -> None:
    model = tonewood.load(name)
    content = serialize_plugin_file(model)
    assert len(content) <= MAX_PLUGIN_FILE_BYTES
    assert content[:8] == b"TWPLUGIN"
    version, checksum, *sizes = struct.unpack_from("<13I", content, 8)
    assert (version, checksum) == (1, zlib.crc32(content[16:]))
    assert sizes == [16_000, 480, 160, 512, 48, 96, 3, 4, 1, len(name), len(model.card.licence)]
    assert struct.unpack_from("<4f", content, 60) == (-140, 8, 0.5, 1)
    assert content.endswith(f"{name}{model.card.licence}".encode())


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000, 96_000, 192_000])
def test_engine_equals_stream(engine: Engine, model_path: Path, rate: int, channels: int) -> None:
    samples = music(rate, channels)
    blocks = random_blocks(samples.shape[1], rate + channels)
    output, report = engine.run(model_path, rate, samples, blocks)
    assert report["latency"] == tonewood.Stream("cello", rate).latency
    assert error_db(output, stream_output(rate, samples, blocks)) < EQUAL_DB


def largest_step(samples: Samples) -> float:
    return float(np.abs(np.diff(samples, n=2, axis=1)).max())


def test_change_of_model_is_without_a_click(engine: Engine, model_path: Path, tmp_path: Path) -> None:
    other = export_plugin_file(tonewood.load("soundfont-cello"), tmp_path / "other.twp").output
    rate = 16_000
    samples = tone(3.0, rate)
    both = engine.run_models([model_path, other], rate, samples, [Block(rate), Block(2 * rate, model=1)])
    first = engine.run(model_path, rate, samples).samples
    second = engine.run(other, rate, samples).samples
    assert np.array_equal(both.samples[:, :rate], first[:, :rate])
    # The second stream started later, so its running estimates differ a little.
    assert error_db(both.samples[:, -rate // 2 :], second[:, -rate // 2 :]) < -20
    assert error_db(first[:, -rate // 2 :], second[:, -rate // 2 :]) > -20
    assert largest_step(both.samples[:, rate:]) < 1.5 * max(
        map(largest_step, (first[:, rate:], second[:, rate:]))
    )


def tone(seconds: float, rate: int) -> Samples:
    """Return a steady sound of three partials."""
    time = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * hz * time) / number for number, hz in enumerate((220, 440, 660), 1))
    return 0.1 * np.asarray(wave, np.float32)[None]


@pytest.mark.parametrize(("delta", "bypass"), [(1, 0), (0, 1)])
def test_delta_and_bypass_fade(engine: Engine, model_path: Path, delta: int, bypass: int) -> None:
    rate = 16_000
    samples = tone(2.0, rate)
    normal, report = engine.run(model_path, rate, samples)
    dry = np.concatenate([np.zeros((1, report["latency"]), np.float32), samples], axis=1)[
        :, : samples.shape[1]
    ]
    output = engine.run(
        model_path, rate, samples, [Block(rate), Block(rate, delta=delta, bypass=bypass)]
    ).samples
    fade_end = rate + rate // 50
    expected = dry if bypass else normal - dry
    assert np.allclose(output[:, :rate], normal[:, :rate], atol=0)
    assert np.allclose(output[:, fade_end:], expected[:, fade_end:], atol=1e-7)
    assert largest_step(output[:, rate:]) < 1.5 * largest_step(normal[:, rate:])


def test_rate_below_the_analysis_passes_the_sound_through(engine: Engine, model_path: Path) -> None:
    samples = music(8_000, 2)
    output, report = engine.run(model_path, 8_000, samples)
    assert report["latency"] == 0
    assert np.array_equal(output, samples)


def test_amount_zero_returns_delayed_input_to_the_bit(engine: Engine, model_path: Path) -> None:
    samples = music(48_000, 2)
    output, report = engine.run(model_path, 48_000, samples, [Block(1 << 20, 0.0)])
    assert not output[:, : report["latency"]].any()
    assert np.array_equal(output[:, report["latency"] :], samples[:, : -report["latency"]])


def test_reset_forgets_all_input(engine: Engine, model_path: Path) -> None:
    samples = music(22_050, 2)
    half = samples.shape[1] // 2
    output = engine.run(model_path, 22_050, samples, [Block(half), Block(0), Block(half)]).samples
    fresh = engine.run(model_path, 22_050, samples[:, half:]).samples
    assert np.array_equal(output[:, half:], fresh)


def signal(kind: str) -> Samples:
    """Return two seconds of a difficult signal at 16 kHz."""
    samples = np.zeros((2, 32_000), np.float32)
    if kind == "impulse":
        samples[:, 8_000] = 1
    elif kind == "DC":
        samples[:] = 1
    elif kind == "full scale":
        samples[:] = np.sign(np.sin(np.arange(32_000) / 20))
    elif kind == "denormal":
        samples[:] = 1e-40
    elif kind == "nan":
        samples[:] = music(16_000, 2, 2.0)[:, :32_000]
        samples[0, 10_000:10_010] = np.nan
        samples[1, 12_000] = np.inf
        samples[1, 14_000] = 1e30
    return samples


@pytest.mark.parametrize("kind", ["silence", "impulse", "DC", "full scale", "denormal", "nan"])
def test_difficult_signals_give_finite_output(engine: Engine, model_path: Path, kind: str) -> None:
    output = engine.run(model_path, 16_000, signal(kind), [Block(40_000, 2.0)]).samples
    assert np.isfinite(output).all()
    assert np.abs(output).max() <= (0 if kind == "silence" else 1.01)


def test_stream_recovers_after_values_that_are_not_audio(engine: Engine, model_path: Path) -> None:
    damaged, repaired = signal("nan"), signal("nan")
    repaired[~(np.abs(repaired) <= 1e3)] = 0
    assert np.array_equal(
        engine.run(model_path, 16_000, damaged).samples, engine.run(model_path, 16_000, repaired).samples
    )


def spectrum_change_db(
    output: Samples, samples: Samples, latency: int, rate: int, low: float, high: float
) -> float:
    """Return the level of the difference from the input between two frequencies, relative to the input."""
    dry = samples[:, : samples.shape[1] - latency]
    spectra = [np.abs(np.fft.rfft(wave, axis=1)) ** 2 for wave in (output[:, latency:] - dry, dry)]
    hz = np.fft.rfftfreq(dry.shape[1], 1 / rate)
    changed, before = (power[:, (hz > low) & (hz < high)].sum() for power in spectra)
    return 10 * float(np.log10(changed / before))


@pytest.mark.parametrize(
    ("limits", "unchanged", "changed"),
    [
        (Block(48_000, low_hz=2_000.0), (100, 1_000), (2_500, 6_000)),
        (Block(48_000, high_hz=500.0), (1_500, 6_000), (100, 500)),
    ],
)
def test_limits_keep_the_mask_within_them(
    engine: Engine,
    model_path: Path,
    limits: Block,
    unchanged: tuple[float, float],
    changed: tuple[float, float],
) -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 0.05, (1, 48_000)).astype(np.float32)
    output, report = engine.run(model_path, 16_000, samples, [limits])
    inside = spectrum_change_db(output, samples, report["latency"], 16_000, *changed)
    outside = spectrum_change_db(output, samples, report["latency"], 16_000, *unchanged)
    # What the loudness match adds is the same everywhere, and small.
    assert outside < inside


def test_freeze_keeps_the_mask(engine: Engine, model_path: Path) -> None:
    samples = music(16_000, 2, 2.0)
    stream = tonewood.Stream("cello", 16_000, 2)
    first = stream.process(samples[:, :16_000])
    stream.frozen = True
    expected = np.concatenate([first, stream.process(samples[:, 16_000:])], axis=1)
    output = engine.run(model_path, 16_000, samples, [Block(16_000), Block(1 << 20, freeze=1)]).samples
    assert error_db(output, expected) < EQUAL_DB
    assert error_db(output, engine.run(model_path, 16_000, samples).samples) > EQUAL_DB


def test_mid_side_of_a_mono_signal_is_linked(engine: Engine, model_path: Path) -> None:
    samples = np.repeat(music(16_000, 1), 2, axis=0)
    linked = engine.run(model_path, 16_000, samples).samples
    separate = engine.run(model_path, 16_000, samples, [Block(1 << 20, mid_side=1)]).samples
    assert error_db(separate, linked) < EQUAL_DB


def damaged_files(content: bytes) -> dict[str, bytes]:
    flipped = bytearray(content)
    flipped[5_000] ^= 1
    other_version = content[:8] + struct.pack("<I", 2) + content[12:]
    return {
        "not a Tonewood plug-in model": b"RIFF" + content[4:],
        "less than 1 MB": content * 2,
        "checksum": bytes(flipped),
        "format 2": other_version,
        "checksum is wrong": content[:-1],
        "not a Tonewood plug-in model: make": b"",
    }


def test_damaged_and_foreign_files_are_refused(engine: Engine, model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.twp"
    silence = np.zeros((1, 100), np.float32)
    for message, content in damaged_files(model_path.read_bytes()).items():
        path.write_bytes(content)
        ended = engine.start([path], 16_000, silence)
        assert ended.returncode == 1
        assert message in ended.stderr.decode()


@pytest.mark.parametrize("offset", range(16, 52, 4))
@pytest.mark.parametrize("value", [0, 1, 2**31, 2**32 - 1])
def test_wrong_sizes_with_a_right_checksum_are_refused(
    engine: Engine, model_path: Path, tmp_path: Path, offset: int, value: int
) -> None:
    content = bytearray(model_path.read_bytes())
    struct.pack_into("<I", content, offset, value)
    struct.pack_into("<I", content, 12, zlib.crc32(content[16:]))
    path = tmp_path / "bad.twp"
    path.write_bytes(content)
    ended = engine.start([path], 16_000, np.zeros((1, 100), np.float32))
    # A lookahead of 0 or 1, and a rate of 2^k, need not be wrong.
    assert ended.returncode == 1 or (offset == 48 and value <= 1)


def test_smoothing_and_limits_equal_those_of_a_stream(engine: Engine, model_path: Path) -> None:
    samples = music(48_000, 2)
    shape = ShapeSettings(smooth_octaves=0.7, low_hz=300.0, high_hz=3_000.0)
    stream = tonewood.Stream("cello", 48_000, 2, settings=RenderSettings(shape=shape))
    block = Block(512, low_hz=300.0, high_hz=3_000.0, smooth_octaves=0.7)
    output = engine.run(model_path, 48_000, samples, [block]).samples
    assert error_db(output, stream.process(samples)) < EQUAL_DB
