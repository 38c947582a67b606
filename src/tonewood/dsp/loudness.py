"""Loudness and true peak after ITU-R BS.1770-4, of recordings that come in pieces.

A ceiling for sound that comes in piece by piece: no sample passes it, and nothing clicks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray
from pyloudnorm.iirfilter import IIRfilter
from scipy.signal import sosfilt, sosfreqz

from tonewood.dsp.chunking import Chunk, Rechunker, single_chunk
from tonewood.utils.arrays import FloatArray, Samples

_ABSOLUTE_GATE_LUFS = -70.0
_STEP_SECONDS = 0.1
_STEPS_PER_BLOCK = 4  # in one block of 400 ms
_BLOCK_SAMPLES = 1 << 18
_SETTLING_SECONDS = 0.25  # after which nothing is left of what the weighting heard
_SHELF, _HIGH_PASS = "high_shelf_DeMan", (0.5003270373253953, 38.13547087613982)  # Q and Hz


class LoudnessBlocks(NamedTuple):
    """K-weighted energy of some steps of 100 ms, and of what fills no step any more.

    Parameters
    ----------
    steps : float64 array (step,)
    remainder : float
    remainder_samples : int
        Samples of the rest.
    """

    steps: NDArray[np.float64]
    remainder: float
    remainder_samples: int


def measure_loudness_blocks(chunk: Chunk[Samples], rate: int) -> LoudnessBlocks:
    """Energies of the steps that begin within a piece (channels, samples) of a recording.

    The weighting forgets within the piece's margin what came before it; the margin, unless the
    recording ends, holds the rest of the last step.
    """
    weighting = _k_weighting_sos(rate)
    step = _step_samples(rate)
    begin = -(-chunk.core_start // step) * step - chunk.offset
    end = chunk.samples.shape[1]
    if not chunk.is_last:
        end = min(end, -(-(chunk.core_start + chunk.core_size) // step) * step - chunk.offset)
    state = np.zeros((2, chunk.samples.shape[0], 2))
    power = np.empty(end)
    for start in range(0, end, _BLOCK_SAMPLES):
        stop = min(start + _BLOCK_SAMPLES, end)
        block = chunk.samples[:, start:stop].astype(np.float64)
        weighted, state = sosfilt(weighting, block, axis=1, zi=state)
        power[start:stop] = np.einsum("cs,cs->s", weighted, weighted)
    own = power[begin:]
    full = len(own) // step * step
    steps = own[:full].reshape(-1, step).sum(axis=1)
    return LoudnessBlocks(steps, float(own[full:].sum()), len(own) - full)


def gated_loudness(parts: Sequence[LoudnessBlocks], rate: int) -> float:
    """Gated loudness of a recording, LUFS; -inf for silence.

    Ungated where all of it is below -70 LUFS; shorter than one 400 ms block, the whole is one
    block, ungated. Every channel weighs the same: recordings seldom say which of theirs are
    surrounds, and loudness is used here to compare a recording with itself.

    Parameters
    ----------
    parts : sequence of LoudnessBlocks
        Of all pieces of it, in order.
    rate : int
        Hz.
    """
    steps, step = np.concatenate([part.steps for part in parts]), _step_samples(rate)
    if len(steps) < _STEPS_PER_BLOCK:
        total = steps.sum() + sum(part.remainder for part in parts)
        return _power_to_lufs(total / (len(steps) * step + sum(part.remainder_samples for part in parts)))
    power = np.convolve(steps, np.ones(_STEPS_PER_BLOCK), "valid") / (_STEPS_PER_BLOCK * step)
    gated = power[power > 10 ** ((_ABSOLUTE_GATE_LUFS + 0.691) / 10)]
    if gated.size == 0:  # all of it below the gate: very quiet recordings have a loudness too
        return _power_to_lufs(power.mean())
    # The relative gate stands 10 LU below the mean of what passed the absolute one.
    return _power_to_lufs(gated[gated > gated.mean() / 10].mean())


class LoudnessMeter:
    """`gated_loudness` of a recording that comes in blocks; push them, then ask.

    Parameters
    ----------
    rate : int
        Hz.
    """

    def __init__(self, rate: int) -> None:
        self._rate, self._energies = rate, list[LoudnessBlocks]()
        self._pieces = Rechunker(_BLOCK_SAMPLES, round(_SETTLING_SECONDS * rate))

    def push(self, block: NDArray[np.float32]) -> None:
        """Hear more samples (channels, samples)."""
        self._energies += [measure_loudness_blocks(piece, self._rate) for piece in self._pieces.push(block)]

    def integrated(self) -> float:
        """Loudness of all that was heard, LUFS; nothing can be pushed after it."""
        self._energies += [measure_loudness_blocks(piece, self._rate) for piece in self._pieces.flush()]
        return gated_loudness(self._energies, self._rate)


def true_peak(chunk: Chunk[Samples], rate: int) -> float:
    """Highest level of a piece (channels, samples), between the samples too; 1 is full scale.

    Four times as many samples are looked at as there are, or twice from 96 kHz on (Annex 2).
    """
    factor = 4 if rate < 96_000 else 2
    channels = chunk.samples.shape[0]
    stream = soxr.ResampleStream(rate, rate * factor, channels, dtype="float32", quality="HQ")
    begin = factor * chunk.left_margin
    end = np.inf if chunk.is_last else factor * (chunk.left_margin + chunk.core_size)
    peak, at = max(float(chunk.core.max()), -float(chunk.core.min())), 0
    blocks = [
        chunk.samples[:, it : it + _BLOCK_SAMPLES] for it in range(0, chunk.samples.shape[1], _BLOCK_SAMPLES)
    ]
    # Flushing with zeros can ring past an abrupt end no more than the samples themselves do.
    blocks.append(np.zeros((channels, 0), np.float32))
    for number, block in enumerate(blocks, start=1):
        last = number == len(blocks)
        made = stream.resample_chunk(np.ascontiguousarray(block.T), last=last)
        own = made[max(0, begin - at) : int(max(0, min(end - at, len(made))))]
        peak = max(peak, float(own.max(initial=0)), -float(own.min(initial=0)))
        at += len(made)
    return peak


def integrated_loudness(samples: NDArray[np.float32], rate: int) -> float:
    """`gated_loudness` of a whole recording (channels, samples) at `rate` Hz, LUFS."""
    return gated_loudness([measure_loudness_blocks(single_chunk(samples), rate)], rate)


def k_weighting_db(hz: FloatArray) -> FloatArray:
    """K-weighting at some frequencies, dB; -180 dB at 0 Hz, of which nothing passes."""
    response = sosfreqz(_k_weighting_sos(48_000), worN=np.asarray(hz), fs=48_000)[1]
    gain: FloatArray = 20 * np.log10(np.maximum(np.abs(response), 1e-9))
    return gain


def true_peak_db(samples: NDArray[np.float32], rate: int) -> float:
    """`true_peak` of a whole recording (channels, samples) at `rate` Hz, dBTP."""
    return level_db(true_peak(single_chunk(samples), rate))


def level_db(peak: float) -> float:
    """A peak in dB re full scale; -inf for silence."""
    return 20 * float(np.log10(peak)) if peak > 0 else float("-inf")


def _step_samples(rate: int) -> int:
    return round(_STEP_SECONDS * rate)


def _k_weighting_sos(rate: int) -> FloatArray:
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


def _power_to_lufs(power: float) -> float:
    return -0.691 + 10 * float(np.log10(power)) if power > 0 else float("-inf")


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
