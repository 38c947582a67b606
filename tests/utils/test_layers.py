"""Layers of arrays: their mathematics first, then torch as a twin."""

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional

from tonewood.utils.layers import (
    Network,
    apply_dropout,
    check_shapes,
    convolve,
    convolve_gradient,
    gelu,
    pad_edges,
    pad_frames,
    pool_frames,
    pool_frames_gradient,
    sigmoid,
    silu,
    silu_slope,
    tensors_below,
)

Maps = NDArray[np.float64]
sizes, seeds = st.integers(1, 9), st.integers(0, 2**31 - 1)


def normal(seed: int, *shape: int) -> Maps:
    return np.random.default_rng(seed).standard_normal(shape)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-10) -> None:
    assert actual.shape == tuple(expected.shape)
    np.testing.assert_allclose(actual, np.asarray(expected), rtol=tolerance, atol=tolerance)


# --- Convolution


def test_kernel_of_one_tap_is_a_mixture_of_channels() -> None:
    x, weight = normal(0, 2, 3, 5), normal(1, 4, 3, 1)
    assert_close(convolve(x, weight, np.arange(4.0)), weight[:, :, 0] @ x + np.arange(4.0)[:, None])


def test_impulse_returns_the_reversed_kernel() -> None:
    impulse = np.zeros((1, 1, 9))
    impulse[0, 0, 4] = 1
    kernel = np.array([[[1.0, 2.0, 3.0]]])
    output = convolve(impulse, kernel, np.zeros(1))
    assert output[0, 0].tolist() == [0, 0, 3, 2, 1, 0, 0]


def test_dilation_puts_zeros_between_the_taps() -> None:
    x, kernel = normal(0, 1, 2, 20), normal(1, 3, 2, 3)
    spread = np.zeros((3, 2, 5))
    spread[:, :, ::2] = kernel
    assert_close(convolve(x, kernel, np.zeros(3), dilation=2), convolve(x, spread, np.zeros(3)))


def test_stride_keeps_every_nth_value() -> None:
    x, kernel, bias = normal(0, 2, 3, 9, 11), normal(1, 4, 3, 3, 3), normal(2, 4)
    every = convolve(x, kernel, bias)
    assert_close(convolve(x, kernel, bias, stride=(2, 3)), every[:, :, ::2, ::3])


def test_silent_input_returns_the_bias() -> None:
    output = convolve(np.zeros((2, 3, 7)), normal(0, 4, 3, 3), np.arange(4.0))
    assert_close(output, np.broadcast_to(np.arange(4.0)[:, None], (2, 4, 5)))


@given(
    batch=st.integers(1, 3), inputs=sizes, outputs=sizes, taps=st.integers(1, 5), extra=st.integers(0, 12),
    stride=st.integers(1, 3), dilation=st.integers(1, 4), seed=seeds,
)  # fmt: skip
def test_convolution_along_frames_equals_that_of_torch(
    batch: int, inputs: int, outputs: int, taps: int, extra: int, stride: int, dilation: int, seed: int
) -> None:
    x = normal(seed, batch, inputs, (taps - 1) * dilation + 1 + extra)
    weight, bias = normal(seed + 1, outputs, inputs, taps), normal(seed + 2, outputs)
    options: Any = {"stride": (1, stride), "dilation": dilation}
    a, b, c = map(torch.from_numpy, (x, weight, bias))
    expected = functional.conv1d(a, b, c, stride, dilation=dilation)
    assert_close(convolve(x, weight, bias, **options), expected)
    assert_close(convolve(a, b, c, **options), expected)


@given(
    batch=st.integers(1, 3), inputs=sizes, outputs=sizes, kernel=st.tuples(sizes, sizes),
    extra=st.tuples(sizes, sizes), stride=st.tuples(st.integers(1, 3), st.integers(1, 3)), seed=seeds,
)  # fmt: skip
def test_convolution_of_maps_equals_that_of_torch(
    batch: int,
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    extra: tuple[int, int],
    stride: tuple[int, int],
    seed: int,
) -> None:
    x = normal(seed, batch, inputs, kernel[0] + extra[0] - 1, kernel[1] + extra[1] - 1)
    weight, bias = normal(seed + 1, outputs, inputs, *kernel), normal(seed + 2, outputs)
    a, b, c = map(torch.from_numpy, (x, weight, bias))
    expected = functional.conv2d(a, b, c, stride)
    assert_close(convolve(x, weight, bias, stride=stride), expected)
    assert_close(convolve(a, b, c, stride=stride), expected)


def test_single_precision_is_kept() -> None:
    x, weight, bias = (normal(k, *s).astype(np.float32) for k, s in enumerate([(2, 3, 40), (4, 3, 5), (4,)]))
    a, b, c = map(torch.from_numpy, (x, weight, bias))
    output = convolve(x, weight, bias)
    assert output.dtype == np.float32
    assert_close(output, functional.conv1d(a, b, c), 1e-5)


@given(
    batch=st.integers(1, 3), inputs=sizes, outputs=sizes, taps=st.integers(1, 6), extra=st.integers(0, 12),
    seed=seeds,
)  # fmt: skip
def test_gradient_of_convolution_equals_that_of_autograd(
    batch: int, inputs: int, outputs: int, taps: int, extra: int, seed: int
) -> None:
    x = torch.from_numpy(normal(seed, batch, inputs, taps + extra)).requires_grad_()
    weight, gradient = normal(seed + 1, outputs, inputs, taps), normal(seed + 2, batch, outputs, extra + 1)
    output = functional.conv1d(x, torch.from_numpy(weight))
    (expected,) = torch.autograd.grad(output, x, torch.from_numpy(gradient))
    assert_close(convolve_gradient(gradient, weight, taps + extra), expected)


def test_gradient_of_convolution_is_its_adjoint() -> None:
    x, weight = normal(0, 2, 3, 30), normal(1, 4, 3, 5)
    output = convolve(x, weight, np.zeros(4))
    other = normal(2, *output.shape)
    assert np.vdot(output, other) == pytest.approx(np.vdot(x, convolve_gradient(other, weight, 30)))


# --- Padding


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
@given(
    before=st.integers(0, 5), after=st.integers(0, 5), shape=st.lists(st.integers(1, 4), max_size=3),
    frames=st.integers(6, 12), seed=seeds,
)  # fmt: skip
def test_padded_arrays_and_tensors_are_equal(
    mode: Literal["constant", "edge", "reflect"],
    before: int,
    after: int,
    shape: list[int],
    frames: int,
    seed: int,
) -> None:
    x = normal(seed, *shape, frames)
    padded = pad_frames(x, before, after, mode)
    np.testing.assert_array_equal(padded[..., before : before + frames], x)
    assert padded.shape[-1] == before + frames + after
    np.testing.assert_array_equal(padded, pad_frames(torch.from_numpy(x), before, after, mode).numpy())


@given(rows=sizes, frames=sizes, reach=st.integers(0, 3), seed=seeds)
def test_edges_of_maps_repeat(rows: int, frames: int, reach: int, seed: int) -> None:
    x = normal(seed, 2, 3, rows, frames)
    padded = pad_edges(x, reach)
    row = np.arange(-reach, rows + reach).clip(0, rows - 1)
    frame = np.arange(-reach, frames + reach).clip(0, frames - 1)
    np.testing.assert_array_equal(padded, x[:, :, row[:, None], frame])
    np.testing.assert_array_equal(padded, pad_edges(torch.from_numpy(x), reach).numpy())


# --- Nonlinearities


@given(st.floats(-700, 700))
def test_sigmoid_of_opposite_values_sums_to_one(value: float) -> None:
    low, high = sigmoid(np.array([-value, value]))
    assert low + high == pytest.approx(1)
    assert high == pytest.approx(0.5 * (1 + math.tanh(value / 2)), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nonlinearities_equal_those_of_torch(dtype: type[np.floating[Any]]) -> None:
    values = np.concatenate([np.linspace(-12, 12, 40_001), [-1e4, -200, 0, 200, 1e4]]).astype(dtype)
    tensor = torch.from_numpy(values)
    for function, expected, tolerance in (
        (sigmoid, tensor.sigmoid(), 1e-6),
        (silu, functional.silu(tensor), 1e-6),
        (gelu, functional.gelu(tensor), 2e-6),  # erf within 1.5e-7, times x
    ):
        output = function(values)
        assert output.dtype == dtype
        np.testing.assert_allclose(output, expected.numpy(), rtol=1e-6, atol=tolerance)
        np.testing.assert_array_equal(function(tensor).numpy(), expected.numpy())


def test_slope_of_silu_equals_that_of_autograd() -> None:
    values = np.linspace(-30, 30, 4_001)
    x = torch.from_numpy(values).requires_grad_()
    (expected,) = torch.autograd.grad(functional.silu(x).sum(), x)
    assert_close(silu_slope(values), expected)


def test_gelu_of_large_maps_is_that_of_its_parts() -> None:
    x = normal(0, 3, 5, 7_000)  # several blocks, the last one not full
    np.testing.assert_array_equal(gelu(x)[1, 2], gelu(x[1, 2]))


# --- Pooling


@given(frames=st.integers(1, 40), group=st.integers(1, 9), seed=seeds)
def test_pooling_averages_groups_and_its_gradient_spreads_them(frames: int, group: int, seed: int) -> None:
    x = normal(seed, 2, 3, frames)
    pooled = pool_frames(x, group)
    groups = [x[..., start : start + group].mean(axis=-1) for start in range(0, frames, group)]
    assert_close(pooled, np.stack(groups, axis=-1))
    tensor = torch.from_numpy(x).requires_grad_()
    expected = pool_frames(tensor, group)
    assert_close(pooled, expected.detach())
    gradient = normal(seed + 1, *pooled.shape)
    (expected_gradient,) = torch.autograd.grad(expected, tensor, torch.from_numpy(gradient))
    assert_close(pool_frames_gradient(gradient, frames, group), expected_gradient)


def test_pooling_keeps_single_precision_and_constants() -> None:
    x = np.full((1, 2, 11), 3.5, dtype=np.float32)
    pooled = pool_frames(x, 4)
    assert pooled.dtype == np.float32
    assert (pooled == 3.5).all()
    assert pool_frames_gradient(pooled, 11, 4).dtype == np.float32


# --- Networks


class Line(Network):
    """The function slope · x + offset; the offset is not trained."""

    constants = frozenset({"offset"})


def line() -> Line:
    return Line({"slope": np.ones((2, 3), dtype=np.float32), "offset": np.zeros(3, dtype=np.float32)})


def test_network_converts_its_weights_both_ways() -> None:
    network = line()
    tensors = network.as_tensors()
    assert isinstance(tensors, Line)
    assert all(isinstance(value, torch.Tensor) for value in tensors.weights.values())
    back = tensors.as_arrays()
    for name, value in network.weights.items():
        np.testing.assert_array_equal(back.weights[name], value)
    tensors.weights["slope"].add_(1)  # the tensors are copies
    assert (network.weights["slope"] == 1).all()


def test_network_of_read_only_arrays_can_be_trained() -> None:
    network = line()
    for value in network.weights.values():
        value.flags.writeable = False  # as those of a model file
    (slope,) = network.as_tensors().trained_weights()
    slope.requires_grad_().sum().backward()
    assert (slope.grad == 1).all()


def test_constants_are_not_trained() -> None:
    network = line()
    (trained,) = network.trained_weights()
    assert trained is network.weights["slope"]
    assert network.parameter_count == 6


def test_dropout_needs_a_generator_and_keeps_the_mean() -> None:
    x = torch.ones(20_000)
    assert apply_dropout(x, 0.3, None) is x
    assert apply_dropout(x, 0.0, torch.Generator()) is x
    dropped = apply_dropout(x, 0.3, torch.Generator().manual_seed(0))
    assert {round(value, 4) for value in dropped.tolist()} == {0.0, round(1 / 0.7, 4)}
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)


def test_names_below_a_prefix_lose_it() -> None:
    assert tensors_below("a.", {"a.b": 1, "a.c.d": 2, "ab": 3}) == {"b": 1, "c.d": 2}


def test_shapes_and_names_are_checked() -> None:
    weights = line().weights
    check_shapes(weights, {"slope": (2, 3), "offset": (3,)})
    with pytest.raises(ValueError, match=r"slope has shape \(2, 3\), not \(3, 2\)"):
        check_shapes(weights, {"slope": (3, 2), "offset": (3,)})
    with pytest.raises(KeyError, match="other"):
        check_shapes(weights, {"slope": (2, 3), "offset": (3,), "other": ()})
    with pytest.raises(KeyError, match="offset"):
        check_shapes(weights, {"slope": (2, 3)})
