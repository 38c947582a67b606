"""Which moment of a reference take belongs to which of a source take (paper IV).

Coarse: dynamic time warping on several scales, whose memory does not grow with the square of the
length (MrMsDTW, Prätzlich, Driedger & Müller 2016, by synctoolbox), on chroma and attacks at
50 Hz. Fine: around that path, at 100 Hz, a path of offsets that change seldom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tonewood.errors import MissingExtraError
from tonewood.evaluation.cues import HOP_S, AlignmentFeatures, FloatArray, extract_alignment_features
from tonewood.evaluation.paths import COARSE_FACTOR, find_coarse_path, refine_path

MIN_SIMILARITY = 0.5  # right pieces reach 0.7 and more, wrong ones 0.3: docs/evaluate.md
MAX_STUCK_SHARE = 0.3
_MAX_LENGTH_DIFFERENCE = 0.02
# An alignment errs by about as much itself: half, and nine tenths, of a pair's frames so near.
_MAX_MEDIAN_LAG_S, _MAX_P90_LAG_S = 0.020, 0.075
_MIN_SLOPE, _MAX_SLOPE = 1 / 3, 3.0
_SLOPE_FRAMES = 50  # half a second


class Anchor(NamedTuple):
    """A moment of the source and the same of the reference, s, as exact as an ear finds them."""

    source_s: float
    reference_s: float


class AlignmentQuality(NamedTuple):
    """How far an alignment can be believed.

    Parameters
    ----------
    similarity : float
        Mean cosine of the fine structures of pitch along the path; 1 is the same throughout.
    chance : float
        The same with the source turned round in time by every sixteenth of its length.
    slowest, fastest : float
        Extremes of the path's slope over half a second, reference seconds per source second.
    stuck : float
        Share of the source, between its first sound and its last, for which the path finds no
        counterpart, for it all but stands still or jumps: a slope below 1/3 or above 3.
    """

    similarity: float
    chance: float
    slowest: float
    fastest: float
    stuck: float

    @property
    def problem(self) -> str | None:
        """Why such an alignment should not be measured by, or none."""
        if self.similarity < MIN_SIMILARITY:
            return (
                f"pitches along the alignment agree by {self.similarity:.2f} "
                f"(by chance {self.chance:.2f}); {MIN_SIMILARITY:g} is needed: "
                "check that both play the same piece, or give anchors"
            )
        if self.stuck > MAX_STUCK_SHARE:
            return (
                f"{100 * self.stuck:.0f} % of the source has no counterpart; "
                f"{100 * MAX_STUCK_SHARE:.0f} % may lack one: check that both play it all, "
                "or give anchors"
            )
        return None


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where in the reference every moment of the source is.

    Parameters
    ----------
    reference_s : float64 array [frame]
        Of every 10 ms of the source, rising; NaN where the source has no counterpart.
    quality : AlignmentQuality
    exact : bool
        The takes are as good as simultaneous as they are, and were left so.
    """

    reference_s: FloatArray
    quality: AlignmentQuality
    exact: bool

    def to_reference(self, source_s: FloatArray) -> FloatArray:
        """Seconds in the reference; NaN where there is no counterpart."""
        if self.exact:
            return source_s
        grid = np.arange(len(self.reference_s)) * HOP_S
        return np.interp(source_s, grid, self.reference_s, right=np.nan)


def require_synctoolbox() -> None:
    """Raise MissingExtraError now rather than after the work if nothing can align."""
    try:
        import synctoolbox.dtw.mrmsdtw  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "aligning pairs needs synctoolbox: pip install 'tonewood[align]'"
        ) from None


def align_recordings(source: Tensor, reference: Tensor, anchors: Sequence[Anchor] = ()) -> Alignment:
    """Align two mono waveforms [sample] at 16 kHz.

    Parameters
    ----------
    anchors : sequence of Anchor
        Moments that the coarse path passes through, rising in both and within the sound.

    Raises
    ------
    MissingExtraError
        synctoolbox is not installed.
    """
    require_synctoolbox()
    here, there = extract_alignment_features(source), extract_alignment_features(reference)
    span, partner = (_audible_span(side.audible) for side in (here, there))
    heard, other = here.select(span), there.select(partner)
    knots = [
        (round(a.source_s / HOP_S) - span.start, round(a.reference_s / HOP_S) - partner.start)
        for a in anchors
    ]
    path = refine_path(heard, other, find_coarse_path(heard, other, knots)) + partner.start
    frames = np.arange(len(here.audible))
    if _is_simultaneous(path - frames[span], here, there, span):
        found = _measure_alignment(here, there, frames.astype(float), np.ones(len(frames)))
        return Alignment(frames * HOP_S, found, exact=True)
    slope = _path_slopes(path)
    found = _measure_alignment(heard, other, path - partner.start, slope)
    seconds = np.full(len(frames), np.nan)
    seconds[span] = np.where(_has_counterpart(slope), path * HOP_S, np.nan)
    return Alignment(seconds, found, exact=False)


def _audible_span(audible: NDArray[np.bool_]) -> slice:
    """Span from the first audible frame to the last; its start is even, as the coarse grid's."""
    first, last = np.flatnonzero(audible)[[0, -1]]
    return slice(int(first) // COARSE_FACTOR * COARSE_FACTOR, int(last) + 1)


def _is_simultaneous(lag: FloatArray, source: AlignmentFeatures, reference: AlignmentFeatures, span: slice) -> bool:
    """Whether the lag [frame of the span] is no more than an alignment's own error."""
    short, long = sorted((len(source.audible), len(reference.audible)))
    if short < (1 - _MAX_LENGTH_DIFFERENCE) * long:
        return False
    away = np.abs(lag[source.audible[span]]) * HOP_S
    return bool(np.median(away) <= _MAX_MEDIAN_LAG_S and np.quantile(away, 0.9) <= _MAX_P90_LAG_S)


def _path_slopes(path: FloatArray) -> FloatArray:
    """Slope [frame] of a path over the half second around each frame, or all there is."""
    reach = _SLOPE_FRAMES // 2
    frames = np.arange(len(path))
    before, after = (frames - reach).clip(0), (frames + reach).clip(0, len(path) - 1)
    return np.asarray((path[after] - path[before]) / np.maximum(after - before, 1))


def _has_counterpart(slope: FloatArray) -> NDArray[np.bool_]:
    return (slope >= _MIN_SLOPE) & (slope <= _MAX_SLOPE)


def _measure_alignment(source: AlignmentFeatures, reference: AlignmentFeatures, path: FloatArray, slope: FloatArray) -> AlignmentQuality:
    columns = path.round().astype(np.int64).clip(0, len(reference.audible) - 1)
    both = source.audible[: len(columns)] & reference.audible[columns]
    both = both if both.any() else np.ones_like(both)
    partner = reference.fine[columns]

    def agreement(turned: NDArray[np.float32]) -> float:
        return float(np.einsum("fp,fp->f", turned, partner)[both].mean())

    turns = [agreement(np.roll(source.fine, k * len(path) // 16, axis=0)) for k in range(1, 16)]
    return AlignmentQuality(
        similarity=agreement(source.fine),
        chance=float(np.mean(turns)),
        slowest=float(slope.min()),
        fastest=float(slope.max()),
        stuck=float(1 - _has_counterpart(slope).mean()),
    )
