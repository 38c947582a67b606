"""Is a saliency map true to the scorer? Take away what it names, and see.

Deletion and insertion curves (Petsiuk, Das & Saenko, *RISE*, 2018): blocks of a clip are replaced
by a fill, or put back into it, the most salient first. A map that knows what the scorer heard
makes the value fall sooner, and rise sooner, than the same blocks in random order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ValueFunction = Callable[[Tensor], Tensor]
"""Clips [clip, row, frame] → a value [clip], the higher the more of what is explained."""


class DeletionBlock(NamedTuple):
    """Size of what is replaced at once."""

    rows: int
    frames: int


DELETION_BLOCK = DeletionBlock(6, 15)  # half an octave, 150 ms: about what a cell of the last feature map hears
RANDOM_ORDERS = 20  # random orders: to beat 95 % of them means something
_CURVE_STEPS = 8
_MAX_CLIPS = 6  # drawn evenly from a long recording; the curves change little with more
_CONFIDENT_FRACTION = 0.95


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Values while blocks go or come, means over clips.

    Parameters
    ----------
    share : Tensor [step]
        Of the blocks that went, or came, from 0 to 1.
    deletion, insertion : Tensor [step]
        Most salient blocks first.
    random_deletion, random_insertion : Tensor [draw, step]
        The same blocks in random order.
    """

    share: Tensor
    deletion: Tensor
    insertion: Tensor
    random_deletion: Tensor
    random_insertion: Tensor

    @property
    def deletion_area(self) -> float:
        """Mean value while blocks go; low is faithful."""
        return float(_curve_area(self.deletion, self.share))

    @property
    def insertion_area(self) -> float:
        """Mean value while blocks come; high is faithful."""
        return float(_curve_area(self.insertion, self.share))

    @property
    def random_areas(self) -> tuple[float, float]:
        """Means of the random orders' areas, deletion and insertion."""
        deletion, insertion = (
            float(_curve_area(values, self.share).mean())
            for values in (self.random_deletion, self.random_insertion)
        )
        return deletion, insertion

    @property
    def fraction_beaten(self) -> tuple[float, float]:
        """Shares of random orders that do worse than the map, deletion and insertion."""
        deletion = _curve_area(self.random_deletion, self.share) > self.deletion_area
        insertion = _curve_area(self.random_insertion, self.share) < self.insertion_area
        return float(deletion.float().mean()), float(insertion.float().mean())

    @property
    def is_faithful(self) -> bool:
        """Whether the map does better than 95 % of random orders, both ways."""
        return min(self.fraction_beaten) >= _CONFIDENT_FRACTION

    @property
    def line(self) -> str:
        """The verdict in words."""
        if self.is_faithful:
            return "the map names what the scorer listens to, better than random regions do"
        one = ("taking away", "putting back")[self.fraction_beaten[1] < self.fraction_beaten[0]]
        return (
            f"the map does no better than random regions when {one} what it names: do not trust it"
        )


def measure_faithfulness(
    value: ValueFunction,
    clips: Tensor,
    fill: Tensor,
    saliency: Tensor,
    generator: torch.Generator,
    *,
    block: DeletionBlock = DELETION_BLOCK,
    steps: int = _CURVE_STEPS,
    draws: int = RANDOM_ORDERS,
) -> Faithfulness:
    """Deletion and insertion curves of a saliency map, and of random orders of its blocks.

    Parameters
    ----------
    value : callable
        What the map explains; any function of clips.
    clips, fill : Tensor [clip, row, frame]
        What is heard, and what stands where nothing is.
    saliency : Tensor [clip, row, frame]
        High where a clip is said to raise the value.
    generator : torch.Generator
        Draws the random orders.
    """
    assert clips.shape == fill.shape == saliency.shape
    chosen = torch.linspace(0, len(clips) - 1, min(len(clips), _MAX_CLIPS)).round().long()
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    curves = [
        _clip_curves(value, clips[i], fill[i], saliency[i], share, block, draws, generator)
        for i in chosen.tolist()
    ]
    deletion, insertion = torch.stack(curves).mean(dim=0)  # [order, step], the map's own first
    return Faithfulness(share, deletion[0], insertion[0], deletion[1:], insertion[1:])


def _clip_curves(
    value: ValueFunction,
    clip: Tensor,
    fill: Tensor,
    saliency: Tensor,
    share: Tensor,
    block: DeletionBlock,
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    """Curves [deletion or insertion, order, step] of one clip [row, frame]."""
    rows, frames = clip.shape
    across = -(-frames // block.frames)
    place = (torch.arange(rows) // block.rows)[:, None] * across
    place = place + torch.arange(frames) // block.frames  # number of each cell's block
    count = int(place.max()) + 1
    size = torch.bincount(place.ravel(), minlength=count)
    held = torch.zeros(count, dtype=saliency.dtype)
    mean = held.index_add(0, place.ravel(), saliency.ravel()) / size
    orders = [mean.argsort(descending=True)]
    orders += [torch.randperm(count, generator=generator) for _ in range(draws)]
    number = (share * count).round()[:, None, None]
    curves = []
    for order in orders:
        rank = torch.empty(count, dtype=torch.long)
        rank[order] = torch.arange(count)
        gone = rank[place] < number  # [step, row, frame]
        both = torch.cat([torch.where(gone, fill, clip), torch.where(gone, clip, fill)])
        curves.append(value(both).detach().double().reshape(2, -1))
    return torch.stack(curves, dim=1)


def _curve_area(values: Tensor, share: Tensor) -> Tensor:
    return torch.trapezoid(values, share)
