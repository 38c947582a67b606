"""Losses of models: files, names and models in memory."""

from pathlib import Path

import torch

from tonewood.model.losses import FeatureLoss, NeuralLoss
from tonewood.model.model import Model, load_model
from tonewood.scorer.losses import ScorerFeatureLoss, ScorerLoss


def waves(seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(2, 1, 22_050, generator=torch.Generator().manual_seed(seed))


def test_loss_of_a_model_is_that_of_its_scorer(model: Model, model_file: Path) -> None:
    expected = ScorerLoss(model.scorer, 22_050, "none")(waves())
    for given in (model, model_file, str(model_file)):
        loss = NeuralLoss(given, 22_050, "none")
        assert isinstance(loss, torch.nn.Module)
        assert torch.equal(loss(waves()), expected)
    distance = FeatureLoss(model, rate=22_050)(waves(), waves(1))
    assert torch.equal(distance, ScorerFeatureLoss(model.scorer, 22_050)(waves(), waves(1)))


def test_default_loss_is_that_of_the_bundled_model() -> None:
    x = waves()
    assert torch.equal(NeuralLoss()(x), ScorerLoss(load_model("cello").scorer, 16_000)(x))


def test_loss_of_a_model_has_finite_gradients() -> None:
    x = waves().requires_grad_()
    NeuralLoss("cello", 22_050)(x).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() > 0
