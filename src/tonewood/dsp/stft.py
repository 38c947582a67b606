"""Short-time Fourier analysis, and the time-varying filter that a mask is.

Frames are centred: frame k looks at the window around sample k * hop, so frame k of any rate's
analysis stands at the same time. A periodic Hann window is divided out by its squared overlap on
synthesis (Griffin & Lim 1984, eq. 6), hence an untouched spectrum returns the input exactly.

A time-varying filter that is fed piece by piece: `spectrum.filtered`, as sound comes in.

Frames stand where those of `spectrum` stand, so that a stream and a file are filtered alike.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from scipy.fft import next_fast_len
from torch import Tensor

from tonewood.dsp.chunking import Chunk, single_chunk, split_chunk
from tonewood.settings import SpectrumSettings
from tonewood.utils.arrays import FloatArray, Samples

GainFunction = Callable[[FloatArray, FloatArray], NDArray[np.float32]]
"""(frequencies [bin] in Hz, times [frame] in s) → gain [bin, frame] in dB."""
TensorGainFunction = Callable[[FloatArray, FloatArray], Tensor]
"""The same on a device."""

BLOCK_FRAMES = 256  # a block's spectra stay in the cache: twice as fast as long ones
_NEPERS_PER_DB = math.log(10) / 20  # a dB of amplitude, as a natural logarithm


def stft(wave: Tensor, settings: SpectrumSettings) -> Tensor:
    """Complex spectrum of a waveform, scaled so that a full-scale sine peaks at 1 (0 dBFS).

    Parameters
    ----------
    wave : Tensor [..., sample]
        At `search_settings.rate`, at least one sample.
    settings : SpectrumSettings
        Window, hop and FFT length.

    Returns
    -------
    Tensor [..., bin, frame], complex
    """
    return _stft_samples(wave, settings.window, settings.hop, settings.fft)


def istft(spectrum: Tensor, length: int, settings: SpectrumSettings) -> Tensor:
    """Waveform [..., length] whose `stft` is closest to the spectrum [..., bin, frame]."""
    return _istft_samples(spectrum, length, settings.window, settings.hop, settings.fft)


def log_magnitude(spectrum: Tensor, settings: SpectrumSettings) -> Tensor:
    """Magnitude in dBFS, floored at `search_settings.floor_db`; gradients are finite on silence too."""
    floor = 10 ** (settings.floor_db / 10)
    power = spectrum.real.square() + spectrum.imag.square()
    return 10 * torch.log10(power.clamp_min(floor))


def scale_to_rate(settings: SpectrumSettings, rate: int) -> tuple[int, int, int]:
    """Window, hop and FFT length in samples that analyse `rate` as `search_settings` does its own.

    Equal durations give equal bin spacing, so the lowest bins at any rate of at least
    `search_settings.rate` are the analysis that resampling would have given.
    """
    ratio = rate / settings.rate
    window, hop = round(settings.window * ratio), round(settings.hop * ratio)
    return window, hop, max(window, round(settings.fft * ratio))


def filter_fft_length(window: int) -> int:
    """FFT length that filters need, even.

    The impulse response must fit beside the window, or it wraps around: twice the window.
    """
    return 2 * int(next_fast_len(window, real=True))


def count_filter_frames(length: int, hop: int) -> int:
    """Frames that filter so many samples; one past the end, since the last ends in a taper."""
    return length // hop + 2


def filter_recording(
    samples: NDArray[np.float32],
    rate: int,
    gain: GainFunction,
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
    gain : GainFunction
        Gain in dB wanted at (bin frequencies, frame times); the same for every channel.
    settings : SpectrumSettings
        Gives window and hop durations.
    block_frames : int
        Frames worked on at once.

    Returns
    -------
    float32 array (channels, samples), as long as the input to the sample
    """
    wave = torch.from_numpy(np.array(samples, dtype=np.float32, order="C"))
    through = prepare_filter(wave, rate, settings, block_frames=block_frames)
    return through(lambda hz, seconds: torch.from_numpy(gain(hz, seconds))).numpy()


def prepare_filter(
    wave: Tensor, rate: int, settings: SpectrumSettings, *, block_frames: int = BLOCK_FRAMES
) -> Callable[[TensorGainFunction], Tensor]:
    """`filtered` for a waveform [channel, sample] that is passed through many filters.

    Its spectra are kept, on its own device, where the filters' gains are too.
    """
    bank = _StftFilter(rate, settings, wave.device)
    pieces = list(split_chunk(single_chunk(wave), block_frames * bank.hop, bank.margin))
    analysed = [(piece, bank.analyse(piece)) for piece in pieces]

    def through(gain: TensorGainFunction) -> Tensor:
        return torch.cat([bank.apply(*it, gain) for it in analysed], dim=1)

    return through


def filter_margin(rate: int, settings: SpectrumSettings) -> int:
    """Samples beyond a piece that decide what it becomes by `filter_chunk`."""
    _, hop, _ = scale_to_rate(settings, rate)
    return _StftFilter(rate, settings).margin + hop


def filter_chunk(
    chunk: Chunk[Tensor], rate: int, gain: TensorGainFunction, settings: SpectrumSettings
) -> Tensor:
    """`filtered` of what a piece is about [channel, sample], on the piece's device.

    Its margins hold `filter_margin` samples, or end with the recording. What comes out does not
    depend on where pieces begin.
    """
    bank = _StftFilter(rate, settings, chunk.samples.device)
    # Frames stand at multiples of the hop, wherever pieces begin.
    more = chunk.core_start % bank.hop
    wider = chunk._replace(left_margin=chunk.left_margin - more, core_size=chunk.core_size + more)
    made = [
        bank.apply(part, bank.analyse(part), gain)
        for part in split_chunk(wider, BLOCK_FRAMES * bank.hop, bank.margin)
    ]
    return torch.cat(made, dim=1)[:, more:]


class _StftFilter:
    """Frames of a piece into spectra, and back through a filter, on a device."""

    def __init__(self, rate: int, settings: SpectrumSettings, device: torch.device | None = None) -> None:
        self.rate = rate
        self.window, self.hop, _ = scale_to_rate(settings, rate)
        self.fft = filter_fft_length(self.window)
        self.hz = np.arange(self.fft // 2 + 1) * (rate / self.fft)
        self.half_window = self.fft // 2 - (self.fft - self.window) // 2  # as torch centres windows
        self.hann = torch.hann_window(self.window, periodic=True).to(device)
        # The edges of a piece rest on reflected samples; a margin past them keeps blocks exact.
        self.margin = (-(-self.window // self.hop) + 1) * self.hop

    def analyse(self, chunk: Chunk[Tensor]) -> Tensor:
        """Spectrum [channel, frame, bin]."""
        wave = chunk.samples
        sides = (self.half_window, self.window - self.half_window + self.hop)
        kind = "reflect" if wave.shape[1] > max(sides) else "constant"
        frames = torch.nn.functional.pad(wave, sides, mode=kind).unfold(1, self.window, self.hop)
        count = count_filter_frames(wave.shape[1], self.hop)
        spectrum: Tensor = torch.fft.rfft(frames[:, :count] * self.hann, self.fft)
        return spectrum

    def apply(self, chunk: Chunk[Tensor], spectrum: Tensor, gain: TensorGainFunction) -> Tensor:
        """Waveform [channel, sample] of what the piece is about."""
        count = spectrum.shape[1]
        times = (chunk.offset // self.hop + np.arange(count)) * (self.hop / self.rate)
        factor = gain(self.hz, times).mul(_NEPERS_PER_DB).exp_()
        made = torch.fft.irfft(spectrum * factor.T.contiguous(), self.fft)
        made = _overlap_add(made[..., : self.window] * self.hann, self.hop)
        made /= _overlap_add(self.hann.square().expand(count, -1), self.hop)
        first = self.half_window + chunk.left_margin
        return made[:, first : first + chunk.core_size]


def _overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Frames [..., frame, sample] added at every hop [..., sample]."""
    *rest, count, window = frames.shape
    turns = -(-window // hop)
    parts = torch.nn.functional.pad(frames, (0, turns * hop - window))
    total = frames.new_zeros(*rest, count + turns - 1, hop)
    for turn in range(turns):
        total[..., turn : turn + count, :] += parts[..., turn * hop : (turn + 1) * hop]
    return total.flatten(-2)


def _stft_samples(wave: Tensor, window: int, hop: int, fft: int) -> Tensor:
    if fft % 2:  # torch centres an odd frame by half a sample less, and would lose the last one
        wave = torch.nn.functional.pad(wave, (0, 1))
    shape = wave.shape
    pad = "reflect" if shape[-1] > fft // 2 else "constant"
    spectrum = torch.stft(
        wave.reshape(-1, shape[-1]),
        fft,
        hop,
        window,
        _hann_window(window, wave),
        center=True,
        pad_mode=pad,
        return_complex=True,
    )
    # A Hann window sums to window / 2, and a sine splits between two bins' signs: window / 4.
    return spectrum.reshape(*shape[:-1], *spectrum.shape[-2:]) * (4 / window)


def _istft_samples(spectrum: Tensor, length: int, window: int, hop: int, fft: int) -> Tensor:
    shape = spectrum.shape
    wave = torch.istft(
        spectrum.reshape(-1, *shape[-2:]) * (window / 4),
        fft,
        hop,
        window,
        _hann_window(window, spectrum.real),
        center=True,
        length=length,
    )
    return wave.reshape(*shape[:-2], length)


def _hann_window(window: int, like: Tensor) -> Tensor:
    return torch.hann_window(window, periodic=True, dtype=like.dtype, device=like.device)


class FrameLayout(NamedTuple):
    """Where the frames of an analysis stand.

    Parameters
    ----------
    window, hop, fft : int
        Samples.
    """

    window: int
    hop: int
    fft: int

    @property
    def samples_before(self) -> int:
        """Samples of a window before its frame's centre: where torch's centred frames lie."""
        return self.fft // 2 - (self.fft - self.window) // 2

    @property
    def samples_after(self) -> int:
        """Samples of a window from its frame's centre on."""
        return self.window - self.samples_before

    def count_frames(self, length: int) -> int:
        """Frames of so many samples; an odd FFT is centred after one more."""
        return (length + self.fft % 2) // self.hop + 1

    def hann_window(self) -> NDArray[np.float64]:
        """Periodic Hann window."""
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)


class FrameBuffer:
    """The last samples of a stream (channels, samples), mirrored at its ends as `spectrum` does."""

    def __init__(self, channels: int, framing: FrameLayout) -> None:
        self.layout = framing
        self.samples: Samples = np.zeros((channels, 0), dtype=np.float32)
        self.offset = 0  # sample of the stream that the oldest one is
        self.start_is_mirrored = False

    def append(self, block: Samples) -> None:
        """Hear a block."""
        self.samples = np.concatenate([self.samples, block], axis=1)

    def is_complete(self, index: int) -> bool:
        """Whether all of a frame was heard; the first one mirrors what follows it."""
        end = self.offset + self.samples.shape[1]
        reach = (
            self.layout.samples_after
            if index
            else max(self.layout.samples_after, self.layout.samples_before + 1)
        )
        return bool(end >= index * self.layout.hop + reach)

    def frame(self, index: int) -> Samples:
        """Samples (channels, window) of a frame that is held."""
        if not self.start_is_mirrored:
            self.start_is_mirrored = True
            lead = self.samples[:, self.layout.samples_before : 0 : -1]
            self.samples, self.offset = np.concatenate([lead, self.samples], axis=1), -lead.shape[1]
        start = index * self.layout.hop - self.layout.samples_before - self.offset
        return self.samples[:, start : start + self.layout.window]

    def samples_between(self, start: int, stop: int) -> Samples:
        """Samples of the stream from `start` to before `stop`."""
        return self.samples[:, start - self.offset : stop - self.offset]

    def discard_before(self, position: int) -> None:
        """Drop what lies before a sample of the stream."""
        drop = max(0, position - self.offset)
        self.samples, self.offset = self.samples[:, drop:], self.offset + drop

    def mirror_end(self) -> None:
        """Mirror the end, so that every frame that begins before it is held."""
        if self.layout.fft % 2:
            self.append(np.zeros((self.samples.shape[0], 1), dtype=np.float32))
        reach = self.layout.window + self.layout.hop
        tail = self.samples[:, -2 : -2 - reach : -1]
        short = np.zeros((self.samples.shape[0], reach - tail.shape[1]), dtype=np.float32)
        self.append(np.concatenate([tail, short], axis=1))


class OverlapAddFilter:
    """Adds to the sound what gains change of it, frame by frame, by overlap-add.

    Only the change passes through the transform: where gains are 0 dB the sound itself comes out,
    to the bit.

    Parameters
    ----------
    channels : int
    window, hop : int
        Samples.
    rate : int
        Hz.
    """

    def __init__(self, channels: int, window: int, hop: int, rate: int) -> None:
        self.layout = FrameLayout(window, hop, filter_fft_length(window))
        self.hz: FloatArray = np.arange(self.layout.fft // 2 + 1) * (rate / self.layout.fft)
        self.buffer = FrameBuffer(channels, self.layout)
        self.taper = self.layout.hann_window()
        self.change: NDArray[np.float64] = np.zeros((channels, window))
        self.weight: NDArray[np.float64] = np.zeros(window)

    def process_frame(self, index: int, gain_db: FloatArray) -> tuple[Samples, Samples]:
        """Filter a frame with gains (bin,) in dB; returns what is done: (filtered, untouched).

        Both are the `hop` samples (channels, hop) that no later frame reaches.
        """
        window, hop, length = self.layout
        spectrum = fft.rfft(self.buffer.frame(index) * self.taper, length)
        factor = np.power(10.0, np.asarray(gain_db, dtype=np.float64) / 20) - 1
        self.change += fft.irfft(spectrum * factor, length)[:, :window] * self.taper
        self.weight += self.taper**2
        start = index * hop - self.layout.samples_before
        done = self._output(start, hop)
        for ring in (self.change, self.weight):
            ring[..., :-hop] = ring[..., hop:]
            ring[..., -hop:] = 0
        self.buffer.discard_before(start + hop)
        return done

    def flush(self, last_index: int, end: int) -> tuple[Samples, Samples]:
        """What remains up to the end of the stream, after the last frame, which was `last_index`."""
        start = (last_index + 1) * self.layout.hop - self.layout.samples_before
        return self._output(start, max(0, end - start))

    def _output(self, start: int, count: int) -> tuple[Samples, Samples]:
        skip = max(0, -start)  # before the stream begins
        dry = self.buffer.samples_between(start + skip, start + count)
        # A Hann window's first sample is 0; nothing was added there.
        weight = np.maximum(self.weight[skip:count], 1e-12)
        wet = dry + self.change[:, skip:count] / weight
        return wet.astype(np.float32), dry
