"""Marks of filters, codecs, mains, converters and rooms, each looked for where it shows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CENTRES_HZ: Floats = 1000.0 * 2.0 ** (np.arange(-10, 14) / 3)
"""Third-octave bands, 100 Hz to 20 kHz (IEC 61260-1, base 2)."""
EDGE = 2.0 ** (1 / 6)
"""From a band's centre to its edge."""
MAINS_HZ = (50.0, 60.0)
SILENT_DB = -110.0
"""Below the rounding noise of 16 bits, -98 dBFS: nothing was recorded."""
HOP_S = 0.01
FEWEST = 20
"""Frames that make a floor or a tail."""

_SKIRT = 6  # hundreds of Hz within which a filter has done most of its work
_LEVEL_DB = 8.0  # how far the ground below a cliff may stand out of its median


def cutoff_hz(power: Floats, floor: Floats | None, rate: int) -> float:
    """Frequency of the cliff in a mean power spectrum [bin] up to rate / 2; rate / 2 if none.

    The floor [bin] of the rests is asked first: noise has no partials to end, so what cuts it is
    a filter. An instrument that fades into its recording's noise looks much like a filter too; so
    where the floor is known, the sound's own cliff counts only if the floor steps down there.
    """
    sound = _hundreds(power, rate)
    slope = _cliff(sound, 10.0)
    if floor is None:
        return slope or rate / 2
    noise = _hundreds(floor, rate)
    if slope is not None:
        at = round(slope / 100)
        beyond = min(at + _SKIRT, len(noise) - 2)
        step = np.median(noise[at - 2 * _SKIRT : at]) - np.median(noise[beyond:])
        slope = slope if step > 5.0 else None
    return _cliff(noise, 8.0) or slope or rate / 2


def _cliff(level: Floats, fall_db: float) -> float | None:
    """Where levels [100 Hz] are half way down the highest cliff onto level ground, Hz.

    None if nothing falls by `fall_db` within a skirt.
    """
    best, found = fall_db, None
    for j in range(30, len(level) - _SKIRT):  # partials alone make cliffs below 3 kHz
        top, ground = float(np.median(level[j - _SKIRT : j])), level[j + _SKIRT :]
        fall = top - float(ground.max())
        if fall > best and ground.max() - np.median(ground) < _LEVEL_DB:
            half = np.argmax(level[j : j + _SKIRT + 1] < top - fall / 2)
            best, found = fall, 100.0 * (j + int(half))
    return found


def holes(bands_db: Floats, cutoff: float) -> float:
    """Share of cells of third octaves [band, frame] that drop out while the middle goes on.

    Such a cell is 15 dB below its band both 40 to 100 ms before and after; the bands from 500 Hz
    to 2 kHz together are not even 8 dB below theirs.
    """
    at = CENTRES_HZ[: len(bands_db)]
    high = bands_db[(at > 3_900) & (at * EDGE <= cutoff)]
    middle = decibels((10 ** (bands_db[(at > 490) & (at < 2_050)] / 10)).sum(axis=0))[None]
    if high.size == 0 or bands_db.shape[1] < 2 * FEWEST:
        return 0.0
    return float(((_dip(high) > 15) & (_dip(middle) < 8)).mean())


def hum_db(mono: NDArray[np.float32], rate: int) -> tuple[float, float] | None:
    """Height in dB of the tallest line on multiples of 50 Hz and of 60 Hz; None if too short.

    Of each of the first six multiples it is the median over the quietest quarter of the time, so
    that notes, which stop, do not count; against the median 4 to 12 Hz beside it.
    """
    window = round(0.75 * rate)
    if len(mono) < 3 * window:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(mono, window)[:: window // 2]
    energy = np.square(frames, dtype=np.float64).mean(axis=1)
    heard = np.flatnonzero(energy > 10 ** (SILENT_DB / 10))
    if heard.size == 0:
        return None
    quiet = heard[np.argsort(energy[heard])][: max(3, len(heard) // 4)]
    taper = np.hanning(window).astype(np.float32)
    kept = round(400 * window / rate)
    power = np.stack([np.abs(np.fft.rfft(frames[k] * taper)[:kept]) ** 2 for k in quiet]) + 1e-30
    hz = np.arange(kept) * (rate / window)
    tallest = []
    for mains in MAINS_HZ:
        heights = []
        for line in mains * np.arange(1, 7):
            far = np.abs(hz - line)
            beside = np.median(power[:, (far > 4) & (far < 12)], axis=1)
            peak = power[:, far < 1.2].max(axis=1)
            heights.append(float(np.median(decibels(peak / beside))))
        tallest.append(max(heights))
    return tallest[0], tallest[1]


def flat_tops(samples: NDArray[np.float32]) -> int:
    """Number of clipped peaks: three equal samples or more near the peak, with a sharp corner.

    Below -26 dBFS none is looked for: there a step of 16 bits is as large as a corner.
    """
    count = 0
    for channel in samples:
        size = np.abs(channel)
        peak = size.max()
        if peak < 0.05:
            continue
        same = (channel[1:-1] == channel[:-2]) & (channel[1:-1] == channel[2:])
        middle = np.flatnonzero(same & (size[1:-1] >= 0.98 * peak)) + 1
        starts = middle[np.diff(middle, prepend=-2) > 1]
        before = channel[np.maximum(starts - 3, 0)]
        # A slow sine has equal samples on its tops too, but no corner before them.
        count += int((np.abs(channel[starts] - before) > 0.005 * peak).sum())
    return count


def decay_s(bands: Floats) -> tuple[float, float] | None:
    """Seconds for 60 dB at the rate of the fastest falls of third octaves [band, frame], power.

    A room lets nothing end faster than it does itself. The 95th percentile of all falls over
    80 ms that start 20 dB above the floor; None if there are too few. After the decay-rate
    distributions of Wen, Habets & Naylor (2008).
    """
    at, length = CENTRES_HZ[: len(bands)], 8
    time = (np.arange(length) - (length - 1) / 2) * HOP_S
    kernel = (time / np.square(time).sum())[::-1]
    found = []
    for low, high in ((490, 2_050), (1_950, 5_100)):
        level = decibels(bands[(at > low) & (at < high)].sum(axis=0))
        if len(level) < 5 * FEWEST:
            return None
        slope = np.convolve(level, kernel, "valid")
        bottom = np.percentile(level, 2)
        start, end = level[: len(slope)], level[length - 1 :]
        falling = (start > max(bottom + 20, level.max() - 45)) & (end > bottom + 5) & (slope < -15)
        if falling.sum() < FEWEST:
            return None
        found.append(60 / float(np.percentile(-slope[falling], 95)))
    return found[0], found[1]


def _hundreds(power: Floats, rate: int) -> Floats:
    """Mean level [step] of a spectrum [bin] over each 100 Hz, dB."""
    step = np.arange(len(power)) * (rate / 200 / (len(power) - 1))
    which = step.astype(np.int64)
    level: Floats = decibels(np.bincount(which, power) / np.maximum(np.bincount(which), 1))[:-1]
    return level


def _dip(level: Floats) -> Floats:
    """How far each cell [band, frame] lies below its band both before and after, dB."""
    reach = np.arange(4, 11)
    before = np.max([np.roll(level, k, axis=1) for k in reach], axis=0)
    after = np.max([np.roll(level, -k, axis=1) for k in reach], axis=0)
    dip: Floats = (np.minimum(before, after) - level)[:, 10:-10]
    return dip


def decibels(power: Any) -> Any:  # noqa: ANN401 - numbers and arrays alike
    """Level of a power, dB re 1, floored at -160."""
    return 10 * np.log10(np.maximum(power, 1e-16))
