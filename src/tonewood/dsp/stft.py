"""Short-time Fourier analysis, and time-varying filters: of a recording, a chunk, or a live stream.

Frames are centred: frame k covers the window around sample k * hop, so frame k has the same time at
any sample rate. Synthesis applies a periodic Hann window again and divides by the overlapped squares
(Griffin & Lim 1984, eq. 6), hence an unchanged spectrum returns the input exactly.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from torch import Tensor

from tonewood.dsp.chunking import Chunk, single_chunk, split_chunk
from tonewood.settings import SpectrumSettings
from tonewood.utils.arrays import FloatArray, Samples

GainFunction = Callable[[FloatArray, FloatArray], NDArray[np.float32]]
"""(frequencies [bin] in Hz, times [frame] in s) → gain [bin, frame] in dB."""

TensorGainFunction = Callable[[FloatArray, FloatArray], Tensor]
"""A `GainFunction` whose gains are on a device."""

BLOCK_FRAMES = 256  # spectra of one block fit into the cache: twice as fast as long blocks

_NEPERS_PER_DB = math.log(10) / 20  # of amplitude


class FrameLayout(NamedTuple):
    """Position of analysis frames in a signal: window, hop and FFT length in samples."""

    window: int
    hop: int
    fft: int

    @property
    def samples_before(self) -> int:
        """Samples of a window before its frame's centre, as in torch's centred frames."""
        return self.fft // 2 - (self.fft - self.window) // 2

    @property
    def samples_after(self) -> int:
        """Samples of a window from its frame's centre on."""
        return self.window - self.samples_before

    def frequencies(self, rate: int) -> FloatArray:
        """Return the frequencies [bin] of the FFT in Hz."""
        return np.arange(self.fft // 2 + 1) * (rate / self.fft)

    def count_frames(self, length: int) -> int:
        """Return the number of frames of `length` samples."""
        return (length + self.fft % 2) // self.hop + 1  # `stft` pads for an odd FFT

    def hann_window(self) -> NDArray[np.float64]:
        """Return the periodic Hann window."""
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)


# --- Analysis and synthesis


def stft(wave: Tensor, settings: SpectrumSettings) -> Tensor:
    """Return the complex spectrum [..., bin, frame] of a waveform [..., sample].

    It is scaled so that a full-scale sine peaks at 1 (0 dBFS).
    """
    window, fft = settings.window, settings.fft
    if fft % 2:  # torch centres an odd frame half a sample early and would lose the last one
        wave = torch.nn.functional.pad(wave, (0, 1))
    shape = wave.shape
    spectrum = torch.stft(
        wave.reshape(-1, shape[-1]),
        fft,
        settings.hop,
        window,
        _hann_window(window, wave),
        center=True,
        pad_mode="reflect" if shape[-1] > fft // 2 else "constant",
        return_complex=True,
    )
    # A Hann window sums to window / 2, and a sine splits between two bins' signs: window / 4.
    return spectrum.reshape(*shape[:-1], *spectrum.shape[-2:]) * (4 / window)


def istft(spectrum: Tensor, length: int, settings: SpectrumSettings) -> Tensor:
    """Return the waveform [..., length] whose `stft` is closest to the spectrum [..., bin, frame]."""
    shape, window = spectrum.shape, settings.window
    wave = torch.istft(
        spectrum.reshape(-1, *shape[-2:]) * (window / 4),
        settings.fft,
        settings.hop,
        window,
        _hann_window(window, spectrum.real),
        center=True,
        length=length,
    )
    return wave.reshape(*shape[:-2], length)


def log_magnitude(spectrum: Tensor, settings: SpectrumSettings) -> Tensor:
    """Return the magnitude in dBFS, not below `settings.floor_db`."""
    # The floor applies to the power, before the logarithm: gradients stay finite on silence.
    floor = 10 ** (settings.floor_db / 10)
    power = spectrum.real.square() + spectrum.imag.square()
    return 10 * torch.log10(power.clamp_min(floor))


def scale_to_rate(settings: SpectrumSettings, rate: int) -> tuple[int, int, int]:
    """Return window, hop and FFT length in samples at `rate`, with the durations of `settings`.

    Equal durations give equal bin spacing, so at any rate of at least `settings.rate` the lowest
    bins are the analysis that resampling would have given.
    """
    ratio = rate / settings.rate
    window, hop = round(settings.window * ratio), round(settings.hop * ratio)
    return window, hop, max(window, round(settings.fft * ratio))


def _hann_window(window: int, like: Tensor) -> Tensor:
    return torch.hann_window(window, periodic=True, dtype=like.dtype, device=like.device)


# --- Filters of recordings and chunks


def filter_fft_length(window: int) -> int:
    """Return the even FFT length with which a window can be filtered."""
    # Twice the window: the impulse response of the filter must fit beside the window, or it wraps.
    return 2 * int(next_fast_len(window, real=True))


def count_filter_frames(length: int, hop: int) -> int:
    """Return the number of frames that filter `length` samples."""
    return length // hop + 2  # one past the end, since the last one ends in a taper


def filter_recording(
    samples: Samples,
    rate: int,
    gain: GainFunction,
    settings: SpectrumSettings,
    *,
    block_frames: int = BLOCK_FRAMES,
) -> Samples:
    """Filter samples (channels, samples) with a time-varying gain and keep their phase (paper III).

    The gain is the same for every channel. The rate need not be the analysis rate: window and hop
    have the durations of `settings`.
    """
    wave = torch.from_numpy(np.array(samples, dtype=np.float32, order="C"))
    apply = prepare_filter(wave, rate, settings, block_frames=block_frames)
    return apply(lambda hz, seconds: torch.from_numpy(gain(hz, seconds))).numpy()


def prepare_filter(
    wave: Tensor, rate: int, settings: SpectrumSettings, *, block_frames: int = BLOCK_FRAMES
) -> Callable[[TensorGainFunction], Tensor]:
    """Return a function that filters a waveform [channel, sample], for use with many gains.

    The spectra of the waveform are computed once and stay on its device.
    """
    stft_filter = _StftFilter(rate, settings, wave.device)
    chunks = split_chunk(single_chunk(wave), block_frames * stft_filter.hop, stft_filter.margin)
    spectra = [(chunk, stft_filter.analyse(chunk)) for chunk in chunks]

    def apply(gain: TensorGainFunction) -> Tensor:
        return torch.cat([stft_filter.apply(chunk, spectrum, gain) for chunk, spectrum in spectra], dim=1)

    return apply


def filter_margin(rate: int, settings: SpectrumSettings) -> int:
    """Return the samples of margin that `filter_chunk` needs."""
    stft_filter = _StftFilter(rate, settings)
    return stft_filter.margin + stft_filter.hop


def filter_chunk(
    chunk: Chunk[Tensor], rate: int, gain: TensorGainFunction, settings: SpectrumSettings
) -> Tensor:
    """Filter the core [channel, sample] of a chunk as `filter_recording` does.

    The chunk's margins hold `filter_margin` samples, or end with the recording. The result does
    not depend on where chunks begin.
    """
    stft_filter = _StftFilter(rate, settings, chunk.samples.device)
    # Frames are at multiples of the hop in the recording, so the core has to begin at one too.
    extra = chunk.core_start % stft_filter.hop
    aligned = chunk._replace(left_margin=chunk.left_margin - extra, core_size=chunk.core_size + extra)
    filtered = [
        stft_filter.apply(block, stft_filter.analyse(block), gain)
        for block in split_chunk(aligned, BLOCK_FRAMES * stft_filter.hop, stft_filter.margin)
    ]
    return torch.cat(filtered, dim=1)[:, extra:]


class _StftFilter:
    """Analyses chunks, applies gains and synthesizes, on a device."""

    def __init__(self, rate: int, settings: SpectrumSettings, device: torch.device | None = None) -> None:
        self.rate = rate
        self.window, self.hop, _ = scale_to_rate(settings, rate)
        self.layout = FrameLayout(self.window, self.hop, filter_fft_length(self.window))
        self.hz = self.layout.frequencies(rate)
        self.hann = torch.hann_window(self.window, periodic=True).to(device)
        # Frames near a chunk's edge see reflected samples; a margin wider than a window excludes them.
        self.margin = (-(-self.window // self.hop) + 1) * self.hop

    def analyse(self, chunk: Chunk[Tensor]) -> Tensor:
        """Return the spectrum [channel, frame, bin], of the margins too."""
        wave, before = chunk.samples, self.layout.samples_before
        sides = (before, self.window - before + self.hop)
        mode = "reflect" if wave.shape[1] > max(sides) else "constant"
        frames = torch.nn.functional.pad(wave, sides, mode=mode).unfold(1, self.window, self.hop)
        count = count_filter_frames(wave.shape[1], self.hop)
        spectrum: Tensor = torch.fft.rfft(frames[:, :count] * self.hann, self.layout.fft)
        return spectrum

    def apply(self, chunk: Chunk[Tensor], spectrum: Tensor, gain: TensorGainFunction) -> Tensor:
        """Return the filtered core [channel, sample]."""
        count = spectrum.shape[1]
        times = (chunk.offset // self.hop + np.arange(count)) * (self.hop / self.rate)
        factor = gain(self.hz, times).mul(_NEPERS_PER_DB).exp_()
        frames = torch.fft.irfft(spectrum * factor.T.contiguous(), self.layout.fft)
        wave = _overlap_add(frames[..., : self.window] * self.hann, self.hop)
        wave /= _overlap_add(self.hann.square().expand(count, -1), self.hop)
        first = self.layout.samples_before + chunk.left_margin
        return wave[:, first : first + chunk.core_size]


def _overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Add frames [..., frame, sample] at every hop; returns [..., sample]."""
    *rest, count, window = frames.shape
    turns = -(-window // hop)
    padded = torch.nn.functional.pad(frames, (0, turns * hop - window))
    total = frames.new_zeros(*rest, count + turns - 1, hop)
    # A hop's worth of all frames at once: window / hop additions instead of one for each frame.
    for turn in range(turns):
        total[..., turn : turn + count, :] += padded[..., turn * hop : (turn + 1) * hop]
    return total.flatten(-2)


# --- Filter of a live stream


class FrameBuffer:
    """Latest samples (channels, samples) of a stream, mirrored at its ends as `stft` does."""

    def __init__(self, channels: int, layout: FrameLayout) -> None:
        self.layout = layout
        self.samples: Samples = np.zeros((channels, 0), dtype=np.float32)
        self.offset = 0  # position of the oldest sample in the stream
        self.start_is_mirrored = False

    def append(self, block: Samples) -> None:
        """Append a block."""
        self.samples = np.concatenate([self.samples, block], axis=1)

    def is_complete(self, index: int) -> bool:
        """Return True if all samples of a frame have arrived."""
        end = self.offset + self.samples.shape[1]
        needed = self.layout.samples_after
        if index == 0:  # the first frame mirrors the samples that follow it
            needed = max(needed, self.layout.samples_before + 1)
        return bool(end >= index * self.layout.hop + needed)

    def frame(self, index: int) -> Samples:
        """Return the samples (channels, window) of a complete frame."""
        before = self.layout.samples_before
        if not self.start_is_mirrored:
            self.start_is_mirrored = True
            mirrored = self.samples[:, before:0:-1]
            self.samples, self.offset = np.concatenate([mirrored, self.samples], axis=1), -mirrored.shape[1]
        start = index * self.layout.hop - before - self.offset
        return self.samples[:, start : start + self.layout.window]

    def samples_between(self, start: int, stop: int) -> Samples:
        """Return the samples of the stream from `start` to before `stop`."""
        return self.samples[:, start - self.offset : stop - self.offset]

    def discard_before(self, position: int) -> None:
        """Discard the samples before a position of the stream."""
        drop = max(0, position - self.offset)
        self.samples, self.offset = self.samples[:, drop:], self.offset + drop

    def mirror_end(self) -> None:
        """Mirror the end, which completes every frame that begins before it."""
        if self.layout.fft % 2:
            self.append(np.zeros((self.samples.shape[0], 1), dtype=np.float32))
        length = self.layout.window + self.layout.hop
        mirrored = self.samples[:, -2 : -2 - length : -1]
        silence = np.zeros((self.samples.shape[0], length - mirrored.shape[1]), dtype=np.float32)
        self.append(np.concatenate([mirrored, silence], axis=1))


class OverlapAddFilter:
    """Time-varying filter of a live stream, frame by frame, by overlap-add.

    Frames have the times of those of `stft`, so a stream and a file are filtered alike. Only the
    change passes through the transform: gains of 0 dB return the input, bit by bit.
    """

    def __init__(self, channels: int, window: int, hop: int, rate: int) -> None:
        self.layout = FrameLayout(window, hop, filter_fft_length(window))
        self.hz = self.layout.frequencies(rate)
        self.buffer = FrameBuffer(channels, self.layout)
        self.taper = self.layout.hann_window()
        self.change: NDArray[np.float64] = np.zeros((channels, window))
        self.weight: NDArray[np.float64] = np.zeros(window)

    def process_frame(self, index: int, gain_db: FloatArray) -> tuple[Samples, Samples]:
        """Filter a frame with gains (bin,) in dB; returns filtered and original samples.

        Both are the samples (channels, hop) that no later frame overlaps.
        """
        window, hop, length = self.layout
        spectrum = rfft(self.buffer.frame(index) * self.taper, length)
        factor = np.power(10.0, np.asarray(gain_db, dtype=np.float64) / 20) - 1
        self.change += irfft(spectrum * factor, length)[:, :window] * self.taper
        self.weight += self.taper**2
        start = index * hop - self.layout.samples_before
        output = self._output(start, hop)
        for accumulator in (self.change, self.weight):
            accumulator[..., :-hop] = accumulator[..., hop:]
            accumulator[..., -hop:] = 0
        self.buffer.discard_before(start + hop)
        return output

    def flush(self, last_index: int, end: int) -> tuple[Samples, Samples]:
        """Return filtered and original samples from the last frame to the end of the stream."""
        start = (last_index + 1) * self.layout.hop - self.layout.samples_before
        return self._output(start, max(0, end - start))

    def _output(self, start: int, count: int) -> tuple[Samples, Samples]:
        skip = max(0, -start)  # samples before the stream begins
        dry = self.buffer.samples_between(start + skip, start + count)
        # A Hann window's first sample is 0: nothing was added there, and 0 / 0 is not a number.
        weight = np.maximum(self.weight[skip:count], 1e-12)
        wet = dry + self.change[:, skip:count] / weight
        return wet.astype(np.float32), dry
