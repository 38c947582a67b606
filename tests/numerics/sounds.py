"""What laws are tried on: notes, noise, and a recording; and the models that they are asked of."""

from functools import cache
from pathlib import Path
from typing import Unpack

import numpy as np
import soundfile
from hypothesis import strategies as st
from numpy.typing import NDArray

import tonewood
from tonewood.enhancement.pipeline import Enhancement
from tonewood.enhancement.pipeline import enhance_array as enhancing
from tonewood.model.model import Model
from tonewood.setting_types import EnhanceChanges
from tonewood.settings import EnhanceSettings

Samples = NDArray[np.float32]
Array = NDArray[np.float64]

NO_DB = -400.0  # where there is no difference
MODELS = ("cello", "soundfont-cello")
NAMES = st.sampled_from(MODELS)
# Whatever it holds; the certificate's control decides nothing.
FORCED = EnhanceSettings(force=True).replace(certificate=dict(control_steps=0))
_EXAMPLE = Path(tonewood.__file__).parent / "bundled" / "example.flac"


@cache
def bundled(name: str) -> Model:
    """A model that comes with Tonewood."""
    return tonewood.load(name)


@cache
def recording(seconds: float, rate: int = 44_100, first: float = 0.0) -> Samples:
    """A passage (1, samples) of the example that comes with Tonewood."""
    samples, own = soundfile.read(_EXAMPLE, dtype="float32", always_2d=True)
    assert own == rate == 44_100
    made: Samples = samples.T[:, round(first * rate) : round((first + seconds) * rate)].copy()
    return made


def notes(seed: int, seconds: float, rate: int = 16_000, channels: int = 1) -> Samples:
    """Bowed notes of 0.3 s with partials, vibrato and some noise, (channels, samples)."""
    rng = np.random.default_rng(seed)
    total = round(seconds * rate)
    time = np.arange(total) / rate
    which = (time // 0.3).astype(int)
    hz = 98 * 2 ** (rng.integers(0, 24, which.max() + 1) / 12)
    phase = np.cumsum(hz[which] * (1 + 0.003 * np.sin(2 * np.pi * 5.5 * time))) / rate
    swell = np.sin(np.pi * (time % 0.3) / 0.3) ** 0.5
    wave = np.zeros((channels, total))
    for k in range(1, 30):
        heard = hz[which] * k < min(rate / 2, 8_000)
        loud = rng.uniform(0.2, 1, (channels, 1)) / k
        wave += loud * heard * np.sin(2 * np.pi * k * phase + rng.uniform(0, 6, (channels, 1)))
    wave = swell * wave + 0.01 * rng.standard_normal((channels, total))
    made: Samples = (0.1 * wave).astype(np.float32)
    return made


def noise(seed: int, shape: tuple[int, ...], amplitude: float = 0.1) -> Samples:
    """White noise."""
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return (amplitude * drawn).astype(np.float32)


def enhanced(
    wave: Samples, rate: int, model: str = "cello", **changes: Unpack[EnhanceChanges]
) -> Enhancement:
    """What Tonewood makes of a recording of any length, whatever it holds."""
    *_, last = enhancing(wave, rate, bundled(model), FORCED.replace(**changes))
    assert isinstance(last, Enhancement)
    return last


def relative(made: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """Largest difference, relative to the largest value that was wanted."""
    apart = np.abs(np.asarray(made, np.float64) - np.asarray(wanted, np.float64)).max()
    return float(apart / np.abs(wanted).max())


def decibels(made: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """Root mean square of the difference, dB re that of what was wanted.

    As an error it is to lie below a negative number.
    """
    apart = np.square(np.asarray(made, np.float64) - np.asarray(wanted, np.float64)).mean()
    power = np.square(np.asarray(wanted, np.float64)).mean()
    return float(10 * np.log10(apart / power)) if apart else NO_DB
