"""Shrink adaptive masks by how well the data support them, without pairs.

Recordings of one folder differ too: in room, microphone and piece. A placebo tells how much: the same
method learns to map one half of a folder to its other half, where the true correction is zero. The
variance that it finds is chance level. `static_mask` has the part that all recordings share.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tonewood.priors.nearest_neighbours import PriorFeatures
from tonewood.utils.arrays import Levels


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


def mean_over_audible(mask_db: Levels, audible: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the mean [row] over the audible frames of [row, frame]."""
    mean: NDArray[np.float32] = mask_db[:, audible].mean(axis=1)
    return mean
