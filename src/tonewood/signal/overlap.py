"""A time-varying filter that is fed piece by piece: `spectrum.filtered`, as sound comes in.

Frames stand where those of `spectrum` stand, so that a stream and a file are filtered alike.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from tonewood.signal.spectrum import FloatArray, filter_fft_length

Samples = NDArray[np.float32]


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
        reach = self.layout.samples_after if index else max(self.layout.samples_after, self.layout.samples_before + 1)
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
