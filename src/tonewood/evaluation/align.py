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
from tonewood.evaluation.cues import HOP_S, Cues, Floats, cues
from tonewood.evaluation.paths import COARSE, coarse_path, refined_path

SIMILAR = 0.5  # right pieces reach 0.7 and more, wrong ones 0.3: docs/evaluate.md
MAY_STICK = 0.3
_LENGTHS_MAY_DIFFER = 0.02
# An alignment errs by about as much itself: half, and nine tenths, of a pair's frames so near.
_EXACT_S, _NEARLY_S = 0.020, 0.075
_SLOWEST, _FASTEST = 1 / 3, 3.0
_SLOPE_FRAMES = 50  # half a second


class Anchor(NamedTuple):
    """A moment of the source and the same of the reference, s, as exact as an ear finds them."""

    source_s: float
    reference_s: float


class Quality(NamedTuple):
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
    def fault(self) -> str | None:
        """Why such an alignment should not be measured by, or none."""
        if self.similarity < SIMILAR:
            return (
                f"pitches along the alignment agree by {self.similarity:.2f} "
                f"(by chance {self.chance:.2f}); {SIMILAR:g} is needed: "
                "check that both play the same piece, or give anchors"
            )
        if self.stuck > MAY_STICK:
            return (
                f"{100 * self.stuck:.0f} % of the source has no counterpart; "
                f"{100 * MAY_STICK:.0f} % may lack one: check that both play it all, "
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
    quality : Quality
    exact : bool
        The takes are as good as simultaneous as they are, and were left so.
    """

    reference_s: Floats
    quality: Quality
    exact: bool

    def at(self, source_s: Floats) -> Floats:
        """Seconds in the reference; NaN where there is no counterpart."""
        if self.exact:
            return source_s
        grid = np.arange(len(self.reference_s)) * HOP_S
        return np.interp(source_s, grid, self.reference_s, right=np.nan)


def check() -> None:
    """Raise MissingExtraError now rather than after the work if nothing can align."""
    try:
        import synctoolbox.dtw.mrmsdtw  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "aligning pairs needs synctoolbox: pip install 'tonewood[align]'"
        ) from None


def align(source: Tensor, reference: Tensor, anchors: Sequence[Anchor] = ()) -> Alignment:
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
    check()
    here, there = cues(source), cues(reference)
    span, partner = (_sounding(side.audible) for side in (here, there))
    heard, other = here.of(span), there.of(partner)
    knots = [
        (round(a.source_s / HOP_S) - span.start, round(a.reference_s / HOP_S) - partner.start)
        for a in anchors
    ]
    path = refined_path(heard, other, coarse_path(heard, other, knots)) + partner.start
    frames = np.arange(len(here.audible))
    if _simultaneous(path - frames[span], here, there, span):
        found = _quality(here, there, frames.astype(float), np.ones(len(frames)))
        return Alignment(frames * HOP_S, found, exact=True)
    slope = _slopes(path)
    found = _quality(heard, other, path - partner.start, slope)
    seconds = np.full(len(frames), np.nan)
    seconds[span] = np.where(_moving(slope), path * HOP_S, np.nan)
    return Alignment(seconds, found, exact=False)


def _sounding(audible: NDArray[np.bool_]) -> slice:
    """Span from the first audible frame to the last; its start is even, as the coarse grid's."""
    first, last = np.flatnonzero(audible)[[0, -1]]
    return slice(int(first) // COARSE * COARSE, int(last) + 1)


def _simultaneous(lag: Floats, here: Cues, there: Cues, span: slice) -> bool:
    """Whether the lag [frame of the span] is no more than an alignment's own error."""
    short, long = sorted((len(here.audible), len(there.audible)))
    if short < (1 - _LENGTHS_MAY_DIFFER) * long:
        return False
    away = np.abs(lag[here.audible[span]]) * HOP_S
    return bool(np.median(away) <= _EXACT_S and np.quantile(away, 0.9) <= _NEARLY_S)


def _slopes(path: Floats) -> Floats:
    """Slope [frame] of a path over the half second around each frame, or all there is."""
    reach = _SLOPE_FRAMES // 2
    frames = np.arange(len(path))
    before, after = (frames - reach).clip(0), (frames + reach).clip(0, len(path) - 1)
    return np.asarray((path[after] - path[before]) / np.maximum(after - before, 1))


def _moving(slope: Floats) -> NDArray[np.bool_]:
    return (slope >= _SLOWEST) & (slope <= _FASTEST)


def _quality(here: Cues, there: Cues, path: Floats, slope: Floats) -> Quality:
    columns = path.round().astype(np.int64).clip(0, len(there.audible) - 1)
    both = here.audible[: len(columns)] & there.audible[columns]
    both = both if both.any() else np.ones_like(both)
    partner = there.fine[columns]

    def agreement(turned: NDArray[np.float32]) -> float:
        return float(np.einsum("fp,fp->f", turned, partner)[both].mean())

    turns = [agreement(np.roll(here.fine, k * len(path) // 16, axis=0)) for k in range(1, 16)]
    return Quality(
        similarity=agreement(here.fine),
        chance=float(np.mean(turns)),
        slowest=float(slope.min()),
        fastest=float(slope.max()),
        stuck=float(1 - _moving(slope).mean()),
    )
