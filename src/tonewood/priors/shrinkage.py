"""How much of what sets two folders apart is more than their own takes differ by.

Takes of one folder differ too: another room, another microphone, another piece. Where they are few,
or very unlike, that difference passes for one between the folders, and a mask made of it is noise.
Two remedies, both without pairs. The static mask compares like with like, moments of one pitch, and
believes each of its shapes as far as it stands out from the spread of the takes (empirical Bayes,
after James & Stein 1961). What adapts is asked for a placebo: the same method is taught one half of
a folder as reference and the other half as source, where nothing is to be found; what it finds all
the same is what it finds by chance.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tonewood.mask.mask import moving_average
from tonewood.priors.nearest_neighbours import FolderStatistics, PriorFeatures, cosine_basis
from tonewood.stats.sampling import TakeWeights

_NEIGHBOURS = 36  # codes that a moment is compared with
_POOLED_SHAPES = 5  # adjoining shapes that share one estimate
_SAME_SESSION_RATIO = 1.5  # takes of one session differ by less than so many times what halves of a take do


class SpectralDifference(NamedTuple):
    """What the takes of one folder lack, or have too much, against their like in the other.

    Parameters
    ----------
    rows_db : Tensor [take, row]
        Reference less source, whichever of them the takes are.
    half_difference_db : Tensor [take, row]
        The same of the first half of each take less that of its second.
    frames : Tensor [take]
        Audible frames, by which each take weighs.
    """

    rows_db: Tensor
    half_difference_db: Tensor
    frames: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean over the takes [row]."""
        return self.frames @ self.rows_db / self.frames.sum()

    def with_weights(self, take_weights: TakeWeights) -> "SpectralDifference":
        """The same with every take weighing as far as its moments count."""
        if take_weights is None:
            return self
        return self._replace(frames=self.frames * torch.tensor(take_weights))

    def merge_sessions(self) -> "SpectralDifference":
        """The same with the takes of each session made one."""
        of = cluster_sessions(self)
        share = torch.nn.functional.one_hot(of).to(self.frames).T * self.frames
        frames = share.sum(dim=1)
        share = share / frames[:, None]
        return SpectralDifference(share @ self.rows_db, share @ self.half_difference_db, frames)


class ShrinkageFactors(NamedTuple):
    """Share that is believed of a mask's departure from the static one.

    Parameters
    ----------
    per_recording : float
        Of its mean over a recording: that recordings need unlike corrections.
    per_frame : float
        Of its change from moment to moment.
    """

    per_recording: float = 1.0
    per_frame: float = 1.0

    def apply(self, mask_db: Tensor, static_db: Tensor, mean_db: Tensor) -> Tensor:
        """Mask [row, frame] as far as it is believed, dB.

        Parameters
        ----------
        static_db : Tensor [row]
            The static mask, which is believed.
        mean_db : Tensor [row]
            Mean of the mask over the whole recording's audible frames.
        """
        start = static_db + self.per_recording * (mean_db - static_db)
        return start[:, None] + self.per_frame * (mask_db - mean_db[:, None])

    @classmethod
    def from_variance(cls, real: "Variance", placebo: "Variance", penalty: float = 1.0) -> "ShrinkageFactors":
        """All of it where a placebo finds little, none where it finds as much."""
        shares = []
        for wanted, found, certain, chance in zip(real, placebo, _TRUSTED, _CHANCE, strict=True):
            ratio = penalty * found / max(wanted, 1e-9)
            shares.append(min(max((chance - ratio) / (chance - certain), 0.0), 1.0))
        return cls(*shares)


class Variance(NamedTuple):
    """Mean square of what masks do, dB², divided as `ShrinkageFactors` divides it.

    Parameters
    ----------
    per_recording : float
        Variance over takes of the masks' means.
    per_frame : float
        Variance from moment to moment, all rows' common level included.
    """

    per_recording: float
    per_frame: float

    @classmethod
    def from_masks(cls, masks: Sequence[Tensor], takes: Sequence[PriorFeatures]) -> "Variance":
        """Power of the masks [row, frame] of some takes, two at least."""
        pairs = list(zip(masks, takes, strict=True))
        means = torch.stack([mean_over_audible(mask, take.audible) for mask, take in pairs])
        moments = [
            (mask - mean[:, None])[:, take.audible].square().mean()
            for (mask, take), mean in zip(pairs, means, strict=True)
        ]
        shapes = means - means.mean(dim=1, keepdim=True)
        return cls(float(shapes.var(dim=0).mean()), float(torch.stack(moments).mean()))


# Power of a placebo as a share of the mask's: all is believed below, nothing above. More is asked
# of what differs from take to take, since a folder has few takes and many moments.
_TRUSTED, _CHANCE = Variance(0.35, 0.5), Variance(0.6, 0.9)


def spectral_difference(
    takes: Sequence[PriorFeatures],
    folder: FolderStatistics,
    other: FolderStatistics,
    *,
    sign: float,
) -> SpectralDifference:
    """What takes differ by from their like in the other folder, take by take.

    Parameters
    ----------
    folder, other : Folder
        The one that the takes belong to, and the one that their like is looked up in.
    sign : float
        1 for reference takes, -1 for source takes.
    """
    means, unsteady = [], []
    for take in takes:
        like = other.codebook.nearest_mean(folder.query_vectors(take), _NEIGHBOURS)
        lacking = sign * (take.rows_db - like)[:, take.audible]
        first, second = lacking.tensor_split(2, dim=1)
        means.append(lacking.mean(dim=1))
        unsteady.append(first.mean(dim=1) - second.mean(dim=1))
    frames = torch.tensor([float(take.audible.sum()) for take in takes])
    return SpectralDifference(torch.stack(means), torch.stack(unsteady), frames)


def cluster_sessions(differences: SpectralDifference) -> Tensor:
    """Session of each take [take], counted from 0: takes alike in colour are of one.

    Recordings are cut into takes, and takes of one performance share its room and its microphone.
    Takes are linked that differ by little more than the halves of one take do; what is linked, also
    through others, is one session. In a folder of like takes all are.
    """
    rows, unsteady = (
        x - x.mean(dim=1, keepdim=True) for x in (differences.rows_db, differences.half_difference_db)
    )
    # A take of a single audible frame has no halves.
    limit = _SAME_SESSION_RATIO * float(unsteady.square().mean(dim=1).nanmedian())
    apart = (rows[:, None] - rows[None]).square().mean(dim=2)
    _, label = connected_components((apart <= limit).numpy(), directed=False)
    return torch.from_numpy(label).long()


def fit_static_mask(
    reference: SpectralDifference, source: SpectralDifference, penalty: float = 1.0
) -> Tensor:
    """Static mask [row] in dB: the mean of what both folders' takes say, as far as it is believed.

    In the cosine transform over rows, every shape c is scaled by 1 - v / c², where v is the
    variance that the spread of the sessions leaves to it, times the doubt; both powers are pooled
    over adjoining shapes. The overall level is kept as it is.
    """
    basis = cosine_basis(reference.rows_db.shape[1])
    noise = torch.zeros(len(basis))
    sides = [
        side._replace(rows_db=side.rows_db @ basis.T)
        for side in (reference.merge_sessions(), source.merge_sessions())
    ]
    spreads = [_session_variance(side) for side in sides]
    for side, takes, own, other in zip(sides, (reference, source), spreads, spreads[::-1], strict=True):
        # A take alone may stray as far as the other folder's do; many alike hardly stray.
        spread = other if len(takes.frames) == 1 else own
        if spread is not None:
            noise = noise + (side.frames / side.frames.sum()).square().sum() * spread
    shape = (sides[0].mean + sides[1].mean) / 2
    doubted, power = moving_average(torch.stack([noise, shape.square()])[:, 1:], _POOLED_SHAPES)
    share = 1 - penalty * doubted / power.clamp_min(1e-9)
    believed: Tensor = torch.cat([shape[:1], share.clamp_min(0) * shape[1:]]) @ basis
    return believed


def mean_over_audible(mask_db: Tensor, audible: Tensor) -> Tensor:
    """Mean [row] over the audible frames of [row, frame]."""
    return mask_db[:, audible].mean(dim=1)


def _session_variance(side: SpectralDifference) -> Tensor | None:
    """Variance over sessions [shape]; none of a single one."""
    weight = side.frames / side.frames.sum()
    freedom = 1 - float(weight.square().sum())
    if freedom < 1e-3:
        return None
    return weight @ (side.rows_db - side.mean).square() / freedom
