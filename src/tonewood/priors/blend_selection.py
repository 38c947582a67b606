"""Select how the priors are blended, without pairs.

The cycle distance chooses among the blends: held-out reference takes are turned into pseudo-source,
corrected, and compared with the originals. Pseudo-source is not real source, so what helps there may
harm source takes. Therefore the energy distance (Székely & Rizzo 2013) of corrected source frames from
reference frames is measured too. Where the product of both is clearly larger than that of the static
mask, a blend is used that is mostly static.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.priors.nearest_neighbours import PriorFeatures
from tonewood.priors.priors import BlendWeights, Priors, blend_masks
from tonewood.utils.arrays import Levels, TakeWeights

_BLEND_SHARES = (  # static, neighbours, forward, backward
    (1.0, 0.0, 0.0, 0.0),
    (0.0, 1.0, 0.0, 0.0),
    (0.0, 0.0, 1.0, 0.0),
    (0.0, 0.0, 0.0, 1.0),
    (0.0, 0.0, 0.5, 0.5),
    (0.0, 0.5, 0.0, 0.5),
    (0.0, 0.5, 0.25, 0.25),
    (0.0, 0.75, 0.0, 0.25),
    (0.0, 0.75, 0.125, 0.125),
    (0.25, 0.0, 0.0, 0.75),
    (0.25, 0.0, 0.375, 0.375),
    (0.5, 0.0, 0.0, 0.5),
    (0.5, 0.0, 0.25, 0.25),
    (0.75, 0.0, 0.0, 0.25),
    (0.25, 0.25, 0.0, 0.5),
    (0.5, 0.25, 0.125, 0.125),
)
# Half of the level closes more on most corpora, up to 8 points (benchmarks/rounds.md), but the cycle
# does not show it: pseudo-source has the levels of the reference.
_LEVEL = 0.5
CANDIDATE_BLENDS = tuple(BlendWeights(*shares, _LEVEL) for shares in _BLEND_SHARES)
_AVERAGED_BLENDS = 4  # of 16 candidates
# Where adaptive masks help, the best blends have 0.2 to 0.91 of the static mask's product; where they
# harm, 1.2 or more (benchmarks/rounds.md).
_ADAPTIVE_LIMIT = 1.05
# On four old-disc corpora, this closes 0.6 to 0.9 points more than the static mask alone
# (benchmarks/rounds.md).
MOSTLY_STATIC = BlendWeights(static=0.85, neighbours=0.0, forward=0.0, backward=0.15)
_FRAMES = 1_500  # per folder, for the energy distance: 20 ms a blend
_SOURCE_TAKES = 12


class BlendScore(NamedTuple):
    """A blend with its cycle distance and its energy distance in dB: smaller is better."""

    weights: BlendWeights
    cycle_db: float
    energy_db: float

    @property
    def product(self) -> float:
        """Both distances in one. Small differences enter an energy distance as squares, hence the root."""
        return self.cycle_db * float(np.sqrt(max(self.energy_db, 0.0)))


class PseudoCycles(NamedTuple):
    """Held-out reference takes, and the pseudo-source that was made of each."""

    pseudo: Sequence[PriorFeatures]
    original: Sequence[PriorFeatures]
    weights: TakeWeights = None


def score_blends(
    priors: Priors,
    cycles: PseudoCycles,
    source: Sequence[PriorFeatures],
    reference: Sequence[PriorFeatures],
    reference_weights: TakeWeights = None,
) -> tuple[BlendScore, ...]:
    """Measure all candidates; the distances are weighted means over takes."""
    cycle_db = _cycle_distances(priors, cycles)
    energy_db = _energy_distances(priors, source, reference, reference_weights)
    return tuple(BlendScore(*row) for row in zip(CANDIDATE_BLENDS, cycle_db, energy_db, strict=True))


def select_blend(scores: Sequence[BlendScore]) -> BlendWeights:
    """Average the best blends: the noise of the scores exceeds the differences between them.

    `MOSTLY_STATIC` is used where the product of both distances is clearly larger for the best blends than
    for the static mask.
    """
    best = sorted(scores, key=lambda score: score.cycle_db)[:_AVERAGED_BLENDS]
    static = next(score for score in scores if score.weights.static == 1)
    if np.mean([score.product for score in best]) > _ADAPTIVE_LIMIT * static.product:
        return MOSTLY_STATIC
    return BlendWeights(*np.mean([score.weights for score in best], axis=0).tolist())


def cycle_distance(rows_db: Levels, take: PriorFeatures) -> float:
    """Return the mean over audible frames of the RMS difference in dB, the overall level removed."""
    difference = (rows_db - take.rows_db)[:, take.audible]
    return float(np.sqrt(np.square(difference - difference.mean()).mean(axis=0)).mean())


def energy_distance(first: Levels, second: Levels, second_spread_db: float | None = None) -> float:
    """Return the energy distance in dB of two samples [row, frame]: 0 for samples of one distribution.

    Parameters
    ----------
    second_spread_db : float, optional
        Mean distance between frames of the second sample, if it was computed already.
    """
    if second_spread_db is None:
        second_spread_db = _mean_distance(second, second)
    return 2 * _mean_distance(first, second) - _mean_distance(first, first) - second_spread_db


def _cycle_distances(priors: Priors, cycles: PseudoCycles) -> list[float]:
    """Return the cycle distance of every candidate."""
    totals = np.zeros(len(CANDIDATE_BLENDS))
    counts = cycles.weights or [1.0] * len(cycles.original)
    for pseudo, take, count in zip(cycles.pseudo, cycles.original, counts, strict=True):
        suggestions = priors.suggestions(pseudo)
        for i, weights in enumerate(CANDIDATE_BLENDS):
            totals[i] += count * cycle_distance(pseudo.rows_db + blend_masks(suggestions, weights), take)
    distances: list[float] = (totals / sum(counts)).tolist()
    return distances


def _energy_distances(
    priors: Priors,
    source: Sequence[PriorFeatures],
    reference: Sequence[PriorFeatures],
    reference_weights: TakeWeights,
) -> list[float]:
    """Return the energy distance of every candidate's output from the reference."""
    chosen = zip(reference, _spread_frames(reference, reference_weights), strict=True)
    target = _without_level(np.concatenate([take.rows_db[:, frames] for take, frames in chosen], axis=1))
    takes = source[:: -(-len(source) // _SOURCE_TAKES)]
    rows, suggestions = [], []
    for take, frames in zip(takes, _spread_frames(takes), strict=True):
        rows.append(take.rows_db[:, frames])
        suggestions.append([mask[:, frames] for mask in priors.suggestions(take) if mask is not None])
    before = np.concatenate(rows, axis=1)
    masks = [np.concatenate(parts, axis=1) for parts in zip(*suggestions, strict=True)]
    spread_db = _mean_distance(target, target)  # the same for all candidates
    outputs = (_without_level(before + blend_masks(masks, weights)) for weights in CANDIDATE_BLENDS)
    return [energy_distance(output, target, spread_db) for output in outputs]


def _spread_frames(takes: Sequence[PriorFeatures], weights: TakeWeights = None) -> list[NDArray[np.intp]]:
    """Return audible frames of each take, evenly spaced, in number by the takes' weights."""
    share = np.ones(len(takes)) if weights is None else np.asarray(weights)
    counts = np.ceil(_FRAMES * share / share.sum()).astype(int)
    audible = [np.flatnonzero(take.audible) for take in takes]
    return [
        frames[np.linspace(0, len(frames) - 1, min(count, len(frames))).astype(int)]
        for frames, count in zip(audible, counts.tolist(), strict=True)
    ]


def _without_level(rows_db: Levels) -> Levels:
    shape: Levels = rows_db - rows_db.mean(axis=0)
    return shape


def _mean_distance(first: Levels, second: Levels) -> float:
    """Return the mean Euclidean distance between frames of two samples [row, frame]."""
    square = np.square(first).sum(axis=0)[:, None] + np.square(second).sum(axis=0) - 2 * first.T @ second
    return float(np.sqrt(square.clip(0)).mean())
