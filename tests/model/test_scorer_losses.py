"""Scorers as losses for the training of other networks."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
import torch
from scipy.signal import lfilter
from torch import Tensor

from tests.model.filter_training import filter_trained_by_loss
from tonewood.dsp.features import band_levels
from tonewood.errors import CallError, TonewoodError
from tonewood.model.losses import NeuralLoss, ScorerFeatureLoss, ScorerLoss
from tonewood.scorer.network import Scorer
from tonewood.scorer.training_loop import initial_scorer
from tonewood.settings import BandSettings, ScorerSettings, SpectrumSettings

ROOT = Path(__file__).parents[2]
PAPER = SpectrumSettings()
MEL = ScorerSettings(width=4)
LINEAR = ScorerSettings(width=4, bands=BandSettings(scale="linear"))
RATES = [8_000, 11_025, 22_050, 44_100, 48_000, 96_000]


def tones(count: int = 4, seconds: float = 1.0, rate: int = 16_000) -> Tensor:
    """Return coloured noise with slow amplitude modulation [clip, sample]."""
    generator = torch.Generator().manual_seed(7)
    beat = torch.linspace(0, 9, round(seconds * 16_000)).cos() + 1.1
    clips = []
    for share in (0.0, 0.5, 0.9, 0.98)[:count]:
        hiss = torch.randn(len(beat), generator=generator).numpy()
        wave = lfilter([1 - share], [1, -share], hiss) * beat.numpy()
        clips.append(0.1 * soxr.resample(wave, 16_000, rate, "VHQ"))
    return torch.from_numpy(np.stack(clips)).float()


def varied_scorer(settings: ScorerSettings = MEL) -> Scorer:
    """Return an untrained scorer of tensors that separates `tones`."""
    scorer = initial_scorer(settings, PAPER, torch.Generator().manual_seed(0)).as_tensors()
    logits = scorer.logit(rows_of(tones(), settings))
    scorer.weights["linear.bias"] -= logits.mean() / logits.std()
    scorer.weights["linear.weight"] /= logits.std()
    return scorer


def rows_of(waves: Tensor, settings: ScorerSettings = MEL) -> Tensor:
    return band_levels(waves, 16_000, settings.bands, PAPER)


def test_loss_of_a_batch_by_reduction() -> None:
    scorer, waves = varied_scorer(), tones()[:, None]
    each = ScorerLoss(scorer, 16_000, "none")(waves)
    assert each.shape == (4,)
    assert torch.allclose(each, scorer.score(rows_of(waves[:, 0])))
    assert ScorerLoss(scorer, 16_000, "mean")(waves).item() == pytest.approx(each.mean().item())
    assert ScorerLoss(scorer, 16_000, "sum")(waves).item() == pytest.approx(each.sum().item())
    assert ScorerLoss(scorer, 16_000)(waves).shape == ()


def test_loss_scores_the_mean_of_the_channels() -> None:
    loss, waves = ScorerLoss(varied_scorer(), 16_000, "none"), tones()
    stereo = torch.stack([waves[:2], waves[2:]], dim=1)
    assert torch.allclose(loss(stereo), loss(stereo.mean(dim=1, keepdim=True)))
    assert not torch.allclose(loss(stereo), loss(waves[:2, None]))


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_gradient_step_on_waveform_lowers_the_loss(rate: int) -> None:
    waves = tones(2, 0.5, rate)[:, None].repeat(1, 2, 1).requires_grad_()
    ScorerLoss(varied_scorer(), rate)(waves).backward()
    assert waves.grad is not None
    assert waves.grad.isfinite().all()
    assert (waves.grad.abs().amax(dim=2) > 0).all()


@pytest.mark.parametrize("amplitude", [0.0, 1.0])
def test_gradients_are_finite_on_silence_and_full_scale(amplitude: float) -> None:
    wave = (amplitude * torch.sign(torch.sin(torch.arange(8_000) * 0.05)))[None, None]
    wave.requires_grad_()
    ScorerLoss(varied_scorer(), 16_000)(wave).backward()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()
    # Nothing can be amplified out of exact silence: its gradient is 0, not NaN.
    assert (wave.grad.abs().max() > 0) == (amplitude > 0)


@pytest.mark.parametrize("rate", RATES)
def test_loss_is_the_same_at_any_rate(rate: int) -> None:
    scorer = varied_scorer()
    waves = tones(4, 1.0, rate)
    scores = ScorerLoss(scorer, rate, "none")(waves[:, None])
    # As files are read: by soxr to the analysis rate, then scored.
    read = torch.from_numpy(np.stack([soxr.resample(w, rate, 16_000, "HQ") for w in waves.numpy()]))
    expected = scorer.score(rows_of(read))
    assert expected.std() > 0.1 or rate < 16_000  # without treble all of them are alike
    assert (scores - expected).abs().max() < 0.01


def test_loss_freezes_a_copy_of_the_scorer() -> None:
    scorer = varied_scorer()
    before = {name: value.clone() for name, value in scorer.weights.items()}
    loss = ScorerLoss(scorer, 22_050).double()
    assert not list(loss.parameters())
    assert loss.state_dict()["scorer.linear.weight"].dtype == torch.float64
    assert all(value.dtype == torch.float32 for value in scorer.weights.values())
    assert all(torch.equal(before[name], value) for name, value in scorer.weights.items())


def test_state_names_the_weights_of_the_scorer() -> None:
    scorer = varied_scorer()
    state = ScorerLoss(scorer.as_arrays(), 22_050).state_dict()
    assert set(state) == {f"scorer.{name}" for name in scorer.weights}
    # A model file is read in no fixed order.
    reordered = Scorer(scorer.settings, scorer.spectrum, dict(reversed(scorer.weights.items())))
    assert list(ScorerLoss(reordered, 22_050).state_dict()) == list(state)
    other = ScorerLoss(initial_scorer(MEL, PAPER, torch.Generator()), 22_050)
    other.load_state_dict(state)
    waves = tones(4, 0.5, 22_050)[:, None]
    assert torch.equal(other(waves), ScorerLoss(scorer, 22_050)(waves))


def test_invalid_arguments_are_rejected() -> None:
    assert issubclass(CallError, TonewoodError)
    with pytest.raises(CallError, match="rate is 800 Hz: give 4000 to 768000 Hz"):
        ScorerLoss(varied_scorer(), 800)
    with pytest.raises(CallError, match="reduction is 'max'; choose 'mean', 'sum' or 'none'"):
        ScorerLoss(varied_scorer(), 16_000, "max")
    with pytest.raises(CallError, match=r"\(2, 8000\); give \[batch, channels, samples\]"):
        ScorerLoss(varied_scorer(), 16_000)(torch.zeros(2, 8_000))
    for loss in (ScorerLoss(varied_scorer(), 16_000), NeuralLoss("cello", 16_000)):
        array: Any = np.zeros((1, 1, 8_000), np.float32)
        with pytest.raises(CallError, match=r"waveform is a ndarray; give a tensor \[batch, channels"):
            loss(array)
    with pytest.raises(CallError, match=r"100 samples at 16000 Hz are shorter than .* 30 ms"):
        ScorerLoss(varied_scorer(), 16_000)(torch.zeros(1, 1, 100))
    with pytest.raises(CallError, match=r"shapes \(2, 1, 8000\) and \(2, 1, 9000\); give the same"):
        ScorerFeatureLoss(varied_scorer(), 16_000)(torch.zeros(2, 1, 8_000), torch.zeros(2, 1, 9_000))


# --- Features


def test_feature_loss_is_zero_for_a_scaled_copy() -> None:
    loss, waves = ScorerFeatureLoss(varied_scorer(), 16_000, "none"), tones()[:, None]
    assert loss(waves, waves).tolist() == [0, 0, 0, 0]
    assert (loss(0.3 * waves, waves) < 0.01).all()
    assert (loss(waves.flip(0), waves) > 0.1).all()


def test_feature_loss_equals_the_formula() -> None:
    scorer, waves = varied_scorer(), tones()
    output, target = waves[:2], waves[2:]
    ratios = []
    for layer in range(3):
        x, y = (scorer.layers(scorer.normalize(rows_of(w)))[layer] for w in (output, target))
        each = [(a - b).abs().mean() / b.abs().mean() for a, b in zip(x, y, strict=True)]
        ratios.append(torch.stack(each))
    expected = torch.stack(ratios).mean(dim=0)
    actual = ScorerFeatureLoss(scorer, 16_000, "none")(output[:, None], target[:, None])
    assert torch.allclose(actual, expected, rtol=1e-4)
    mean, total = (
        ScorerFeatureLoss(scorer, 16_000, r)(output[:, None], target[:, None]) for r in ("mean", "sum")
    )
    assert mean.item() == pytest.approx(expected.mean().item(), rel=1e-4)
    assert total.item() == pytest.approx(expected.sum().item(), rel=1e-4)


def test_feature_loss_moves_waveform_to_target_without_target_gradient() -> None:
    loss = ScorerFeatureLoss(varied_scorer(), 24_000)
    target = tones(1, 0.5, 24_000)[:, None].requires_grad_()
    gain = torch.tensor(0.0, requires_grad=True)
    wave = target.detach() + gain.exp() * tones(2, 0.5, 24_000)[1:, None]
    value = loss(wave, target)
    value.backward()
    assert target.grad is None
    assert gain.grad is not None
    assert gain.grad > 0  # less of what is not the target's is nearer to it


# --- In others' training


@pytest.mark.parametrize("rate", [16_000, 22_050])
@pytest.mark.parametrize("settings", [MEL, LINEAR])
def test_gradients_equal_finite_differences(rate: int, settings: ScorerSettings) -> None:
    loss = ScorerLoss(varied_scorer(settings), rate).double()
    wave = tones(1, 0.12, rate).double()[:, None].requires_grad_()
    assert torch.autograd.gradcheck(loss, wave, fast_mode=True, atol=1e-6)
    match = ScorerFeatureLoss(varied_scorer(settings), rate).double()
    target = tones(2, 0.12, rate).double()[1:, None]
    assert torch.autograd.gradcheck(lambda x: match(x, target), wave, fast_mode=True, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_disabled(dtype: torch.dtype) -> None:
    loss = ScorerLoss(varied_scorer(), 22_050, "none")
    waves = tones(4, 0.5, 22_050)[:, None].requires_grad_()
    exact = loss(waves)
    with torch.autocast("cpu", dtype=dtype):
        cast = loss(waves)
        halved = loss(waves.to(dtype))
    assert torch.equal(cast, exact)
    assert cast.dtype == torch.float32
    # Half precision has lost something before the loss could hear it, but little.
    assert (halved - exact).abs().max() < 0.1
    halved.sum().backward()
    assert waves.grad is not None
    assert waves.grad.isfinite().all()


def test_loss_moves_as_a_module() -> None:
    loss = ScorerLoss(varied_scorer(), 44_100)
    assert {name for name, _ in loss.named_buffers()} >= {"kernel", "weights"}
    assert not {"kernel", "weights"} & set(loss.state_dict())
    assert {buffer.device.type for buffer in loss.to("meta").buffers()} == {"meta"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, on itself
def test_loss_compiles_as_one_graph() -> None:
    # All but the last stage, which writes C++: that takes a compiler, and a minute.
    loss = ScorerLoss(varied_scorer(), 22_050)
    waves = tones(2, 0.3, 22_050)[:, None]
    grads, values = [], []
    for which in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        x = waves.clone().requires_grad_()
        value = which(x)
        value.backward()
        assert x.grad is not None
        grads.append(x.grad)
        values.append(value.item())
    assert values[1] == pytest.approx(values[0], abs=1e-5)
    assert torch.allclose(grads[0], grads[1], atol=1e-4 * grads[0].abs().max().item())


def test_training_is_the_same_in_one_and_two_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.model.filter_training"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "meet")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ended = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), ended
    first, second = ([float(word) for word in out.split()] for out, _ in ended)
    assert first == second
    # The mean over a batch in halves is the mean over the batch.
    assert first == pytest.approx(filter_trained_by_loss(lambda module: module), abs=2e-5)
