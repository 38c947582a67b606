"""Parts and shapes of a mask: its components, band and time span, smoothing, limits, curve, and registers.

`static_component` and `dynamic_component` add up to the mask. `split_components` splits the sound of a
recording whose channels, or mid and side, have masks of their own.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import LazyTimeSeries, TimeSeries, read_segments
from tonewood.dsp.equalizer import FADE_OCTAVES
from tonewood.mask.mask import Mask, moving_average
from tonewood.setting_types import ChannelLink, MaskComponent
from tonewood.settings import AspectSettings, CurveSettings, ShapeSettings
from tonewood.utils.arrays import FloatArray, Levels, Samples

SPAN_FADE_SECONDS = 0.1
LIMIT_FADE_OCTAVES = 0.5
_SCALING_ROUNDS = 100  # the row sums are then 1 to 1e-9
_FADE_STEPS = 16  # linear segments that approximate a raised cosine over frequency
REGISTER_STEP_SECONDS = 0.1
_CURVE_HZ = np.geomspace(20.0, 20_000.0, 121)  # twelfths of an octave
_REGISTER_POINTS_PER_OCTAVE = 12
_SMOOTH_STEPS, _MIN_EVENT_STEPS, _MIN_EVENT_DB = 3, 3, 1.5  # of gain events


def select_component(mask: Mask, only: MaskComponent) -> Mask:
    """Return a component of a mask, computed when it is read."""
    if only == "all":
        return mask
    if only == "tilt":
        component = tilt_component
    else:
        split = static_component if only == "bands" else dynamic_component
        component = partial(split, mean_db=mean_gain_db(mask))

    def read(start: int, stop: int) -> Levels:
        return component(mask.slice_frames(start, min(stop, mask.frames))).gain_db

    return mask.with_gains(LazyTimeSeries(mask.frames, read))


def add_curve(mask: Mask, curve: CurveSettings) -> Mask:
    """Return a mask with a curve added to its static part, or in its place; computed when it is read.

    Rows are added up to 20 kHz, so that the curve holds above the frequencies of the mask too.
    """
    if not curve.points:
        return mask
    base = select_component(mask, "dynamics-of-bands") if curve.replaces_static else mask
    hz = curve_rows(mask.hz)
    at_hz, at_db = np.array(curve.points).T
    curve_db = np.interp(np.log(np.maximum(hz, 1e-3)), np.log(at_hz), at_db).astype(np.float32)[:, None]

    def read(start: int, stop: int) -> Levels:
        part = base.slice_frames(start, min(stop, mask.frames))
        gain_db: Levels = part.gain_at(hz, np.arange(part.frames) * mask.hop_seconds) + curve_db
        return gain_db

    return mask.with_gains(LazyTimeSeries(mask.frames, read), hz, max(mask.top_hz, float(hz[-1])))


def curve_rows(hz: FloatArray) -> FloatArray:
    """Return the rows of a mask with a curve: its own, and those of the curve."""
    rows: FloatArray = np.union1d(hz, _CURVE_HZ)
    return rows


def limit_to_aspect(mask: Mask, aspect: AspectSettings, reach_s: float, *, first_frame: int = 0) -> Mask:
    """Return a mask, or a slice of one, limited to the band and the time span of the settings.

    Parameters
    ----------
    reach_s : float
        Time that a frame influences to either side: half the analysis window.
    first_frame : int
        Position of the slice in the whole mask.
    """
    if aspect.between is not None:
        mask = limit_to_band(mask, *aspect.between)
    if aspect.start_s is not None or aspect.end_s is not None:
        mask = limit_to_span(mask, aspect.start_s, aspect.end_s, reach_s, first_frame=first_frame)
    return mask


def tilt_component(mask: Mask) -> Mask:
    """Return each frame's least-squares line in dB over octaves, every octave weighted equally."""
    line, octaves = fit_tilt(mask)
    return mask.with_gains((line[:1] + octaves[:, None] * line[1:]).astype(np.float32))


def fit_tilt(mask: Mask) -> tuple[FloatArray, FloatArray]:
    """Fit a line to each frame; return gain at 1 kHz and slope per octave [2, frame] in dB, and octaves.

    Octaves [row] are relative to 1 kHz. A row at 0 Hz takes the next row's octave and weight 0.
    """
    lowest = mask.hz[mask.hz > 0].min(initial=np.inf)
    if not np.isfinite(lowest):
        return np.vstack([mask.gain_db[:1], np.zeros_like(mask.gain_db[:1])]), np.zeros(1)
    octaves = np.log2(np.maximum(mask.hz, lowest) / 1000.0)
    if len(np.unique(octaves)) == 1:
        mean = mask.gain_db.mean(axis=0, dtype=np.float64)
        return np.stack([mean, np.zeros_like(mean)]), np.zeros(len(octaves))
    # Rows are dense at high frequencies; weights by their width in octaves undo that.
    weight = np.sqrt(np.gradient(octaves).clip(min=0) * (mask.hz > 0))
    columns = np.stack([np.ones_like(octaves), octaves], axis=1) * weight[:, None]
    line, *_ = np.linalg.lstsq(columns, weight[:, None] * mask.gain_db.astype(np.float64))
    return line, octaves


def static_component(mask: Mask, mean_db: NDArray[np.float32] | None = None) -> Mask:
    """Return a mask that holds the mean over time [row]: a static EQ."""
    if mean_db is None:
        mean_db = mask.gain_db.mean(axis=1, dtype=np.float64).astype(np.float32)
    return mask.with_gains(np.repeat(mean_db[:, None], mask.frames, axis=1))


def mean_gain_db(mask: Mask) -> NDArray[np.float32]:
    """Return the mean over time [row] of a mask of any length."""
    total = np.zeros(len(mask.hz))
    for gain in read_segments(mask.gains):
        # Contiguous, so that the sum is the same to the bit wherever the mask is stored.
        total += np.ascontiguousarray(gain).sum(axis=1, dtype=np.float64)
    return (total / mask.frames).astype(np.float32)


def dynamic_component(mask: Mask, mean_db: NDArray[np.float32] | None = None) -> Mask:
    """Return the mask minus its mean over time."""
    return mask.with_gains(mask.gain_db - static_component(mask, mean_db).gain_db)


def limit_to_band(mask: Mask, low_hz: float, high_hz: float) -> Mask:
    """Return the mask between two frequencies, faded over a third of an octave inside each end.

    A band narrower than two fades has no flat part. Rows are added where the fades bend; between
    other rows the mask stays as it was.
    """
    ends = np.log2([low_hz, high_hz])
    fade = min(FADE_OCTAVES, (ends[1] - ends[0]) / 2)
    bend = np.linspace(0, fade, _FADE_STEPS + 1)
    # Gains are interpolated linearly between rows, so the fades need rows of their own.
    hz = np.union1d(mask.hz, 2.0 ** np.concatenate([ends[0] + bend, ends[1] - bend]))
    frames = np.arange(mask.frames) * mask.hop_seconds
    octave = np.log2(np.maximum(hz, 1e-3))
    share = _raised_cosine(np.minimum(octave - ends[0], ends[1] - octave) / fade)
    # Above `top_hz` a mask fades already; these rows must not fade twice.
    top = mask.with_gains(mask.gains, top_hz=max(mask.top_hz, float(hz[-1])))
    gain = top.gain_at(hz, frames) * share[:, None].astype(np.float32)
    return mask.with_gains(gain, hz)


def limit_to_span(
    mask: Mask, start_s: float | None, end_s: float | None, reach_s: float, *, first_frame: int = 0
) -> Mask:
    """Return the mask between two times, faded over 100 ms inside each end.

    The fades start so far inside that no frame with a gain influences the sound outside. A span
    shorter than two fades has no flat part.
    """
    gain = mask.gain_db
    # A single frame holds for all times; a span needs one per hop.
    if first_frame == 0 and gain.shape[1] == 1:
        last = (end_s or start_s or 0.0) + 2 * SPAN_FADE_SECONDS
        gain = np.repeat(gain, round(last / mask.hop_seconds) + 1, axis=1)
    # Interpolation spreads a gain to the next frames, and each of them influences `reach_s`.
    guard = reach_s + mask.hop_seconds
    seconds = (first_frame + np.arange(gain.shape[1])) * mask.hop_seconds
    begin = -np.inf if start_s is None else start_s + guard
    finish = np.inf if end_s is None else end_s - guard
    fade = min(SPAN_FADE_SECONDS, max((finish - begin) / 2, 1e-6))
    share = _raised_cosine(np.minimum(seconds - begin, finish - seconds) / fade)
    return mask.with_gains((gain * share).astype(np.float32))


def _raised_cosine(position: FloatArray) -> FloatArray:
    """Return a raised cosine: 0 at and below 0, 1 at and above 1."""
    share: FloatArray = 0.5 - 0.5 * np.cos(np.pi * np.clip(position, 0.0, 1.0))
    return share


class Register(NamedTuple):
    """A named frequency range."""

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
    """A time span in which a register's gain deviates from its average; `gain_db` is the mean gain."""

    register: Register
    start_s: float
    end_s: float
    gain_db: float


def gain_by_register(mask: Mask, seconds: FloatArray) -> FloatArray:
    """Return mean gains [register, time] in dB, every octave of a register weighted equally."""
    means = []
    for register in REGISTERS:
        octaves = np.log2(register.high_hz / register.low_hz)
        count = max(4, round(octaves * _REGISTER_POINTS_PER_OCTAVE))
        # The middles of equal parts of an octave, so that no point lies on a border.
        hz = register.low_hz * 2 ** ((np.arange(count) + 0.5) / count * octaves)
        means.append(mask.gain_at(hz, seconds).mean(axis=0, dtype=np.float64))
    return np.array(means)


def mean_tilt(mask: Mask) -> float:
    """Return the mean slope in dB per octave; positive is brighter."""
    line, _ = fit_tilt(mask)
    return float(line[1].mean())


def gain_events(gain_db: FloatArray) -> Iterator[GainEvent]:
    """Find spans in which registers [register, time at 100 ms] deviate from their averages by 1.5 dB.

    They last 300 ms at least. The gain itself must reach 1.5 dB too: a deviation towards 0 dB is
    not an event. The largest, by deviation times duration, come first.
    """
    kernel = np.ones(_SMOOTH_STEPS) / _SMOOTH_STEPS
    events = []
    for register, gain in zip(REGISTERS, gain_db, strict=True):
        padded = np.pad(gain, _SMOOTH_STEPS // 2, mode="edge")
        deviation = np.convolve(padded, kernel, mode="valid") - gain.mean()
        # Runs of steps above the threshold, upwards and downwards.
        for sign in (1, -1):
            inside = np.concatenate([[False], sign * deviation >= _MIN_EVENT_DB, [False]])
            edges = np.flatnonzero(np.diff(inside.astype(np.int8)))
            for start, end in zip(edges[::2], edges[1::2], strict=True):
                mean_db = float(gain[start:end].mean())
                if end - start >= _MIN_EVENT_STEPS and abs(mean_db) >= _MIN_EVENT_DB:
                    weight = float(np.abs(deviation[start:end]).sum())
                    span = (start * REGISTER_STEP_SECONDS, end * REGISTER_STEP_SECONDS)
                    events.append((weight, GainEvent(register, *span, mean_db)))
    for _, event in sorted(events, key=lambda weighted: -weighted[0]):
        yield event


def count_components(channels: int, link: ChannelLink) -> int:
    """Return the number of masks that a recording needs; one if its channels are linked, or if it is mono."""
    if link == "all" or channels == 1:
        return 1
    assert link == "off" or channels == 2
    return channels


def component_labels(channels: int, link: ChannelLink) -> tuple[str, ...]:
    """Return a label for each component that has a mask of its own; none for linked channels."""
    count = count_components(channels, link)
    if count == 1:
        return ()
    return (
        ("mid", "side")
        if link == "mid-side"
        else tuple(f"channel {n} of {count}" for n in range(1, count + 1))
    )


def split_components(samples: Samples, link: ChannelLink) -> Samples:
    """Return the components [component, sample] of unlinked channels: mid and side, or the channels."""
    if link == "off":
        return samples
    left, right = samples
    return np.stack([0.5 * (left + right), 0.5 * (left - right)])


def join_components(parts: Samples, link: ChannelLink) -> Samples:
    """Undo `split_components`: to the last bit but one of a float."""
    if link == "off":
        return parts
    mid, side = parts
    return np.stack([mid + side, mid - side])


def filter_components(
    samples: Samples,
    masks: Sequence[Mask],
    link: ChannelLink,
    filter_part: Callable[[Samples, Mask], Samples],
) -> Samples:
    """Return samples (channels, samples) of which each component was filtered through its mask."""
    if len(masks) == 1:
        return filter_part(samples, masks[0])
    parts = split_components(samples, link)
    outputs = [filter_part(part[None], mask) for part, mask in zip(parts, masks, strict=True)]
    return join_components(np.concatenate(outputs), link)


def scored_masks(masks: Sequence[Mask], link: ChannelLink) -> Sequence[Mask]:
    """Return the masks that scores depend on, which are of the mean of the channels.

    That mean is the mid alone, or contains all channels alike.
    """
    return masks[:1] if link == "mid-side" else masks


def shape_mask(mask: Mask, shape: ShapeSettings, amount: float = 1.0) -> Mask:
    """Return a mask shaped by the settings, computed when it is read; the amount is not applied.

    The order is: smoothing over time, smoothing over frequency, limits, cuts or boosts. Smoothing is first,
    so that it spreads nothing beyond the limits and no boost into the cuts. The sign of `amount`, with which
    the mask will be applied, decides which gains become cuts.
    """
    if shape == ShapeSettings():
        return mask
    smooth = _smooth_over_time(mask.gains, shape.smooth_seconds / mask.hop_seconds)

    def read(start: int, stop: int) -> Levels:
        return shape_gains(smooth.read(start, stop), mask.hz, shape, amount)

    return mask.with_gains(LazyTimeSeries(mask.frames, read))


def shape_gains(gain_db: Levels, hz: FloatArray, shape: ShapeSettings, amount: float = 1.0) -> Levels:
    """Return gains [row, frame] in dB, shaped frame by frame: all of `shape_mask` but smoothing over time."""
    if shape.smooth_octaves or shape.low_hz is not None or shape.high_hz is not None:
        # Contiguous, so that the product is the same to the bit wherever the mask is stored.
        gain_db = _row_weights(hz.tobytes(), shape) @ np.ascontiguousarray(gain_db)
    if shape.direction == "both":
        return gain_db
    # A negative amount turns cuts into boosts, so the gains of the other sign are kept.
    keeps_negative_gains = (shape.direction == "cut") == (amount >= 0)
    return np.minimum(gain_db, 0) if keeps_negative_gains else np.maximum(gain_db, 0)


def _smooth_over_time(gains: TimeSeries, frames: float) -> TimeSeries:
    """Average over a centred window of about `frames` (an odd number); the ends are mirrored.

    Mirroring counts every frame equally often, so the mean over time does not change.
    """
    half, total = min(round(frames / 2), gains.frames), gains.frames
    if half == 0 or total == 1:
        return gains

    def read(start: int, stop: int) -> Levels:
        index = np.arange(start - half, min(stop, total) + half)
        mirrored = np.where(index < 0, -1 - index, np.minimum(index, 2 * total - 1 - index))
        first = int(mirrored.min())
        part = gains.read(first, int(mirrored.max()) + 1)[:, mirrored - first]
        return moving_average(part, 2 * half + 1)[:, half:-half]

    return LazyTimeSeries(total, read)


@lru_cache(maxsize=32)
def _row_weights(centres: bytes, shape: ShapeSettings) -> NDArray[np.float32]:
    """Return the weight of each row's gain in that of every shaped row [shaped row, row]."""
    hz = np.frombuffer(centres)
    # A row at 0 Hz, as spectrograms have, counts as an octave below the next one.
    lowest = float(hz[hz > 0].min(initial=np.inf))
    octaves = np.log2(np.maximum(hz, lowest / 2 if np.isfinite(lowest) else 1.0))
    weights = _smoothing_weights(octaves, shape.smooth_octaves)
    return (_limit_shares(hz, shape)[:, None] * weights).astype(np.float32)


def _smoothing_weights(octaves: FloatArray, width: float) -> FloatArray:
    """Return the matrix [row, row] that averages over a Hann window `width` octaves wide at half height.

    Every octave counts equally, however dense the rows are. Rows and columns are scaled to the sums
    of an average in both directions (Sinkhorn and Knopp, *Concerning nonnegative matrices and doubly
    stochastic matrices*, 1967), so the mean over octaves does not change.
    """
    if width == 0 or len(octaves) < 2:
        return np.eye(len(octaves))
    distance = np.minimum(np.abs(octaves[:, None] - octaves), width) / width
    kernel = np.where(distance < 1, 0.5 + 0.5 * np.cos(np.pi * distance), 0.0)
    kernel *= np.gradient(octaves)  # octaves that a row represents
    scale = np.ones(len(octaves))
    for _ in range(_SCALING_ROUNDS):
        scale = np.sqrt(scale / (kernel @ scale))
    weights = scale[:, None] * kernel * scale
    averaging: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return averaging


def _limit_shares(hz: FloatArray, shape: ShapeSettings) -> FloatArray:
    """Return the share [frequency] of a mask that the limits keep: 1 inside, 0 half an octave outside."""
    octaves = np.log2(np.maximum(hz, 1e-3))
    outside = np.zeros(len(hz))
    if shape.low_hz is not None:
        outside = np.maximum(outside, np.log2(shape.low_hz) - octaves)
    if shape.high_hz is not None:
        outside = np.maximum(outside, octaves - np.log2(shape.high_hz))
    share: FloatArray = 0.5 + 0.5 * np.cos(np.pi * np.minimum(outside / LIMIT_FADE_OCTAVES, 1.0))
    return share
