"""Array types that signatures share, and what arrays of NumPy and torch have in common.

A model is used on NumPy arrays and trained on torch tensors. A formula that both need is written once, with
the functions of `namespace(x)`; those that it uses have the same names and arguments in both libraries.
"""

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    Array = TypeVar("Array", NDArray[Any], Tensor)
else:
    Array = TypeVar("Array")

FloatArray = NDArray[np.floating[Any]]
"""Real numbers, in single or double precision."""

Samples = NDArray[np.float32]
"""Audio (channels, samples) or (samples,); full scale is ±1."""

Levels = NDArray[np.float32]
"""Levels or gains in dB, [row, frame] unless said otherwise."""


def namespace(x: Array) -> Any:  # noqa: ANN401 - a module
    """Return the module of an array's functions: numpy or torch."""
    if isinstance(x, np.ndarray):
        return np
    import torch  # only in training: it takes seconds to load

    return torch


def to_mono(samples: Samples) -> Samples:
    """Return the mean of the channels, (samples,), of (channels, samples)."""
    # Summed in double precision, so that the mean of equal channels is exactly one of them.
    mean: Samples = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def logsumexp(x: Array, axis: int) -> Array:
    """Return log Σ exp(x) over an axis, without overflow; its gradient is finite."""
    xp = namespace(x)
    largest = xp.amax(x, axis, keepdims=True)
    total: Array = xp.squeeze(largest, axis) + xp.log(xp.exp(x - largest).sum(axis))
    return total
