import numpy as np
import pytest

from tonewood.dsp.equalizer import bandpass_reach_seconds, fade_width_hz, restrict_to_band

RATE = 16_000


def noise(count: int, seed: int, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((channels, count)).astype(np.float32)


def test_samples_beyond_the_reach_have_no_influence() -> None:
    before, made = noise(9_000, 0), noise(9_000, 1)
    whole = restrict_to_band(before, made, RATE, 300, 2_000)
    assert whole.shape == before.shape
    assert whole.dtype == np.float32
    reach = round(bandpass_reach_seconds(300, 2_000) * RATE)
    part = slice(3_000 - reach, 6_000 + reach)
    alone = restrict_to_band(before[:, part], made[:, part], RATE, 300, 2_000)
    assert np.abs(alone[:, reach:-reach] - whole[:, 3_000:6_000]).max() < 1e-5


@pytest.mark.parametrize("hz", [150.0, 3_500.0])
def test_change_outside_the_band_is_removed(hz: float) -> None:
    before = noise(RATE, 0)
    made = before + np.sin(2 * np.pi * hz * np.arange(RATE) / RATE).astype(np.float32)
    out = restrict_to_band(before, made, RATE, 400, 2_500)
    reach = round(bandpass_reach_seconds(400, 2_500) * RATE)
    assert np.abs(out - before)[:, reach:-reach].max() < 10 ** (-90 / 20)


def test_change_inside_the_band_keeps_its_timing() -> None:
    before = noise(RATE, 0)
    made = before + np.sin(2 * np.pi * 1_000 * np.arange(RATE) / RATE).astype(np.float32)
    out = restrict_to_band(before, made, RATE, 400, 2_500)
    assert np.abs(out - made)[:, 2_000:-2_000].max() < 1e-4


@pytest.mark.parametrize(("low", "high"), [(9_000.0, 12_000.0), (100.0, 20_000.0)])
def test_bands_beyond_nyquist(low: float, high: float) -> None:
    before, made = noise(4_000, 0), noise(4_000, 1)
    out = restrict_to_band(before, made, RATE, low, high)
    assert np.array_equal(out, before) == (low > RATE / 2)


def test_fades_are_a_third_of_an_octave_and_at_least_40_hz() -> None:
    assert fade_width_hz(1_000, 8_000) == pytest.approx(260, abs=1)
    assert fade_width_hz(50, 8_000) == 40
    assert fade_width_hz(1_000, 1_100) == 50
    assert bandpass_reach_seconds(50, 8_000) == pytest.approx(0.08, abs=0.001)
