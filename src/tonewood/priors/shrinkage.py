"""Shrink corrections by how well the data support them, without pairs.

Recordings of one folder differ too: in room, microphone and piece. With few or very different
recordings, that looks like a difference between the folders. Two estimates guard against it:

* Static mask: empirical Bayes shrinkage (James & Stein 1961) of each cosine component, by the
  difference of matched frames between the folders against its variance over sessions.
* Adaptive masks: a placebo. The same method learns to map one half of a folder to its other half,
  where the true correction is zero. The variance that it finds is chance level.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tonewood.mask.mask import moving_average
from tonewood.priors.nearest_neighbours import FolderStatistics, PriorFeatures, cosine_basis
from tonewood.utils.arrays import Levels

if TYPE_CHECKING:
    from tonewood.stats.sampling import TakeWeights

_NEIGHBOURS = 36  # codes that a frame is compared with
_POOLED_SHAPES = 5  # adjacent cosine components that share one estimate
_SAME_SESSION_RATIO = 1.5  # most that takes of one session differ, relative to the halves of a take


class SpectralDifference(NamedTuple):
    """Difference of a folder's takes from matched frames of the other folder.

    Parameters
    ----------
    rows_db : array [take, row]
        Reference minus source.
    half_difference_db : array [take, row]
        The same for the first half of each take, minus that for its second half.
    frames : array [take]
        Number of audible frames: the weight of each take.
    """

    rows_db: Levels
    half_difference_db: Levels
    frames: NDArray[np.float32]

    @property
    def mean(self) -> NDArray[np.float32]:
        """Weighted mean over the takes [row]."""
        mean: NDArray[np.float32] = self.frames @ self.rows_db / self.frames.sum()
        return mean

    def with_weights(self, take_weights: "TakeWeights") -> Self:
        """Multiply the takes' weights by others."""
        if take_weights is None:
            return self
        return self._replace(frames=self.frames * np.asarray(take_weights, np.float32))

    def merge_sessions(self) -> Self:
        """Average the takes of each session."""
        session = cluster_sessions(self)
        weights = (np.arange(session.max() + 1)[:, None] == session) * self.frames
        frames = weights.sum(axis=1)
        weights = weights / frames[:, None]
        return type(self)(weights @ self.rows_db, weights @ self.half_difference_db, frames)


class ShrinkageFactors(NamedTuple):
    """Factors in [0, 1] that scale the adaptive part of a mask.

    Parameters
    ----------
    per_recording : float
        Scales the deviation of a recording's mean mask from the static mask.
    per_frame : float
        Scales the deviation of each frame from the recording's mean mask.
    """

    per_recording: float = 1.0
    per_frame: float = 1.0

    def apply(self, mask_db: Levels, static_db: Levels, mean_db: Levels) -> Levels:
        """Return the shrunk mask [row, frame] in dB.

        Parameters
        ----------
        static_db : array [row]
            Static mask, which is shrunk already.
        mean_db : array [row]
            Mean of the mask over the recording's audible frames.
        """
        recording_db = static_db + np.float32(self.per_recording) * (mean_db - static_db)
        shrunk: Levels = recording_db[:, None] + np.float32(self.per_frame) * (mask_db - mean_db[:, None])
        return shrunk

    @classmethod
    def from_variance(cls, real: "Variance", placebo: "Variance", penalty: float = 1.0) -> Self:
        """Return 1 where the placebo's variance is small, 0 where it reaches the real one; else between."""
        factors = []
        for real_db2, placebo_db2, trusted, chance in zip(real, placebo, _TRUSTED, _CHANCE, strict=True):
            # Linear between the two ratios; the floor keeps the division defined for zero masks.
            ratio = penalty * placebo_db2 / max(real_db2, 1e-9)
            factors.append(min(max((chance - ratio) / (chance - trusted), 0.0), 1.0))
        return cls(*factors)


class Variance(NamedTuple):
    """Variance of masks in dB², split as `ShrinkageFactors` are.

    Parameters
    ----------
    per_recording : float
        Of the recordings' mean masks, overall level removed.
    per_frame : float
        Of the frames around their recording's mean mask.
    """

    per_recording: float
    per_frame: float

    @classmethod
    def from_masks(cls, masks: Sequence[Levels], takes: Sequence[PriorFeatures]) -> Self:
        """Compute the variance of the masks [row, frame] of at least two takes."""
        pairs = list(zip(masks, takes, strict=True))
        means = np.stack([mean_over_audible(mask, take.audible) for mask, take in pairs])
        per_frame = [
            np.square((mask - mean[:, None])[:, take.audible]).mean()
            for (mask, take), mean in zip(pairs, means, strict=True)
        ]
        shapes = means - means.mean(axis=1, keepdims=True)
        return cls(float(shapes.var(axis=0, ddof=1).mean()), float(np.mean(per_frame)))


# Ratios of placebo to real variance at which the factor leaves 1 and reaches 0. Those per recording
# are stricter, since a folder has few recordings but many frames.
_TRUSTED, _CHANCE = Variance(0.35, 0.5), Variance(0.6, 0.9)


def spectral_difference(
    takes: Sequence[PriorFeatures],
    folder: FolderStatistics,
    other: FolderStatistics,
    *,
    sign: float,
) -> SpectralDifference:
    """Compare the takes of a folder with their nearest neighbours in the other folder.

    `sign` is 1 for reference takes, -1 for source takes.
    """
    means, half_differences = [], []
    for take in takes:
        matched = other.codebook.nearest_mean(folder.query_vectors(take), _NEIGHBOURS)
        difference = sign * (take.rows_db - matched)[:, take.audible]
        # Halves of a take share its room and microphone: their difference is the noise level.
        first, second = np.array_split(difference, 2, axis=1)
        means.append(difference.mean(axis=1))
        half_differences.append(_mean_or_nan(first) - _mean_or_nan(second))
    frames = np.array([take.audible.sum() for take in takes], dtype=np.float32)
    return SpectralDifference(np.stack(means), np.stack(half_differences), frames)


def _mean_or_nan(rows_db: Levels) -> NDArray[np.float32]:
    """Return the mean over frames [row]; NaN without any, as for the second half of one frame."""
    if rows_db.shape[1] == 0:
        return np.full(len(rows_db), np.nan, dtype=np.float32)
    mean: NDArray[np.float32] = rows_db.mean(axis=1)
    return mean


def cluster_sessions(differences: SpectralDifference) -> NDArray[np.int64]:
    """Return the session number of each take [take], from 0.

    Recordings are cut into takes, and takes of one session share its room and microphone. Takes that
    differ little more than the halves of one take are linked (single linkage).
    """
    from scipy.sparse.csgraph import connected_components  # takes long to load; only in training

    rows, half_rows = (
        x - x.mean(axis=1, keepdims=True) for x in (differences.rows_db, differences.half_difference_db)
    )
    # A take of one audible frame has an empty half.
    spread = np.square(half_rows).mean(axis=1)
    limit = _SAME_SESSION_RATIO * float(np.nanquantile(spread, 0.5, method="lower"))
    distance = np.square(rows[:, None] - rows[None]).mean(axis=2)
    _, label = connected_components(distance <= limit, directed=False)
    return np.asarray(label, dtype=np.int64)


def fit_static_mask(
    reference: SpectralDifference, source: SpectralDifference, penalty: float = 1.0
) -> NDArray[np.float32]:
    """Return the static mask [row] in dB: the shrunk mean of both folders' differences.

    Each cosine component c is scaled by 1 - penalty · v / c², where v is the variance of its mean over
    sessions. Both v and c² are averaged over adjacent components. The overall level is not shrunk.
    """
    # Cosine components separate broad from fine differences, so that each is shrunk by its own variance.
    basis = cosine_basis(reference.rows_db.shape[1]).astype(np.float32)
    noise = np.zeros(len(basis), dtype=np.float32)
    sides = [
        side._replace(rows_db=side.rows_db @ basis.T)
        for side in (reference.merge_sessions(), source.merge_sessions())
    ]
    variances = [_session_variance(side) for side in sides]
    for side, takes, own_variance, other_variance in zip(
        sides, (reference, source), variances, variances[::-1], strict=True
    ):
        # A single take may vary as the other folder does; one session of many takes hardly varies.
        variance = other_variance if len(takes.frames) == 1 else own_variance
        if variance is not None:
            noise = noise + np.square(side.frames / side.frames.sum()).sum() * variance
    shape = (sides[0].mean + sides[1].mean) / 2
    noise_power, power = moving_average(np.stack([noise, np.square(shape)])[:, 1:], _POOLED_SHAPES)
    factor = 1 - penalty * noise_power / power.clip(1e-9)
    static: NDArray[np.float32] = np.concatenate([shape[:1], factor.clip(0) * shape[1:]]) @ basis
    return static.astype(np.float32)


def mean_over_audible(mask_db: Levels, audible: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the mean [row] over the audible frames of [row, frame]."""
    mean: NDArray[np.float32] = mask_db[:, audible].mean(axis=1)
    return mean


def _session_variance(side: SpectralDifference) -> NDArray[np.float32] | None:
    """Return the variance over sessions [component]; None for a single session."""
    weight = side.frames / side.frames.sum()
    # Bessel's correction for weighted observations.
    unbiased = 1 - float(np.square(weight).sum())
    if unbiased < 1e-3:
        return None
    variance: NDArray[np.float32] = weight @ np.square(side.rows_db - side.mean) / np.float32(unbiased)
    return variance
