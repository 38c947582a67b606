"""A time-varying filter that is fed piece by piece: `spectrum.filtered`, as sound comes in.

Frames stand where those of `spectrum` stand, so that a stream and a file are filtered alike.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from tonewood.signal.spectrum import Floats, filter_length

Samples = NDArray[np.float32]


class Framing(NamedTuple):
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
    def before(self) -> int:
        """Samples of a window before its frame's centre: where torch's centred frames lie."""
        return self.fft // 2 - (self.fft - self.window) // 2

    @property
    def after(self) -> int:
        """Samples of a window from its frame's centre on."""
        return self.window - self.before

    def count(self, length: int) -> int:
        """Frames of so many samples; an odd FFT is centred after one more."""
        return (length + self.fft % 2) // self.hop + 1

    def taper(self) -> NDArray[np.float64]:
        """Periodic Hann window."""
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)


class Past:
    """The last samples of a stream (channels, samples), mirrored at its ends as `spectrum` does."""

    def __init__(self, channels: int, framing: Framing) -> None:
        self.framing = framing
        self.samples: Samples = np.zeros((channels, 0), dtype=np.float32)
        self.first = 0  # sample of the stream that the oldest one is
        self.begun = False

    def add(self, block: Samples) -> None:
        """Hear a block."""
        self.samples = np.concatenate([self.samples, block], axis=1)

    def holds(self, frame: int) -> bool:
        """Whether all of a frame was heard; the first one mirrors what follows it."""
        end = self.first + self.samples.shape[1]
        reach = self.framing.after if frame else max(self.framing.after, self.framing.before + 1)
        return bool(end >= frame * self.framing.hop + reach)

    def frame(self, number: int) -> Samples:
        """Samples (channels, window) of a frame that is held."""
        if not self.begun:
            self.begun = True
            lead = self.samples[:, self.framing.before : 0 : -1]
            self.samples, self.first = np.concatenate([lead, self.samples], axis=1), -lead.shape[1]
        start = number * self.framing.hop - self.framing.before - self.first
        return self.samples[:, start : start + self.framing.window]

    def span(self, start: int, end: int) -> Samples:
        """Samples of the stream from `start` to before `end`."""
        return self.samples[:, start - self.first : end - self.first]

    def forget(self, before: int) -> None:
        """Drop what lies before a sample of the stream."""
        drop = max(0, before - self.first)
        self.samples, self.first = self.samples[:, drop:], self.first + drop

    def end(self) -> None:
        """Mirror the end, so that every frame that begins before it is held."""
        if self.framing.fft % 2:
            self.add(np.zeros((self.samples.shape[0], 1), dtype=np.float32))
        reach = self.framing.window + self.framing.hop
        tail = self.samples[:, -2 : -2 - reach : -1]
        short = np.zeros((self.samples.shape[0], reach - tail.shape[1]), dtype=np.float32)
        self.add(np.concatenate([tail, short], axis=1))


class OverlapFilter:
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
        self.framing = Framing(window, hop, filter_length(window))
        self.hz: Floats = np.arange(self.framing.fft // 2 + 1) * (rate / self.framing.fft)
        self.past = Past(channels, self.framing)
        self.taper = self.framing.taper()
        self.change: NDArray[np.float64] = np.zeros((channels, window))
        self.weight: NDArray[np.float64] = np.zeros(window)

    def frame(self, number: int, gain_db: Floats) -> tuple[Samples, Samples]:
        """Filter a frame with gains (bin,) in dB; returns what is done: (filtered, untouched).

        Both are the `hop` samples (channels, hop) that no later frame reaches.
        """
        window, hop, length = self.framing
        spectrum = fft.rfft(self.past.frame(number) * self.taper, length)
        factor = np.power(10.0, np.asarray(gain_db, dtype=np.float64) / 20) - 1
        self.change += fft.irfft(spectrum * factor, length)[:, :window] * self.taper
        self.weight += self.taper**2
        start = number * hop - self.framing.before
        done = self._done(start, hop)
        for ring in (self.change, self.weight):
            ring[..., :-hop] = ring[..., hop:]
            ring[..., -hop:] = 0
        self.past.forget(start + hop)
        return done

    def rest(self, number: int, end: int) -> tuple[Samples, Samples]:
        """What remains up to the end of the stream, after the last frame, which was `number`."""
        start = (number + 1) * self.framing.hop - self.framing.before
        return self._done(start, max(0, end - start))

    def _done(self, start: int, count: int) -> tuple[Samples, Samples]:
        skip = max(0, -start)  # before the stream begins
        dry = self.past.span(start + skip, start + count)
        # A Hann window's first sample is 0; nothing was added there.
        weight = np.maximum(self.weight[skip:count], 1e-12)
        wet = dry + self.change[:, skip:count] / weight
        return wet.astype(np.float32), dry
