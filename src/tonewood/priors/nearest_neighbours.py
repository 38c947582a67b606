"""Both folders as typical frames, and how a frame of one finds its like in the other.

Frames are compared by the fine structure of pitch, which says what is played, and by row levels
with their coarse envelope quartered, because the envelope is what differs between the folders.
Each folder's mean is taken off its own frames first, so that a fixed filter between the folders
does not part what belongs together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from tonewood.dsp.features import Features, ReferenceLevels
from tonewood.dsp.filterbank import audible_frames, frame_levels, mean_level
from tonewood.mask.mask import moving_average
from tonewood.settings import NeighbourSettings
from tonewood.stats.sampling import TakeWeights, weighted_mean

_AUDIBLE_DB = 50.0
_QUERY_BATCH = 512  # frames whose distances to all codes stay in the cache
_ENVELOPE_COEFFICIENTS = 10  # cepstral coefficients below this one make the coarse envelope


class PriorFeatures(NamedTuple):
    """One recording as the priors see it.

    Parameters
    ----------
    rows_db : Tensor [row, frame]
        Levels relative to the recording's own, dB.
    fine : Tensor [component, frame]
        Fine structure, projected; its folder's mean taken off.
    audible : Tensor [frame]
        Within 50 dB of the loudest frame.
    activity : Tensor [frame]
        How far there is something to adapt to: 1 within 45 dB of the loudest, 0 below 60 dB.
    """

    rows_db: Tensor
    fine: Tensor
    audible: Tensor
    activity: Tensor


@dataclass(frozen=True)
class Codebook:
    """Frames of a folder, by what they are found by and what they are.

    Parameters
    ----------
    key : Tensor [code, row + component]
    rows_db : Tensor [code, row]
    take_index : Tensor [code]
        Index of the take, or of the session, that each comes from; -1 for means of several.
    """

    key: Tensor
    rows_db: Tensor
    take_index: Tensor

    def nearest_mean(self, query: Tensor, count: int, *, skip: int | None = None) -> Tensor:
        """Mean rows [row, frame] of the `count` codes nearest to queries [frame, row + component].

        `skip` leaves the codes of one take or session out, for queries that come from it.
        """
        half_norm = self.key.square().sum(dim=1) / 2
        if skip is not None:
            half_norm = half_norm + 1e9 * (self.take_index == skip)
        count = min(count, self.key.shape[0])
        found = [
            embedding_bag(
                (part @ self.key.T - half_norm).topk(count, dim=1, sorted=False).indices,
                self.rows_db,
                mode="mean",
            )
            for part in torch.split(query, _QUERY_BATCH)
        ]
        return torch.cat(found).T


@dataclass(frozen=True)
class FolderStatistics:
    """What is known of one folder.

    Parameters
    ----------
    row_mean : Tensor [row]
        Mean of the audible frames, dB.
    fine_mean : Tensor [pitch]
    projection : Tensor [pitch, component]
        Principal directions of the fine structure, shared by both folders.
    codebook : Codebook
    """

    row_mean: Tensor
    fine_mean: Tensor
    projection: Tensor
    codebook: Codebook

    def to(self, device: torch.device) -> "FolderStatistics":
        """The folder on a device."""
        book = Codebook(*(getattr(self.codebook, it.name).to(device) for it in fields(Codebook)))
        row, fine, projection = (it.to(device) for it in (self.row_mean, self.fine_mean, self.projection))
        return FolderStatistics(row, fine, projection, book)

    def group_by_session(self, session: Tensor) -> "FolderStatistics":
        """The folder with its codes counted by the session [take] of their takes."""
        return replace(self, codebook=replace(self.codebook, take_index=session[self.codebook.take_index]))

    def prior_features(self, features: Features, levels: ReferenceLevels | None = None) -> PriorFeatures:
        """See a recording, or with its levels a part of one, as one of this folder's."""
        rows = features.rows_db
        mean = mean_level(rows) if levels is None else levels.mean_db
        level = frame_levels(rows)
        loudest = level.max() if levels is None else levels.loudest_db
        fine = self.projection.T @ (features.fine_db - self.fine_mean[:, None])
        return PriorFeatures(
            rows - mean, fine, level > loudest - _AUDIBLE_DB, activity_from_level(level - loudest)
        )

    def nearest_mean(self, query: Tensor, settings: NeighbourSettings, *, skip: int | None = None) -> Tensor:
        """Mean rows [row, frame] of as many codes as settle it: more where codes are denser."""
        density = max(1.0, self.codebook.key.shape[0] / settings.codes)
        return self.codebook.nearest_mean(query, round(settings.nearest * density), skip=skip)

    def query_vectors(self, take: PriorFeatures) -> Tensor:
        """Points [frame, row + component] by which its frames are compared."""
        return key_vectors(take.rows_db.T, take.fine.T, self.row_mean)


def fit_folder_statistics(
    reference: Sequence[Features],
    source: Sequence[Features],
    settings: NeighbourSettings,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> tuple[FolderStatistics, FolderStatistics]:
    """Learn both folders from their takes: (reference, source); shares are the reference's."""
    sides = [[_relative_features(take) for take in takes] for takes in (reference, source)]
    frames = [[take.select(audible_frames(take.rows_db, _AUDIBLE_DB)) for take in takes] for takes in sides]
    joined = [Features(*(torch.cat(parts, dim=1) for parts in zip(*side, strict=True))) for side in frames]
    centred = torch.cat(
        [side.fine_db[:, ::5] - side.fine_db.mean(dim=1, keepdim=True) for side in joined], dim=1
    ).double()
    _, directions = torch.linalg.eigh(centred @ centred.T / centred.shape[1])
    projection = directions[:, -settings.components :].flip(1).float().contiguous()
    folders = []
    for side, parts, share in zip(joined, frames, (take_weights, None), strict=True):
        row_mean = weighted_mean([part.rows_db for part in parts], share)
        fine_mean = weighted_mean([part.fine_db for part in parts], share)
        origin = torch.cat([torch.full((part.rows_db.shape[1],), i) for i, part in enumerate(parts)]).to(
            side.rows_db.device
        )
        total = side.rows_db.shape[1]
        if share is None:
            chosen = torch.randperm(total, generator=generator)[: settings.frames].to(origin)
        else:
            weight = torch.tensor(share)[origin.cpu()]
            count = min(settings.frames, total)
            chosen = torch.multinomial(weight, count, generator=generator).to(origin)
        fine = projection.T @ (side.fine_db[:, chosen] - fine_mean[:, None])
        rows = side.rows_db[:, chosen].T.contiguous()
        book = Codebook(key_vectors(rows, fine.T, row_mean), rows, origin[chosen])
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
    """Mask [row, frame] in dB that takes a recording of one folder to the other.

    The difference between the means of its neighbours there and here. Of what is the frame's own,
    its departure from its neighbours here, a share is kept and the rest taken off, since that
    share is what the folders do not have in common. A take that one of the codebooks has frames
    of is to be skipped there, or it would find itself.
    """
    query = origin.query_vectors(take)
    far = target.nearest_mean(query, settings, skip=skip_target)
    near = origin.nearest_mean(query, settings, skip=skip_origin)
    own = take.rows_db - near
    loudness = own.mean(dim=0, keepdim=True)
    shape = own - loudness
    gain = far - near - (1 - settings.keep_shape) * shape - (1 - settings.keep_level) * loudness
    span = settings.smooth_ms if smooth_ms is None else smooth_ms
    return moving_average(gain, round(span / hop_ms))


def back_translate(
    take: PriorFeatures, reference: FolderStatistics, source: FolderStatistics, hop_ms: float
) -> PriorFeatures:
    """A reference take as the source folder would have it: a pseudo-source with a known answer.

    One neighbour a frame, hardly smoothed, so that it is as rough as a real recording.
    """
    found = source.codebook.nearest_mean(reference.query_vectors(take), 1)
    gain = moving_average(found - take.rows_db, round(50.0 / hop_ms))
    return take._replace(rows_db=take.rows_db + gain)


def condense_codebook(
    folder: FolderStatistics, count: int, generator: torch.Generator, rounds: int = 4
) -> FolderStatistics:
    """The folder with its codebook condensed to so many codes by a few rounds of k-means."""
    book = folder.codebook
    if count >= book.key.shape[0]:
        return folder
    chosen = torch.randperm(book.key.shape[0], generator=generator)[:count].to(book.take_index)
    centre, rows = book.key[chosen], book.rows_db[chosen]
    for _ in range(rounds):
        owner = (book.key @ centre.T - centre.square().sum(dim=1) / 2).argmax(dim=1)
        every = book.key.new_ones(len(owner))
        members = book.key.new_zeros(count).index_add_(0, owner, every)[:, None]
        filled = members > 0  # an emptied code stays where it was
        means = [
            x.new_zeros(count, x.shape[1]).index_add_(0, owner, x) / members.clamp_min(1)
            for x in (book.key, book.rows_db)
        ]
        centre = torch.where(filled, means[0], centre)
        rows = torch.where(filled, means[1], rows)
    condensed_book = Codebook(centre, rows, book.take_index.new_full((count,), -1))
    return FolderStatistics(folder.row_mean, folder.fine_mean, folder.projection, condensed_book)


def key_vectors(rows_db: Tensor, fine: Tensor, row_mean: Tensor) -> Tensor:
    """Points [frame, row + component] of rows [frame, row] and fine structure [frame, component].

    Cepstral coefficients 1 to 9 of the rows count a quarter, all finer ones a half.
    """
    sharpened = (rows_db - row_mean) @ _lifter(rows_db.shape[1], rows_db.device)
    return torch.cat([sharpened, fine], dim=1)


@lru_cache(maxsize=8)
def _lifter(count: int, device: torch.device) -> Tensor:
    """What weighs the cepstral coefficients of rows [row, row], where it is needed."""
    weights = torch.full((count,), 0.5)
    weights[0], weights[1:_ENVELOPE_COEFFICIENTS] = 1.0, 0.25
    basis = cosine_basis(count)
    return ((basis.T * weights) @ basis).to(device)


def _relative_features(features: Features) -> Features:
    return features._replace(rows_db=features.rows_db - mean_level(features.rows_db))


def activity_from_level(level_db: Tensor) -> Tensor:
    """How present frames [frame] are by their level below the loudest, dB."""
    return ((level_db + 60.0) / 15.0).clamp(0, 1)


def cosine_basis(count: int) -> Tensor:
    """Orthonormal DCT-II [coefficient, row]."""
    k, n = torch.arange(count)[:, None], torch.arange(count)[None, :]
    basis = torch.cos(math.pi * k * (2 * n + 1) / (2 * count)) * math.sqrt(2 / count)
    basis[0] /= math.sqrt(2)
    return basis
