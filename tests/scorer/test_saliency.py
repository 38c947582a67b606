import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tonewood.errors import CallError, MissingExtraError
from tonewood.scorer.network import Scorer
from tonewood.scorer.saliency import (
    SaliencyMethod,
    attribution_by_band,
    class_activation_map,
    compute_saliency,
    interpolate_cam,
    upsample_cam,
)
from tonewood.scorer.training_loop import initial_scorer
from tonewood.settings import BandSettings, ScorerSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray


def scorer(depth: int, bands: int = 24) -> Scorer:
    settings = ScorerSettings(bands=BandSettings(count=bands), depth=depth, width=4)
    initial = initial_scorer(settings, SpectrumSettings(), torch.Generator().manual_seed(0))
    weights = {name: value.astype(np.float64) for name, value in initial.weights.items()}
    return Scorer(settings, SpectrumSettings(), weights | {"linear.bias": np.array([0.7])})


def noise(frames: int) -> FloatArray:
    generator = torch.Generator().manual_seed(1)
    return (-40 + 10 * torch.randn(24, frames, generator=generator, dtype=torch.float64)).numpy()


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("frames", [1, 37, 300])
def test_mean_of_map_plus_bias_is_the_logit(depth: int, frames: int) -> None:
    tested, rows = scorer(depth), noise(frames)
    activation = class_activation_map(tested, rows)
    assert activation.ndim == 2
    logit = tested.logit(rows[None])[0]
    assert float(activation.mean() + 0.7) == pytest.approx(float(logit), abs=1e-6)
    assert activation.size == 1 or float(activation.std()) > 1e-3


@pytest.mark.parametrize("method", ["cam", "integrated", "gradcam"])
def test_saliency_keeps_the_clips(method: SaliencyMethod) -> None:
    clips = noise(40)[None]
    before = clips.copy()
    compute_saliency(scorer(2), clips, method)
    np.testing.assert_array_equal(clips, before)


@pytest.mark.parametrize(("depth", "steps"), [(1, (2, 2)), (2, (4, 4)), (3, (8, 4))])
def test_interpolation_keeps_a_ramp(depth: int, steps: tuple[int, int]) -> None:
    row_step, frame_step = steps
    row, frame = np.arange(3.0)[:, None] * row_step, np.arange(5.0) * frame_step
    interpolated = interpolate_cam(scorer(depth), 2 * row + 3 * frame, 24, 20)
    assert interpolated.shape == (24, 20)
    inside = 2 * np.arange(2 * row_step + 1)[:, None] + 3 * np.arange(4 * frame_step + 1)
    np.testing.assert_allclose(interpolated[: inside.shape[0], : inside.shape[1]], inside[:24, :20])
    # Past the last cell's centre its value holds.
    assert (interpolated[2 * row_step :, 0] == interpolated[2 * row_step, 0]).all()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_map_is_located_at_the_sound(depth: int) -> None:
    tested = scorer(depth, bands=96)
    for number in range(depth):
        tested.weights[f"convolutions.{number}.weight"][:] = 0.05
    tested.weights["linear.weight"][:] = 1.0
    tested.weights["row_mean"][:] = -60.0
    rows = np.full((96, 120), -100.0)
    rows[40, 64] = 0.0
    interpolated = interpolate_cam(tested, class_activation_map(tested, rows), 96, 120)
    weight = interpolated - interpolated[-1, -1]
    for axis, place in ((0, 40), (1, 64)):
        profile = weight.sum(axis=1 - axis)
        centre = (profile * np.arange(len(profile))).sum() / profile.sum()
        assert float(centre) == pytest.approx(place, abs=0.25)


@pytest.mark.parametrize("method", ["cam", "integrated"])
@pytest.mark.parametrize(("depth", "frames"), [(1, 40), (3, 123), (5, 60)])
def test_saliency_sums_to_the_logit(method: SaliencyMethod, depth: int, frames: int) -> None:
    tested = scorer(depth)
    clips = np.stack([noise(frames), noise(frames)[:, ::-1] + 10])
    result = compute_saliency(tested, clips, method)
    assert result.cells.shape == clips.shape
    sums = result.cells.mean(axis=(1, 2)) + result.base
    np.testing.assert_allclose(sums, tested.logit(clips), atol=1e-6, rtol=0)
    assert result.residual <= 1e-6
    assert float(result.cells.std()) > 1e-3


@pytest.mark.parametrize("method", ["cam", "integrated", "gradcam"])
def test_batch_equals_singles(method: SaliencyMethod) -> None:
    tested = scorer(2)
    clips = np.stack([noise(48), noise(48)[::-1] - 7])
    together = compute_saliency(tested, clips, method).cells
    for number in (0, 1):
        alone = compute_saliency(tested, clips[number : number + 1], method).cells[0]
        np.testing.assert_allclose(together[number], alone, rtol=1e-7, atol=1e-7)


def test_many_clips_are_processed_in_batches() -> None:
    tested = scorer(1)
    clips = np.stack([noise(6) + number for number in range(70)])
    assert compute_saliency(tested, clips).cells.shape == clips.shape
    np.testing.assert_allclose(compute_saliency(tested, clips).logits, tested.logit(clips))
    np.testing.assert_allclose(
        attribution_by_band(tested, clips)[69:], attribution_by_band(tested, clips[69:])
    )


@pytest.mark.parametrize("method", ["cam", "integrated", "gradcam"])
def test_saliency_is_independent_of_level(method: SaliencyMethod) -> None:
    tested, clips = scorer(2), noise(48)[None]
    one, other = (compute_saliency(tested, clips + gain, method).cells for gain in (0.0, 12.0))
    np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-7)


def test_integrated_gradients_of_a_linear_scorer_are_weight_times_input() -> None:
    class Linear(Scorer):
        """A scorer whose logit is the weighted mean of its rows."""

        def logit_from_normalized(  # type: ignore[override]
            self, normalized: Tensor, generator: torch.Generator | None = None
        ) -> Tensor:
            weight = torch.arange(24.0, dtype=torch.float64)[:, None]
            return (weight * normalized).mean(dim=(1, 2)) + 3

    plain = scorer(3)
    linear_scorer = Linear(plain.settings, plain.spectrum, plain.weights)
    clips = noise(30)[None]
    result = compute_saliency(linear_scorer, clips, "integrated")
    clip_input = linear_scorer.normalize(clips)
    expected = np.arange(24.0)[:, None] * clip_input
    np.testing.assert_allclose(result.cells, expected, rtol=1e-7, atol=1e-9)
    assert result.base == pytest.approx(3)
    attribution = attribution_by_band(linear_scorer, clips)
    np.testing.assert_allclose(attribution, expected.mean(axis=2) / 24, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("depth", [1, 3])
def test_grad_cam_is_that_of_captum(depth: int) -> None:
    captum = pytest.importorskip("captum.attr")

    class Layered(torch.nn.Module):
        """The scorer, with the output of its first convolution as a layer."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.network = torch.nn.Identity(), tested.as_tensors()

        def forward(self, normalized: Tensor) -> Tensor:
            maps = torch.nn.functional.silu(self.first(self.network.convolve_layer(0, normalized[:, None])))
            for number in range(1, depth):
                maps = torch.nn.functional.silu(self.network.convolve_layer(number, maps))
            return self.network.logit_from_features(maps)

    tested = scorer(depth)
    clips = np.stack([noise(48), noise(48)[::-1]])
    module = Layered()
    normalized = torch.tensor(tested.normalize(clips)).requires_grad_()
    maps = captum.LayerGradCam(module, module.first).attribute(normalized).detach()[:, 0].numpy()
    cells = compute_saliency(tested, clips, "gradcam").cells
    # The centres of the map's cells are every second row and frame.
    np.testing.assert_allclose(cells[:, ::2, ::2], maps * maps[0].size, rtol=1e-7, atol=1e-9)


@given(
    depth=st.integers(1, 4), rows=st.integers(8, 60), frames=st.integers(1, 90),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_upsampling_keeps_the_mean(depth: int, rows: int, frames: int, seed: int) -> None:
    tested = scorer(depth)
    row_step, frame_step = {1: (2, 2), 2: (4, 4), 3: (8, 4), 4: (16, 4)}[depth]
    size = (2, -(-rows // row_step), -(-frames // frame_step))
    activation = np.random.default_rng(seed).standard_normal(size)
    grid = upsample_cam(tested, activation, rows, frames)
    assert grid.shape == (2, rows, frames)
    np.testing.assert_allclose(grid.mean(axis=(1, 2)), activation.mean(axis=(1, 2)), atol=1e-9)


@pytest.mark.parametrize("depth", [1, 3])
def test_row_attribution_sums_to_the_effect_of_an_equaliser(depth: int) -> None:
    tested = scorer(depth)
    clips = np.stack([noise(60), noise(60)[::-1]])
    clip_input = tested.normalize(clips)
    flat = clip_input - clip_input.mean(axis=2, keepdims=True)
    expected = tested.logit(clips) - tested.logit_from_normalized(flat)
    np.testing.assert_allclose(attribution_by_band(tested, clips).sum(axis=1), expected, atol=1e-6, rtol=0)


def test_unknown_method_is_rejected() -> None:
    with pytest.raises(CallError, match="--method is 'lime': choose cam, integrated, gradcam"):
        compute_saliency(scorer(1), noise(9)[None], "lime")  # type: ignore[arg-type]


def test_missing_captum_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(MissingExtraError, match=r"needs captum: pip install '\.\[captum\]'"):
        compute_saliency(scorer(1), noise(9)[None], "integrated")
    for method in ("cam", "gradcam"):
        assert np.isfinite(compute_saliency(scorer(1), noise(9)[None], method).residual)
