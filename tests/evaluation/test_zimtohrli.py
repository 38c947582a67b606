"""Zimtohrli distance of waveforms."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tonewood.evaluation.metrics import zimtohrli_distance


def test_distance_is_zero_for_equal_sounds_at_any_level_and_grows(play: Callable[..., Any]) -> None:
    reference = play(1.0, 16_000, seed=1)[0]
    noise = np.random.default_rng(0).normal(0, reference.std(), len(reference)).astype(np.float32)

    def distance(estimate: np.ndarray) -> float:
        measured = zimtohrli_distance(estimate, reference)
        assert measured is not None
        return measured

    assert distance(reference) == 0
    assert distance(0.1 * reference) == pytest.approx(0, abs=1e-6)
    little, much = (distance(reference + np.float32(share) * noise) for share in (0.03, 0.3))
    assert 0 < little < much
    assert np.isfinite(distance(np.zeros_like(reference)))


def test_distance_is_none_without_the_package(
    play: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zimtohrli", None)
    wave = play(0.5, 16_000, seed=1)[0]
    assert zimtohrli_distance(wave, wave) is None
