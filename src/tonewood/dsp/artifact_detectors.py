"""Marks that are looked for while a recording passes, in blocks of any size.

What needs to know the whole recording first (where it is quietest, how high its peaks are) is told
so, and looks at it a second time.

Marks of filters, codecs, mains, converters and rooms, each looked for where it shows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.utils.arrays import FloatArray, Samples

THIRD_OCTAVES_HZ: FloatArray = 1000.0 * 2.0 ** (np.arange(-10, 14) / 3)
"""Third-octave bands, 100 Hz to 20 kHz (IEC 61260-1, base 2)."""
HALF_BAND_RATIO = 2.0 ** (1 / 6)
"""From a band's centre to its edge."""
MAINS_HZ = (50.0, 60.0)
DIGITAL_SILENCE_DB = -110.0
"""Below the rounding noise of 16 bits, -98 dBFS: nothing was recorded."""
HOP_SECONDS = 0.01
MIN_FRAMES = 20
"""Frames that make a floor or a tail."""

_CLIFF_STEPS = 6  # hundreds of Hz within which a filter has done most of its work
_DECAY_BANDS_HZ = ((490, 2_050), (1_950, 5_100))
_MAX_GROUND_RIPPLE_DB = 8.0  # how far the ground below a cliff may stand out of its median


def detect_cutoff_hz(power: FloatArray, floor: FloatArray | None, rate: int) -> float:
    """Frequency of the cliff in a mean power spectrum [bin] up to rate / 2; rate / 2 if none.

    The floor [bin] of the rests is asked first: noise has no partials to end, so what cuts it is
    a filter. An instrument that fades into its recording's noise looks much like a filter too; so
    where the floor is known, the sound's own cliff counts only if the floor steps down there.
    """
    sound = _levels_per_100_hz(power, rate)
    slope = _highest_cliff_hz(sound, 10.0)
    if floor is None:
        return slope or rate / 2
    noise = _levels_per_100_hz(floor, rate)
    if slope is not None:
        at = round(slope / 100)
        beyond = min(at + _CLIFF_STEPS, len(noise) - 2)
        step = np.median(noise[at - 2 * _CLIFF_STEPS : at]) - np.median(noise[beyond:])
        slope = slope if step > 5.0 else None
    return _highest_cliff_hz(noise, 8.0) or slope or rate / 2


def _highest_cliff_hz(level: FloatArray, fall_db: float) -> float | None:
    """Where levels [100 Hz] are half way down the highest cliff onto level ground, Hz.

    None if nothing falls by `fall_db` within a skirt.
    """
    best, found = fall_db, None
    for j in range(30, len(level) - _CLIFF_STEPS):  # partials alone make cliffs below 3 kHz
        top, ground = float(np.median(level[j - _CLIFF_STEPS : j])), level[j + _CLIFF_STEPS :]
        fall = top - float(ground.max())
        if fall > best and ground.max() - np.median(ground) < _MAX_GROUND_RIPPLE_DB:
            half = np.argmax(level[j : j + _CLIFF_STEPS + 1] < top - fall / 2)
            best, found = fall, 100.0 * (j + int(half))
    return found


def decay_band_power(bands: FloatArray) -> FloatArray:
    """Power [2, frame] of third octaves [band, frame], 500 Hz to 2 kHz and 2 to 5 kHz."""
    at = THIRD_OCTAVES_HZ[: len(bands)]
    return np.stack([bands[(at > low) & (at < high)].sum(axis=0) for low, high in _DECAY_BANDS_HZ])


def fastest_decay_seconds(power: FloatArray) -> tuple[float, float] | None:
    """Seconds for 60 dB at the rate of the fastest falls of what `decay_band_power` gives [2, frame].

    A room lets nothing end faster than it does itself. The 95th percentile of all falls over
    80 ms that start 20 dB above the floor; None if there are too few. After the decay-rate
    distributions of Wen, Habets & Naylor (2008).
    """
    length = 8
    time = (np.arange(length) - (length - 1) / 2) * HOP_SECONDS
    kernel = (time / np.square(time).sum())[::-1]
    found = []
    for level in power_to_db(power):
        if len(level) < 5 * MIN_FRAMES:
            return None
        slope = np.convolve(level, kernel, "valid")
        bottom = np.percentile(level, 2)
        start, end = level[: len(slope)], level[length - 1 :]
        falling = (start > max(bottom + 20, level.max() - 45)) & (end > bottom + 5) & (slope < -15)
        if falling.sum() < MIN_FRAMES:
            return None
        found.append(60 / float(np.percentile(-slope[falling], 95)))
    return found[0], found[1]


def _levels_per_100_hz(power: FloatArray, rate: int) -> FloatArray:
    """Mean level [step] of a spectrum [bin] over each 100 Hz, dB."""
    step = np.arange(len(power)) * (rate / 200 / (len(power) - 1))
    which = step.astype(np.int64)
    level: FloatArray = power_to_db(np.bincount(which, power) / np.maximum(np.bincount(which), 1))[:-1]
    return level


def power_to_db(power: Any) -> Any:  # noqa: ANN401 - numbers and arrays alike
    """Level of a power, dB re 1, floored at -160."""
    return 10 * np.log10(np.maximum(power, 1e-16))


_NEAREST_FRAMES, _FARTHEST_FRAMES = 4, 10  # frames from a hole to where its band must sound
_CONTEXT_SAMPLES = 5  # samples that are kept: three before a flat top, itself and the one after it


class FrameSplitter:
    """Overlapping frames of a waveform (samples,).

    Parameters
    ----------
    window, hop : int
        Samples.
    """

    def __init__(self, window: int, hop: int) -> None:
        self._window, self._hop = window, hop
        self._pending: Samples = np.zeros(0, np.float32)

    def push(self, block: Samples) -> Samples:
        """Frames [frame, sample] that a block completes, a view."""
        held = np.concatenate([self._pending, block])
        count = max(0, (len(held) - self._window) // self._hop + 1)
        self._pending = held[count * self._hop :]
        if count == 0:
            return np.zeros((0, self._window), np.float32)
        # Writeable, though nobody writes: torch asks for no less.
        every = np.lib.stride_tricks.sliding_window_view(held, self._window, writeable=True)
        frames: Samples = every[:: self._hop][:count]
        return frames

    def padded_frame(self) -> Samples:
        """The one frame [1, sample] of a recording shorter than it, silence after its end."""
        return np.pad(self._pending, (0, self._window - len(self._pending)))[None]


class SpectralDropouts:
    """Cells of third octaves that drop out while the middle goes on.

    Such a cell is 15 dB below its band both 40 to 100 ms before and after; the bands from 500 Hz
    to 2 kHz together are not even 8 dB below theirs.
    """

    def __init__(self, bands: int) -> None:
        at = THIRD_OCTAVES_HZ[:bands]
        self._high, self._middle = at > 3_900, (at > 490) & (at < 2_050)
        self._edge = at[self._high] * HALF_BAND_RATIO
        self._pending: FloatArray = np.zeros((bands, 0))
        self._count = np.zeros(len(self._edge), np.int64)
        self._frames = self._examined = 0

    def push(self, bands: FloatArray) -> None:
        """Look at more power [band, frame]."""
        held = np.concatenate([self._pending, bands], axis=1)
        self._frames += bands.shape[1]
        self._pending = held[:, -2 * _FARTHEST_FRAMES :]
        if held.shape[1] <= 2 * _FARTHEST_FRAMES:
            return
        middle = _dip_depth_db(power_to_db(held[self._middle].sum(axis=0))[None])
        gone = (_dip_depth_db(power_to_db(held[self._high])) > 15) & (middle < 8)
        self._count += gone.sum(axis=1)
        self._examined += gone.shape[1]

    def ratio(self, cutoff: float) -> float:
        """Share of the cells above 4 kHz, in bands below a cut-off, that are holes."""
        below = self._edge <= cutoff
        if not below.any() or self._frames < 2 * MIN_FRAMES:
            return 0.0
        return float(self._count[below].sum() / (below.sum() * self._examined))


class HumDetector:
    """Lines on multiples of 50 and of 60 Hz: first how loud every moment is.

    Parameters
    ----------
    rate : int
        Hz.
    """

    def __init__(self, rate: int) -> None:
        self._window = round(0.75 * rate)
        self._frames = FrameSplitter(self._window, self._window // 2)
        self._energy: list[FloatArray] = []
        self._rate, self._samples = rate, 0

    def push(self, block: Samples) -> None:
        """Hear more of a waveform (samples,)."""
        self._samples += len(block)
        frames = self._frames.push(block)
        # One at a time: they overlap, and squared they would be in memory twice and more.
        self._energy.append(np.array([np.square(it, dtype=np.float64).mean() for it in frames]))

    def second_pass(self) -> "HumLines | None":
        """Who looks at the quietest moments; None if the recording is too short or silent."""
        if self._samples < 3 * self._window:
            return None
        energy = np.concatenate(self._energy)
        heard = np.flatnonzero(energy > 10 ** (DIGITAL_SILENCE_DB / 10))
        if heard.size == 0:
            return None
        quiet = heard[np.argsort(energy[heard])][: max(3, len(heard) // 4)]
        return HumLines(self._rate, self._window, quiet)


class HumLines:
    """Second look at a recording: lines in its quiet windows, so that notes, which stop, count not.

    Parameters
    ----------
    rate : int
        Hz.
    window : int
        Samples; windows overlap by half.
    quiet : array [window]
        Numbers of the windows.
    """

    def __init__(self, rate: int, window: int, quiet: NDArray[np.int64]) -> None:
        self._frames, self._next, self._quiet = (
            FrameSplitter(window, window // 2),
            0,
            set(quiet.tolist()),
        )
        self._taper = np.hanning(window).astype(np.float32)
        self._bin_count = round(400 * window / rate)
        hz = np.arange(self._bin_count) * (rate / window)
        away = [np.abs(hz - mains * k) for mains in MAINS_HZ for k in range(1, 7)]
        self._places = [(far < 1.2, (far > 4) & (far < 12)) for far in away]
        self._heights: list[list[float]] = []

    def push(self, block: Samples) -> None:
        """Hear more of the waveform (samples,)."""
        for number, frame in enumerate(self._frames.push(block), start=self._next):
            self._next = number + 1
            if number in self._quiet:
                power = np.abs(np.fft.rfft(frame * self._taper)[: self._bin_count]) ** 2 + 1e-30
                self._heights.append(
                    [
                        float(power_to_db(power[near].max() / np.median(power[beside])))
                        for near, beside in self._places
                    ]
                )

    def tallest_line_db(self) -> tuple[float, float]:
        """Height of the tallest line on multiples of 50 and of 60 Hz, dB.

        Of each of the first six multiples it is the median over the windows; against the median 4
        to 12 Hz beside it.
        """
        heights = np.median(np.array(self._heights), axis=0).reshape(len(MAINS_HZ), -1).max(axis=1)
        return float(heights[0]), float(heights[1])


class ClippedPeaks:
    """Clipped peaks: three equal samples or more near the peak, with a sharp corner.

    Below -26 dBFS none is looked for: there a step of 16 bits is as large as a corner.

    Parameters
    ----------
    peaks : float32 array [channel]
        Of the whole recording.
    """

    def __init__(self, peaks: Samples) -> None:
        self._peaks, self.count = peaks, 0
        self._pending: Samples = np.zeros((len(peaks), 0), np.float32)

    def push(self, block: Samples) -> None:
        """Look at more samples (channels, samples)."""
        joined = np.concatenate([self._pending, block], axis=1)
        first = max(0, self._pending.shape[1] - 1)  # those before it had their neighbours, and count
        self._pending = joined[:, -_CONTEXT_SAMPLES:]
        for channel, peak in zip(joined, self._peaks, strict=True):
            if peak < 0.05:
                continue
            size = np.abs(channel)
            same = (channel[1:-1] == channel[:-2]) & (channel[1:-1] == channel[2:])
            middle = np.flatnonzero(same & (size[1:-1] >= 0.98 * peak)) + 1
            starts = middle[np.diff(middle, prepend=-2) > 1]
            starts = starts[starts >= first]
            before = channel[np.maximum(starts - 3, 0)]
            # A slow sine has equal samples on its tops too, but no corner before them.
            self.count += int((np.abs(channel[starts] - before) > 0.005 * peak).sum())


def dropout_ratio(bands: FloatArray, cutoff: float) -> float:
    """Share of holes in the power of third octaves [band, frame]; see `SpectralDropouts`."""
    looking = SpectralDropouts(len(bands))
    looking.push(bands)
    return looking.ratio(cutoff)


def measure_hum_db(mono: Samples, rate: int) -> tuple[float, float] | None:
    """Height in dB of the tallest line on multiples of 50 Hz and of 60 Hz; None if too short."""
    hum = HumDetector(rate)
    hum.push(mono)
    lines = hum.second_pass()
    if lines is None:
        return None
    lines.push(mono)
    return lines.tallest_line_db()


def count_clipped_peaks(samples: Samples) -> int:
    """Number of clipped peaks of samples (channels, samples); see `ClippedPeaks`."""
    looking = ClippedPeaks(np.abs(samples).max(axis=1))
    looking.push(samples)
    return looking.count


def _dip_depth_db(level: FloatArray) -> FloatArray:
    """How far each cell [band, frame] lies below its band both before and after, dB.

    The first and the last 100 ms are left out: they have no before or no after.
    """
    reach = np.arange(_NEAREST_FRAMES, _FARTHEST_FRAMES + 1)
    before = np.max([np.roll(level, k, axis=1) for k in reach], axis=0)
    after = np.max([np.roll(level, -k, axis=1) for k in reach], axis=0)
    dip: FloatArray = (np.minimum(before, after) - level)[:, _FARTHEST_FRAMES:-_FARTHEST_FRAMES]
    return dip
