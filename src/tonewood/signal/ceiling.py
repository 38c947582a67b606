"""A ceiling for sound that comes in piece by piece: no sample passes it, and nothing clicks."""

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_RELEASE_DB_PER_SECOND = 20.0


class PeakLimiter:
    """Turns down at once what would pass the ceiling, by just that much, and up again slowly.

    All channels get the same gain. It needs no lookahead: the gain follows the wave itself where
    that rises past the ceiling, hence it has no steps. Samples are held, not what lies between
    them, which may be a few tenths of a dB higher. What was as loud before may stay as loud.

    Parameters
    ----------
    ceiling_db : float
        dB re full scale.
    rate : int
        Hz.
    """

    def __init__(self, ceiling_db: float, rate: int) -> None:
        self.ceiling = 10 ** (ceiling_db / 20)
        self.release_db = _RELEASE_DB_PER_SECOND / rate  # dB a sample
        self.reduction_db = 0.0

    def process(self, samples: Samples, original: Samples) -> Samples:
        """Hold sound (channels, samples), which was `original` something was done to it."""
        allowed = np.maximum(np.abs(original).max(axis=0, initial=0.0), self.ceiling)
        excess = np.abs(samples).max(axis=0, initial=0.0) / allowed
        if self.reduction_db == 0 and excess.max(initial=0.0) <= 1:
            return samples
        over = 20 * np.log10(np.maximum(excess, 1.0))
        # h(t) = max over s ≤ t of over(s) - release (t - s)
        fall = self.release_db * np.arange(1, len(over) + 1)
        held = np.maximum.accumulate(np.maximum(over + fall, self.reduction_db)) - fall
        held = np.maximum(held, 0.0)
        self.reduction_db = float(held[-1])
        gain: NDArray[np.float64] = np.power(10.0, -held / 20)
        return (samples * gain).astype(np.float32)
