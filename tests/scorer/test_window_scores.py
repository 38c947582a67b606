"""Scores of windows and their gradient."""

from typing import Any

import numpy as np
import pytest
import torch

from tonewood.scorer.network import Scorer, WindowScore
from tonewood.scorer.training_loop import initial_scorer
from tonewood.settings import BandSettings, ScorerSettings, SpectrumSettings
from tonewood.utils.arrays import Levels

SPECTRUM = SpectrumSettings()
SETTINGS = [
    ScorerSettings(width=4),
    ScorerSettings(width=3, depth=2),
    ScorerSettings(width=4, bands=BandSettings(scale="linear")),
]


def sensitive_scorer(settings: ScorerSettings) -> Scorer:
    """Return an untrained scorer with random biases and a random mean row."""
    scorer = initial_scorer(settings, SPECTRUM, torch.Generator().manual_seed(0))
    rng = np.random.default_rng(1)
    for name, weight in scorer.weights.items():
        if name.endswith("bias") or name == "row_mean":
            weight[:] = rng.normal(0, 0.3, weight.shape)
    scorer.weights["linear.weight"] *= 3
    return scorer


def levels(rows: int, frames: int = 60) -> Levels:
    """Return windows of which some cells are below the scorer's range."""
    rng = np.random.default_rng(2)
    tilt = np.linspace(0, -100, rows)[:, None]
    return (-30 + tilt + rng.normal(0, 8, (3, rows, frames))).astype(np.float32)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("reads_bins", [False, True])
def test_gradient_equals_that_of_autograd(settings: ScorerSettings, reads_bins: bool) -> None:
    scorer = sensitive_scorer(settings)
    windows = levels(257 if reads_bins else len(scorer.weights["row_mean"]))
    score = WindowScore(scorer, reads_bins=reads_bins)
    # The twin is in double precision, so that only the errors of one side count.
    weights = {name: torch.from_numpy(value).double() for name, value in scorer.weights.items()}
    twin = Scorer(settings, SPECTRUM, weights)
    x: Any = torch.from_numpy(windows).double().requires_grad_()
    scores = twin.score(twin.rows(x) if reads_bins else x)
    scores.mean().backward()
    np.testing.assert_allclose(score(windows), scores.detach().numpy(), atol=1e-5)
    expected = x.grad.numpy()
    largest = np.abs(expected).max()
    assert largest > 0
    np.testing.assert_allclose(score.gradient(windows), expected, rtol=0, atol=1e-4 * largest)
