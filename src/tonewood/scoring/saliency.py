"""Class activation maps (paper V): which moments and pitches made the score.

Zhou et al., *Learning Deep Features for Discriminative Localization* (2016). The scorer pools its
last feature maps by their mean and weighs them linearly, so weighing before pooling gives the same
logit: the map is an exact account of the score, not an approximation of it.
"""

import math

import torch
from torch import Tensor, nn

from tonewood.scoring.scorer import Scorer


def class_activation_map(scorer: Scorer, rows_db: Tensor) -> Tensor:
    """Map [row', frame'] whose mean plus the scorer's bias is the clip's logit.

    Positive where the clip sounds like the source, negative where like the reference.

    Parameters
    ----------
    rows_db : Tensor [row, frame]
        One clip, dB; it is scored whole.
    """
    with torch.no_grad():
        weighed = scorer.linear.weight[0, :, None, None] * scorer.activations(rows_db[None])[0]
        return weighed.sum(dim=0)


def on_rows(scorer: Scorer, activation: Tensor, rows: int, frames: int) -> Tensor:
    """Class activation map brought to the clip's own grid [row, frame], for drawing.

    Interpolated linearly: with odd kernels padded by half their reach, cell i of the map is
    centred on row or frame i times the product of the strides.
    """
    strides = [layer.stride for layer in scorer.convolutions if isinstance(layer, nn.Conv2d)]
    row_step, frame_step = (math.prod(stride[axis] for stride in strides) for axis in (0, 1))
    return _stretched(_stretched(activation, frames, frame_step).T, rows, row_step).T


def _stretched(values: Tensor, count: int, step: int) -> Tensor:
    """Last axis interpolated at 0, 1/step, 2/step …; its ends hold."""
    last = values.shape[-1] - 1
    position = (torch.arange(count, dtype=values.dtype) / step).clamp_max(last)
    left = position.long()
    part = position - left
    return values[..., left] * (1 - part) + values[..., (left + 1).clamp_max(last)] * part
