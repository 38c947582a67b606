"""Short-time Fourier analysis, and time-varying filters: of a recording, a chunk, or a live stream.

Frames are centred: frame k covers the window around sample k * hop, so frame k has the same time at
any sample rate. Synthesis applies a periodic Hann window again and divides by the overlapped squares
(Griffin & Lim 1984, eq. 6), hence an unchanged spectrum returns the input exactly.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tonewood.dsp.chunking import Chunk, single_chunk, split_chunk
from tonewood.settings import SpectrumSettings
from tonewood.utils.arrays import Array, FloatArray, Samples, namespace
from tonewood.utils.layers import pad_frames

GainFunction = Callable[[FloatArray, FloatArray], NDArray[np.float32]]
"""(frequencies [bin] in Hz, times [frame] in s) → gain [bin, frame] in dB."""

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
        return hann_window(self.window)


def hann_window(length: int) -> NDArray[np.float64]:
    """Return the periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


# --- Transforms


def tapered_fft(frames: Samples, taper: FloatArray, length: int) -> NDArray[np.complex64]:
    """Return the FFT [..., bin] of frames [..., sample] times a taper [sample], padded with zeros."""
    # Padded here, and scaled by the taper: NumPy 2 pads slowly, and computes in double precision
    # where it does not scale.
    padded = np.zeros((*frames.shape[:-1], length), dtype=frames.dtype)
    scaled = (length * taper).astype(frames.dtype)
    np.multiply(frames, scaled, out=padded[..., : len(taper)])
    return np.fft.rfft(padded, norm="forward")  # type: ignore[return-value] # the stubs say complex128


def fast_fft_length(least: int) -> int:
    """Return the smallest length, at least this, whose prime factors are 2, 3 and 5."""
    length = least
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


# --- Analysis and synthesis


def stft(wave: Array, settings: SpectrumSettings) -> Array:
    """Return the complex spectrum [..., bin, frame] of a waveform [..., sample].

    It is scaled so that a full-scale sine peaks at 1 (0 dBFS).
    """
    layout = FrameLayout(settings.window, settings.hop, settings.fft)
    frames = _centred_frames(wave, layout)
    # A Hann window sums to window / 2, and a sine splits between two bins' signs: window / 4.
    taper = layout.hann_window() * (4 / layout.window)
    # The window lies in the middle of the transform, as torch places it; its ends are zeros.
    before = (layout.fft - layout.window) // 2
    # Not np.pad, which torch.compile cannot trace.
    taper = np.concatenate([np.zeros(before), taper, np.zeros(layout.fft - layout.window - before)])
    if isinstance(frames, np.ndarray):
        return np.swapaxes(tapered_fft(frames, taper, layout.fft), -1, -2)
    torch = namespace(frames)
    spectrum: Array = torch.fft.rfft(frames * torch.from_numpy(taper).to(frames), layout.fft).mT
    return spectrum


def _centred_frames(wave: Array, layout: FrameLayout) -> Array:
    """Return overlapping views [..., frame, sample] of a waveform, as long as the FFT, around every hop."""
    half = layout.fft // 2
    if layout.fft % 2:  # a window around the last sample would lack one
        wave = pad_frames(wave, 0, 1)
    padded = pad_frames(wave, half, half, mode="reflect" if wave.shape[-1] > half else "constant")
    if isinstance(padded, np.ndarray):
        return sliding_window_view(padded, layout.fft, axis=-1)[..., :: layout.hop, :]
    return padded.unfold(-1, layout.fft, layout.hop)


def log_magnitude(spectrum: Array, settings: SpectrumSettings) -> Array:
    """Return the magnitude in dBFS, not below `settings.floor_db`."""
    power = power_spectrum(spectrum, settings)
    level: Array = 10 * namespace(power).log10(power)
    return level


def power_spectrum(spectrum: Array, settings: SpectrumSettings) -> Array:
    """Return the power of a spectrum, not below `settings.floor_db`."""
    # The floor applies before any logarithm: gradients stay finite on silence.
    power: Array = (spectrum.real**2 + spectrum.imag**2).clip(10 ** (settings.floor_db / 10))
    return power


def scale_to_rate(settings: SpectrumSettings, rate: int) -> tuple[int, int, int]:
    """Return window, hop and FFT length in samples at `rate`, with the durations of `settings`.

    Equal durations give equal bin spacing, so at any rate of at least `settings.rate` the lowest
    bins are the analysis that resampling would have given.
    """
    ratio = rate / settings.rate
    window, hop = round(settings.window * ratio), round(settings.hop * ratio)
    return window, hop, max(window, round(settings.fft * ratio))


# --- Filters of recordings and chunks


def filter_fft_length(window: int) -> int:
    """Return the even FFT length with which a window can be filtered."""
    # Twice the window: the impulse response of the filter must fit beside the window, or it wraps.
    return 2 * fast_fft_length(window)


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
    return prepare_filter(np.asarray(samples, np.float32), rate, settings, block_frames=block_frames)(gain)


def prepare_filter(
    wave: Samples, rate: int, settings: SpectrumSettings, *, block_frames: int = BLOCK_FRAMES
) -> Callable[[GainFunction], Samples]:
    """Return a function that filters a waveform [channel, sample], for use with many gains.

    The spectra of the waveform are computed once.
    """
    stft_filter = _StftFilter(rate, settings)
    chunks = split_chunk(single_chunk(wave), block_frames * stft_filter.hop, stft_filter.margin)
    spectra = [(chunk, stft_filter.analyse(chunk)) for chunk in chunks]

    def apply(gain: GainFunction) -> Samples:
        filtered = [stft_filter.apply(chunk, spectrum, gain) for chunk, spectrum in spectra]
        return np.concatenate(filtered, axis=1)

    return apply


def filter_margin(rate: int, settings: SpectrumSettings) -> int:
    """Return the samples of margin that `filter_chunk` needs."""
    stft_filter = _StftFilter(rate, settings)
    return stft_filter.margin + stft_filter.hop


def filter_chunk(chunk: Chunk, rate: int, gain: GainFunction, settings: SpectrumSettings) -> Samples:
    """Filter the core [channel, sample] of a chunk as `filter_recording` does.

    The chunk's margins hold `filter_margin` samples, or end with the recording. The result does
    not depend on where chunks begin.
    """
    stft_filter = _StftFilter(rate, settings)
    # Frames are at multiples of the hop in the recording, so the core has to begin at one too.
    extra = chunk.core_start % stft_filter.hop
    aligned = chunk._replace(left_margin=chunk.left_margin - extra, core_size=chunk.core_size + extra)
    filtered = [
        stft_filter.apply(block, stft_filter.analyse(block), gain)
        for block in split_chunk(aligned, BLOCK_FRAMES * stft_filter.hop, stft_filter.margin)
    ]
    return np.concatenate(filtered, axis=1)[:, extra:]


class _StftFilter:
    """Analyses chunks, applies gains and synthesizes."""

    def __init__(self, rate: int, settings: SpectrumSettings) -> None:
        self.rate = rate
        self.window, self.hop, _ = scale_to_rate(settings, rate)
        self.layout = FrameLayout(self.window, self.hop, filter_fft_length(self.window))
        self.hz = self.layout.frequencies(rate)
        self.hann = self.layout.hann_window().astype(np.float32)
        # Frames near a chunk's edge see reflected samples; a margin wider than a window excludes them.
        self.margin = (-(-self.window // self.hop) + 1) * self.hop

    def analyse(self, chunk: Chunk) -> NDArray[np.complex64]:
        """Return the spectrum [channel, frame, bin], of the margins too."""
        wave, before = chunk.samples, self.layout.samples_before
        sides = (before, self.window - before + self.hop)
        padded = np.pad(wave, ((0, 0), sides), mode="reflect" if wave.shape[1] > max(sides) else "constant")
        frames = sliding_window_view(padded, self.window, axis=1)[:, :: self.hop]
        count = count_filter_frames(wave.shape[1], self.hop)
        return tapered_fft(frames[:, :count], self.hann, self.layout.fft)

    def apply(self, chunk: Chunk, spectrum: NDArray[np.complex64], gain: GainFunction) -> Samples:
        """Return the filtered core [channel, sample]."""
        count = spectrum.shape[1]
        times = (chunk.offset // self.hop + np.arange(count)) * (self.hop / self.rate)
        factor = gain(self.hz, times).T * np.float32(_NEPERS_PER_DB)
        np.exp(factor, out=factor)
        # The stubs say float64.
        frames: Samples = np.fft.irfft(spectrum * factor, self.layout.fft)  # type: ignore[assignment]
        frames = frames[..., : self.window]
        frames *= self.hann
        wave = _overlap_add(frames, self.hop)
        wave /= _overlapped_squares(self.window, self.hop, count)
        first = self.layout.samples_before + chunk.left_margin
        return wave[:, first : first + chunk.core_size]


@lru_cache(maxsize=16)  # blocks of a recording have few different lengths
def _overlapped_squares(window: int, hop: int, count: int) -> NDArray[np.float32]:
    """Return the sum [sample] of the squared windows of `count` frames."""
    squares = hann_window(window).astype(np.float32) ** 2
    weight = _overlap_add(np.broadcast_to(squares, (count, window)), hop)
    # A Hann window's first sample is 0: nothing was added there, and 0 / 0 is not a number.
    return np.maximum(weight, np.float32(1e-12))


def _overlap_add(frames: NDArray[np.float32], hop: int) -> NDArray[np.float32]:
    """Add frames [..., frame, sample] at every hop; returns [..., sample]."""
    *rest, count, window = frames.shape
    turns = -(-window // hop)
    total = np.zeros((*rest, count + turns - 1, hop), dtype=frames.dtype)
    # A hop's worth of all frames at once: window / hop additions instead of one for each frame.
    for turn in range(turns):
        part = frames[..., turn * hop : (turn + 1) * hop]
        total[..., turn : turn + count, : part.shape[-1]] += part
    return total.reshape(*rest, -1)


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
        spectrum = np.fft.rfft(self.buffer.frame(index) * self.taper, length)
        factor = np.power(10.0, np.asarray(gain_db, dtype=np.float64) / 20) - 1
        self.change += np.fft.irfft(spectrum * factor, length)[:, :window] * self.taper
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
