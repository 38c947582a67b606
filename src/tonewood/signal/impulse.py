"""Impulse responses of a curve in dB: linear-phase and minimum-phase."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import minimum_phase
from scipy.signal.windows import kaiser

from tonewood.signal.spectrum import FloatArray

Phase = Literal["linear", "minimum"]
GainCurve = Callable[[FloatArray], FloatArray]
"""Frequencies [point] in Hz → gains [point] in dB."""

_OVERSAMPLING = 8  # points of the design for every sample of the response
_KAISER_BETA = 1.0  # of Kaiser's window: more of it would blur the bass more than cutting off does


def design_impulse_response(curve: GainCurve, rate: int, length: int, phase: Phase) -> NDArray[np.float32]:
    """Response [length] whose magnitude follows a curve.

    The linear-phase one is symmetric about sample (length - 1) // 2, by which it delays; an even
    length ends with a zero. The minimum-phase one begins at once (homomorphic, by scipy).

    Parameters
    ----------
    rate : int
        Hz.
    length : int
        Samples: the longer, the finer the bass, rate / length Hz or so.
    """
    taps = length - 1 + length % 2
    fft = 1 << (_OVERSAMPLING * taps - 1).bit_length()
    hz = np.arange(fft // 2 + 1) * (rate / fft)
    centred = np.fft.irfft(10 ** (curve(hz) / 20), fft)
    half = taps // 2
    linear = np.concatenate([centred[-half:], centred[: half + 1]]) * kaiser(taps, _KAISER_BETA)
    made = linear
    if phase == "minimum":
        made = minimum_phase(linear, method="homomorphic", n_fft=fft, half=False)
    return np.pad(made, (0, length - taps)).astype(np.float32)


def magnitude_error_db(response: NDArray[np.float32], curve: GainCurve, rate: int, hz: FloatArray) -> float:
    """Largest difference in dB between a response's magnitude and a curve at some frequencies."""
    fft = 1 << (4 * max(len(response), rate // 8) - 1).bit_length()
    magnitude = np.abs(np.fft.rfft(response.astype(np.float64), fft))
    place = np.arange(len(magnitude)) * (rate / fft)
    made = np.interp(hz, place, 20 * np.log10(magnitude + 1e-12))
    return float(np.abs(made - curve(hz)).max())
