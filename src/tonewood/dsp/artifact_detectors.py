"""Detectors of artifacts of filters, codecs, mains hum, clipping and rooms.

Streaming detectors take blocks of any size. Those that depend on the whole recording (its quietest
windows, its peaks) see it in a second pass.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.utils.arrays import FloatArray, Samples

THIRD_OCTAVES_HZ: FloatArray = 1000.0 * 2.0 ** (np.arange(-10, 14) / 3)
"""Centres of third-octave bands, 100 Hz to 20 kHz (IEC 61260-1, base 2)."""
HALF_BAND_RATIO = 2.0 ** (1 / 6)
"""Ratio of a band's edge to its centre."""
DIGITAL_SILENCE_DB = -110.0
"""Below the rounding noise of 16 bits, which is at -98 dBFS."""
HOP_SECONDS = 0.01
MIN_FRAMES = 20
"""Fewest frames that define a noise floor or a decay."""

_MAINS_HZ = (50.0, 60.0)
_CLIFF_STEPS = 6  # of 100 Hz, within which a low-pass falls by most of its attenuation
_DECAY_BANDS_HZ = ((490, 2_050), (1_950, 5_100))  # the edges are between centres of third octaves
_MAX_GROUND_RIPPLE_DB = 8.0  # of the levels above a cut-off, from their median
_NEAREST_FRAMES, _FARTHEST_FRAMES = 4, 10  # from a dropout to the frames in which its band sounds
_CONTEXT_SAMPLES = 5  # three before a flat top, itself, and one after


def detect_cutoff_hz(power: FloatArray, floor: FloatArray | None, rate: int) -> float:
    """Return the cut-off frequency in a mean power spectrum [bin] up to rate / 2; rate / 2 if none.

    Noise has no partials that end, so a cliff in the floor [bin] of the rests is a filter. An
    instrument that fades into the noise of its recording looks like a filter too. Where the floor
    is known, a cliff in the sound counts only if the floor steps down at the same frequency.
    """
    sound = _levels_per_100_hz(power, rate)
    cutoff = _highest_cliff_hz(sound, 10.0)
    if floor is None:
        return cutoff or rate / 2
    noise = _levels_per_100_hz(floor, rate)
    if cutoff is not None:
        at = round(cutoff / 100)
        beyond = min(at + _CLIFF_STEPS, len(noise) - 2)
        step = np.median(noise[at - 2 * _CLIFF_STEPS : at]) - np.median(noise[beyond:])
        cutoff = cutoff if step > 5.0 else None
    return _highest_cliff_hz(noise, 8.0) or cutoff or rate / 2


def _highest_cliff_hz(level: FloatArray, min_fall_db: float) -> float | None:
    """Return the middle of the highest fall of levels [100 Hz] onto level ground, if any."""
    highest, cutoff = min_fall_db, None
    for j in range(30, len(level) - _CLIFF_STEPS):  # below 3 kHz partials alone make cliffs
        top, ground = float(np.median(level[j - _CLIFF_STEPS : j])), level[j + _CLIFF_STEPS :]
        fall = top - float(ground.max())
        if fall > highest and ground.max() - np.median(ground) < _MAX_GROUND_RIPPLE_DB:
            half = np.argmax(level[j : j + _CLIFF_STEPS + 1] < top - fall / 2)
            highest, cutoff = fall, 100.0 * (j + int(half))
    return cutoff


def decay_band_power(bands: FloatArray) -> FloatArray:
    """Return the power [2, frame], 500 Hz to 2 kHz and 2 to 5 kHz, of third octaves [band, frame]."""
    centres = THIRD_OCTAVES_HZ[: len(bands)]
    return np.stack([bands[(centres > low) & (centres < high)].sum(axis=0) for low, high in _DECAY_BANDS_HZ])


def fastest_decay_seconds(power: FloatArray) -> tuple[float, float] | None:
    """Return the time for 60 dB at the fastest decays of band power [2, frame]; None if too few.

    Nothing decays faster than the room itself. The rate is the 95th percentile of all
    falls over 80 ms that start 20 dB above the floor, after the decay-rate distributions of Wen,
    Habets & Naylor (2008).
    """
    length = 8
    time = (np.arange(length) - (length - 1) / 2) * HOP_SECONDS
    kernel = (time / np.square(time).sum())[::-1]  # slope of a least-squares line
    seconds = []
    for level in power_to_db(power):
        if len(level) < 5 * MIN_FRAMES:
            return None
        slope = np.convolve(level, kernel, "valid")
        bottom = np.percentile(level, 2)
        start, end = level[: len(slope)], level[length - 1 :]
        falling = (start > max(bottom + 20, level.max() - 45)) & (end > bottom + 5) & (slope < -15)
        if falling.sum() < MIN_FRAMES:
            return None
        seconds.append(60 / float(np.percentile(-slope[falling], 95)))
    return seconds[0], seconds[1]


def _levels_per_100_hz(power: FloatArray, rate: int) -> FloatArray:
    """Return the mean level [step] in dB of a spectrum [bin] over each 100 Hz."""
    step = (np.arange(len(power)) * (rate / 200 / (len(power) - 1))).astype(np.int64)
    mean = np.bincount(step, power) / np.maximum(np.bincount(step), 1)
    level: FloatArray = power_to_db(mean)[:-1]
    return level


def power_to_db(power: Any) -> Any:  # noqa: ANN401 - numbers and arrays alike
    """Return the level of a power in dB re 1, at least -160."""
    return 10 * np.log10(np.maximum(power, 1e-16))


class FrameSplitter:
    """Splits a waveform (samples,) that arrives in blocks into overlapping frames."""

    def __init__(self, window: int, hop: int) -> None:
        self._window, self._hop = window, hop
        self._pending: Samples = np.zeros(0, np.float32)

    def push(self, block: Samples) -> Samples:
        """Return the frames [frame, sample] that a block completes, a view."""
        samples = np.concatenate([self._pending, block])
        count = max(0, (len(samples) - self._window) // self._hop + 1)
        self._pending = samples[count * self._hop :]
        if count == 0:
            return np.zeros((0, self._window), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(samples, self._window)
        frames: Samples = windows[:: self._hop][:count]
        return frames

    def padded_frame(self) -> Samples:
        """Return the one frame [1, sample] of a recording shorter than it, padded with silence."""
        return np.pad(self._pending, (0, self._window - len(self._pending)))[None]


class SpectralDropouts:
    """Cells of third octaves that drop out alone, an effect of codecs and denoisers.

    Such a cell is 15 dB below its band both 40 to 100 ms before and after, while the bands from
    500 Hz to 2 kHz together are less than 8 dB below theirs.
    """

    def __init__(self, bands: int) -> None:
        centres = THIRD_OCTAVES_HZ[:bands]
        self._high, self._middle = centres > 3_900, (centres > 490) & (centres < 2_050)
        self._edge = centres[self._high] * HALF_BAND_RATIO
        self._pending: FloatArray = np.zeros((bands, 0))
        self._count = np.zeros(len(self._edge), np.int64)
        self._frames = self._examined = 0

    def push(self, bands: FloatArray) -> None:
        """Add power [band, frame]."""
        power = np.concatenate([self._pending, bands], axis=1)
        self._frames += bands.shape[1]
        self._pending = power[:, -2 * _FARTHEST_FRAMES :]
        if power.shape[1] <= 2 * _FARTHEST_FRAMES:
            return
        middle = _dip_depth_db(power_to_db(power[self._middle].sum(axis=0))[None])
        dropouts = (_dip_depth_db(power_to_db(power[self._high])) > 15) & (middle < 8)
        self._count += dropouts.sum(axis=1)
        self._examined += dropouts.shape[1]

    def ratio(self, cutoff: float) -> float:
        """Return the share of dropouts among the cells above 4 kHz, in bands below a cut-off."""
        below = self._edge <= cutoff
        if not below.any() or self._frames < 2 * MIN_FRAMES:
            return 0.0
        return float(self._count[below].sum() / (below.sum() * self._examined))


class HumDetector:
    """First pass of hum detection: the energy of each window."""

    def __init__(self, rate: int) -> None:
        self._window = round(0.75 * rate)
        self._splitter = FrameSplitter(self._window, self._window // 2)
        self._energy: list[FloatArray] = []
        self._rate, self._samples = rate, 0

    def push(self, block: Samples) -> None:
        """Add samples (samples,)."""
        self._samples += len(block)
        frames = self._splitter.push(block)
        # One at a time: squared frames are doubles and overlap, four times the memory of the block.
        self._energy.append(np.array([np.square(frame, dtype=np.float64).mean() for frame in frames]))

    def second_pass(self) -> "HumLines | None":
        """Return the second pass; None if the recording is too short or silent."""
        if self._samples < 3 * self._window:
            return None
        energy = np.concatenate(self._energy)
        sounding = np.flatnonzero(energy > 10 ** (DIGITAL_SILENCE_DB / 10))
        if sounding.size == 0:
            return None
        # Notes stop and hum does not: the quietest quarter of the windows shows it best.
        quiet = sounding[np.argsort(energy[sounding])][: max(3, len(sounding) // 4)]
        return HumLines(self._rate, self._window, quiet)


class HumLines:
    """Second pass of hum detection: spectral lines at multiples of 50 and 60 Hz in quiet windows.

    Windows of `window` samples overlap by half; `quiet` [window] are the indices of those to analyse.
    """

    def __init__(self, rate: int, window: int, quiet: NDArray[np.int64]) -> None:
        self._splitter = FrameSplitter(window, window // 2)
        self._next, self._quiet = 0, set(quiet.tolist())
        self._taper = np.hanning(window).astype(np.float32)
        self._bin_count = round(400 * window / rate)  # the sixth multiple of 60 Hz and its neighbours
        hz = np.arange(self._bin_count) * (rate / window)
        distances = [np.abs(hz - mains * k) for mains in _MAINS_HZ for k in range(1, 7)]
        self._masks = [(distance < 1.2, (distance > 4) & (distance < 12)) for distance in distances]
        self._heights: list[list[float]] = []

    def push(self, block: Samples) -> None:
        """Add samples (samples,), the same as in the first pass."""
        for index, frame in enumerate(self._splitter.push(block), start=self._next):
            self._next = index + 1
            if index in self._quiet:
                power = np.abs(np.fft.rfft(frame * self._taper)[: self._bin_count]) ** 2 + 1e-30
                ratios = [power[line].max() / np.median(power[near]) for line, near in self._masks]
                self._heights.append([float(power_to_db(ratio)) for ratio in ratios])

    def tallest_line_db(self) -> tuple[float, float]:
        """Return the height of the tallest line at multiples of 50 and of 60 Hz, dB.

        The height is the median over the windows, against the median 4 to 12 Hz beside the line.
        """
        heights = np.median(np.array(self._heights), axis=0).reshape(len(_MAINS_HZ), -1).max(axis=1)
        return float(heights[0]), float(heights[1])


class ClippedPeaks:
    """Count of clipped peaks: at least three equal samples near the peak, with a sharp corner.

    `peaks` [channel] are those of the whole recording. Channels whose peak is below -26 dBFS are
    skipped: there a step of 16 bits is as large as a corner.
    """

    def __init__(self, peaks: Samples) -> None:
        self._peaks, self.count = peaks, 0
        self._pending: Samples = np.zeros((len(peaks), 0), np.float32)

    def push(self, block: Samples) -> None:
        """Add samples (channels, samples)."""
        joined = np.concatenate([self._pending, block], axis=1)
        first = max(0, self._pending.shape[1] - 1)  # earlier samples had both neighbours already
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
            # A slow sine has equal samples at its peaks too, but no corner before them.
            self.count += int((np.abs(channel[starts] - before) > 0.005 * peak).sum())


def _dip_depth_db(level: FloatArray) -> FloatArray:
    """Return how far each cell [band, frame] lies below its band both before and after, dB."""
    # The first and the last 100 ms are left out, where np.roll wraps around.
    lags = np.arange(_NEAREST_FRAMES, _FARTHEST_FRAMES + 1)
    before = np.max([np.roll(level, k, axis=1) for k in lags], axis=0)
    after = np.max([np.roll(level, -k, axis=1) for k in lags], axis=0)
    dip: FloatArray = (np.minimum(before, after) - level)[:, _FARTHEST_FRAMES:-_FARTHEST_FRAMES]
    return dip
