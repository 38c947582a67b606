"""Is a recording of the kind that the source folder holds? A distance, and its limit.

Every 3 s window is described by the mean and the spread of its rows; windows of the folder form a
cloud, and a recording is as unlike the folder as its windows are far from the cloud (Mahalanobis).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from tonewood.signal.bands import frame_levels, mean_level
from tonewood.signal.tracks import TensorTimeSeries, TimeSeries, read_segments

_SHRINKAGE = 0.1
_QUANTILE = 0.99
_AUDIBLE_DB = 45.0


@dataclass(frozen=True)
class OutOfDomainDetector:
    """The cloud of a folder's windows.

    Parameters
    ----------
    mean : Tensor [feature]
    whitening : Tensor [feature, feature]
        Maps departures from the mean to unit spread.
    limit : float
        Distance that 99 % of the folder's windows keep from the cloud of the other takes.
    frames : int
        Length of a window.
    """

    mean: Tensor
    whitening: Tensor
    limit: float
    frames: int

    def distance(self, rows_db: TimeSeries) -> float:
        """Median distance of a recording's windows [row, frame] over the limit; 1 is at it."""
        points = describe_windows(rows_db, self.frames)
        return float(_mahalanobis_distances(points, self.mean, self.whitening).median()) / self.limit

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, to be stored."""
        return {
            "mean": self.mean,
            "whitening": self.whitening,
            "limit": torch.tensor(self.limit, dtype=torch.float64),
            "frames": torch.tensor(self.frames),
        }

    @classmethod
    def from_tensors(cls, named: Mapping[str, Tensor]) -> "OutOfDomainDetector":
        """Inverse of `tensors`; KeyError where one is missing."""
        return cls(named["mean"], named["whitening"], float(named["limit"]), int(named["frames"]))


def fit_detector(takes: Sequence[Tensor], frames: int) -> OutOfDomainDetector:
    """Learn the cloud of a folder's takes [row, frame]; two of them at least.

    The limit is found take by take, each against the cloud of all the others, for a take is
    always closer to a cloud that it belongs to.
    """
    points = [describe_windows(TensorTimeSeries(take), frames) for take in takes]
    sums = [_Moments.from_points(own) for own in points]
    every = reduce(_Moments.merge, sums)
    left_out = torch.cat(
        [
            _mahalanobis_distances(own, *every.subtract(its).mean_and_whitening())
            for own, its in zip(points, sums, strict=True)
        ]
    )
    # Takes that are all the same have no spread; what differs from them at all is far.
    limit = max(float(np.quantile(left_out.numpy(), _QUANTILE)), 1e-3)
    return OutOfDomainDetector(*every.mean_and_whitening(), limit, frames)


def describe_windows(rows_db: TimeSeries, frames: int) -> Tensor:
    """Mean and spread of the rows in each window [window, feature]; only audible frames count.

    Windows overlap by half, and one with less than a third of its frames audible is left out,
    unless none is left then.
    """
    level = torch.cat([frame_levels(part) for part in read_segments(rows_db)])
    heard = level > level.max() - _AUDIBLE_DB
    mean = mean_level(level[None, heard])
    total = rows_db.frames
    starts = range(0, max(1, total - frames + 1), max(1, frames // 2))
    enough = [s for s in starts if heard[s : s + frames].sum() >= max(2, frames // 3)]
    points = []
    for start, stop in [(s, min(s + frames, total)) for s in enough] or [(0, total)]:
        relative = (rows_db.read(start, stop) - mean).clamp_min(-90.0)
        part = relative[:, heard[start:stop]]
        points.append(torch.cat([part.mean(dim=1), part.std(dim=1, correction=0)]))
    return torch.stack(points)


@dataclass(frozen=True, eq=False)
class _Moments:
    """Points of a cloud, added up: their number, their sum and that of their products."""

    size: int
    total: Tensor
    products: Tensor

    @classmethod
    def from_points(cls, points: Tensor) -> "_Moments":
        x = points.double()
        return cls(len(points), x.sum(dim=0), x.T @ x)

    def subtract(self, other: "_Moments") -> "_Moments":
        """The others' points."""
        products = self.products - other.products
        return _Moments(self.size - other.size, self.total - other.total, products)

    def merge(self, other: "_Moments") -> "_Moments":
        """Both clouds' points."""
        products = self.products + other.products
        return _Moments(self.size + other.size, self.total + other.total, products)

    def mean_and_whitening(self) -> tuple[Tensor, Tensor]:
        """Mean, and whitening of the covariance shrunk towards a sphere (Ledoit & Wolf 2004)."""
        mean = self.total / self.size
        covariance = self.products / self.size - torch.outer(mean, mean)
        eye = torch.eye(len(mean), dtype=torch.float64)
        sphere = eye * covariance.diagonal().mean()
        shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * sphere + 1e-3 * eye
        factor = torch.linalg.cholesky(shrunk)
        whitening = torch.linalg.solve_triangular(factor, eye, upper=False)
        return mean.float(), whitening.float()


def _mahalanobis_distances(points: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    return ((points - mean) @ whitening.T).square().mean(dim=1).sqrt()
