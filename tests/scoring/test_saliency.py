import pytest
import torch
from torch import Tensor

from tonewood.scoring.saliency import class_activation_map, on_rows
from tonewood.scoring.scorer import Scorer
from tonewood.settings import BandSettings, ScorerSettings, SpectrumSettings


def scorer(depth: int, bands: int = 24) -> Scorer:
    settings = ScorerSettings(bands=BandSettings(count=bands), depth=depth, width=4)
    made = Scorer(settings, SpectrumSettings(), torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        made.linear.bias.fill_(0.7)
    return made.requires_grad_(False)


def noise(frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return -40 + 10 * torch.randn(24, frames, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("frames", [1, 37, 300])
def test_the_maps_mean_plus_the_bias_is_the_logit(depth: int, frames: int) -> None:
    listener, rows = scorer(depth), noise(frames)
    activation = class_activation_map(listener, rows)
    assert activation.ndim == 2
    logit = listener.logit(rows[None])[0]
    assert float(activation.mean() + 0.7) == pytest.approx(float(logit), abs=1e-6)
    assert activation.numel() == 1 or float(activation.std()) > 1e-3


def test_the_map_needs_no_gradient_and_leaves_the_clip_alone() -> None:
    listener = scorer(2).requires_grad_(True)
    rows = noise(40)
    before = rows.clone()
    assert not class_activation_map(listener, rows).requires_grad
    assert torch.equal(rows, before)


@pytest.mark.parametrize(("depth", "steps"), [(1, (2, 2)), (2, (4, 4)), (3, (8, 4))])
def test_a_ramp_stays_a_ramp_on_the_clips_grid(depth: int, steps: tuple[int, int]) -> None:
    row_step, frame_step = steps
    row, frame = torch.arange(3.0)[:, None] * row_step, torch.arange(5.0) * frame_step
    drawn = on_rows(scorer(depth), 2 * row + 3 * frame, 24, 20)
    assert drawn.shape == (24, 20)
    inside = 2 * torch.arange(2 * row_step + 1)[:, None] + 3 * torch.arange(4 * frame_step + 1)
    torch.testing.assert_close(
        drawn[: inside.shape[0], : inside.shape[1]], inside[:24, :20].to(drawn)
    )
    # Past the last cell's centre its value holds.
    assert (drawn[2 * row_step :, 0] == drawn[2 * row_step, 0]).all()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_map_stands_where_the_sound_is(depth: int) -> None:
    listener = scorer(depth, bands=96)
    for layer in listener.convolutions:
        layer.weight.fill_(0.05)  # type: ignore[operator]
    listener.linear.weight.fill_(1.0)
    listener.row_mean.fill_(-60.0)
    rows = torch.full((96, 120), -100.0, dtype=torch.float64)
    rows[40, 64] = 0.0
    drawn = on_rows(listener, class_activation_map(listener, rows), 96, 120)
    weight = drawn - drawn[-1, -1]
    for axis, place in ((0, 40), (1, 64)):
        along = weight.sum(dim=1 - axis)
        centre = (along * torch.arange(len(along))).sum() / along.sum()
        assert float(centre) == pytest.approx(place, abs=0.25)
