"""Networks that predict a mask: the mask network from pseudo-pairs, and the causal predictor.

The mask network maps a recording's features to the mask that it still needs. *Forward* pairs are a source
take and the neighbours' mask for it: a true input with an approximate target. *Backward* pairs are
pseudo-source made of a reference take, and the mask that undoes it: an approximate input with a true
target (back-translation, Sennrich et al. 2016). Their errors differ, so one network is trained on each.
The inputs have the whole way to go, a part of it, or none, so the network leaves a reference take alone.

The predictor serves files and streams in one pass, since its convolutions look back only. It is distilled
(Hinton, Vinyals & Dean 2015) from masks of prior and search, which needs no pairs. The frozen guide takes
part in the loss, so that the predictor need not repeat the search's errors.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from tonewood.dsp.features import audible_frames, frame_levels
from tonewood.mask.render import added_loudness_db
from tonewood.priors.nearest_neighbours import FolderStatistics, PriorFeatures
from tonewood.scorer.network import apply_dropout
from tonewood.settings import NetworkSettings, PredictorSettings
from tonewood.stats.sampling import TakeWeights, sample_takes
from tonewood.utils.arrays import FloatArray

EnergyFunction = Callable[[Tensor], Tensor]
"""Maps levels [batch, row, frame] in dB to energies [batch] in dB², sums over cells."""

LOUDNESS_AMOUNTS = (0.5, 1.0)  # at which `Predictor.loudness_db` is measured
# Factors that bring gains, and the inputs of either network, to about unit spread.
_GAIN_SCALE_DB, _FEATURE_SCALE_DB, _LEVEL_SCALE_DB = 8.0, 10.0, 15.0
_NONE_SHARE, _ALL_SHARE = 0.35, 0.3  # of the training inputs; the rest has a part of the mask
_ERROR_FLOOR_DB2 = 0.25  # keeps the gradient of an RMS error finite where the error vanishes
_RANGE_DB = 75.0
# As `activity_from_level`, relative to the running level instead of the loudest frame.
_INACTIVE_DB, _FADE_DB = 55.0, 15.0
_CHUNK_FRAMES = 4_096  # bounds the exponents of `relative_levels`


class PseudoPair(NamedTuple):
    """An input, and its target mask [row, frame] relative to the static one."""

    features: PriorFeatures
    gain_db: Tensor


class MaskNetwork(nn.Module):
    """Residual convolutions over frames, from features [row + component] to gains [row]."""

    def __init__(
        self, rows: int, components: int, settings: NetworkSettings, generator: torch.Generator
    ) -> None:
        super().__init__()
        width, kernel = settings.width, settings.kernel
        self.dropout = settings.dropout
        self.register_buffer("row_mean", torch.zeros(rows))
        self.register_buffer("fine_scale", torch.ones(()))
        self.row_mean: Tensor
        self.fine_scale: Tensor
        with torch.random.fork_rng(devices=[]):  # nn.Conv1d draws weights that are replaced
            self.first = nn.Conv1d(rows + components, width, 1)
            self.middle = nn.ModuleList(
                nn.Conv1d(width, width, kernel, padding=kernel // 2) for _ in range(2)
            )
            self.last = nn.Conv1d(width, rows, 1)
        initialize_layers([self.first, *self.middle], self.last, generator)

    def forward(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return gains [batch, row, frame] in dB relative to the static mask; a generator enables dropout."""
        hidden = nn.functional.gelu(self.first(inputs))
        for layer in self.middle:
            hidden = hidden + nn.functional.gelu(layer(apply_dropout(hidden, self.dropout, generator)))
        gain: Tensor = self.last(apply_dropout(hidden, self.dropout, generator))
        return gain * _GAIN_SCALE_DB

    def inputs(self, take: PriorFeatures) -> Tensor:
        """Return the network's input [row + component, frame]."""
        rows = (take.rows_db - self.row_mean[:, None]) / _FEATURE_SCALE_DB
        return torch.cat([rows, take.fine / self.fine_scale])

    def predict_gain(self, take: PriorFeatures) -> Tensor:
        """Return the gain [row, frame] in dB relative to the static mask."""
        with torch.no_grad():
            return self(self.inputs(take)[None])[0]  # type: ignore[no-any-return]


def initialize_layers(layers: Iterable[nn.Module], last: nn.Conv1d, generator: torch.Generator) -> None:
    """Draw the weights of all layers but the last, which starts at zero: the static mask."""
    for layer in layers:
        assert isinstance(layer, nn.Conv1d)
        assert layer.bias is not None
        nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
        nn.init.zeros_(layer.bias)
    assert last.bias is not None
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


class StreamState(NamedTuple):
    """State of a predictor between two chunks.

    Parameters
    ----------
    sums : float64 Tensor [batch, 2]
        Leaky sums of squared power and of power over the frames so far.
    past : tuple of Tensor [batch, channel, frame]
        Last inputs of each convolution.
    """

    sums: Tensor
    past: tuple[Tensor, ...]


class Prediction(NamedTuple):
    """Predicted result of a search [..., row, frame] in dB, and its difference from the prior."""

    mask_db: Tensor
    departure_db: Tensor


class Predictor(nn.Module):
    """Causal network from levels to a mask, `settings.lookahead` frames later."""

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
        self.loudness_db: Tensor  # mean loudness that masks add to source takes
        # Per frame; e^-decay_rate of the sums is left after one.
        self.decay_rate = hop_ms / (1000 * settings.level_seconds)
        width = settings.width
        with torch.random.fork_rng(devices=[]):  # nn.Conv1d draws weights that are replaced
            self.first = nn.Conv1d(rows, width, 1)
            self.middle = nn.ModuleList(
                nn.Conv1d(width, width, settings.kernel, dilation=2**i) for i in range(settings.depth)
            )
            self.last = nn.Conv1d(width, 2 * rows, 1)  # mask, departure
        initialize_layers([self.first, *self.middle], self.last, generator)

    def initial_state(self, batch: int = 1) -> StreamState:
        """Return the state before the first frame."""
        reach = self.settings.kernel - 1
        # A causal convolution with dilation 2^i looks back (kernel - 1) · 2^i frames.
        past = tuple(
            self.row_mean.new_zeros(batch, self.settings.width, reach * 2**i)
            for i in range(self.settings.depth)
        )
        return StreamState(self.row_mean.new_zeros(batch, 2, dtype=torch.float64), past)

    def forward(self, rows_db: Tensor, state: StreamState) -> tuple[Prediction, StreamState]:
        """Predict from levels [batch, row, frame] in dB; the result lags by `lookahead` frames.

        The returned state belongs to the next frames.
        """
        relative, sums = self.relative_levels(rows_db, state.sums)
        gain, past = self.network_gain(relative, state.past)
        # Silence gives nothing to adapt to, and background noise must not be modulated.
        activity = ((frame_levels(relative) + _INACTIVE_DB) / _FADE_DB).clamp(0, 1)
        mask, departure = (activity[:, None] * gain).chunk(2, dim=1)
        return Prediction(self.static_db[:, None] + mask, departure), StreamState(sums, past)

    def predict(self, rows_db: Tensor) -> Prediction:
        """Predict for a whole recording [row, frame] in dB."""
        chunks = list(self.predict_chunks(torch.split(rows_db, _CHUNK_FRAMES, dim=1)))
        return Prediction(*(torch.cat(part, dim=1) for part in zip(*chunks, strict=True)))

    def predict_chunks(self, chunks: Iterable[Tensor]) -> Iterator[Prediction]:
        """Predict along a recording in chunks [row, frame] in dB, each much shorter than an hour.

        The last frame is repeated at the end, to make up for the lookahead.
        """
        state, skip, last = self.initial_state(), self.settings.lookahead, None
        for chunk in chunks:
            last = chunk[:, -1:]
            prediction, state = self._predict_chunk(chunk, state)
            yield Prediction(*(values[:, skip:] for values in prediction))
            skip = max(0, skip - chunk.shape[1])  # the first `lookahead` results precede the recording
        if last is not None and self.settings.lookahead:
            prediction, _ = self._predict_chunk(last.expand(-1, self.settings.lookahead), state)
            yield Prediction(*(values[:, skip:] for values in prediction))

    @torch.no_grad()
    def _predict_chunk(self, rows_db: Tensor, state: StreamState) -> tuple[Prediction, StreamState]:
        prediction, state = self(rows_db[None], state)
        return Prediction(*(values[0] for values in prediction)), state

    def relative_levels(self, rows_db: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Return levels [batch, row, frame] relative to the running level, dB, and the updated sums.

        The running level is a leaky mean of the power, weighted by the power itself: pauses do not
        lower it, and the first sound after silence sets it at once.
        """
        power = torch.pow(10.0, frame_levels(rows_db.double()) / 10)
        age = self.decay_rate * torch.arange(1, power.shape[1] + 1, device=power.device)
        # s(t) = Σ e^(u - t) x(u) = e^-t (s(0) + Σ e^u x(u)); chunks keep the exponents small.
        powers = torch.stack([power.square(), power], dim=1) * age.exp()
        leaky = (sums[:, :, None] + powers.cumsum(dim=2)) * (-age).exp()
        level = 10 * torch.log10(leaky[:, 0] / leaky[:, 1])
        relative = (rows_db - level[:, None].to(rows_db)).clamp_min(-_RANGE_DB)
        return relative, leaky[:, :, -1]

    def network_gain(
        self,
        relative_db: Tensor,
        past: tuple[Tensor, ...],
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return gain and departure [batch, 2 row, frame] in dB, and the convolutions' next past.

        The gain is relative to the static mask. A generator enables dropout.
        """
        scaled = (relative_db - self.row_mean[:, None]) / _LEVEL_SCALE_DB
        hidden = nn.functional.gelu(self.first(scaled))
        next_past = []
        for layer, before in zip(self.middle, past, strict=True):
            inputs = torch.cat([before, self._apply_dropout(hidden, generator)], dim=2)
            next_past.append(inputs[:, :, inputs.shape[2] - before.shape[2] :])
            hidden = hidden + nn.functional.gelu(layer(inputs))
        gain: Tensor = self.last(self._apply_dropout(hidden, generator))
        return gain * _GAIN_SCALE_DB, tuple(next_past)

    def tensors(self) -> dict[str, Tensor]:
        """Return all values by name, to be stored; weights in half precision."""
        weights = dict(self.named_parameters())
        return {k: v.half() if k in weights else v for k, v in self.state_dict().items()}

    @classmethod
    def from_tensors(cls, named: Mapping[str, Tensor], settings: PredictorSettings, hop_ms: float) -> Self:
        """Undo `tensors`; KeyError or RuntimeError if they do not match the settings."""
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
        # Not `apply_dropout`, with which the same seed would train other weights.
        return hidden * (torch.rand(hidden.shape, generator=generator) >= dropout) / (1 - dropout)


class DistillationExample(NamedTuple):
    """Levels of a recording, the mask found by a search, and its difference from the prior.

    All are Tensors [row, frame] in dB.
    """

    rows_db: Tensor
    mask_db: Tensor
    departure_db: Tensor

    @property
    def audible(self) -> Tensor:
        """Mark the frames [frame] within 50 dB of the loudest."""
        return audible_frames(self.rows_db, range_db=50.0)


class OneCycleOptimiser:
    """AdamW with a one-cycle learning rate (Smith & Topin 2019) and gradients clipped to norm 1."""

    def __init__(self, network: nn.Module, learning_rate: float, steps: int) -> None:
        self._network = network
        self._optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-2)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, learning_rate, total_steps=steps, pct_start=0.1
        )

    def step(self, loss: Tensor) -> None:
        """Descend along the gradient of a loss."""
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimiser.step()
        self._schedule.step()


class CropBatch(NamedTuple):
    """Random crops of recordings: inputs and targets [batch, row, frame], audible frames [batch, frame]."""

    inputs: Tensor
    targets: Tensor
    audible: Tensor


def _crop_batch(
    indices: Sequence[int],
    inputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    audible: Sequence[Tensor],
    frames: int,
    generator: torch.Generator,
) -> CropBatch:
    """Cut a crop of `frames` at random from each recording at `indices`."""
    crops = []
    for index in indices:
        last = targets[index].shape[1] - frames
        start = int(torch.randint(last + 1, (1,), generator=generator))
        window = slice(start, start + frames)
        crops.append((inputs[index][:, window], targets[index][:, window], audible[index][window]))
    return CropBatch(*map(torch.stack, zip(*crops, strict=True)))


def _rms_loss(error_db: Tensor, audible: Tensor, parts: int = 1) -> Tensor:
    """Return the mean over audible frames of the RMS over rows of errors [batch, row, frame] in dB.

    The rows are those of `parts` masks, whose RMS values are added.
    """
    squares = error_db.square().chunk(parts, dim=1)
    rms = sum((square.mean(dim=1) + _ERROR_FLOOR_DB2).sqrt() for square in squares)
    weight = audible.float()
    return (rms * weight).sum() / weight.sum().clamp_min(1)


def train_mask_network(
    pairs: Sequence[PseudoPair],
    folders: tuple[FolderStatistics, FolderStatistics],
    static_db: Tensor,
    settings: NetworkSettings,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> MaskNetwork:
    """Train a network on pseudo-pairs, of which a part of the mask is applied to the input.

    The loss is the mean over audible frames of the RMS error over rows, as in the cycle distance.

    Parameters
    ----------
    folders : (FolderStatistics, FolderStatistics)
        Target and origin of the pairs.
    static_db : Tensor [row]
        Static mask, which the gains of the pairs are relative to.
    """
    target_folder, origin = folders
    first = pairs[0].features
    network = MaskNetwork(first.rows_db.shape[0], first.fine.shape[0], settings, generator)
    network.row_mean.copy_((target_folder.row_mean + origin.row_mean) / 2)
    network.fine_scale.copy_(2 * origin.codebook.key[:, first.rows_db.shape[0] :].std())
    network.to(first.rows_db.device)
    optimiser = OneCycleOptimiser(network, settings.learning_rate, settings.steps)
    # Crops of equal length, so that a batch is one tensor; the shortest take limits it.
    crop = min([settings.crop_frames, *(pair.gain_db.shape[1] for pair in pairs)])
    inputs = [network.inputs(pair.features) for pair in pairs]
    targets, audible = [pair.gain_db for pair in pairs], [pair.features.audible for pair in pairs]
    lengths = [target.shape[1] for target in targets]
    # Pitch spectra are relative to the origin's mean, so those of reference takes are off by this.
    fine_shift = origin.projection.T @ (target_folder.fine_mean - origin.fine_mean) / network.fine_scale
    static = static_db[:, None]
    for _ in range(settings.steps):
        indices = sample_takes(lengths, settings.batch, generator, take_weights)
        batch = _crop_batch(indices, inputs, targets, audible, crop, generator)
        applied = _draw_applied_shares(settings.batch, generator)
        mask_db = static + batch.targets
        rows, fine = batch.inputs[:, : len(static)], batch.inputs[:, len(static) :]
        rows = rows + applied * mask_db / _FEATURE_SCALE_DB
        fine = fine + torch.rand(settings.batch, 1, 1, generator=generator) * fine_shift[:, None]
        gain = network(torch.cat([rows, fine], dim=1), generator)
        optimiser.step(_rms_loss(gain - ((1 - applied) * mask_db - static), batch.audible))
    return network.requires_grad_(False).eval()


def _draw_applied_shares(count: int, generator: torch.Generator) -> Tensor:
    """Draw the share [count, 1, 1] of its mask that an input has already: none, a part, or all."""
    kind, part = torch.rand(2, count, 1, 1, generator=generator)
    return torch.where(kind < _NONE_SHARE, 0.0, torch.where(kind < 1 - _ALL_SHARE, part, 1.0))


def train_predictor(
    examples: Sequence[DistillationExample],
    static_db: Tensor,
    energy: EnergyFunction | None,
    row_hz: FloatArray,
    settings: PredictorSettings,
    hop_ms: float,
    generator: torch.Generator,
) -> Predictor:
    """Train a predictor.

    The loss is the mean over audible frames of the RMS errors of mask and departure over rows, as in
    `train_mask_network`, plus the guide's energy of the corrected levels per cell.

    Parameters
    ----------
    static_db : Tensor [row]
        Mask before training, and of silence.
    energy : callable, optional
        Of the guide.
    row_hz : float64 array (row,)
        Centre frequencies.
    """
    rows = static_db.shape[0]
    predictor = Predictor(rows, settings, hop_ms, generator)
    predictor.static_db.copy_(static_db)
    # Inputs relative to the running level do not depend on the weights: computed once.
    sums = predictor.initial_state().sums
    inputs = [predictor.relative_levels(example.rows_db[None], sums)[0][0] for example in examples]
    audible = [example.audible for example in examples]
    audible_rows = [rows_db[:, frames] for rows_db, frames in zip(inputs, audible, strict=True)]
    predictor.row_mean.copy_(torch.cat(audible_rows, dim=1).mean(dim=1))
    targets = [
        torch.cat([example.mask_db - static_db[:, None], example.departure_db]) for example in examples
    ]
    optimiser = OneCycleOptimiser(predictor, settings.learning_rate, settings.steps)
    crop = min([settings.crop_frames, *(target.shape[1] for target in targets)])
    past, ahead = predictor.initial_state(settings.batch).past, settings.lookahead
    lengths = [target.shape[1] for target in targets]
    for _ in range(settings.steps):
        indices = sample_takes(lengths, settings.batch, generator)
        batch = _crop_batch(indices, inputs, targets, audible, crop, generator)
        level = torch.randn(settings.batch, 1, 1, generator=generator) * settings.level_db
        gain = predictor.network_gain(batch.inputs + level, past, generator)[0][:, :, ahead:]
        # The result at frame t + lookahead belongs to frame t.
        rows_db, target, sounding = (values[..., : crop - ahead] for values in batch)
        loss = _rms_loss(gain - target, sounding, parts=2)
        if energy is not None and settings.guide:
            corrected = rows_db + static_db[:, None] + gain[:, :rows]
            loss = loss + settings.guide * energy(corrected).sum() / corrected.numel()
        optimiser.step(loss)
    predictor.requires_grad_(False).eval()
    added = [_added_loudness(predictor, example, row_hz) for example in examples]
    predictor.loudness_db.copy_(torch.stack(added).mean(dim=0))
    return predictor


def prediction_error_db(predictor: Predictor, examples: Sequence[DistillationExample]) -> float:
    """Return the RMS error in dB over the audible frames of all examples."""
    errors = [
        (predictor.predict(example.rows_db).mask_db - example.mask_db)[:, example.audible]
        for example in examples
    ]
    return float(torch.cat(errors, dim=1).square().mean().sqrt())


def _added_loudness(predictor: Predictor, example: DistillationExample, row_hz: FloatArray) -> Tensor:
    mask = predictor.predict(example.rows_db).mask_db.numpy()
    return torch.tensor(
        [added_loudness_db(example.rows_db.numpy(), amount * mask, row_hz) for amount in LOUDNESS_AMOUNTS]
    )
