import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tonewood

SCRIPT = Path(__file__).parents[2] / "examples" / "train_a_synthesiser.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_interpolation_returns_the_levels_at_their_frequencies(example: dict[str, Any]) -> None:
    levels_db = torch.arange(float(example["POINTS"]))
    hz = torch.logspace(np.log10(50), np.log10(8_000), example["POINTS"])
    assert torch.allclose(example["interpolate"](levels_db, hz), levels_db, atol=1e-3)
    assert example["interpolate"](levels_db, torch.tensor([1.0])).item() == 0


def test_spectrum_shows_the_band_of_a_tone(example: dict[str, Any]) -> None:
    wave = np.sin(2 * np.pi * 640 * np.arange(16_000) / 16_000)
    assert example["long_term_spectrum"]([wave]).argmax() == 9  # 80 Hz · 2^(9 / 3)


def test_loss_falls_and_picture_is_drawn(example: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    loss = tonewood.NeuralLoss("cello")
    result = example["train"](loss, steps=12, clips=2)
    assert result.before.shape == result.after.shape == (2, 1, 48_000)
    assert result.losses[-1] < 0.8 * result.losses[0]
    assert loss(result.after).item() < loss(result.before).item()
    example["plot"](result, example["long_term_spectrum"](result.after[:, 0].numpy()), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1_000
