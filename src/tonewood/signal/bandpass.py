"""A linear-phase band-pass: what lies outside a band is not to be touched by anybody."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, oaconvolve

STOP_DB = 100.0
FADE_OCTAVES = 1 / 3
_LEAST_HZ = 40.0  # of a fade: the 30 ms window of the masks resolves no less


def passed(
    samples: NDArray[np.float32], rate: int, low_hz: float, high_hz: float
) -> NDArray[np.float32]:
    """What samples (channels, samples) hold between two frequencies, in time with them.

    Faded inside the band over a third of an octave, or over 40 Hz where that is more; 100 dB down
    outside (Kaiser's window, 1974). An end beyond the Nyquist frequency is no end.
    """
    fade = fade_hz(low_hz, high_hz)
    cuts = [low_hz + fade / 2, high_hz - fade / 2]
    if cuts[0] >= rate / 2:
        return np.zeros_like(samples)
    if cuts[1] >= rate / 2:
        cuts.pop()
    taps = 2 * round(reach_seconds(low_hz, high_hz) * rate) + 1
    beta = 0.1102 * (STOP_DB - 8.7)
    kernel = firwin(taps, cuts, window=("kaiser", beta), pass_zero=False, fs=rate)
    made = [oaconvolve(channel.astype(np.float64), kernel, mode="full") for channel in samples]
    lag = taps // 2
    return np.array([wave[lag : lag + samples.shape[1]] for wave in made], dtype=np.float32)


def fade_hz(low_hz: float, high_hz: float) -> float:
    """Width of each fade: of the lower one, the narrower; at most half the band."""
    return min(max(low_hz * (2**FADE_OCTAVES - 1), _LEAST_HZ), (high_hz - low_hz) / 2)


def reach_seconds(low_hz: float, high_hz: float) -> float:
    """How far the band-pass reaches, either way: longer for narrower fades (Kaiser's rule)."""
    return (STOP_DB - 7.95) / (2.285 * 2 * np.pi * fade_hz(low_hz, high_hz)) / 2
