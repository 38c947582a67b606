"""Traces of recordings whose making is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tonewood.dsp.artifact_detectors import THIRD_OCTAVES_HZ
from tonewood.dsp.recording_quality import measure_quality

RATE = 22_050
Samples = NDArray[np.float32]


@pytest.fixture
def take(rng: np.random.Generator) -> Samples:
    """Tones of 0.6 s that ring on for 0.3 s, over noise at -70 dBFS; half a second before them."""
    time = np.arange(10 * RATE) / RATE
    beat = (time - 0.5) % 1
    on = 10 ** (-3 * np.maximum(0, beat - 0.6) / 0.3) * ((time >= 0.5) & (time < 9.2))
    tone = sum(0.1 * np.sin(2 * np.pi * hz * time) for hz in (440, 1_320, 3_300))
    wave = on * tone + 10 ** (-70 / 20) * rng.standard_normal(len(time))
    return wave.astype(np.float32)[None]


def test_quality_of_a_synthetic_recording(take: Samples) -> None:
    found = measure_quality(take, RATE)
    assert found.seconds == 10
    assert found.floor_db == pytest.approx(-70, abs=0.5)
    assert found.lead_s == pytest.approx(0.5, abs=0.05)
    assert found.tail_s == pytest.approx(0.8, abs=0.05)
    assert 0.2 < found.silent < 0.4
    assert found.decay_s == pytest.approx((0.3, 0.3), rel=0.2)
    assert found.gated == 0
    assert found.cutoff_hz == RATE / 2
    assert found.holes == 0
    assert found.clips == 0
    assert found.offset_db < -80
    assert found.width_db == -60
    # White noise has as much in each Hz: 3 dB more in a band twice as wide.
    octave = (
        np.flatnonzero(THIRD_OCTAVES_HZ == 4_000)[0],
        np.flatnonzero(THIRD_OCTAVES_HZ == 8_000)[0],
    )
    low, high = found.floor_bands_db[list(octave)]
    assert high - low == pytest.approx(3, abs=0.5)
    assert np.isnan(found.floor_bands_db[-1])  # beyond half the rate


def test_gain_shifts_only_levels(take: Samples) -> None:
    before, after = measure_quality(take, RATE), measure_quality(take / np.float32(2), RATE)
    shift = 20 * np.log10(0.5)
    assert after.loudness - before.loudness == pytest.approx(shift, abs=0.01)
    assert after.floor_db == pytest.approx((before.floor_db or 0) + shift, abs=0.01)
    for name in ("seconds", "lead_s", "tail_s", "silent", "cutoff_hz", "holes", "clips"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.hum_db == pytest.approx(before.hum_db, abs=0.01)
    assert after.decay_s == pytest.approx(before.decay_s, rel=0.01)


def test_gate_offset_and_stereo_width_are_measured(take: Samples, rng: np.random.Generator) -> None:
    gated = take.copy()
    gated[:, : RATE // 2] = 0
    gated[:, -RATE // 2 :] = 0
    assert measure_quality(gated, RATE).gated == pytest.approx(0.1, abs=0.01)
    assert measure_quality((take + 0.01).astype(np.float32), RATE).offset_db == pytest.approx(-40, abs=0.1)
    other = (0.1 * rng.standard_normal(take.shape)).astype(np.float32)
    wide = np.concatenate([take + other, take - other])
    assert measure_quality(wide, RATE).width_db > -10
    assert measure_quality(np.concatenate([take, take]), RATE).width_db == -60
    assert measure_quality(np.concatenate([take, -take]), RATE).width_db == 60


def test_constant_noise_is_a_floor_and_decaying_notes_are_not(rng: np.random.Generator) -> None:
    time = np.arange(10 * RATE) / RATE
    tone = 0.1 * np.sin(2 * np.pi * 440 * time)
    hiss = 10 ** (-50 / 20) * rng.standard_normal(len(time))
    noisy = (tone * (time % 1 < 0.7) + hiss).astype(np.float32)[None]
    assert measure_quality(noisy, RATE).floor_db == pytest.approx(-50, abs=0.5)
    ringing = (tone * 10 ** (-1.2 * (time % 1))).astype(np.float32)[None]
    assert measure_quality(ringing, RATE).floor_db is None


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1_000, 30_000),
    st.sampled_from([4_000, 16_000, 44_100, 96_000]),
    st.integers(1, 3),
    st.integers(0, 2**31),
)
def test_any_recording_has_finite_quality(samples: int, rate: int, channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = 10.0 ** rng.uniform(-6, 0, samples)
    wave = (shape * rng.standard_normal((channels, samples))).astype(np.float32)
    found = measure_quality(wave, rate)
    for name, value in found._asdict().items():
        if isinstance(value, float | int):
            assert np.isfinite(value), name
    assert 0 < found.cutoff_hz <= rate / 2
    assert 0 <= found.lead_s + found.tail_s <= found.seconds
