"""Fixtures that every test may use."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

Samples = npt.NDArray[np.float32]


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded source of randomness."""
    return np.random.default_rng(20240229)


@pytest.fixture
def tone() -> Callable[..., Samples]:
    """Factory of sines, ``(channels, samples)``; each channel an octave above the last."""

    def make(
        seconds: float = 0.5,
        rate: int = 44_100,
        channels: int = 1,
        frequency: float = 110.0,
        amplitude: float = 0.5,
    ) -> Samples:
        time = np.arange(round(seconds * rate)) / rate
        octaves = frequency * 2.0 ** np.arange(channels)
        waves = amplitude * np.sin(2 * np.pi * octaves[:, None] * time)
        return waves.astype(np.float32)

    return make
