"""Training of guides: the negative gradient becomes the correction that a sound still needs.

The guide near the reference learns from pseudo-source under the neighbours' mask, and the reference take
that it was made of. The whole-way guide learns from sounds anywhere between source and reference.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tonewood.dsp.features import frame_levels, is_audible, mean_level
from tonewood.scorer.guide import RANGE_DB, Guide, guide_shapes
from tonewood.settings import GuideSettings
from tonewood.utils.arrays import Levels, TakeWeights, interpolate_noise, sample_takes
from tonewood.utils.parallel import raise_if_closed

GuidePair = tuple[Levels, Levels]
"""(input, target) levels [row, frame] in dB of one take."""

_TrainingBatch = tuple[Tensor, Tensor]
"""Inputs and targets [batch, row, frame] in dB."""

_MAX_CORRECTION_DB = 25.0
_CANDIDATE_WEIGHTS = (0.3, 0.6, 1.0)
_MIN_GUIDE_GAIN = 0.005
# Whole-way guide: shares of inputs that have none of their correction, and all of it; the rest has a part.
_NONE_SHARE, _ALL_SHARE = 0.45, 0.15
_SMOOTH_SHARE, _BLOCK_SHARE = 0.4, 0.3  # of inputs with a smooth mask, with blocks
_SMOOTH_MASK_DB, _BLOCK_DB = 6.0, 8.0
_MAX_BLOCKS = 9  # on a crop
_OWN_STEPS_SHARE = 0.6  # of inputs that have followed the gradient
_MAX_OWN_STEPS, _OWN_STEP = 3, 0.5
_STEP_SMOOTHING_FRAMES = 9


def train_guide(
    pairs: Sequence[GuidePair],
    settings: GuideSettings,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> Guide:
    """Train the gradient of a guide on pairs; returns a guide of arrays.

    The loss is the mean over audible frames of the RMS error of the direction. In some crops the input
    is the target, so that the minimum is learnt; random smooth masks on all inputs widen the
    neighbourhood in which the gradient is valid.
    """
    initial = _initial_guide(pairs, settings, generator)
    return _train_gradient(initial, lambda _: _draw_batch(pairs, settings, generator, take_weights), settings)


def train_way_guide(
    pairs: Sequence[GuidePair],
    settings: GuideSettings,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> Guide:
    """Train the gradient of a guide that leads from the source to the reference; returns a guide of arrays.

    A search may start far away and takes many steps, so the inputs are takes with a random part of their
    correction, under smooth masks or blocks, and some have followed the guide's own gradient: the errors
    of earlier steps are part of the training (as in DAgger, Ross, Gordon & Bagnell 2011).
    """

    def draw(guide: Guide) -> _TrainingBatch:
        inputs, targets = _draw_way_batch(pairs, settings, generator, take_weights)
        return _follow_gradient(guide, inputs, generator), targets

    return _train_gradient(_initial_guide(pairs, settings, generator), draw, settings)


def _train_gradient(
    initial: Guide, draw: Callable[[Guide], _TrainingBatch], settings: GuideSettings
) -> Guide:
    """Train the gradient of a guide on batches, which may depend on the guide so far."""
    guide = initial.as_tensors()
    trained = [weight.requires_grad_() for weight in guide.trained_weights()]
    optimiser = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps
    )
    for _ in range(settings.steps):
        raise_if_closed()
        inputs, targets = draw(guide)
        correction, audible = target_correction(inputs, targets)
        error = (_direction(guide, inputs, create_graph=True) - correction).square().mean(dim=1)
        # 0.1 dB² keeps the gradient of the root finite where the error vanishes.
        loss = ((error + 0.1).sqrt() * audible).sum() / audible.sum().clamp_min(1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return guide.as_arrays().rounded()


def _initial_guide(pairs: Sequence[GuidePair], settings: GuideSettings, generator: torch.Generator) -> Guide:
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in guide_shapes(len(pairs[0][0]), settings).items():
        tensor = torch.zeros(shape)
        if name.endswith(".weight"):
            torch.nn.init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)
        weights[name] = tensor.numpy()
    # Energy |own · x + f(x)|²: a quadratic around the mean row, bent by the convolutions f.
    weights["own"] += np.float32(0.2)
    weights["row_weight"] += np.float32(0.3)
    # Around the mean of the targets, where the energy must be small.
    frames = np.concatenate([y - mean_level(y) for _, y in pairs], axis=1).clip(-RANGE_DB)
    weights["row_mean"] = frames.mean(axis=1, dtype=np.float64).astype(np.float32)
    weights["spread"] = np.array(frames.std(ddof=1, dtype=np.float64), dtype=np.float32)
    return Guide(settings, weights)


def validation_gains(guide: Guide, held_out: Sequence[GuidePair]) -> tuple[tuple[float, float], ...]:
    """Return each candidate weight, and the share of the cycle distance that a step of it removes."""
    after = dict.fromkeys(_CANDIDATE_WEIGHTS, 0.0)
    before, network = 0.0, guide.as_tensors()
    for pair in held_out:
        rows_db, target = map(torch.tensor, pair)
        # The level depends on the rows here, as in training; `energy_and_gradient` holds it fixed.
        step = _average_frames(_direction(network, rows_db[None]), _STEP_SMOOTHING_FRAMES)[0]
        before += _correction_distance_db(rows_db, target)
        for weight in _CANDIDATE_WEIGHTS:
            after[weight] += _correction_distance_db(rows_db + weight * step, target)
    return tuple((weight, 1 - after[weight] / before) for weight in _CANDIDATE_WEIGHTS)


def select_guide_weight(gains: Sequence[tuple[float, float]]) -> float:
    """Return the weight of the largest gain; 0 if that is below 0.005, which is noise."""
    weight, gain = max(gains, key=lambda pair: pair[1])
    return weight if gain >= _MIN_GUIDE_GAIN else 0.0


def target_correction(rows_db: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the correction [batch, row, frame] in dB, and the target's audible frames [batch, frame].

    The overall level is removed from the correction.
    """
    audible = is_audible(frame_levels(target)).to(target)
    difference = (target - rows_db).clamp(-_MAX_CORRECTION_DB, _MAX_CORRECTION_DB)
    weight = audible[:, None, :]
    mean = (difference * weight).sum(dim=(1, 2), keepdim=True)
    # + 1 keeps the quotient defined if no frame is audible.
    return difference - mean / (weight.sum(dim=(1, 2), keepdim=True) * target.shape[1] + 1), audible


def _direction(guide: Guide, rows_db: Tensor, *, create_graph: bool = False) -> Tensor:
    """Return the negative gradient of the energy [batch, row, frame], in dB."""
    x = rows_db.detach().requires_grad_()
    return -torch.autograd.grad(guide.energy(x).sum(), x, create_graph=create_graph)[0]


def _draw_batch(
    pairs: Sequence[GuidePair], settings: GuideSettings, generator: torch.Generator, weights: TakeWeights
) -> _TrainingBatch:
    """Draw crops of inputs, with masks on them, and of targets."""
    inputs, targets = _draw_crops(pairs, settings, generator, weights)
    is_target = torch.rand(settings.batch, 1, 1, generator=generator) < settings.done_share
    masks = _random_smooth_masks(inputs, settings.mask_db, generator)
    return torch.where(is_target, targets, inputs) + masks, targets


def _draw_way_batch(
    pairs: Sequence[GuidePair], settings: GuideSettings, generator: torch.Generator, weights: TakeWeights
) -> _TrainingBatch:
    """Draw crops on the way from inputs to targets, some of them under smooth masks or blocks."""
    inputs, targets = _draw_crops(pairs, settings, generator, weights)
    kind, part, disturbance = torch.rand(3, settings.batch, 1, 1, generator=generator)
    share = torch.where(kind < _NONE_SHARE, 0.0, torch.where(kind < 1 - _ALL_SHARE, part, 1.0))
    smooth = _random_smooth_masks(inputs, _SMOOTH_MASK_DB, generator)
    blocks = _average_frames(_random_blocks(inputs, generator), _STEP_SMOOTHING_FRAMES)
    has_blocks = disturbance < _SMOOTH_SHARE + _BLOCK_SHARE
    mask = torch.where(disturbance < _SMOOTH_SHARE, smooth, torch.where(has_blocks, blocks, 0.0))
    return inputs + share * (targets - inputs) + mask, targets


def _random_blocks(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw masks of rectangles with random places, sizes and gains, as at the start of a search."""
    batch, rows, frames = like.shape
    count = int(torch.randint(1, _MAX_BLOCKS + 1, (1,), generator=generator))
    gain_db = torch.randn(batch, count, generator=generator) * _BLOCK_DB
    row_cover, frame_cover = (_random_intervals(batch, count, size, generator) for size in (rows, frames))
    blocks: Tensor = torch.einsum("bn,bnr,bnf->brf", gain_db, row_cover, frame_cover)
    return blocks


def _random_intervals(batch: int, count: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw intervals of up to half of the points; ones [batch, count, point] inside of them."""
    centre, extent = torch.rand(2, batch, count, 1, generator=generator) * size
    distance = (torch.arange(size) - centre).abs()
    # Half an interval to either side: its extent is at most half of all points.
    inside: Tensor = distance <= extent / 4 + 1
    return inside.float()


def _follow_gradient(guide: Guide, inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Apply up to `_MAX_OWN_STEPS` steps of a search to a share of the inputs."""
    follows = torch.rand(len(inputs), 1, 1, generator=generator) < _OWN_STEPS_SHARE
    for _ in range(int(torch.randint(_MAX_OWN_STEPS + 1, (1,), generator=generator))):
        step = _average_frames(_direction(guide, inputs), _STEP_SMOOTHING_FRAMES)
        inputs = torch.where(follows, inputs + _OWN_STEP * step, inputs)
    return inputs


def _draw_crops(
    pairs: Sequence[GuidePair], settings: GuideSettings, generator: torch.Generator, weights: TakeWeights
) -> _TrainingBatch:
    """Draw crops of inputs and targets, as long as the shortest take allows."""
    crop = min([settings.crop_frames, *(y.shape[1] for _, y in pairs)])
    crops = [_draw_pair_crop(pairs, crop, generator, weights) for _ in range(settings.batch)]
    inputs, targets = (torch.from_numpy(np.stack(side)) for side in zip(*crops, strict=True))
    return inputs, targets


def _draw_pair_crop(
    pairs: Sequence[GuidePair], frames: int, generator: torch.Generator, take_weights: TakeWeights
) -> GuidePair:
    (index,) = sample_takes([target.shape[1] for _, target in pairs], 1, generator, take_weights)
    rows_db, target = pairs[index]
    start = int(torch.randint(target.shape[1] - frames + 1, (1,), generator=generator))
    return rows_db[:, start : start + frames], target[:, start : start + frames]


def _random_smooth_masks(like: Tensor, spread_db: float, generator: torch.Generator) -> Tensor:
    batch, rows, frames = like.shape
    shape = interpolate_noise(batch, (rows // 6 + 1, frames // 30 + 2), (rows, frames), generator)
    return torch.rand(batch, 1, 1, generator=generator) * spread_db * shape


def _correction_distance_db(rows_db: Tensor, target: Tensor) -> float:
    """Return the mean over audible frames of the RMS correction, dB."""
    correction, audible = target_correction(rows_db[None], target[None])
    return float((correction.square().mean(dim=1).sqrt() * audible).sum() / audible.sum())


def _average_frames(gain: Tensor, frames: int) -> Tensor:
    """Average gains [batch, row, frame] over time; edges repeat."""
    half = frames // 2
    padded = functional.pad(gain, (half, half), mode="replicate")
    return functional.avg_pool1d(padded, 2 * half + 1, stride=1)
