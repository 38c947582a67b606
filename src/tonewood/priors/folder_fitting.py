"""Fit the statistics of both folders: means, principal directions, and codebooks of their frames."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from tonewood.dsp.features import Features, audible_frames, mean_level
from tonewood.priors.nearest_neighbours import (
    AUDIBLE_DB,
    Codebook,
    FolderStatistics,
    key_vectors,
    pitch_keys,
)
from tonewood.settings import NeighbourSettings
from tonewood.utils.arrays import FloatArray, Levels, TakeWeights, weighted_mean

_KMEANS_ROUNDS = 4
_DIRECTION_STEP = 5  # every fifth frame suffices for the principal directions


def fit_folder_statistics(
    reference: Sequence[Features],
    source: Sequence[Features],
    settings: NeighbourSettings,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> tuple[FolderStatistics, FolderStatistics]:
    """Return the statistics of reference and source; weights are the reference takes'."""
    sides = [[_AudibleTake.from_features(take) for take in takes] for takes in (reference, source)]
    projection = _principal_directions(sides, settings.components)
    first, second = (
        _fit_folder(takes, projection, settings.frames, generator, weights)
        for takes, weights in zip(sides, (take_weights, None), strict=True)
    )
    return first, second


class _AudibleTake(NamedTuple):
    """Features of a take, relative to its mean level, and which of its frames are audible."""

    features: Features
    audible: NDArray[np.bool_]  # [frame]

    @classmethod
    def from_features(cls, take: Features) -> Self:
        """Subtract the mean level."""
        relative = take._replace(rows_db=take.rows_db - mean_level(take.rows_db))
        return cls(relative, audible_frames(relative.rows_db, AUDIBLE_DB))

    @property
    def rows_db(self) -> Levels:
        """Rows of the audible frames [row, frame]."""
        return self.features.rows_db[:, self.audible]

    @property
    def fine_db(self) -> Levels:
        """Pitch spectra of the audible frames [pitch, frame]."""
        return self.features.fine_db[:, self.audible]

    def pitch_keys(
        self, projection: NDArray[np.float32], fine_mean: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the keys [frame, pitch key] of the audible frames."""
        fine = projection.T @ (self.features.fine_db - fine_mean[:, None])
        return pitch_keys(fine)[self.audible]


def _principal_directions(sides: Sequence[Sequence[_AudibleTake]], count: int) -> NDArray[np.float32]:
    """Return the principal directions [pitch, component] of the pitch spectra of both folders together."""
    # Each folder around its own mean: what differs between them must not become a direction.
    centred = [
        fine[:, ::_DIRECTION_STEP] - fine.mean(axis=1, keepdims=True)
        for fine in (np.concatenate([take.fine_db for take in takes], axis=1) for takes in sides)
    ]
    points = np.concatenate(centred, axis=1).astype(np.float64)
    _, directions = np.linalg.eigh(points @ points.T / points.shape[1])
    # eigh sorts by rising eigenvalue: the last directions have the largest variance.
    return np.ascontiguousarray(directions[:, ::-1][:, :count].astype(np.float32))


def _fit_folder(
    takes: Sequence[_AudibleTake],
    projection: NDArray[np.float32],
    frames: int,
    generator: torch.Generator,
    weights: TakeWeights,
) -> FolderStatistics:
    """Return the statistics of one folder's audible frames, of which `frames` become codes."""
    all_rows = [take.rows_db for take in takes]
    row_mean = weighted_mean(all_rows, weights)
    fine_mean = weighted_mean([take.fine_db for take in takes], weights)
    take_index = np.repeat(np.arange(len(takes)), [rows.shape[1] for rows in all_rows])
    sample = _sample_frames(take_index, frames, generator, weights)
    rows_db = np.ascontiguousarray(np.concatenate(all_rows, axis=1)[:, sample].T)
    keys = np.concatenate([take.pitch_keys(projection, fine_mean) for take in takes])[sample]
    book = Codebook(key_vectors(rows_db, keys, row_mean), rows_db, take_index[sample])
    return FolderStatistics(row_mean, fine_mean, projection, book)


def _sample_frames(
    take_index: NDArray[np.int64], count: int, generator: torch.Generator, weights: TakeWeights
) -> NDArray[np.int64]:
    """Draw frames without replacement, by the weights of their takes; `take_index` is [frame]."""
    total = len(take_index)
    if weights is None:
        return torch.randperm(total, generator=generator)[:count].numpy()
    # A single-precision tensor, as Python's numbers become: the draws depend on the precision.
    probability = torch.tensor(weights)[torch.from_numpy(take_index)]
    return torch.multinomial(probability, min(count, total), generator=generator).numpy()


def condense_codebook(folder: FolderStatistics, count: int, generator: torch.Generator) -> FolderStatistics:
    """Reduce a folder's codebook to `count` codes by k-means."""
    book = folder.codebook
    if count >= len(book.key):
        return folder
    sample = torch.randperm(len(book.key), generator=generator)[:count].numpy()
    centre, rows = book.key[sample], book.rows_db[sample]
    for _ in range(_KMEANS_ROUNDS):
        # Assign each frame to its nearest code, then move the codes to the means.
        owner = (book.key @ centre.T - np.square(centre).sum(axis=1) / np.float32(2)).argmax(axis=1)
        members = np.bincount(owner, minlength=count)
        filled = members > 0  # a code that lost all its frames keeps its place
        centre[filled] = _sums_by_owner(book.key, owner, count)[filled] / members[filled, None]
        rows[filled] = _sums_by_owner(book.rows_db, owner, count)[filled] / members[filled, None]
    return replace(folder, codebook=Codebook(centre, rows, np.full(count, -1)))


def _sums_by_owner(x: NDArray[np.float32], owner: NDArray[np.intp], count: int) -> FloatArray:
    """Return the sums [owner, column] of the rows [row, column] of each owner, in double precision."""
    return np.stack([np.bincount(owner, column, count) for column in x.T], axis=1)
