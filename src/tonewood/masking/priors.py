"""Where a mask starts: statistics of both folders, and the masks that they suggest.

`static` is the difference of the folders' mean spectra: a match EQ. `neighbours` adapts to every
frame: take off its folder's mean, find the frames of the reference folder that are nearest, and
let (their mean - the frame) be the mask. Nearness is judged by the fine structure, which says
what is played, and by the row levels with their coarse envelope halved, because the envelope is
what differs between the folders. No pairs are needed for either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tonewood.masking.mask import smoothed
from tonewood.settings import NeighbourSettings
from tonewood.signal.features import Features

_AUDIBLE_DB = 50.0
_COARSE = 10  # cepstral coefficients that make the coarse envelope, the mean level excepted


@dataclass(frozen=True)
class Side:
    """What the priors know of one folder.

    Parameters
    ----------
    row_mean : Tensor [row]
        Mean of audible frames, relative to their take's level, dB.
    fine_mean : Tensor [pitch]
        Mean fine structure of audible frames, dB.
    """

    row_mean: Tensor
    fine_mean: Tensor


@dataclass(frozen=True)
class Priors:
    """Statistics of both folders; all of it is stored in the model.

    Parameters
    ----------
    reference, source : Side
    projection : Tensor [pitch, component]
        Principal directions of the fine structure, over both folders.
    key : Tensor [code, row + component]
        Where stored frames of the reference folder stand in the space of queries.
    value_db : Tensor [code, row]
        Their row levels, relative to their take's level, dB.
    settings : NeighbourSettings
    """

    reference: Side
    source: Side
    projection: Tensor
    key: Tensor
    value_db: Tensor
    settings: NeighbourSettings

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, in half precision where that is precise enough, to be stored."""
        return {
            "reference.row_mean": self.reference.row_mean,
            "reference.fine_mean": self.reference.fine_mean,
            "source.row_mean": self.source.row_mean,
            "source.fine_mean": self.source.fine_mean,
            "projection": self.projection,
            "key": self.key.half(),
            "value_db": self.value_db.half(),
        }

    @classmethod
    def from_tensors(cls, named: dict[str, Tensor], settings: NeighbourSettings) -> "Priors":
        """Inverse of `tensors`; KeyError where one is missing."""
        return cls(
            Side(named["reference.row_mean"], named["reference.fine_mean"]),
            Side(named["source.row_mean"], named["source.fine_mean"]),
            named["projection"],
            named["key"].float(),
            named["value_db"].float(),
            settings,
        )

    def static(self, features: Features) -> Tensor:
        """Mask [row, frame] in dB: the same match EQ in every frame."""
        difference = self.reference.row_mean - self.source.row_mean
        return difference[:, None].expand(-1, features.rows_db.shape[1]).clone()

    def neighbours(self, features: Features, hop_ms: float) -> Tensor:
        """Mask [row, frame] in dB toward the mean of each frame's nearest reference frames."""
        relative = features.rows_db - take_level(features.rows_db)
        query = queries(relative, features.fine_db, self.source, self.projection)
        target = nearest_mean(query, self.key, self.value_db, self.settings.nearest).T
        return smoothed(target - relative, round(self.settings.smooth_ms / hop_ms))


def fit(
    reference: Sequence[Features],
    source: Sequence[Features],
    settings: NeighbourSettings,
    generator: torch.Generator,
) -> Priors:
    """Learn from the takes of both folders."""
    frames = {name: _audible(takes) for name, takes in (("r", reference), ("s", source))}
    sides = {name: Side(f.rows_db.mean(dim=1), f.fine_db.mean(dim=1)) for name, f in frames.items()}
    centred = torch.cat(
        [frames[n].fine_db[:, ::5] - sides[n].fine_mean[:, None] for n in frames], dim=1
    ).double()
    _, directions = torch.linalg.eigh(centred @ centred.T / centred.shape[1])
    projection = directions[:, -settings.components :].flip(1).float()
    stored = frames["r"].rows_db.shape[1]
    chosen = torch.randperm(stored, generator=generator)[: settings.codebook]
    picked = Features(frames["r"].rows_db[:, chosen], frames["r"].fine_db[:, chosen])
    key = queries(picked.rows_db, picked.fine_db, sides["r"], projection)
    priors = Priors(
        sides["r"], sides["s"], projection, key, picked.rows_db.T.contiguous(), settings
    )
    # Through the stored precision, so that a model is the same before and after its file.
    return Priors.from_tensors(priors.tensors(), settings)


def queries(relative_db: Tensor, fine_db: Tensor, side: Side, projection: Tensor) -> Tensor:
    """Points [frame, row + component] by which frames of a folder are compared."""
    envelope = halved_envelope(relative_db - side.row_mean[:, None])
    return torch.cat([envelope, projection.T @ (fine_db - side.fine_mean[:, None])]).T


def halved_envelope(rows_db: Tensor) -> Tensor:
    """Rows [row, frame] with cepstral coefficients 1-9 at a quarter, all finer ones at a half."""
    count = rows_db.shape[0]
    weights = torch.full((count,), 0.5)
    weights[0], weights[1:_COARSE] = 1.0, 0.25
    basis = _dct(count)
    return (basis.T * weights) @ basis @ rows_db


def nearest_mean(query: Tensor, key: Tensor, value: Tensor, count: int) -> Tensor:
    """Mean value [frame, row] of the `count` keys nearest to each query, in Euclidean distance."""
    count = min(count, key.shape[0])
    half_norm = key.square().sum(dim=1) / 2
    return torch.cat(
        [
            value[(part @ key.T - half_norm).topk(count, dim=1).indices].mean(dim=1)
            for part in torch.split(query, 2048)
        ]
    )


def take_level(rows_db: Tensor) -> Tensor:
    """Mean power of a take [row, frame] over its frames, dB, scalar."""
    return _frame_level(rows_db).div(10).mul(math.log(10)).exp().mean().log10() * 10


def _audible(takes: Sequence[Features]) -> Features:
    """Frames of all takes within 50 dB of their take's loudest, relative to its level."""
    rows, fine = [], []
    for take in takes:
        loudness = _frame_level(take.rows_db)
        heard = loudness > loudness.max() - _AUDIBLE_DB
        rows.append((take.rows_db - take_level(take.rows_db))[:, heard])
        fine.append(take.fine_db[:, heard])
    return Features(torch.cat(rows, dim=1), torch.cat(fine, dim=1))


def _frame_level(rows_db: Tensor) -> Tensor:
    return 10 * torch.log10(torch.pow(10.0, rows_db / 10).sum(dim=0))


def _dct(count: int) -> Tensor:
    """Orthonormal DCT-II [coefficient, row]."""
    k, n = torch.arange(count)[:, None], torch.arange(count)[None, :]
    basis = torch.cos(math.pi * k * (2 * n + 1) / (2 * count)) * math.sqrt(2 / count)
    basis[0] /= math.sqrt(2)
    return basis
