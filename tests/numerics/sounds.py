"""Inputs of the laws (notes, noise, a recording) and the models that they run on."""

from functools import cache
from pathlib import Path
from typing import Unpack

import numpy as np
import soundfile
from hypothesis import strategies as st
from numpy.typing import NDArray

import tonewood
from tonewood.enhancement.pipeline import Enhancement, enhance_array
from tonewood.model.model import Model
from tonewood.setting_types import EnhanceChanges
from tonewood.settings import EnhanceSettings

Samples = NDArray[np.float32]
Array = NDArray[np.float64]

NO_DB = -400.0  # stands for -inf: no difference at all
MODELS = ("cello", "soundfont-cello")
NAMES = st.sampled_from(MODELS)
# Forced: no check refuses an input. No law needs the slow control of the certificate.
FORCED = EnhanceSettings(force=True).replace(certificate=dict(control_steps=0))
_EXAMPLE = Path(tonewood.__file__).parent / "bundled" / "example.flac"


@cache
def bundled(name: str) -> Model:
    """A model that comes with Tonewood."""
    return tonewood.load(name)


@cache
def recording(seconds: float, rate: int = 44_100, first: float = 0.0) -> Samples:
    """A passage (1, samples) of the example that comes with Tonewood."""
    samples, file_rate = soundfile.read(_EXAMPLE, dtype="float32", always_2d=True)
    assert file_rate == rate == 44_100
    output: Samples = samples.T[:, round(first * rate) : round((first + seconds) * rate)].copy()
    return output


def notes(seed: int, seconds: float, rate: int = 16_000, channels: int = 1) -> Samples:
    """Bowed notes of 0.3 s with partials, vibrato and some noise, (channels, samples)."""
    return _synthesise(seed, seconds, rate, channels).copy()


@cache
def _synthesise(seed: int, seconds: float, rate: int, channels: int) -> Samples:
    rng = np.random.default_rng(seed)
    total = round(seconds * rate)
    time = np.arange(total) / rate
    which = (time // 0.3).astype(int)
    hz = 98 * 2 ** (rng.integers(0, 24, which.max() + 1) / 12)
    phase = np.cumsum(hz[which] * (1 + 0.003 * np.sin(2 * np.pi * 5.5 * time))) / rate
    swell = np.sin(np.pi * (time % 0.3) / 0.3) ** 0.5
    wave = np.zeros((channels, total))
    for k in range(1, 30):
        audible = hz[which] * k < min(rate / 2, 8_000)
        loud = rng.uniform(0.2, 1, (channels, 1)) / k
        wave += loud * audible * np.sin(2 * np.pi * k * phase + rng.uniform(0, 6, (channels, 1)))
    wave = swell * wave + 0.01 * rng.standard_normal((channels, total))
    output: Samples = (0.1 * wave).astype(np.float32)
    return output


def noise(seed: int, shape: tuple[int, ...], amplitude: float = 0.1) -> Samples:
    """White noise."""
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return (amplitude * drawn).astype(np.float32)


def enhanced(
    wave: Samples, rate: int, model: str = "cello", **changes: Unpack[EnhanceChanges]
) -> Enhancement:
    """Enhance a recording of any length and content."""
    *_, last = enhance_array(wave, rate, bundled(model), FORCED.replace(**changes))
    assert isinstance(last, Enhancement)
    return last


def relative(output: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Return the largest difference, relative to the largest expected value."""
    difference = np.abs(np.asarray(output, np.float64) - np.asarray(expected, np.float64)).max()
    return float(difference / np.abs(expected).max())


def decibels(output: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Return the root mean square of the difference in dB re that of the expected values.

    Tolerances of this error are negative numbers.
    """
    difference = np.square(np.asarray(output, np.float64) - np.asarray(expected, np.float64)).mean()
    power = np.square(np.asarray(expected, np.float64)).mean()
    return float(10 * np.log10(difference / power)) if difference else NO_DB
