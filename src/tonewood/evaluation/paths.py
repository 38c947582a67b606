"""The path of an alignment: coarse by dynamic time warping, then fine around that."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, median_filter, uniform_filter1d
from scipy.stats import trim_mean

from tonewood.evaluation.cues import HOP_S, AlignmentFeatures, FloatArray

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


def find_coarse_path(source: AlignmentFeatures, reference: AlignmentFeatures, anchors: Sequence[tuple[int, int]]) -> FloatArray:
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


def _offset_costs(source: AlignmentFeatures, reference: AlignmentFeatures, centre: FrameIndices, radius: int) -> NDArray[np.float32]:
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
