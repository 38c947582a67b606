"""Normalization of both sides: each property reaches its target, and nothing else changes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tonewood.data import normalization
from tonewood.data.normalization import (
    _low_pass_blocks,
    fit_normalization,
    normalize_blocks,
    normalize_recording,
    shaped_noise,
)
from tonewood.dsp.artifact_detectors import THIRD_OCTAVES_HZ
from tonewood.dsp.loudness import integrated_loudness
from tonewood.dsp.recording_quality import measure_quality
from tonewood.settings import Normalization

RATE = 44_100
Samples = NDArray[np.float32]


def take(floor: float, rng: np.random.Generator, gain: float = 1.0) -> Samples:
    time = np.arange(8 * RATE) / RATE
    tone = 0.2 * np.sin(2 * np.pi * 440 * time) * (time % 1 < 0.6)
    return (gain * (tone + floor * rng.standard_normal(len(time)))).astype(np.float32)[None]


def test_empty_normalization_changes_nothing(rng: np.random.Generator) -> None:
    wave = take(1e-4, rng)
    assert np.array_equal(
        normalize_recording(wave, RATE, measure_quality(wave, RATE), Normalization(), rng), wave
    )


def test_level_normalizes_all_to_one_loudness(rng: np.random.Generator) -> None:
    waves = [take(1e-4, rng, gain) for gain in (0.1, 0.3, 1.0)]
    actual = [measure_quality(wave, RATE) for wave in waves]
    fix = fit_normalization(("level",), actual[:1], actual[1:])
    assert fix.cutoff_hz is None
    assert fix.floor_bands_db is None
    for wave, item in zip(waves, actual, strict=True):
        output = normalize_recording(wave, RATE, item, fix, rng)
        assert integrated_loudness(output, RATE) == pytest.approx(actual[1].loudness, abs=0.01)
        # Nothing but a gain.
        ratio = output[wave != 0] / wave[wave != 0]
        assert np.allclose(ratio, ratio[0], rtol=1e-5)


def test_bandwidth_takes_the_narrower_side_and_keeps_what_is_below(
    rng: np.random.Generator,
) -> None:
    wide = take(1e-3, rng)
    blocks = _low_pass_blocks([take(1e-3, rng).astype(np.float64)], RATE, 12_000)
    narrow = np.concatenate(list(blocks), axis=1).astype(np.float32)
    actual = [measure_quality(wave, RATE) for wave in (wide, narrow)]
    assert actual[0].cutoff_hz == RATE / 2
    fix = fit_normalization(("bandwidth",), actual[:1], actual[1:])
    assert fix.cutoff_hz == pytest.approx(12_000, abs=300)
    output = normalize_recording(wide, RATE, actual[0], fix, rng)
    assert measure_quality(output, RATE).cutoff_hz == pytest.approx(12_000, abs=300)
    before = np.fft.rfft(output[0] - wide[0])[: 8 * 11_000]
    assert np.abs(before).max() < 1e-3 * np.abs(np.fft.rfft(wide[0])).max()
    # Where there is nothing to cut, nothing is touched.
    assert np.array_equal(
        normalize_recording(narrow, RATE, actual[1], Normalization(cutoff_hz=RATE / 2), rng), narrow
    )


def test_noise_raises_both_sides_to_one_floor(rng: np.random.Generator) -> None:
    waves = [take(10 ** (db / 20), rng) for db in (-90, -60)]
    actual = [measure_quality(wave, RATE) for wave in waves]
    fix = fit_normalization(("noise",), actual[:1], actual[1:])
    for wave, item in zip(waves, actual, strict=True):
        after = measure_quality(normalize_recording(wave, RATE, item, fix, rng), RATE)
        assert after.floor_db == pytest.approx(-60, abs=0.5)
        assert np.allclose(after.floor_bands_db[9:23], actual[1].floor_bands_db[9:23], atol=1.5)


def test_noise_has_the_target_level_in_every_band(rng: np.random.Generator) -> None:
    expected = rng.uniform(-80, -50, len(THIRD_OCTAVES_HZ))
    current = np.full(len(THIRD_OCTAVES_HZ), np.nan)
    noise = shaped_noise(20 * RATE, RATE, expected, current, rng)
    power = np.abs(np.fft.rfft(noise)) ** 2 * 2 / len(noise) ** 2
    hz = np.fft.rfftfreq(len(noise), 1 / RATE)
    for centre, db in zip(THIRD_OCTAVES_HZ, expected, strict=True):
        band = (hz >= centre * 2 ** (-1 / 6)) & (hz < min(centre * 2 ** (1 / 6), RATE / 2))
        assert 10 * np.log10(power[band].sum()) == pytest.approx(db, abs=1.0)
    # What is there already is not put there again.
    assert not shaped_noise(RATE, RATE, expected, expected + 1, rng).any()


def test_takes_without_rests_plan_no_noise(rng: np.random.Generator) -> None:
    loud = (0.1 * rng.standard_normal((1, 4 * RATE))).astype(np.float32)
    actual = [measure_quality(loud, RATE)]
    assert actual[0].floor_db is None
    assert fit_normalization(("noise",), actual, actual) == Normalization()


def test_noise_blocks_crossfade_at_constant_power(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stretch = 2 * RATE
    monkeypatch.setattr(normalization, "_NOISE_BLOCK", stretch)
    wave = np.zeros((1, 201 * RATE // 2), np.float32)
    # A floor that lies low and falls steeply: a step from one stretch to the next would show above.
    floor = tuple(float(db) for db in np.linspace(-40, -100, len(THIRD_OCTAVES_HZ)))
    current = measure_quality(wave + np.float32(1e-9), RATE)
    output = normalize_recording(wave, RATE, current, Normalization(floor_bands_db=floor), rng)[0]
    assert len(output) == wave.shape[1]
    fade = round(0.2 * RATE)
    frames = output[: 50 * stretch].reshape(50, -1)
    level = 10 * np.log10(np.square(frames[1:, :fade]).mean())
    assert level == pytest.approx(10 * np.log10(np.square(frames[:, fade:]).mean()), abs=0.4)
    # Throughout: where one has just begun to fade in, the other has hardly begun to fade out.
    ends = [
        np.square(frames[1:, :fade][:, part]).mean() for part in (slice(fade // 4), slice(-fade // 4, None))
    ]
    assert 10 * np.log10(ends) == pytest.approx(level, abs=1.5)
    above = np.diff(frames, n=4, axis=1)
    borders = np.diff(np.concatenate([output[k * stretch - 50 :][:100] for k in range(1, 50)]), n=4)
    joins = np.arange(99, len(borders), 100)  # of what was concatenated here, no part of it
    inside = np.delete(borders, [k + j for k in joins for j in range(-4, 1) if k + j < len(borders)])
    assert np.abs(inside).max() < 1.5 * np.abs(above).max()


def test_normalizing_blocks_equals_normalizing_the_whole(rng: np.random.Generator) -> None:
    wave = np.concatenate([take(1e-3, rng), take(1e-3, rng)])
    current = measure_quality(wave, RATE)
    fix = Normalization(loudness=-30.0, cutoff_hz=8_000.0, floor_bands_db=(-60.0,) * len(THIRD_OCTAVES_HZ))
    whole = normalize_recording(wave, RATE, current, fix, np.random.default_rng(3))
    blocks = np.split(wave, [1, 700, 50_000, 50_001, 300_000], axis=1)
    parts = normalize_blocks(blocks, wave.shape[1], RATE, current, fix, np.random.default_rng(3))
    assert np.allclose(np.concatenate(list(parts), axis=1), whole, rtol=0, atol=1e-7)
