import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import freqz

from tonewood.dsp.equalizer import (
    FIT_HIGH_HZ,
    FIT_LOW_HZ,
    EqBand,
    FilterType,
    biquad_coefficients,
    eq_response_db,
    fit_grid_hz,
    fit_parametric_eq,
    graphic_eq_gains,
)
from tonewood.utils.arrays import FloatArray

KINDS: tuple[FilterType, ...] = ("low_shelf", "peaking", "high_shelf")


def analogue_db(band: EqBand, hz: FloatArray, rate: float) -> FloatArray:
    """The cookbook's analogue prototypes under the bilinear transform, written out."""
    s = 1j * np.tan(np.pi * hz / rate) / np.tan(np.pi * band.hz / rate)
    a, q = 10 ** (band.gain_db / 40), band.q
    if band.kind == "peaking":
        h = (s**2 + s * (a / q) + 1) / (s**2 + s / (a * q) + 1)
    elif band.kind == "low_shelf":
        h = a * (s**2 + np.sqrt(a) / q * s + a) / (a * s**2 + np.sqrt(a) / q * s + 1)
    else:
        h = a * (a * s**2 + np.sqrt(a) / q * s + 1) / (s**2 + np.sqrt(a) / q * s + a)
    return np.asarray(20 * np.log10(np.abs(h)))


@settings(deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    hz=st.floats(20, 18_000),
    gain=st.floats(-24, 24),
    q=st.floats(0.3, 8),
    rate=st.sampled_from([44_100.0, 48_000.0, 96_000.0]),
)
def test_biquads_equal_the_cookbook(kind: FilterType, hz: float, gain: float, q: float, rate: float) -> None:
    band = EqBand(kind, hz, gain, q)
    points = np.geomspace(20, 20_000, 50)
    expected = analogue_db(band, points, rate)
    assert np.abs(eq_response_db((band,), points, rate) - expected).max() < 1e-6
    b, a = biquad_coefficients(band, rate)
    assert a[0] == 1
    _, h = freqz(b, a, worN=points, fs=rate)
    assert np.abs(20 * np.log10(np.abs(h)) - expected).max() < 1e-6
    assert np.abs(np.roots(a)).max() < 1


def test_shelves_and_peaks_have_their_gain_at_their_frequency() -> None:
    ends = np.array([1.0, 1_000.0, 23_999.0])
    low, peak, high = (eq_response_db((EqBand(k, 1_000.0, 6.0, 0.7),), ends, 48_000) for k in KINDS)
    assert low == pytest.approx([6, 3, 0], abs=0.01)
    assert peak == pytest.approx([0, 6, 0], abs=0.01)
    assert high == pytest.approx([0, 3, 6], abs=0.01)


@pytest.mark.parametrize("rate", [44_100, 48_000, 192_000])
def test_fit_recovers_the_bands_of_a_curve(rate: int) -> None:
    truth = (
        EqBand("low_shelf", 120.0, 5.0, 0.7),
        EqBand("peaking", 700.0, -6.0, 1.2),
        EqBand("peaking", 3_000.0, 4.0, 3.0),
        EqBand("high_shelf", 9_000.0, -3.0, 0.7),
    )
    hz = fit_grid_hz(rate)
    found = fit_parametric_eq(2.0 + eq_response_db(truth, hz, rate), 4, rate)
    assert found.rms_db < 0.1
    assert found.gain_db == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize("seed", range(3))
def test_more_bands_reduce_the_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hz = fit_grid_hz(48_000)
    octaves = np.log2(hz / 1_000)
    shapes = [np.exp(-((octaves - c) ** 2) / w) for c, w in zip(
        rng.uniform(-4, 4, 9), rng.uniform(0.1, 2, 9), strict=True
    )]  # fmt: skip
    curve = np.sum([g * s for g, s in zip(rng.normal(0, 6, 9), shapes, strict=True)], axis=0)
    left = [fit_parametric_eq(curve, count, 48_000).rms_db for count in (1, 4, 9)]
    assert left[0] > left[1] > left[2]
    assert left[2] < 0.6


def test_error_is_that_of_the_rounded_bands() -> None:
    hz = fit_grid_hz(48_000)
    curve = 4 * np.sin(np.log2(hz) * 1.7) + 1
    found = fit_parametric_eq(curve, 6, 48_000)
    left = curve - found.gain_db
    for band in found.bands:
        left = left - analogue_db(band, hz, 48_000)
    assert found.rms_db == pytest.approx(np.sqrt(np.mean(left**2)), abs=1e-9)
    assert found.largest_db == pytest.approx(np.abs(left).max(), abs=1e-9)
    assert all(a.hz <= b.hz for a, b in itertools.pairwise(found.bands))
    assert len(found.bands) == 6


def test_flat_curve_needs_no_gain() -> None:
    found = fit_parametric_eq(np.zeros(len(fit_grid_hz(48_000))), 3, 48_000)
    assert found.largest_db < 0.01


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_grid_ends_below_nyquist(rate: int) -> None:
    hz = fit_grid_hz(rate)
    assert hz[0] == pytest.approx(FIT_LOW_HZ)
    assert hz[-1] == pytest.approx(min(FIT_HIGH_HZ, 0.45 * rate))
    assert np.diff(np.log2(hz)).max() < 1 / 23


def test_graphic_eq_meets_its_target_at_the_centres() -> None:
    centres = 1_000 * 2 ** (np.arange(-13, 13) / 3)
    rng = np.random.default_rng(0)
    wanted = np.cumsum(rng.normal(0, 3, (26, 3)), axis=0)
    q = 1 / (2 ** (1 / 6) - 2 ** (-1 / 6))
    gains = graphic_eq_gains(wanted, centres, q, 48_000)
    for along, column in zip(gains.T, wanted.T, strict=True):
        bands = tuple(EqBand("peaking", f, g, q) for f, g in zip(centres, along, strict=True))
        assert np.abs(eq_response_db(bands, centres, 48_000) - column).max() < 0.01
