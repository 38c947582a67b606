import runpy
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import tonewood

SCRIPT = Path(__file__).parents[2] / "examples" / "train_a_filter.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_filter_bands_sum_to_one(example: dict[str, Any]) -> None:
    vocoder = example["Vocoder"](44_100)
    total = vocoder.bands.sum(dim=0)
    first, last = (int(vocoder.bands[band].argmax()) for band in (0, -1))
    assert torch.allclose(total[first + 1 : last], torch.ones(()), atol=1e-4)
    wave = torch.randn(1, 8_000, generator=torch.Generator().manual_seed(0))
    output, gain = vocoder(wave)
    assert gain.abs().max() == 0
    assert torch.allclose(output, wave, atol=1e-4)  # no change yet


def test_filter_reaches_the_reference_range(example: dict[str, Any]) -> None:
    with (files("tonewood.bundled") / "example.flac").open("rb") as file:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True, frames=3 * 44_100)
    model = tonewood.load("soundfont-cello")
    wave = torch.from_numpy(samples.mean(axis=1))
    output, gain, scores = example["train"](wave, rate, model, 60)
    reference_range = model.card.scorer.reference_scores
    assert scores[0] > model.card.scorer.source_scores.low
    assert scores[-1] <= reference_range.high
    measured = tonewood.score(output.numpy(), rate, model).scorer
    assert measured == pytest.approx(scores[-1], abs=0.1)
    assert np.abs(gain.numpy()).max() <= 12
