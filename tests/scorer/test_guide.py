"""The guide: an energy whose gradient is trained."""

import pytest
import torch

from tonewood.scorer.guide import (
    Guide,
    GuidePair,
    select_guide_weight,
    target_correction,
    train_guide,
    validation_gains,
)
from tonewood.settings import GuideSettings

ROWS, FRAMES = 16, 240
SMALL = GuideSettings(width=24, steps=150, batch=8, crop_frames=80)


def pairs(count: int, seed: int) -> list[GuidePair]:
    """Return pairs with the same correction: a flat target, and an input with a bump."""
    generator = torch.Generator().manual_seed(seed)
    bump = 6 * torch.exp(-0.5 * ((torch.arange(ROWS) - 8) / 2.0).square())[:, None]
    results = []
    for _ in range(count):
        target = -30 + 2 * torch.randn(ROWS, FRAMES, generator=generator)
        results.append((target + bump, target))
    return results


@pytest.fixture(scope="module")
def guide() -> Guide:
    return train_guide(pairs(4, 0), SMALL, torch.Generator().manual_seed(1))


def test_direction_is_the_negative_gradient_of_the_energy(guide: Guide) -> None:
    rows_db, _ = pairs(1, 5)[0]
    x = rows_db.double()[None]
    twin = Guide(ROWS, SMALL, torch.Generator()).double().requires_grad_(False)
    twin.load_state_dict(guide.state_dict())
    direction = twin.direction(x)[0]
    step = 1e-4
    for row, frame in ((8, 100), (2, 30)):
        shifted = x.clone()
        shifted[0, row, frame] += step
        slope = float(twin.energy(shifted) - twin.energy(x)) / step
        assert slope == pytest.approx(-float(direction[row, frame]), rel=1e-2, abs=1e-3)


def test_direction_points_to_the_target(guide: Guide) -> None:
    rows_db, target = pairs(1, 7)[0]
    correction, _ = target_correction(rows_db[None], target[None])
    step = guide.direction(rows_db[None])
    cosine = torch.nn.functional.cosine_similarity(step.flatten(), correction.flatten(), dim=0)
    assert cosine > 0.6


def test_direction_is_small_at_the_target(guide: Guide) -> None:
    rows_db, target = pairs(1, 8)[0]
    at_input, at_target = (guide.direction(x[None]).square().mean() for x in (rows_db, target))
    assert at_target < 0.3 * at_input


def test_direction_is_independent_of_level(guide: Guide) -> None:
    rows_db, _ = pairs(1, 9)[0]
    torch.testing.assert_close(
        guide.direction(rows_db[None]), guide.direction(rows_db[None] - 20), atol=1e-2, rtol=1e-2
    )


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


def test_same_seed_gives_same_guide() -> None:
    settings = GuideSettings(width=8, steps=20, batch=2, crop_frames=40)
    results = [
        train_guide(pairs(2, 2), settings, torch.Generator().manual_seed(3)).state_dict() for _ in range(2)
    ]
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_gradients_are_finite_on_silence(guide: Guide) -> None:
    assert guide.direction(torch.full((1, ROWS, 60), -140.0)).isfinite().all()
