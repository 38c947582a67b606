"""Shrink corrections by how well the data support them, without pairs.

Recordings of one folder differ too: in room, microphone and piece. With few or very different
recordings, that looks like a difference between the folders. Two estimates guard against it:

* Static mask: empirical Bayes shrinkage (James & Stein 1961) of each cosine component, by the
  difference of matched frames between the folders against its variance over sessions.
* Adaptive masks: a placebo. The same method learns to map one half of a folder to its other half,
  where the true correction is zero. The variance that it finds is chance level.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tonewood.mask.mask import moving_average
from tonewood.priors.nearest_neighbours import FolderStatistics, PriorFeatures, cosine_basis
from tonewood.stats.sampling import TakeWeights

_NEIGHBOURS = 36  # codes that a frame is compared with
_POOLED_SHAPES = 5  # adjacent cosine components that share one estimate
_SAME_SESSION_RATIO = 1.5  # most that takes of one session differ, relative to the halves of a take


class SpectralDifference(NamedTuple):
    """Difference of a folder's takes from matched frames of the other folder.

    Parameters
    ----------
    rows_db : Tensor [take, row]
        Reference minus source.
    half_difference_db : Tensor [take, row]
        The same for the first half of each take, minus that for its second half.
    frames : Tensor [take]
        Number of audible frames: the weight of each take.
    """

    rows_db: Tensor
    half_difference_db: Tensor
    frames: Tensor

    @property
    def mean(self) -> Tensor:
        """Weighted mean over the takes [row]."""
        return self.frames @ self.rows_db / self.frames.sum()

    def with_weights(self, take_weights: TakeWeights) -> Self:
        """Multiply the takes' weights by others."""
        if take_weights is None:
            return self
        return self._replace(frames=self.frames * torch.tensor(take_weights))

    def merge_sessions(self) -> Self:
        """Average the takes of each session."""
        weights = torch.nn.functional.one_hot(cluster_sessions(self)).to(self.frames).T * self.frames
        frames = weights.sum(dim=1)
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

    def apply(self, mask_db: Tensor, static_db: Tensor, mean_db: Tensor) -> Tensor:
        """Return the shrunk mask [row, frame] in dB.

        Parameters
        ----------
        static_db : Tensor [row]
            Static mask, which is shrunk already.
        mean_db : Tensor [row]
            Mean of the mask over the recording's audible frames.
        """
        recording_db = static_db + self.per_recording * (mean_db - static_db)
        return recording_db[:, None] + self.per_frame * (mask_db - mean_db[:, None])

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
    def from_masks(cls, masks: Sequence[Tensor], takes: Sequence[PriorFeatures]) -> Self:
        """Compute the variance of the masks [row, frame] of at least two takes."""
        pairs = list(zip(masks, takes, strict=True))
        means = torch.stack([mean_over_audible(mask, take.audible) for mask, take in pairs])
        per_frame = [
            (mask - mean[:, None])[:, take.audible].square().mean()
            for (mask, take), mean in zip(pairs, means, strict=True)
        ]
        shapes = means - means.mean(dim=1, keepdim=True)
        return cls(float(shapes.var(dim=0).mean()), float(torch.stack(per_frame).mean()))


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
        first, second = difference.tensor_split(2, dim=1)
        means.append(difference.mean(dim=1))
        half_differences.append(first.mean(dim=1) - second.mean(dim=1))
    frames = torch.tensor([float(take.audible.sum()) for take in takes])
    return SpectralDifference(torch.stack(means), torch.stack(half_differences), frames)


def cluster_sessions(differences: SpectralDifference) -> Tensor:
    """Return the session number of each take [take], from 0.

    Recordings are cut into takes, and takes of one session share its room and microphone. Takes that
    differ little more than the halves of one take are linked (single linkage).
    """
    rows, half_rows = (
        x - x.mean(dim=1, keepdim=True) for x in (differences.rows_db, differences.half_difference_db)
    )
    # nanmedian, because a take of one audible frame has an empty half.
    limit = _SAME_SESSION_RATIO * float(half_rows.square().mean(dim=1).nanmedian())
    distance = (rows[:, None] - rows[None]).square().mean(dim=2)
    _, label = connected_components((distance <= limit).numpy(), directed=False)
    return torch.from_numpy(label).long()


def fit_static_mask(
    reference: SpectralDifference, source: SpectralDifference, penalty: float = 1.0
) -> Tensor:
    """Return the static mask [row] in dB: the shrunk mean of both folders' differences.

    Each cosine component c is scaled by 1 - penalty · v / c², where v is the variance of its mean over
    sessions. Both v and c² are averaged over adjacent components. The overall level is not shrunk.
    """
    # Cosine components separate broad from fine differences, so that each is shrunk by its own variance.
    basis = cosine_basis(reference.rows_db.shape[1])
    noise = torch.zeros(len(basis))
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
            noise = noise + (side.frames / side.frames.sum()).square().sum() * variance
    shape = (sides[0].mean + sides[1].mean) / 2
    noise_power, power = moving_average(torch.stack([noise, shape.square()])[:, 1:], _POOLED_SHAPES)
    factor = 1 - penalty * noise_power / power.clamp_min(1e-9)
    static: Tensor = torch.cat([shape[:1], factor.clamp_min(0) * shape[1:]]) @ basis
    return static


def mean_over_audible(mask_db: Tensor, audible: Tensor) -> Tensor:
    """Return the mean [row] over the audible frames of [row, frame]."""
    return mask_db[:, audible].mean(dim=1)


def _session_variance(side: SpectralDifference) -> Tensor | None:
    """Return the variance over sessions [component]; None for a single session."""
    weight = side.frames / side.frames.sum()
    # Bessel's correction for weighted observations.
    unbiased = 1 - float(weight.square().sum())
    if unbiased < 1e-3:
        return None
    return weight @ (side.rows_db - side.mean).square() / unbiased
