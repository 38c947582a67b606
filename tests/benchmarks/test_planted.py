"""Short share of the planted-cause benchmark: a known difference is found."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tonewood.scorer.network import Scorer
from tonewood.scorer.training_loop import initial_scorer
from tonewood.settings import ModelSettings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def planted() -> Iterator[Any]:
    """Import the benchmark as its script does."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("planted.measure")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("cause", ["vibrato", "attack", "resonance"])
def test_instruments_differ_in_their_cause_only(planted: Any, cause: str) -> None:
    one, other = (planted.phrase(instrument, 3.0, 5) for instrument in (planted.CAUSES[cause], planted.PLAIN))
    assert one.shape == other.shape == (48_000,)
    assert np.abs(one - other).max() > 0.01
    same = planted.phrase(planted.PLAIN, 3.0, 5)
    assert np.array_equal(other, same)


def test_scorer_of_rising_treble_is_explained_by_attacks(planted: Any) -> None:
    """Use a hand-made scorer with a known cause: rising levels above 4 kHz."""
    settings = ModelSettings().replace(scorer=dict(depth=1, width=2))
    generator = torch.Generator().manual_seed(0)
    start = initial_scorer(settings.scorer, settings.spectrum, generator)
    kernels = np.zeros_like(start.weights["convolutions.0.weight"])
    kernels[0, 0] = [-1, -1, 0, 1, 1]
    linear = np.array([[-1, 0]], dtype=np.float32)
    weights = start.weights | {"convolutions.0.weight": kernels, "linear.weight": linear}
    scorer = Scorer(settings.scorer, settings.spectrum, weights)
    card = SimpleNamespace(scorer=SimpleNamespace(accuracy=1.0))
    model = SimpleNamespace(scorer=scorer, settings=settings, card=card)
    reference = next(planted.find(model, "attack", range(150, 152), 4.0))
    assert reference.side == "reference"
    assert reference.ratio >= 3
    weights = {part.name: part.evidence.mean for part in reference.parts if part.name != "quiet"}
    assert max(weights, key=lambda name: weights[name]) == "attack"
