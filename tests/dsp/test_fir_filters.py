"""The filters agree with those of scipy.signal, which the package does without."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import firwin, kaiserord

from tonewood.dsp.equalizer import filter_without_delay, kaiser_filter, kaiser_filter_order

RATE = 16_000


@pytest.mark.parametrize(
    ("low", "high", "cutoff", "kind"),
    [
        (0.0, 3_000.0, 3_000.0, "lowpass"),
        (500.0, 8_000.0, 500.0, "highpass"),
        (500.0, 12_000.0, 500.0, "highpass"),
        (500.0, 3_000.0, [500.0, 3_000.0], "bandpass"),
    ],
)
@pytest.mark.parametrize("stopband_db", [60.0, 100.0])
def test_kaiser_filter_is_that_of_firwin(
    low: float, high: float, cutoff: float | list[float], kind: str, stopband_db: float
) -> None:
    _, beta = kaiserord(stopband_db, 0.1)
    expected = firwin(301, cutoff, window=("kaiser", beta), pass_zero=kind, fs=RATE)
    np.testing.assert_allclose(kaiser_filter(301, low, high, stopband_db, RATE), expected, atol=1e-14)


@pytest.mark.parametrize("stopband_db", [60.0, 100.0])
def test_stopband_is_as_deep_as_the_order_promises(stopband_db: float) -> None:
    taps = round(kaiser_filter_order(stopband_db, 200.0) * RATE) | 1
    gain = np.abs(np.fft.rfft(kaiser_filter(taps, 0.0, 2_000.0, stopband_db, RATE), 1 << 14))
    hz = np.linspace(0, RATE / 2, gain.size)
    assert 20 * np.log10(gain[hz > 2_100].max()) == pytest.approx(-stopband_db, abs=2)
    assert gain[hz < 1_900] == pytest.approx(1, abs=2 * 10 ** (-stopband_db / 20))


@given(st.integers(1, 3_000), st.integers(0, 60), st.integers(1, 3), st.integers(0, 99))
def test_filter_is_direct_convolution_without_delay(length: int, half: int, channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal((channels, length)).astype(np.float32)
    kernel = rng.standard_normal(2 * half + 1)
    expected = [np.convolve(channel, kernel)[half : half + length] for channel in samples.astype(float)]
    np.testing.assert_allclose(filter_without_delay(samples, kernel), expected, atol=1e-10)
