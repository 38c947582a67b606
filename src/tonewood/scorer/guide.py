"""The guide L_g: an energy whose gradient is trained (gradient-trained regularizer, Lunz et al. 2018).

A classifier's gradient is only constrained by the accuracy, and a search that follows it leaves the
reference. The guide's negative gradient is trained to be the correction that a sound near the
reference still needs: a gradient-step denoiser (Hurault, Leclaire & Papadakis 2022). The training
pairs are pseudo-source under the prior's mask, and the reference take that it was made of.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tonewood.dsp.features import frame_levels, interpolate_noise, is_audible, mean_level
from tonewood.settings import GuideSettings
from tonewood.stats.sampling import TakeWeights, sample_takes

GuidePair = tuple[Tensor, Tensor]
"""(input, target) levels [row, frame] in dB of one take."""

_RANGE_DB = 75.0
_MAX_CORRECTION_DB = 25.0
_CANDIDATE_WEIGHTS = (0.3, 0.6, 1.0)
_MIN_GUIDE_GAIN = 0.005


class Guide(nn.Module):
    """Energy of levels on the scorer's rows; small for reference-like sound."""

    def __init__(self, rows: int, settings: GuideSettings, generator: torch.Generator) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("row_mean", torch.zeros(rows))
        self.register_buffer("spread", torch.ones(()))
        self.row_mean: Tensor
        self.spread: Tensor
        width = settings.width
        with torch.random.fork_rng(devices=[]):  # nn.Conv1d draws weights that are replaced
            self.convolutions = nn.ModuleList(
                nn.Conv1d(a, b, kernel, padding=kernel // 2)
                for a, b, kernel in _convolution_shapes(rows, width)
            )
        for layer in self.convolutions:
            assert isinstance(layer, nn.Conv1d)
            assert layer.bias is not None
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        # Energy |own · x + f(x)|²: a quadratic around the mean row, bent by the convolutions f.
        self.own = nn.Parameter(torch.full((rows, 1), 0.2))
        self.row_weight = nn.Parameter(torch.full((rows,), 0.3))

    @property
    def reach_frames(self) -> int:
        """Frames on either side that affect the energy's gradient at a frame."""
        reach = sum(kernel // 2 for _, _, kernel in _convolution_shapes(1, 1))
        # Forward and backward pass each reach as far as the kernels.
        return (2 * reach + 1) * self.settings.pooled_frames

    def energy(self, rows_db: Tensor, level_db: float | None = None) -> Tensor:
        """Return the energy [batch] in dB², a sum over cells, of levels [batch, row, frame] in dB.

        Parameters
        ----------
        level_db : float, optional
            Mean level of the recording, if the levels are a segment of it.
        """
        level = mean_level(rows_db)[:, None, None] if level_db is None else level_db
        x = y = self._normalize(rows_db, level)
        for i, layer in enumerate(self.convolutions):
            y = layer(y) if i == 0 else layer(nn.functional.silu(y))
        residual = (self.own * x + y).square()
        # A pooled cell stands for `pooled_frames` cells; `unit_db2` sets the size of the gradient in dB.
        cells = self.settings.pooled_frames * self.settings.unit_db2
        return (residual.sum(dim=2) @ self.row_weight) * cells

    def direction(
        self, rows_db: Tensor, level_db: float | None = None, *, create_graph: bool = False
    ) -> Tensor:
        """Return the negative gradient of the energy [batch, row, frame], in dB."""
        with torch.enable_grad():
            x = rows_db if rows_db.requires_grad else rows_db.detach().requires_grad_()
            total = self.energy(x, level_db).sum()
            return -torch.autograd.grad(total, x, create_graph=create_graph)[0]

    def _normalize(self, rows_db: Tensor, level_db: Tensor | float) -> Tensor:
        """Remove the level, scale to about unit variance, and average over a few frames."""
        relative = (rows_db - level_db).clamp_min(-_RANGE_DB)
        x = (relative - self.row_mean[:, None]) / self.spread
        pool = self.settings.pooled_frames
        return nn.functional.avg_pool1d(x, pool, pool, ceil_mode=True, count_include_pad=False)


def _convolution_shapes(rows: int, width: int) -> tuple[tuple[int, int, int], ...]:
    """Return input channels, output channels and kernel size of each convolution."""
    return (rows, width, 7), (width, width, 5), (width, rows, 5)


def train_guide(
    pairs: Sequence[GuidePair],
    settings: GuideSettings,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> Guide:
    """Train the gradient of a guide on pairs.

    The loss is the mean over audible frames of the RMS error of the direction. In some crops the input
    is the target, so that the minimum is learnt; random smooth masks on all inputs widen the
    neighbourhood in which the gradient is valid.
    """
    guide = Guide(pairs[0][0].shape[0], settings, generator)
    # Around the mean of the targets, where the energy must be small.
    frames = torch.cat([y - mean_level(y) for _, y in pairs], dim=1).clamp_min(-_RANGE_DB)
    guide.row_mean.copy_(frames.mean(dim=1))
    guide.spread.copy_(frames.std())
    guide.to(frames.device)
    optimiser = torch.optim.AdamW(guide.parameters(), lr=settings.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps
    )
    crop = min([settings.crop_frames, *(y.shape[1] for _, y in pairs)])
    for _ in range(settings.steps):
        crops = [_draw_pair_crop(pairs, crop, generator, take_weights) for _ in range(settings.batch)]
        inputs, targets = (torch.stack(side) for side in zip(*crops, strict=True))
        is_target = torch.rand(settings.batch, 1, 1, generator=generator) < settings.done_share
        masks = _random_smooth_masks(inputs, settings.mask_db, generator)
        inputs = torch.where(is_target.to(inputs.device), targets, inputs) + masks
        correction, audible = target_correction(inputs, targets)
        error = (guide.direction(inputs, create_graph=True) - correction).square().mean(dim=1)
        # 0.1 dB² keeps the gradient of the root finite where the error vanishes.
        loss = ((error + 0.1).sqrt() * audible).sum() / audible.sum().clamp_min(1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return guide.requires_grad_(False).eval()


def validation_gains(
    guide: Guide, held_out: Sequence[GuidePair], smooth_frames: int = 9
) -> tuple[tuple[float, float], ...]:
    """Return each candidate weight, and the share of the cycle distance that a step of it removes."""
    after = dict.fromkeys(_CANDIDATE_WEIGHTS, 0.0)
    before = 0.0
    for rows_db, target in held_out:
        step = _average_frames(guide.direction(rows_db[None])[0], smooth_frames)
        before += _correction_distance_db(rows_db, target)
        for weight in _CANDIDATE_WEIGHTS:
            after[weight] += _correction_distance_db(rows_db + weight * step, target)
    return tuple((weight, 1 - after[weight] / before) for weight in _CANDIDATE_WEIGHTS)


def select_guide_weight(gains: Sequence[tuple[float, float]]) -> float:
    """Return the weight of the largest gain; 0 if that is below 0.005, which is noise."""
    weight, gain = max(gains, key=lambda pair: pair[1])
    return weight if gain >= _MIN_GUIDE_GAIN else 0.0


def target_correction(rows_db: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the correction [batch, row, frame] in dB, and the target's audible frames [batch, frame].

    The overall level is removed from the correction.
    """
    audible = is_audible(frame_levels(target)).to(target)
    difference = (target - rows_db).clamp(-_MAX_CORRECTION_DB, _MAX_CORRECTION_DB)
    weight = audible[:, None, :]
    mean = (difference * weight).sum(dim=(1, 2), keepdim=True)
    # + 1 keeps the quotient defined if no frame is audible.
    return difference - mean / (weight.sum(dim=(1, 2), keepdim=True) * target.shape[1] + 1), audible


def _draw_pair_crop(
    pairs: Sequence[GuidePair], frames: int, generator: torch.Generator, take_weights: TakeWeights
) -> GuidePair:
    (index,) = sample_takes([target.shape[1] for _, target in pairs], 1, generator, take_weights)
    rows_db, target = pairs[index]
    start = int(torch.randint(target.shape[1] - frames + 1, (1,), generator=generator))
    return rows_db[:, start : start + frames], target[:, start : start + frames]


def _random_smooth_masks(like: Tensor, spread_db: float, generator: torch.Generator) -> Tensor:
    batch, rows, frames = like.shape
    shape = interpolate_noise(batch, (rows // 6 + 1, frames // 30 + 2), (rows, frames), generator)
    return torch.rand(batch, 1, 1, generator=generator).to(like) * spread_db * shape.to(like)


def _correction_distance_db(rows_db: Tensor, target: Tensor) -> float:
    """Return the mean over audible frames of the RMS correction, dB."""
    correction, audible = target_correction(rows_db[None], target[None])
    return float((correction.square().mean(dim=1).sqrt() * audible).sum() / audible.sum())


def _average_frames(gain: Tensor, frames: int) -> Tensor:
    half = frames // 2
    padded = nn.functional.pad(gain[None], (half, half), mode="replicate")
    return nn.functional.avg_pool1d(padded, 2 * half + 1, stride=1)[0]
