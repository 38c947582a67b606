"""The predictor: the whole method's mask in one pass, from what has been heard so far.

A stack of convolutions over frames that look back only, so that one network serves a file and a
performance. What it keeps between two calls is its `Memory`; a recording may be cut anywhere.
It is distilled (`train_predictor`) from the masks that prior and search make, which needs no pairs.

Teach a predictor the masks that prior and search make of recordings: distillation.

No pairs are needed, and whatever the model believes, or does not, is in its masks already (Hinton,
Vinyals & Dean 2015). The guide, frozen, is heard beside them: the masks of one pass need not repeat
the search's mistakes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tonewood.dsp.filterbank import audible_frames, frame_levels
from tonewood.mask.render import added_loudness_db
from tonewood.priors.mask_network import initialize_layers
from tonewood.settings import PredictorSettings
from tonewood.utils.arrays import FloatArray

_RANGE_DB = 75.0
_SCALE_DB = 15.0  # brings levels to about unit spread
_GAIN_DB = 8.0
# As `neighbours.presence`, from the level of what is loud instead of the loudest frame's.
_INACTIVE_DB, _FADE_DB = 55.0, 15.0
_CHUNK_FRAMES = 4_096
LOUDNESS_AMOUNTS = (0.5, 1.0)  # for which the predictor knows what its masks do to the loudness


class StreamState(NamedTuple):
    """What a predictor keeps of what it has heard.

    Parameters
    ----------
    sums : float64 Tensor [batch, 2]
        Leaky sums over frames of power squared and of power.
    past : tuple of Tensor [batch, channel, frame]
        What each convolution looks back on.
    """

    sums: Tensor
    past: tuple[Tensor, ...]


class Prediction(NamedTuple):
    """What the whole method would make of a recording.

    Parameters
    ----------
    mask_db : Tensor [..., row, frame]
        Where a search would end.
    departure_db : Tensor [..., row, frame]
        How far that lies from the prior, which it is pulled towards.
    """

    mask_db: Tensor
    departure_db: Tensor


class Predictor(nn.Module):
    """Causal network from row levels to a mask, `search_settings.lookahead` frames later.

    Parameters
    ----------
    rows : int
    settings : PredictorSettings
    hop_ms : float
    generator : torch.Generator
        Draws the initial weights.
    """

    def __init__(
        self, rows: int, settings: PredictorSettings, hop_ms: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("row_mean", torch.zeros(rows))
        self.register_buffer("static_db", torch.zeros(rows))
        self.register_buffer("loudness_db", torch.zeros(len(LOUDNESS_AMOUNTS)))
        self.row_mean: Tensor
        self.static_db: Tensor
        self.loudness_db: Tensor  # what masks add to the loudness of the source folder's takes
        # Natural logarithm of what is left of the past after one frame.
        self.decay_rate = hop_ms / (1000 * settings.level_seconds)
        width = settings.width
        with torch.random.fork_rng(devices=[]):  # nn.Conv1d draws weights that are not kept
            self.first = nn.Conv1d(rows, width, 1)
            self.middle = nn.ModuleList(
                nn.Conv1d(width, width, settings.kernel, dilation=2**i) for i in range(settings.depth)
            )
            self.last = nn.Conv1d(width, 2 * rows, 1)  # mask, departure
        initialize_layers([self.first, *self.middle], self.last, generator)

    def initial_state(self, batch: int = 1) -> StreamState:
        """Memory of nothing heard."""
        reach = self.settings.kernel - 1
        past = tuple(
            self.row_mean.new_zeros(batch, self.settings.width, reach * 2**i)
            for i in range(self.settings.depth)
        )
        return StreamState(self.row_mean.new_zeros(batch, 2, dtype=torch.float64), past)

    def forward(self, rows_db: Tensor, memory: StreamState) -> tuple[Prediction, StreamState]:
        """Hear rows [batch, row, frame] in dB; what is foreseen is of `lookahead` frames before.

        The memory is to be handed over with the next frames.
        """
        relative, sums = self.relative_levels(rows_db, memory.sums)
        gain, past = self.network_gain(relative, memory.past)
        # Where nothing sounds there is nothing to adapt to, and noise must not be pumped.
        present = ((frame_levels(relative) + _INACTIVE_DB) / _FADE_DB).clamp(0, 1)
        mask, departure = (present[:, None] * gain).chunk(2, dim=1)
        return Prediction(self.static_db[:, None] + mask, departure), StreamState(sums, past)

    def predict(self, rows_db: Tensor) -> Prediction:
        """What is foreseen [row, frame] of a whole recording [row, frame] in dB."""
        made = list(self.predict_chunks(torch.split(rows_db, _CHUNK_FRAMES, dim=1)))
        return Prediction(*(torch.cat(part, dim=1) for part in zip(*made, strict=True)))

    def predict_chunks(self, chunks: Iterable[Tensor]) -> Iterator[Prediction]:
        """What is foreseen [row, frame] along a recording that comes in parts [row, frame], in dB.

        What is heard after its end is its last frame. Parts of an hour and more are too long.
        """
        memory, skip, last = self.initial_state(), self.settings.lookahead, None
        for part in chunks:
            last = part[:, -1:]
            foreseen, memory = self._predict_chunk(part, memory)
            yield Prediction(*(it[:, skip:] for it in foreseen))
            skip = max(0, skip - part.shape[1])
        if last is not None and self.settings.lookahead:
            after, _ = self._predict_chunk(last.expand(-1, self.settings.lookahead), memory)
            yield Prediction(*(it[:, skip:] for it in after))

    @torch.no_grad()
    def _predict_chunk(self, rows_db: Tensor, memory: StreamState) -> tuple[Prediction, StreamState]:
        foreseen, memory = self(rows_db[None], memory)
        return Prediction(*(it[0] for it in foreseen)), memory

    def relative_levels(self, rows_db: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [batch, row, frame] relative to the level so far, dB, and the sums after them.

        The level is the mean power, weighted by power itself and leaking: pauses leave it alone,
        and whatever follows silence sets it at once.
        """
        power = torch.pow(10.0, frame_levels(rows_db.double()) / 10)
        age = self.decay_rate * torch.arange(1, power.shape[1] + 1, device=power.device)
        # s(t) = Σ e^(u - t) x(u) = e^-t (s(0) + Σ e^u x(u)); chunks keep the exponents small.
        powers = torch.stack([power.square(), power], dim=1) * age.exp()
        grown = (sums[:, :, None] + powers.cumsum(dim=2)) * (-age).exp()
        level = 10 * torch.log10(grown[:, 0] / grown[:, 1])
        relative = (rows_db - level[:, None].to(rows_db)).clamp_min(-_RANGE_DB)
        return relative, grown[:, :, -1]

    def network_gain(
        self,
        relative_db: Tensor,
        past: tuple[Tensor, ...],
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Gain and departure [batch, 2 row, frame] in dB, and what to look back on next.

        The gain is beyond the static one.

        A generator turns dropout on.
        """
        seen = (relative_db - self.row_mean[:, None]) / _SCALE_DB
        hidden = nn.functional.gelu(self.first(seen))
        kept = []
        for layer, before in zip(self.middle, past, strict=True):
            known = torch.cat([before, self._apply_dropout(hidden, generator)], dim=2)
            kept.append(known[:, :, known.shape[2] - before.shape[2] :])
            hidden = hidden + nn.functional.gelu(layer(known))
        gain: Tensor = self.last(self._apply_dropout(hidden, generator))
        return gain * _GAIN_DB, tuple(kept)

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, weights in half precision, to be stored."""
        weights = dict(self.named_parameters())
        return {k: v.half() if k in weights else v for k, v in self.state_dict().items()}

    @classmethod
    def from_tensors(
        cls, named: Mapping[str, Tensor], settings: PredictorSettings, hop_ms: float
    ) -> "Predictor":
        """Inverse of `tensors`; KeyError or RuntimeError where they do not fit."""
        predictor = cls(named["row_mean"].shape[0], settings, hop_ms, torch.Generator())
        predictor.load_state_dict({k: v.float() for k, v in named.items()})
        return predictor.requires_grad_(False).eval()

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())

    def _apply_dropout(self, hidden: Tensor, generator: torch.Generator | None) -> Tensor:
        dropout = self.settings.dropout
        if generator is None or dropout == 0:
            return hidden
        return hidden * (torch.rand(hidden.shape, generator=generator) >= dropout) / (1 - dropout)


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
        return audible_frames(self.rows_db, range_db=50.0)


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
    wanted = [torch.cat([lesson.mask_db - static_db[:, None], lesson.departure_db]) for lesson in examples]
    optimiser = torch.optim.AdamW(predictor.parameters(), lr=settings.learning_rate, weight_decay=1e-2)
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
        (predictor.predict(lesson.rows_db).mask_db - lesson.mask_db)[:, lesson.audible] for lesson in examples
    ]
    return float(torch.cat(missed, dim=1).square().mean().sqrt())


def _added_loudness(predictor: Predictor, example: DistillationExample, row_hz: FloatArray) -> Tensor:
    mask = predictor.predict(example.rows_db).mask_db.numpy()
    return torch.tensor(
        [added_loudness_db(example.rows_db.numpy(), amount * mask, row_hz) for amount in LOUDNESS_AMOUNTS]
    )
