"""The guide L_g: a second neural loss, whose gradient, not whose value, is what is taught.

A scorer trained to tell two folders apart has a gradient that points anywhere its accuracy does
not forbid, and the search follows it away from the reference. The guide is an energy whose negative
gradient is taught to be what a sound near the reference still lacks: a gradient-step denoiser
(Hurault, Leclaire & Papadakis 2022), learnt from pseudo-pairs, a sound as the prior corrects it and
the take that it should have become. One step down it from the prior is worth more than a hundred
down the scorer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tonewood.dsp.filterbank import frame_levels, is_audible, mean_level
from tonewood.settings import GuideSettings
from tonewood.stats.sampling import TakeWeights, sample_takes

GuidePair = tuple[Tensor, Tensor]
"""(corrected, wanted) rows [row, frame] in dB of one take."""

_RANGE_DB = 75.0
_MAX_CORRECTION_DB = 25.0
_CANDIDATE_WEIGHTS = (0.3, 0.6, 1.0)
_MIN_GUIDE_GAIN = 0.005


class Guide(nn.Module):
    """An energy over rows; small where a sound is as the reference would have it.

    Parameters
    ----------
    rows : int
    settings : GuideSettings
    generator : torch.Generator
        Draws the initial weights.
    """

    def __init__(self, rows: int, settings: GuideSettings, generator: torch.Generator) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("row_mean", torch.zeros(rows))
        self.register_buffer("spread", torch.ones(()))
        self.row_mean: Tensor
        self.spread: Tensor
        width = settings.width
        with torch.random.fork_rng(devices=[]):  # nn.Conv1d draws weights that are not kept
            self.convolutions = nn.ModuleList(
                nn.Conv1d(a, b, kernel, padding=kernel // 2)
                for a, b, kernel in _convolution_shapes(rows, width)
            )
        for layer in self.convolutions:
            assert isinstance(layer, nn.Conv1d)
            assert layer.bias is not None
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        self.own = nn.Parameter(torch.full((rows, 1), 0.2))
        self.row_weight = nn.Parameter(torch.full((rows,), 0.3))

    @property
    def reach_frames(self) -> int:
        """Frames either side that decide the energy's gradient at one."""
        reach = sum(kernel // 2 for _, _, kernel in _convolution_shapes(1, 1))
        return (2 * reach + 1) * self.settings.pooled_frames

    def energy(self, rows_db: Tensor, level_db: float | None = None) -> Tensor:
        """Energy [batch] in dB², a sum over cells, of rows [batch, row, frame] in dB.

        Parameters
        ----------
        level_db : float, optional
            Mean level of the recording that the rows are a part of; their own if none.
        """
        own = mean_level(rows_db)[:, None, None] if level_db is None else level_db
        x = y = self._normalize(rows_db, own)
        for i, layer in enumerate(self.convolutions):
            y = layer(y) if i == 0 else layer(nn.functional.silu(y))
        odd = (self.own * x + y).square()
        cells = self.settings.pooled_frames * self.settings.unit_db2
        return (odd.sum(dim=2) @ self.row_weight) * cells

    def direction(
        self, rows_db: Tensor, level_db: float | None = None, *, create_graph: bool = False
    ) -> Tensor:
        """What is lacking [batch, row, frame], dB: minus the energy's gradient."""
        with torch.enable_grad():
            x = rows_db if rows_db.requires_grad else rows_db.detach().requires_grad_()
            total = self.energy(x, level_db).sum()
            return -torch.autograd.grad(total, x, create_graph=create_graph)[0]

    def _normalize(self, rows_db: Tensor, level_db: Tensor | float) -> Tensor:
        """Rows without their level, in units of about one, a few frames averaged."""
        relative = (rows_db - level_db).clamp_min(-_RANGE_DB)
        x = (relative - self.row_mean[:, None]) / self.spread
        pool = self.settings.pooled_frames
        return nn.functional.avg_pool1d(x, pool, pool, ceil_mode=True, count_include_pad=False)


def _convolution_shapes(rows: int, width: int) -> tuple[tuple[int, int, int], ...]:
    """Channels in and out, and kernel, of each convolution."""
    return (rows, width, 7), (width, width, 5), (width, rows, 5)


def train_guide(
    pairs: Sequence[GuidePair],
    settings: GuideSettings,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> Guide:
    """Teach a guide its gradient from pairs of sounds and what they should have been.

    The loss is each audible frame's root mean square error of the direction, averaged. Some crops
    already are as wanted, and teach where to stay; random smooth masks on all of them widen the
    neighbourhood in which the gradient means something.
    """
    guide = Guide(pairs[0][0].shape[0], settings, generator)
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
        near, wanted = (torch.stack(side) for side in zip(*crops, strict=True))
        done = torch.rand(settings.batch, 1, 1, generator=generator) < settings.done_share
        near = torch.where(done.to(near.device), wanted, near) + _random_smooth_masks(
            near, settings.mask_db, generator
        )
        lacking, heard = target_correction(near, wanted)
        error = (guide.direction(near, create_graph=True) - lacking).square().mean(dim=1)
        loss = ((error + 0.1).sqrt() * heard).sum() / heard.sum().clamp_min(1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return guide.requires_grad_(False).eval()


def validation_gains(
    guide: Guide, held_out: Sequence[GuidePair], smooth_frames: int = 9
) -> tuple[tuple[float, float], ...]:
    """Share of the cycle distance that one step of each weight closes on held-out pairs."""
    left = dict.fromkeys(_CANDIDATE_WEIGHTS, 0.0)
    before = 0.0
    for near, wanted in held_out:
        step = _average_frames(guide.direction(near[None])[0], smooth_frames)
        before += _correction_distance_db(near, wanted)
        for weight in _CANDIDATE_WEIGHTS:
            left[weight] += _correction_distance_db(near + weight * step, wanted)
    return tuple((weight, 1 - left[weight] / before) for weight in _CANDIDATE_WEIGHTS)


def select_guide_weight(gains: Sequence[tuple[float, float]]) -> float:
    """Weight of the largest gain, or 0 where it is under half a hundredth, which is noise."""
    weight, gain = max(gains, key=lambda pair: pair[1])
    return weight if gain >= _MIN_GUIDE_GAIN else 0.0


def target_correction(near: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """What sounds lack [batch, row, frame] in dB, level apart, and the frames [batch, frame] heard.

    A frame is heard where the wanted sound is within 45 dB of its loudest.
    """
    level = frame_levels(target)
    heard = is_audible(level).to(target)
    difference = (target - near).clamp(-_MAX_CORRECTION_DB, _MAX_CORRECTION_DB)
    weight = heard[:, None, :]
    mean = (difference * weight).sum(dim=(1, 2), keepdim=True)
    return difference - mean / (weight.sum(dim=(1, 2), keepdim=True) * target.shape[1] + 1), heard


def _draw_pair_crop(
    pairs: Sequence[GuidePair], frames: int, generator: torch.Generator, take_weights: TakeWeights
) -> GuidePair:
    (index,) = sample_takes([wanted.shape[1] for _, wanted in pairs], 1, generator, take_weights)
    near, wanted = pairs[index]
    start = int(torch.randint(wanted.shape[1] - frames + 1, (1,), generator=generator))
    return near[:, start : start + frames], wanted[:, start : start + frames]


def _random_smooth_masks(like: Tensor, spread_db: float, generator: torch.Generator) -> Tensor:
    batch, rows, frames = like.shape
    coarse = torch.randn(batch, 1, rows // 6 + 1, frames // 30 + 2, generator=generator)
    strength = torch.rand(batch, 1, 1, generator=generator).to(like) * spread_db
    shape = nn.functional.interpolate(
        coarse.to(like), size=(rows, frames), mode="bilinear", align_corners=True
    )
    return strength * shape[:, 0]


def _correction_distance_db(near: Tensor, target: Tensor) -> float:
    """Mean over heard frames of the root mean square of what is missing, dB."""
    lacking, heard = target_correction(near[None], target[None])
    return float((lacking.square().mean(dim=1).sqrt() * heard).sum() / heard.sum())


def _average_frames(gain: Tensor, frames: int) -> Tensor:
    half = frames // 2
    padded = nn.functional.pad(gain[None], (half, half), mode="replicate")
    return nn.functional.avg_pool1d(padded, 2 * half + 1, stride=1)[0]
