"""Loudness and true peak after ITU-R BS.1770-4."""

import numpy as np
import soxr
from numpy.typing import NDArray
from pyloudnorm.iirfilter import IIRfilter
from scipy.signal import freqz, lfilter

from tonewood.signal.spectrum import Floats

_ABSOLUTE_GATE = -70.0
_BLOCK_SECONDS, _STEP_SECONDS = 0.4, 0.1


def integrated_loudness(samples: NDArray[np.float32], rate: int) -> float:
    """Gated loudness in LUFS; -inf for silence, ungated where all of it is below -70 LUFS.

    Every channel weighs the same: recordings seldom say which of theirs are surrounds, and
    loudness is used here to compare a recording with itself. Shorter than one 400 ms block,
    the whole is one block, ungated.

    Parameters
    ----------
    samples : array (channels, samples)
    rate : int
        Hz.
    """
    # pyloudnorm's own K-weighting filters; its meter stops at five channels and at 400 ms.
    shelf, high_pass = _k_weighting(rate)
    block, step = round(_BLOCK_SECONDS * rate), round(_STEP_SECONDS * rate)
    energy: NDArray[np.float64] = np.zeros(samples.shape[1] + 1)
    for channel in samples:
        weighted = lfilter(shelf.b, shelf.a, channel.astype(np.float64))
        weighted = lfilter(high_pass.b, high_pass.a, weighted)
        energy[1:] += np.square(weighted)
    np.cumsum(energy, out=energy)
    if samples.shape[1] < block:
        return _lufs(energy[-1] / samples.shape[1])
    starts = np.arange(0, samples.shape[1] - block + 1, step)
    power = (energy[starts + block] - energy[starts]) / block
    gated = power[power > 10 ** ((_ABSOLUTE_GATE + 0.691) / 10)]
    if gated.size == 0:  # all of it below the gate: very quiet recordings have a loudness too
        return _lufs(power.mean())
    power = gated
    # The relative gate stands 10 LU below the mean of what passed the absolute one.
    return _lufs(power[power > power.mean() / 10].mean())


def weighting_db(hz: Floats) -> Floats:
    """K-weighting at some frequencies, dB."""
    rate = 48_000
    response = [freqz(f.b, f.a, worN=np.asarray(hz), fs=rate)[1] for f in _k_weighting(rate)]
    gain: Floats = 20 * np.log10(np.abs(response[0] * response[1]))
    return gain


def true_peak_db(samples: NDArray[np.float32], rate: int) -> float:
    """Highest level between the samples too, dBTP; -inf for silence (Annex 2, 4 × below 96 kHz)."""
    factor = 4 if rate < 96_000 else 2
    peak = 0.0
    for channel in samples:
        # Flushing with zeros can ring past an abrupt end no more than the samples themselves do.
        stream = soxr.ResampleStream(rate, rate * factor, 1, dtype="float32", quality="HQ")
        for start in range(0, channel.shape[0], 1 << 18):
            piece = channel[start : start + (1 << 18)]
            over = stream.resample_chunk(piece, last=start + piece.shape[0] >= channel.shape[0])
            peak = max(peak, float(np.abs(over).max(initial=0.0)), float(np.abs(piece).max()))
    return 20 * float(np.log10(peak)) if peak > 0 else float("-inf")


def _k_weighting(rate: int) -> tuple[IIRfilter, IIRfilter]:
    shelf = IIRfilter(4.0, 1 / np.sqrt(2), 1500.0, rate, "high_shelf")
    return shelf, IIRfilter(0.0, 0.5, 38.0, rate, "high_pass")


def _lufs(power: float) -> float:
    return -0.691 + 10 * float(np.log10(power)) if power > 0 else float("-inf")
