"""The limiter holds new peaks, releases at its rate, and leaves peaks of the original."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tonewood.dsp.loudness import _RELEASE_DB_PER_SECOND, PeakLimiter

RATE = 1_000
LIMIT = 10 ** (-1 / 20)


Samples = NDArray[np.float32]


def over_db(samples: Samples, before: Samples) -> NDArray[np.float64]:
    """Excess over the allowed level in dB, by sample."""
    allowed = np.maximum(np.abs(before).max(axis=0), LIMIT)
    over: NDArray[np.float64] = 20 * np.log10(np.abs(samples).max(axis=0, initial=1e-9) / allowed)
    return over.clip(0)


@pytest.mark.parametrize("size", [1, 7, 100, 4_000])
def test_reduction_is_the_largest_excess_minus_release(size: int) -> None:
    rng = np.random.default_rng(1)
    before = rng.uniform(-0.4, 0.4, (2, 4_000)).astype(np.float32)
    samples = before.copy()
    for begin, gain in ((300, 8), (310, 20), (1_200, 5), (2_500, 12)):
        samples[:, begin : begin + 40] *= gain
    over = over_db(samples, before)
    at = np.arange(4_000)
    fallen = over[None] - _RELEASE_DB_PER_SECOND / RATE * (at[:, None] - at[None])
    reduction_db = np.where(at[None] <= at[:, None], fallen, 0).max(axis=1).clip(0)
    limiter = PeakLimiter(-1.0, RATE)
    parts = [
        limiter.process(samples[:, k : k + size], before[:, k : k + size]) for k in range(0, 4_000, size)
    ]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), samples * 10 ** (-reduction_db / 20), rtol=1e-5)
    assert reduction_db.max() > 6
    assert reduction_db[-1] < reduction_db.max()


def test_output_exceeds_neither_ceiling_nor_original() -> None:
    rng = np.random.default_rng(2)
    before = rng.uniform(-1.5, 1.5, (1, 2_000)).astype(np.float32)
    samples = before * rng.uniform(0.1, 9, 2_000).astype(np.float32)
    limited = PeakLimiter(-1.0, RATE).process(samples, before)
    assert over_db(limited, before).max() < 1e-5


def test_samples_below_the_original_are_unchanged() -> None:
    before = np.full((2, 100), 2.0, np.float32)
    samples = np.full((2, 100), 1.9, np.float32)
    assert PeakLimiter(-1.0, RATE).process(samples, before) is samples
