import numpy as np
import pyloudnorm
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyloudnorm.iirfilter import IIRfilter
from scipy.signal import sosfilt

from tonewood.dsp import loudness
from tonewood.dsp.chunking import overlapping_chunks, single_chunk
from tonewood.dsp.loudness import (
    _BEND_GAIN,
    _INTERPOLATOR_REACH,
    _LIMIT_MARGIN,
    _PEAK_SEGMENT,
    _k_weighting_sos,
    _true_peak_limits,
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
    shifted = integrated_loudness(scaled, 16_000) - integrated_loudness(wave, 16_000)
    assert shifted == pytest.approx(gain_db, abs=1e-5)


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_agrees_with_pyloudnorm(rate: int, channels: int) -> None:
    wave = noise(channels, 3 * rate + 17)
    # A swell over 60 dB activates both gates.
    wave *= np.logspace(-3, 0, wave.shape[1], dtype=np.float32)
    # The default filters of pyloudnorm differ from the standard by 0.04 dB; these do not.
    meter = pyloudnorm.Meter(rate, filter_class="DeMan")
    expected = meter.integrated_loudness(wave.T.astype(np.float64))
    assert integrated_loudness(wave, rate) == pytest.approx(expected, abs=0.01)


RATES = [8_000, 11_025, 44_100, 48_000, 96_000, 192_000]


@pytest.mark.parametrize("rate", RATES)
def test_k_weighting_has_the_coefficients_of_pyloudnorm(rate: int) -> None:
    shelf = IIRfilter(3.99984385397, 0.7071752369554193, 1681.9744509555319, rate, "high_shelf_DeMan")
    high, high_48 = (
        IIRfilter(0.0, 0.5003270373253953, 38.13547087613982, r, "high_pass") for r in (rate, 48_000)
    )
    expected = [[*shelf.b, *shelf.a], [*(high.b / high_48.b[0]), *high.a]]
    np.testing.assert_allclose(_k_weighting_sos(rate), expected, rtol=0, atol=1e-12)


def weighted_power(wave: Samples, rate: int) -> NDArray[np.float64]:
    """Slow twin: power of every K-weighted sample, by the difference equation in double precision."""
    weighted = sosfilt(_k_weighting_sos(rate), wave.astype(np.float64), axis=1)
    return np.asarray(np.square(weighted).sum(axis=0))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(
    "kind", ["noise", "full-scale 5 Hz", "full-scale 20 Hz", "DC and noise", "1 Hz and noise"]
)
def test_step_energies_are_those_of_the_difference_equation(rate: int, kind: str) -> None:
    time = np.arange(round(1.7 * rate)) / rate
    quiet = noise(2, time.size, amplitude=1e-3)
    wave = {
        "noise": noise(2, time.size),
        "full-scale 5 Hz": np.sin(2 * np.pi * 5 * time)[None],
        "full-scale 20 Hz": np.sin(2 * np.pi * 20 * time)[None],
        "DC and noise": 1 + quiet,
        "1 Hz and noise": np.sin(2 * np.pi * time) + quiet,
    }[kind].astype(np.float32)
    power, step = weighted_power(wave, rate), round(0.1 * rate)
    # Three chunks: at the start, where the filter is at rest, in the middle, and at the end.
    parts = [
        measure_loudness_blocks(chunk, rate)
        for chunk in overlapping_chunks([wave], round(0.63 * rate), round(0.26 * rate))
    ]
    assert len(parts) == 3
    full = power.size // step * step
    expected = power[:full].reshape(-1, step).sum(axis=1)
    np.testing.assert_allclose(np.concatenate([part.steps for part in parts]), expected, rtol=1e-6)
    assert parts[-1].remainder == pytest.approx(power[full:].sum(), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("rate", RATES)
def test_dc_has_energy_at_its_start_only(rate: int) -> None:
    wave = np.ones((1, rate), np.float32)
    steps = measure_loudness_blocks(single_chunk(wave), rate).steps
    assert steps[0] > 0.001 * rate
    assert (steps[3:] < 1e-20).all()


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


def test_digital_silence_is_not_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorders leave hours of zeros, and sparse files hold gigabytes of them."""
    chunk = single_chunk(np.zeros((2, 10_000), np.float32))
    filtered = [measure_loudness_blocks(chunk, 44_100), true_peak(chunk, 44_100)]

    def fail(*_: object) -> None:
        raise AssertionError("zeros were filtered")

    monkeypatch.setattr(loudness, "_KWeightingFilter", fail)
    monkeypatch.setattr(loudness, "_true_peak_limits", fail)
    silent = [measure_loudness_blocks(chunk, 44_100), true_peak(chunk, 44_100)]
    np.testing.assert_equal(silent, filtered)


def test_true_peak_is_that_of_the_loudest_channel_and_chunk() -> None:
    """Also beyond the first block of the oversampling."""
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
    """Margins of 0.25 s are enough for the weighting to settle."""
    wave = noise(channels, length, amplitude=0.3)
    pieces = list(overlapping_chunks([wave], size, rate // 4))
    loudness = gated_loudness([measure_loudness_blocks(piece, rate) for piece in pieces], rate)
    assert loudness == pytest.approx(integrated_loudness(wave, rate), abs=1e-6)
    peak = level_db(max(true_peak(piece, rate) for piece in pieces))
    assert peak == pytest.approx(true_peak_db(wave, rate), abs=1e-4)


@pytest.mark.parametrize("factor", [2, 4])
def test_interpolator_has_the_bend_gain_and_reach_that_limits_assume(factor: int) -> None:
    """Weights are the taps less those of linear interpolation, summed twice."""
    impulse = np.zeros(2_001)
    impulse[1_000] = 1
    output = soxr.resample(impulse, 1, factor, quality="HQ")
    for phase in range(1, factor):
        taps = output[phase::factor]
        taps[[999, 1_000]] -= phase / factor, 1 - phase / factor
        outside = np.abs(np.arange(2_001) - 1_000) > _INTERPOLATOR_REACH
        assert np.abs(taps[outside]).max() < 1e-7
        weights = np.cumsum(np.cumsum(taps))[~outside]
        assert np.abs(weights).sum() < _BEND_GAIN
        moment = np.abs(taps @ (np.arange(2_001) - 1_000))
        assert 1 + np.abs(taps.sum()) + 2 * moment < _LIMIT_MARGIN


def oversampled_peaks(samples: Samples, rate: int) -> NDArray[np.float32]:
    """Peak of every sample and the points up to the next one, over channels; all of them oversampled."""
    factor = 4 if rate < 96_000 else 2
    output = np.abs(soxr.resample(samples.T, 1, factor, quality="HQ"))
    return np.asarray(output.max(axis=1).reshape(-1, factor).max(axis=1))


waves = st.builds(
    lambda seed, channels, length, smooth, power: (
        (np.cumsum(noise(channels, length, seed), axis=1) if smooth else noise(channels, length, seed))
        ** power
    ),
    st.integers(0, 1_000),
    st.integers(1, 2),
    st.integers(1, 9_000),
    st.booleans(),
    st.sampled_from([1, 9]),
)


@settings(max_examples=60, deadline=None)
@given(waves, st.sampled_from([44_100, 96_000]))
def test_true_peak_is_that_of_oversampling_everything(wave: Samples, rate: int) -> None:
    expected = max(oversampled_peaks(wave, rate).max(), np.abs(wave).max())
    assert true_peak(single_chunk(wave), rate) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(waves)
def test_true_peak_limits_hold_for_each_segment(wave: Samples) -> None:
    peaks = oversampled_peaks(wave, 44_100)
    starts = np.arange(0, len(peaks), _PEAK_SEGMENT)
    assert (np.maximum.reduceat(peaks, starts) <= _true_peak_limits(wave) * (1 + 1e-6)).all()


def test_true_peak_of_smooth_audio_oversamples_few_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = sine(-6, 10, 44_100, frequency=440) * np.linspace(0.2, 1, 441_000, dtype=np.float32)
    lengths: list[int] = []
    resample = soxr.resample

    def counting(samples: Samples, *args: object, **kwargs: object) -> Samples:
        lengths.append(len(samples))
        return np.asarray(resample(samples, *args, **kwargs))

    monkeypatch.setattr(soxr, "resample", counting)
    true_peak_db(wave, 44_100)
    assert sum(lengths) < 0.02 * wave.shape[1]


def test_k_weighting_blocks_dc() -> None:
    assert k_weighting_db(np.array([0.0, 1_000.0])) == pytest.approx([-180, 0.698], abs=0.01)
