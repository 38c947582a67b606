"""How much louder masks make a recording, from its row levels alone; for streams, as it goes on."""

import math

import numpy as np
from numpy.typing import NDArray

from tonewood.signal.loudness import k_weighting_db
from tonewood.signal.spectrum import FloatArray

_PRIOR_SECONDS = 3.0


def added_loudness_db(rows_db: FloatArray, mask_db: FloatArray, row_hz: FloatArray) -> float:
    """Ungated loudness that a mask adds to a recording, both [row, frame] in dB."""
    before = rows_db + k_weighting_db(row_hz)[:, None]
    added = np.power(10.0, (before + mask_db) / 10).sum() / np.power(10.0, before / 10).sum()
    return 10 * math.log10(added)


class LoudnessFollower:
    """The loudness that masks have added so far, older frames counting less and less.

    It starts as if some seconds had been heard that gain what the source folder's takes gain, so
    that the first note is neither a jump nor a guess; silence leaves it alone. It follows what
    the masks do, not how loud the music is: dynamics are not touched.

    Parameters
    ----------
    row_hz : float64 array (row,)
    start_db : array (amount,)
        What is added at each amount, to begin with.
    amounts : sequence of float
        Rising, two.
    seconds : float
        After which a frame counts 1/e.
    hop_seconds : float
    """

    def __init__(
        self,
        row_hz: FloatArray,
        start_db: FloatArray,
        amounts: tuple[float, float],
        seconds: float,
        hop_seconds: float,
    ) -> None:
        self.amounts = np.array(amounts)
        self.start_power = np.power(10.0, np.asarray(start_db, dtype=np.float64) / 10)
        self.weighting = np.power(10.0, k_weighting_db(row_hz) / 10)
        self.decay = math.exp(-hop_seconds / seconds)
        self.prior_frames = _PRIOR_SECONDS / hop_seconds  # frames
        self.reset()

    def reset(self) -> None:
        """Forget all that was heard."""
        self.prior_weight = self.prior_frames
        self.peak_power = 0.0
        self.power_before = 0.0
        self.power_after: NDArray[np.float64] = np.zeros(2)

    def update(self, rows_db: FloatArray, mask_db: FloatArray) -> None:
        """Hear one frame's levels and its mask at amount 1, both (row,) in dB."""
        power = self.weighting * np.power(10.0, rows_db / 10)
        gains = np.power(10.0, self.amounts[:, None] * mask_db / 10)
        self.power_before = self.decay * self.power_before + power.sum()
        self.power_after = self.decay * self.power_after + gains @ power
        # What it starts from weighs as so many frames as loud as the loudest of late.
        self.peak_power = max(self.decay * self.peak_power, float(power.sum()))
        self.prior_weight *= self.decay

    def gain_db(self, amount: float) -> float:
        """Gain in dB that undoes what masks of an amount add; 0 for amount 0."""
        credit = self.prior_weight * self.peak_power or 1.0
        added = 10 * np.log10((self.power_after + credit * self.start_power) / (self.power_before + credit))
        # A parabola through no amount, no gain, and the two that are followed.
        (a, b), (at_a, at_b) = self.amounts, added / self.amounts
        slope = (at_b - at_a) / (b - a)
        return float(-amount * (at_a + slope * (amount - a)))
