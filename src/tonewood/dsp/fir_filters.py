"""Linear-phase FIR filters: design by Kaiser's window (Kaiser 1974), and convolution without delay.

`scipy.signal` has both, but takes half a second to import, and every command that renders would wait.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tonewood.utils.arrays import FloatArray

_TAPS_PER_FFT = 8  # kernels of an eighth of the FFT leave seven eighths of it for output


def kaiser_filter_order(stopband_db: float, transition_hz: float) -> float:
    """Return the length of a filter in seconds, less one sample, by Kaiser's rule."""
    return (stopband_db - 7.95) / (2.285 * 2 * math.pi * transition_hz)


def kaiser_filter(
    taps: int, low_hz: float, high_hz: float, stopband_db: float, rate: float
) -> NDArray[np.float64]:
    """Return a symmetric kernel [tap] that passes a band; its edges are at half the amplitude.

    A band from 0 Hz is a low-pass, one up to the Nyquist frequency a high-pass. The gain is 1 in the
    middle of the band, or at its end at 0 Hz or the Nyquist frequency. The attenuation is at least 50 dB.
    """
    low, high = 2 * low_hz / rate, min(2 * high_hz / rate, 1.0)
    time = np.arange(taps) - (taps - 1) / 2
    ideal = high * np.sinc(high * time) - low * np.sinc(low * time)
    kernel = ideal * np.kaiser(taps, 0.1102 * (stopband_db - 8.7))
    middle = 0.0 if low == 0 else 1.0 if high == 1 else (low + high) / 2
    scaled: NDArray[np.float64] = kernel / (kernel @ np.cos(np.pi * middle * time))
    return scaled


def filter_without_delay(samples: FloatArray, kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return samples (channels, samples) filtered by a symmetric kernel [tap] of odd length.

    Beyond both ends there is silence.
    """
    length, taps = samples.shape[1], len(kernel)
    fft = 1 << (min(_TAPS_PER_FFT * taps, length + taps - 1) - 1).bit_length()
    hop, delay = fft - taps + 1, taps // 2
    transfer = np.fft.rfft(kernel, fft)
    filtered = np.empty(samples.shape)
    padded = np.pad(samples, ((0, 0), (delay, delay)))
    # Overlap-save: the first outputs of each block are those that the FFT wraps around.
    for start in range(0, length, hop):
        block = padded[:, start : start + fft].astype(np.float64)
        output = np.fft.irfft(np.fft.rfft(block, fft) * transfer, fft)[:, taps - 1 :]
        filtered[:, start : start + hop] = output[:, : length - start]
    return filtered
