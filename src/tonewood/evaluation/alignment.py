"""Time alignment of two takes of the same piece (paper IV).

Coarse: dynamic time warping on several scales, whose memory grows linearly with length (MrMsDTW,
Prätzlich, Driedger & Müller 2016, by synctoolbox), on chroma and attacks at 50 Hz. Fine: a path of
offsets around it at 100 Hz, with a cost for each change of offset (Viterbi 1967).

The features do not depend on the colour of the instruments: fine structure of pitch, and rises of
level relative to their surroundings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, median_filter, uniform_filter1d
from scipy.stats import trim_mean

from tonewood.dsp.chunking import split_segments
from tonewood.dsp.features import band_levels, fine_structure, frame_levels, is_audible
from tonewood.errors import MissingExtraError
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray, Samples

FrameIndices = NDArray[np.int64]

SPECTRUM = SpectrumSettings()
HOP_S = SPECTRUM.hop / SPECTRUM.rate
COARSE_FACTOR = 2  # hops per frame of the coarse path
MIN_SIMILARITY = 0.5  # the same piece reaches 0.7 and more, another one 0.3: docs/evaluate.md
MAX_STUCK_SHARE = 0.3

# Attacks
_BANDS = BandSettings()
_LEVEL_FLOOR_DB = 60.0  # below the loudest frame
_ATTACK_BANDS = 12  # four mel bands each
_RISE_FRAMES = 3  # as long as the analysis window
_ATTACK_CONTEXT_FRAMES = 100  # attacks are relative to the strongest within a second
_MIN_ATTACK_DB = 6.0  # smaller rises stay small, however quiet their surroundings
_ATTACK_DECAY = np.sqrt(1 / np.arange(1, 11))  # over the following frames

# Paths
_MIN_WARP_FRAMES = 50  # that the coarse search needs; shorter spans are stretched evenly
_STEP_WEIGHTS = np.array([1.5, 1.5, 2.0])  # for steps in source, in reference, in both: none is favoured
_CENTER_SMOOTHING_FRAMES = 151  # deviations of the coarse path shorter than 0.75 s are not reliable
_BLUR_FRAMES = 51
_OFFSETS = np.array([0, -1, 1])

# Quality
_MAX_LENGTH_DIFFERENCE = 0.02
_MAX_MEDIAN_LAG_S, _MAX_P90_LAG_S = 0.020, 0.075  # an alignment's own error is about as large
_MIN_SLOPE, _MAX_SLOPE = 1 / 3, 3.0
_SLOPE_FRAMES = 50  # half a second


class _SearchPass(NamedTuple):
    """One search around a path: its radius, the cost of a change of offset, and smoothing."""

    radius: int
    step_cost: float
    smoothing_frames: int


_SEARCH_PASSES = (_SearchPass(25, 0.4, 51), _SearchPass(12, 0.8, 15))


class AlignmentFeatures(NamedTuple):
    """Features of one recording."""

    # [frame, pitch]: fine structure on quarter tones from 55 Hz, with mean 0 and length 1
    fine: NDArray[np.float32]
    chroma: NDArray[np.float32]  # [frame, 12]: peaks of the fine structure by semitone of the octave, dB
    attack: NDArray[np.float32]  # [frame, band]: rises of level, relative to the strongest within a second
    audible: NDArray[np.bool_]  # [frame]

    def select(self, span: slice) -> "AlignmentFeatures":
        """Return the frames of a span."""
        return AlignmentFeatures(self.fine[span], self.chroma[span], self.attack[span], self.audible[span])


def extract_alignment_features(wave: Samples) -> AlignmentFeatures:
    """Return the features of a mono waveform [sample] at 16 kHz."""
    rows = _mel_levels(wave)
    fine = fine_structure(wave, SPECTRUM, rows.shape[1])
    level = frame_levels(rows)
    centred = fine - fine.mean(axis=0)
    length = np.maximum(np.linalg.norm(centred, axis=0), 1e-6)
    return AlignmentFeatures(
        np.ascontiguousarray((centred / length).T),
        _fold_to_chroma(fine),
        _attack_strength(rows, float(level.max())),
        is_audible(level),
    )


def _mel_levels(wave: Samples) -> NDArray[np.float32]:
    """Return mel levels [row, frame] in dB, computed a minute at a time."""
    hop, parts = SPECTRUM.hop, []
    for segment in split_segments(wave.shape[0] // hop + 1, margin=4):  # wider than a window
        samples = wave[segment.padded_start * hop : segment.padded_stop * hop]
        parts.append(band_levels(samples, SPECTRUM.rate, _BANDS, SPECTRUM)[:, segment.core])
    return np.concatenate(parts, axis=1)


def _fold_to_chroma(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fold peaks of the fine structure [pitch, frame] to semitones [frame, 12]."""
    peaks = fine.clip(0)
    # Every other quarter tone lies between two semitones and counts half for each.
    on, between = peaks[0::2], peaks[1::2] / 2
    semitones = on + between
    semitones[1:] += between[:-1]
    return np.ascontiguousarray(semitones.reshape(-1, 12, fine.shape[1]).sum(axis=0).T)


def _attack_strength(rows: NDArray[np.float32], loudest_db: float) -> NDArray[np.float32]:
    """Return rises of the level of wide bands [frame, band], relative to the strongest nearby."""
    level = np.maximum(rows, loudest_db - _LEVEL_FLOOR_DB)
    wide = level.reshape(_ATTACK_BANDS, -1, level.shape[1]).mean(axis=1)
    wide = uniform_filter1d(wide, _RISE_FRAMES, axis=1)
    frames = wide.shape[1]
    before = np.pad(wide, ((0, 0), (_RISE_FRAMES, 0)), mode="edge")[:, :frames]
    rise = (wide - before).clip(0)
    # A rise is measured at its end; shift it to its middle.
    rise = np.pad(rise[:, _RISE_FRAMES // 2 :], ((0, 0), (0, _RISE_FRAMES // 2)))[:, :frames]
    strongest = maximum_filter1d(np.linalg.norm(rise, axis=0), _ATTACK_CONTEXT_FRAMES)
    return np.ascontiguousarray((rise / np.maximum(strongest, _MIN_ATTACK_DB)).T.astype(np.float32))


def find_coarse_path(
    source: AlignmentFeatures, reference: AlignmentFeatures, anchors: Sequence[tuple[int, int]]
) -> FloatArray:
    """Return the reference frame for every source frame, by warping from anchor to anchor."""
    ends = (len(source.audible) - 1, len(reference.audible) - 1)
    inside = [anchor for anchor in anchors if 0 < anchor[0] < ends[0] and 0 < anchor[1] < ends[1]]
    source_frames, reference_frames = [np.zeros(1)], [np.zeros(1)]
    for (a, b), (c, d) in pairwise([(0, 0), *inside, ends]):
        path = _warp_segment(source.select(slice(a, c + 1)), reference.select(slice(b, d + 1)))
        source_frames.append(path[0] + a)
        reference_frames.append(path[1] + b)
    frames, index = np.unique(np.concatenate([*source_frames, [ends[0]]]), return_inverse=True)
    # A source frame with several counterparts gets their mean.
    means = np.bincount(index, np.concatenate([*reference_frames, [ends[1]]])) / np.bincount(index)
    return np.interp(np.arange(ends[0] + 1), frames, means)


def _warp_segment(source: AlignmentFeatures, reference: AlignmentFeatures) -> FloatArray:
    """Return the path [2, step] in frames through two spans, from corner to corner."""
    lengths = len(source.audible), len(reference.audible)
    if min(lengths) < _MIN_WARP_FRAMES:
        return np.array([[0.0, n - 1.0] for n in lengths])
    from synctoolbox.dtw.mrmsdtw import sync_via_mrmsdtw

    chromas = [side.chroma[::COARSE_FACTOR].T.astype(np.float64) for side in (source, reference)]
    onsets = [_decaying_attacks(side.attack) for side in (source, reference)]
    rate = round(1 / (COARSE_FACTOR * HOP_S))
    path = sync_via_mrmsdtw(*chromas, *onsets, input_feature_rate=rate, step_weights=_STEP_WEIGHTS)
    return np.asarray(path, dtype=np.float64) * COARSE_FACTOR


def _decaying_attacks(attack: NDArray[np.float32]) -> FloatArray:
    """Return attacks [band, coarse frame] that decay (DLNCO, Ewert, Müller & Grosche 2009)."""
    # The decay lets attacks match that are a few frames apart.
    onset = maximum_filter1d(attack, COARSE_FACTOR, axis=0, origin=-(COARSE_FACTOR // 2))[::COARSE_FACTOR].T
    later = [np.pad(onset, ((0, 0), (k, 0)))[:, : onset.shape[1]] for k in range(len(_ATTACK_DECAY))]
    decayed: FloatArray = np.stack(later).astype(np.float64) * _ATTACK_DECAY[:, None, None]
    return np.asarray(decayed.max(axis=0))


def refine_path(source: AlignmentFeatures, reference: AlignmentFeatures, path: FloatArray) -> FloatArray:
    """Move the path [frame] to the offsets at which pitches and attacks agree best.

    A change of offset has a cost, so that a long note, whose frames are all alike, keeps its tempo.
    """
    path = _smooth_path(path, _CENTER_SMOOTHING_FRAMES)
    for radius, step_cost, smoothing_frames in _SEARCH_PASSES:
        centre = path.round().astype(np.int64)
        offsets = min_cost_path(_offset_costs(source, reference, centre, radius), step_cost)
        path = _smooth_path((centre + offsets).astype(np.float64), smoothing_frames)
    return np.maximum.accumulate(path.clip(0, len(reference.audible) - 1))


def _smooth_path(path: FloatArray, frames: int) -> FloatArray:
    """Remove deviations shorter than `frames` from a path [frame]; a jump stays a jump."""
    # A median keeps the edge of a jump, where a mean would blur it, but only around a constant:
    # the mean tempo is subtracted first.
    span = min(_BLUR_FRAMES, len(path) - 1)
    tempo = trim_mean(path[span:] - path[:-span], 0.25) / span if span > 0 else 0.0
    even = tempo * np.arange(len(path))
    steady = median_filter(path - even, frames, mode="nearest")
    blurred: FloatArray = uniform_filter1d(steady, min(frames, _BLUR_FRAMES), mode="nearest")
    return even + blurred


def _offset_costs(
    source: AlignmentFeatures, reference: AlignmentFeatures, centre: FrameIndices, radius: int
) -> NDArray[np.float32]:
    """Return the distance [frame, offset] of every frame to those around its centre [frame]."""
    costs = np.empty((len(centre), 2 * radius + 1), dtype=np.float32)
    for column, offset in enumerate(range(-radius, radius + 1)):
        target = centre + offset
        frames = target.clip(0, len(reference.audible) - 1)
        pitch = 1 - np.einsum("fp,fp->f", source.fine, reference.fine[frames])
        attack = np.linalg.norm(reference.attack[frames] - source.attack, axis=1)
        costs[:, column] = pitch + attack + (target != frames)
    return costs


def min_cost_path(costs: NDArray[np.float32], step_cost: float) -> FrameIndices:
    """Return the cheapest path [frame] through costs [frame, offset]; 0 is the middle column.

    From frame to frame it stays or moves by one column, at `step_cost` (Viterbi 1967).
    """
    count, width = costs.shape
    total = costs[0].astype(np.float64)
    origin = np.zeros((count, width), dtype=np.int8)
    for frame in range(1, count):
        candidates = np.full((3, width), np.inf)
        candidates[0] = total
        candidates[1, 1:] = total[:-1] + step_cost
        candidates[2, :-1] = total[1:] + step_cost
        origin[frame] = _OFFSETS[candidates.argmin(axis=0)]
        total = candidates.min(axis=0) + costs[frame]
    # Trace the path back from its cheapest end.
    state = int(total.argmin())
    path = np.zeros(count, dtype=np.int64)
    for frame in range(count - 1, -1, -1):
        path[frame] = state - width // 2
        state += int(origin[frame, state])
    return path


class Anchor(NamedTuple):
    """Times of the same moment in source and reference, in seconds."""

    source_s: float
    reference_s: float


class AlignmentQuality(NamedTuple):
    """Reliability of an alignment."""

    similarity: float  # mean cosine of the fine structures along the path; 1 for identical ones
    chance: float  # the same with the source rotated in time by multiples of a sixteenth of its length
    # Extremes of the path's slope over half a second
    slowest: float
    fastest: float
    stuck: float  # share of the source without a counterpart: the slope is below 1/3 or above 3

    @property
    def problem(self) -> str | None:
        """Reason not to measure by this alignment, if there is one."""
        if self.similarity < MIN_SIMILARITY:
            return (
                f"pitches along the alignment agree by {self.similarity:.2f} "
                f"(by chance {self.chance:.2f}); {MIN_SIMILARITY:g} is needed: "
                "check that both play the same piece, or give anchors"
            )
        if self.stuck > MAX_STUCK_SHARE:
            return (
                f"{100 * self.stuck:.0f} % of the source has no counterpart; "
                f"{100 * MAX_STUCK_SHARE:.0f} % may lack one: check that both play the whole piece, "
                "or give anchors"
            )
        return None


@dataclass(frozen=True, eq=False)
class Alignment:
    """Reference time [frame] in s of every 10 ms of the source, ascending; NaN without a counterpart.

    `exact` is True if the takes are simultaneous already and need no warping.
    """

    reference_s: FloatArray
    quality: AlignmentQuality
    exact: bool

    def to_reference(self, source_s: FloatArray) -> FloatArray:
        """Convert source to reference seconds; NaN without a counterpart."""
        if self.exact:
            return source_s
        grid = np.arange(len(self.reference_s)) * HOP_S
        return np.interp(source_s, grid, self.reference_s, right=np.nan)


def require_synctoolbox() -> None:
    """Raise MissingExtraError before any work is done if synctoolbox is not installed."""
    try:
        import synctoolbox.dtw.mrmsdtw  # noqa: F401
    except ImportError:
        raise MissingExtraError("aligning pairs needs synctoolbox: pip install '.[align]'") from None


def align_recordings(source: Samples, reference: Samples, anchors: Sequence[Anchor] = ()) -> Alignment:
    """Align two mono waveforms [sample] at 16 kHz.

    Anchors are points of the coarse path, ascending in both takes and within their sound.
    MissingExtraError if synctoolbox is not installed.
    """
    require_synctoolbox()
    # Silence before and after the piece has no counterpart: align the audible spans.
    whole = extract_alignment_features(source), extract_alignment_features(reference)
    span, reference_span = (_audible_span(side.audible) for side in whole)
    part = whole[0].select(span), whole[1].select(reference_span)
    anchor_frames = [
        (round(a.source_s / HOP_S) - span.start, round(a.reference_s / HOP_S) - reference_span.start)
        for a in anchors
    ]
    path = refine_path(*part, find_coarse_path(*part, anchor_frames)) + reference_span.start
    frames = np.arange(len(whole[0].audible))

    # Takes whose lag is within the error of an alignment are left as they are.
    if _is_simultaneous(path - frames[span], *whole, span):
        quality = _measure_alignment(*whole, frames.astype(float), np.ones(len(frames)))
        return Alignment(frames * HOP_S, quality, exact=True)

    # Frames without a counterpart have no reference time.
    slope = _path_slopes(path)
    quality = _measure_alignment(*part, path - reference_span.start, slope)
    seconds = np.full(len(frames), np.nan)
    seconds[span] = np.where(_has_counterpart(slope), path * HOP_S, np.nan)
    return Alignment(seconds, quality, exact=False)


def _audible_span(audible: NDArray[np.bool_]) -> slice:
    """Return the span of audible frames; its start is a multiple of the coarse grid."""
    first, last = np.flatnonzero(audible)[[0, -1]]
    return slice(int(first) // COARSE_FACTOR * COARSE_FACTOR, int(last) + 1)


def _is_simultaneous(
    lag: FloatArray, source: AlignmentFeatures, reference: AlignmentFeatures, span: slice
) -> bool:
    short, long = sorted((len(source.audible), len(reference.audible)))
    if short < (1 - _MAX_LENGTH_DIFFERENCE) * long:
        return False
    distance = np.abs(lag[source.audible[span]]) * HOP_S
    return bool(np.median(distance) <= _MAX_MEDIAN_LAG_S and np.quantile(distance, 0.9) <= _MAX_P90_LAG_S)


def _path_slopes(path: FloatArray) -> FloatArray:
    """Return the slope [frame] of a path over the half second around each frame."""
    radius = _SLOPE_FRAMES // 2
    frames = np.arange(len(path))
    before, after = (frames - radius).clip(0), (frames + radius).clip(0, len(path) - 1)
    return np.asarray((path[after] - path[before]) / np.maximum(after - before, 1))


def _has_counterpart(slope: FloatArray) -> NDArray[np.bool_]:
    return (slope >= _MIN_SLOPE) & (slope <= _MAX_SLOPE)


def _measure_alignment(
    source: AlignmentFeatures, reference: AlignmentFeatures, path: FloatArray, slope: FloatArray
) -> AlignmentQuality:
    columns = path.round().astype(np.int64).clip(0, len(reference.audible) - 1)
    both = source.audible[: len(columns)] & reference.audible[columns]
    both = both if both.any() else np.ones_like(both)
    partner = reference.fine[columns]

    def similarity(fine: NDArray[np.float32]) -> float:
        return float(np.einsum("fp,fp->f", fine, partner)[both].mean())

    # Rotation keeps the distribution of pitches and destroys their order.
    rotated = [similarity(np.roll(source.fine, k * len(path) // 16, axis=0)) for k in range(1, 16)]
    return AlignmentQuality(
        similarity=similarity(source.fine),
        chance=float(np.mean(rotated)),
        slowest=float(slope.min()),
        fastest=float(slope.max()),
        stuck=float(1 - _has_counterpart(slope).mean()),
    )
