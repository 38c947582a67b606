"""What a mask really did: judges that the search never saw, bounds, and controls.

A search that optimises a score can fool it. Hence questions to every output: does a judge
that the search never saw agree? Is the mask an EQ, smooth and bounded, and does its effect survive
when it is made smoother still? Is the output of the kind that the reference folder holds, and was
the input of the kind that the model knows at all? How far would the judge be fooled by the same
search from random pixels?

Is a recording of the kind that the source folder holds? A distance, and its limit.

Every 3 s window is described by the mean and the spread of its rows; windows of the folder form a
cloud, and a recording is as unlike the folder as its windows are far from the cloud (Mahalanobis).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tonewood.dsp.chunking import LazyTimeSeries, TensorTimeSeries, TimeSeries, read_segments
from tonewood.dsp.filterbank import frame_levels, is_audible, mean_level
from tonewood.mask.mask import moving_average
from tonewood.settings import CertificateSettings, Settings

CertificateVerdict = Literal["good", "limited", "refused"]


class Change(Settings):
    """A value before and after."""

    before: float
    after: float


class Certificate(Settings):
    """What was found of one output; scores are 0 for reference-like, 1 for source-like.

    Parameters
    ----------
    verdict : {"good", "limited", "refused"}
    reasons : tuple of str
        Why it is not `good`.
    scorer, judge : Change
        Of the sound itself, input and output. The judge is missing from models without one.
    judge_smoothed : float or None
        Judge of the input under the mask made smoother still: noise averages away, an EQ stays.
    judge_fooled : float or None
        Judge of what the same search makes of random pixels, without penalties.
    static_share : float or None
        Share of the judge's change that the mask's mean over time gives alone.
    largest_db, rms_db, roughness_db : float
        Of the mask; roughness is its mean step from frame to frame.
    unlikeness : float
        Distance of the input from the source folder; 1 is the limit that 99 % of its own unheard
        windows keep.
    unlike_reference : Change
        The same distance from the reference folder, of input and output.
    """

    verdict: CertificateVerdict
    reasons: tuple[str, ...]
    scorer: Change
    judge: Change | None
    judge_smoothed: float | None
    judge_fooled: float | None
    static_share: float | None
    largest_db: float
    rms_db: float
    roughness_db: float
    unlikeness: float
    unlike_reference: Change

    @property
    def line(self) -> str:
        """The certificate in one line."""
        return f"{self.verdict}: {'; '.join(self.reasons)}" if self.reasons else self.verdict


def certify(
    *,
    scorer: Change,
    judge: Change | None,
    judge_rows: Callable[[TimeSeries], float] | None,
    rows_db: TimeSeries,
    mask_db: TimeSeries,
    judge_fooled: float | None,
    roughness_db: float,
    unlikeness: float,
    unlike_reference: Change,
    settings: CertificateSettings,
    caveats: Sequence[str] = (),
) -> Certificate:
    """Question one output.

    Parameters
    ----------
    scorer, judge : Change
        Scores of the sound before and after.
    judge_rows : callable, optional
        The judge's score of a recording's rows [row, frame] in dB.
    rows_db, mask_db : Track [row, frame]
        The input, and the mask as applied.
    judge_fooled : float, optional
        Judge of what the same search made of random pixels.
    roughness_db : float
        Of the mask on its own grid.
    unlikeness : float
        Distance of the input from the source folder over its limit.
    unlike_reference : Change
        Distance of input and output from the reference folder over its limit.
    caveats : sequence of str
        What speaks against the model itself.
    """
    found = _MaskStatistics.from_gains(mask_db)
    smooth = share = None
    if judge_rows is not None and judge is not None:
        smoother = _smooth_mask(mask_db, settings.smooth_frames, settings.smooth_rows)
        constant = LazyTimeSeries(mask_db.frames, lambda first, last: found.mean_db.expand(-1, last - first))
        smooth = judge_rows(_apply_mask(rows_db, smoother))
        static, whole = (judge_rows(_apply_mask(rows_db, it)) for it in (constant, mask_db))
        moved = judge.before - whole
        share = (judge.before - static) / moved if moved > 0.05 else None
    reasons = [*caveats]
    if unlikeness > 1:
        reasons.append(
            f"the input is {unlikeness:.2f} times as far from the source folder as 99 % of its own"
        )
    if judge is not None and judge.after >= 0.5:
        reasons.append(f"the judge did not follow ({judge.before:.2f} → {judge.after:.2f})")
    if smooth is not None and smooth >= 0.5:
        reasons.append(f"the effect does not survive smoothing (judge {smooth:.2f})")
    if unlike_reference.after > 1:
        reasons.append(
            f"the output is {unlike_reference.after:.2f} times as far from the reference folder as "
            "99 % of its own"
        )
    if roughness_db > settings.max_roughness_db:
        reasons.append(
            f"the mask steps by {roughness_db:.1f} dB a frame, an EQ by at most {settings.max_roughness_db:g}"
        )
    verdict: CertificateVerdict = "refused" if unlikeness > 1 else "limited" if reasons else "good"
    return Certificate(
        verdict=verdict,
        reasons=tuple(reasons),
        scorer=scorer,
        judge=judge,
        judge_smoothed=smooth,
        judge_fooled=judge_fooled,
        static_share=share,
        largest_db=found.largest_db,
        rms_db=found.rms_db,
        roughness_db=roughness_db,
        unlikeness=unlikeness,
        unlike_reference=unlike_reference,
    )


class _MaskStatistics(NamedTuple):
    """What is read off a mask: mean over time [row, 1], largest gain, root mean square."""

    mean_db: Tensor
    largest_db: float
    rms_db: float

    @classmethod
    def from_gains(cls, mask_db: TimeSeries) -> "_MaskStatistics":
        total, square, largest = torch.zeros(()), 0.0, 0.0
        for part in read_segments(mask_db):
            total = total + part.sum(dim=1, keepdim=True, dtype=torch.float64)
            square += float(part.square().sum(dtype=torch.float64))
            largest = max(largest, float(part.abs().max()))
        rms = (square / (len(total) * mask_db.frames)) ** 0.5
        return cls((total / mask_db.frames).float(), largest, rms)


def _apply_mask(rows_db: TimeSeries, mask_db: TimeSeries) -> TimeSeries:
    return LazyTimeSeries(
        rows_db.frames, lambda first, last: rows_db.read(first, last) + mask_db.read(first, last)
    )


def _smooth_mask(mask_db: TimeSeries, frames: int, rows: int) -> TimeSeries:
    """The mask averaged over so many frames and rows."""
    reach = frames // 2

    def make(first: int, last: int) -> Tensor:
        begin = max(0, first - reach)
        part = mask_db.read(begin, min(last + reach, mask_db.frames))
        return moving_average(part, frames, rows)[:, first - begin : last - begin]

    return LazyTimeSeries(mask_db.frames, make)


_SHRINKAGE = 0.1
_QUANTILE = 0.99


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
    heard = is_audible(level)
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
