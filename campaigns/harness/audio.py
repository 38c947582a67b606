"""Synthetic recordings for tests and campaigns."""

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]


def instrument(
    seconds: float,
    rate: int = 16_000,
    channels: int = 1,
    *,
    formant_hz: float = 2_500.0,
    seed: int = 0,
) -> Samples:
    """Synthesise harmonic notes of 0.4 s with one formant, ``(channels, samples)``."""
    rng = np.random.default_rng(seed)
    total = round(seconds * rate)
    time = np.arange(round(0.4 * rate)) / rate
    shape = np.minimum(1, 20 * np.minimum(time, 0.4 - time)) * np.exp(-2 * time)
    pieces = []
    for _ in range(-(-total // len(time))):
        hz = 110 * 2 ** (rng.integers(0, 24) / 12) * np.arange(1, 60)
        hz = hz[hz < min(rate / 2, 8_000)]
        body = 1 / (1 + ((hz - formant_hz) / 400) ** 2) + 0.02
        partials = np.sin(2 * np.pi * hz[:, None] * time + rng.uniform(0, 6, (len(hz), 1)))
        pieces.append(shape * (body / np.sqrt(np.arange(1, len(hz) + 1)) @ partials))
    wave = np.concatenate(pieces)[:total]
    wave = 0.2 * wave / np.abs(wave).max() + 1e-4 * rng.standard_normal(total)
    spread = np.linspace(1, 0.5, channels)[:, None]
    samples: Samples = (spread * wave).astype(np.float32)
    return samples
