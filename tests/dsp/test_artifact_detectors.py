"""Artifact detectors on synthetic signals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import firwin, lfilter

from tonewood.dsp.artifact_detectors import (
    THIRD_OCTAVES_HZ,
    ClippedPeaks,
    HumDetector,
    SpectralDropouts,
    decay_band_power,
    detect_cutoff_hz,
    fastest_decay_seconds,
)

Floats = NDArray[np.float64]
RATE = 44_100
BINS = 883  # 25 Hz apart


def dropout_ratio(bands: NDArray[np.float64], cutoff: float) -> float:
    """Share of dropouts in power [band, frame]."""
    dropouts = SpectralDropouts(len(bands))
    dropouts.push(bands)
    return dropouts.ratio(cutoff)


def measure_hum_db(mono: NDArray[np.float32], rate: int) -> tuple[float, float] | None:
    """Height of the tallest line on multiples of 50 and of 60 Hz; None if too short."""
    hum = HumDetector(rate)
    hum.push(mono)
    lines = hum.second_pass()
    if lines is None:
        return None
    lines.push(mono)
    return lines.tallest_line_db()


def count_clipped_peaks(samples: NDArray[np.float32]) -> int:
    """Number of clipped peaks of samples (channels, samples)."""
    clipped = ClippedPeaks(np.abs(samples).max(axis=1))
    clipped.push(samples)
    return clipped.count


def power(level_db: Floats) -> Floats:
    """Power of levels."""
    return 10 ** (level_db / 10)


def falling(slope_db: float, floor_db: float = -120.0) -> Floats:
    """Power [bin] that falls by `slope_db` per kHz, down to a floor."""
    khz = np.linspace(0, RATE / 2000, BINS)
    output: Floats = 10 ** (-slope_db * khz / 10) + 10 ** (floor_db / 10)
    return output


@settings(deadline=None, max_examples=15)
@given(st.floats(4_000, 20_000), st.floats(0, 6), st.floats(-120, -90))
def test_cutoff_is_detected_at_its_frequency(at: float, slope_db: float, ground_db: float) -> None:
    hz = np.linspace(0, RATE / 2, BINS)
    floor = np.full(BINS, 10 ** (ground_db / 10))
    passband = hz < at
    power = (falling(slope_db) + 10 * floor) * passband + 1e-14
    assert detect_cutoff_hz(power, None, RATE) == pytest.approx(at, abs=700)
    assert detect_cutoff_hz(power, floor * passband + 1e-14, RATE) == pytest.approx(at, abs=700)


@pytest.mark.parametrize("at", [20_500, 21_000, 21_300, 21_700, 22_000])
def test_cutoff_near_nyquist_is_detected(at: float) -> None:
    passband = (np.linspace(0, RATE / 2, BINS) < at).astype(np.float64)
    power, floor = 1e-6 * passband + 1e-14, 1e-13 * passband + 1e-14
    assert detect_cutoff_hz(power, floor, RATE) >= at - 300


def test_rolloff_into_noise_has_no_cutoff() -> None:
    floor = np.full(BINS, 1e-9)
    for slope in (3.0, 6.0, 12.0):
        assert detect_cutoff_hz(falling(slope) + floor, floor, RATE) == RATE / 2
    # A steep fall that continues is not a cut-off either.
    hz = np.linspace(0, RATE / 2, BINS)
    steep = falling(2.0) * np.where(hz < 6_000, 1.0, 0.03)
    assert detect_cutoff_hz(steep, None, RATE) == RATE / 2


def test_dropouts_are_counted_and_rests_are_not(rng: np.random.Generator) -> None:
    bands = rng.normal(-60, 1, (len(THIRD_OCTAVES_HZ), 400))
    assert dropout_ratio(power(bands), RATE / 2) == 0
    rests = bands.copy()
    rests[:, 100:103] -= 40
    assert dropout_ratio(power(rests), RATE / 2) == 0
    dropouts = bands.copy()
    dropouts[-2, 100:103] -= 40
    high = int((THIRD_OCTAVES_HZ > 3_900).sum())
    assert dropout_ratio(power(dropouts), 24_000) == pytest.approx(3 / (high * 380))
    assert dropout_ratio(power(dropouts), 10_000) == 0  # bands above the cut-off do not count


@pytest.mark.parametrize(("line", "which"), [(50, 0), (150, 0), (60, 1), (120, 1)])
def test_hum_is_a_continuous_line(line: int, which: int, rng: np.random.Generator) -> None:
    time = np.arange(8 * RATE) / RATE
    noise = 1e-4 * rng.standard_normal(len(time))
    assert max(measure_hum_db(noise.astype(np.float32), RATE) or ()) < 9
    hum = noise + 3e-4 * np.sin(2 * np.pi * line * time)
    result = measure_hum_db(hum.astype(np.float32), RATE)
    assert result is not None
    assert result[which] > 20
    assert result[1 - which] < 9
    # A note at the frequency of the line, however loud, stops.
    note = noise + 0.3 * np.sin(2 * np.pi * line * time) * (time % 4 < 1.5)
    assert max(measure_hum_db(note.astype(np.float32), RATE) or ()) < 12


def test_short_recordings_have_no_hum_and_no_decay() -> None:
    assert measure_hum_db(np.ones(RATE, dtype=np.float32), RATE) is None
    assert fastest_decay_seconds(np.ones((2, 30))) is None


def test_clipped_sine_has_two_peaks_a_period_and_quiet_sine_none() -> None:
    time = np.arange(RATE) / RATE
    sine = np.sin(2 * np.pi * 110 * time).astype(np.float32)[None]
    assert count_clipped_peaks(np.clip(sine, -0.7, 0.7)) == pytest.approx(220, abs=1)
    assert count_clipped_peaks(sine) == 0
    quiet = np.round(sine * 90) / np.float32(32_768)  # many equal samples, but no corner
    assert count_clipped_peaks(quiet) == 0


@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.2])
def test_decay_time_of_known_decay(seconds: float) -> None:
    frame = np.arange(2_000) * 0.01
    level = np.maximum(-60 / seconds * (frame % 2), -60.0)
    result = fastest_decay_seconds(decay_band_power(np.tile(power(level), (len(THIRD_OCTAVES_HZ), 1))))
    assert result == pytest.approx((seconds, seconds), rel=0.05)


def test_gain_does_not_change_hum_and_cutoff(rng: np.random.Generator) -> None:
    wave = lfilter(firwin(301, 9_000, fs=RATE), [1.0], rng.standard_normal(6 * RATE))
    quiet, loud = (measure_hum_db((gain * wave).astype(np.float32), RATE) for gain in (0.01, 0.1))
    assert quiet == pytest.approx(loud, abs=1e-3)
    power = np.abs(np.fft.rfft(wave[: 2 * (BINS - 1)])) ** 2 + 1e-3
    assert detect_cutoff_hz(power, None, RATE) == detect_cutoff_hz(0.01 * power, None, RATE)
