"""Loudness and true peak (ITU-R BS.1770-4) of recordings that arrive in chunks, and a peak limiter."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

from tonewood.dsp.chunking import Chunk, Rechunker, single_chunk
from tonewood.utils.arrays import FloatArray, Samples

_ABSOLUTE_GATE_LUFS = -70.0
_STEP_SECONDS = 0.1
_STEPS_PER_BLOCK = 4  # a gating block lasts 400 ms
_BLOCK_SAMPLES = 1 << 18
_SETTLING_SECONDS = 0.25  # after which the K-weighting has forgotten its initial state
_SHELF_DB, _SHELF_Q, _SHELF_HZ = 3.99984385397, 0.7071752369554193, 1681.9744509555319
_HIGH_PASS_Q, _HIGH_PASS_HZ = 0.5003270373253953, 38.13547087613982
_SPAN = 64  # samples that one row of a matrix product filters: more cost more products, fewer more rows
_FILTERED_SAMPLES = 1 << 16  # filtered at once: a multiple of the span that fits the processor's cache
_NEGLIGIBLE = 1e-16
_PEAK_SEGMENT = 512  # samples
_MOST_SEGMENTS = 512  # oversampled at once
_INTERPOLATOR_REACH = 128  # samples; less than a segment
_BEND_GAIN = 0.55  # limit for the sum of the weights of second differences, which is 0.547
_LIMIT_MARGIN = 1.0002  # the interpolator reproduces straight lines to 1.1e-4 of the peak
_RELEASE_DB_PER_SECOND = 20.0


class LoudnessBlocks(NamedTuple):
    """K-weighted energy of steps [step] of 100 ms, and of the samples after the last full step."""

    steps: NDArray[np.float64]
    remainder: float
    remainder_samples: int


def measure_loudness_blocks(chunk: Chunk, rate: int) -> LoudnessBlocks:
    """Return the energies of the steps that begin in the core of a chunk (channels, samples).

    The left margin must be long enough for the weighting to settle, 0.25 s; the right one must
    hold the rest of the last step, unless the recording ends.
    """
    step = _step_samples(rate)
    begin = -(-chunk.core_start // step) * step - chunk.offset
    end = chunk.samples.shape[1]
    if not chunk.is_last:
        end = min(end, -(-(chunk.core_start + chunk.core_size) // step) * step - chunk.offset)
    power = np.zeros(end)
    if chunk.samples.any():  # recorders leave hours of digital silence
        weighting = _KWeightingFilter(rate, chunk.samples.shape[0])
        for start in range(0, end, _FILTERED_SAMPLES):
            stop = min(start + _FILTERED_SAMPLES, end)
            weighted = weighting.process(chunk.samples[:, start:stop])
            power[start:stop] = np.square(weighted, out=weighted).sum(axis=0)
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


def true_peak(chunk: Chunk, rate: int) -> float:
    """Return the peak of a chunk's core (channels, samples) between samples too; 1 is full scale.

    Oversampled four times, twice from 96 kHz on (Annex 2). Only segments that may hold the peak
    are oversampled; the result is that of oversampling all of them.
    """
    peak = max(float(chunk.core.max()), -float(chunk.core.min()))
    if peak == 0 and not chunk.samples.any():
        return peak
    limits, factor = _true_peak_limits(chunk.samples), 4 if rate < 96_000 else 2
    # The segment with the highest limit raises the peak, which leaves few others.
    top = int(limits.argmax())
    peak = max(peak, _oversampled_peak(chunk, top, top, factor))
    candidates = np.flatnonzero(limits > peak)
    is_new_run = (np.diff(candidates) > 1) | (candidates[1:] % _MOST_SEGMENTS == 0)
    for run in np.split(candidates, np.flatnonzero(is_new_run) + 1):
        if limits[run].max(initial=0) > peak:
            peak = max(peak, _oversampled_peak(chunk, int(run[0]), int(run[-1]), factor))
    return peak


def _true_peak_limits(samples: Samples) -> FloatArray:
    """Return the largest possible true peak [segment] of each segment of samples (channels, samples).

    Both the interpolator and linear interpolation reproduce straight lines. So they differ by a
    weighted sum of second differences, whose weights are the interpolator's taps minus those of
    linear interpolation, summed twice.
    """
    # Beyond both ends there is silence, and the first and last samples bend towards it.
    bends = np.diff(np.pad(samples, ((0, 0), (2, 2))), n=2, axis=1)
    starts = np.arange(0, samples.shape[1], _PEAK_SEGMENT)

    def nearby_peaks(values: Samples) -> FloatArray:
        high, low = np.maximum.reduceat(values, starts, axis=1), np.minimum.reduceat(values, starts, axis=1)
        peaks: Samples = np.pad(np.maximum(high, -low).max(axis=0), 1)
        # The interpolator reaches into both neighbours.
        return np.maximum(np.maximum(peaks[:-2], peaks[2:]), peaks[1:-1])

    return (nearby_peaks(samples) + _BEND_GAIN * nearby_peaks(bends)) * _LIMIT_MARGIN


def _oversampled_peak(chunk: Chunk, first_segment: int, last_segment: int, factor: int) -> float:
    """Return the oversampled peak of those samples of some segments that lie in the core."""
    start = max(first_segment * _PEAK_SEGMENT, chunk.left_margin)
    stop = min((last_segment + 1) * _PEAK_SEGMENT, chunk.left_margin + chunk.core_size)
    if start >= stop:
        return 0.0
    first = max(0, start - _INTERPOLATOR_REACH)
    samples = np.ascontiguousarray(chunk.samples[:, first : stop + _INTERPOLATOR_REACH].T)
    output = soxr.resample(samples, 1, factor, quality="HQ")
    inside = output[factor * (start - first) : factor * (stop - first)]
    return max(float(inside.max()), -float(inside.min()))


def integrated_loudness(samples: Samples, rate: int) -> float:
    """Return the `gated_loudness` of a whole recording (channels, samples) in LUFS."""
    return gated_loudness([measure_loudness_blocks(single_chunk(samples), rate)], rate)


def true_peak_db(samples: Samples, rate: int) -> float:
    """Return the `true_peak` of a whole recording (channels, samples) in dBTP."""
    return level_db(true_peak(single_chunk(samples), rate))


def k_weighting_db(hz: FloatArray) -> FloatArray:
    """Return the K-weighting at some frequencies in dB; -180 dB at 0 Hz."""
    z = np.exp(-2j * np.pi * np.asarray(hz) / 48_000)
    # z is the inverse of the usual z, so the coefficients ascend in it; polyval wants them to descend.
    stages = [np.polyval(row[2::-1], z) / np.polyval(row[:2:-1], z) for row in _k_weighting_sos(48_000)]
    response = stages[0] * stages[1]
    gain: FloatArray = 20 * np.log10(np.maximum(np.abs(response), 1e-9))
    return gain


def level_db(peak: float) -> float:
    """Convert a peak to dB re full scale; -inf for silence."""
    return 20 * float(np.log10(peak)) if peak > 0 else float("-inf")


def _step_samples(rate: int) -> int:
    return round(_STEP_SECONDS * rate)


def _k_weighting_sos(rate: int) -> FloatArray:
    """Return both stages [stage, coefficient]: b0, b1, b2, a0, a1, a2, with a0 = 1.

    At 48 kHz they are those of the standard's tables; other rates have the same analogue filters by
    the bilinear transform (De Man, "Evaluation of Implementations of the EBU R128 Loudness
    Measurement", 2018, for the shelf; *Audio EQ Cookbook* for the high-pass).
    """
    k = np.tan(np.pi * _SHELF_HZ / rate)
    high = 10 ** (_SHELF_DB / 20)
    middle, damping = high**0.499666774155, k / _SHELF_Q
    b = np.array([high + middle * damping + k * k, 2 * (k * k - high), high - middle * damping + k * k])
    a = np.array([1 + damping + k * k, 2 * (k * k - 1), 1 - damping + k * k])
    numerator, denominator = _high_pass(rate)
    # The standard's numerator is 1, -2, 1, which adds 0.04 dB to the passband at 48 kHz; the same
    # factor applies at every rate.
    lift = 1 / _high_pass(48_000)[0][0]
    return np.array([[*(b / a[0]), *(a / a[0])], [*(lift * numerator), *denominator]])


def _high_pass(rate: int) -> tuple[FloatArray, FloatArray]:
    """Return numerator and denominator [3] of the high-pass with a passband of 0 dB."""
    w = 2 * np.pi * _HIGH_PASS_HZ / rate
    cos, alpha = np.cos(w), np.sin(w) / (2 * _HIGH_PASS_Q)
    b, a = (1 + cos) / 2 * np.array([1, -2, 1]), np.array([1 + alpha, -2 * cos, 1 - alpha])
    return b / a[0], a / a[0]


class _SpanMatrices(NamedTuple):
    """K-weighting of one span as matrix products.

    The input x [sample] is the difference of each sample from the one before it, and s [state] the
    state at the start. Then x @ forced + s @ free is the output, and drive @ x + carries[0] @ s the
    state at the end; carries[k] is the same over 2^k spans, as long as the filter remembers.
    """

    forced: NDArray[np.float64]  # [sample, sample]
    free: NDArray[np.float64]  # [state, sample]
    drive: NDArray[np.float64]  # [state, sample]
    carries: tuple[NDArray[np.float64], ...]  # [state, state]


@cache
def _span_matrices(rate: int) -> _SpanMatrices:
    """Return the matrices at a rate, by filtering every unit sample and every unit state."""
    signal = np.eye(_SPAN + 4, _SPAN)
    states = np.eye(_SPAN + 4, 4, -_SPAN)
    for (b0, b1, b2, _, a1, a2), state in zip(
        _differenced_sos(rate), np.split(states, 2, axis=1), strict=True
    ):
        for x in signal.T:  # transposed direct form II
            y = b0 * x + state[:, 0]
            state[:, 0] = b1 * x - a1 * y + state[:, 1]
            state[:, 1] = b2 * x - a2 * y
            x[:] = y
    # States of the direct form are large and cancel one another; those of an orthonormal basis do not.
    free, basis = np.linalg.qr(signal[_SPAN:].T)
    drive, carry = np.split(basis @ states.T, [_SPAN], axis=1)
    carries = [carry @ np.linalg.inv(basis)]
    while np.abs(carries[-1]).max() > _NEGLIGIBLE:
        carries.append(carries[-1] @ carries[-1])
    return _SpanMatrices(signal[:_SPAN], free.T, drive, tuple(carries[:-1]))


def _differenced_sos(rate: int) -> FloatArray:
    """Return the stages [stage, coefficient] whose input is the difference of successive samples."""
    sos = _k_weighting_sos(rate)
    sos[1, :3] = sos[1, 0] * np.array([1, -1, 0])  # 1, -2, 1 is 1, -1 twice, and one is the difference
    return sos


class _KWeightingFilter:
    """K-weighting of audio that arrives in blocks, without a loop over samples.

    The input of the matrices is the difference of successive samples, so that a constant or slow part
    of the signal, which the weighting removes, leaves no rounding errors.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._matrices = _span_matrices(rate)
        self._state: FloatArray = np.zeros((channels, 4))
        self._last: FloatArray = np.zeros((channels, 1))

    def process(self, samples: Samples) -> FloatArray:
        """Return the weighted samples (channels, samples).

        All blocks but the last must be whole spans.
        """
        channels, count = samples.shape
        change = np.zeros((channels, -(-count // _SPAN) * _SPAN))
        change[:, :1] = samples[:, :1] - self._last
        np.subtract(samples[:, 1:], samples[:, :-1], out=change[:, 1:count], dtype=np.float64)
        spans = change.reshape(channels, -1, _SPAN)
        states = self._states(spans)
        weighted: FloatArray = spans @ self._matrices.forced
        weighted += states[..., :-1].transpose(0, 2, 1) @ self._matrices.free
        self._last, self._state = samples[:, -1:].astype(np.float64), states[..., -1]
        return weighted.reshape(channels, -1)[:, :count]

    def _states(self, spans: FloatArray) -> FloatArray:
        """Return the states [channel, state, span] at the start of each span and the end of the last."""
        # Spans are the last axis, because products with small matrices are fast on long rows.
        drive = self._matrices.drive @ spans.transpose(0, 2, 1)
        states = np.concatenate([self._state[..., None], drive], axis=2)
        # Each pass doubles the number of earlier spans whose input a state contains.
        for power, carry in enumerate(self._matrices.carries):
            states[..., 1 << power :] += carry @ states[..., : -(1 << power)]
        return states


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
