"""Saliency maps of the scorer (paper, section V), and tests of their faithfulness.

*Class activation maps* (Zhou et al. 2016): the scorer averages its last feature maps and weights them
linearly, so the map is an exact decomposition of the logit, at the resolution of the feature maps.
*Integrated gradients* (Sundararajan, Taly & Yan 2017) are as exact, at the spectrogram's resolution.

Deletion and insertion curves (Petsiuk, Das & Saenko, *RISE*, 2018) test a map: replacing the most
salient blocks must lower the value faster than replacing blocks in random order.
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
ValueFunction = Callable[[Tensor], Tensor]
"""Maps clips [clip, row, frame] to the explained values [clip]."""

_PATH_STEPS = 64  # on the path from the mean row to the clip
_QUADRATURE_NODES = 24
_CLIP_BATCH = 32  # keeps memory independent of the recording's length
RANDOM_ORDERS = 20  # the smallest number of which 95 % is an integer
_CURVE_STEPS = 8
_MAX_CLIPS = 6  # evenly spaced; more hardly change the curves
_CONFIDENT_FRACTION = 0.95


@dataclass(frozen=True, eq=False)
class Saliency:
    """Contribution of each cell of a clip to its logit.

    Parameters
    ----------
    cells : Tensor [clip, row, frame]
        Positive is source-like, negative reference-like. Their mean plus `base` is the logit.
    base : float
        Logit without input: the bias, or the logit of the mean row throughout.
    logits : Tensor [clip]
        Of the scorer.
    """

    cells: Tensor
    base: float
    logits: Tensor

    @property
    def residual(self) -> float:
        """Largest difference between the logit and the sum of the cells and the base."""
        return float((self.cells.mean(dim=(1, 2)) + self.base - self.logits).abs().max())


def compute_saliency(scorer: Scorer, rows_db: Tensor, method: SaliencyMethod = "cam") -> Saliency:
    """Compute the saliency of clips [clip, row, frame] in dB, each as long as a training crop.

    Parameters
    ----------
    method : {"cam", "integrated", "gradcam"}
        Class activation map, integrated gradients, or Grad-CAM of the first convolution. Only the
        last leaves a residual.

    Raises
    ------
    CallError
        The method does not exist.
    MissingExtraError
        Methods other than `cam` need captum.
    """
    check_saliency_method(method)
    methods: dict[SaliencyMethod, Callable[[Scorer, Tensor], Saliency]] = {
        "cam": _cam_saliency,
        "integrated": _integrated_gradients,
        "gradcam": _grad_cam,
    }
    batches = [methods[method](scorer, clips) for clips in torch.split(rows_db, _CLIP_BATCH)]
    return Saliency(
        torch.cat([batch.cells for batch in batches]),
        batches[0].base,
        torch.cat([batch.logits for batch in batches]),
    )


def check_saliency_method(method: str) -> None:
    """Raise the errors of `compute_saliency`, before any work is done."""
    if method not in get_args(SaliencyMethod):
        raise CallError(f"--method is {method!r}: choose {', '.join(get_args(SaliencyMethod))}")
    if method != "cam":
        try:
            import captum  # noqa: F401
        except ImportError:
            raise MissingExtraError(f"--method {method} needs captum: pip install '.[captum]'") from None


def attribution_by_band(scorer: Scorer, rows_db: Tensor) -> Tensor:
    """Return the contribution [clip, row] of each row's average level to the logits of clips.

    Integrated gradients on the path from the clip with its long-term spectrum replaced by the mean
    row to the clip itself: the effect that an equaliser could remove. The sum over rows is the
    difference of the two logits.

    Parameters
    ----------
    rows_db : Tensor [clip, row, frame]
        Clips, dB.
    """
    return torch.cat([_band_attribution(scorer, clips) for clips in torch.split(rows_db, _CLIP_BATCH)])


def class_activation_map(scorer: Scorer, rows_db: Tensor) -> Tensor:
    """Return the map [row', frame'] of a clip [row, frame] in dB; its mean plus the bias is the logit.

    Positive is source-like, negative reference-like.
    """
    with torch.no_grad():
        return _weight_maps(scorer, scorer.activations(rows_db[None]))[0]


def interpolate_cam(scorer: Scorer, activation: Tensor, rows: int, frames: int) -> Tensor:
    """Interpolate a class activation map on the clip's grid [row, frame], for plots.

    With odd kernels padded by half their size, cell i of the map is centred on row or frame i times
    the product of the strides.
    """
    row_step, frame_step = _cell_strides(scorer)
    return _interpolate_last_axis(_interpolate_last_axis(activation, frames, frame_step).T, rows, row_step).T


def upsample_cam(scorer: Scorer, activation: Tensor, rows: int, frames: int) -> Tensor:
    """Interpolate class activation maps [clip, row', frame'] on the clips' grid, and keep their means.

    Each cell is distributed over its rows, so that the sum over rows is kept. The first and last cells
    cover fewer frames; a constant corrects for that, since distribution would cause edges there.
    """
    row_step, frame_step = _cell_strides(scorer)
    cells = activation.shape[1]
    # Interpolation weights of each cell, normalised: the first cell covers fewer rows, the last one more.
    hats = _interpolate_last_axis(torch.eye(cells, dtype=activation.dtype), rows, row_step)  # [cell, row]
    shares = hats / hats.sum(dim=1, keepdim=True) * (rows / cells)
    grid = _interpolate_last_axis(shares.T @ activation, frames, frame_step)
    # The mean carries the logit, so it must survive the interpolation exactly.
    before, after = (values.mean(dim=(1, 2), keepdim=True) for values in (activation, grid))
    return grid + (before - after)


def _cam_saliency(scorer: Scorer, rows_db: Tensor) -> Saliency:
    with torch.no_grad():
        activation = _weight_maps(scorer, scorer.activations(rows_db))
        logits = scorer.logit(rows_db)
    cells = upsample_cam(scorer, activation, *rows_db.shape[1:])
    return Saliency(cells, float(scorer.linear.bias), logits)


def _integrated_gradients(scorer: Scorer, rows_db: Tensor) -> Saliency:
    from captum.attr import IntegratedGradients

    clips = scorer.normalize(rows_db).detach()
    attribution = IntegratedGradients(lambda z: scorer.logit_from_normalized(z), multiply_by_inputs=True)
    shares = [
        attribution.attribute(clip[None], torch.zeros_like(clip[None]), n_steps=_PATH_STEPS)[0]
        for clip in clips  # one by one: the path is a batch of 64 already
    ]
    with torch.no_grad():
        base = float(scorer.logit_from_normalized(torch.zeros_like(clips[:1])))
        logits = scorer.logit_from_normalized(clips)
    # Contributions sum to the logit; times the number of cells, their mean does.
    return Saliency(torch.stack(shares).detach() * clips[0].numel(), base, logits)


def _grad_cam(scorer: Scorer, rows_db: Tensor) -> Saliency:
    """Compute Grad-CAM (Selvaraju et al. 2017) at the first convolution; at the last it is the CAM."""
    from captum.attr import LayerGradCam

    clips = scorer.normalize(rows_db).detach().requires_grad_()
    layer = scorer.convolutions[0]
    assert isinstance(layer, nn.Conv2d)
    maps = LayerGradCam(lambda z: scorer.logit_from_normalized(z), layer).attribute(clips).detach()[:, 0]
    # captum weights by a cell's mean gradient; with the sum, the map is in logits.
    maps = maps * maps[0].numel()
    size = maps.shape[-2:]
    for axis, count, step in zip((-2, -1), rows_db.shape[1:], layer.stride, strict=True):
        maps = _interpolate_last_axis(maps.transpose(axis, -1), count, step).transpose(axis, -1)
    assert size[0] <= rows_db.shape[1]
    with torch.no_grad():
        logits = scorer.logit_from_normalized(clips)
    return Saliency(maps, float(scorer.linear.bias), logits)


def _band_attribution(scorer: Scorer, rows_db: Tensor) -> Tensor:
    clips = scorer.normalize(rows_db).detach()
    mean = clips.mean(dim=2, keepdim=True)
    # Gauss-Legendre quadrature on [0, 1], exact for polynomials of degree 2 · 24 - 1.
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE_NODES)
    gradient = torch.zeros_like(clips)  # mean over the path
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        point = (clips - (1 - node) * mean).requires_grad_()
        (at_point,) = torch.autograd.grad(scorer.logit_from_normalized(point).sum(), point)
        gradient += weight * at_point
    return (gradient.sum(dim=2, keepdim=True) * mean).squeeze(2)


def _weight_maps(scorer: Scorer, activations: Tensor) -> Tensor:
    """Weight and sum feature maps [clip, channel, row', frame'] to [clip, row', frame']."""
    return (scorer.linear.weight[0, :, None, None] * activations).sum(dim=1)


def _cell_strides(scorer: Scorer) -> tuple[int, int]:
    """Return rows and frames from one cell of the last feature map to the next."""
    strides = [layer.stride for layer in scorer.convolutions if isinstance(layer, nn.Conv2d)]
    row_step, frame_step = (math.prod(stride[axis] for stride in strides) for axis in (0, 1))
    return row_step, frame_step


def _interpolate_last_axis(values: Tensor, count: int, step: int) -> Tensor:
    """Interpolate the last axis at 0, 1/step, 2/step …, and hold its last value."""
    last = values.shape[-1] - 1
    position = (torch.arange(count, dtype=values.dtype) / step).clamp_max(last)
    left = position.long()
    fraction = position - left
    return values[..., left] * (1 - fraction) + values[..., (left + 1).clamp_max(last)] * fraction


class DeletionBlock(NamedTuple):
    """Size of the blocks that are replaced."""

    rows: int
    frames: int


DELETION_BLOCK = DeletionBlock(6, 15)  # half an octave, 150 ms: about a cell of the last feature map


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Deletion and insertion curves, averaged over clips.

    Parameters
    ----------
    share : Tensor [step]
        Of the blocks that are deleted or inserted, from 0 to 1.
    deletion, insertion : Tensor [step]
        Values, most salient blocks first.
    random_deletion, random_insertion : Tensor [draw, step]
        Values in random orders.
    """

    share: Tensor
    deletion: Tensor
    insertion: Tensor
    random_deletion: Tensor
    random_insertion: Tensor

    @property
    def deletion_area(self) -> float:
        """Area under the deletion curve; low is faithful."""
        return float(_curve_area(self.deletion, self.share))

    @property
    def insertion_area(self) -> float:
        """Area under the insertion curve; high is faithful."""
        return float(_curve_area(self.insertion, self.share))

    @property
    def random_areas(self) -> tuple[float, float]:
        """Mean areas of the random orders: deletion, insertion."""
        deletion, insertion = (
            float(_curve_area(values, self.share).mean())
            for values in (self.random_deletion, self.random_insertion)
        )
        return deletion, insertion

    @property
    def fraction_beaten(self) -> tuple[float, float]:
        """Shares of random orders that are worse than the map: deletion, insertion."""
        deletion = _curve_area(self.random_deletion, self.share) > self.deletion_area
        insertion = _curve_area(self.random_insertion, self.share) < self.insertion_area
        return float(deletion.float().mean()), float(insertion.float().mean())

    @property
    def is_faithful(self) -> bool:
        """True if the map is better than 95 % of random orders in both curves."""
        return min(self.fraction_beaten) >= _CONFIDENT_FRACTION

    @property
    def line(self) -> str:
        """The result in words."""
        if self.is_faithful:
            return "the map shows what the scorer listens to: it is better than random regions"
        deletion, insertion = self.fraction_beaten
        test = "insertion" if insertion < deletion else "deletion"
        return f"the map is no better than random regions in the {test} test: do not trust it"


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
    """Measure deletion and insertion curves of a saliency map and of random orders of its blocks.

    Parameters
    ----------
    value : callable
        The explained function of clips.
    clips, fill : Tensor [clip, row, frame]
        Input, and the replacement of deleted blocks.
    saliency : Tensor [clip, row, frame]
    """
    assert clips.shape == fill.shape == saliency.shape
    selected = torch.linspace(0, len(clips) - 1, min(len(clips), _MAX_CLIPS)).round().long()
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    curves = [
        _clip_curves(value, clips[i], fill[i], saliency[i], share, block, draws, generator)
        for i in selected.tolist()
    ]
    deletion, insertion = torch.stack(curves).mean(dim=0)  # [order, step], the map first
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
    """Return the curves [deletion or insertion, order, step] of one clip [row, frame]."""
    rows, frames = clip.shape
    across = -(-frames // block.frames)
    block_index = (torch.arange(rows) // block.rows)[:, None] * across
    block_index = block_index + torch.arange(frames) // block.frames  # [row, frame]
    count = int(block_index.max()) + 1
    size = torch.bincount(block_index.ravel(), minlength=count)
    total = torch.zeros(count, dtype=saliency.dtype)
    mean = total.index_add(0, block_index.ravel(), saliency.ravel()) / size
    orders = [mean.argsort(descending=True)]
    orders += [torch.randperm(count, generator=generator) for _ in range(draws)]
    # Deleted at step k: the first share[k] of the blocks in each order.
    number = (share * count).round()[:, None, None]
    curves = []
    for order in orders:
        rank = torch.empty(count, dtype=torch.long)
        rank[order] = torch.arange(count)
        deleted = rank[block_index] < number  # [step, row, frame]
        both = torch.cat([torch.where(deleted, fill, clip), torch.where(deleted, clip, fill)])
        curves.append(value(both).detach().double().reshape(2, -1))
    return torch.stack(curves, dim=1)


def _curve_area(values: Tensor, share: Tensor) -> Tensor:
    return torch.trapezoid(values, share)
