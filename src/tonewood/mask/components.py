"""One aspect of a mask at a time: its tilt, its bands, their dynamics; one band, one span.

Pure functions from masks to masks. `static_component` and `dynamic_component` add up to the mask.

A mask in musicians' words: registers by their names, how bright it tilts, when it departs.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import read_segments
from tonewood.dsp.equalizer import FADE_OCTAVES
from tonewood.mask.mask import Mask
from tonewood.settings import AspectSettings
from tonewood.utils.arrays import FloatArray

SPAN_FADE_SECONDS = 0.1
_FADE_STEPS = 16  # straight pieces that a fade over frequency is made of


def select_component(
    mask: Mask,
    aspect: AspectSettings,
    reach_s: float,
    *,
    first_frame: int = 0,
    mean_db: NDArray[np.float32] | None = None,
) -> Mask:
    """The part of a mask that is wanted.

    Parameters
    ----------
    mask : Mask
        A whole one, or a stretch of one.
    reach_s : float
        How far a frame reaches either way: half the analysis window.
    first_frame : int
        Frame that a stretch begins with.
    mean_db : float32 array [row], optional
        Mean over time of the whole mask; of what is given unless told.
    """
    if aspect.only == "tilt":
        part = tilt_component(mask)
    elif aspect.only == "bands":
        part = static_component(mask, mean_db)
    elif aspect.only == "dynamics-of-bands":
        part = dynamic_component(mask, mean_db)
    else:
        part = mask
    if aspect.between is not None:
        part = limit_to_band(part, *aspect.between)
    if aspect.start_s is not None or aspect.end_s is not None:
        part = limit_to_span(part, aspect.start_s, aspect.end_s, reach_s, first_frame=first_frame)
    return part


def tilt_component(mask: Mask) -> Mask:
    """Each frame's best straight line in dB over octaves: least squares, octaves weighing alike."""
    line, octaves = fit_tilt(mask)
    return mask.with_gains((line[:1] + octaves[:, None] * line[1:]).astype(np.float32))


def fit_tilt(mask: Mask) -> tuple[FloatArray, FloatArray]:
    """Height and slope [2, frame] of each frame's line, dB and dB per octave, about 1 kHz; octaves.

    Octaves [row] are of each row from 1 kHz; a row at 0 Hz stands where the next one does, and
    weighs nothing.
    """
    lowest = mask.hz[mask.hz > 0].min(initial=np.inf)
    if not np.isfinite(lowest):
        return np.vstack([mask.gain_db[:1], np.zeros_like(mask.gain_db[:1])]), np.zeros(1)
    octaves = np.log2(np.maximum(mask.hz, lowest) / 1000.0)
    if len(np.unique(octaves)) == 1:
        mean = mask.gain_db.mean(axis=0, dtype=np.float64)
        return np.stack([mean, np.zeros_like(mean)]), np.zeros(len(octaves))
    weight = np.sqrt(np.gradient(octaves).clip(min=0) * (mask.hz > 0))
    columns = np.stack([np.ones_like(octaves), octaves], axis=1) * weight[:, None]
    line, *_ = np.linalg.lstsq(columns, weight[:, None] * mask.gain_db.astype(np.float64))
    return line, octaves


def static_component(mask: Mask, mean_db: NDArray[np.float32] | None = None) -> Mask:
    """The mean over time [row], its own unless told, held: a static EQ."""
    if mean_db is None:
        mean_db = mask.gain_db.mean(axis=1, dtype=np.float64).astype(np.float32)
    return mask.with_gains(np.repeat(mean_db[:, None], mask.frames, axis=1))


def mean_gain_db(mask: Mask) -> NDArray[np.float32]:
    """Mean over time [row] of a mask of any length, the same wherever it is kept."""
    total = np.zeros(len(mask.hz))
    for part in read_segments(mask.gains):
        total += np.ascontiguousarray(part.numpy()).sum(axis=1, dtype=np.float64)
    return (total / mask.frames).astype(np.float32)


def dynamic_component(mask: Mask, mean_db: NDArray[np.float32] | None = None) -> Mask:
    """What remains after the mean over time: how each band moves."""
    return mask.with_gains(mask.gain_db - static_component(mask, mean_db).gain_db)


def limit_to_band(mask: Mask, low_hz: float, high_hz: float) -> Mask:
    """The mask from one frequency to another, faded inside over a third of an octave at each end.

    A band narrower than two fades is one fade up and one down. Rows are added where the fades
    bend: a mask between its rows is what it was.
    """
    ends = np.log2([low_hz, high_hz])
    fade = min(FADE_OCTAVES, (ends[1] - ends[0]) / 2)
    bend = np.linspace(0, fade, _FADE_STEPS + 1)
    hz = np.union1d(mask.hz, 2.0 ** np.concatenate([ends[0] + bend, ends[1] - bend]))
    frames = np.arange(mask.frames) * mask.hop_seconds
    octave = np.log2(np.maximum(hz, 1e-3))
    share = _raised_cosine(np.minimum(octave - ends[0], ends[1] - octave) / fade)
    # Above `top_hz` a mask fades by itself, and would fade these rows a second time.
    top = mask.with_gains(mask.gains, top_hz=max(mask.top_hz, float(hz[-1])))
    gain = top.gain_at(hz, frames) * share[:, None].astype(np.float32)
    return mask.with_gains(gain, hz)


def limit_to_span(
    mask: Mask,
    start_s: float | None,
    end_s: float | None,
    reach_s: float,
    *,
    first_frame: int = 0,
) -> Mask:
    """The mask from one time to another, faded inside over 100 ms at each end.

    The fades begin so far inside that no frame with a gain reaches past the ends. A span shorter
    than two fades is one fade up and one down.
    """
    gain = mask.gain_db
    if (
        first_frame == 0 and gain.shape[1] == 1
    ):  # a single frame stands for all times, which a span has to tell apart
        last = (end_s or start_s or 0.0) + 2 * SPAN_FADE_SECONDS
        gain = np.repeat(gain, round(last / mask.hop_seconds) + 1, axis=1)
    # A frame's gain is felt up to the frames beside it, and theirs as far as they reach.
    guard = reach_s + mask.hop_seconds
    seconds = (first_frame + np.arange(gain.shape[1])) * mask.hop_seconds
    begin = -np.inf if start_s is None else start_s + guard
    finish = np.inf if end_s is None else end_s - guard
    fade = min(SPAN_FADE_SECONDS, max((finish - begin) / 2, 1e-6))
    share = _raised_cosine(np.minimum(seconds - begin, finish - seconds) / fade)
    return mask.with_gains((gain * share).astype(np.float32))


def _raised_cosine(position: FloatArray) -> FloatArray:
    """Raised cosine: 0 up to 0, 1 from 1 on."""
    share: FloatArray = 0.5 - 0.5 * np.cos(np.pi * np.clip(position, 0.0, 1.0))
    return share


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
