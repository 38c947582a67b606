import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tonewood.dsp.features import (
    apply_filterbank,
    band_levels,
    center_frequencies,
    filterbank_matrix,
    frame_levels,
    hz_to_mel,
    mean_level,
    mel_to_hz,
)
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.settings import BandSettings, SpectrumSettings

MEL, LINEAR, PAPER = BandSettings(), BandSettings(scale="linear"), SpectrumSettings()


@given(st.floats(0, 48_000))
def test_mel_to_hz_inverts_hz_to_mel(hz: float) -> None:
    assert mel_to_hz(hz_to_mel(np.array(hz))) == pytest.approx(hz, rel=1e-9, abs=1e-6)


def test_1000_hz_is_1000_mel() -> None:
    assert hz_to_mel(np.array([0.0, 1_000.0])) == pytest.approx([0.0, 1_000.0], abs=0.02)


def test_centres_are_equally_spaced_in_mel() -> None:
    centres = hz_to_mel(center_frequencies(MEL, PAPER))
    low, high = hz_to_mel(np.array([40.0, 8_000.0]))
    assert centres.shape == (48,)
    assert np.diff(centres) == pytest.approx((high - low) / 49)
    assert centres[0] - low == pytest.approx(high - centres[-1])


def test_linear_rows_are_the_bins() -> None:
    hz = center_frequencies(LINEAR, PAPER)
    assert hz.shape == (257,)
    assert hz[1] == 31.25
    assert hz[-1] == 8_000
    levels = np.zeros((2, 257, 3), np.float32)
    assert apply_filterbank(levels, LINEAR, PAPER) is levels
    assert np.array_equal(filterbank_matrix(LINEAR, PAPER), np.eye(257))


@pytest.mark.parametrize("count", [8, 48, 128, 256])
@pytest.mark.parametrize("low_hz", [0.0, 40.0])
def test_no_row_of_the_filterbank_is_empty(count: int, low_hz: float) -> None:
    weights = filterbank_matrix(BandSettings(count=count, low_hz=low_hz), PAPER)
    assert weights.shape == (count, 257)
    assert weights.sum(axis=1).min() > 0
    assert weights.min() >= 0
    assert weights.max() <= 1
    # Rows stay in order of their mean frequency.
    centre = (weights @ np.arange(257.0)) / weights.sum(axis=1)
    assert np.diff(centre).min() > -1e-4


def test_triangles_sum_to_one_between_the_outer_centres() -> None:
    hz = np.arange(257) * 31.25
    centres = center_frequencies(MEL, PAPER)
    inside = (hz >= centres[0]) & (hz <= centres[-1])
    assert filterbank_matrix(MEL, PAPER).sum(axis=0)[inside] == pytest.approx(1.0, abs=1e-6)


def test_white_noise_level_follows_row_width(rng: np.random.Generator) -> None:
    """With equal power per hertz, the level of a row is its width: the sum of its weights, in dB."""
    wave = 0.1 * rng.standard_normal(40 * 16_000)
    power = np.power(10, band_levels(wave, 16_000, MEL, PAPER) / 10).mean(axis=1)
    level = 10 * np.log10(power)
    width = 10 * np.log10(filterbank_matrix(MEL, PAPER).sum(axis=1))
    difference = level - width
    assert np.abs(difference - difference.mean()).max() < 0.4


def test_filterbank_equals_the_explicit_sum(rng: np.random.Generator) -> None:
    levels = rng.uniform(-100, 0, (257, 3))
    bands = apply_filterbank(levels, MEL, PAPER)
    edges = mel_to_hz(np.linspace(hz_to_mel(np.array(40.0)), hz_to_mel(np.array(8_000.0)), 50))
    for row in (3, 20, 47):
        low, centre, high = edges[row : row + 3]
        for frame in range(3):
            power = 0.0
            for line in range(257):
                hz = line * 31.25
                up, down = (hz - low) / (centre - low), (high - hz) / (high - centre)
                power += max(0.0, min(up, down)) * 10 ** (levels[line, frame] / 10)
            assert bands[row, frame] == pytest.approx(10 * np.log10(power), abs=1e-4)


def test_filterbank_takes_batches_and_commutes_with_gain(rng: np.random.Generator) -> None:
    levels = rng.uniform(-80, 0, (2, 3, 257, 4))
    bands = apply_filterbank(levels, MEL, PAPER)
    assert bands.shape == (2, 3, 48, 4)
    assert np.allclose(bands[1, 2], apply_filterbank(levels[1, 2], MEL, PAPER))
    assert np.allclose(apply_filterbank(levels + 6, MEL, PAPER), bands + 6)


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("frequency", [100, 440, 1_000, 3_000, 6_000, 6_900])
def test_other_rates_give_the_levels_of_the_analysis_rate(rate: int, frequency: float) -> None:
    """Within 0.5 dB at 44.1 kHz, whose bins are 31.254 Hz apart and not 31.25; else 0.001 dB."""
    levels = []
    for at in (16_000, rate):
        wave = 0.3 * np.sin(2 * np.pi * frequency * np.arange(at // 2) / at)
        levels.append(band_levels(wave, at, MEL, PAPER)[:, 5:45])
    audible = levels[0] > levels[0].max() - 40
    assert audible.any()
    difference = np.abs(levels[1] - levels[0])
    assert difference[audible].max() < (0.5 if rate == 44_100 else 1e-3)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("frames", [1, 2, 30])
def test_frame_count_is_the_same_at_any_rate(rate: int, frames: int) -> None:
    shapes = [band_levels(np.zeros((2, frames * at // 100)), at, MEL, PAPER).shape for at in (16_000, rate)]
    assert shapes[0] == shapes[1] == (2, 48, frames + 1)


@pytest.mark.parametrize("bands", [MEL, LINEAR])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_gradients_reach_the_waveform(bands: BandSettings, rate: int) -> None:
    for amplitude in (0.0, 0.1, 1.0):
        wave = (amplitude * torch.sign(torch.sin(torch.arange(4_000) * 0.1))).requires_grad_()
        levels = band_levels(wave, rate, bands, PAPER)
        levels.sum().backward()  # type: ignore[no-untyped-call]
        assert wave.grad is not None
        assert wave.grad.isfinite().all()
        assert (wave.grad.abs().max() > 0) == (amplitude > 0)


def test_band_levels_are_the_bands_of_the_spectrogram(rng: np.random.Generator) -> None:
    wave = rng.standard_normal(4_000)
    expected = apply_filterbank(log_magnitude(stft(wave, PAPER), PAPER), MEL, PAPER)
    np.testing.assert_allclose(band_levels(wave, 16_000, MEL, PAPER), expected, rtol=1e-12)
    tensor = torch.from_numpy(wave)
    np.testing.assert_allclose(band_levels(tensor, 16_000, MEL, PAPER).numpy(), expected, rtol=1e-12)


def test_levels_equal_the_explicit_formulas() -> None:
    rows = np.random.default_rng(3).uniform(-60, 0, (2, 5, 7))
    power = np.power(10, rows / 10).sum(axis=1)
    np.testing.assert_allclose(frame_levels(rows), 10 * np.log10(power))
    np.testing.assert_allclose(mean_level(rows), 10 * np.log10(power.mean(axis=1)))
    np.testing.assert_allclose(mean_level(rows + 6), mean_level(rows) + 6)
    np.testing.assert_allclose(mean_level(torch.from_numpy(rows)).numpy(), mean_level(rows))
