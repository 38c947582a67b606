"""Train the networks that predict a mask: the mask network on pseudo-pairs, and the predictor.

*Forward* pairs are a source take and the neighbours' mask for it: a true input with an approximate
target. *Backward* pairs are pseudo-source made of a reference take, and the mask that undoes it: an
approximate input with a true target (back-translation, Sennrich et al. 2016). Their errors differ, so
one mask network is trained on each. The inputs have the whole way to go, a part of it, or none, so the
network leaves a reference take alone.

The predictor is distilled (Hinton, Vinyals & Dean 2015) from masks of prior and search, which needs no
pairs. The frozen guide takes part in the loss, so that the predictor need not repeat the search's errors.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tonewood.dsp.features import audible_frames
from tonewood.mask.render import added_loudness_db
from tonewood.priors.nearest_neighbours import FolderStatistics, PriorFeatures
from tonewood.priors.predictor import (
    FEATURE_SCALE_DB,
    LOUDNESS_AMOUNTS,
    MaskNetwork,
    Predictor,
    mask_network_shapes,
    predictor_shapes,
)
from tonewood.settings import NetworkSettings, PredictorSettings
from tonewood.utils.arrays import FloatArray, Levels, TakeWeights, sample_takes
from tonewood.utils.layers import Network
from tonewood.utils.parallel import raise_if_closed

EnergyFunction = Callable[[Tensor], Tensor]
"""Maps levels [batch, row, frame] in dB to energies [batch] in dB², sums over cells."""

_NONE_SHARE, _ALL_SHARE = 0.35, 0.3  # of the training inputs; the rest has a part of the mask
_ERROR_FLOOR_DB2 = 0.25  # keeps the gradient of an RMS error finite where the error vanishes


class PseudoPair(NamedTuple):
    """An input, and its target mask [row, frame] relative to the static one."""

    features: PriorFeatures
    gain_db: Levels


class DistillationExample(NamedTuple):
    """Levels of a recording, the mask found by a search, and its difference from the prior.

    All are arrays [row, frame] in dB.
    """

    rows_db: Levels
    mask_db: Levels
    departure_db: Levels

    @property
    def audible(self) -> NDArray[np.bool_]:
        """Mark the frames [frame] within 50 dB of the loudest."""
        return audible_frames(self.rows_db, range_db=50.0)


# --- Steps of the training


class OneCycleOptimiser:
    """AdamW with a one-cycle learning rate (Smith & Topin 2019) and gradients clipped to norm 1."""

    def __init__(self, network: Network, learning_rate: float, steps: int) -> None:
        self._weights = [weight.requires_grad_() for weight in network.trained_weights()]
        self._optimiser = torch.optim.AdamW(self._weights, lr=learning_rate, weight_decay=1e-2)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, learning_rate, total_steps=steps, pct_start=0.1
        )

    def step(self, loss: Tensor) -> None:
        """Descend along the gradient of a loss."""
        raise_if_closed()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimiser.step()
        self._schedule.step()


def draw_initial_weights(
    shapes: Mapping[str, tuple[int, ...]], generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw the weights of all layers but the last, which starts at zero: the static mask."""
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, weight in weights.items():
        if name.endswith(".weight") and name != "last.weight":
            nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)
    return weights


class CropBatch(NamedTuple):
    """Random crops of recordings: inputs and targets [batch, row, frame], audible frames [batch, frame]."""

    inputs: Tensor
    targets: Tensor
    audible: Tensor


class _CropSource(NamedTuple):
    """Recordings to draw crops from, all of `frames`, so that a batch is one tensor."""

    recordings: list[CropBatch]  # of one recording each, without the axis `batch`
    frames: int
    weights: TakeWeights

    @classmethod
    def from_arrays(
        cls,
        arrays: Iterable[tuple[FloatArray, FloatArray, NDArray[np.bool_]]],
        frames: int,
        weights: TakeWeights = None,
    ) -> "_CropSource":
        """Take inputs, targets and audible frames; the shortest recording limits the crop."""
        recordings = [CropBatch(*(torch.from_numpy(array) for array in each)) for each in arrays]
        shortest = min(recording.targets.shape[1] for recording in recordings)
        return cls(recordings, min(frames, shortest), weights)

    def draw(self, count: int, generator: torch.Generator) -> CropBatch:
        """Cut crops at random from recordings drawn with replacement."""
        lengths = [recording.targets.shape[1] for recording in self.recordings]
        crops = []
        for index in sample_takes(lengths, count, generator, self.weights):
            last = lengths[index] - self.frames
            start = int(torch.randint(last + 1, (1,), generator=generator))
            crops.append([x[..., start : start + self.frames] for x in self.recordings[index]])
        return CropBatch(*map(torch.stack, zip(*crops, strict=True)))


def _rms_loss(error_db: Tensor, audible: Tensor, parts: int = 1) -> Tensor:
    """Return the mean over audible frames of the RMS over rows of errors [batch, row, frame] in dB.

    The rows are those of `parts` masks, whose RMS values are added.
    """
    squares = error_db.square().chunk(parts, dim=1)
    rms = sum((square.mean(dim=1) + _ERROR_FLOOR_DB2).sqrt() for square in squares)
    weight = audible.float()
    return (rms * weight).sum() / weight.sum().clamp_min(1)


# --- Mask network


def train_mask_network(
    pairs: Sequence[PseudoPair],
    folders: tuple[FolderStatistics, FolderStatistics],
    static_db: NDArray[np.float32],
    settings: NetworkSettings,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> MaskNetwork:
    """Train a network on pseudo-pairs, to predict what is left of a mask of which a part was applied.

    The loss is the mean over audible frames of the RMS error over rows.

    Parameters
    ----------
    folders : (FolderStatistics, FolderStatistics)
        Target and origin of the pairs.
    static_db : array [row]
        Static mask, which the gains of the pairs are relative to.
    """
    network = _initial_mask_network(pairs[0].features, folders, settings, generator)
    arrays = network.as_arrays()
    crops = _CropSource.from_arrays(
        ((arrays.inputs(pair.features), pair.gain_db, pair.features.audible) for pair in pairs),
        settings.crop_frames,
        take_weights,
    )
    shift, static = _fine_shift(folders, network), torch.from_numpy(static_db)[:, None]
    optimiser = OneCycleOptimiser(network, settings.learning_rate, settings.steps)
    for _ in range(settings.steps):
        batch = crops.draw(settings.batch, generator)
        applied = _draw_applied_shares(settings.batch, generator)
        mask_db = static + batch.targets
        rows, fine = batch.inputs[:, : len(static)], batch.inputs[:, len(static) :]
        rows = rows + applied * mask_db / FEATURE_SCALE_DB
        fine = fine + torch.rand(settings.batch, 1, 1, generator=generator) * shift
        gain = network(torch.cat([rows, fine], dim=1), generator)
        optimiser.step(_rms_loss(gain - ((1 - applied) * mask_db - static), batch.audible))
    return network.as_arrays()


def _initial_mask_network(
    take: PriorFeatures,
    folders: tuple[FolderStatistics, FolderStatistics],
    settings: NetworkSettings,
    generator: torch.Generator,
) -> MaskNetwork:
    """Return an untrained network of tensors, for takes with the rows and components of `take`."""
    target, origin = folders
    rows = len(take.rows_db)
    weights = draw_initial_weights(mask_network_shapes(rows, len(take.fine), settings), generator)
    weights["row_mean"] = torch.from_numpy((target.row_mean + origin.row_mean) / 2)
    weights["fine_scale"] = torch.tensor(2 * origin.fine_spread)
    return MaskNetwork(settings, weights)


def _fine_shift(folders: tuple[FolderStatistics, FolderStatistics], network: MaskNetwork) -> Tensor:
    """Return the offset [component, 1] of the target's pitch spectra in the network's inputs."""
    # Pitch spectra are relative to the origin's mean, so those of the target's takes are off by this.
    target, origin = folders
    shift = torch.from_numpy(origin.projection.T @ (target.fine_mean - origin.fine_mean))
    scaled: Tensor = shift[:, None] / network.weights["fine_scale"]
    return scaled


def _draw_applied_shares(count: int, generator: torch.Generator) -> Tensor:
    """Draw the share [count, 1, 1] of its mask that an input has already: none, a part, or all."""
    kind, part = torch.rand(2, count, 1, 1, generator=generator)
    return torch.where(kind < _NONE_SHARE, 0.0, torch.where(kind < 1 - _ALL_SHARE, part, 1.0))


# --- Predictor


def train_predictor(
    examples: Sequence[DistillationExample],
    static_db: NDArray[np.float32],
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
    static_db : array [row]
        Mask before training, and of silence.
    energy : callable, optional
        Of the guide.
    row_hz : float64 array (row,)
        Centre frequencies.
    """
    network = _initial_predictor(static_db, settings, hop_ms, generator)
    crops = _relative_crops(network, examples, static_db)
    past = tuple(map(torch.from_numpy, network.initial_past(settings.batch)))
    optimiser = OneCycleOptimiser(network, settings.learning_rate, settings.steps)
    for _ in range(settings.steps):
        batch = crops.draw(settings.batch, generator)
        level = torch.randn(settings.batch, 1, 1, generator=generator) * settings.level_db
        gain, _ = network.network_gain(batch.inputs + level, past, generator)
        optimiser.step(_predictor_loss(gain, batch, network, energy))
    predictor = network.as_arrays()
    added = [_added_loudness(predictor, example, row_hz) for example in examples]
    predictor.weights["loudness_db"] = np.mean(added, axis=0, dtype=np.float32)
    return predictor


def _initial_predictor(
    static_db: NDArray[np.float32], settings: PredictorSettings, hop_ms: float, generator: torch.Generator
) -> Predictor:
    """Return an untrained predictor of tensors."""
    weights = draw_initial_weights(predictor_shapes(len(static_db), settings), generator)
    weights["static_db"] = torch.from_numpy(static_db.copy())
    return Predictor(settings, hop_ms, weights)


def _relative_crops(
    network: Predictor, examples: Sequence[DistillationExample], static_db: NDArray[np.float32]
) -> _CropSource:
    """Return levels relative to the running level with their targets, and set the network's mean row."""
    # Inputs relative to the running level do not depend on the weights: computed once.
    sums = network.initial_state().sums
    inputs = [network.relative_levels(example.rows_db[None], sums)[0][0] for example in examples]
    audible = [example.audible for example in examples]
    audible_rows = [rows_db[:, frames] for rows_db, frames in zip(inputs, audible, strict=True)]
    network.weights["row_mean"] = torch.from_numpy(np.concatenate(audible_rows, axis=1).mean(axis=1))
    targets = [
        np.concatenate([example.mask_db - static_db[:, None], example.departure_db]) for example in examples
    ]
    return _CropSource.from_arrays(zip(inputs, targets, audible, strict=True), network.settings.crop_frames)


def _predictor_loss(
    gain_db: Tensor, batch: CropBatch, network: Predictor, energy: EnergyFunction | None
) -> Tensor:
    """Return the loss of gains and departures [batch, 2 row, frame] in dB."""
    settings, static_db = network.settings, network.weights["static_db"]
    ahead, frames = settings.lookahead, gain_db.shape[2]
    # The result at frame t + lookahead belongs to frame t.
    gain_db = gain_db[:, :, ahead:]
    rows_db, target, audible = (values[..., : frames - ahead] for values in batch)
    loss = _rms_loss(gain_db - target, audible, parts=2)
    if energy is None or not settings.guide:
        return loss
    corrected = rows_db + static_db[:, None] + gain_db[:, : len(static_db)]
    penalty: Tensor = settings.guide * energy(corrected).sum() / corrected.numel()
    return loss + penalty


def prediction_error_db(predictor: Predictor, examples: Sequence[DistillationExample]) -> float:
    """Return the RMS error in dB over the audible frames of all examples."""
    errors = [
        (predictor.predict(example.rows_db).mask_db - example.mask_db)[:, example.audible]
        for example in examples
    ]
    return float(np.sqrt(np.square(np.concatenate(errors, axis=1)).mean()))


def _added_loudness(predictor: Predictor, example: DistillationExample, row_hz: FloatArray) -> list[float]:
    mask = predictor.predict(example.rows_db).mask_db
    return [added_loudness_db(example.rows_db, amount * mask, row_hz) for amount in LOUDNESS_AMOUNTS]
