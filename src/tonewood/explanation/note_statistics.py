"""What evidence weighs: by part of the music and by octave, over several recordings.

Intervals are bootstrapped over recordings (Efron 1979): moments of one recording are no
independent observations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tonewood.settings import Settings
from tonewood.utils.arrays import FloatArray

_BOOTSTRAP_DRAWS = 2_000
_PERCENTILES = (2.5, 97.5)  # percentiles


@dataclass(frozen=True, eq=False)
class PartSums:
    """One recording's evidence by part.

    Parameters
    ----------
    seconds, evidence, absolute : float array (part,)
        Time; evidence and its absolute value, logit times seconds.
    """

    seconds: FloatArray
    evidence: FloatArray
    absolute: FloatArray


class ConfidenceInterval(Settings):
    """An estimate and its 95 % interval, which a single recording does not have."""

    mean: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """As in a table."""
        if self.low is None or self.high is None:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


class PartWeight(Settings):
    """What a part of the music weighs.

    Parameters
    ----------
    evidence : Interval
        Logit while it sounds.
    weight : Interval or None
        Share of the logit per share of the time, 1 on average; none where the recordings speak
        against the class that is explained, for shares of that mean nothing.
    absolute : Interval
        The same of the evidence's absolute value, whichever way it points.
    beyond : Interval or None
        Logit while it sounds, less that of the part that all are compared with; recordings count
        for both at once. None for that part itself, or where it does not occur.
    """

    name: str
    seconds: float
    evidence: ConfidenceInterval
    weight: ConfidenceInterval | None
    absolute: ConfidenceInterval
    beyond: ConfidenceInterval | None = None


def sum_by_part(evidence: FloatArray, labels: NDArray[np.int8], parts: int, frame_seconds: float) -> PartSums:
    """Sums by part; label -1 is the last part, and frames of NaN count for nothing.

    Parameters
    ----------
    evidence : float array (frame,)
        Logit of every frame.
    labels : int8 array (frame,)
        Part of every frame.
    parts : int
        Number of parts.
    """
    heard = np.isfinite(evidence)
    place = labels[heard].astype(np.int64) % parts
    values = evidence[heard]
    seconds, signed, absolute = (
        frame_seconds * np.bincount(place, weights, minlength=parts).astype(np.float64)
        for weights in (np.ones_like(values), values, np.abs(values))
    )
    return PartSums(seconds, signed, absolute)


def compute_part_weights(
    names: Sequence[str], sums: Sequence[PartSums], rng: np.random.Generator, reference: str
) -> list[PartWeight]:
    """Weight of every part that occurs, over recordings.

    Parameters
    ----------
    reference : str
        Name of the part that all are compared with.
    rng : numpy.random.Generator
        Draws recordings for the intervals.
    """
    seconds, evidence, absolute = (
        np.stack([getattr(it, field) for it in sums]) for field in ("seconds", "evidence", "absolute")
    )
    drawn = _bootstrap_counts(len(sums), rng)
    known = evidence.sum() > 0
    rows = []
    for part, name in enumerate(names):
        if seconds[:, part].sum() == 0:
            continue
        rows.append(
            PartWeight(
                name=name,
                seconds=round(float(seconds[:, part].sum()), 3),
                evidence=_ratio_interval(evidence[:, part], seconds[:, part], drawn),
                weight=_relative_weight(evidence, seconds, part, drawn) if known else None,
                absolute=_relative_weight(absolute, seconds, part, drawn),
                beyond=_evidence_difference(evidence, seconds, (part, names.index(reference)), drawn),
            )
        )
    return rows


def mean_intervals(values: FloatArray, rng: np.random.Generator) -> list[ConfidenceInterval]:
    """Mean of every column of values (recording, column), with its interval."""
    drawn = _bootstrap_counts(len(values), rng)
    return [_ratio_interval(column, np.ones_like(column), drawn) for column in values.T]


def _bootstrap_counts(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each recording is drawn [draw, recording]; a single one cannot be redrawn."""
    if count == 1:
        return np.ones((0, 1), dtype=np.int64)
    return rng.multinomial(count, np.full(count, 1 / count), size=_BOOTSTRAP_DRAWS)


def _ratio_interval(above: FloatArray, below: FloatArray, drawn: NDArray[np.int64]) -> ConfidenceInterval:
    return _percentile_interval(above.sum() / below.sum(), drawn @ above, drawn @ below)


def _relative_weight(
    values: FloatArray, seconds: FloatArray, part: int, drawn: NDArray[np.int64]
) -> ConfidenceInterval:
    """Values of a part per second, relative to all parts' per second."""

    def ratio(draws: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        mine, all_ = draws @ values[:, part], (draws @ values).sum(axis=1)
        time, all_time = draws @ seconds[:, part], (draws @ seconds).sum(axis=1)
        return mine * all_time, time * all_

    (above,), (below,) = ratio(np.ones((1, len(values)), dtype=np.int64))
    return _percentile_interval(above / below if below else 0.0, *ratio(drawn))


def _evidence_difference(
    evidence: FloatArray, seconds: FloatArray, pair: tuple[int, int], drawn: NDArray[np.int64]
) -> ConfidenceInterval | None:
    """Evidence per second of one part less another's, both of the same recordings."""
    if pair[0] == pair[1] or seconds[:, pair[1]].sum() == 0:
        return None

    def difference(draws: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        (above, other), (time, other_time) = (
            (draws @ it[:, pair[0]], draws @ it[:, pair[1]]) for it in (evidence, seconds)
        )
        return above * other_time - other * time, time * other_time

    (above,), (below,) = difference(np.ones((1, len(evidence)), dtype=np.int64))
    return _percentile_interval(above / below, *difference(drawn))


def _percentile_interval(mean: float, above: FloatArray, below: FloatArray) -> ConfidenceInterval:
    kept = below != 0  # a draw without the part says nothing of it
    if not kept.any():
        return ConfidenceInterval(mean=float(mean))
    low, high = np.percentile(above[kept] / below[kept], _PERCENTILES)
    return ConfidenceInterval(mean=float(mean), low=float(low), high=float(high))
