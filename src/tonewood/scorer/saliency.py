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
from numpy.typing import NDArray

from tonewood.errors import CallError, MissingExtraError
from tonewood.scorer.network import Scorer
from tonewood.utils.arrays import FloatArray, RandomDraws
from tonewood.utils.layers import silu

SaliencyMethod = Literal["cam", "integrated", "gradcam"]
ValueFunction = Callable[[FloatArray], FloatArray]
"""Maps clips [clip, row, frame] to the explained values [clip]."""

_PATH_STEPS = 64  # on the path from the mean row to the clip
_QUADRATURE_NODES = 24
_CLIP_BATCH = 32  # keeps memory independent of the recording's length
RANDOM_ORDERS = 20  # a map that beats all of them is better than 95 %
_CURVE_STEPS = 8
_MAX_CLIPS = 6  # evenly spaced; more hardly change the curves
_CONFIDENT_FRACTION = 0.95


@dataclass(frozen=True, eq=False)
class Saliency:
    """Contribution of each cell of a clip to its logit."""

    # [clip, row, frame]: positive is source-like, negative reference-like. Their mean plus `base` is the
    # logit.
    cells: FloatArray
    base: float  # logit without input: the bias, or the logit of the mean row throughout
    logits: FloatArray  # [clip]: of the scorer

    @property
    def residual(self) -> float:
        """Largest difference between the logit and the sum of the cells and the base."""
        return float(np.abs(self.cells.mean(axis=(1, 2)) + self.base - self.logits).max())


def compute_saliency(scorer: Scorer, rows_db: FloatArray, method: SaliencyMethod = "cam") -> Saliency:
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
        The method `integrated` needs captum.
    """
    check_saliency_method(method)
    methods: dict[SaliencyMethod, Callable[[Scorer, FloatArray], Saliency]] = {
        "cam": _cam_saliency,
        "integrated": _integrated_gradients,
        "gradcam": _grad_cam,
    }
    batches = [methods[method](scorer, clips) for clips in _split_clips(rows_db)]
    return Saliency(
        np.concatenate([batch.cells for batch in batches]),
        batches[0].base,
        np.concatenate([batch.logits for batch in batches]),
    )


def check_saliency_method(method: str) -> None:
    """Raise the errors of `compute_saliency`, before any work is done."""
    if method not in get_args(SaliencyMethod):
        raise CallError(f"--method is {method!r}: choose {', '.join(get_args(SaliencyMethod))}")
    if method == "integrated":
        try:
            import captum  # noqa: F401
        except ImportError:
            raise MissingExtraError(f"--method {method} needs captum: pip install '.[captum]'") from None


def attribution_by_band(scorer: Scorer, rows_db: FloatArray) -> FloatArray:
    """Return the contribution [clip, row] of each row's average level to the logits of clips.

    Integrated gradients on the path from the clip with its long-term spectrum replaced by the mean
    row to the clip itself: the effect that an equaliser could remove. The sum over rows is the
    difference of the two logits.

    Parameters
    ----------
    rows_db : float array [clip, row, frame]
        Clips, dB.
    """
    return np.concatenate([_band_attribution(scorer, clips) for clips in _split_clips(rows_db)])


def class_activation_map(scorer: Scorer, rows_db: FloatArray) -> FloatArray:
    """Return the map [row', frame'] of a clip [row, frame] in dB; its mean plus the bias is the logit.

    Positive is source-like, negative reference-like.
    """
    activation: FloatArray = _weight_maps(scorer, scorer.activations(rows_db[None]))[0]
    return activation


def interpolate_cam(scorer: Scorer, activation: FloatArray, rows: int, frames: int) -> FloatArray:
    """Interpolate a class activation map on the clip's grid [row, frame], for plots.

    With odd kernels padded by half their size, cell i of the map is centred on row or frame i times
    the product of the strides.
    """
    row_step, frame_step = _cell_strides(scorer)
    return _interpolate_last_axis(_interpolate_last_axis(activation, frames, frame_step).T, rows, row_step).T


def upsample_cam(scorer: Scorer, activation: FloatArray, rows: int, frames: int) -> FloatArray:
    """Interpolate class activation maps [clip, row', frame'] on the clips' grid, and keep their means.

    Each cell is distributed over its rows, so that the sum over rows is kept. The first and last cells
    cover fewer frames; a constant corrects for that, since distribution would cause edges there.
    """
    row_step, frame_step = _cell_strides(scorer)
    cells = activation.shape[1]
    # Interpolation weights of each cell, normalised: the first cell covers fewer rows, the last one more.
    hats = _interpolate_last_axis(np.eye(cells, dtype=activation.dtype), rows, row_step)  # [cell, row]
    shares = hats / hats.sum(axis=1, keepdims=True) * (rows / cells)
    grid = _interpolate_last_axis(shares.T @ activation, frames, frame_step)
    # The mean carries the logit, so it must survive the interpolation exactly.
    before, after = (values.mean(axis=(1, 2), keepdims=True) for values in (activation, grid))
    corrected: FloatArray = grid + (before - after)
    return corrected


def _split_clips(rows_db: FloatArray) -> list[FloatArray]:
    return [rows_db[start : start + _CLIP_BATCH] for start in range(0, len(rows_db), _CLIP_BATCH)]


def _bias(scorer: Scorer) -> float:
    return float(scorer.weights["linear.bias"][0])


def _cam_saliency(scorer: Scorer, rows_db: FloatArray) -> Saliency:
    maps = scorer.activations(rows_db)
    cells = upsample_cam(scorer, _weight_maps(scorer, maps), *rows_db.shape[1:])
    return Saliency(cells, _bias(scorer), scorer.logit_from_features(maps))


def _integrated_gradients(scorer: Scorer, rows_db: FloatArray) -> Saliency:
    import torch
    from captum.attr import IntegratedGradients

    network, clips = scorer.as_tensors(), torch.tensor(scorer.normalize(rows_db))
    attribution = IntegratedGradients(lambda z: network.logit_from_normalized(z), multiply_by_inputs=True)
    shares = [
        attribution.attribute(clip[None], torch.zeros_like(clip[None]), n_steps=_PATH_STEPS)[0]
        for clip in clips  # one by one: the path is a batch of 64 already
    ]
    base = float(network.logit_from_normalized(torch.zeros_like(clips[:1])))
    # Contributions sum to the logit; times the number of cells, their mean does.
    cells = torch.stack(shares) * clips[0].numel()
    return Saliency(cells.numpy(), base, network.logit_from_normalized(clips).numpy())


def _grad_cam(scorer: Scorer, rows_db: FloatArray) -> Saliency:
    """Compute Grad-CAM (Selvaraju et al. 2017) at the first convolution, before its SiLU."""
    import torch

    network, clips = scorer.as_tensors(), torch.tensor(scorer.normalize(rows_db))
    first = network.convolve_layer(0, clips[:, None]).requires_grad_()
    maps = silu(first)
    for number in range(1, scorer.settings.depth):
        maps = silu(network.convolve_layer(number, maps))
    logits = network.logit_from_features(maps)
    (gradient,) = torch.autograd.grad(logits.sum(), first)
    # A channel's weight is its gradient, summed over cells: that makes the map one in logits.
    weighted = (gradient.sum(dim=(2, 3), keepdim=True) * first).sum(dim=1)
    cells: FloatArray = weighted.detach().numpy()
    for axis, count, step in zip((-2, -1), rows_db.shape[1:], scorer.strides[0], strict=True):
        cells = _interpolate_last_axis(cells.swapaxes(axis, -1), count, step).swapaxes(axis, -1)
    return Saliency(cells, _bias(scorer), logits.detach().numpy())


def _band_attribution(scorer: Scorer, rows_db: FloatArray) -> FloatArray:
    import torch

    network, clips = scorer.as_tensors(), torch.tensor(scorer.normalize(rows_db))
    mean = clips.mean(dim=2, keepdim=True)
    # Gauss-Legendre quadrature on [0, 1], exact for polynomials of degree 2 · 24 - 1.
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE_NODES)
    gradient = torch.zeros_like(clips)  # mean over the path
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        point = (clips - (1 - node) * mean).requires_grad_()
        (at_point,) = torch.autograd.grad(network.logit_from_normalized(point).sum(), point)
        gradient += weight * at_point
    attribution: FloatArray = (gradient.sum(dim=2) * mean[:, :, 0]).numpy()
    return attribution


def _weight_maps(scorer: Scorer, activations: FloatArray) -> FloatArray:
    """Weight and sum feature maps [clip, channel, row', frame'] to [clip, row', frame']."""
    maps: FloatArray = (scorer.weights["linear.weight"][0, :, None, None] * activations).sum(axis=1)
    return maps


def _cell_strides(scorer: Scorer) -> tuple[int, int]:
    """Return rows and frames from one cell of the last feature map to the next."""
    rows, frames = zip(*scorer.strides, strict=True)
    return math.prod(rows), math.prod(frames)


def _interpolate_last_axis(values: FloatArray, count: int, step: int) -> FloatArray:
    """Interpolate the last axis at 0, 1/step, 2/step …, and hold its last value."""
    last = values.shape[-1] - 1
    position = (np.arange(count) / step).clip(max=last)
    left = position.astype(np.int64)
    fraction = (position - left).astype(values.dtype)
    right = (left + 1).clip(max=last)
    return values[..., left] * (1 - fraction) + values[..., right] * fraction


class DeletionBlock(NamedTuple):
    """Size of the blocks that are replaced."""

    rows: int
    frames: int


DELETION_BLOCK = DeletionBlock(6, 15)  # half an octave, 150 ms: about a cell of the last feature map


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Deletion and insertion curves, averaged over clips."""

    share: FloatArray  # [step]: of the blocks that are deleted or inserted, from 0 to 1
    # [step]: values, most salient blocks first
    deletion: FloatArray
    insertion: FloatArray
    # [draw, step]: values in random orders
    random_deletion: FloatArray
    random_insertion: FloatArray

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
        return float(deletion.mean()), float(insertion.mean())

    @property
    def is_faithful(self) -> bool:
        """True if the map is better than all random orders in both curves."""
        return min(self.fraction_beaten) > _CONFIDENT_FRACTION

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
    clips: FloatArray,
    fill: FloatArray,
    saliency: FloatArray,
    generator: RandomDraws,
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
    clips, fill : float array [clip, row, frame]
        Input, and the replacement of deleted blocks.
    saliency : float array [clip, row, frame]
    """
    assert clips.shape == fill.shape == saliency.shape
    selected = np.linspace(0, len(clips) - 1, min(len(clips), _MAX_CLIPS)).round().astype(np.int64)
    share = np.linspace(0, 1, steps + 1)
    curves = [
        _clip_curves(value, clips[i], fill[i], saliency[i], share, block, draws, generator)
        for i in selected.tolist()
    ]
    deletion, insertion = np.stack(curves).mean(axis=0)  # [order, step], the map first
    return Faithfulness(share, deletion[0], insertion[0], deletion[1:], insertion[1:])


def _clip_curves(
    value: ValueFunction,
    clip: FloatArray,
    fill: FloatArray,
    saliency: FloatArray,
    share: FloatArray,
    block: DeletionBlock,
    draws: int,
    generator: RandomDraws,
) -> FloatArray:
    """Return the curves [deletion or insertion, order, step] of one clip [row, frame]."""
    index = _block_indices(clip.shape, block)
    cells = np.bincount(index.ravel())
    mean = np.bincount(index.ravel(), saliency.ravel()) / cells
    orders = [np.argsort(-mean, kind="stable")]
    orders += [generator.permutation(len(cells)) for _ in range(draws)]
    # Deleted at step k: the first share[k] of the blocks in each order.
    number = (share * len(cells)).round()[:, None, None]
    curves = []
    for order in orders:
        rank = np.argsort(order)
        deleted = rank[index] < number  # [step, row, frame]
        both = np.concatenate([np.where(deleted, fill, clip), np.where(deleted, clip, fill)])
        curves.append(value(both).astype(np.float64).reshape(2, -1))
    return np.stack(curves, axis=1)


def _block_indices(shape: tuple[int, ...], block: DeletionBlock) -> NDArray[np.int64]:
    """Return the number of each cell's block [row, frame]."""
    rows, frames = shape
    across = -(-frames // block.frames)
    return (np.arange(rows) // block.rows * across)[:, None] + np.arange(frames) // block.frames


def _curve_area(values: FloatArray, share: FloatArray) -> FloatArray:
    # The trapezoidal rule; NumPy's function has another name since 2.0.
    area: FloatArray = ((values[..., 1:] + values[..., :-1]) / 2 * np.diff(share)).sum(axis=-1)
    return area
