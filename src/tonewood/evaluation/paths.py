"""The path of an alignment: coarse by dynamic time warping, then fine around that."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, median_filter, uniform_filter1d
from scipy.stats import trim_mean

from tonewood.evaluation.cues import HOP_S, Cues, Floats

Frames = NDArray[np.int64]

COARSE = 2  # hops in a frame of the coarse path
_LEAST = 50  # frames that the coarse search needs; shorter spans are stretched evenly
_DECAY = np.sqrt(1 / np.arange(1, 11))  # of an attack over the frames after it (DLNCO)
_CENTRE_FRAMES = 151  # what the coarse path does for less than 0.75 s is not believed
_BLUR_FRAMES = 51
_SIDES = np.array([0, -1, 1])
_STEPS = np.array([1.5, 1.5, 2.0])  # of one, of the other, of both: none is cheaper than another


class _Pass(NamedTuple):
    """A search around a path: so far, at such a price for a step aside, then so smooth."""

    reach: int
    price: float
    smooth: int


_PASSES = (_Pass(25, 0.4, 51), _Pass(12, 0.8, 15))


def coarse_path(here: Cues, there: Cues, knots: Sequence[tuple[int, int]]) -> Floats:
    """Frame of `there` for every frame of `here`, by warping from knot to knot."""
    ends = (len(here.audible) - 1, len(there.audible) - 1)
    inside = [knot for knot in knots if 0 < knot[0] < ends[0] and 0 < knot[1] < ends[1]]
    corners = [(0, 0), *inside, ends]
    at, to = [np.zeros(1)], [np.zeros(1)]
    for (a, b), (c, d) in pairwise(corners):
        path = _warped(here.of(slice(a, c + 1)), there.of(slice(b, d + 1)))
        at.append(path[0] + a)
        to.append(path[1] + b)
    places, index = np.unique(np.concatenate([*at, [ends[0]]]), return_inverse=True)
    # A frame that the path dwells on stands for the middle of where it dwells.
    means = np.bincount(index, np.concatenate([*to, [ends[1]]])) / np.bincount(index)
    return np.interp(np.arange(ends[0] + 1), places, means)


def _warped(here: Cues, there: Cues) -> Floats:
    """Path [2, step] in frames through two spans, from corner to corner."""
    lengths = len(here.audible), len(there.audible)
    if min(lengths) < _LEAST:
        return np.array([[0.0, n - 1.0] for n in lengths])
    from synctoolbox.dtw.mrmsdtw import sync_via_mrmsdtw

    chromas = [side.chroma[::COARSE].T.astype(np.float64) for side in (here, there)]
    onsets = [_decaying(side.attack) for side in (here, there)]
    rate = round(1 / (COARSE * HOP_S))
    path = sync_via_mrmsdtw(*chromas, *onsets, input_feature_rate=rate, step_weights=_STEPS)
    return np.asarray(path, dtype=np.float64) * COARSE


def _decaying(attack: NDArray[np.float32]) -> Floats:
    """Attacks [band, coarse frame] that fade, so that near misses count for something.

    After the decaying chroma onsets of Ewert, Müller & Grosche 2009.
    """
    onset = maximum_filter1d(attack, COARSE, axis=0, origin=-(COARSE // 2))[::COARSE].T
    later = [np.pad(onset, ((0, 0), (k, 0)))[:, : onset.shape[1]] for k in range(len(_DECAY))]
    faded: Floats = np.stack(later).astype(np.float64) * _DECAY[:, None, None]
    return np.asarray(faded.max(axis=0))


def refined_path(here: Cues, there: Cues, path: Floats) -> Floats:
    """The path [frame] drawn to where pitches and attacks agree best around it.

    Every frame has an offset from a smooth version of the path; a step of one frame aside has its
    price, so that a long note, in which all moments are alike, keeps the tempo it is given.
    """
    last = len(there.audible) - 1
    path = _smoothed(path, _CENTRE_FRAMES)
    for reach, price, smooth in _PASSES:
        centre = path.round().astype(np.int64)
        found = centre + steadiest(_costs(here, there, centre, reach), price)
        path = _smoothed(found.astype(np.float64), smooth)
    return np.maximum.accumulate(path.clip(0, last))


def _smoothed(path: Floats, frames: int) -> Floats:
    """The path [frame] without what is shorter than so many frames; a jump stays a jump.

    A median keeps the edge between two lags where a mean would blur it, if there is no slope
    besides: the usual tempo is taken off first.
    """
    span = min(_BLUR_FRAMES, len(path) - 1)
    tempo = trim_mean(path[span:] - path[:-span], 0.25) / span if span > 0 else 0.0
    even = tempo * np.arange(len(path))
    steady = median_filter(path - even, frames, mode="nearest")
    blurred: Floats = uniform_filter1d(steady, min(frames, _BLUR_FRAMES), mode="nearest")
    return even + blurred


def _costs(here: Cues, there: Cues, centre: Frames, reach: int) -> NDArray[np.float32]:
    """Disagreement [frame, offset] of every frame with those around its centre [frame]."""
    costs = np.empty((len(centre), 2 * reach + 1), dtype=np.float32)
    for column, offset in enumerate(range(-reach, reach + 1)):
        wanted = centre + offset
        frames = wanted.clip(0, len(there.audible) - 1)
        pitch = 1 - np.einsum("fp,fp->f", here.fine, there.fine[frames])
        attack = np.linalg.norm(there.attack[frames] - here.attack, axis=1)
        costs[:, column] = pitch + attack + (wanted != frames)
    return costs


def steadiest(costs: NDArray[np.float32], price: float) -> Frames:
    """Path [frame] of least cost through costs [frame, offset]; 0 is the middle column.

    It steps aside by one column from frame to frame, at a price, or not at all (Viterbi 1967).
    """
    count, width = costs.shape
    total = costs[0].astype(np.float64)
    came = np.zeros((count, width), dtype=np.int8)
    for frame in range(1, count):
        stepped = np.full((3, width), np.inf)
        stepped[0] = total
        stepped[1, 1:] = total[:-1] + price
        stepped[2, :-1] = total[1:] + price
        came[frame] = _SIDES[stepped.argmin(axis=0)]
        total = stepped.min(axis=0) + costs[frame]
    state = int(total.argmin())
    path = np.zeros(count, dtype=np.int64)
    for frame in range(count - 1, -1, -1):
        path[frame] = state - width // 2
        state += int(came[frame, state])
    return path
