"""Certificate of a rendered mask, and the out-of-domain detector that it relies on.

A search that optimises a score may exploit the scorer's errors. Each output is therefore measured by
what the search did not optimise: a second scorer (the judge), the same mask smoothed further, limits
that an EQ keeps, the distances of input and output from the two folders, and, on request, an
adversarial control.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tonewood.dsp.chunking import ArrayTimeSeries, LazyTimeSeries, TimeSeries, read_segments
from tonewood.dsp.features import frame_levels, is_audible, mean_power_db
from tonewood.mask.mask import MaskStatistics, moving_average
from tonewood.setting_types import Settings
from tonewood.settings import CertificateSettings, RenderSettings
from tonewood.utils.arrays import Levels

CertificateVerdict = Literal["good", "limited", "refused", "unneeded"]
_MIN_JUDGE_CHANGE = 0.05  # below it, a share of the change is a ratio of noise
WINDOW_FLOOR_DB = -90.0
"""Lowest level in the description of a window, below the recording's."""
_SHRINKAGE = 0.1  # few windows per feature: the sample covariance is nearly singular
_QUANTILE = 0.99  # one window in a hundred of the folder itself may be beyond the limit
# Distances from the nearer folder between which the adaptive part of a mask fades out. Of 216 held-out takes
# of nine corpora, two lie beyond 1 and none beyond 1.2.
_FADE_START, _FADE_END = 1.0, 1.3
_MAX_UNNEEDED_SCORE = 0.2  # above that of most held-out reference takes, below that of takes half-way
UNCHANGED_DB = 0.05
"""Gains below it are shown as 0.0 dB."""
_MIN_RISE = 0.05  # a smaller rise of a score is not counted as one


class Change(Settings):
    """A value of the input and of the output."""

    before: float
    after: float


class WholeCorrection(Settings):
    """Scores of a correction's input, and of its output at full strength, of which a share was applied."""

    scorer: Change
    judge: Change | None
    unlike_reference: Change
    roughness_db: float


class Certificate(Settings):
    """Verdict on one output, and its grounds. Scores: 0 is reference-like, 1 source-like.

    The verdict is on the whole correction: half of a good one is not worse for having less effect.
    """

    verdict: CertificateVerdict  # `unneeded` if the recording sounds like the reference already
    reasons: tuple[str, ...]  # why the verdict is not `good`
    scorer: Change  # scores of input and output
    judge: Change | None  # the judge's scores of input and output; None for models without a judge
    # Judge's score under the mask smoothed further: smoothing removes noise, but not an EQ
    judge_smoothed: float | None
    # Judge's score of the adversarial control: random pixels, searched without penalties
    judge_fooled: float | None
    static_share: float | None  # share of the judge's change that the mask's mean over time achieves alone
    # Of the mask; roughness is its mean step from frame to frame
    largest_db: float
    rms_db: float
    roughness_db: float
    # Distance of the input from the source folder; 99 % of the folder's held-out windows are below 1
    unlikeness: float
    unlike_reference: Change  # the same distance from the reference folder
    # Deviation of the gains from their mean, both weighted by the power of the input: the overall level is
    # matched anyway. None in certificates of earlier versions.
    heard_db: float | None = Field(None, exclude_if=lambda heard: heard is None)
    # Largest gain or attenuation of 99 % of the power, which is that of the louder of input and output. None
    # in certificates of earlier versions.
    most_db: float | None = Field(None, exclude_if=lambda most: most is None)
    # Both are left out of files if unused, so that earlier versions of Tonewood read the others.
    # Which share of the correction was applied; None if it was the whole
    share: str | None = Field(None, exclude_if=lambda share: share is None)
    # What the verdict, `judge_smoothed` and `static_share` are based on, if it is not the output
    whole: WholeCorrection | None = Field(None, exclude_if=lambda whole: whole is None)

    @property
    def is_unchanged(self) -> bool:
        """True if the output is the input: every gain is shown as 0.0 dB."""
        return self.largest_db < UNCHANGED_DB

    @property
    def size(self) -> str:
        """Size of the mask in words."""
        if self.heard_db is None:
            return f"{self.rms_db:.1f} dB rms, {self.largest_db:.1f} dB at most"
        if self.most_db is None:
            return f"{self.heard_db:.1f} dB where there is sound, {self.largest_db:.1f} dB at most"
        return f"{self.heard_db:.1f} dB where there is sound, at most {self.most_db:.1f} dB on 99 % of it"

    @property
    def line(self) -> str:
        """The certificate in one line."""
        verdict = "already there" if self.verdict == "unneeded" else self.verdict
        line = f"{verdict}: {'; '.join(self.reasons)}" if self.reasons else verdict
        if self.share is None:
            return line
        return f"{line} (applied: {self.share}{'; judged in full' if self.whole else ''})"

    def unchanged(self, share: str | None) -> Self:
        """Return the certificate of an output that equals its input."""
        reasons = ("nothing was changed, because every applied gain is 0 dB",)
        return self.model_copy(update={"verdict": "limited", "reasons": reasons, "share": share})

    def of_share(self, share: str, applied: Self) -> Self:
        """Return the certificate of an output to which a share of this certificate's correction was applied.

        Parameters
        ----------
        applied : Certificate
            Of that output, taken as a correction of its own.
        """
        whole = WholeCorrection(
            scorer=self.scorer,
            judge=self.judge,
            unlike_reference=self.unlike_reference,
            roughness_db=self.roughness_db,
        )
        scores, sizes = (
            ("scorer", "judge", "unlike_reference"),
            ("largest_db", "rms_db", "heard_db", "most_db", "roughness_db"),
        )
        changes = {name: getattr(applied, name) for name in (*scores, *sizes)}
        return self.model_copy(update={**changes, "share": share, "whole": whole})


def share_text(settings: RenderSettings) -> str | None:
    """Return in words which share of a mask the settings apply; None for the whole."""
    aspect, shape = settings.aspect, settings.shape
    parts = []
    if settings.amount != 1:
        away = ", away from the reference" if settings.amount < 0 else ""
        parts.append(f"{100 * settings.amount:.0f} %{away}")
    if aspect.only != "all":
        parts.append(f"{aspect.only.replace('-', ' ')} only")
    if aspect.between is not None:
        parts.append("{:g} to {:g} Hz only".format(*aspect.between))
    for word, seconds in (("from", aspect.start_s), ("to", aspect.end_s)):
        parts += [f"{word} {seconds:g} s"] if seconds is not None else []
    octaves = "octave" if shape.smooth_octaves == 1 else "octaves"
    for width, unit in ((shape.smooth_octaves, octaves), (shape.smooth_seconds, "s")):
        parts += [f"smoothed over {width:g} {unit}"] if width else []
    for word, hz in (("above", shape.low_hz), ("below", shape.high_hz)):
        parts += [f"{word} {hz:g} Hz"] if hz is not None else []
    if shape.direction != "both":
        parts.append(f"{shape.direction}s only")
    return ", ".join(parts) or None


@dataclass(frozen=True)
class Measurements:
    """Measurements of one output, named as in `Certificate`; caveats are doubts about the model."""

    scorer: Change
    judge: Change | None
    judge_fooled: float | None
    roughness_db: float
    unlikeness: float
    unlike_reference: Change
    caveats: tuple[str, ...] = ()
    # False for models of earlier versions: their scores do not say how far a recording is, and they refuse
    # every recording that is unlike the source folder.
    has_graded_scorer: bool = False

    def is_convincing(self, judge: float) -> bool:
        """Return True if a judge's score of the output shows an improvement."""
        if self.has_graded_scorer and self.judge is not None:
            return is_improvement(self.judge.before, judge)
        return judge < 0.5

    @property
    def is_refused(self) -> bool:
        """True if the model does not know this kind of recording."""
        return is_unknown_kind(self.unlikeness, self.unlike_reference.before, self.has_graded_scorer)

    @property
    def is_unneeded(self) -> bool:
        """True if the recording sounds like the reference already."""
        return self._needs_no_change("before")

    @property
    def is_unneeded_after(self) -> bool:
        """True if the output sounds like the reference."""
        return self._needs_no_change("after")

    def _needs_no_change(self, when: Literal["before", "after"]) -> bool:
        judge = None if self.judge is None else getattr(self.judge, when)
        return self.has_graded_scorer and needs_no_change(
            getattr(self.scorer, when), judge, getattr(self.unlike_reference, when)
        )


def is_improvement(before: float, after: float) -> bool:
    """Return True if a quarter of a score is gone, or if it is below 0.5 and has not risen."""
    # A graded score of 0.93 is seldom halved in one pass: about half of the way can be gone.
    return after <= 0.75 * before or (after < 0.5 and not is_rise(before, after))


def is_rise(before: float, after: float) -> bool:
    """Return True if a score rises by more than `_MIN_RISE`."""
    return after > before + _MIN_RISE


def is_unknown_kind(unlike_source: float, unlike_reference: float, has_graded_scorer: bool) -> bool:
    """Return True if a model does not know a kind of recording, by its distances from both folders."""
    if has_graded_scorer:
        return adaptive_share(min(unlike_source, unlike_reference)) == 0
    return unlike_source > _FADE_START


def needs_no_change(scorer: float, judge: float | None, unlike_reference: float) -> bool:
    """Return True if a recording sounds like the reference: by graded scores, and by its distance from it."""
    # 0.5 is half-way to the reference; the judge confirms no more than the side.
    return scorer <= _MAX_UNNEEDED_SCORE and (judge is None or judge < 0.5) and unlike_reference <= 1


def adaptive_share(unlikeness: float) -> float:
    """Return the share of a mask's adaptive part that is used, by the distance from the nearer folder.

    It is 1 up to the folder's own limit of 1, and falls to 0 at 1.3; there, a recording is refused.
    """
    return min(max((_FADE_END - unlikeness) / (_FADE_END - _FADE_START), 0.0), 1.0)


def certify(
    measured: Measurements,
    rows_db: TimeSeries,
    mask_db: TimeSeries,
    judge_score: Callable[[TimeSeries], float] | None,
    settings: CertificateSettings,
) -> Certificate:
    """Judge one output.

    Parameters
    ----------
    rows_db, mask_db : TimeSeries [row, frame]
        Levels of the input, and the mask as applied, in dB.
    judge_score : callable, optional
        Judge's score of levels [row, frame] in dB.
    """
    gains, judge = MaskStatistics.from_gains(mask_db, rows_db), measured.judge
    judge_smoothed = static_share = None
    if judge_score is not None and judge is not None:
        # These scores are of the levels that the masks ask for, not of renderings.
        smooth_db = _smooth_mask(mask_db, settings.smooth_frames, settings.smooth_rows)
        static_db = LazyTimeSeries(
            mask_db.frames, lambda start, stop: np.repeat(gains.mean_db, stop - start, axis=1)
        )
        judge_smoothed, static, full = (
            judge_score(_apply_mask(rows_db, gain_db)) for gain_db in (smooth_db, static_db, mask_db)
        )
        change = judge.before - full
        static_share = (judge.before - static) / change if change > _MIN_JUDGE_CHANGE else None
    reasons = [*measured.caveats, *_objections(measured, judge_smoothed, settings)]
    verdict: CertificateVerdict = "limited" if reasons else "good"
    if measured.is_unneeded:
        # Forced changes, curves and other masks may move it away again.
        if gains.largest_db < UNCHANGED_DB or measured.is_unneeded_after:
            verdict, reasons = "unneeded", [_arrived_text("sounds", measured)]
        else:
            verdict, reasons = "limited", [_arrived_text("sounded", measured), *reasons]
    elif measured.is_refused:
        verdict = "refused"
    return Certificate(
        verdict=verdict,
        reasons=tuple(reasons),
        scorer=measured.scorer,
        judge=judge,
        judge_smoothed=judge_smoothed,
        judge_fooled=measured.judge_fooled,
        static_share=static_share,
        largest_db=gains.largest_db,
        rms_db=gains.rms_db,
        heard_db=gains.heard_db,
        most_db=gains.most_db,
        roughness_db=measured.roughness_db,
        unlikeness=measured.unlikeness,
        unlike_reference=measured.unlike_reference,
    )


def _arrived_text(verb: str, measured: Measurements) -> str:
    return f"the recording {verb} like the reference already (score {measured.scorer.before:.2f})"


def _objections(
    measured: Measurements, judge_smoothed: float | None, settings: CertificateSettings
) -> list[str]:
    """Return a sentence for each limit that an output exceeds."""
    judge, reference = measured.judge, measured.unlike_reference.after
    reasons = []
    if measured.has_graded_scorer:
        # A recording on the way to the reference, or there, may be unlike the source folder.
        nearer = min(measured.unlikeness, measured.unlike_reference.before)
        if nearer > 1:
            reasons.append(f"the input is unlike both folders ({nearer:.2f} of the limit)")
    elif measured.unlikeness > 1:
        reasons.append(
            f"the input is {measured.unlikeness:.2f} times as far from the source folder as 99 % of its own"
        )
    scorer = measured.scorer
    if measured.has_graded_scorer and is_rise(scorer.before, scorer.after):
        reasons.append(f"the score rises ({scorer.before:.2f} → {scorer.after:.2f})")
    if judge is not None and not measured.is_convincing(judge.after):
        reasons.append(f"the judge does not agree enough ({judge.before:.2f} → {judge.after:.2f})")
    if judge_smoothed is not None and not measured.is_convincing(judge_smoothed):
        reasons.append(f"the effect does not survive smoothing (judge {judge_smoothed:.2f})")
    if reference > 1:
        reasons.append(
            f"the output is {reference:.2f} times as far from the reference folder as 99 % of its own"
        )
    if measured.roughness_db > settings.max_roughness_db:
        reasons.append(
            f"the mask steps by {measured.roughness_db:.2f} dB a frame, an EQ by at most "
            f"{settings.max_roughness_db:g}"
        )
    return reasons


def _apply_mask(rows_db: TimeSeries, mask_db: TimeSeries) -> TimeSeries:
    return LazyTimeSeries(
        rows_db.frames, lambda start, stop: rows_db.read(start, stop) + mask_db.read(start, stop)
    )


def _smooth_mask(mask_db: TimeSeries, frames: int, rows: int) -> TimeSeries:
    """Average a mask over a window of frames and rows."""
    margin = frames // 2

    def read(start: int, stop: int) -> Levels:
        # With a margin, slices equal the smoothing of the whole mask.
        padded_start = max(0, start - margin)
        gain = mask_db.read(padded_start, min(stop + margin, mask_db.frames))
        return moving_average(gain, frames, rows)[:, start - padded_start : stop - padded_start]

    return LazyTimeSeries(mask_db.frames, read)


@dataclass(frozen=True)
class OutOfDomainDetector:
    """Mahalanobis distance of recordings from the 3 s windows of one folder."""

    mean: NDArray[np.float32]  # [feature]
    whitening: NDArray[np.float32]  # [feature, feature]: maps deviations from the mean to unit covariance
    # Distance below which 99 % of the folder's windows lie, each measured against the other takes
    limit: float
    frames: int  # length of a window

    def distance(self, rows_db: TimeSeries) -> float:
        """Return the median distance of a recording's windows [row, frame], divided by the limit."""
        return self.distance_of_windows(describe_windows(rows_db, self.frames))

    def distance_of_windows(self, points: NDArray[np.float32]) -> float:
        """Return the same of the windows that `describe_windows` describes [window, feature]."""
        distances = _mahalanobis_distances(points, self.mean, self.whitening)
        return float(np.quantile(distances, 0.5, method="lower")) / self.limit

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return all values by name, to be stored in a model."""
        return {
            "mean": self.mean,
            "whitening": self.whitening,
            "limit": np.array(self.limit),
            "frames": np.array(self.frames),
        }

    @classmethod
    def from_tensors(cls, named: Mapping[str, NDArray[Any]]) -> Self:
        """Undo `tensors`; KeyError if a value is missing."""
        return cls(named["mean"], named["whitening"], float(named["limit"]), int(named["frames"]))


def fit_detector(takes: Sequence[Levels], frames: int) -> OutOfDomainDetector:
    """Fit a detector to the takes [row, frame] of a folder, at least two.

    The limit is cross-validated by take: a take is closer to a distribution that includes it.
    """
    points = [describe_windows(ArrayTimeSeries(take), frames) for take in takes]
    moments = [_Moments.from_points(take) for take in points]
    total = reduce(_Moments.add, moments)
    held_out = np.concatenate(
        [
            _mahalanobis_distances(take, *total.subtract(take_moments).mean_and_whitening())
            for take, take_moments in zip(points, moments, strict=True)
        ]
    )
    # Identical takes have no spread; the floor keeps their limit above zero.
    limit = max(float(np.quantile(held_out, _QUANTILE)), 1e-3)
    return OutOfDomainDetector(*total.mean_and_whitening(), limit, frames)


def describe_windows(rows_db: TimeSeries, frames: int) -> NDArray[np.float32]:
    """Return mean and standard deviation of the audible frames' rows in each window [window, feature].

    Windows overlap by half. Those with less than a third of their frames audible are left out; if no
    window remains, the whole recording is one.
    """
    level = np.concatenate([frame_levels(part) for part in read_segments(rows_db)])
    audible = is_audible(level)
    mean = mean_power_db(level[audible])
    total = rows_db.frames
    starts = range(0, max(1, total - frames + 1), max(1, frames // 2))
    used = [s for s in starts if audible[s : s + frames].sum() >= max(2, frames // 3)]
    points = []
    for start, stop in [(s, min(s + frames, total)) for s in used] or [(0, total)]:
        # The clamp keeps digital silence from dominating the standard deviation.
        relative = (rows_db.read(start, stop) - mean).clip(WINDOW_FLOOR_DB)[:, audible[start:stop]]
        points.append(np.concatenate([relative.mean(axis=1), relative.std(axis=1)]))
    return np.stack(points)


@dataclass(frozen=True, eq=False)
class _Moments:
    """Number, sum and sum of products of points; takes are added and removed without the points."""

    size: int
    total: NDArray[np.float64]
    products: NDArray[np.float64]

    @classmethod
    def from_points(cls, points: NDArray[np.float32]) -> Self:
        x = points.astype(np.float64)
        return cls(len(points), x.sum(axis=0), x.T @ x)

    def subtract(self, other: "_Moments") -> "_Moments":
        products = self.products - other.products
        return _Moments(self.size - other.size, self.total - other.total, products)

    def add(self, other: "_Moments") -> "_Moments":
        products = self.products + other.products
        return _Moments(self.size + other.size, self.total + other.total, products)

    def mean_and_whitening(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the mean, and the whitening of the shrunk covariance (Ledoit & Wolf 2004)."""
        mean = self.total / self.size
        covariance = self.products / self.size - np.outer(mean, mean)
        eye = np.eye(len(mean))
        sphere = eye * covariance.diagonal().mean()
        # The last term keeps the factorisation stable when all takes are equal.
        shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * sphere + 1e-3 * eye
        whitening = np.tril(np.linalg.inv(np.linalg.cholesky(shrunk)))
        return mean.astype(np.float32), whitening.astype(np.float32)


def _mahalanobis_distances(
    points: NDArray[np.float32], mean: NDArray[np.float32], whitening: NDArray[np.float32]
) -> NDArray[np.float32]:
    # Whitened features have unit variance: with their mean instead of the sum, distances are about 1
    # for any number of rows.
    distances: NDArray[np.float32] = np.sqrt(np.square((points - mean) @ whitening.T).mean(axis=1))
    return distances
