"""A mask in musicians' words: registers by their names, how bright it tilts, when it departs."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tonewood.masking.aspects import fit_tilt
from tonewood.masking.mask import Mask
from tonewood.signal.spectrum import FloatArray

_REGISTER_POINTS_PER_OCTAVE = 12
REGISTER_STEP_SECONDS = 0.1
_SMOOTH_STEPS = 3
_MIN_EVENT_STEPS = 3
_MIN_EVENT_DB = 1.5


class Register(NamedTuple):
    """A part of the range that musicians and engineers have a name for."""

    name: str
    low_hz: float
    high_hz: float


REGISTERS = (
    Register("sub", 20.0, 60.0),
    Register("bass", 60.0, 250.0),
    Register("low mids", 250.0, 500.0),
    Register("mids", 500.0, 2_000.0),
    Register("presence", 2_000.0, 6_000.0),
    Register("brilliance", 6_000.0, 12_000.0),
    Register("air", 12_000.0, 20_000.0),
)


class GainEvent(NamedTuple):
    """Where a register departs from its own average.

    Parameters
    ----------
    gain_db : float
        Mean over the passage, the average included.
    """

    register: Register
    start_s: float
    end_s: float
    gain_db: float


def gain_by_register(mask: Mask, seconds: FloatArray) -> FloatArray:
    """Mean gain [register, time] in dB, every octave of a register weighing the same."""
    means = []
    for register in REGISTERS:
        octaves = np.log2(register.high_hz / register.low_hz)
        count = max(4, round(octaves * _REGISTER_POINTS_PER_OCTAVE))
        hz = register.low_hz * 2 ** ((np.arange(count) + 0.5) / count * octaves)
        means.append(mask.gain_at(hz, seconds).mean(axis=0, dtype=np.float64))
    return np.array(means)


def mean_tilt(mask: Mask) -> float:
    """Mean slope in dB per octave: above nought is brighter."""
    line, _ = fit_tilt(mask)
    return float(line[1].mean())


def gain_events(gain_db: FloatArray) -> Iterator[GainEvent]:
    """Where registers [register, time at 100 ms] depart from their averages by 1.5 dB or more.

    For 300 ms at least, and only where the gain itself is as much: where a register departs from
    its average towards nothing, nothing is to be told. The most striking, by departure times
    length, come first.
    """
    kernel = np.ones(_SMOOTH_STEPS) / _SMOOTH_STEPS
    found = []
    for register, along in zip(REGISTERS, gain_db, strict=True):
        padded = np.pad(along, _SMOOTH_STEPS // 2, mode="edge")
        away = np.convolve(padded, kernel, mode="valid") - along.mean()
        for sign in (1, -1):
            inside = np.concatenate([[False], sign * away >= _MIN_EVENT_DB, [False]])
            edges = np.flatnonzero(np.diff(inside.astype(np.int8)))
            for start, end in zip(edges[::2], edges[1::2], strict=True):
                gain = float(along[start:end].mean())
                if end - start >= _MIN_EVENT_STEPS and abs(gain) >= _MIN_EVENT_DB:
                    weight = float(np.abs(away[start:end]).sum())
                    span = (start * REGISTER_STEP_SECONDS, end * REGISTER_STEP_SECONDS)
                    found.append((weight, GainEvent(register, *span, gain)))
    for _, passage in sorted(found, key=lambda it: -it[0]):
        yield passage
