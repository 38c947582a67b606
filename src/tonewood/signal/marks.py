"""Marks of filters, codecs, mains, converters and rooms, each looked for where it shows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]

THIRD_OCTAVES_HZ: Float64Array = 1000.0 * 2.0 ** (np.arange(-10, 14) / 3)
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


def detect_cutoff_hz(power: Float64Array, floor: Float64Array | None, rate: int) -> float:
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


def _highest_cliff_hz(level: Float64Array, fall_db: float) -> float | None:
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


def decay_band_power(bands: Float64Array) -> Float64Array:
    """Power [2, frame] of third octaves [band, frame], 500 Hz to 2 kHz and 2 to 5 kHz."""
    at = THIRD_OCTAVES_HZ[: len(bands)]
    return np.stack([bands[(at > low) & (at < high)].sum(axis=0) for low, high in _DECAY_BANDS_HZ])


def fastest_decay_seconds(power: Float64Array) -> tuple[float, float] | None:
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


def _levels_per_100_hz(power: Float64Array, rate: int) -> Float64Array:
    """Mean level [step] of a spectrum [bin] over each 100 Hz, dB."""
    step = np.arange(len(power)) * (rate / 200 / (len(power) - 1))
    which = step.astype(np.int64)
    level: Float64Array = power_to_db(np.bincount(which, power) / np.maximum(np.bincount(which), 1))[:-1]
    return level


def power_to_db(power: Any) -> Any:  # noqa: ANN401 - numbers and arrays alike
    """Level of a power, dB re 1, floored at -160."""
    return 10 * np.log10(np.maximum(power, 1e-16))
