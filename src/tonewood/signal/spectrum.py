"""Short-time Fourier analysis, and the time-varying filter that a mask is.

Frames are centred: frame k looks at the window around sample k * hop, so frame k of any rate's
analysis stands at the same time. A periodic Hann window is divided out by its squared overlap on
synthesis (Griffin & Lim 1984, eq. 6), hence an untouched spectrum returns the input exactly.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from tonewood.settings import SpectrumSettings
from tonewood.signal.blocks import Piece, overlapping
from tonewood.signal.spread import spread

Floats = NDArray[np.floating[Any]]
GainField = Callable[[Floats, Floats], NDArray[np.float32]]
"""(frequencies [bin] in Hz, times [frame] in s) → gain [bin, frame] in dB."""

BLOCK_FRAMES = 256  # a block's spectra stay in the cache: twice as fast as long ones
_NEPER = math.log(10) / 20  # a dB of amplitude, as a natural logarithm


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


def filtered(
    samples: NDArray[np.float32],
    rate: int,
    gain: GainField,
    settings: SpectrumSettings,
    *,
    block_frames: int = BLOCK_FRAMES,
) -> NDArray[np.float32]:
    """Recording passed through a time-varying filter, its own phase kept (paper III).

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
    pieces, work = _filter([samples], rate, gain, settings, block_frames)
    return np.concatenate([work(piece) for piece in pieces], axis=1)


def filtered_blocks(
    blocks: Iterable[NDArray[np.float32]],
    rate: int,
    gain: GainField,
    settings: SpectrumSettings,
    *,
    block_frames: int = BLOCK_FRAMES,
) -> Iterator[NDArray[np.float32]]:
    """`filtered` for a recording that comes, and goes, in blocks (channels, samples) of any size.

    Memory does not grow with length, and the blocks' borders change nothing, because each is
    worked on with a whole window of its neighbours; on every core.
    """
    pieces, work = _filter(blocks, rate, gain, settings, block_frames)
    return spread(work, pieces)


def _filter(
    blocks: Iterable[NDArray[np.float32]],
    rate: int,
    gain: GainField,
    settings: SpectrumSettings,
    block_frames: int,
) -> tuple[Iterator[Piece], Callable[[Piece], NDArray[np.float32]]]:
    """Pieces of a recording, and what makes each of them filtered samples."""
    window, hop, _ = scaled_to(settings, rate)
    # A filter's impulse response must fit beside the window, or it wraps around: twice the window.
    fft = next_fast_len(2 * window, real=True)
    hz = np.arange(fft // 2 + 1) * (rate / fft)
    # istft's edges rest on reflected padding of fft / 2; a margin past it keeps blocks exact.
    margin = (-(-fft // hop) + 1) * hop

    def work(piece: Piece) -> NDArray[np.float32]:
        wave = torch.from_numpy(np.ascontiguousarray(piece.samples, dtype=np.float32))
        short = max(0, fft // 2 + 1 - wave.shape[1])  # reflection needs this many samples
        spectrum = _stft(torch.nn.functional.pad(wave, (0, short)), window, hop, fft)
        times = (piece.first // hop + np.arange(spectrum.shape[-1])) * (hop / rate)
        factor = torch.from_numpy(gain(hz, times)) * _NEPER
        spectrum *= factor.exp_()
        made = _istft(spectrum, wave.shape[1] + short, window, hop, fft)
        return made[:, piece.lead : piece.lead + piece.size].numpy()

    return overlapping(blocks, block_frames * hop, margin), work


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
