from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tonewood.dsp.features import audible_frames, center_frequencies, hz_to_mel
from tonewood.dsp.stft import filter_recording, log_magnitude, stft
from tonewood.errors import CallError
from tonewood.evaluation.metrics import (
    PairDistances,
    gap_closed,
    log_spectral_distance,
    long_term_error,
    measure_distances,
    mel_distance,
    multi_resolution_distance,
    rows_distance,
)
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray, Samples

METRICS = [mel_distance, log_spectral_distance, multi_resolution_distance, long_term_error]
PAPER = SpectrumSettings()


def noise(seconds: float = 2.0, seed: int = 0) -> Samples:
    drawn = np.random.default_rng(seed).standard_normal(round(seconds * 16_000))
    return (0.1 * drawn).astype(np.float32)


def filtered_by(wave: Samples, gain_db: Callable[[FloatArray], FloatArray]) -> Samples:
    """Return the wave filtered by a constant gain curve."""

    def field(hz: FloatArray, seconds: FloatArray) -> NDArray[np.float32]:
        return np.repeat(gain_db(hz)[:, None], len(seconds), axis=1).astype(np.float32)

    filtered: Samples = filter_recording(wave[None], 16_000, field, PAPER)[0]
    return filtered


@pytest.mark.parametrize("metric", METRICS)
def test_equal_sounds_have_distance_zero(metric: Callable[[Samples, Samples], float]) -> None:
    assert metric(noise(), noise()) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_different_sounds_have_a_distance(metric: Callable[[Samples, Samples], float]) -> None:
    other = filtered_by(noise(seed=1), lambda hz: 6 * np.sin(hz / 900))
    assert metric(noise(), other) > 1


@settings(max_examples=15, deadline=None)
@given(gain_db=st.floats(-20, 12), which=st.sampled_from(METRICS), of_reference=st.booleans())
def test_overall_level_does_not_count(
    gain_db: float, which: Callable[[Samples, Samples], float], of_reference: bool
) -> None:
    estimate, reference = noise(0.5, 1), noise(0.5, 2)
    gain = 10 ** (gain_db / 20)
    plain = which(estimate, reference)
    scaled = which(estimate, gain * reference) if of_reference else which(gain * estimate, reference)
    assert plain > 0.3
    assert scaled == pytest.approx(plain, abs=0.02)  # bins fade to the floor


def test_tilt_over_bins_has_the_distance_of_its_spread() -> None:
    """A straight line from -a to a has the root mean square a / √3."""
    estimate = filtered_by(noise(), lambda hz: 6 * (hz / 4_000 - 1))
    expected = 6 / 3**0.5
    assert log_spectral_distance(estimate, noise()) == pytest.approx(expected, abs=0.1)
    assert multi_resolution_distance(estimate, noise()) == pytest.approx(expected, abs=0.1)


def test_tilt_over_mel_bands_has_the_distance_of_its_spread() -> None:
    def tilt(hz: FloatArray) -> FloatArray:
        return 6 * (hz_to_mel(hz) / 1_500 - 1)

    estimate = filtered_by(noise(4.0), tilt)
    at_centres = tilt(center_frequencies(BandSettings(), PAPER))
    assert mel_distance(estimate, noise(4.0)) == pytest.approx(at_centres.std(), abs=0.15)
    assert long_term_error(estimate, noise(4.0)) == pytest.approx(at_centres.std(), abs=0.15)


def test_rows_distance_equals_the_definition(rng: np.random.Generator) -> None:
    estimate, reference = rng.normal(-40, 8, (2, 12, 30))
    reference[:, 7:12] -= 120
    loudness = 10 * np.log10((10 ** (reference / 10)).sum(axis=0))
    audible = [k for k in range(30) if loudness[k] > loudness.max() - 45]
    assert len(audible) == 25
    offset = np.mean([estimate[:, k] - reference[:, k] for k in audible])
    each = [np.sqrt(np.mean((estimate[:, k] - reference[:, k] - offset) ** 2)) for k in audible]
    output = rows_distance(estimate, reference)
    assert output == pytest.approx(np.mean(each))


def test_mean_level_is_removed_once_per_recording() -> None:
    reference = np.zeros((4, 10), np.float32)
    estimate = reference.copy()
    estimate[:, 5:] = 6
    assert rows_distance(estimate, reference) == pytest.approx(3)


def test_frames_45_db_below_the_loudest_are_ignored() -> None:
    levels = np.full((4, 5), -60, np.float32)
    levels[0] = [-10.0, -54.0, -56.0, -100.0, -10.0]
    levels[1:] = -150
    assert audible_frames(levels).tolist() == [True, True, False, False, True]


@pytest.mark.parametrize("metric", METRICS[:3])
def test_pauses_do_not_count(
    metric: Callable[[Samples, Samples], float],
) -> None:
    reference = noise()
    reference[16_000:] *= 1e-4
    estimate = reference.copy()
    estimate[20_000:] = 1e-4 * noise(1, seed=9)[:12_000]
    assert metric(estimate, reference) == 0
    estimate[4_000:8_000] = noise(1, seed=9)[:4_000]
    assert metric(estimate, reference) > 0.3


def test_levels_below_minus_100_dbfs_do_not_count() -> None:
    """Noise at about -116 dBFS a bin, where digital silence would be at the floor of -140."""
    tone = (0.3 * np.sin(2 * np.pi * 1_000 / 16_000 * np.arange(16_000))).astype(np.float32)
    noisy = tone + 2.5e-4 * noise(1.0)
    assert log_spectral_distance(noisy, tone) < 0.6  # 5.0 if the noise counted; some bins rise above
    assert mel_distance(noisy, tone) < 0.6


def test_multi_resolution_is_the_mean_over_windows_of_32_64_and_128_ms() -> None:
    estimate, reference = noise(0.5, 1), filtered_by(noise(0.5, 1), lambda hz: 9 * np.sin(hz / 150))
    parts = []
    for size in (512, 1024, 2048):
        window = SpectrumSettings(window_ms=size / 16, hop_ms=size / 64, fft=size)
        levels = [log_magnitude(stft(wave, window), window).clip(-100) for wave in (estimate, reference)]
        parts.append(rows_distance(*levels))
    assert max(parts) - min(parts) > 0.02
    assert multi_resolution_distance(estimate, reference) == pytest.approx(np.mean(parts))


def test_distance_of_silence_is_finite() -> None:
    for metric in METRICS:
        assert np.isfinite(metric(np.zeros(8_000, np.float32), noise(0.5)))
        assert np.isfinite(metric(noise(0.5), np.zeros(8_000, np.float32)))


def test_long_term_error_does_not_depend_on_time() -> None:
    wave = filtered_by(noise(), lambda hz: -hz / 400)
    rotated = np.roll(wave, 5_000)
    assert long_term_error(rotated, wave) < 0.2
    assert mel_distance(rotated, wave) > 2


def test_measure_distances_returns_all_metrics() -> None:
    estimate, reference = noise(0.5, 1), noise(0.5, 2)
    output = measure_distances(estimate, reference)
    assert output == PairDistances(*[metric(estimate, reference) for metric in METRICS])
    assert output.mel == mel_distance(estimate, reference)
    assert output.log_spectral == log_spectral_distance(estimate, reference)
    assert output.multi_resolution == multi_resolution_distance(estimate, reference)
    assert output.long_term == long_term_error(estimate, reference)


@pytest.mark.parametrize("shape", [(7_999,), (1, 8_000)])
def test_mismatched_waveforms_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(CallError, match=r"one length, not .*\(8000,\): align them first"):
        measure_distances(np.zeros(shape, np.float32), np.zeros(8_000, np.float32))
    with pytest.raises(CallError, match="align them first"):
        measure_distances(np.zeros((1, 8_000), np.float32), np.zeros((1, 8_000), np.float32))


@pytest.mark.parametrize(("before", "after", "share"), [(6, 6, 0), (6, 0, 1), (6, 4.5, 0.25), (6, 9, -0.5)])
def test_gap_closed_is_the_relative_improvement(before: float, after: float, share: float) -> None:
    assert gap_closed(before, after) == pytest.approx(share)


@pytest.mark.parametrize("metric", METRICS)
def test_identity_warp_changes_nothing(metric: Callable[..., float]) -> None:
    estimate, reference = noise(seed=1), noise(seed=2)
    assert metric(estimate, reference, lambda t: t) == pytest.approx(metric(estimate, reference), rel=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_warp_compensates_a_delay(metric: Callable[..., float]) -> None:
    """A delay of 160 ms is a whole number of hops for every window."""
    sound = noise()
    late = np.concatenate([noise(0.16, 3), sound])
    warped = metric(sound, late, lambda t: t + 0.16)
    assert warped < 0.2  # the first frame's padding differs
    assert warped < 0.5 * metric(sound, late[: len(sound)])


@pytest.mark.parametrize("metric", METRICS)
def test_frames_without_counterpart_do_not_count(metric: Callable[..., float]) -> None:
    estimate, reference = noise(seed=1), noise(seed=1)
    estimate[16_000:] *= np.linspace(0, 1, 16_000)
    damaged = metric(estimate, reference)
    unchanged = metric(estimate, reference, lambda t: np.where(t < 0.9, t, np.nan))
    assert unchanged == 0 < damaged


def test_warp_without_counterparts_is_an_error() -> None:
    with pytest.raises(CallError, match="no frame of the estimate has a counterpart"):
        measure_distances(noise(), noise(), lambda t: np.full_like(t, np.nan))


def test_lengths_may_differ_under_a_warp() -> None:
    result = measure_distances(noise(1.0, 1), noise(2.0, 1), lambda t: t)
    assert result.mel == pytest.approx(0, abs=0.2)
