"""Codebooks of both folders' frames, and nearest neighbours within and between them.

Frames are compared by their pitch spectrum and that of the quarter second before and after, which say
what is played, and by their row levels. Weights: pitch spectrum 2, its surroundings 1.4, level and fine
envelope 1/2, coarse envelope 1/4, since this and the level differ between the folders. Each folder's mean
is subtracted from its own frames, so that a fixed filter does not affect the distance.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.features import Features, ReferenceLevels, frame_levels, mean_level
from tonewood.mask.mask import moving_average
from tonewood.settings import NeighbourSettings
from tonewood.utils.arrays import FloatArray, Levels
from tonewood.utils.parallel import lazy_property

AUDIBLE_DB = 50.0  # below the loudest frame, within which frames are compared
_GROUP = 8  # distances of which the smallest is compared first
_QUERY_BATCH = 128  # frames whose distances to all codes fit into the CPU cache
_ENVELOPE_COEFFICIENTS = 10  # cepstral coefficients of level and coarse envelope
# First and last frame, relative to each frame, of the spans over which surroundings are averaged.
_SURROUNDING_SPANS = ((-24, -9), (-8, -3), (3, 8), (9, 24))
_SURROUNDING_COMPONENTS = 20  # of the pitch spectrum that are averaged; those of largest variance stand first


class KeyWeights(NamedTuple):
    """Weights of the level, of the pitch spectrum and of its surroundings in keys."""

    level: float
    fine: float
    surroundings: float


_WEIGHTS = KeyWeights(0.5, 2.0, 1.4)
# Without surroundings: in back-translation, and in models of earlier versions.
_SINGLE_FRAME_WEIGHTS = KeyWeights(1.0, 1.0, 0.0)


class PriorFeatures(NamedTuple):
    """Features of a recording, relative to a folder."""

    rows_db: Levels  # [row, frame]: relative to the recording's mean level, dB
    fine: NDArray[np.float32]  # [component, frame]: pitch spectrum, minus the folder's mean, projected
    audible: NDArray[np.bool_]  # [frame]: within 50 dB of the loudest frame
    activity: NDArray[np.float32]  # [frame]: 1 within 45 dB of the loudest frame, falling to 0 at -60 dB


@dataclass(frozen=True)
class Codebook:
    """Frames of a folder (codes), with the keys that they are compared by."""

    key: NDArray[np.float32]  # [code, row + pitch key]
    rows_db: Levels  # [code, row]
    # [code]: number of the take or session of each code; -1 for means of several
    take_index: NDArray[np.int64]

    def nearest_mean(self, query: NDArray[np.float32], count: int, *, skip: int | None = None) -> Levels:
        """Return the mean rows [row, frame] of the codes nearest to queries [frame, row + pitch key].

        Codes of take or session `skip` are left out.
        """
        half_norm = self._half_norm
        if skip is not None:
            half_norm = half_norm + np.float32(1e9) * (self.take_index == skip)  # farther away than any code
        means = np.empty((len(query), self.rows_db.shape[1]), dtype=np.float32)
        for start in range(0, len(query), _QUERY_BATCH):
            batch = slice(start, start + _QUERY_BATCH)
            # argmin |q - k|² = argmin |k|²/2 - q·k: one matrix product per batch.
            distance = query[batch] @ self.key.T
            np.subtract(half_norm, distance, out=distance)
            means[batch] = self.rows_db[_smallest(distance, min(count, len(self.key)))].mean(axis=1)
        return means.T

    @lazy_property
    def _half_norm(self) -> NDArray[np.float32]:
        half: NDArray[np.float32] = np.square(self.key).sum(axis=1) / np.float32(2)
        return half


def _smallest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the indices [row, count] of the smallest values of each row, in any order."""
    rows, columns = values.shape
    groups = columns // _GROUP
    # The smallest values are in different groups, or nearly all: few values too many are at most this limit.
    minima = values
    if groups >= count:
        minima = values[:, : _GROUP * groups].reshape(rows, _GROUP, groups).min(axis=1)
    limit = _nth_smallest(minima, count)
    below = np.flatnonzero(values <= limit)
    row = below // columns
    loose = np.flatnonzero(np.bincount(row, minlength=rows) > count)
    if loose.size:
        limit[loose] = _nth_smallest(values[loose], count)
        below = below[values.reshape(-1)[below] <= limit[row, 0]]
    if below.size != rows * count:  # ties at a limit
        return np.argpartition(values, count - 1, axis=1)[:, :count]
    smallest: NDArray[np.int64] = (below % columns).reshape(rows, count)
    return smallest


def _nth_smallest(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the `count`-th smallest value of each row [row, 1]."""
    return np.partition(values, count - 1, axis=1)[:, count - 1 : count]


@dataclass(frozen=True)
class FolderStatistics:
    """Statistics of one folder."""

    row_mean: NDArray[np.float32]  # [row]: mean of the audible frames, dB
    fine_mean: NDArray[np.float32]  # [pitch]
    # [pitch, component]: principal directions of the pitch spectrum, common to both folders
    projection: NDArray[np.float32]
    codebook: Codebook

    @property
    def compares_surroundings(self) -> bool:
        """False if each frame is compared by itself, as in models of earlier versions."""
        return bool(self.pitch_keys.shape[1] > self.projection.shape[1])

    @property
    def pitch_keys(self) -> NDArray[np.float32]:
        """Part [code, pitch key] of the keys that does not follow from the rows."""
        return self.codebook.key[:, len(self.row_mean) :]

    @property
    def fine_spread(self) -> np.float32:
        """Standard deviation of the codes' pitch spectra, projected."""
        spread: np.float32 = self._fine.std(ddof=1)
        return spread

    @property
    def _fine(self) -> NDArray[np.float32]:
        """Pitch spectra of the codes [code, component], projected."""
        weight = np.float32(_key_weights(surroundings=self.compares_surroundings).fine)
        fine: NDArray[np.float32] = self.pitch_keys[:, : self.projection.shape[1]] / weight
        return fine

    def without_surroundings(self) -> "FolderStatistics":
        """Compare each frame by itself."""
        book = self.codebook
        key = key_vectors(book.rows_db, self._fine, self.row_mean, surroundings=False)
        return replace(self, codebook=replace(book, key=key))

    def thin_codebook(self, count: int) -> "FolderStatistics":
        """Keep the first `count` codes, which are a random sample as long as they are single frames."""
        book = self.codebook
        thinned = Codebook(book.key[:count], book.rows_db[:count], book.take_index[:count])
        return replace(self, codebook=thinned)

    def group_by_session(self, session: NDArray[np.int64]) -> "FolderStatistics":
        """Replace the take numbers of the codes by those of their sessions [take]."""
        return replace(self, codebook=replace(self.codebook, take_index=session[self.codebook.take_index]))

    def prior_features(self, features: Features, levels: ReferenceLevels | None = None) -> PriorFeatures:
        """Return the features of a recording, or of a segment if its recording's levels are given."""
        rows = features.rows_db
        mean = mean_level(rows) if levels is None else np.float32(levels.mean_db)
        level = frame_levels(rows)
        loudest = level.max() if levels is None else np.float32(levels.loudest_db)
        fine = self.projection.T @ (features.fine_db - self.fine_mean[:, None])
        return PriorFeatures(
            rows - mean, fine, level > loudest - AUDIBLE_DB, activity_from_level(level - loudest)
        )

    def nearest_mean(
        self, query: NDArray[np.float32], settings: NeighbourSettings, *, skip: int | None = None
    ) -> Levels:
        """Return the mean rows [row, frame] of the nearest codes; their number grows with the codebook."""
        # The same share of a larger codebook, so that the radius stays the same.
        density = max(1.0, self.codebook.key.shape[0] / settings.codes)
        return self.codebook.nearest_mean(query, round(settings.nearest * density), skip=skip)

    def query_vectors(self, take: PriorFeatures) -> NDArray[np.float32]:
        """Return the vectors [frame, row + pitch key] that a take's frames are compared by."""
        keys = pitch_keys(take.fine, surroundings=self.compares_surroundings)
        return key_vectors(take.rows_db.T, keys, self.row_mean, surroundings=self.compares_surroundings)


def map_to_other(
    take: PriorFeatures,
    origin: FolderStatistics,
    target: FolderStatistics,
    settings: NeighbourSettings,
    hop_ms: float,
    *,
    skip_origin: int | None = None,
    skip_target: int | None = None,
    smooth_ms: float | None = None,
) -> Levels:
    """Return the mask [row, frame] in dB that maps a take from its folder to the other.

    The mask is the difference between the means of the neighbours in both folders. The deviation of a
    frame from its neighbours is reduced to a share (`keep_shape`, `keep_level`). A take that is part
    of a codebook must be skipped in it, or it would find itself.
    """
    query = origin.query_vectors(take)
    far = target.nearest_mean(query, settings, skip=skip_target)
    near = origin.nearest_mean(query, settings, skip=skip_origin)
    deviation = take.rows_db - near
    loudness = deviation.mean(axis=0, keepdims=True)
    shape = deviation - loudness
    gain = far - near - (1 - settings.keep_shape) * shape - (1 - settings.keep_level) * loudness
    span = settings.smooth_ms if smooth_ms is None else smooth_ms
    return moving_average(gain, round(span / hop_ms))


def back_translate(
    take: PriorFeatures, reference: FolderStatistics, source: FolderStatistics, hop_ms: float
) -> PriorFeatures:
    """Turn a reference take into pseudo-source, an input whose correct output is known.

    One neighbour per frame, smoothed little, so that it is as irregular as a real recording. Networks
    learn more from folders `without_surroundings` (benchmarks/rounds.md).
    """
    nearest = source.codebook.nearest_mean(reference.query_vectors(take), 1)
    gain = moving_average(nearest - take.rows_db, round(50.0 / hop_ms))
    return take._replace(rows_db=take.rows_db + gain)


def key_vectors(
    rows_db: Levels, pitch_key: NDArray[np.float32], row_mean: Levels, *, surroundings: bool = True
) -> NDArray[np.float32]:
    """Return vectors [frame, row + pitch key] of rows [frame, row] and pitch keys [frame, pitch key].

    Of the rows, cepstral coefficients 1 to 9 have weight 1/4, finer ones 1/2. `surroundings` tells
    whether the pitch keys have them.
    """
    lifter = _lifter(rows_db.shape[1], _key_weights(surroundings=surroundings).level)
    return np.concatenate([(rows_db - row_mean) @ lifter, pitch_key], axis=1)


def pitch_keys(fine: NDArray[np.float32], *, surroundings: bool = True) -> NDArray[np.float32]:
    """Return the keys [frame, pitch key] of a take's pitch spectra [component, frame].

    With surroundings, the means of the first components over spans before and after each frame follow;
    spans end with the take.
    """
    weights = _key_weights(surroundings=surroundings)
    parts = [np.float32(weights.fine) * fine]
    if surroundings:
        coarse = fine[:_SURROUNDING_COMPONENTS]
        sums = np.zeros((len(coarse), coarse.shape[1] + 1))  # double precision, since sums are subtracted
        np.cumsum(coarse, axis=1, out=sums[:, 1:])
        frame, last = np.arange(fine.shape[1]), fine.shape[1] - 1
        for span in _SURROUNDING_SPANS:
            start, end = ((frame + offset).clip(0, last) for offset in span)
            mean = (sums[:, end + 1] - sums[:, start]) / (end + 1 - start)
            parts.append((weights.surroundings * mean).astype(np.float32))
    return np.concatenate(parts).T


def count_pitch_keys(components: int, *, surroundings: bool) -> int:
    """Return the number of pitch keys of `components` components of the pitch spectrum."""
    if not surroundings:
        return components
    return components + len(_SURROUNDING_SPANS) * min(components, _SURROUNDING_COMPONENTS)


def _key_weights(*, surroundings: bool) -> KeyWeights:
    return _WEIGHTS if surroundings else _SINGLE_FRAME_WEIGHTS


@lru_cache(maxsize=8)
def _lifter(count: int, level: float) -> NDArray[np.float32]:
    """Return the matrix [row, row] that weights the cepstral coefficients of rows."""
    # Coefficient 0 is the overall level, 1 to 9 are the coarse envelope.
    weights = np.full(count, 0.5)
    weights[0], weights[1:_ENVELOPE_COEFFICIENTS] = level, 0.25
    basis = cosine_basis(count)
    lifter: NDArray[np.float64] = (basis.T * weights) @ basis
    return lifter.astype(np.float32)


def activity_from_level(level_db: Levels) -> NDArray[np.float32]:
    """Return the activity [frame] of frames by their level relative to the loudest, dB."""
    activity: NDArray[np.float32] = ((level_db + np.float32(60.0)) / np.float32(15.0)).clip(0, 1)
    return activity


def cosine_basis(count: int) -> FloatArray:
    """Return the orthonormal DCT-II [coefficient, row]."""
    k, n = np.arange(count)[:, None], np.arange(count)[None, :]
    basis = np.cos(math.pi * k * (2 * n + 1) / (2 * count)) * math.sqrt(2 / count)
    basis[0] /= math.sqrt(2)
    return basis
