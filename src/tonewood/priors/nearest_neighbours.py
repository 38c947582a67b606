"""Codebooks of both folders' frames, and nearest neighbours within and between them.

Frames are compared by their pitch spectrum, which says what is played, and by their row levels with
the coarse envelope at a quarter of its weight, since the envelope differs between the folders. Each
folder's mean is subtracted from its own frames, so that a fixed filter does not affect the distance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from tonewood.dsp.features import Features, ReferenceLevels, audible_frames, frame_levels, mean_level
from tonewood.mask.mask import moving_average
from tonewood.settings import NeighbourSettings
from tonewood.stats.sampling import TakeWeights, weighted_mean

_AUDIBLE_DB = 50.0
_QUERY_BATCH = 512  # frames whose distances to all codes fit into the CPU cache
_ENVELOPE_COEFFICIENTS = 10  # cepstral coefficients of level and coarse envelope


class PriorFeatures(NamedTuple):
    """Features of a recording, relative to a folder.

    Parameters
    ----------
    rows_db : Tensor [row, frame]
        Relative to the recording's mean level, dB.
    fine : Tensor [component, frame]
        Pitch spectrum, minus the folder's mean, projected.
    audible : Tensor [frame]
        Within 50 dB of the loudest frame.
    activity : Tensor [frame]
        1 within 45 dB of the loudest frame, falling to 0 at -60 dB.
    """

    rows_db: Tensor
    fine: Tensor
    audible: Tensor
    activity: Tensor


@dataclass(frozen=True)
class Codebook:
    """Frames of a folder (codes), with the keys that they are compared by.

    Parameters
    ----------
    key : Tensor [code, row + component]
    rows_db : Tensor [code, row]
    take_index : Tensor [code]
        Number of the take or session of each code; -1 for means of several.
    """

    key: Tensor
    rows_db: Tensor
    take_index: Tensor

    def nearest_mean(self, query: Tensor, count: int, *, skip: int | None = None) -> Tensor:
        """Return the mean rows [row, frame] of the codes nearest to queries [frame, row + component].

        Codes of take or session `skip` are left out.
        """
        # argmin |q - k|² = argmax q·k - |k|²/2: one matrix product per batch.
        half_norm = self.key.square().sum(dim=1) / 2
        if skip is not None:
            half_norm = half_norm + 1e9 * (self.take_index == skip)  # farther away than any code
        count = min(count, self.key.shape[0])
        means = [
            embedding_bag(
                (batch @ self.key.T - half_norm).topk(count, dim=1, sorted=False).indices,
                self.rows_db,
                mode="mean",
            )
            for batch in torch.split(query, _QUERY_BATCH)
        ]
        return torch.cat(means).T


@dataclass(frozen=True)
class FolderStatistics:
    """Statistics of one folder.

    Parameters
    ----------
    row_mean : Tensor [row]
        Mean of the audible frames, dB.
    fine_mean : Tensor [pitch]
    projection : Tensor [pitch, component]
        Principal directions of the pitch spectrum, common to both folders.
    codebook : Codebook
    """

    row_mean: Tensor
    fine_mean: Tensor
    projection: Tensor
    codebook: Codebook

    def to(self, device: torch.device) -> "FolderStatistics":
        """Return the statistics on a device."""
        book = Codebook(*(getattr(self.codebook, field.name).to(device) for field in fields(Codebook)))
        row, fine, projection = (x.to(device) for x in (self.row_mean, self.fine_mean, self.projection))
        return FolderStatistics(row, fine, projection, book)

    def group_by_session(self, session: Tensor) -> "FolderStatistics":
        """Replace the take numbers of the codes by those of their sessions [take]."""
        return replace(self, codebook=replace(self.codebook, take_index=session[self.codebook.take_index]))

    def prior_features(self, features: Features, levels: ReferenceLevels | None = None) -> PriorFeatures:
        """Return the features of a recording, or of a segment if its recording's levels are given."""
        rows = features.rows_db
        mean = mean_level(rows) if levels is None else levels.mean_db
        level = frame_levels(rows)
        loudest = level.max() if levels is None else levels.loudest_db
        fine = self.projection.T @ (features.fine_db - self.fine_mean[:, None])
        return PriorFeatures(
            rows - mean, fine, level > loudest - _AUDIBLE_DB, activity_from_level(level - loudest)
        )

    def nearest_mean(self, query: Tensor, settings: NeighbourSettings, *, skip: int | None = None) -> Tensor:
        """Return the mean rows [row, frame] of the nearest codes; their number grows with the codebook."""
        # The same share of a larger codebook, so that the radius stays the same.
        density = max(1.0, self.codebook.key.shape[0] / settings.codes)
        return self.codebook.nearest_mean(query, round(settings.nearest * density), skip=skip)

    def query_vectors(self, take: PriorFeatures) -> Tensor:
        """Return the vectors [frame, row + component] that a take's frames are compared by."""
        return key_vectors(take.rows_db.T, take.fine.T, self.row_mean)


def fit_folder_statistics(
    reference: Sequence[Features],
    source: Sequence[Features],
    settings: NeighbourSettings,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> tuple[FolderStatistics, FolderStatistics]:
    """Return the statistics of reference and source; weights are the reference takes'."""
    sides = [[_relative_features(take) for take in takes] for takes in (reference, source)]
    frames = [[take.select(audible_frames(take.rows_db, _AUDIBLE_DB)) for take in takes] for takes in sides]
    joined = [Features(*(torch.cat(parts, dim=1) for parts in zip(*side, strict=True))) for side in frames]
    # Principal directions of both folders together, each around its own mean: what differs between
    # the folders must not become a direction.
    centred = torch.cat(
        [side.fine_db[:, ::5] - side.fine_db.mean(dim=1, keepdim=True) for side in joined], dim=1
    ).double()
    _, directions = torch.linalg.eigh(centred @ centred.T / centred.shape[1])
    # eigh sorts by rising eigenvalue: the last directions have the largest variance.
    projection = directions[:, -settings.components :].flip(1).float().contiguous()
    folders = []
    for side, takes, weights in zip(joined, frames, (take_weights, None), strict=True):
        row_mean = weighted_mean([take.rows_db for take in takes], weights)
        fine_mean = weighted_mean([take.fine_db for take in takes], weights)
        take_index = torch.cat([torch.full((take.rows_db.shape[1],), i) for i, take in enumerate(takes)]).to(
            side.rows_db.device
        )
        total = side.rows_db.shape[1]
        if weights is None:
            sample = torch.randperm(total, generator=generator)[: settings.frames]
        else:
            probability = torch.tensor(weights)[take_index.cpu()]
            sample = torch.multinomial(probability, min(settings.frames, total), generator=generator)
        sample = sample.to(take_index)
        fine = projection.T @ (side.fine_db[:, sample] - fine_mean[:, None])
        rows = side.rows_db[:, sample].T.contiguous()
        book = Codebook(key_vectors(rows, fine.T, row_mean), rows, take_index[sample])
        folders.append(FolderStatistics(row_mean, fine_mean, projection, book))
    return folders[0], folders[1]


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
) -> Tensor:
    """Return the mask [row, frame] in dB that maps a take from its folder to the other.

    The mask is the difference between the means of the neighbours in both folders. The deviation of a
    frame from its neighbours is reduced to a share (`keep_shape`, `keep_level`). A take that is part
    of a codebook must be skipped in it, or it would find itself.
    """
    query = origin.query_vectors(take)
    far = target.nearest_mean(query, settings, skip=skip_target)
    near = origin.nearest_mean(query, settings, skip=skip_origin)
    deviation = take.rows_db - near
    loudness = deviation.mean(dim=0, keepdim=True)
    shape = deviation - loudness
    gain = far - near - (1 - settings.keep_shape) * shape - (1 - settings.keep_level) * loudness
    span = settings.smooth_ms if smooth_ms is None else smooth_ms
    return moving_average(gain, round(span / hop_ms))


def back_translate(
    take: PriorFeatures, reference: FolderStatistics, source: FolderStatistics, hop_ms: float
) -> PriorFeatures:
    """Turn a reference take into pseudo-source, an input whose correct output is known.

    One neighbour per frame, smoothed little, so that it is as irregular as a real recording.
    """
    nearest = source.codebook.nearest_mean(reference.query_vectors(take), 1)
    gain = moving_average(nearest - take.rows_db, round(50.0 / hop_ms))
    return take._replace(rows_db=take.rows_db + gain)


def condense_codebook(
    folder: FolderStatistics, count: int, generator: torch.Generator, rounds: int = 4
) -> FolderStatistics:
    """Reduce a folder's codebook to `count` codes by k-means."""
    book = folder.codebook
    if count >= book.key.shape[0]:
        return folder
    sample = torch.randperm(book.key.shape[0], generator=generator)[:count].to(book.take_index)
    centre, rows = book.key[sample], book.rows_db[sample]
    for _ in range(rounds):
        # Assign each frame to its nearest code, then move the codes to the means.
        owner = (book.key @ centre.T - centre.square().sum(dim=1) / 2).argmax(dim=1)
        members = book.key.new_zeros(count).index_add_(0, owner, book.key.new_ones(len(owner)))[:, None]
        filled = members > 0  # a code that lost all its frames keeps its place
        means = [
            x.new_zeros(count, x.shape[1]).index_add_(0, owner, x) / members.clamp_min(1)
            for x in (book.key, book.rows_db)
        ]
        centre = torch.where(filled, means[0], centre)
        rows = torch.where(filled, means[1], rows)
    condensed_book = Codebook(centre, rows, book.take_index.new_full((count,), -1))
    return FolderStatistics(folder.row_mean, folder.fine_mean, folder.projection, condensed_book)


def key_vectors(rows_db: Tensor, fine: Tensor, row_mean: Tensor) -> Tensor:
    """Return vectors [frame, row + component] of rows [frame, row] and pitch spectra [frame, component].

    Cepstral coefficients 1 to 9 of the rows have weight 1/4, finer ones 1/2.
    """
    sharpened = (rows_db - row_mean) @ _lifter(rows_db.shape[1], rows_db.device)
    return torch.cat([sharpened, fine], dim=1)


@lru_cache(maxsize=8)
def _lifter(count: int, device: torch.device) -> Tensor:
    """Return the matrix [row, row] that weights the cepstral coefficients of rows."""
    # Coefficient 0 is the overall level, 1 to 9 are the coarse envelope.
    weights = torch.full((count,), 0.5)
    weights[0], weights[1:_ENVELOPE_COEFFICIENTS] = 1.0, 0.25
    basis = cosine_basis(count)
    return ((basis.T * weights) @ basis).to(device)


def _relative_features(features: Features) -> Features:
    return features._replace(rows_db=features.rows_db - mean_level(features.rows_db))


def activity_from_level(level_db: Tensor) -> Tensor:
    """Return the activity [frame] of frames by their level relative to the loudest, dB."""
    return ((level_db + 60.0) / 15.0).clamp(0, 1)


def cosine_basis(count: int) -> Tensor:
    """Return the orthonormal DCT-II [coefficient, row]."""
    k, n = torch.arange(count)[:, None], torch.arange(count)[None, :]
    basis = torch.cos(math.pi * k * (2 * n + 1) / (2 * count)) * math.sqrt(2 / count)
    basis[0] /= math.sqrt(2)
    return basis
