"""Loudness and true peak after ITU-R BS.1770-4, of recordings that come in blocks."""

import numpy as np
import soxr
from numpy.typing import NDArray
from pyloudnorm.iirfilter import IIRfilter
from scipy.signal import sosfilt, sosfreqz

from tonewood.signal.spectrum import Floats

_ABSOLUTE_GATE = -70.0
_STEP_SECONDS = 0.1
_STEPS = 4  # in one block of 400 ms
_PIECE = 1 << 18
_SHELF, _HIGH_PASS = "high_shelf_DeMan", (0.5003270373253953, 38.13547087613982)  # Q and Hz


class Loudness:
    """Gated loudness; push blocks, then ask.

    Every channel weighs the same: recordings seldom say which of theirs are surrounds, and
    loudness is used here to compare a recording with itself.

    Parameters
    ----------
    rate : int
        Hz.
    channels : int
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._weighting = _k_weighting(rate)
        self._state = np.zeros((2, channels, 2))
        self._step = round(_STEP_SECONDS * rate)
        self._rest: NDArray[np.float64] = np.zeros(0)  # power of samples that fill no step yet
        self._steps: list[NDArray[np.float64]] = []  # energy of each step

    def push(self, block: NDArray[np.float32]) -> None:
        """Hear more samples (channels, samples)."""
        weighted, self._state = sosfilt(
            self._weighting, block.astype(np.float64), axis=1, zi=self._state
        )
        power = np.concatenate([self._rest, np.einsum("cs,cs->s", weighted, weighted)])
        whole = len(power) // self._step * self._step
        self._steps.append(power[:whole].reshape(-1, self._step).sum(axis=1))
        self._rest = power[whole:]

    def integrated(self) -> float:
        """Loudness of all that was heard, LUFS; -inf for silence.

        Ungated where all of it is below -70 LUFS; shorter than one 400 ms block, the whole is one
        block, ungated.
        """
        steps = np.concatenate([np.zeros(0), *self._steps])
        if len(steps) < _STEPS:
            total = steps.sum() + self._rest.sum()
            return _lufs(total / (len(steps) * self._step + len(self._rest)))
        power = np.convolve(steps, np.ones(_STEPS), "valid") / (_STEPS * self._step)
        gated = power[power > 10 ** ((_ABSOLUTE_GATE + 0.691) / 10)]
        if gated.size == 0:  # all of it below the gate: very quiet recordings have a loudness too
            return _lufs(power.mean())
        # The relative gate stands 10 LU below the mean of what passed the absolute one.
        return _lufs(gated[gated > gated.mean() / 10].mean())


class TruePeak:
    """Highest level between the samples too (Annex 2, 4 × below 96 kHz); push blocks, then ask.

    Parameters
    ----------
    rate : int
        Hz.
    channels : int
    """

    def __init__(self, rate: int, channels: int) -> None:
        factor = 4 if rate < 96_000 else 2
        self._stream = soxr.ResampleStream(
            rate, rate * factor, channels, dtype="float32", quality="HQ"
        )
        self._channels, self._peak = channels, 0.0

    def push(self, block: NDArray[np.float32]) -> None:
        """Hear more samples (channels, samples)."""
        for start in range(0, block.shape[1], _PIECE):
            piece = block[:, start : start + _PIECE]
            self._hear(piece, self._stream.resample_chunk(np.ascontiguousarray(piece.T)))

    def level_db(self) -> float:
        """Peak of all that was heard, dBTP; -inf for silence. Nothing can be pushed after it."""
        # Flushing with zeros can ring past an abrupt end no more than the samples themselves do.
        rest = np.zeros((0, self._channels), np.float32)
        self._hear(rest, self._stream.resample_chunk(rest, last=True))
        return 20 * float(np.log10(self._peak)) if self._peak > 0 else float("-inf")

    def _hear(self, *signals: NDArray[np.float32]) -> None:
        for signal in signals:
            self._peak = max(
                self._peak, float(signal.max(initial=0)), -float(signal.min(initial=0))
            )


def integrated_loudness(samples: NDArray[np.float32], rate: int) -> float:
    """`Loudness` of a whole recording (channels, samples) at `rate` Hz, LUFS."""
    meter = Loudness(rate, samples.shape[0])
    for start in range(0, samples.shape[1], _PIECE):
        meter.push(samples[:, start : start + _PIECE])
    return meter.integrated()


def weighting_db(hz: Floats) -> Floats:
    """K-weighting at some frequencies, dB; -180 dB at 0 Hz, of which nothing passes."""
    response = sosfreqz(_k_weighting(48_000), worN=np.asarray(hz), fs=48_000)[1]
    gain: Floats = 20 * np.log10(np.maximum(np.abs(response), 1e-9))
    return gain


def true_peak_db(samples: NDArray[np.float32], rate: int) -> float:
    """`TruePeak` of a whole recording (channels, samples) at `rate` Hz, dBTP."""
    meter = TruePeak(rate, samples.shape[0])
    meter.push(samples)
    return meter.level_db()


def _k_weighting(rate: int) -> Floats:
    """Both stages [stage, coefficient] as `sosfilt` takes them.

    At 48 kHz they are those of the standard's tables (De Man 2018), and at other rates the same
    analogue filters by the bilinear transform. pyloudnorm's meter stops at five channels and at
    400 ms.
    """
    shelf = IIRfilter(3.99984385397, 0.7071752369554193, 1681.9744509555319, rate, _SHELF)
    high = IIRfilter(0.0, *_HIGH_PASS, rate, "high_pass")
    # The standard's numerator is 1, -2, 1, which lifts all that passes by 0.04 dB at 48 kHz, hence
    # by as much at every rate.
    lift = 1 / IIRfilter(0.0, *_HIGH_PASS, 48_000, "high_pass").b[0]
    return np.array([[*shelf.b, *shelf.a], [*(lift * high.b), *high.a]])


def _lufs(power: float) -> float:
    return -0.691 + 10 * float(np.log10(power)) if power > 0 else float("-inf")
