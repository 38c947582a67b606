"""The guide: an energy whose gradient is trained."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tonewood.dsp.features import mean_level
from tonewood.scorer.guide import RANGE_DB, Guide, guide_shapes
from tonewood.scorer.guide_training import (
    GuidePair,
    select_guide_weight,
    target_correction,
    train_guide,
    train_way_guide,
    validation_gains,
)
from tonewood.settings import GuideSettings
from tonewood.utils.arrays import FloatArray

ROWS, FRAMES = 16, 240
SMALL = GuideSettings(width=24, steps=150, batch=8, crop_frames=80)


def pairs(count: int, seed: int) -> list[GuidePair]:
    """Return pairs with the same correction: a flat target, and an input with a bump."""
    generator = torch.Generator().manual_seed(seed)
    bump = 6 * torch.exp(-0.5 * ((torch.arange(ROWS) - 8) / 2.0).square())[:, None]
    results = []
    for _ in range(count):
        target = -30 + 2 * torch.randn(ROWS, FRAMES, generator=generator)
        results.append(((target + bump).numpy(), target.numpy()))
    return results


@pytest.fixture(scope="module")
def guide() -> Guide:
    return train_guide(pairs(4, 0), SMALL, torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def way_guide() -> Guide:
    return train_way_guide(pairs(4, 0), SMALL, torch.Generator().manual_seed(1))


def descend(guide: Guide, rows_db: FloatArray, steps: int = 20) -> FloatArray:
    """Follow the negative gradient in steps of a quarter."""
    for _ in range(steps):
        _, gradient = guide.energy_and_gradient(rows_db, float(mean_level(rows_db)))
        rows_db = rows_db - np.float32(0.25) * gradient
    return rows_db


def bump_db(rows_db: FloatArray) -> float:
    """Return the rms of the mean over time, without its level."""
    mean = rows_db.mean(axis=1)
    return float((mean - mean.mean()).std())


def rectangle(gain_db: float) -> FloatArray:
    block = np.zeros((ROWS, FRAMES), dtype=np.float32)
    block[2:9, 40:200] = gain_db
    return block


@pytest.mark.parametrize("start_db", [0.0, 6.0, -6.0])
def test_whole_way_guide_leads_to_the_reference_from_blocks(way_guide: Guide, start_db: float) -> None:
    rows_db, _ = pairs(1, 12)[0]
    start = rows_db + rectangle(start_db)
    assert bump_db(descend(way_guide, start)) < 0.35 * bump_db(start)


def test_whole_way_guide_does_not_learn_from_takes_of_weight_0() -> None:
    needed, left = pairs(3, 0), [(rows_db, rows_db) for rows_db, _ in pairs(3, 20)]
    weights = [1.0] * len(needed) + [0.0] * len(left)
    guide = train_way_guide([*needed, *left], SMALL, torch.Generator().manual_seed(1), weights)
    rows_db, _ = pairs(1, 12)[0]
    assert bump_db(descend(guide, rows_db)) < 0.35 * bump_db(rows_db)


def test_whole_way_guide_stays_at_the_reference(way_guide: Guide) -> None:
    rows_db, target = pairs(1, 13)[0]
    moved, way = descend(way_guide, target) - target, rows_db - target
    assert bump_db(moved) < 0.2 * bump_db(way)


def autograd_direction(guide: Guide, rows_db: FloatArray, level_db: float | None = None) -> FloatArray:
    """Return the negative gradient of the energy; the level is part of it unless it is given."""
    x = torch.tensor(rows_db)[None].requires_grad_()
    (gradient,) = torch.autograd.grad(guide.as_tensors().energy(x, level_db).sum(), x)
    return (-gradient[0]).numpy()


def random_guide(rows: int, settings: GuideSettings, rng: np.random.Generator) -> Guide:
    """Return a guide of random weights in double precision."""
    weights = {name: 0.3 * rng.standard_normal(size) for name, size in guide_shapes(rows, settings).items()}
    return Guide(settings, weights | {"spread": np.array(7.0)})


@given(frames=st.integers(1, 70), pooled=st.integers(1, 5), seed=st.integers(0, 99))
def test_energy_and_gradient_equal_those_of_autograd(frames: int, pooled: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    guide = random_guide(6, GuideSettings(width=4, pooled_frames=pooled), rng)
    rows_db: Any = -60 + 25 * rng.standard_normal((6, frames))  # some below the range
    level = float(mean_level(rows_db))
    x = torch.tensor(rows_db[None], requires_grad=True)
    expected = guide.as_tensors().energy(x, level)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), x)
    energy, gradient = guide.energy_and_gradient(rows_db, level)
    assert energy == pytest.approx(expected.item(), rel=1e-9)
    assert guide.energy(rows_db[None], level)[0] == pytest.approx(expected.item(), rel=1e-9)
    scale = float(expected_gradient.abs().max())
    np.testing.assert_allclose(gradient, expected_gradient[0].numpy(), atol=1e-9 * scale)


def test_energy_of_arrays_and_tensors_is_the_same_in_a_batch(guide: Guide) -> None:
    rows_db = np.stack([rows for rows, _ in pairs(3, 6)])
    expected = guide.as_tensors().energy(torch.tensor(rows_db)).numpy()
    np.testing.assert_allclose(guide.energy(rows_db), expected, rtol=1e-5)
    np.testing.assert_allclose(guide.energy(rows_db[1:2]), expected[1:2], rtol=1e-5)


def test_gradient_is_zero_below_the_range(guide: Guide) -> None:
    rows_db = pairs(1, 5)[0][0].copy()
    rows_db[2] -= 2 * RANGE_DB
    _, gradient = guide.energy_and_gradient(rows_db, float(mean_level(rows_db)))
    assert (gradient[2] == 0).all()
    assert np.abs(gradient[3]).max() > 0


def test_gradient_equals_finite_differences(guide: Guide) -> None:
    rows_db: Any = pairs(1, 5)[0][0].astype(np.float64)
    twin = Guide(SMALL, {name: value.astype(np.float64) for name, value in guide.weights.items()})
    level = float(mean_level(rows_db))
    energy, gradient = twin.energy_and_gradient(rows_db, level)
    step = 1e-4
    for row, frame in ((8, 100), (2, 30)):
        shifted = rows_db.copy()
        shifted[row, frame] += step
        slope = (twin.energy_and_gradient(shifted, level)[0] - energy) / step
        assert slope == pytest.approx(float(gradient[row, frame]), rel=1e-2, abs=1e-3)


def test_trained_guide_has_arrays(guide: Guide) -> None:
    assert {value.dtype for value in guide.weights.values()} == {np.dtype(np.float32)}
    assert list(guide.weights) == list(guide_shapes(ROWS, SMALL))


def test_direction_points_to_the_target(guide: Guide) -> None:
    rows_db, target = pairs(1, 7)[0]
    correction, _ = target_correction(*in_batch(rows_db, target))
    step = torch.from_numpy(autograd_direction(guide, rows_db))
    cosine = torch.nn.functional.cosine_similarity(step.flatten(), correction.flatten(), dim=0)
    assert cosine > 0.6


def in_batch(*rows: FloatArray) -> list[Tensor]:
    return [torch.tensor(array)[None] for array in rows]


def test_direction_is_small_at_the_target(guide: Guide) -> None:
    rows_db, target = pairs(1, 8)[0]
    at_input, at_target = (np.square(autograd_direction(guide, x)).mean() for x in (rows_db, target))
    assert at_target < 0.3 * at_input


def test_direction_is_independent_of_level(guide: Guide) -> None:
    rows_db, _ = pairs(1, 9)[0]
    np.testing.assert_allclose(
        autograd_direction(guide, rows_db), autograd_direction(guide, rows_db - 20), atol=1e-2, rtol=1e-2
    )


def test_moving_level_hardly_changes_the_direction(guide: Guide) -> None:
    """A search holds the recording's level fixed; the training lets it follow the rows."""
    rows_db, _ = pairs(1, 10)[0]
    level = float(mean_level(rows_db))
    moving, fixed = autograd_direction(guide, rows_db), -guide.energy_and_gradient(rows_db, level)[1]
    np.testing.assert_allclose(fixed, autograd_direction(guide, rows_db, level), atol=1e-3)
    assert 0 < np.square(moving - fixed).mean() < 0.01 * np.square(moving).mean()


def test_target_correction_removes_level_and_marks_audible_frames() -> None:
    target = torch.full((1, 4, 3), -20.0)
    target[..., 2] = -80.0
    correction, audible = target_correction(target - 5, target)
    assert audible.tolist() == [[1.0, 1.0, 0.0]]
    assert correction[..., :2].abs().max() < 0.7  # 5 dB everywhere is a matter of level


def test_positive_gains_select_the_weight(guide: Guide) -> None:
    gains = validation_gains(guide, pairs(2, 11))
    assert [weight for weight, _ in gains] == [0.3, 0.6, 1.0]
    assert select_guide_weight(gains) > 0
    assert max(gain for _, gain in gains) > 0.1


def test_gain_below_threshold_selects_weight_zero() -> None:
    assert select_guide_weight([(0.3, 0.002), (0.6, 0.004), (1.0, -0.2)]) == 0.0
    assert select_guide_weight([(0.3, 0.02), (0.6, 0.03), (1.0, 0.01)]) == 0.6


@pytest.mark.parametrize("train", [train_guide, train_way_guide])
def test_same_seed_gives_same_guide(train: Callable[..., Guide]) -> None:
    settings = GuideSettings(width=8, steps=20, batch=2, crop_frames=40)
    results = [train(pairs(2, 2), settings, torch.Generator().manual_seed(3)).weights for _ in range(2)]
    assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])


def test_gradients_are_finite_on_silence(guide: Guide) -> None:
    silence = np.full((ROWS, 60), -140.0, dtype=np.float32)
    assert np.isfinite(autograd_direction(guide, silence)).all()
    assert np.isfinite(guide.energy_and_gradient(silence, -140.0)[1]).all()
