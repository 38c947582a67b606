import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tonewood.dsp.chunking import overlapping_chunks
from tonewood.dsp.stft import (
    GainFunction,
    filter_chunk,
    filter_margin,
    filter_recording,
    log_magnitude,
    prepare_filter,
    scale_to_rate,
    stft,
)
from tonewood.settings import SpectrumSettings
from tonewood.utils.arrays import FloatArray

PAPER = SpectrumSettings()


def constant(gain_db: float) -> GainFunction:
    def field(hz: FloatArray, seconds: FloatArray) -> NDArray[np.float32]:
        return np.full((len(hz), len(seconds)), gain_db, dtype=np.float32)

    return field


def wandering(hz: FloatArray, seconds: FloatArray) -> NDArray[np.float32]:
    """A smooth gain of some decibels over both axes."""
    gain = 9 * np.sin(hz[:, None] / 700 + 5 * seconds) * np.cos(3 * seconds)
    return gain.astype(np.float32)


def sine(frequency: float, rate: int, samples: int, amplitude: float = 1.0) -> NDArray[np.float64]:
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(samples) / rate)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 88_200, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_zero_mask_returns_the_input(rate: int, channels: int, rng: np.random.Generator) -> None:
    window = round(0.03 * rate)
    for samples in (1, 7, window - 1, window, 2 * window + 1, rate // 3 | 1):
        wave = rng.uniform(-1, 1, (channels, samples)).astype(np.float32)
        original = wave.copy()
        out = filter_recording(wave, rate, constant(0.0), PAPER)
        assert out.dtype == np.float32
        assert out.shape == wave.shape
        assert np.abs(out - wave).max() <= 1e-6, samples
        assert np.array_equal(wave, original)


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(1, 5_000),
    channels=st.integers(1, 8),
    rate=st.integers(8_000, 96_000),
    block=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_zero_mask_returns_the_input_whatever_its_shape(
    samples: int, channels: int, rate: int, block: int, seed: int
) -> None:
    wave = np.random.default_rng(seed).uniform(-1, 1, (channels, samples)).astype(np.float32)
    out = filter_recording(wave, rate, constant(0.0), PAPER, block_frames=block)
    assert np.abs(out - wave).max() <= 1e-6


@pytest.mark.parametrize("gain_db", [6.0206, -6.0206, -40.0])
def test_constant_mask_multiplies_the_amplitude(gain_db: float, rng: np.random.Generator) -> None:
    wave = rng.uniform(-0.4, 0.4, (2, 9_001)).astype(np.float32)
    factor = {6.0206: 2.0, -6.0206: 0.5, -40.0: 0.01}[gain_db]
    out = filter_recording(wave, 44_100, constant(gain_db), PAPER)
    assert np.allclose(out, factor * wave, atol=2e-6)


def test_sine_keeps_frequency_and_phase_and_gets_the_gain_at_its_frequency() -> None:
    rate, frequency = 48_000, 1_234.5

    def tilted(hz: FloatArray, seconds: FloatArray) -> NDArray[np.float32]:
        gain = np.repeat((hz / 1_000 - 3)[:, None], len(seconds), axis=1)
        return gain.astype(np.float32)

    wave = sine(frequency, rate, rate).astype(np.float32)[None]
    out = filter_recording(wave, rate, tilted, PAPER)
    expected = wave * 10 ** ((frequency / 1_000 - 3) / 20)
    inner = slice(rate // 10, -rate // 10)
    assert np.abs(out - expected)[:, inner].max() < 1e-3
    spectrum = np.abs(np.fft.rfft(out[0, inner] * np.hanning(out[0, inner].size), 8 * rate))
    assert spectrum.argmax() / 8 == pytest.approx(frequency, abs=0.3)


def test_band_reject_removes_only_its_tone() -> None:
    rate = 44_100

    def without_the_top(hz: FloatArray, seconds: FloatArray) -> NDArray[np.float32]:
        gain = np.where(hz > 3_000, -60.0, 0.0)
        return np.repeat(gain[:, None], len(seconds), axis=1).astype(np.float32)

    low, high = (sine(f, rate, rate, 0.4) for f in (500, 6_000))
    out = filter_recording((low + high).astype(np.float32)[None], rate, without_the_top, PAPER)
    inner = slice(rate // 10, -rate // 10)
    assert np.abs(out[0] - low)[inner].max() < 2e-3


def test_gain_acts_at_its_time() -> None:
    rate = 16_000

    def later(hz: FloatArray, seconds: FloatArray) -> NDArray[np.float32]:
        gain = np.where(seconds >= 0.5, -60.0, 0.0)
        return np.repeat(gain[None], len(hz), axis=0).astype(np.float32)

    wave = sine(440, rate, rate, 0.5).astype(np.float32)[None]
    out = filter_recording(wave, rate, later, PAPER)
    assert np.abs(out - wave)[0, : round(0.46 * rate)].max() < 1e-6
    assert np.abs(out)[0, round(0.54 * rate) :].max() < 1e-3


def test_impulse_keeps_its_position() -> None:
    """The filter has zero phase: constant in time, it is symmetric in time."""
    wave = np.zeros((1, 4_001), dtype=np.float32)
    wave[0, 2_000] = 1

    def comb(hz: FloatArray, seconds: FloatArray) -> NDArray[np.float32]:
        gain = 6 * np.sin(hz[:, None] / 900) * np.ones(len(seconds))
        return gain.astype(np.float32)

    out = filter_recording(wave, 16_000, comb, PAPER)[0]
    assert np.abs(out).argmax() == 2_000
    assert np.allclose(out[1_600:2_001], out[2_400:1_999:-1], atol=1e-6)
    assert np.abs(out[1_999]) > 1e-4


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("block_frames", [1, 7, 50])
def test_result_does_not_depend_on_block_size(rate: int, block_frames: int, rng: np.random.Generator) -> None:
    wave = rng.uniform(-1, 1, (2, rate * 6 // 5 + 13)).astype(np.float32)
    whole = filter_recording(wave, rate, wandering, PAPER, block_frames=10**6)
    parts = filter_recording(wave, rate, wandering, PAPER, block_frames=block_frames)
    assert np.abs(whole - wave).max() > 0.1
    assert np.abs(whole - parts).max() <= 1e-6


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
@pytest.mark.parametrize("size", [1_000, 3_333, 60_000])
def test_filtered_chunks_equal_the_filtered_recording(rate: int, size: int, rng: np.random.Generator) -> None:
    wave = rng.uniform(-1, 1, (3, 60_011)).astype(np.float32)
    whole = filter_recording(wave, rate, wandering, PAPER)
    output = [
        filter_chunk(item, rate, wandering, PAPER)
        for item in overlapping_chunks([wave], size, filter_margin(rate, PAPER))
    ]
    assert np.abs(np.concatenate(output, axis=1) - whole).max() <= 1e-6


def test_prepared_filter_takes_any_gain(rng: np.random.Generator) -> None:
    wave = rng.uniform(-1, 1, (2, 9_001)).astype(np.float32)
    through = prepare_filter(wave, 16_000, PAPER, block_frames=20)
    for gain in (wandering, constant(-6.0), wandering):
        assert np.abs(through(gain) - filter_recording(wave, 16_000, gain, PAPER)).max() <= 1e-6


@pytest.mark.parametrize("hop_ms", [5.0, 7.3, 15.0])
@pytest.mark.parametrize("samples", [4_000, 4_239, 4_240])
def test_hops_up_to_half_a_window_reconstruct_exactly(
    hop_ms: float, samples: int, rng: np.random.Generator
) -> None:
    wave = rng.uniform(-1, 1, (1, samples)).astype(np.float32)
    wide = SpectrumSettings(hop_ms=hop_ms)
    assert np.abs(filter_recording(wave, 16_000, constant(0.0), wide) - wave).max() <= 1e-5


def test_channels_are_filtered_alike(rng: np.random.Generator) -> None:
    mono = rng.uniform(-1, 1, (1, 8_000)).astype(np.float32)
    out = filter_recording(np.concatenate([mono, -0.25 * mono]), 16_000, wandering, PAPER)
    assert np.allclose(out[1], -0.25 * out[0], atol=1e-6)
    assert np.allclose(out[:1], filter_recording(mono, 16_000, wandering, PAPER), atol=1e-6)


def test_gain_receives_frequencies_and_times_of_the_recording() -> None:
    calls: list[tuple[FloatArray, FloatArray]] = []

    def noted(hz: FloatArray, seconds: FloatArray) -> NDArray[np.float32]:
        calls.append((hz, seconds))
        return constant(0.0)(hz, seconds)

    filter_recording(np.zeros((1, 44_100), dtype=np.float32), 44_100, noted, PAPER)
    (hz, seconds) = calls[0]
    assert hz[0] == 0
    assert hz[-1] == 22_050
    assert seconds[0] == 0
    assert np.allclose(np.diff(seconds), 0.01)
    assert seconds[-1] >= 1.0


def test_full_scale_sine_on_a_bin_reads_0_dbfs() -> None:
    frequency = 32 * PAPER.rate / PAPER.fft
    level = log_magnitude(stft(sine(frequency, 16_000, 16_000), PAPER), PAPER)
    assert level.shape == (257, 101)
    inner = level[:, 5:-5]
    assert (inner.argmax(axis=0) == 32).all()
    assert inner[32] == pytest.approx(0.0, abs=1e-3)


def test_stft_equals_the_explicit_fourier_sum(rng: np.random.Generator) -> None:
    wave = rng.standard_normal(3_000)
    spectrum = stft(wave, PAPER)
    n = np.arange(480)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / 480)
    for frame, line in ((5, 0), (8, 100), (10, 256)):
        # The window is centred in the FFT frame, which starts 256 samples before frame * hop.
        piece = wave[frame * 160 - 240 : frame * 160 + 240]
        turn = np.exp(-2j * np.pi * line * (n + 16) / 512)
        slow = (piece * hann * turn).sum() * 2 / hann.sum()
        assert spectrum[line, frame] == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("samples", [200, 600, 4_801, 16_000])
@pytest.mark.parametrize("fft", [512, 513])
def test_stft_of_arrays_equals_that_of_tensors(samples: int, fft: int, rng: np.random.Generator) -> None:
    wave, settings = rng.standard_normal((2, 3, samples)), SpectrumSettings(fft=fft)
    assert np.allclose(stft(wave, settings), stft(torch.from_numpy(wave), settings).numpy(), atol=1e-12)


def test_frame_k_is_at_k_hops_at_any_rate() -> None:
    for rate in (16_000, 48_000):
        window, hop, fft = scale_to_rate(PAPER, rate)
        scaled = SpectrumSettings(
            rate=rate, window_ms=1000 * window / rate, hop_ms=1000 * hop / rate, fft=fft
        )
        click = np.zeros(rate, np.float32)
        click[round(0.43 * rate)] = 1
        energy = np.square(np.abs(stft(click, scaled))).sum(axis=0)
        assert energy.argmax() == 43


@pytest.mark.parametrize(
    ("rate", "sizes"),
    [(16_000, (480, 160, 512)), (44_100, (1323, 441, 1411)), (48_000, (1440, 480, 1536))],
)
def test_other_rates_have_the_same_durations(rate: int, sizes: tuple[int, int, int]) -> None:
    assert scale_to_rate(PAPER, rate) == sizes


def test_log_magnitude_stops_at_the_floor() -> None:
    level = log_magnitude(np.array([0.0, 1e-9, 1e-5, 1.0]) * (1 + 0j), PAPER)
    assert level == pytest.approx([-140, -140, -100, 0], abs=1e-4)


@pytest.mark.parametrize("amplitude", [0.0, 1e-8, 1.0])
def test_gradients_of_log_magnitude_are_finite(amplitude: float) -> None:
    wave = torch.full((2_000,), amplitude)
    wave[::2] *= -1
    wave.requires_grad_()
    log_magnitude(stft(wave, PAPER), PAPER).sum().backward()  # type: ignore[no-untyped-call]
    assert wave.grad is not None
    assert wave.grad.isfinite().all()
    assert (wave.grad.abs().max() > 0) == (amplitude == 1.0)


@pytest.mark.parametrize("fft", [512, 513, 1411])
def test_odd_fft_lengths_lose_no_frame(fft: int) -> None:
    settings = SpectrumSettings(fft=fft)
    for samples in (160, 1_600, 16_000, 16_001):
        assert stft(np.ones(samples, np.float32), settings).shape == (fft // 2 + 1, samples // 160 + 1)
