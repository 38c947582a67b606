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
_TAILS_HZ = ((490, 2_050), (1_950, 5_100))
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


def tails(bands: Floats) -> Floats:
    """Power [2, frame] of third octaves [band, frame], 500 Hz to 2 kHz and 2 to 5 kHz."""
    at = CENTRES_HZ[: len(bands)]
    return np.stack([bands[(at > low) & (at < high)].sum(axis=0) for low, high in _TAILS_HZ])


def decay_s(power: Floats) -> tuple[float, float] | None:
    """Seconds for 60 dB at the rate of the fastest falls of what `tails` gives [2, frame].

    A room lets nothing end faster than it does itself. The 95th percentile of all falls over
    80 ms that start 20 dB above the floor; None if there are too few. After the decay-rate
    distributions of Wen, Habets & Naylor (2008).
    """
    length = 8
    time = (np.arange(length) - (length - 1) / 2) * HOP_S
    kernel = (time / np.square(time).sum())[::-1]
    found = []
    for level in decibels(power):
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


def decibels(power: Any) -> Any:  # noqa: ANN401 - numbers and arrays alike
    """Level of a power, dB re 1, floored at -160."""
    return 10 * np.log10(np.maximum(power, 1e-16))
