import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonewood.dsp.chunking import LazyTimeSeries
from tonewood.dsp.features import hz_to_mel, mel_to_hz
from tonewood.mask.mask import Mask, moving_average, moving_average_gradient

HZ = mel_to_hz(np.linspace(100, 2_700, 12))


def random_mask(rows: int = 12, frames: int = 9, seed: int = 0) -> Mask:
    gain = 5 * np.random.default_rng(seed).standard_normal((rows, frames))
    return Mask(gain.astype(np.float32), HZ[:rows], 0.01, 8_000.0)


def test_gains_are_exact_at_the_grid_points() -> None:
    mask = random_mask()
    assert np.allclose(mask.gain_at(mask.hz, np.arange(9) * 0.01), mask.gain_db, atol=1e-5)


@given(hz=st.floats(0, 20_000), seconds=st.floats(0, 0.2), seed=st.integers(0, 20))
def test_gain_at_equals_explicit_interpolation(hz: float, seconds: float, seed: int) -> None:
    mask = random_mask(seed=seed)
    at_time = [np.interp(seconds, np.arange(9) * 0.01, row.astype(float)) for row in mask.gain_db]
    expected = np.interp(hz_to_mel(np.array(hz)), hz_to_mel(mask.hz), at_time)
    if hz > 8_000:
        expected *= max(0.0, 1 - np.log2(hz / 8_000))
    actual = mask.gain_at(np.array([hz]), np.array([seconds]))
    assert actual.shape == (1, 1)
    assert actual.dtype == np.float32
    assert actual[0, 0] == pytest.approx(expected, abs=2e-3)


def test_gain_is_constant_beyond_the_edges() -> None:
    mask = random_mask()
    beyond = mask.gain_at(np.array([0.0, 8_000.0]), np.array([0.08, 5.0]))
    assert beyond[0] == pytest.approx(mask.gain_db[0, -1])
    assert beyond[1] == pytest.approx(mask.gain_db[-1, -1])


def test_gain_fades_over_an_octave_above_top() -> None:
    mask = Mask(np.full((12, 2), 8.0, dtype=np.float32), HZ, 0.01, 8_000.0)
    hz = 8_000 * 2 ** np.array([0, 0.25, 0.5, 1, 1.2, 2])
    gain = mask.gain_at(hz, np.array([0.0]))[:, 0]
    assert gain == pytest.approx([8, 6, 4, 0, 0, 0], abs=1e-5)


def test_single_cell_mask_is_constant() -> None:
    mask = Mask(np.array([[3.0]], dtype=np.float32), np.array([1_000.0]), 0.01, 8_000.0)
    assert (mask.gain_at(np.array([0.0, 50.0, 7_999.0]), np.array([0.0, 1.0])) == 3).all()


@pytest.mark.parametrize("amount", [0.0, 0.5, 1.0, -1.0])
def test_scaling_is_linear_in_decibels(amount: float) -> None:
    mask = random_mask()
    assert np.allclose(mask.scale(amount).gain_db, amount * mask.gain_db)
    points = np.array([150.0, 900.0]), np.array([0.004, 0.033])
    assert np.allclose(mask.scale(amount).gain_at(*points), amount * mask.gain_at(*points), atol=1e-5)
    assert mask.scale(amount).gain_db.dtype == np.float32
    assert mask.scale(amount).hz is mask.hz


def test_clip_limits_both_signs_and_keeps_smaller_gains() -> None:
    mask = random_mask()
    bounded = mask.clip(4.0)
    inside = np.abs(mask.gain_db) <= 4
    assert bounded.largest_db == 4
    assert np.array_equal(bounded.gain_db[inside], mask.gain_db[inside])
    assert np.array_equal(np.sign(bounded.gain_db), np.sign(mask.gain_db))


def test_quantize_is_idempotent() -> None:
    mask = random_mask()
    rounded = mask.quantize()
    assert np.abs(rounded.gain_db - mask.gain_db).max() <= 0.001 + 1e-6
    steps = rounded.gain_db.astype(np.float64) / 0.002
    assert np.allclose(steps, steps.round(), atol=5e-3)
    assert np.array_equal(rounded.quantize().gain_db, rounded.gain_db)
    assert rounded.gain_db.dtype == np.float32


def test_statistics_equal_their_definitions() -> None:
    mask = Mask(np.array([[1.0, -3.0], [2.0, 2.0]], dtype=np.float32), HZ[:2], 0.01, 8_000.0)
    assert mask.largest_db == 3
    assert mask.rms_db == pytest.approx((18 / 4) ** 0.5)
    # Steps from frame to frame: 4 and 0.
    assert mask.roughness_db == pytest.approx(2.0)


def test_roughness_of_smooth_and_of_noise() -> None:
    flat = Mask(np.full((12, 9), 6.0, dtype=np.float32), HZ, 0.01, 8_000.0)
    single = Mask(np.ones((1, 1), dtype=np.float32), HZ[:1], 0.01, 8_000.0)
    assert flat.roughness_db == single.roughness_db == 0
    # Neighbours drawn apart with spread 5 differ by 10 / √π on average.
    assert random_mask().roughness_db == pytest.approx(10 / np.pi**0.5, rel=0.2)


def test_mask_is_frozen_and_checks_its_shape() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        random_mask().top_hz = 4_000.0  # type: ignore[misc]
    with pytest.raises(AssertionError):
        Mask(np.zeros((3, 2), dtype=np.float32), HZ, 0.01, 8_000.0)


@given(
    frames=st.integers(1, 40),
    rows=st.integers(1, 40),
    shape=st.sampled_from([(5, 7), (1, 1), (2, 3, 30), (12, 1)]),
)
def test_moving_average_keeps_a_constant(frames: int, rows: int, shape: tuple[int, ...]) -> None:
    constant = np.full(shape, 4.5, np.float32)
    assert np.allclose(moving_average(constant, frames, rows), constant)


@pytest.mark.parametrize(("frames", "length"), [(1, 1), (2, 3), (8, 9), (9, 9)])
def test_moving_average_spreads_an_impulse_evenly(frames: int, length: int) -> None:
    gain = np.zeros((3, 41), np.float32)
    gain[1, 20] = 9
    out = moving_average(gain, frames)
    expected = np.zeros((3, 41), np.float32)
    expected[1, 20 - length // 2 : 21 + length // 2] = 9 / length
    assert np.allclose(out, expected, atol=1e-6)
    assert out.sum().item() == pytest.approx(9, abs=1e-4)


def test_moving_average_over_rows_and_frames_is_the_block_mean() -> None:
    gain = np.random.default_rng(0).standard_normal((8, 20)).astype(np.float32)
    out = moving_average(gain, 5, 3)
    assert out.shape == gain.shape
    assert out[4, 10].item() == pytest.approx(gain[3:6, 8:13].mean().item(), abs=1e-6)
    padded = np.pad(gain, ((1, 1), (2, 2)), mode="edge")
    assert out[0, 0].item() == pytest.approx(padded[:3, :5].mean().item(), abs=1e-6)


def test_moving_average_of_a_batch_equals_singles() -> None:
    gain = np.random.default_rng(0).standard_normal((2, 3, 6, 20)).astype(np.float32)
    assert np.allclose(moving_average(gain, 7, 3)[1, 2], moving_average(gain[1, 2], 7, 3), atol=1e-6)


@given(frames=st.integers(1, 60), length=st.integers(1, 30), seed=st.integers(0, 99))
def test_gradient_of_moving_average_is_its_adjoint(frames: int, length: int, seed: int) -> None:
    """⟨average x, y⟩ = ⟨x, gradient y⟩."""
    x, y = np.random.default_rng(seed).standard_normal((2, 3, length)).astype(np.float32)
    average = float((moving_average(x, frames) * y).sum())
    assert average == pytest.approx(float((x * moving_average_gradient(y, frames)).sum()), abs=1e-4)


def test_gradient_of_moving_average_spreads_over_the_window() -> None:
    gradient = np.zeros((3, 20), np.float32)
    gradient[1, 10] = 1
    expected = np.zeros((3, 20))
    expected[1, 8:13] = 0.2
    assert np.allclose(moving_average_gradient(gradient, 5), expected)


@given(st.integers(1, 60), st.integers(0, 2**31 - 1))
def test_lazy_mask_equals_mask_in_memory(frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = Mask(
        rng.normal(size=(4, frames)).astype(np.float32),
        np.array([100.0, 500, 900, 3000]),
        0.01,
        4000.0,
    )
    long = mask.with_gains(LazyTimeSeries(mask.frames, mask.gains.read))
    hz, seconds = np.array([50.0, 700.0, 6000.0]), rng.uniform(-0.1, 0.8) + np.arange(5) * 0.007
    np.testing.assert_allclose(long.gain_at(hz, seconds), mask.gain_at(hz, seconds), atol=2e-5)
    assert long.roughness_db == pytest.approx(mask.roughness_db, abs=1e-5)
    np.testing.assert_array_equal(long.load().gain_db, mask.gain_db)
