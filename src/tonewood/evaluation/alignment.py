"""Which moment of a reference take belongs to which of a source take (paper IV).

Coarse: dynamic time warping on several scales, whose memory does not grow with the square of the
length (MrMsDTW, Prätzlich, Driedger & Müller 2016, by synctoolbox), on chroma and attacks at
50 Hz. Fine: around that path, at 100 Hz, a path of offsets that change seldom.

What an alignment goes by: pitches and attacks, whatever the instrument's colour.

Every 10 ms, from a recording at 16 kHz. Pitches are the fine structure of `signal.expand`, whose
envelope is taken off; attacks are rises of level in a dozen bands, loud or soft, weighed alike.

The path of an alignment: coarse by dynamic time warping, then fine around that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, median_filter, uniform_filter1d
from scipy.stats import trim_mean
from torch import Tensor

from tonewood.dsp.features import fine_structure
from tonewood.dsp.filterbank import band_levels, frame_levels
from tonewood.errors import MissingExtraError
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray

SPECTRUM = SpectrumSettings()
HOP_S = SPECTRUM.hop / SPECTRUM.rate
_BANDS = BandSettings()
_AUDIBLE_DB, _LEVEL_FLOOR_DB = 45.0, 60.0
_ATTACK_BANDS = 12  # bands of an attack, four mel bands each
_RISE_FRAMES = 3  # frames over which a rise is measured: the analysis window
_ATTACK_CONTEXT_FRAMES = 100  # frames around an attack whose strongest it is measured by: a second
_MIN_ATTACK_DB = 6.0  # a rise by less is no attack, however quiet its surroundings
_BLOCK_FRAMES = 6_000  # frames at once: a minute


class AlignmentFeatures(NamedTuple):
    """One recording, frame by frame.

    Parameters
    ----------
    fine : float32 array [frame, pitch]
        Fine structure on quarter tones from 55 Hz, of mean 0 and length 1.
    chroma : float32 array [frame, 12]
        Its peaks by semitone of the octave, in dB above the envelope.
    attack : float32 array [frame, band]
        Rises of level, those of a second's strongest together of length 1.
    audible : bool array [frame]
        Within 45 dB of the loudest.
    """

    fine: NDArray[np.float32]
    chroma: NDArray[np.float32]
    attack: NDArray[np.float32]
    audible: NDArray[np.bool_]

    def select(self, span: slice) -> "AlignmentFeatures":
        """Only the frames of a span."""
        return AlignmentFeatures(self.fine[span], self.chroma[span], self.attack[span], self.audible[span])


def extract_alignment_features(wave: Tensor) -> AlignmentFeatures:
    """Cues of a mono waveform [sample] at 16 kHz; memory beyond them does not grow with length."""
    rows = _mel_levels(wave)
    fine = fine_structure(wave, SPECTRUM, rows.shape[1]).numpy()
    level = frame_levels(torch.from_numpy(rows)).numpy()
    centred = fine - fine.mean(axis=0)
    length = np.maximum(np.linalg.norm(centred, axis=0), 1e-6)
    return AlignmentFeatures(
        np.ascontiguousarray((centred / length).T),
        _fold_to_chroma(fine),
        _attack_strength(rows, float(level.max())),
        level > level.max() - _AUDIBLE_DB,
    )


def _mel_levels(wave: Tensor) -> NDArray[np.float32]:
    """Mel levels [row, frame] in dB, a minute at a time; blocks overlap by more than a window."""
    hop, margin = SPECTRUM.hop, 4
    total = wave.shape[0] // hop + 1
    parts = []
    for first in range(0, total, _BLOCK_FRAMES):
        last = min(total, first + _BLOCK_FRAMES)
        lead = max(0, first - margin)
        end = wave.shape[0] if last == total else (last + margin) * hop
        part = band_levels(wave[lead * hop : end], SPECTRUM.rate, _BANDS, SPECTRUM)
        parts.append(part[:, first - lead : last - lead].numpy())
    return np.concatenate(parts, axis=1)


def _fold_to_chroma(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    """Peaks of the fine structure [pitch, frame] folded to semitones; [frame, 12].

    Pitches are quarter tones: every other one lies between two semitones and counts half for each.
    """
    peaks = fine.clip(0)
    on, between = peaks[0::2], peaks[1::2] / 2
    semitones = on + between
    semitones[1:] += between[:-1]
    return np.ascontiguousarray(semitones.reshape(-1, 12, fine.shape[1]).sum(axis=0).T)


def _attack_strength(rows: NDArray[np.float32], loudest: float) -> NDArray[np.float32]:
    """Rises of the level of wide bands, relative to the strongest within half a second."""
    heard = np.maximum(rows, loudest - _LEVEL_FLOOR_DB)
    wide = heard.reshape(_ATTACK_BANDS, -1, heard.shape[1]).mean(axis=1)
    wide = uniform_filter1d(wide, _RISE_FRAMES, axis=1)
    before = np.pad(wide, ((0, 0), (_RISE_FRAMES, 0)), mode="edge")[:, : wide.shape[1]]
    rise = (wide - before).clip(0)
    # A rise is measured at its end; it stands for the middle.
    rise = np.pad(rise[:, _RISE_FRAMES // 2 :], ((0, 0), (0, _RISE_FRAMES // 2)))[:, : wide.shape[1]]
    strongest = maximum_filter1d(np.linalg.norm(rise, axis=0), _ATTACK_CONTEXT_FRAMES)
    return np.ascontiguousarray((rise / np.maximum(strongest, _MIN_ATTACK_DB)).T.astype(np.float32))


FrameIndices = NDArray[np.int64]

COARSE_FACTOR = 2  # hops in a frame of the coarse path
_MIN_WARP_FRAMES = 50  # frames that the coarse search needs; shorter spans are stretched evenly
_DECAY = np.sqrt(1 / np.arange(1, 11))  # of an attack over the frames after it (DLNCO)
_CENTER_SMOOTHING_FRAMES = 151  # what the coarse path does for less than 0.75 s is not believed
_BLUR_FRAMES = 51
_OFFSETS = np.array([0, -1, 1])
_STEP_WEIGHTS = np.array([1.5, 1.5, 2.0])  # of one, of the other, of both: none is cheaper than another


class _SearchPass(NamedTuple):
    """A search around a path: so far, at such a price for a step aside, then so smooth."""

    radius: int
    step_cost: float
    smoothing_frames: int


_PASSES = (_SearchPass(25, 0.4, 51), _SearchPass(12, 0.8, 15))


def find_coarse_path(
    source: AlignmentFeatures, reference: AlignmentFeatures, anchors: Sequence[tuple[int, int]]
) -> FloatArray:
    """Frame of `reference` for every frame of `source`, by warping from knot to knot."""
    ends = (len(source.audible) - 1, len(reference.audible) - 1)
    inside = [knot for knot in anchors if 0 < knot[0] < ends[0] and 0 < knot[1] < ends[1]]
    corners = [(0, 0), *inside, ends]
    at, to = [np.zeros(1)], [np.zeros(1)]
    for (a, b), (c, d) in pairwise(corners):
        path = _warp_segment(source.select(slice(a, c + 1)), reference.select(slice(b, d + 1)))
        at.append(path[0] + a)
        to.append(path[1] + b)
    places, index = np.unique(np.concatenate([*at, [ends[0]]]), return_inverse=True)
    # A frame that the path dwells on stands for the middle of where it dwells.
    means = np.bincount(index, np.concatenate([*to, [ends[1]]])) / np.bincount(index)
    return np.interp(np.arange(ends[0] + 1), places, means)


def _warp_segment(source: AlignmentFeatures, reference: AlignmentFeatures) -> FloatArray:
    """Path [2, step] in frames through two spans, from corner to corner."""
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
    """Attacks [band, coarse frame] that fade, so that near misses count for something.

    After the decaying chroma onsets of Ewert, Müller & Grosche 2009.
    """
    onset = maximum_filter1d(attack, COARSE_FACTOR, axis=0, origin=-(COARSE_FACTOR // 2))[::COARSE_FACTOR].T
    later = [np.pad(onset, ((0, 0), (k, 0)))[:, : onset.shape[1]] for k in range(len(_DECAY))]
    faded: FloatArray = np.stack(later).astype(np.float64) * _DECAY[:, None, None]
    return np.asarray(faded.max(axis=0))


def refine_path(source: AlignmentFeatures, reference: AlignmentFeatures, path: FloatArray) -> FloatArray:
    """The path [frame] drawn to where pitches and attacks agree best around it.

    Every frame has an offset from a smooth version of the path; a step of one frame aside has its
    price, so that a long note, in which all moments are alike, keeps the tempo it is given.
    """
    last = len(reference.audible) - 1
    path = _smooth_path(path, _CENTER_SMOOTHING_FRAMES)
    for reach, price, smooth in _PASSES:
        centre = path.round().astype(np.int64)
        found = centre + min_cost_path(_offset_costs(source, reference, centre, reach), price)
        path = _smooth_path(found.astype(np.float64), smooth)
    return np.maximum.accumulate(path.clip(0, last))


def _smooth_path(path: FloatArray, frames: int) -> FloatArray:
    """The path [frame] without what is shorter than so many frames; a jump stays a jump.

    A median keeps the edge between two lags where a mean would blur it, if there is no slope
    besides: the usual tempo is taken off first.
    """
    span = min(_BLUR_FRAMES, len(path) - 1)
    tempo = trim_mean(path[span:] - path[:-span], 0.25) / span if span > 0 else 0.0
    even = tempo * np.arange(len(path))
    steady = median_filter(path - even, frames, mode="nearest")
    blurred: FloatArray = uniform_filter1d(steady, min(frames, _BLUR_FRAMES), mode="nearest")
    return even + blurred


def _offset_costs(
    source: AlignmentFeatures, reference: AlignmentFeatures, centre: FrameIndices, radius: int
) -> NDArray[np.float32]:
    """Disagreement [frame, offset] of every frame with those around its centre [frame]."""
    costs = np.empty((len(centre), 2 * radius + 1), dtype=np.float32)
    for column, offset in enumerate(range(-radius, radius + 1)):
        wanted = centre + offset
        frames = wanted.clip(0, len(reference.audible) - 1)
        pitch = 1 - np.einsum("fp,fp->f", source.fine, reference.fine[frames])
        attack = np.linalg.norm(reference.attack[frames] - source.attack, axis=1)
        costs[:, column] = pitch + attack + (wanted != frames)
    return costs


def min_cost_path(costs: NDArray[np.float32], step_cost: float) -> FrameIndices:
    """Path [frame] of least cost through costs [frame, offset]; 0 is the middle column.

    It steps aside by one column from frame to frame, at a price, or not at all (Viterbi 1967).
    """
    count, width = costs.shape
    total = costs[0].astype(np.float64)
    came = np.zeros((count, width), dtype=np.int8)
    for frame in range(1, count):
        stepped = np.full((3, width), np.inf)
        stepped[0] = total
        stepped[1, 1:] = total[:-1] + step_cost
        stepped[2, :-1] = total[1:] + step_cost
        came[frame] = _OFFSETS[stepped.argmin(axis=0)]
        total = stepped.min(axis=0) + costs[frame]
    state = int(total.argmin())
    path = np.zeros(count, dtype=np.int64)
    for frame in range(count - 1, -1, -1):
        path[frame] = state - width // 2
        state += int(came[frame, state])
    return path


MIN_SIMILARITY = 0.5  # right pieces reach 0.7 and more, wrong ones 0.3: docs/evaluate.md
MAX_STUCK_SHARE = 0.3
_MAX_LENGTH_DIFFERENCE = 0.02
# An alignment errs by about as much itself: half, and nine tenths, of a pair's frames so near.
_MAX_MEDIAN_LAG_S, _MAX_P90_LAG_S = 0.020, 0.075
_MIN_SLOPE, _MAX_SLOPE = 1 / 3, 3.0
_SLOPE_FRAMES = 50  # half a second


class Anchor(NamedTuple):
    """A moment of the source and the same of the reference, s, as exact as an ear finds them."""

    source_s: float
    reference_s: float


class AlignmentQuality(NamedTuple):
    """How far an alignment can be believed.

    Parameters
    ----------
    similarity : float
        Mean cosine of the fine structures of pitch along the path; 1 is the same throughout.
    chance : float
        The same with the source turned round in time by every sixteenth of its length.
    slowest, fastest : float
        Extremes of the path's slope over half a second, reference seconds per source second.
    stuck : float
        Share of the source, between its first sound and its last, for which the path finds no
        counterpart, for it all but stands still or jumps: a slope below 1/3 or above 3.
    """

    similarity: float
    chance: float
    slowest: float
    fastest: float
    stuck: float

    @property
    def problem(self) -> str | None:
        """Why such an alignment should not be measured by, or none."""
        if self.similarity < MIN_SIMILARITY:
            return (
                f"pitches along the alignment agree by {self.similarity:.2f} "
                f"(by chance {self.chance:.2f}); {MIN_SIMILARITY:g} is needed: "
                "check that both play the same piece, or give anchors"
            )
        if self.stuck > MAX_STUCK_SHARE:
            return (
                f"{100 * self.stuck:.0f} % of the source has no counterpart; "
                f"{100 * MAX_STUCK_SHARE:.0f} % may lack one: check that both play it all, "
                "or give anchors"
            )
        return None


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where in the reference every moment of the source is.

    Parameters
    ----------
    reference_s : float64 array [frame]
        Of every 10 ms of the source, rising; NaN where the source has no counterpart.
    quality : AlignmentQuality
    exact : bool
        The takes are as good as simultaneous as they are, and were left so.
    """

    reference_s: FloatArray
    quality: AlignmentQuality
    exact: bool

    def to_reference(self, source_s: FloatArray) -> FloatArray:
        """Seconds in the reference; NaN where there is no counterpart."""
        if self.exact:
            return source_s
        grid = np.arange(len(self.reference_s)) * HOP_S
        return np.interp(source_s, grid, self.reference_s, right=np.nan)


def require_synctoolbox() -> None:
    """Raise MissingExtraError now rather than after the work if nothing can align."""
    try:
        import synctoolbox.dtw.mrmsdtw  # noqa: F401
    except ImportError:
        raise MissingExtraError("aligning pairs needs synctoolbox: pip install '.[align]'") from None


def align_recordings(source: Tensor, reference: Tensor, anchors: Sequence[Anchor] = ()) -> Alignment:
    """Align two mono waveforms [sample] at 16 kHz.

    Parameters
    ----------
    anchors : sequence of Anchor
        Moments that the coarse path passes through, rising in both and within the sound.

    Raises
    ------
    MissingExtraError
        synctoolbox is not installed.
    """
    require_synctoolbox()
    here, there = extract_alignment_features(source), extract_alignment_features(reference)
    span, partner = (_audible_span(side.audible) for side in (here, there))
    heard, other = here.select(span), there.select(partner)
    knots = [
        (round(a.source_s / HOP_S) - span.start, round(a.reference_s / HOP_S) - partner.start)
        for a in anchors
    ]
    path = refine_path(heard, other, find_coarse_path(heard, other, knots)) + partner.start
    frames = np.arange(len(here.audible))
    if _is_simultaneous(path - frames[span], here, there, span):
        found = _measure_alignment(here, there, frames.astype(float), np.ones(len(frames)))
        return Alignment(frames * HOP_S, found, exact=True)
    slope = _path_slopes(path)
    found = _measure_alignment(heard, other, path - partner.start, slope)
    seconds = np.full(len(frames), np.nan)
    seconds[span] = np.where(_has_counterpart(slope), path * HOP_S, np.nan)
    return Alignment(seconds, found, exact=False)


def _audible_span(audible: NDArray[np.bool_]) -> slice:
    """Span from the first audible frame to the last; its start is even, as the coarse grid's."""
    first, last = np.flatnonzero(audible)[[0, -1]]
    return slice(int(first) // COARSE_FACTOR * COARSE_FACTOR, int(last) + 1)


def _is_simultaneous(
    lag: FloatArray, source: AlignmentFeatures, reference: AlignmentFeatures, span: slice
) -> bool:
    """Whether the lag [frame of the span] is no more than an alignment's own error."""
    short, long = sorted((len(source.audible), len(reference.audible)))
    if short < (1 - _MAX_LENGTH_DIFFERENCE) * long:
        return False
    away = np.abs(lag[source.audible[span]]) * HOP_S
    return bool(np.median(away) <= _MAX_MEDIAN_LAG_S and np.quantile(away, 0.9) <= _MAX_P90_LAG_S)


def _path_slopes(path: FloatArray) -> FloatArray:
    """Slope [frame] of a path over the half second around each frame, or all there is."""
    reach = _SLOPE_FRAMES // 2
    frames = np.arange(len(path))
    before, after = (frames - reach).clip(0), (frames + reach).clip(0, len(path) - 1)
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

    def agreement(turned: NDArray[np.float32]) -> float:
        return float(np.einsum("fp,fp->f", turned, partner)[both].mean())

    turns = [agreement(np.roll(source.fine, k * len(path) // 16, axis=0)) for k in range(1, 16)]
    return AlignmentQuality(
        similarity=agreement(source.fine),
        chance=float(np.mean(turns)),
        slowest=float(slope.min()),
        fastest=float(slope.max()),
        stuck=float(1 - _has_counterpart(slope).mean()),
    )
