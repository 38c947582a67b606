"""Resampling that gradients pass through: windowed sinc, one filter for each phase."""

import math
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

_CUTOFF_RATIO = 0.957  # of the lower Nyquist frequency: where soxr's HQ, by which files are read, falls
_ZERO_CROSSINGS = 96
_KAISER_BETA = 12.3  # of Kaiser's window: 120 dB
_MAX_PHASES = 1_000  # other ratios are the nearest of so few: wrong by a millionth at most


class PolyphaseFilter(NamedTuple):
    """Filters that turn one rate into another.

    Parameters
    ----------
    kernel : Tensor [phase, 1, tap], float64
    stride : int
        Input samples for each output sample of every phase.
    reach : int
        Input samples before the first that a filter looks at.
    """

    kernel: Tensor
    stride: int
    reach: int


def design_polyphase(from_rate: int, to_rate: int) -> PolyphaseFilter:
    """Filters from one rate (Hz) to another; time zero stays in place."""
    ratio = Fraction(to_rate, from_rate).limit_denominator(_MAX_PHASES)
    count, stride = ratio.numerator, ratio.denominator
    cut = min(1.0, count / stride) * _CUTOFF_RATIO  # in units of the input's Nyquist frequency
    reach = math.ceil(_ZERO_CROSSINGS / cut)
    tap = torch.arange(-reach, reach + stride, dtype=torch.float64)
    place = tap - torch.arange(count, dtype=torch.float64)[:, None] * stride / count
    away = (place / reach).square().clamp(max=1)
    window = torch.special.i0(_KAISER_BETA * (1 - away).sqrt()) * (away < 1)
    kernel = torch.sinc(place * cut) * window
    # Each phase passes a constant as it is.
    return PolyphaseFilter((kernel / kernel.sum(dim=1, keepdim=True))[:, None], stride, reach)


def resample_polyphase(wave: Tensor, kernel: Tensor, stride: int, reach: int) -> Tensor:
    """Resample waveforms [batch, sample] by the `design_polyphase` of two rates, differentiably.

    Returns
    -------
    Tensor [batch, sample]
        As many samples as last as long, rounded up.
    """
    count = kernel.shape[0]
    length = -(-wave.shape[-1] * count // stride)
    padded = torch.nn.functional.pad(wave, (reach, reach + stride))
    made = torch.nn.functional.conv1d(padded[:, None], kernel, stride=stride)
    return made.transpose(1, 2).reshape(wave.shape[0], -1)[:, :length]
