import numpy as np
import pytest
from numpy.typing import NDArray

from tonewood.dsp.features import mel_to_hz
from tonewood.dsp.loudness import integrated_loudness, true_peak_db
from tonewood.mask.mask import Mask
from tonewood.mask.render import LoudnessFollower, added_loudness_db, render_through_mask
from tonewood.settings import BandSettings, RenderSettings, SpectrumSettings

PAPER = SpectrumSettings()
HZ = mel_to_hz(np.linspace(60, 2_800, 24))
Samples = NDArray[np.float32]


def music(channels: int = 2, rate: int = 44_100, seconds: float = 1.5, amplitude: float = 0.1) -> Samples:
    """Return noisy notes with a crescendo, differently mixed in each channel."""
    rng = np.random.default_rng(3)
    time = np.arange(round(seconds * rate)) / rate
    waves = np.empty((channels, time.size), dtype=np.float32)
    for channel in range(channels):
        tone = sum(rng.uniform(0.2, 1) / k * np.sin(2 * np.pi * 196 * k * time + k) for k in range(1, 16))
        noise = 0.05 * rng.standard_normal(time.size)
        waves[channel] = amplitude * (tone + noise) * np.sin(np.pi * time / seconds)
    return waves


def mask(spread_db: float = 5.0, seconds: float = 1.5, offset_db: float = 0.0) -> Mask:
    frames = round(seconds * 100) + 1
    rows, columns = np.arange(24)[:, None], np.arange(frames)
    gain = spread_db * np.sin(rows / 3 + columns / 15) + offset_db
    return Mask(gain.astype(np.float32), HZ, 0.01, 8_000.0)


def test_amount_zero_returns_input() -> None:
    wave = music(amplitude=5.0)  # far over the ceiling, and still untouched
    output = render_through_mask(wave, 44_100, mask(), RenderSettings(amount=0), PAPER)
    assert output.samples is wave
    assert output.gain_db == 0
    assert output.loudness_before == output.loudness_after
    assert not output.peak_limited


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("offset_db", [-9.0, 0.0, 9.0])
def test_loudness_is_matched_and_peaks_are_limited(rate: int, channels: int, offset_db: float) -> None:
    wave = music(channels, rate, 1.1)
    original = wave.copy()
    output = render_through_mask(wave, rate, mask(offset_db=offset_db), RenderSettings(), PAPER)
    assert output.samples.shape == wave.shape
    assert output.samples.dtype == np.float32
    assert np.array_equal(wave, original)
    before, after = (integrated_loudness(w, rate) for w in (wave, output.samples))
    assert after == pytest.approx(before, abs=0.1)
    assert output.loudness_before == pytest.approx(before)
    assert output.loudness_after == pytest.approx(after, abs=1e-3)
    assert true_peak_db(output.samples, rate) <= -1
    assert not output.peak_limited
    assert not np.allclose(output.samples, wave, atol=1e-3)


@pytest.mark.parametrize("ceiling", [-1.0, -6.0])
def test_peak_ceiling_has_priority_over_loudness(ceiling: float) -> None:
    wave = music()
    wave *= np.float32(10 ** (-true_peak_db(wave, 44_100) / 20))  # to 0 dBTP
    output = render_through_mask(wave, 44_100, mask(), RenderSettings(ceiling_dbtp=ceiling), PAPER)
    assert output.peak_limited
    assert true_peak_db(output.samples, 44_100) == pytest.approx(ceiling, abs=1e-3)
    assert output.loudness_after < output.loudness_before
    after = integrated_loudness(output.samples, 44_100)
    assert output.loudness_after == pytest.approx(after, abs=1e-3)


def test_match_off_keeps_level_and_peak() -> None:
    wave = music(amplitude=0.4)
    flat = Mask(np.full((24, 151), 6.0206, dtype=np.float32), HZ, 0.01, 30_000.0)
    output = render_through_mask(wave, 44_100, flat, RenderSettings(match=False), PAPER)
    assert np.allclose(output.samples, 2 * wave, atol=1e-5)
    assert output.gain_db == 0
    assert not output.peak_limited
    assert true_peak_db(output.samples, 44_100) > -1
    assert output.loudness_after - output.loudness_before == pytest.approx(6.0206, abs=1e-3)


def test_matching_cancels_a_flat_mask() -> None:
    wave = music()
    flat = Mask(np.full((24, 151), 7.0, dtype=np.float32), HZ, 0.01, 30_000.0)
    output = render_through_mask(wave, 44_100, flat, RenderSettings(), PAPER)
    assert output.gain_db == pytest.approx(-7.0, abs=1e-3)
    assert np.allclose(output.samples, wave, atol=1e-5)


def test_all_channels_get_the_same_gain() -> None:
    mono = music(1)
    wave = np.concatenate([mono, -0.3 * mono, 0.1 * mono])
    output = render_through_mask(wave, 44_100, mask(), RenderSettings(), PAPER).samples
    assert np.allclose(output[1], -0.3 * output[0], atol=1e-6)
    assert np.allclose(output[2], 0.1 * output[0], atol=1e-6)


def test_amount_is_linear_in_decibels() -> None:
    """A steady tone shows the filter's gain directly."""
    rate, time = 44_100, np.arange(44_100) / 44_100
    tone = (0.1 * np.sin(2 * np.pi * 1_000 * time)).astype(np.float32)[None]
    gain = np.repeat(np.linspace(-10, 10, 24)[:, None], 101, axis=1).astype(np.float32)
    sloped = Mask(gain, HZ, 0.01, 8_000.0)
    changes = []
    for amount in (0.25, 0.5, 1.0):
        settings = RenderSettings(amount=amount, match=False)
        output = render_through_mask(tone, rate, sloped, settings, PAPER).samples[0]
        inner = slice(8_820, -8_820)
        changes.append(20 * np.log10(np.std(output[inner]) / np.std(tone[0, inner])))
    at = sloped.gain_at(np.array([1_000.0]), np.array([0.5]))[0, 0]
    assert abs(at) > 0.5
    assert changes == pytest.approx([0.25 * at, 0.5 * at, at], abs=0.02)


def test_silence_stays_silence() -> None:
    silence = np.zeros((2, 20_000), dtype=np.float32)
    output = render_through_mask(silence, 44_100, mask(), RenderSettings(), PAPER)
    assert (output.samples == 0).all()
    assert np.isfinite(output.gain_db)


def test_quiet_recording_is_not_raised_to_the_ceiling() -> None:
    wave = music(amplitude=1e-4)
    output = render_through_mask(wave, 44_100, mask(), RenderSettings(), PAPER)
    assert abs(output.gain_db) < 6
    assert not output.peak_limited


BANDS = BandSettings(count=24)


@pytest.mark.parametrize("amount", [-1.0, -0.4, 0.0, 0.3, 1.0, 1.6, 2.0])
def test_follower_compensates_masks_at_every_amount(amount: float) -> None:
    rng = np.random.default_rng(2)
    hz = np.geomspace(60, 7_500, 24)
    rows_db = rng.normal(-40, 6, (24, 2_000))
    mask_db = np.linspace(6, -6, 24)[:, None] + rng.normal(0, 1, (24, 2_000))
    follower = LoudnessFollower(hz, np.zeros(2), (0.5, 1.0), 2.0, 0.01)
    for frame in range(2_000):
        follower.update(rows_db[:, frame], mask_db[:, frame])
    expected = -added_loudness_db(rows_db, amount * mask_db, hz)
    assert follower.gain_db(amount) == pytest.approx(expected, abs=0.4)
