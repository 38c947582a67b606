"""Extreme inputs: silence, denormals, full scale, a constant, single samples, a click."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tonewood
from campaigns.harness.numerics.law import law
from tests.numerics.sounds import MODELS, NAMES, Samples, bundled, enhanced, noise, notes, recording
from tonewood.dsp.features import band_levels, fine_structure
from tonewood.dsp.loudness import integrated_loudness, true_peak_db
from tonewood.enhancement.pipeline import Enhancement
from tonewood.errors import AudioError
from tonewood.scorer.network import Scorer
from tonewood.settings import BandSettings, SpectrumSettings

PAPER = SpectrumSettings()


def constant(samples: int, level: float) -> Samples:
    return np.full((1, samples), level, np.float32)


def square(samples: int) -> Samples:
    return np.where(np.arange(samples) // 50 % 2, -1, 1).astype(np.float32)[None]


def sine(samples: int) -> Samples:
    return np.sin(2 * np.pi * 997 * np.arange(samples) / 44_100).astype(np.float32)[None]


def click(samples: int) -> Samples:
    output = np.zeros((1, samples), np.float32)
    output[0, samples // 2] = 1
    return output


def highest(samples: int) -> Samples:
    """The rate's own Nyquist frequency at full scale."""
    return np.where(np.arange(samples) % 2, -1, 1).astype(np.float32)[None]


LOUD: dict[str, Callable[[int], Samples]] = {
    "square": square,
    "sine": sine,
    "click": click,
    "highest": highest,
    "constant": lambda samples: constant(samples, 1.0),
    "noise": lambda samples: np.sign(noise(0, (1, samples))),
    "far beyond": lambda samples: np.float32(1e4) * sine(samples),
}


def finite(result: Enhancement) -> bool:
    """Return True if samples, mask, scores and gain are all finite."""
    figures = [result.scorer.before, result.scorer.after, result.rendered.gain_db]
    if result.judge is not None:
        figures += [result.judge.before, result.judge.after]
    return bool(
        np.isfinite(result.samples).all()
        and np.isfinite(result.mask.gain_db).all()
        and np.isfinite(figures).all()
    )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", LOUD)
def test_full_scale_gives_finite_results_below_the_ceiling(name: str, model: str) -> None:
    wave = LOUD[name](30_000)
    result = enhanced(wave, 44_100, model)
    assert finite(result)
    assert result.samples.shape == wave.shape
    assert true_peak_db(result.samples, 44_100) <= -1 + 1e-3
    assert result.mask.largest_db <= 30 + 1e-5  # limit of the mask, plus a rounding error
    assert result.samples.any()


@pytest.mark.parametrize(
    ("samples", "rate"),
    [(1, 16_000), (2, 44_100), (7, 8_000), (159, 16_000), (160, 48_000), (161, 16_000),
     (479, 16_000), (480, 16_000), (481, 16_000), (1_323, 44_100), (4_000, 16_000)],
)  # fmt: skip
def test_recording_shorter_than_a_window_is_enhanced(samples: int, rate: int) -> None:
    wave = notes(1, 0.9, rate)[:, 2_000 : 2_000 + samples]
    result = enhanced(wave, rate)
    assert finite(result)
    assert result.samples.shape == wave.shape
    resampled = max(1, round(samples * 16_000 / rate))
    assert result.mask.gain_db.shape[1] == pytest.approx(resampled // 160 + 1, abs=1)
    assert np.abs(result.samples).max() <= 40 * np.abs(wave).max()


@settings(max_examples=15, deadline=None)
@given(rate=st.integers(4_000, 96_000))
def test_shortest_recording_with_a_score_lasts_a_quarter_of_a_second(rate: int) -> None:
    least = math.ceil(0.25 * rate)
    wave = notes(2, 0.3, rate)[:, :least]
    assert 0 <= tonewood.score(wave, rate, bundled("cello")).scorer <= 1
    with pytest.raises(AudioError, match=r"0\.25 s: give a longer recording"):
        tonewood.score(wave[:, :-1], rate, bundled("cello"))


def tiny(samples: int, channels: int = 1) -> Samples:
    """Denormal numbers: 1e-40 is below the smallest normal number of single precision."""
    output = (1e-40 * np.random.default_rng(0).choice([-1, 1], (channels, samples))).astype(np.float32)
    assert (output != 0).all()
    return output


@law("Denormals of 1e-40: levels are those of silence", within=0, examples=1)
def test_denormal_levels() -> float:
    waves = tiny(9_000)[0], np.zeros(9_000, np.float32)
    rows = [band_levels(item, 16_000, BandSettings(), PAPER) for item in waves]
    fine = [fine_structure(item, PAPER, 57) for item in waves]
    return float(np.abs(rows[0] - rows[1]).max() + np.abs(fine[0] - fine[1]).max())


@law(
    "Denormals of 1e-40: scores, mask and prior are those of silence",
    within=0,
    examples=2,
    rate=st.sampled_from([16_000, 44_100]),
    model=NAMES,
)
def test_denormals_are_silence(rate: int, model: str) -> float:
    wave = tiny(rate // 2, 2)
    output, silent = (enhanced(item, rate, model) for item in (wave, np.zeros_like(wave)))
    assert finite(output)
    assert np.abs(output.samples).max() <= 1e-38
    assert output.prior == silent.prior
    difference = np.abs(output.mask.gain_db - silent.mask.gain_db).max()
    assert output.judge is not None
    assert silent.judge is not None
    return (
        float(difference)
        + abs(output.scorer.before - silent.scorer.before)
        + abs(output.judge.before - silent.judge.before)
    )


@pytest.mark.parametrize("model", MODELS)
def test_silence_stays_silent_with_finite_results(model: str) -> None:
    result = enhanced(np.zeros((2, 12_000), np.float32), 44_100, model)
    assert finite(result)
    assert not result.samples.any()
    assert result.rendered.gain_db == 0
    assert result.rendered.loudness_before == -math.inf


def test_denormals_have_negligible_loudness_without_warning() -> None:
    assert integrated_loudness(tiny(48_000), 48_000) < -700
    assert true_peak_db(tiny(48_000), 48_000) < -700


@pytest.mark.parametrize("wave", [tiny(16_000)[0], np.zeros(16_000, np.float32)])
@pytest.mark.parametrize("which", ["scorer", "judge"])
def test_gradients_of_silence_and_denormals_are_finite(wave: Samples, which: str) -> None:
    scorer = getattr(bundled("cello"), which)
    assert isinstance(scorer, Scorer)
    samples = torch.from_numpy(wave).requires_grad_()
    rows = band_levels(samples, 16_000, scorer.settings.bands, PAPER)
    (gradient,) = torch.autograd.grad(scorer.as_tensors().score(rows[None]).sum(), samples)
    assert gradient.isfinite().all()


@law(
    "A constant of a tenth of full scale added: score of the recording",
    within=0.05,
    unit="of 1",
    examples=6,
    level=st.floats(-0.1, 0.1),
    model=NAMES,
)
def test_a_constant_does_not_count(level: float, model: str) -> float:
    """The rows begin at 40 Hz; the window leaks little from 0 Hz to there, and graded scorers learn it."""
    wave, rate = recording(8.0), 44_100
    before, after = (
        tonewood.score(item, rate, bundled(model)).scorer for item in (wave, wave + np.float32(level))
    )
    return abs(before - after)
