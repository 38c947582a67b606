"""Loudness and true peak (ITU-R BS.1770-4) of recordings that arrive in chunks, and a peak limiter."""

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
_STEPS_PER_BLOCK = 4  # a gating block lasts 400 ms
_BLOCK_SAMPLES = 1 << 18
_SETTLING_SECONDS = 0.25  # after which the K-weighting has forgotten its initial state
_SHELF, _HIGH_PASS = "high_shelf_DeMan", (0.5003270373253953, 38.13547087613982)  # Q and Hz
_RELEASE_DB_PER_SECOND = 20.0


class LoudnessBlocks(NamedTuple):
    """K-weighted energy of steps [step] of 100 ms, and of the samples after the last full step."""

    steps: NDArray[np.float64]
    remainder: float
    remainder_samples: int


def measure_loudness_blocks(chunk: Chunk[Samples], rate: int) -> LoudnessBlocks:
    """Return the energies of the steps that begin in the core of a chunk (channels, samples).

    The left margin must be long enough for the weighting to settle, 0.25 s; the right one must
    hold the rest of the last step, unless the recording ends.
    """
    weighting = _k_weighting_sos(rate)
    step = _step_samples(rate)
    begin = -(-chunk.core_start // step) * step - chunk.offset
    end = chunk.samples.shape[1]
    if not chunk.is_last:
        end = min(end, -(-(chunk.core_start + chunk.core_size) // step) * step - chunk.offset)
    state = np.zeros((2, chunk.samples.shape[0], 2))
    power = np.empty(end)
    # Double precision in blocks: a whole chunk of doubles would be the largest array of an analysis.
    for start in range(0, end, _BLOCK_SAMPLES):
        stop = min(start + _BLOCK_SAMPLES, end)
        block = chunk.samples[:, start:stop].astype(np.float64)
        weighted, state = sosfilt(weighting, block, axis=1, zi=state)
        power[start:stop] = np.einsum("cs,cs->s", weighted, weighted)
    power = power[begin:]
    full = len(power) // step * step
    steps = power[:full].reshape(-1, step).sum(axis=1)
    return LoudnessBlocks(steps, float(power[full:].sum()), len(power) - full)


def gated_loudness(parts: Sequence[LoudnessBlocks], rate: int) -> float:
    """Return the gated loudness in LUFS of a recording's chunks, in order; -inf for silence.

    There is no gate where everything is below -70 LUFS, or shorter than a block of 400 ms. Every
    channel has the same weight: recordings seldom say which channels are surrounds, and loudness
    is used here to compare a recording with itself.
    """
    steps, step = np.concatenate([part.steps for part in parts]), _step_samples(rate)
    if len(steps) < _STEPS_PER_BLOCK:
        total = steps.sum() + sum(part.remainder for part in parts)
        return _power_to_lufs(total / (len(steps) * step + sum(part.remainder_samples for part in parts)))
    power = np.convolve(steps, np.ones(_STEPS_PER_BLOCK), "valid") / (_STEPS_PER_BLOCK * step)
    gated = power[power > 10 ** ((_ABSOLUTE_GATE_LUFS + 0.691) / 10)]
    if gated.size == 0:  # very quiet recordings have a loudness too
        return _power_to_lufs(power.mean())
    # The relative gate is 10 LU below the mean of the blocks that passed the absolute one.
    return _power_to_lufs(gated[gated > gated.mean() / 10].mean())


class LoudnessMeter:
    """Loudness of a recording that arrives in blocks."""

    def __init__(self, rate: int) -> None:
        self._rate, self._parts = rate, list[LoudnessBlocks]()
        self._rechunker = Rechunker(_BLOCK_SAMPLES, round(_SETTLING_SECONDS * rate))

    def push(self, block: Samples) -> None:
        """Add samples (channels, samples)."""
        self._parts += [measure_loudness_blocks(chunk, self._rate) for chunk in self._rechunker.push(block)]

    def integrated(self) -> float:
        """Return the loudness of all samples in LUFS; no more can be pushed afterwards."""
        self._parts += [measure_loudness_blocks(chunk, self._rate) for chunk in self._rechunker.flush()]
        return gated_loudness(self._parts, self._rate)


def true_peak(chunk: Chunk[Samples], rate: int) -> float:
    """Return the peak of a chunk's core (channels, samples) between samples too; 1 is full scale.

    Oversampled four times, twice from 96 kHz on (Annex 2).
    """
    factor = 4 if rate < 96_000 else 2
    channels = chunk.samples.shape[0]
    resampler = soxr.ResampleStream(rate, rate * factor, channels, dtype="float32", quality="HQ")
    begin = factor * chunk.left_margin
    end = np.inf if chunk.is_last else factor * (chunk.left_margin + chunk.core_size)
    peak, position = max(float(chunk.core.max()), -float(chunk.core.min())), 0
    starts = range(0, chunk.samples.shape[1], _BLOCK_SAMPLES)
    blocks = [chunk.samples[:, start : start + _BLOCK_SAMPLES] for start in starts]
    # Flushing feeds zeros; after an abrupt end they ring no higher than the samples do.
    blocks.append(np.zeros((channels, 0), np.float32))
    for number, block in enumerate(blocks, start=1):
        output = resampler.resample_chunk(np.ascontiguousarray(block.T), last=number == len(blocks))
        inside = output[max(0, begin - position) : int(max(0, min(end - position, len(output))))]
        peak = max(peak, float(inside.max(initial=0)), -float(inside.min(initial=0)))
        position += len(output)
    return peak


def integrated_loudness(samples: Samples, rate: int) -> float:
    """Return the `gated_loudness` of a whole recording (channels, samples) in LUFS."""
    return gated_loudness([measure_loudness_blocks(single_chunk(samples), rate)], rate)


def true_peak_db(samples: Samples, rate: int) -> float:
    """Return the `true_peak` of a whole recording (channels, samples) in dBTP."""
    return level_db(true_peak(single_chunk(samples), rate))


def k_weighting_db(hz: FloatArray) -> FloatArray:
    """Return the K-weighting at some frequencies in dB; -180 dB at 0 Hz."""
    response = sosfreqz(_k_weighting_sos(48_000), worN=np.asarray(hz), fs=48_000)[1]
    gain: FloatArray = 20 * np.log10(np.maximum(np.abs(response), 1e-9))
    return gain


def level_db(peak: float) -> float:
    """Convert a peak to dB re full scale; -inf for silence."""
    return 20 * float(np.log10(peak)) if peak > 0 else float("-inf")


def _step_samples(rate: int) -> int:
    return round(_STEP_SECONDS * rate)


def _k_weighting_sos(rate: int) -> FloatArray:
    """Return both stages [stage, coefficient] for `sosfilt`."""
    # pyloudnorm's own meter is limited to five channels and to 400 ms and more. At 48 kHz the
    # coefficients are those of the standard's tables (De Man 2018); other rates have the same
    # analogue filters by the bilinear transform.
    shelf = IIRfilter(3.99984385397, 0.7071752369554193, 1681.9744509555319, rate, _SHELF)
    high = IIRfilter(0.0, *_HIGH_PASS, rate, "high_pass")
    # The standard's numerator is 1, -2, 1, which adds 0.04 dB to the passband at 48 kHz; the same
    # factor applies at every rate.
    lift = 1 / IIRfilter(0.0, *_HIGH_PASS, 48_000, "high_pass").b[0]
    return np.array([[*shelf.b, *shelf.a], [*(lift * high.b), *high.a]])


def _power_to_lufs(power: float) -> float:
    return -0.691 + 10 * float(np.log10(power)) if power > 0 else float("-inf")


class PeakLimiter:
    """Limiter without lookahead: instant attack, slow release, the same gain for all channels.

    The gain follows the waveform itself where that exceeds the ceiling, hence it has no steps.
    Peaks between samples are not limited; they may be a few tenths of a dB higher. Samples that
    were above the ceiling before processing may stay as loud as they were. The ceiling is in dB re
    full scale.
    """

    def __init__(self, ceiling_db: float, rate: int) -> None:
        self.ceiling = 10 ** (ceiling_db / 20)
        self.release_db = _RELEASE_DB_PER_SECOND / rate  # per sample
        self.reduction_db = 0.0

    def process(self, samples: Samples, original: Samples) -> Samples:
        """Limit samples (channels, samples); `original` are the same before any processing."""
        allowed = np.maximum(np.abs(original).max(axis=0, initial=0.0), self.ceiling)
        excess = np.abs(samples).max(axis=0, initial=0.0) / allowed
        if self.reduction_db == 0 and excess.max(initial=0.0) <= 1:
            return samples
        over = 20 * np.log10(np.maximum(excess, 1.0))
        # reduction(t) = max over s ≤ t of over(s) - release (t - s), as one running maximum
        fall = self.release_db * np.arange(1, len(over) + 1)
        reduction = np.maximum.accumulate(np.maximum(over + fall, self.reduction_db)) - fall
        reduction = np.maximum(reduction, 0.0)
        self.reduction_db = float(reduction[-1])
        gain: NDArray[np.float64] = np.power(10.0, -reduction / 20)
        return (samples * gain).astype(np.float32)
