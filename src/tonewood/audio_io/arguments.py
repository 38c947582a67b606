"""Samples and rates as people pass them from Python."""

import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tonewood.errors import CallError
from tonewood.utils.arrays import Samples

# Full scale of integer samples, and their zero.
_INTEGER_RANGES = {"int8": (128, 0), "uint8": (128, 128), "int16": (32_768, 0), "int32": (2**31, 0)}


def to_float_samples(samples: ArrayLike) -> Samples:
    """Return samples as float32 with full scale ±1; integers are scaled by their type, as in files.

    Takes arrays, nested lists and tensors of torch, on any device and with a gradient.

    Raises
    ------
    CallError
        The values are not samples: booleans, complex numbers, text, other integers, or a ragged list.
    """
    array = _to_array(samples)
    if np.ma.isMaskedArray(array) and np.ma.getmaskarray(array).any():
        raise CallError("samples are masked: fill the masked values first")
    if scale := _INTEGER_RANGES.get(array.dtype.name):
        full, zero = scale
        return np.asarray((array.astype(np.float64) - zero) / full, dtype=np.float32)
    if array.dtype.kind not in "fO" or (array.dtype.kind == "O" and not _has_numbers(array)):
        raise CallError(
            f"samples are {array.dtype.name}: give floats with full scale 1, or int16, int32, int8 or uint8"
        )
    return np.asarray(array, dtype=np.float32)


def _to_array(samples: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401 - of any type
    if hasattr(samples, "detach"):  # a tensor of torch, which NumPy refuses with a gradient or on a GPU
        samples = samples.detach().cpu()
        samples = samples.float() if samples.dtype.is_floating_point else samples
    try:
        array = samples if np.ma.isMaskedArray(samples) else np.asarray(samples)
    except (TypeError, ValueError) as error:
        raise CallError(f"samples cannot be used as an array ({error}): give (channels, samples)") from None
    assert isinstance(array, np.ndarray)
    return array


def _has_numbers(array: np.ndarray[Any, Any]) -> bool:
    return all(isinstance(value, float | np.floating) for value in array.flat)


def to_whole_rate(rate: Any, low: int, high: int) -> int:  # noqa: ANN401 - of any type
    """Return a sample rate in Hz as an int; CallError if it is not a whole number from `low` to `high`."""
    try:
        if isinstance(rate, bool | np.bool_):
            raise TypeError
        value = rate.item() if hasattr(rate, "item") else rate
        whole = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
    except (TypeError, ValueError):
        raise CallError(f"rate is {rate!r}: give a whole number of Hz, such as 44100") from None
    if not low <= whole <= high:
        raise CallError(f"rate is {whole} Hz: give {low} to {high} Hz")
    return whole
