"""Signal processing against its float64 twins in `references`."""

import numpy as np
from hypothesis import strategies as st

from campaigns.harness.numerics.law import SEEDS, law
from tests.numerics import references
from tests.numerics.sounds import Array, noise, notes, relative
from tonewood.dsp.equalizer import EqBand, FilterType, biquad_coefficients, eq_response_db
from tonewood.dsp.features import apply_filterbank, band_levels, filterbank_matrix
from tonewood.dsp.loudness import integrated_loudness, k_weighting_db, true_peak_db
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.settings import BandSettings, SpectrumSettings

PAPER = SpectrumSettings()
BANDS = BandSettings()
KINDS: tuple[FilterType, ...] = ("low_shelf", "peaking", "high_shelf")


@law("K-weighting: the tables of BS.1770-4 at 48 kHz, 10 Hz to 20 kHz", within=1e-7, unit="dB")
def test_k_weighting() -> float:
    hz = np.geomspace(10, 20_000, 400)
    return float(np.abs(k_weighting_db(hz) - references.k_weighting_db(hz)).max())


@law(
    "K-weighting at 16 to 192 kHz: a sine of 30 Hz to 3 kHz reads as at 48 kHz",
    within=0.1,
    unit="LU",
    examples=15,
    rate=st.sampled_from([16_000, 22_050, 44_100, 88_200, 96_000, 192_000]),
    hz=st.floats(30, 3_000),
)
def test_k_weighting_at_other_rates(rate: int, hz: float) -> float:
    def read(rate: int) -> float:
        time = np.arange(round(1.5 * rate)) / rate
        wave = 0.3 * np.sin(2 * np.pi * hz * time)
        return integrated_loudness(wave.astype(np.float32)[None], rate)

    return abs(read(rate) - read(48_000))


@law(
    "Integrated loudness: gates and blocks of BS.1770-4 written out",
    within=1e-9,
    unit="LU",
    examples=10,
    seed=SEEDS,
    seconds=st.floats(0.4, 4),
    channels=st.integers(1, 3),
    swell_db=st.floats(0, 90),
)
def test_loudness(seed: int, seconds: float, channels: int, swell_db: float) -> float:
    wave = noise(seed, (channels, round(seconds * 48_000)))
    wave *= 10 ** (np.linspace(-swell_db, 0, wave.shape[1]) / 20).astype(np.float32)
    return abs(integrated_loudness(wave, 48_000) - references.loudness(wave.astype(np.float64)))


def _band_limited(seed: int, top: float, length: int = 4_096) -> Array:
    """A periodic wave [sample] of random partials up to a share of the rate."""
    rng = np.random.default_rng(seed)
    spectrum = np.zeros(length // 2 + 1, complex)
    bins = slice(1, max(2, round(top * length)))
    spectrum[bins] = rng.standard_normal(spectrum[bins].shape) * np.exp(
        2j * np.pi * rng.random(spectrum[bins].shape)
    )
    wave = np.fft.irfft(spectrum, length)
    return np.asarray(0.5 * wave / np.abs(wave).max())


@law(
    "True peak below 0.4 of the rate: the Fourier series on a grid 16 times as fine",
    within=0.2,
    unit="dB",
    examples=15,
    seed=SEEDS,
    top=st.floats(0.02, 0.4),
)
def test_true_peak(seed: int, top: float) -> float:
    wave = _band_limited(seed, top)
    repeated = np.tile(wave, 3).astype(np.float32)[None]
    # The resampler rings at abrupt ends: fade the ends, so that the middle stays as it is.
    repeated *= np.interp(np.arange(repeated.shape[1]), [0, 2_000, 10_288, 12_287], [0, 1, 1, 0])
    return abs(true_peak_db(repeated, 48_000) - references.band_limited_peak_db(wave))


@law(
    "True peak below 0.4 of the rate: the interpolator printed in BS.1770-4, Annex 2",
    within=0.25,
    unit="dB",
    examples=15,
    seed=SEEDS,
    top=st.floats(0.02, 0.4),
    channels=st.integers(1, 3),
)
def test_true_peak_by_the_standards_filter(seed: int, top: float, channels: int) -> float:
    fade = np.hanning(4_096)
    wave = np.stack([_band_limited(seed + k, top) for k in range(channels)]) * fade
    return abs(true_peak_db(wave.astype(np.float32), 48_000) - references.true_peak_db(wave))


@law(
    "Spectrum: the Fourier sum",
    within=2e-6,
    unit="of the largest",
    examples=10,
    seed=SEEDS,
    samples=st.integers(600, 3_000),
)
def test_spectrum(seed: int, samples: int) -> float:
    wave = noise(seed, (samples,))
    slow = references.stft(wave.astype(np.float64), 480, 160, 512)
    output = stft(wave, PAPER)
    return float(np.abs(output - slow).max() / np.abs(slow).max())


@law(
    "Log magnitude, from 80 dB below the loudest bin up",
    within=0.02,
    unit="dB",
    examples=10,
    seed=SEEDS,
    gain_db=st.floats(-40, 20),
)
def test_log_magnitude(seed: int, gain_db: float) -> float:
    wave = notes(seed, 0.3)[0] * np.float32(10 ** (gain_db / 20))
    slow = references.log_magnitude(references.stft(wave.astype(np.float64), 480, 160, 512), -140)
    output = log_magnitude(stft(wave, PAPER), PAPER)
    audible = slow > slow.max() - 80
    return float(np.abs(output - slow)[audible].max())


@law(
    "Mel bands: triangles written out, of any number, range and transform",
    within=2e-7,
    unit="of 1",
    examples=20,
    count=st.integers(8, 128),
    low=st.floats(0, 400),
    high=st.floats(1_000, 8_000),
    fft=st.sampled_from([480, 512, 600, 1_024]),
)
def test_mel_bands(count: int, low: float, high: float, fft: int) -> float:
    output = filterbank_matrix(BandSettings(count=count, low_hz=low, high_hz=high), SpectrumSettings(fft=fft))
    slow = references.mel_weights(count, low, high, fft // 2 + 1, 16_000 / fft)
    return float(np.abs(output - slow).max())


@law(
    "Row levels: the power of the bins, summed",
    within=5e-5,
    unit="dB",
    examples=10,
    seed=SEEDS,
    level_db=st.floats(-120, 0),
)
def test_row_levels(seed: int, level_db: float) -> float:
    magnitude = level_db + 10 * noise(seed, (257, 20), 1.0)
    weights = filterbank_matrix(BANDS, PAPER)
    output = apply_filterbank(magnitude, BANDS, PAPER)
    slow = references.row_levels(magnitude.astype(np.float64), weights.astype(np.float64))
    return float(np.abs(output - slow).max())


@law(
    "Levels on mel rows of a recording, from samples on",
    within=0.005,
    unit="dB",
    examples=8,
    seed=SEEDS,
)
def test_levels_of_a_recording(seed: int) -> float:
    wave = notes(seed, 0.4)[0]
    output = band_levels(wave, 16_000, BANDS, PAPER)
    spectrum = references.stft(wave.astype(np.float64), 480, 160, 512)
    weights = references.mel_weights(48, 40, 8_000, 257, 31.25)
    slow = references.row_levels(references.log_magnitude(spectrum, -140), weights)
    return float(np.abs(output - slow).max())


@law(
    "Parametric bands: the coefficients that the Audio EQ Cookbook prints",
    within=1e-12,
    unit="of the largest",
    examples=50,
    kind=st.sampled_from(KINDS),
    hz=st.floats(20, 18_000),
    gain_db=st.floats(-24, 24),
    q=st.floats(0.3, 8),
    rate=st.sampled_from([44_100.0, 48_000.0, 96_000.0]),
)
def test_biquads(kind: FilterType, hz: float, gain_db: float, q: float, rate: float) -> float:
    b, a = references.biquad(kind, hz, gain_db, q, rate)
    output = biquad_coefficients(EqBand(kind, hz, gain_db, q), rate)
    return max(relative(fast, slow / a[0]) for fast, slow in zip(output, (b, a), strict=True))


@law(
    "Parametric bands: the response is that of their own impulse, by the difference equation",
    within=1e-9,
    unit="dB",
    examples=8,
    kind=st.sampled_from(KINDS),
    hz=st.floats(300, 15_000),
    gain_db=st.floats(-24, 24),
    q=st.floats(0.3, 4),
)
def test_response_of_bands(kind: FilterType, hz: float, gain_db: float, q: float) -> float:
    bands = (EqBand(kind, hz, gain_db, q), EqBand("peaking", 2_000.0, -gain_db / 2, 1.0))
    # The Fourier transform below takes the impulse response as periodic. A peak of 24 dB at 300 Hz with a
    # Q of 4 has a bandwidth of 300 / 4 / 10^(24/40) = 19 Hz, and falls to exp(-π · 19 · 0.68) = 3e-18.
    length = 32_768
    x = np.zeros(length)
    x[0] = 1
    for band in bands:
        x = references.difference_equation(*references.biquad(*band, 48_000), x)
    at = np.arange(1, length // 2) * 48_000 / length
    slow = 20 * np.log10(np.abs(np.fft.rfft(x))[1 : length // 2])
    return float(np.abs(eq_response_db(bands, at, 48_000) - slow).max())
