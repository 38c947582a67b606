"""Losses of models: files, names and models in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tonewood.dsp.chunking import ArrayTimeSeries
from tonewood.mask.certificate import describe_windows
from tonewood.model.losses import (
    FeatureLoss,
    LossTerms,
    NeuralLoss,
    ScorerFeatureLoss,
    ScorerLoss,
    window_statistics,
)
from tonewood.model.model import Model, load_model

UNGRADED = Path(__file__).parent / "ungraded.tonewood"


def waves(seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(2, 1, 22_050, generator=torch.Generator().manual_seed(seed))


def test_loss_is_the_mean_of_score_and_distance(model: Model, model_file: Path) -> None:
    score = ScorerLoss(model.scorer, 22_050, "none")(waves())
    for given in (model, model_file, str(model_file)):
        loss = NeuralLoss(given, 22_050, "none")
        assert isinstance(loss, torch.nn.Module)
        terms = loss.terms(waves())
        assert torch.equal(terms.score, score)
        assert (terms.windows > 0).all()
        assert torch.equal(loss(waves()), terms.mean)
    distance = FeatureLoss(model, rate=22_050)(waves(), waves(1))
    assert torch.equal(distance, ScorerFeatureLoss(model.scorer, 22_050)(waves(), waves(1)))


def test_mean_of_equal_terms_is_their_value() -> None:
    values = torch.tensor([0.0, 0.4, 1.0])
    assert torch.allclose(LossTerms(values, values).mean, values)


def test_default_model_is_the_bundled_cello() -> None:
    x = waves()
    assert torch.equal(NeuralLoss()(x), NeuralLoss(load_model("cello"))(x))


def test_ungraded_model_has_the_score_alone() -> None:
    model = load_model(UNGRADED)
    loss = NeuralLoss(model, 22_050, "none")
    expected = ScorerLoss(model.scorer, 22_050, "none")(waves())
    assert torch.equal(loss(waves()), expected)
    terms = loss.terms(waves())
    assert torch.equal(terms.score, expected)
    assert not terms.windows.any()


def test_state_names_the_weights_of_the_scorer(model: Model) -> None:
    # States that earlier versions saved load as before.
    assert NeuralLoss(model).state_dict().keys() == ScorerLoss(model.scorer, 16_000).state_dict().keys()


def test_window_statistics_equal_those_of_the_detector() -> None:
    # All frames are within the audible range, and away from its end.
    rows_db = np.random.default_rng(0).normal(-40, 5, (48, 120)).astype(np.float32)
    expected = describe_windows(ArrayTimeSeries(rows_db), 120)
    assert window_statistics(torch.tensor(rows_db[None])).numpy() == pytest.approx(expected, abs=0.01)


def test_window_statistics_ignore_silent_frames() -> None:
    rows_db = torch.randn(1, 48, 60, generator=torch.Generator().manual_seed(0)) * 5 - 40
    padded = torch.cat([rows_db, torch.full((1, 48, 30), -110.0)], dim=2)
    assert torch.allclose(window_statistics(padded), window_statistics(rows_db), atol=1e-3)


def test_loss_is_least_at_the_mean_window_of_the_reference(model: Model) -> None:
    windows = NeuralLoss(model).windows
    assert windows is not None
    rows = len(windows.mean) // 2
    # Two levels in turn, so that every row has the mean and the standard deviation of a folder.
    values = []
    for likeness in (model.reference_likeness, model.source_likeness):
        mean, spread = (torch.tensor(part)[:, None] for part in np.split(likeness.mean, 2))
        sign = torch.tensor([1.0, -1.0]).repeat(50)
        rows_db = (mean + spread * sign)[None]
        assert rows_db.shape == (1, rows, 100)
        values += [
            windows(rows_db).item(),
            windows(rows_db + 6 * torch.linspace(-1, 1, rows)[:, None]).item(),
        ]
    reference, tilted, source, _ = values
    assert reference < tilted
    assert reference < source


@pytest.mark.parametrize("amplitude", [0.0, 1.0])
def test_gradients_are_finite_on_silence_and_full_scale(model: Model, amplitude: float) -> None:
    wave = (amplitude * torch.sign(torch.sin(torch.arange(8_000) * 0.05)))[None, None].requires_grad_()
    NeuralLoss(model)(wave).backward()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()
    assert (wave.grad.abs().max() > 0) == (amplitude > 0)


def test_loss_does_not_depend_on_the_level(model: Model) -> None:
    loss = NeuralLoss(model, 22_050, "none")
    assert torch.allclose(loss(0.1 * waves()), loss(waves()), rtol=1e-3)


def test_gradients_equal_finite_differences(model: Model) -> None:
    loss = NeuralLoss(model).double()
    beat = torch.linspace(0, 9, 2_400).cos().double() + 1.1
    wave = (0.1 * beat * waves()[:1, :, :2_400]).requires_grad_()
    assert torch.autograd.gradcheck(loss, wave, fast_mode=True, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, on itself
def test_loss_compiles_as_one_graph(model: Model) -> None:
    loss = NeuralLoss(model, 22_050)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    assert compiled(waves()).item() == pytest.approx(loss(waves()).item(), rel=1e-4)
