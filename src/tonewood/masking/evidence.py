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
from torch import Tensor

from tonewood.masking.mask import smoothed
from tonewood.masking.neighbours import Folder, Take, cosine_basis

_DENSE = 36  # codes that a moment is compared with
_POOLED = 5  # adjoining shapes that share one estimate
_SESSION = 2  # takes before and after which may be of one session


class Lack(NamedTuple):
    """What the takes of one folder lack, or have too much, against their like in the other.

    Parameters
    ----------
    rows_db : Tensor [take, row]
        Reference less source, whichever of them the takes are.
    frames : Tensor [take]
        Audible frames, by which each take weighs.
    """

    rows_db: Tensor
    frames: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean over the takes [row]."""
        return self.frames @ self.rows_db / self.frames.sum()


class Belief(NamedTuple):
    """Share that is believed of a mask's departure from the static one.

    Parameters
    ----------
    take : float
        Of its mean over a recording: that recordings need unlike corrections.
    moment : float
        Of its change from moment to moment.
    """

    take: float = 1.0
    moment: float = 1.0

    def applied(self, mask_db: Tensor, static_db: Tensor, audible: Tensor) -> Tensor:
        """Mask [row, frame] as far as it is believed, dB; the static one [row] is believed."""
        mean = mean_over(mask_db, audible)
        start = static_db + self.take * (mean - static_db)
        return start[:, None] + self.moment * (mask_db - mean[:, None])

    @classmethod
    def of(cls, real: "Power", placebo: "Power", doubt: float = 1.0) -> "Belief":
        """All of it where a placebo finds little, none where it finds as much."""
        shares = []
        for wanted, found, certain, chance in zip(real, placebo, _CERTAIN, _CHANCE, strict=True):
            ratio = doubt * found / max(wanted, 1e-9)
            shares.append(min(max((chance - ratio) / (chance - certain), 0.0), 1.0))
        return cls(*shares)


class Power(NamedTuple):
    """Mean square of what masks do, dB², divided as `Belief` divides it.

    Parameters
    ----------
    take : float
        Variance over takes of the masks' means.
    moment : float
        Variance from moment to moment, all rows' common level included.
    """

    take: float
    moment: float

    @classmethod
    def of(cls, masks: Sequence[Tensor], takes: Sequence[Take]) -> "Power":
        """Power of the masks [row, frame] of some takes, two at least."""
        pairs = list(zip(masks, takes, strict=True))
        means = torch.stack([mean_over(mask, take.audible) for mask, take in pairs])
        moments = [
            (mask - mean[:, None])[:, take.audible].square().mean()
            for (mask, take), mean in zip(pairs, means, strict=True)
        ]
        shapes = means - means.mean(dim=1, keepdim=True)
        return cls(float(shapes.var(dim=0).mean()), float(torch.stack(moments).mean()))


# Power of a placebo as a share of the mask's: all is believed below, nothing above. More is asked
# of what differs from take to take, since a folder has few takes and many moments.
_CERTAIN, _CHANCE = Power(0.35, 0.5), Power(0.6, 0.9)


def lack(takes: Sequence[Take], own: Folder, other: Folder, *, sign: float) -> Lack:
    """What takes differ by from their like in the other folder, take by take.

    Parameters
    ----------
    own, other : Folder
        The one that the takes belong to, and the one that their like is looked up in.
    sign : float
        1 for reference takes, -1 for source takes.
    """
    means = []
    for take in takes:
        like = other.codebook.nearest_mean(own.query(take), _DENSE)
        means.append(sign * mean_over(take.rows_db - like, take.audible))
    frames = torch.tensor([float(take.audible.sum()) for take in takes])
    return Lack(torch.stack(means), frames)


def static_mask(reference: Lack, source: Lack, doubt: float = 1.0) -> Tensor:
    """Static mask [row] in dB: the mean of what both folders' takes say, as far as it is believed.

    In the cosine transform over rows, every shape c is scaled by 1 - v / c², where v is the
    variance that the spread of the takes leaves to it, times the doubt; both powers are pooled
    over adjoining shapes. The overall level is kept as it is.
    """
    basis = cosine_basis(reference.rows_db.shape[1])
    sides = [side._replace(rows_db=side.rows_db @ basis.T) for side in (reference, source)]
    spreads = [_spread(side) for side in sides]
    # One take has no spread; it may stray as far as the takes of the other folder do.
    known = [spread for spread in spreads if spread is not None] or [torch.zeros(len(basis))]
    noise = sum(
        (
            _doubt(side) * (known[0] if own is None else own)
            for side, own in zip(sides, spreads, strict=True)
        ),
        torch.zeros(len(basis)),
    )
    shape = (sides[0].mean + sides[1].mean) / 2
    spread, power = smoothed(torch.stack([noise, shape.square()])[:, 1:], _POOLED)
    share = 1 - doubt * spread / power.clamp_min(1e-9)
    believed: Tensor = torch.cat([shape[:1], share.clamp_min(0) * shape[1:]]) @ basis
    return believed


def mean_over(mask_db: Tensor, audible: Tensor) -> Tensor:
    """Mean [row] over the audible frames of [row, frame]."""
    return mask_db[:, audible].mean(dim=1)


def _spread(side: Lack) -> Tensor | None:
    """Variance over takes [shape]; none of a single take."""
    weight = side.frames / side.frames.sum()
    freedom = 1 - float(weight.square().sum())
    if freedom < 1e-3:
        return None
    return weight @ (side.rows_db - side.mean).square() / freedom


def _doubt(side: Lack) -> float:
    """Variance of the folder's mean as a share of its takes' own.

    Takes that follow each other by name are often of one session and then err together, which
    their correlation shows (Newey & West 1987); it is taken over all shapes at once.
    """
    weight = side.frames / side.frames.sum()
    alone = float(weight.square().sum())
    off = (side.rows_db - side.mean)[:, 1:] * weight[:, None]
    power = float(off.square().sum()) or 1.0
    inflated = 1.0
    for lag in range(1, min(_SESSION, len(off) - 1) + 1):
        together = float((off[lag:] * off[:-lag]).sum()) / power
        inflated += 2 * (1 - lag / (_SESSION + 1)) * together
    return alone * max(inflated, 1.0)
