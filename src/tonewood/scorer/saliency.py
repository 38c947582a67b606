"""Saliency (paper V): which moments and pitches made the score.

Class activation maps after Zhou et al., *Learning Deep Features for Discriminative Localization*
(2016). The scorer pools its last feature maps by their mean and weighs them linearly, so weighing
before pooling gives the same logit: the map is an exact account of the score, not an approximation
of it. Its cells are coarse, though, and each has heard all that its convolutions reach. Integrated
gradients (Sundararajan, Taly & Yan 2017) are as exact and as fine as the spectrogram.

Is a saliency map true to the scorer? Take away what it names, and see.

Deletion and insertion curves (Petsiuk, Das & Saenko, *RISE*, 2018): blocks of a clip are replaced
by a fill, or put back into it, the most salient first. A map that knows what the scorer heard
makes the value fall sooner, and rise sooner, than the same blocks in random order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from tonewood.errors import CallError, MissingExtraError
from tonewood.scorer.network import Scorer

SaliencyMethod = Literal["cam", "integrated", "gradcam"]
_PATH_STEPS = 64  # of the path from the mean row to the clip
_QUADRATURE_NODES = 24
_CLIP_BATCH = 32  # clips worked on at once: memory does not grow with a recording's length


@dataclass(frozen=True, eq=False)
class Saliency:
    """What each cell of a clip added to its logit.

    Parameters
    ----------
    cells : Tensor [clip, row, frame]
        Positive where a clip sounds like the source, negative where like the reference; their
        mean plus the base is the logit.
    base : float
        Logit before anything is heard: the bias, or the logit of the mean row throughout.
    logits : Tensor [clip]
        By the scorer itself.
    """

    cells: Tensor
    base: float
    logits: Tensor

    @property
    def residual(self) -> float:
        """Largest difference from the logit that the cells leave unexplained."""
        return float((self.cells.mean(dim=(1, 2)) + self.base - self.logits).abs().max())


def compute_saliency(scorer: Scorer, rows_db: Tensor, method: SaliencyMethod = "cam") -> Saliency:
    """Saliency of clips [clip, row, frame] in dB, each as long as the scorer is to hear at once.

    Parameters
    ----------
    method : {"cam", "integrated", "gradcam"}
        Class activation map; integrated gradients; gradient-weighted class activation map of the
        first convolution. The first two leave nothing unexplained, the last one does.

    Raises
    ------
    CallError
        There is no such method.
    MissingExtraError
        All but the first need captum.
    """
    check_saliency_method(method)
    ways: dict[SaliencyMethod, Callable[[Scorer, Tensor], Saliency]] = {
        "cam": _cam_saliency,
        "integrated": _integrated_gradients,
        "gradcam": _grad_cam,
    }
    pieces = [ways[method](scorer, piece) for piece in torch.split(rows_db, _CLIP_BATCH)]
    return Saliency(
        torch.cat([it.cells for it in pieces]),
        pieces[0].base,
        torch.cat([it.logits for it in pieces]),
    )


def check_saliency_method(method: str) -> None:
    """Raise what `explained` would raise, before the work."""
    if method not in get_args(SaliencyMethod):
        raise CallError(f"method is {method!r}; choose {', '.join(get_args(SaliencyMethod))}")
    if method != "cam":
        try:
            import captum  # noqa: F401
        except ImportError:
            raise MissingExtraError(f"method {method} needs captum: pip install '.[captum]'") from None


def attribution_by_band(scorer: Scorer, rows_db: Tensor) -> Tensor:
    """What the average level of each row added to the logits of clips: [clip, row].

    Integrated gradients along the path from the clip with its long-term spectrum moved to the mean
    row, every moment's departure from it kept, to the clip as it is; that is, what an equaliser
    could take away. The rows' sum is the difference of the two logits. Unlike a sum over the cells
    of a map, it says nothing where the long-term spectrum is as that of both folders.

    Parameters
    ----------
    rows_db : Tensor [clip, row, frame]
        Clips, dB.
    """
    return torch.cat([_band_attribution(scorer, piece) for piece in torch.split(rows_db, _CLIP_BATCH)])


def class_activation_map(scorer: Scorer, rows_db: Tensor) -> Tensor:
    """Map [row', frame'] whose mean plus the scorer's bias is the clip's logit.

    Positive where the clip sounds like the source, negative where like the reference.

    Parameters
    ----------
    rows_db : Tensor [row, frame]
        One clip, dB; it is scored whole.
    """
    with torch.no_grad():
        return _weight_maps(scorer, scorer.activations(rows_db[None]))[0]


def interpolate_cam(scorer: Scorer, activation: Tensor, rows: int, frames: int) -> Tensor:
    """Class activation map brought to the clip's own grid [row, frame], for drawing.

    Interpolated linearly: with odd kernels padded by half their reach, cell i of the map is
    centred on row or frame i times the product of the strides.
    """
    row_step, frame_step = _cell_strides(scorer)
    return _interpolate_last_axis(_interpolate_last_axis(activation, frames, frame_step).T, rows, row_step).T


def upsample_cam(scorer: Scorer, activation: Tensor, rows: int, frames: int) -> Tensor:
    """Class activation maps [clip, row', frame'] on the clip's own grid, their means kept.

    As `interpolate_cam`, but each cell shares out what it holds among the rows that it stands for, few for
    the lowest, many for the highest. The first and last cells stand for fewer frames than the
    others, too; one constant makes that good, as sharing would draw an edge at every border.
    """
    row_step, frame_step = _cell_strides(scorer)
    cells = activation.shape[1]
    hats = _interpolate_last_axis(torch.eye(cells, dtype=activation.dtype), rows, row_step)  # [cell, row]
    shares = hats / hats.sum(dim=1, keepdim=True) * (rows / cells)
    grid = _interpolate_last_axis(shares.T @ activation, frames, frame_step)
    wanted, got = (it.mean(dim=(1, 2), keepdim=True) for it in (activation, grid))
    return grid + (wanted - got)


def _cam_saliency(scorer: Scorer, rows_db: Tensor) -> Saliency:
    with torch.no_grad():
        activation = _weight_maps(scorer, scorer.activations(rows_db))
        logits = scorer.logit(rows_db)
    cells = upsample_cam(scorer, activation, *rows_db.shape[1:])
    return Saliency(cells, float(scorer.linear.bias), logits)


def _integrated_gradients(scorer: Scorer, rows_db: Tensor) -> Saliency:
    from captum.attr import IntegratedGradients

    heard = scorer.normalize(rows_db).detach()
    walk = IntegratedGradients(lambda z: scorer.logit_from_normalized(z), multiply_by_inputs=True)
    shares = [
        walk.attribute(clip[None], torch.zeros_like(clip[None]), n_steps=_PATH_STEPS)[0]
        for clip in heard  # one at a time: a path of 64 clips is batch enough
    ]
    with torch.no_grad():
        base = float(scorer.logit_from_normalized(torch.zeros_like(heard[:1])))
        logits = scorer.logit_from_normalized(heard)
    return Saliency(torch.stack(shares).detach() * heard[0].numel(), base, logits)


def _grad_cam(scorer: Scorer, rows_db: Tensor) -> Saliency:
    """Selvaraju et al., *Grad-CAM* (2017), at the first convolution.

    At the last one it would be the class activation map over again.
    """
    from captum.attr import LayerGradCam

    heard = scorer.normalize(rows_db).detach().requires_grad_()
    layer = scorer.convolutions[0]
    assert isinstance(layer, nn.Conv2d)
    weighed = LayerGradCam(lambda z: scorer.logit_from_normalized(z), layer).attribute(heard).detach()[:, 0]
    # captum weighs by the mean gradient of a cell; by the sum, the mean of the map is in logits.
    weighed = weighed * weighed[0].numel()
    size = weighed.shape[-2:]
    for axis, count, step in zip((-2, -1), rows_db.shape[1:], layer.stride, strict=True):
        weighed = _interpolate_last_axis(weighed.transpose(axis, -1), count, step).transpose(axis, -1)
    assert size[0] <= rows_db.shape[1]
    with torch.no_grad():
        logits = scorer.logit_from_normalized(heard)
    return Saliency(weighed, float(scorer.linear.bias), logits)


def _band_attribution(scorer: Scorer, rows_db: Tensor) -> Tensor:
    heard = scorer.normalize(rows_db).detach()
    departure = heard.mean(dim=2, keepdim=True)
    # Gauss-Legendre quadrature on [0, 1], exact for polynomials of degree 2 · 24 - 1.
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE_NODES)
    gradient = torch.zeros_like(heard)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        at = (heard - (1 - node) * departure).requires_grad_()
        (found,) = torch.autograd.grad(scorer.logit_from_normalized(at).sum(), at)
        gradient += weight * found
    return (gradient.sum(dim=2, keepdim=True) * departure).squeeze(2)


def _weight_maps(scorer: Scorer, activations: Tensor) -> Tensor:
    """Feature maps [clip, channel, row', frame'] weighed and summed: [clip, row', frame']."""
    return (scorer.linear.weight[0, :, None, None] * activations).sum(dim=1)


def _cell_strides(scorer: Scorer) -> tuple[int, int]:
    """Rows and frames from one cell of the last feature map to the next."""
    strides = [layer.stride for layer in scorer.convolutions if isinstance(layer, nn.Conv2d)]
    row_step, frame_step = (math.prod(stride[axis] for stride in strides) for axis in (0, 1))
    return row_step, frame_step


def _interpolate_last_axis(values: Tensor, count: int, step: int) -> Tensor:
    """Last axis interpolated at 0, 1/step, 2/step …; its ends hold."""
    last = values.shape[-1] - 1
    position = (torch.arange(count, dtype=values.dtype) / step).clamp_max(last)
    left = position.long()
    part = position - left
    return values[..., left] * (1 - part) + values[..., (left + 1).clamp_max(last)] * part


ValueFunction = Callable[[Tensor], Tensor]
"""Clips [clip, row, frame] → a value [clip], the higher the more of what is explained."""


class DeletionBlock(NamedTuple):
    """Size of what is replaced at once."""

    rows: int
    frames: int


DELETION_BLOCK = DeletionBlock(
    6, 15
)  # half an octave, 150 ms: about what a cell of the last feature map hears
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
        return f"the map does no better than random regions when {one} what it names: do not trust it"


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
