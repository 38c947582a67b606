"""What a mask really did: judges that the search never saw, bounds, and controls.

A search that optimises a score can fool it. Hence questions to every output: does a judge
that the search never saw agree? Is the mask an EQ, smooth and bounded, and does its effect survive
when it is made smoother still? Is the output of the kind that the reference folder holds, and was
the input of the kind that the model knows at all? How far would the judge be fooled by the same
search from random pixels?
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tonewood.masking.mask import moving_average
from tonewood.settings import CertificateSettings, Settings
from tonewood.signal.tracks import LazyTimeSeries, TimeSeries, read_segments

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
            f"the mask steps by {roughness_db:.1f} dB a frame, an EQ by at most "
            f"{settings.max_roughness_db:g}"
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
