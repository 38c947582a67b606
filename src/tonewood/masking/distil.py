"""Teach a predictor the masks that prior and search make of recordings: distillation.

No pairs are needed, and whatever the model believes, or does not, is in its masks already (Hinton,
Vinyals & Dean 2015). The guide, frozen, is heard beside them: the masks of one pass need not repeat
the search's mistakes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tonewood.masking.follower import added_loudness_db
from tonewood.masking.predictor import LOUDNESS_AMOUNTS, Predictor
from tonewood.settings import PredictorSettings
from tonewood.signal.bands import frame_levels
from tonewood.signal.spectrum import FloatArray

_AUDIBLE_DB = 50.0

EnergyFunction = Callable[[Tensor], Tensor]
"""Rows [batch, row, frame] in dB → energy [batch] in dB², a sum over cells."""


class DistillationExample(NamedTuple):
    """A recording and the mask that the whole method makes of it.

    Parameters
    ----------
    rows_db, mask_db : Tensor [row, frame]
    departure_db : Tensor [row, frame]
        How far the search went from the prior.
    """

    rows_db: Tensor
    mask_db: Tensor
    departure_db: Tensor

    @property
    def audible(self) -> Tensor:
        """Frames [frame] within 50 dB of the loudest."""
        level = frame_levels(self.rows_db)
        return level > level.max() - _AUDIBLE_DB


def train_predictor(
    examples: Sequence[DistillationExample],
    static_db: Tensor,
    energy: EnergyFunction | None,
    row_hz: FloatArray,
    settings: PredictorSettings,
    hop_ms: float,
    generator: torch.Generator,
) -> Predictor:
    """Teach a predictor.

    The loss is each audible frame's root mean square error over rows, averaged, of the mask and of
    its departure from the prior, as of the other networks (`predict.train_mask_network`), plus the
    guide's energy of the corrected rows, by cell.

    Parameters
    ----------
    static_db : Tensor [row]
        Where training starts, and what silence gets.
    energy : callable, optional
        The guide's.
    row_hz : float64 array (row,)
        Centre frequencies.
    """
    rows = static_db.shape[0]
    predictor = Predictor(rows, settings, hop_ms, generator)
    predictor.static_db.copy_(static_db)
    start = predictor.initial_state()
    heard = [predictor.relative_levels(lesson.rows_db[None], start.sums)[0][0] for lesson in examples]
    audible = [lesson.audible for lesson in examples]
    sounding = [rows_db[:, on] for rows_db, on in zip(heard, audible, strict=True)]
    predictor.row_mean.copy_(torch.cat(sounding, dim=1).mean(dim=1))
    wanted = [
        torch.cat([lesson.mask_db - static_db[:, None], lesson.departure_db]) for lesson in examples
    ]
    optimiser = torch.optim.AdamW(
        predictor.parameters(), lr=settings.learning_rate, weight_decay=1e-2
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    crop = min([settings.crop_frames, *(mask.shape[1] for mask in wanted)])
    past = predictor.initial_state(settings.batch).past
    for _ in range(settings.steps):
        x, y, on = [], [], []
        for index in torch.randint(len(wanted), (settings.batch,), generator=generator).tolist():
            last = wanted[index].shape[1] - crop
            begin = int(torch.randint(last + 1, (1,), generator=generator))
            cut = slice(begin, begin + crop)
            x.append(heard[index][:, cut])
            y.append(wanted[index][:, cut])
            on.append(audible[index][cut])
        level = torch.randn(settings.batch, 1, 1, generator=generator) * settings.level_db
        crops, ahead = torch.stack(x), settings.lookahead
        made = predictor.network_gain(crops + level, past, generator)[0][:, :, ahead:]
        weight = torch.stack(on)[:, : crop - ahead].float()
        error = (made - torch.stack(y)[:, :, : crop - ahead]).square()
        # A quarter of a dB² keeps the root's gradient finite where the error vanishes.
        missed = sum((half.mean(dim=1) + 0.25).sqrt() for half in error.chunk(2, dim=1))
        loss = (missed * weight).sum() / weight.sum().clamp_min(1)
        if energy is not None and settings.guide:
            made = crops[:, :, : crop - ahead] + static_db[:, None] + made[:, :rows]
            loss = loss + settings.guide * energy(made).sum() / made.numel()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(predictor.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    predictor.requires_grad_(False).eval()
    added = [_added_loudness(predictor, lesson, row_hz) for lesson in examples]
    predictor.loudness_db.copy_(torch.stack(added).mean(dim=0))
    return predictor


def prediction_error_db(predictor: Predictor, examples: Sequence[DistillationExample]) -> float:
    """Root mean square of what a predictor misses in audible frames of recordings, dB."""
    missed = [
        (predictor.predict(lesson.rows_db).mask_db - lesson.mask_db)[:, lesson.audible]
        for lesson in examples
    ]
    return float(torch.cat(missed, dim=1).square().mean().sqrt())


def _added_loudness(predictor: Predictor, example: DistillationExample, row_hz: FloatArray) -> Tensor:
    mask = predictor.predict(example.rows_db).mask_db.numpy()
    return torch.tensor(
        [added_loudness_db(example.rows_db.numpy(), amount * mask, row_hz) for amount in LOUDNESS_AMOUNTS]
    )
