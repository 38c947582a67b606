"""Short-time Fourier analysis, and the time-varying filter that a mask is.

Frames are centred: frame k looks at the window around sample k * hop, so frame k of any rate's
analysis stands at the same time. A periodic Hann window is divided out by its squared overlap on
synthesis (Griffin & Lim 1984, eq. 6), hence an untouched spectrum returns the input exactly.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

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
TensorField = Callable[[Floats, Floats], Tensor]
"""The same on a device."""

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


def filter_length(window: int) -> int:
    """FFT length that filters need, even.

    The impulse response must fit beside the window, or it wraps around: twice the window.
    """
    return 2 * int(next_fast_len(window, real=True))


def filter_frames(length: int, hop: int) -> int:
    """Frames that filter so many samples; one past the end, since the last ends in a taper."""
    return length // hop + 2


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
    return refiltered(samples, rate, settings, block_frames=block_frames)(gain)


def refiltered(
    samples: NDArray[np.float32],
    rate: int,
    settings: SpectrumSettings,
    *,
    block_frames: int = BLOCK_FRAMES,
) -> Callable[[GainField], NDArray[np.float32]]:
    """`filtered` for a recording that is passed through many filters: its spectra are kept."""
    bank = _Bank(rate, settings)
    pieces = overlapping([samples], block_frames * bank.hop, bank.margin)
    analysed = [(piece, bank.analysed(piece)) for piece in pieces]

    def through(gain: GainField) -> NDArray[np.float32]:
        made = [bank.filtered(piece, spectrum, gain) for piece, spectrum in analysed]
        return np.concatenate(made, axis=1)

    return through


def refiltering(
    wave: Tensor, rate: int, settings: SpectrumSettings, *, block_frames: int = BLOCK_FRAMES
) -> Callable[[TensorField], Tensor]:
    """`refiltered` for a waveform [channel, sample] that is, and stays, on its own device."""
    bank = _Bank(rate, settings, wave.device)
    pieces = list(_pieces(wave, block_frames * bank.hop, bank.margin))
    analysed = [bank.spectra(piece.wave) for piece in pieces]

    def through(gain: TensorField) -> Tensor:
        made = []
        for piece, spectrum in zip(pieces, analysed, strict=True):
            times = bank.times(piece.first, spectrum.shape[1])
            whole = bank.synthesised(spectrum, gain(bank.hz, times))
            first = bank.half + piece.lead
            made.append(whole[:, first : first + piece.size])
        return torch.cat(made, dim=1)

    return through


def filtered_blocks(
    blocks: Iterable[NDArray[np.float32]],
    rate: int,
    gain: GainField,
    settings: SpectrumSettings,
    *,
    block_frames: int = BLOCK_FRAMES,
    device: str = "cpu",
) -> Iterator[NDArray[np.float32]]:
    """`filtered` for a recording that comes, and goes, in blocks (channels, samples) of any size.

    Memory does not grow with length, and the blocks' borders change nothing, because each is
    worked on with a whole window of its neighbours; on every core, or on a device.
    """
    bank = _Bank(rate, settings, torch.device(device))

    def work(piece: Piece) -> NDArray[np.float32]:
        return bank.filtered(piece, bank.analysed(piece), gain)

    return spread(work, overlapping(blocks, block_frames * bank.hop, bank.margin))


class _WavePiece(NamedTuple):
    """As `blocks.Piece`, of a waveform [channel, sample] that is a tensor."""

    wave: Tensor
    first: int
    lead: int
    size: int


def _pieces(wave: Tensor, size: int, margin: int) -> Iterator[_WavePiece]:
    """Pieces as `blocks.overlapping` cuts them."""
    length, at = wave.shape[1], 0
    while at < length:
        own = size if length > at + size + margin else length - at
        first = max(0, at - margin)
        yield _WavePiece(wave[:, first : at + own + margin], first, at - first, own)
        at += own


class _Bank:
    """Frames of a piece into spectra, and back through a filter, on a device."""

    def __init__(
        self, rate: int, settings: SpectrumSettings, device: torch.device | None = None
    ) -> None:
        self.rate = rate
        self.window, self.hop, _ = scaled_to(settings, rate)
        self.fft = filter_length(self.window)
        self.hz = np.arange(self.fft // 2 + 1) * (rate / self.fft)
        self.half = self.fft // 2 - (self.fft - self.window) // 2  # as torch centres windows
        self.hann = torch.hann_window(self.window, periodic=True).to(device)
        # The edges of a piece rest on reflected samples; a margin past them keeps blocks exact.
        self.margin = (-(-self.window // self.hop) + 1) * self.hop

    def analysed(self, piece: Piece) -> Tensor:
        """Spectrum [channel, frame, bin]."""
        wave = torch.from_numpy(np.array(piece.samples, dtype=np.float32, order="C"))
        return self.spectra(wave.to(self.hann.device))

    def filtered(self, piece: Piece, spectrum: Tensor, gain: GainField) -> NDArray[np.float32]:
        """Samples (channels, samples) of what the piece is about."""
        gains = torch.from_numpy(gain(self.hz, self.times(piece.first, spectrum.shape[1])))
        made = self.synthesised(spectrum, gains.to(self.hann.device))
        first = self.half + piece.lead
        return made[:, first : first + piece.size].cpu().numpy()

    def times(self, first: int, frames: int) -> Floats:
        """Seconds of so many frames of a piece that begins with a sample."""
        times: Floats = (first // self.hop + np.arange(frames)) * (self.hop / self.rate)
        return times

    def spectra(self, wave: Tensor) -> Tensor:
        """Spectrum [channel, frame, bin] of a waveform [channel, sample]."""
        sides = (self.half, self.window - self.half + self.hop)
        kind = "reflect" if wave.shape[1] > max(sides) else "constant"
        frames = torch.nn.functional.pad(wave, sides, mode=kind).unfold(1, self.window, self.hop)
        count = filter_frames(wave.shape[1], self.hop)
        spectrum: Tensor = torch.fft.rfft(frames[:, :count] * self.hann, self.fft)
        return spectrum

    def synthesised(self, spectrum: Tensor, gain_db: Tensor) -> Tensor:
        """Waveform [channel, sample] of a spectrum under gains [bin, frame] in dB.

        It begins half a window before the first frame.
        """
        factor = gain_db.mul(_NEPER).exp_()
        made = torch.fft.irfft(spectrum * factor.T.contiguous(), self.fft)
        made = _overlapped(made[..., : self.window] * self.hann, self.hop)
        made /= _overlapped(self.hann.square().expand(spectrum.shape[1], -1), self.hop)
        return made


def _overlapped(frames: Tensor, hop: int) -> Tensor:
    """Frames [..., frame, sample] added at every hop [..., sample]."""
    *rest, count, window = frames.shape
    turns = -(-window // hop)
    parts = torch.nn.functional.pad(frames, (0, turns * hop - window))
    total = frames.new_zeros(*rest, count + turns - 1, hop)
    for turn in range(turns):
        total[..., turn : turn + count, :] += parts[..., turn * hop : (turn + 1) * hop]
    return total.flatten(-2)


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
