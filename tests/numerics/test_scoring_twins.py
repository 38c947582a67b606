"""Scorer, judge and saliency of the bundled models against their float64 twins."""

from functools import cache

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from campaigns.harness.numerics.law import SEEDS, law
from tests.numerics import references
from tests.numerics.sounds import NAMES, bundled, notes
from tonewood.dsp.features import center_frequencies
from tonewood.enhancement.pipeline import scorer_input
from tonewood.scorer.network import Scorer
from tonewood.scorer.saliency import class_activation_map, compute_saliency


def listener(model: str, judge: bool) -> Scorer:
    """Return the scorer or the judge of a bundled model."""
    scorer = bundled(model).judge if judge else bundled(model).scorer
    assert scorer is not None
    return scorer


@cache
def network(scorer: Scorer) -> references.Network:
    """Return the weights of a scorer for its twin."""
    layers = [item for item in scorer.convolutions if isinstance(item, nn.Conv2d)]
    state = {name: item.double().numpy() for name, item in scorer.state_dict().items()}
    weights = [
        (state[f"convolutions.{k}.weight"], state[f"convolutions.{k}.bias"]) for k in range(len(layers))
    ]
    return references.Network(
        weights,
        [(item.stride[0], item.stride[1]) for item in layers],
        state["linear.weight"][0],
        float(state["linear.bias"][0]),
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
    rows = scorer_input(torch.from_numpy(notes(seed, seconds)[0]), bundled(model))
    slow = references.score(network(scorer), rows.double().numpy())
    with torch.no_grad():
        output = float(scorer.score(rows[None])[0])
    return abs(output - slow)


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
    rows = scorer_input(torch.from_numpy(notes(seed, 0.6)[0]), bundled(model))
    slow = references.activation_map(network(scorer), rows.double().numpy())
    output = class_activation_map(scorer, rows).numpy()
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
    rows = scorer_input(torch.from_numpy(notes(seed, 0.6)[0]), bundled(model))
    result = compute_saliency(scorer, rows[None])
    slow = float(references.activation_map(network(scorer), rows.double().numpy()).mean())
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
    rows = torch.from_numpy(notes(seed, 0.3)[0])
    rows = scorer_input(rows, bundled("cello"))[None]
    result = compute_saliency(scorer, rows, "integrated").cells[0].numpy()
    normalized = scorer.normalize(rows)[0].double().numpy()
    slow = scorer.weights.double().numpy()[:, None] * normalized / rows.shape[2] * normalized.size
    return float(np.abs(result - slow).max() / np.abs(slow).max())


class _Linear(Scorer):
    """Scorer whose logit is a weighted sum over rows, averaged over frames."""

    def __init__(self, seed: int) -> None:
        scorer = bundled("cello").scorer
        super().__init__(scorer.settings, scorer.spectrum, torch.Generator().manual_seed(seed))
        self.weights = torch.randn(48, generator=torch.Generator().manual_seed(seed))

    def logit_from_normalized(
        self, normalized: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        return (self.weights @ normalized).mean(dim=1)
