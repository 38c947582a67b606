"""Short-time Fourier analysis, and the time-varying filter that a mask is.

Frames are centred: frame k looks at the window around sample k * hop, so frame k of any rate's
analysis stands at the same time. A periodic Hann window is divided out by its squared overlap on
synthesis (Griffin & Lim 1984, eq. 6), hence an untouched spectrum returns the input exactly.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from tonewood.settings import SpectrumSettings

Floats = NDArray[np.floating[Any]]
GainField = Callable[[Floats, Floats], NDArray[np.float32]]
"""(frequencies [bin] in Hz, times [frame] in s) → gain [bin, frame] in dB."""

_BLOCK_FRAMES = 2048


def stft(wave: Tensor, settings: SpectrumSettings) -> Tensor:
    """Complex spectrum of a waveform, scaled so that a full-scale sine peaks at 1 (0 dBFS).

    Parameters
    ----------
    wave : Tensor [..., sample]
        At `settings.rate`, at least one sample.
    settings : SpectrumSettings
        Window, hop and FFT length.

    Returns
    -------
    Tensor [..., bin, frame], complex
    """
    return _stft(wave, settings.window, settings.hop, settings.fft)


def istft(spectrum: Tensor, length: int, settings: SpectrumSettings) -> Tensor:
    """Waveform [..., length] whose `stft` is closest to the spectrum [..., bin, frame]."""
    return _istft(spectrum, length, settings.window, settings.hop, settings.fft)


def log_magnitude(spectrum: Tensor, settings: SpectrumSettings) -> Tensor:
    """Magnitude in dBFS, floored at `settings.floor_db`; gradients are finite on silence too."""
    floor = 10 ** (settings.floor_db / 10)
    power = spectrum.real.square() + spectrum.imag.square()
    return 10 * torch.log10(power.clamp_min(floor))


def scaled_to(settings: SpectrumSettings, rate: int) -> tuple[int, int, int]:
    """Window, hop and FFT length in samples that analyse `rate` as `settings` does its own.

    Equal durations give equal bin spacing, so the lowest bins at any rate of at least
    `settings.rate` are the analysis that resampling would have given.
    """
    ratio = rate / settings.rate
    window, hop = round(settings.window * ratio), round(settings.hop * ratio)
    return window, hop, max(window, round(settings.fft * ratio))


def filter_length(window: int) -> int:
    """FFT length that filters need.

    The impulse response must fit beside the window, or it wraps around: twice the window.
    """
    return int(next_fast_len(2 * window, real=True))


def filtered(
    samples: NDArray[np.float32],
    rate: int,
    gain: GainField,
    settings: SpectrumSettings,
    *,
    block_frames: int = _BLOCK_FRAMES,
) -> NDArray[np.float32]:
    """Recording passed through a time-varying filter, its own phase kept (paper III).

    Worked block by block: memory beyond input and output does not grow with length, and the
    blocks' borders change nothing, because each overlaps its neighbours by a whole window.

    Parameters
    ----------
    samples : float32 array (channels, samples)
    rate : int
        Of the samples, Hz; need not be the analysis rate.
    gain : GainField
        Gain in dB wanted at (bin frequencies, frame times); the same for every channel.
    settings : SpectrumSettings
        Gives window and hop durations.
    block_frames : int
        Frames worked on at once.

    Returns
    -------
    float32 array (channels, samples), as long as the input to the sample
    """
    out = np.empty_like(samples)
    for start, block in filtered_blocks(samples, rate, gain, settings, block_frames=block_frames):
        out[:, start : start + block.shape[1]] = block
    return out


def filtered_blocks(
    samples: NDArray[np.float32],
    rate: int,
    gain: GainField,
    settings: SpectrumSettings,
    *,
    block_frames: int = _BLOCK_FRAMES,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first sample, block) of `filtered`, in order and without gaps."""
    window, hop, _ = scaled_to(settings, rate)
    fft = filter_length(window)
    hz = np.arange(fft // 2 + 1) * (rate / fft)
    # istft's edges rest on reflected padding of fft / 2; a margin past it keeps blocks exact.
    margin = -(-fft // hop) + 1
    length = samples.shape[1]
    total = length // hop + 1
    for first in range(0, total, block_frames):
        last = min(first + block_frames, total)
        lead = max(0, first - margin)
        begin = lead * hop
        end = min(length, (last + margin) * hop)
        piece = torch.from_numpy(np.ascontiguousarray(samples[:, begin:end], dtype=np.float64))
        short = max(0, fft // 2 + 1 - piece.shape[1])  # reflection needs this many samples
        spectrum = _stft(torch.nn.functional.pad(piece, (0, short)), window, hop, fft)
        times = (lead + np.arange(spectrum.shape[-1])) * (hop / rate)
        factor = np.power(10.0, gain(hz, times) / 20.0)
        spectrum *= torch.from_numpy(factor)
        wave = _istft(spectrum, piece.shape[1] + short, window, hop, fft)
        keep_from = first * hop
        keep_to = length if last == total else last * hop
        if keep_to > keep_from:
            yield keep_from, wave[:, keep_from - begin : keep_to - begin].numpy().astype(np.float32)


def _stft(wave: Tensor, window: int, hop: int, fft: int) -> Tensor:
    if fft % 2:  # torch centres an odd frame by half a sample less, and would lose the last one
        wave = torch.nn.functional.pad(wave, (0, 1))
    shape = wave.shape
    pad = "reflect" if shape[-1] > fft // 2 else "constant"
    spectrum = torch.stft(
        wave.reshape(-1, shape[-1]),
        fft,
        hop,
        window,
        _hann(window, wave),
        center=True,
        pad_mode=pad,
        return_complex=True,
    )
    # A Hann window sums to window / 2, and a sine splits between two bins' signs: window / 4.
    return spectrum.reshape(*shape[:-1], *spectrum.shape[-2:]) * (4 / window)


def _istft(spectrum: Tensor, length: int, window: int, hop: int, fft: int) -> Tensor:
    shape = spectrum.shape
    wave = torch.istft(
        spectrum.reshape(-1, *shape[-2:]) * (window / 4),
        fft,
        hop,
        window,
        _hann(window, spectrum.real),
        center=True,
        length=length,
    )
    return wave.reshape(*shape[:-2], length)


def _hann(window: int, like: Tensor) -> Tensor:
    return torch.hann_window(window, periodic=True, dtype=like.dtype, device=like.device)
