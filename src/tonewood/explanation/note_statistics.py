"""Weights of evidence by part of the note and by octave, over several recordings.

Intervals are bootstrapped over recordings (Efron 1979), because frames of one recording are not
independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tonewood.setting_types import Settings
from tonewood.utils.arrays import FloatArray

_BOOTSTRAP_DRAWS = 2_000
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, eq=False)
class PartSums:
    """Sums over one recording, by part."""

    seconds: FloatArray  # [part]
    # [part]: evidence and its absolute value, logit times seconds
    evidence: FloatArray
    absolute: FloatArray


class ConfidenceInterval(Settings):
    """Estimate with its 95 % interval, which a single recording does not have."""

    mean: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Return the text for tables."""
        if self.low is None or self.high is None:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


class PartWeight(Settings):
    """Weight of a part of the note."""

    name: str
    seconds: float
    evidence: ConfidenceInterval  # mean logit during the part
    # Share of the evidence divided by share of the time; 1 on average. None if the evidence as a whole speaks
    # against the explained class, because shares of it have no meaning then.
    weight: ConfidenceInterval | None
    absolute: ConfidenceInterval  # the same for the absolute value of the evidence
    # Mean logit minus that of the reference part in the same recordings. None for the reference part, or if
    # it does not occur.
    beyond: ConfidenceInterval | None = None


def sum_by_part(evidence: FloatArray, labels: NDArray[np.int8], parts: int, frame_seconds: float) -> PartSums:
    """Sum evidence by part, ignoring frames of NaN.

    Parameters
    ----------
    evidence : array [frame]
        Logits.
    labels : array [frame]
        Part of each frame; -1 is the last part.
    parts : int
        Number of parts.
    """
    scored = np.isfinite(evidence)
    part = labels[scored].astype(np.int64) % parts  # maps -1 to the last part
    values = evidence[scored]
    seconds, signed, absolute = (
        frame_seconds * np.bincount(part, weights, minlength=parts).astype(np.float64)
        for weights in (np.ones_like(values), values, np.abs(values))
    )
    return PartSums(seconds, signed, absolute)


def compute_part_weights(
    names: Sequence[str], sums: Sequence[PartSums], rng: np.random.Generator, reference: str
) -> list[PartWeight]:
    """Return the weight of every part that occurs.

    Parameters
    ----------
    names : sequence of str
        Names of the parts.
    sums : sequence of PartSums
        One per recording.
    reference : str
        Part that the others are compared with.
    """
    seconds = np.stack([recording.seconds for recording in sums])
    evidence = np.stack([recording.evidence for recording in sums])
    absolute = np.stack([recording.absolute for recording in sums])
    draws = _bootstrap_counts(len(sums), rng)
    speaks_for_class = evidence.sum() > 0
    weights = []
    for part, name in enumerate(names):
        if seconds[:, part].sum() == 0:
            continue
        weights.append(
            PartWeight(
                name=name,
                seconds=round(float(seconds[:, part].sum()), 3),
                evidence=_ratio_interval(evidence[:, part], seconds[:, part], draws),
                weight=_relative_weight(evidence, seconds, part, draws) if speaks_for_class else None,
                absolute=_relative_weight(absolute, seconds, part, draws),
                beyond=_evidence_difference(evidence, seconds, (part, names.index(reference)), draws),
            )
        )
    return weights


def mean_intervals(values: FloatArray, rng: np.random.Generator) -> list[ConfidenceInterval]:
    """Return the mean of every column of values [recording, column] with its interval."""
    draws = _bootstrap_counts(len(values), rng)
    return [_ratio_interval(column, np.ones_like(column), draws) for column in values.T]


def _bootstrap_counts(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw how often each recording occurs in each resample [draw, recording]."""
    if count == 1:
        return np.ones((0, 1), dtype=np.int64)  # one recording has no spread to resample
    # Drawing recordings with replacement is drawing their counts from a multinomial distribution.
    return rng.multinomial(count, np.full(count, 1 / count), size=_BOOTSTRAP_DRAWS)


def _ratio_interval(
    numerator: FloatArray, denominator: FloatArray, draws: NDArray[np.int64]
) -> ConfidenceInterval:
    ratio = numerator.sum() / denominator.sum()
    return _percentile_interval(ratio, draws @ numerator, draws @ denominator)


def _relative_weight(
    values: FloatArray, seconds: FloatArray, part: int, draws: NDArray[np.int64]
) -> ConfidenceInterval:
    """Divide a part's value per second by that of all parts."""

    def ratio(counts: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        part_value, total_value = counts @ values[:, part], (counts @ values).sum(axis=1)
        part_time, total_time = counts @ seconds[:, part], (counts @ seconds).sum(axis=1)
        # (part_value / part_time) / (total_value / total_time), as one quotient.
        return part_value * total_time, part_time * total_value

    (numerator,), (denominator,) = ratio(np.ones((1, len(values)), dtype=np.int64))
    weight = numerator / denominator if denominator else 0.0
    return _percentile_interval(weight, *ratio(draws))


def _evidence_difference(
    evidence: FloatArray, seconds: FloatArray, pair: tuple[int, int], draws: NDArray[np.int64]
) -> ConfidenceInterval | None:
    """Subtract the evidence per second of the second part from that of the first."""
    first, second = pair
    if first == second or seconds[:, second].sum() == 0:
        return None

    def difference(counts: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        first_value, second_value = counts @ evidence[:, first], counts @ evidence[:, second]
        first_time, second_time = counts @ seconds[:, first], counts @ seconds[:, second]
        # a/b - c/d over the common denominator, which may be zero in a resample
        return first_value * second_time - second_value * first_time, first_time * second_time

    (numerator,), (denominator,) = difference(np.ones((1, len(evidence)), dtype=np.int64))
    return _percentile_interval(numerator / denominator, *difference(draws))


def _percentile_interval(mean: float, numerators: FloatArray, denominators: FloatArray) -> ConfidenceInterval:
    usable = denominators != 0  # a resample may not contain the part
    if not usable.any():
        return ConfidenceInterval(mean=float(mean))
    low, high = np.percentile(numerators[usable] / denominators[usable], _PERCENTILES)
    return ConfidenceInterval(mean=float(mean), low=float(low), high=float(high))
