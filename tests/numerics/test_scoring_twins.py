"""Scorer, judge and saliency of the bundled models against their float64 twins."""

from functools import cache

import numpy as np
from hypothesis import strategies as st

from campaigns.harness.numerics.law import SEEDS, law
from tests.numerics import references
from tests.numerics.sounds import NAMES, bundled, noise, notes
from tonewood.dsp.features import center_frequencies
from tonewood.enhancement.pipeline import scorer_input
from tonewood.scorer.network import Scorer
from tonewood.scorer.saliency import class_activation_map, compute_saliency
from tonewood.utils.arrays import Array


def listener(model: str, judge: bool) -> Scorer:
    """Return the scorer or the judge of a bundled model."""
    scorer = bundled(model).judge if judge else bundled(model).scorer
    assert scorer is not None
    return scorer


@cache
def network(scorer: Scorer) -> references.Network:
    """Return the weights of a scorer for its twin."""
    state = {name: item.astype(np.float64) for name, item in scorer.weights.items()}
    weights = [
        (state[f"convolutions.{k}.weight"], state[f"convolutions.{k}.bias"])
        for k in range(scorer.settings.depth)
    ]
    return references.Network(
        weights,
        scorer.strides,
        state["linear.weight"][0],
        state["linear.bias"].item(),
        state["row_mean"],
        np.asarray(center_frequencies(scorer.settings.bands, scorer.spectrum), np.float64),
        scorer.settings.range_db,
    )


@law(
    "Score: convolutions written out, of scorer and judge of both bundled models",
    within=3e-6,
    unit="of 1",
    examples=8,
    seed=SEEDS,
    seconds=st.floats(0.25, 1.2),
    model=NAMES,
    judge=st.booleans(),
)
def test_score(seed: int, seconds: float, model: str, judge: bool) -> float:
    scorer = listener(model, judge)
    rows = scorer_input(notes(seed, seconds)[0], bundled(model))
    slow = references.score(network(scorer), rows.astype(np.float64))
    return abs(float(scorer.score(rows[None])[0]) - slow)


@law(
    "Class activation map: features weighed by the linear layer",
    within=5e-6,
    unit="of the largest",
    examples=5,
    seed=SEEDS,
    model=NAMES,
    judge=st.booleans(),
)
def test_activation_map(seed: int, model: str, judge: bool) -> float:
    scorer = listener(model, judge)
    rows = scorer_input(notes(seed, 0.6)[0], bundled(model))
    slow = references.activation_map(network(scorer), rows.astype(np.float64))
    output = class_activation_map(scorer, rows)
    return float(np.abs(output - slow).max() / np.abs(slow).max())


@law(
    "Saliency: the cells' mean and the bias are the logit that its twin finds",
    within=2e-5,
    unit="logits",
    examples=5,
    seed=SEEDS,
    model=NAMES,
    judge=st.booleans(),
)
def test_saliency_is_the_logit(seed: int, model: str, judge: bool) -> float:
    scorer = listener(model, judge)
    rows = scorer_input(notes(seed, 0.6)[0], bundled(model))
    result = compute_saliency(scorer, rows[None])
    slow = float(references.activation_map(network(scorer), rows.astype(np.float64)).mean())
    return abs(float(result.cells.mean()) + result.base - slow - network(scorer).bias)


@law(
    "Saliency of a linear scorer: weight × input, by integrated gradients",
    within=3e-6,
    unit="of the largest",
    examples=4,
    seed=SEEDS,
)
def test_saliency_of_a_linear_scorer(seed: int) -> float:
    """The logit is a weighted sum of the cells, so the share of each cell is its term."""
    scorer = _Linear(seed)
    rows = scorer_input(notes(seed, 0.3)[0], bundled("cello"))[None]
    result = compute_saliency(scorer, rows, "integrated").cells[0]
    normalized = scorer.normalize(rows)[0].astype(np.float64)
    slow = scorer.weights["of_rows"][:, None] * normalized / rows.shape[2] * normalized.size
    return float(np.abs(result - slow).max() / np.abs(slow).max())


class _Linear(Scorer):
    """Scorer whose logit is a weighted sum over rows, averaged over frames."""

    def __init__(self, seed: int) -> None:
        scorer = bundled("cello").scorer
        super().__init__(scorer.settings, scorer.spectrum, scorer.weights)
        self.weights["of_rows"] = noise(seed, (48,), 1.0)

    def logit_from_normalized(self, normalized: Array, generator: object = None) -> Array:
        logit: Array = (self.weights["of_rows"] @ normalized).mean(1)
        return logit
