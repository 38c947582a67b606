import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tonewood.dsp.chunking import overlapping_chunks
from tonewood.dsp.loudness import (
    gated_loudness,
    integrated_loudness,
    k_weighting_db,
    level_db,
    measure_loudness_blocks,
    true_peak,
    true_peak_db,
)

Samples = NDArray[np.float32]


def noise(channels: int, samples: int, seed: int = 0, amplitude: float = 0.1) -> Samples:
    drawn = np.random.default_rng(seed).standard_normal((channels, samples))
    return (amplitude * drawn).astype(np.float32)


def sine(
    level_dbfs: float, seconds: float, rate: int, frequency: float = 1_000, channels: int = 1
) -> Samples:
    time = np.arange(round(seconds * rate)) / rate
    wave = 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * frequency * time)
    return np.repeat(wave.astype(np.float32)[None], channels, axis=0)


@settings(max_examples=30, deadline=None)
@given(
    gain_db=st.floats(-25, 25),
    channels=st.integers(1, 8),
    seconds=st.sampled_from([0.1, 0.4, 1.3]),
)
def test_gain_shifts_loudness_by_itself(gain_db: float, channels: int, seconds: float) -> None:
    wave = noise(channels, round(seconds * 16_000))
    scaled = (wave * 10 ** (gain_db / 20)).astype(np.float32)
    moved = integrated_loudness(scaled, 16_000) - integrated_loudness(wave, 16_000)
    assert moved == pytest.approx(gain_db, abs=1e-5)


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_agrees_with_pyloudnorm(rate: int, channels: int) -> None:
    wave = noise(channels, 3 * rate + 17)
    # A swell over 60 dB puts both gates to use.
    wave *= np.logspace(-3, 0, wave.shape[1], dtype=np.float32)
    # Its default filters lie 0.04 dB from the standard's; these do not.
    meter = pyloudnorm.Meter(rate, filter_class="DeMan")
    expected = meter.integrated_loudness(wave.T.astype(np.float64))
    assert integrated_loudness(wave, rate) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_stereo_sine_of_1_khz_at_minus_23_dbfs_reads_minus_23_lufs(rate: int) -> None:
    """EBU Tech 3341, case 1."""
    wave = sine(-23, 5, rate, channels=2)
    assert integrated_loudness(wave, rate) == pytest.approx(-23.0, abs=0.1)
    assert integrated_loudness(wave[:1], rate) == pytest.approx(-26.0, abs=0.1)


def test_quiet_passages_are_gated() -> None:
    """EBU Tech 3341, cases 3 and 4, shortened: -36 and -72 dBFS around -23 dBFS."""
    parts = [sine(level, 3, 48_000, channels=2) for level in (-72, -36, -23, -36, -72)]
    parts[2] = sine(-23, 30, 48_000, channels=2)
    assert integrated_loudness(np.concatenate(parts, axis=1), 48_000) == pytest.approx(-23, abs=0.1)


def test_channels_have_equal_weight() -> None:
    one = noise(1, 32_000)
    for channels in range(2, 9):
        several = np.repeat(one, channels, axis=0)
        louder = integrated_loudness(several, 16_000) - integrated_loudness(one, 16_000)
        assert louder == pytest.approx(10 * np.log10(channels), abs=1e-6)


def test_low_rumble_is_attenuated() -> None:
    rumble, tone = (sine(-20, 2, 48_000, frequency=f) for f in (20, 1_000))
    below = integrated_loudness(tone, 48_000) - integrated_loudness(rumble, 48_000)
    assert below > 12


@pytest.mark.parametrize("seconds", [0.39, 1.0])
def test_short_or_quiet_recordings_are_ungated(seconds: float) -> None:
    """Far below the absolute gate of -70 LUFS, it is as much quieter as its amplitude says."""
    loud, quiet = (noise(1, round(seconds * 16_000), amplitude=a) for a in (0.1, 1e-5))
    below = integrated_loudness(loud, 16_000) - integrated_loudness(quiet, 16_000)
    assert integrated_loudness(quiet, 16_000) < -90
    assert below == pytest.approx(80, abs=0.01)


@pytest.mark.parametrize("samples", [100, 48_000])
def test_silence_has_loudness_minus_infinity(samples: int) -> None:
    silence = np.zeros((2, samples), dtype=np.float32)
    assert integrated_loudness(silence, 48_000) == float("-inf")
    assert true_peak_db(silence, 48_000) == float("-inf")


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 96_000])
def test_true_peak_of_quarter_rate_sine_is_3_db_above_its_samples(rate: int) -> None:
    """At 45° every sample is 1 / √2 of the crest: the classic case of BS.1770's Annex 2."""
    time = np.arange(rate // 4)
    wave = np.sin(np.pi / 2 * time + np.pi / 4) * np.hanning(time.size)
    samples = wave.astype(np.float32)[None]
    peak = 20 * np.log10(np.abs(samples).max())
    assert peak == pytest.approx(-3.01, abs=0.01)
    assert true_peak_db(samples, rate) == pytest.approx(0.0, abs=0.05)


@settings(max_examples=30, deadline=None)
@given(gain_db=st.floats(-60, 20), seed=st.integers(0, 50), samples=st.integers(1, 3_000))
def test_true_peak_is_at_least_the_sample_peak(gain_db: float, seed: int, samples: int) -> None:
    wave = noise(2, samples, seed)
    peak = true_peak_db(wave, 44_100)
    assert peak >= 20 * np.log10(np.abs(wave).max()) - 1e-4
    scaled = (wave * 10 ** (gain_db / 20)).astype(np.float32)
    assert true_peak_db(scaled, 44_100) == pytest.approx(peak + gain_db, abs=1e-3)


def test_true_peak_is_that_of_the_loudest_channel_and_chunk() -> None:
    """The peak is found past the first of the pieces that the work is cut into."""
    wave = noise(3, (1 << 18) + 5_000, amplitude=0.01)
    wave[1, -100] = 0.9
    assert true_peak_db(wave, 48_000) >= 20 * np.log10(0.9) - 1e-4
    assert true_peak_db(wave, 48_000) == pytest.approx(true_peak_db(wave[1:2, -10_000:], 48_000), abs=0.05)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 30_000),
    st.integers(1_700, 9_000),
    st.integers(1, 3),
    st.sampled_from([11_025, 16_000]),
)
def test_loudness_and_peak_do_not_depend_on_chunks(length: int, size: int, channels: int, rate: int) -> None:
    """Margins of a quarter of a second are enough for the weighting to forget what came before."""
    wave = noise(channels, length, amplitude=0.3)
    pieces = list(overlapping_chunks([wave], size, rate // 4))
    loudness = gated_loudness([measure_loudness_blocks(piece, rate) for piece in pieces], rate)
    assert loudness == pytest.approx(integrated_loudness(wave, rate), abs=1e-6)
    peak = level_db(max(true_peak(piece, rate) for piece in pieces))
    assert peak == pytest.approx(true_peak_db(wave, rate), abs=1e-4)


def test_k_weighting_blocks_dc() -> None:
    assert k_weighting_db(np.array([0.0, 1_000.0])) == pytest.approx([-180, 0.698], abs=0.01)
