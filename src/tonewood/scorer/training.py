"""Training of scorer and judge on two folders.

With graded targets the scorer says how far a crop is from the reference (see `graded_crops`). With the
labels alone, as in the paper, crops get random smooth masks and tilts, so that it ignores such changes.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.dsp.chunking import ArrayTimeSeries, TimeSeries, read_segments, split_segments
from tonewood.dsp.features import frame_levels, mean_power_db
from tonewood.scorer.graded_crops import MIN_CROPS, GradedCrops, GradedCropSource, WayPair
from tonewood.scorer.network import Scorer, score_windows
from tonewood.scorer.training_loop import TrainingRun, TrainingState, start_run
from tonewood.settings import ScorerSettings, SpectrumSettings, TrainingSettings
from tonewood.stats.classification import balanced_accuracy
from tonewood.utils.arrays import FloatArray, Levels, TakeWeights, interpolate_noise, weighted_mean

_VALIDATION_WINDOWS = 400  # per side: enough for early stopping
_VALIDATION_CROPS = 200
_TYPICAL_LOGIT = 2.94  # of the score 0.95; that of 0.05 is its negative
_MAX_STRETCH = 2.0

Scores = NDArray[np.float32]
"""Scores [window] in (0, 1)."""


@dataclass(frozen=True)
class LabelledTakes:
    """Levels of both folders' takes, and ways between them."""

    # [row, frame]: levels of the takes, dB
    reference: Sequence[Levels]
    source: Sequence[Levels]
    take_weights: TakeWeights = None  # of the reference takes
    pairs: Sequence[WayPair] = ()  # empty if only the labels are known


@dataclass(frozen=True)
class ValidationCheck:
    """Result on held-out takes during training; `run` can be saved and resumed."""

    step: int
    steps: int
    loss: float
    accuracy: float
    held_out_loss: float
    run: TrainingRun | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class TrainedScorer:
    """A trained scorer of arrays, and its results on held-out takes."""

    scorer: Scorer
    accuracy: float
    interval: tuple[float, float]  # 95 % of the accuracy, each take one observation
    windows: int
    takes: int
    calibration: "Calibration"
    reference_scores: Scores
    source_scores: Scores
    steps: int
    seconds: float


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error (Guo et al. 2017), and its bins."""

    error: float
    mean_score: tuple[float, ...]
    share_source: tuple[float, ...]
    count: tuple[int, ...]


def train_scorer(
    train: LabelledTakes,
    held_out: LabelledTakes,
    settings: ScorerSettings,
    spectrum: SpectrumSettings,
    training: TrainingSettings,
    *,
    seed: int,
    device: str = "cpu",
    state: TrainingState | None = None,
) -> Iterator[ValidationCheck | TrainedScorer]:
    """Train a scorer; yields a `ValidationCheck` at intervals and the `TrainedScorer` at the end.

    The loss is the squared error to target scores: those of `graded_crops` if the takes have pairs and
    `training.targets` is "graded", else 0 (reference) and 1 (source), as in the paper. The weights with
    the smallest held-out loss are returned.

    Parameters
    ----------
    train, held_out : LabelledTakes
        Without takes in common.
    seed : int
        Of weights, crops, augmentation and dropout.
    device : str
        Device of the training.
    state : TrainingState, optional
        Of a `ValidationCheck.run`, to resume; all other arguments must be the same.
    """
    start_time = time.perf_counter()
    row_mean = partial(_folders_row_mean, train)
    run = start_run(settings, spectrum, training, row_mean, seed=seed, device=device, state=state)
    scorer = run.scorer
    is_graded = training.targets == "graded" and bool(train.pairs)
    if is_graded:
        crops = graded_crop_source(train, scorer, run.generator, seed)
        count = max(2 * run.local_batch, MIN_CROPS)
        draw_loss = partial(_graded_loss, scorer, crops, count, run.generator, device)
    else:
        draw_loss = partial(label_loss, scorer, train, run.local_batch, training, run.generator, device)
    validation = _validation_excerpts(held_out, scorer.crop_frames)
    graded_validation = _graded_validation(held_out, scorer, seed) if is_graded else None
    for loss in run.iterate_checks(draw_loss):
        reference, source = map(np.concatenate, _score_takes(scorer.as_arrays(), validation))
        validation_loss = euclidean_loss(reference, source)
        if graded_validation is not None:
            validation_loss += _graded_error(scorer, graded_validation, None, device).item()
        run.record_validation(validation_loss)
        accuracy = _window_accuracy(reference, source)
        yield ValidationCheck(run.step, training.steps, loss, accuracy, validation_loss, run)
    run.load_best()
    trained = scorer.as_arrays()
    if is_graded:
        trained = stretch_scores(trained, held_out)
    yield evaluate_scorer(trained, held_out, run.step, time.perf_counter() - start_time)


def label_loss(
    scorer: Scorer,
    takes: LabelledTakes,
    batch: int,
    training: TrainingSettings,
    generator: torch.Generator,
    device: str,
) -> Tensor:
    """Return the squared error to the labels 0 and 1 of `batch` augmented crops of each side."""
    crops = torch.cat(
        [
            draw_crops(side, batch, scorer.crop_frames, generator, weights)
            for side, weights in ((takes.reference, takes.take_weights), (takes.source, None))
        ]
    )
    crops = augment_crops(crops, training, generator).to(device)
    # One forward pass for both sides; batch statistics play no role without batch normalisation.
    score = torch.sigmoid(scorer.logit(crops, generator))
    target = torch.arange(2, device=device).repeat_interleave(batch)
    return (score - target).square().mean()


def graded_crop_source(
    takes: LabelledTakes, scorer: Scorer, generator: torch.Generator, seed: int
) -> GradedCropSource:
    """Return the source of a scorer's graded crops."""
    frames = scorer.crop_frames
    return GradedCropSource(
        draw_reference=lambda n: draw_crops(takes.reference, n, frames, generator, takes.take_weights),
        draw_source=lambda n: draw_crops(takes.source, n, frames, generator),
        pairs=takes.pairs,
        bands=scorer.settings.bands,
        spectrum=scorer.spectrum,
        frames=frames,
        generator=generator,
        seed=seed,
    )


def _graded_loss(
    scorer: Scorer, source: GradedCropSource, count: int, generator: torch.Generator, device: str
) -> Tensor:
    """Return the squared error of `count` graded crops to their targets."""
    return _graded_error(scorer, source.draw(count), generator, device)


def _graded_error(
    scorer: Scorer, crops: GradedCrops, generator: torch.Generator | None, device: str
) -> Tensor:
    score = torch.sigmoid(scorer.logit(crops.rows_db.to(device), generator))
    return (score - crops.target.to(device)).square().mean()


def _graded_validation(held_out: LabelledTakes, scorer: Scorer, seed: int) -> GradedCrops | None:
    """Draw the crops that measure graded scores during training; None without held-out pairs."""
    if not held_out.pairs:
        return None
    # A generator of its own, so that every check sees the same crops, of a resumed training too.
    generator = torch.Generator().manual_seed(seed)
    return graded_crop_source(held_out, scorer, generator, seed).draw(_VALIDATION_CROPS)


def stretch_scores(scorer: Scorer, held_out: LabelledTakes) -> Scorer:
    """Scale and shift the logits, so that typical held-out takes score near 0 and 1.

    A regression on noisy inputs draws its results towards the mean (regression dilution). Two constants
    undo this, as in the calibration of Platt (1999); the order of windows does not change.
    """
    reference, source = (
        float(np.median(_logits(np.concatenate(side)))) for side in _score_takes(scorer, held_out)
    )
    if source <= reference:  # nothing was learnt
        return scorer
    # Folders that are hardly told apart would need a large factor, which would only scale up noise.
    slope = min(max(2 * _TYPICAL_LOGIT / (source - reference), 1.0), _MAX_STRETCH)
    shift = -slope * (source + reference) / 2
    linear = {
        "linear.weight": scorer.weights["linear.weight"] * np.float32(slope),
        "linear.bias": scorer.weights["linear.bias"] * np.float32(slope) + np.float32(shift),
    }
    return Scorer(scorer.settings, scorer.spectrum, scorer.weights | linear)


def _logits(scores: Scores) -> FloatArray:
    probability = scores.astype(np.float64).clip(1e-6, 1 - 1e-6)
    logits: FloatArray = np.log(probability / (1 - probability))
    return logits


def evaluate_scorer(scorer: Scorer, held_out: LabelledTakes, steps: int, seconds: float) -> TrainedScorer:
    """Measure a trained scorer of arrays on held-out takes."""
    scores = _score_takes(scorer, held_out)
    reference, source = map(np.concatenate, scores)
    accuracy = _window_accuracy(reference, source)
    return TrainedScorer(
        scorer=scorer,
        accuracy=accuracy,
        interval=_accuracy_interval(accuracy, *scores),
        windows=len(reference) + len(source),
        takes=len(scores[0]) + len(scores[1]),
        calibration=measure_calibration(reference, source),
        reference_scores=reference,
        source_scores=source,
        steps=steps,
        seconds=seconds,
    )


def draw_crops(
    takes: Sequence[Levels],
    count: int,
    frames: int,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> Tensor:
    """Draw crops [count, row, frames]; all frames are equally likely, but for their takes' weights.

    Takes that are shorter than a crop are repeated.
    """
    # Probability by the number of possible starts, so that all crops are equally likely.
    lengths = torch.tensor([float(max(1, take.shape[-1] - frames + 1)) for take in takes])
    if take_weights is not None:
        lengths = lengths * torch.tensor(take_weights)
    indices = torch.multinomial(lengths, count, replacement=True, generator=generator)
    crops = []
    for index in indices.tolist():
        take = takes[index]
        if take.shape[-1] < frames:
            take = np.tile(take, -(-frames // take.shape[-1]))
        start = int(torch.randint(take.shape[-1] - frames + 1, (1,), generator=generator))
        crops.append(take[:, start : start + frames])
    return torch.from_numpy(np.stack(crops))


def augment_crops(crops: Tensor, training: TrainingSettings, generator: torch.Generator) -> Tensor:
    """Add random tilts and smooth masks to crops [batch, row, frame] in dB."""
    batch, rows, frames = crops.shape
    slope = torch.linspace(-1, 1, rows).to(crops)[None, :, None]
    tilt = torch.randn(batch, 1, 1, generator=generator).to(crops) * training.tilt_db * slope
    # Cells of the coarse grid have about 6 rows by 30 frames.
    points = max(2, rows // 6), max(2, frames // 30)
    mask = interpolate_noise(batch, points, (rows, frames), generator).to(crops)
    strength = torch.rand(batch, 1, 1, generator=generator).to(crops) * training.mask_db
    return crops + tilt + strength * mask


def euclidean_loss(reference: Scores, source: Scores) -> float:
    """Return the paper's loss of scores [window], both sides weighted equally."""
    return 0.5 * float(np.square(reference).mean() + np.square(1 - source).mean())


def measure_calibration(reference: Scores, source: Scores) -> Calibration:
    """Compare scores with the share of source windows among those that have them."""
    score = np.concatenate([reference, source])
    label = np.repeat([0.0, 1.0], [len(reference), len(source)])
    index = (score * 10).astype(np.int64).clip(max=9)  # ten bins; a score of 1 belongs to the last
    used = [index == b for b in np.unique(index)]
    mean = [float(score[m].mean()) for m in used]
    share = [float(label[m].mean()) for m in used]
    count = [int(m.sum()) for m in used]
    gap = sum(c * abs(a - b) for c, a, b in zip(count, mean, share, strict=True))
    return Calibration(gap / len(score), tuple(mean), tuple(share), tuple(count))


def _validation_excerpts(held_out: LabelledTakes, frames: int) -> LabelledTakes:
    """Return takes for early stopping: the middles of all takes, if they are long."""
    sides = []
    for side in (held_out.reference, held_out.source):
        ratio = _VALIDATION_WINDOWS * frames / sum(take.shape[1] for take in side)
        middles = []
        for take in side:
            length = take.shape[1] if ratio >= 1 else max(frames, round(ratio * take.shape[1]))
            start = max(0, (take.shape[1] - length) // 2)
            middles.append(take[:, start : start + length])
        sides.append(middles)
    return LabelledTakes(sides[0], sides[1], held_out.take_weights)


def _score_takes(scorer: Scorer, held_out: LabelledTakes) -> tuple[list[Scores], list[Scores]]:
    """Return the scores [window] of every take of both sides."""
    reference, source = (
        [score_windows(scorer, take) for take in side] for side in (held_out.reference, held_out.source)
    )
    return reference, source


def _accuracy_interval(
    accuracy: float, reference: Sequence[Scores], source: Sequence[Scores]
) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy, each take one observation."""
    shares = [float((take < 0.5).mean()) for take in reference]
    shares += [float((take >= 0.5).mean()) for take in source]
    interval = balanced_accuracy(np.array(shares), np.arange(len(shares)) >= len(reference))
    # The accuracy counts windows, the interval takes; it must contain the accuracy.
    return min(interval.low, accuracy), max(interval.high, accuracy)


def _window_accuracy(reference: Scores, source: Scores) -> float:
    """Return the balanced accuracy, independent of how long each folder is."""
    return 0.5 * float((reference < 0.5).mean() + (source >= 0.5).mean())


def _folders_row_mean(takes: LabelledTakes, scorer: Scorer) -> NDArray[np.float32]:
    """Return the mean relative level of each row [row], both folders weighted equally."""
    means = []
    for side, weights in ((takes.reference, takes.take_weights), (takes.source, None)):
        relative = (chunk for take in side for chunk in _relative_chunks(scorer, ArrayTimeSeries(take)))
        weighted = zip(side, weights or repeat(1.0), strict=False)
        chunk_weights = [weight for take, weight in weighted for _ in split_segments(take.shape[1])]
        means.append(weighted_mean(relative, chunk_weights))
    mean: NDArray[np.float32] = np.stack(means).mean(axis=0)
    return mean


def _relative_chunks(scorer: Scorer, rows_db: TimeSeries) -> Iterator[Levels]:
    """Return rows relative to their recording's level in dB, chunk by chunk."""
    # Level of the whole take first: the chunks must not be normalised one by one.
    loud_row = scorer.weights["loud_row"][:, None]
    level = mean_power_db(np.concatenate([frame_levels(x + loud_row) for x in read_segments(rows_db)]))
    return ((chunk - level).clip(-scorer.settings.range_db) for chunk in read_segments(rows_db))
