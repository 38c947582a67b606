"""One band alone: what lies outside of it is not to be touched by anybody."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, oaconvolve

from tonewood.signal.spectrum import FloatArray

AudioBlock = NDArray[np.float32]
"""Samples (channels, samples)."""

STOPBAND_DB = 100.0
FADE_OCTAVES = 1 / 3
_MIN_FADE_HZ = 40.0  # of a fade: the 30 ms window of the masks resolves no less


def restrict_to_band(original: AudioBlock, modified: AudioBlock, rate: int, low_hz: float, high_hz: float) -> AudioBlock:
    """A recording changed in one band alone: itself, and of the change what the band holds.

    The change is passed through a linear-phase band-pass, in time with the recording: faded inside
    the band over a third of an octave, or over 40 Hz where that is more; 100 dB down outside
    (Kaiser's window, 1974). An end beyond the Nyquist frequency is no end.

    Parameters
    ----------
    original, modified : Block
        The recording, and what was made of it.
    """
    kernel = _bandpass_kernel(rate, low_hz, high_hz)
    change = oaconvolve((modified - original).astype(np.float64), kernel[None], axes=1)
    change = change[:, len(kernel) // 2 :][:, : original.shape[1]]
    only: AudioBlock = original + change.astype(np.float32)
    return only


def fade_width_hz(low_hz: float, high_hz: float) -> float:
    """Width of each fade: of the lower one, the narrower; at most half the band."""
    return min(max(low_hz * (2**FADE_OCTAVES - 1), _MIN_FADE_HZ), (high_hz - low_hz) / 2)


def bandpass_reach_seconds(low_hz: float, high_hz: float) -> float:
    """How far the band-pass reaches, either way: longer for narrower fades (Kaiser's rule)."""
    return (STOPBAND_DB - 7.95) / (2.285 * 2 * np.pi * fade_width_hz(low_hz, high_hz)) / 2


def _bandpass_kernel(rate: int, low_hz: float, high_hz: float) -> FloatArray:
    fade = fade_width_hz(low_hz, high_hz)
    cuts = [low_hz + fade / 2, high_hz - fade / 2]
    taps = 2 * round(bandpass_reach_seconds(low_hz, high_hz) * rate) + 1
    if cuts[0] >= rate / 2:
        return np.zeros(taps)
    if cuts[1] >= rate / 2:
        cuts.pop()
    beta = 0.1102 * (STOPBAND_DB - 8.7)
    kernel: FloatArray = firwin(taps, cuts, window=("kaiser", beta), pass_zero=False, fs=rate)
    return kernel
