"""Layers of the networks, for NumPy arrays and torch tensors alike.

torch serves training, where gradients are needed and its own functions are used. For NumPy arrays a
convolution is a matrix product, and its gradient the transposed one.
"""

import math
from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from tonewood.utils.arrays import Array, FloatArray

if TYPE_CHECKING:
    from torch import Generator

Stride = tuple[int, int]
"""Steps along the last two axes."""

# erf x = 1 - (Σ a_k t^k) exp(-x²), t = 1 / (1 + p x), within 1.5e-7 (Abramowitz & Stegun 1964, 7.1.26).
_ERF_P = 0.3275911
_ERF_TERMS = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_GELU_BLOCK = 1 << 15  # values at once: the temporary arrays stay in the cache


def convolve(x: Array, weight: Array, bias: Array, *, stride: Stride = (1, 1), dilation: int = 1) -> Array:
    """Return the valid cross-correlation of maps with kernels, plus the bias of each output channel.

    Parameters
    ----------
    x : Array [batch, channel, frame] or [batch, channel, row, frame]
    weight : Array [output channel, channel, ...]
        Kernels along the last axis or the last two.
    stride : (int, int)
        Of rows and frames; the first is for maps with rows.
    dilation : int
        Distance between a kernel's frames.
    """
    if not isinstance(x, np.ndarray):
        return _torch_convolve(x, weight, bias, stride, dilation)  # type: ignore[no-any-return]
    maps, kernels = (x[:, :, None], weight[:, :, None]) if x.ndim == 3 else (x, weight)
    columns = _columns(maps, kernels.shape[2:], stride, dilation)
    batch, _, _, rows, frames = columns.shape
    product = weight.reshape(len(weight), -1) @ columns.reshape(batch, -1, rows * frames)
    product += bias[:, None]
    return product.reshape(batch, len(weight), *((frames,) if x.ndim == 3 else (rows, frames)))


def convolve_gradient(gradient: FloatArray, weight: FloatArray, frames: int) -> FloatArray:
    """Return the gradient [batch, channel, frames] of the input of `convolve` with stride 1.

    Parameters
    ----------
    gradient : float array [batch, output channel, frame]
        Of the output.
    weight : float array [output channel, channel, tap]
    """
    taps = weight.shape[2]
    padded = np.pad(gradient, ((0, 0), (0, 0), (taps - 1, taps - 1)))
    # The adjoint of a correlation is a convolution: the same with the taps reversed and channels swapped.
    mirrored = np.ascontiguousarray(weight[:, :, ::-1].swapaxes(0, 1))
    result = convolve(padded, mirrored, np.zeros(mirrored.shape[0], dtype=gradient.dtype))
    assert result.shape[2] == frames
    return result


def convolve_maps_gradient(
    gradient: FloatArray, weight: FloatArray, stride: Stride, size: tuple[int, ...]
) -> FloatArray:
    """Return the gradient [batch, channel, *size] of the maps that `convolve` reads, of its output."""
    batch, outputs, rows, frames = gradient.shape
    _, channels, height, width = weight.shape
    taps = weight.reshape(outputs, -1).T @ gradient.reshape(batch, outputs, -1)
    columns = taps.reshape(batch, channels, height, width, rows, frames)
    result = np.zeros((batch, channels, *size), dtype=gradient.dtype)
    # Each tap of the kernel read every stride-th cell; it gives its gradient back there.
    for i in range(height):
        for j in range(width):
            last_row, last_frame = i + stride[0] * (rows - 1) + 1, j + stride[1] * (frames - 1) + 1
            result[:, :, i : last_row : stride[0], j : last_frame : stride[1]] += columns[:, :, i, j]
    return result


def _columns(x: FloatArray, size: tuple[int, ...], stride: Stride, dilation: int) -> FloatArray:
    """Return what each tap of a kernel reads [batch, channel, tap, row, frame]."""
    height, width = size
    rows = (x.shape[2] - height) // stride[0] + 1
    frames = (x.shape[3] - (width - 1) * dilation - 1) // stride[1] + 1
    if size == stride == (1, 1):  # a kernel of one tap reads the maps as they are
        return x[:, :, None]
    taps = [
        x[:, :, i : i + stride[0] * rows : stride[0], j : j + stride[1] * frames : stride[1]]
        for i in range(height)
        for j in range(0, width * dilation, dilation)
    ]
    return np.stack([tap[:, :, :rows, :frames] for tap in taps], axis=2)


def _torch_convolve(x: Any, weight: Any, bias: Any, stride: Stride, dilation: int) -> Any:  # noqa: ANN401
    from torch.nn import functional  # only in training

    if x.ndim == 3:
        return functional.conv1d(x, weight, bias, stride[1], dilation=dilation)
    return functional.conv2d(x, weight, bias, stride)


def pad_frames(
    x: Array, before: int, after: int, mode: Literal["constant", "edge", "reflect"] = "constant"
) -> Array:
    """Pad the last axis with zeros, copies of its ends, or its reflection (NumPy's modes)."""
    if isinstance(x, np.ndarray):
        if before == after == 0:  # np.pad would copy
            return x
        return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)], mode=mode)
    from torch.nn import functional  # only in training

    # torch pads the last axis of a matrix or of maps only.
    matrix = x.reshape(-1, x.shape[-1])
    padded = functional.pad(matrix, (before, after), mode="replicate" if mode == "edge" else mode)
    return padded.reshape(*x.shape[:-1], -1)


def pad_edges(x: Array, reach: int) -> Array:
    """Repeat the edges of maps [batch, channel, row, frame] on every side."""
    if isinstance(x, np.ndarray):
        return np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    import torch  # only in training

    if not torch.compiler.is_compiling():
        return torch.nn.functional.pad(x, (reach,) * 4, mode="replicate")
    # torch 2.13's inductor computes wrong strides for the gradient of replicate padding.
    for axis in (-2, -1):
        index = torch.arange(-reach, x.shape[axis] + reach, device=x.device)
        x = x.index_select(axis, index.clamp(0, x.shape[axis] - 1))
    return x


def pad_edges_gradient(gradient: FloatArray, reach: int) -> FloatArray:
    """Return the gradient of the maps that `pad_edges` pads, of its output [batch, channel, row, frame]."""
    for _ in range(2):  # over frames, then over rows
        inner = gradient[..., reach:-reach].copy()
        inner[..., 0] += gradient[..., :reach].sum(axis=-1)
        inner[..., -1] += gradient[..., -reach:].sum(axis=-1)
        gradient = inner.swapaxes(-1, -2)
    return gradient


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x))."""
    if not isinstance(x, np.ndarray):
        return x.sigmoid()
    return 1 / _one_plus_exp_minus(x)


def silu(x: Array) -> Array:
    """Return x · sigmoid(x)."""
    if not isinstance(x, np.ndarray):
        from torch.nn import functional  # only in training

        return functional.silu(x)
    result = _one_plus_exp_minus(x)
    np.divide(x, result, out=result)
    return result


def _one_plus_exp_minus(x: FloatArray) -> FloatArray:
    """Return 1 + exp(-x); infinite where that overflows, so that its inverse is 0."""
    result: FloatArray = np.negative(x)
    with np.errstate(over="ignore"):
        np.exp(result, out=result)
    result += 1
    return result


def silu_slope(x: FloatArray) -> FloatArray:
    """Return the derivative of `silu`."""
    s = sigmoid(x)
    slope: FloatArray = s * (1 + x * (1 - s))
    return slope


def gelu(x: Array) -> Array:
    """Return x · Φ(x), where Φ is the normal distribution function."""
    if not isinstance(x, np.ndarray):
        from torch.nn import functional  # only in training

        return functional.gelu(x)
    flat, result = x.reshape(-1), np.empty(x.size, dtype=x.dtype)
    for start in range(0, x.size, _GELU_BLOCK):
        block = slice(start, start + _GELU_BLOCK)
        result[block] = _gelu_block(flat[block])
    return result.reshape(x.shape)


def _gelu_block(x: FloatArray) -> FloatArray:
    # In place, because most of the time goes to memory.
    size = np.abs(x)
    t = size * x.dtype.type(_ERF_P * math.sqrt(0.5))
    t += 1
    np.reciprocal(t, out=t)
    # Φ(-|x|) = (1 - erf(|x| / √2)) / 2, hence half of each term.
    tail = t * x.dtype.type(_ERF_TERMS[0] / 2)
    for term in _ERF_TERMS[1:]:
        tail += x.dtype.type(term / 2)
        tail *= t
    np.square(x, out=t)
    t *= x.dtype.type(-0.5)
    tail *= np.exp(t, out=t)
    # x Φ(x) = max(x, 0) - |x| Φ(-|x|) on both sides of 0.
    tail *= size
    np.maximum(x, 0, out=size)
    size -= tail
    return size


def pool_frames(x: Array, frames: int) -> Array:
    """Average groups of frames along the last axis; the last group may be shorter."""
    if not isinstance(x, np.ndarray):
        from torch.nn import functional  # only in training

        return functional.avg_pool1d(x, frames, frames, ceil_mode=True, count_include_pad=False)
    starts = np.arange(0, x.shape[-1], frames)
    sizes = _group_sizes(x.shape[-1], frames).astype(x.dtype)
    means: FloatArray = np.add.reduceat(x, starts, axis=-1) / sizes
    return means


def pool_frames_gradient(gradient: FloatArray, total: int, frames: int) -> FloatArray:
    """Return the gradient [..., total] of the input of `pool_frames`, of its output [..., group]."""
    sizes = _group_sizes(total, frames)
    return np.repeat(gradient / sizes.astype(gradient.dtype), sizes, axis=-1)


def _group_sizes(total: int, frames: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    starts = np.arange(0, total, frames)
    return np.minimum(starts + frames, total) - starts


def apply_dropout(x: Array, probability: float, generator: "Generator | None") -> Array:
    """Set values to 0 with a probability, and scale the others to keep the mean; no-op without generator."""
    if generator is None or probability == 0 or isinstance(x, np.ndarray):
        return x
    import torch  # only in training

    keep = 1 - probability
    uniform = torch.rand(x.shape, generator=generator, device=generator.device)
    return x * (uniform < keep).to(x) / keep


def tensors_below(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors whose names start with a prefix, under the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


class Network:
    """A network: its weights by name, NumPy arrays in use and torch tensors in training.

    Parameters
    ----------
    weights : dict of Array
        `constants` are those that training does not change.
    """

    constants: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self.weights: dict[str, Any] = dict(weights)

    def as_tensors(self, device: str = "cpu") -> Self:
        """Return the network with its weights as torch tensors on a device."""
        import torch  # only in training

        return self._with_weights({k: torch.tensor(v, device=device) for k, v in self.weights.items()})

    def as_arrays(self) -> Self:
        """Return the network with its weights as NumPy arrays."""
        arrays = {
            name: value if isinstance(value, np.ndarray) else value.detach().cpu().numpy()
            for name, value in self.weights.items()
        }
        return self._with_weights(arrays)

    def trained_weights(self) -> list[Any]:
        """Return the weights that training changes."""
        return [value for name, value in self.weights.items() if name not in self.constants]

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(math.prod(weight.shape) for weight in self.trained_weights())

    def _with_weights(self, weights: Mapping[str, Any]) -> Self:
        network = copy(self)
        network.weights = dict(weights)
        return network


def check_shapes(weights: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise KeyError or ValueError unless weights have the expected names and shapes."""
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise ValueError(f"{name} has shape {weights[name].shape}, not {shape}")
    if unknown := set(weights) - set(expected):
        raise KeyError(*sorted(unknown))
