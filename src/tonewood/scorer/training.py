"""Training of scorer and judge: crops, augmentation, early stopping; yields its progress.

Both folders' crops get random smooth masks, tilts and levels, so that such changes alone decide
nothing and the gradient points somewhere meaningful where the optimiser will go.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from tonewood.dsp.chunking import TensorTimeSeries, TimeSeries, read_segments, split_segments
from tonewood.dsp.features import (
    WINDOW_BATCH,
    RowLevels,
    window_batches,
)
from tonewood.dsp.filterbank import AUDIBLE_RANGE_DB, frame_levels, is_audible, mean_power_db
from tonewood.scorer.network import Scorer
from tonewood.scorer.training_loop import TrainingRun, TrainingState
from tonewood.settings import ScorerSettings, SpectrumSettings, TrainingSettings
from tonewood.stats.classification import balanced_accuracy
from tonewood.stats.sampling import TakeWeights, weighted_mean
from tonewood.utils.parallel import parallel_map

"""One take's row levels [row, frame], dB."""

_VALIDATION_WINDOWS = 400  # windows of a side that are enough to see how training goes


@dataclass(frozen=True)
class LabelledTakes:
    """Row levels of both folders' takes; a split is one for training, one held out.

    `take_weights` are the reference takes'.
    """

    reference: Sequence[RowLevels]
    source: Sequence[RowLevels]
    take_weights: TakeWeights = None


@dataclass(frozen=True)
class ValidationCheck:
    """A look at the held-out takes during training, and the course that can be kept there."""

    step: int
    steps: int
    loss: float
    accuracy: float
    held_out_loss: float
    run: TrainingRun | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class TrainedScorer:
    """A trained scorer and how it does on takes that it never saw."""

    scorer: Scorer
    accuracy: float
    interval: tuple[float, float]  # 95 %, of the accuracy, by takes
    windows: int
    takes: int
    calibration: "Calibration"
    reference_scores: Tensor  # [window], of held-out reference takes
    source_scores: Tensor
    steps: int
    seconds: float


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error (Guo et al. 2017) and the bins it is made of."""

    error: float
    mean_score: tuple[float, ...]
    share_source: tuple[float, ...]
    count: tuple[int, ...]


def audible_windows(cut: Tensor, range_db: float = AUDIBLE_RANGE_DB) -> Tensor:
    """Which windows [n] hold a sound within `range_db` of the loudest window's."""
    return is_audible(cut.amax(dim=(1, 2)), range_db)


def score_windows(scorer: Scorer, rows: RowLevels) -> Tensor:
    """Scores [n] of a take's audible windows, each as long as a training crop."""
    return score_recording(scorer, TensorTimeSeries(rows))


def score_recording(scorer: Scorer, rows_db: TimeSeries) -> Tensor:
    """`score_windows` of a recording [row, frame] that need not be in memory."""
    work, cuts = partial(_score_batch, scorer), window_batches(rows_db, scorer.crop_frames)
    # A short recording is one batch, for which no thread is worth its while.
    alone = rows_db.frames <= WINDOW_BATCH * scorer.crop_frames
    done = [work(it) for it in cuts] if alone else [*parallel_map(work, cuts)]
    scores, loudest = zip(*done, strict=True)
    return torch.cat(scores)[is_audible(torch.cat(loudest))]


def _score_batch(scorer: Scorer, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [n] of windows, and their loudest cells' levels [n]."""
    with torch.no_grad():
        scores = scorer.score(windows.to(scorer.row_mean.device)).to(windows.device)
    return scores, windows.amax(dim=(1, 2))


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
    """Train one scorer; yields a `Check` at every look and the `Fit` at the end.

    Loss is the squared error to the targets 0 (reference) and 1 (source), as in the paper; the
    weights kept are those with the smallest held-out loss.

    Parameters
    ----------
    train, held_out : LabelledTakes
        Disjoint by take.
    seed : int
        Draws weights, crops, augmentation and dropout; same seed and machine, same scorer.
    device : str
        Where to train; the scorer comes back on the CPU.
    state : State, optional
        Of a `Check`'s course, to go on from; all else must be as it was.
    """
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    scorer = Scorer(settings, spectrum, generator)
    scorer.row_mean.copy_(_folders_row_mean(scorer, train))
    scorer.to(device)
    course = TrainingRun(scorer, training, generator)
    if state is not None:
        course.resume(state)
    watched = _validation_excerpts(held_out, scorer.crop_frames)
    while not course.finished:
        loss = label_loss(scorer, train, course.local_batch, training, generator, device)
        course.update(loss)
        if course.validation_due:
            reference, source = map(torch.cat, _score_takes(scorer, watched, device))
            checked = euclidean_loss(reference, source)
            course.record_validation(checked)
            accuracy = _window_accuracy(reference, source)
            yield ValidationCheck(course.step, training.steps, loss.item(), accuracy, checked, course)
    course.load_best()
    scorer.cpu().requires_grad_(False).eval()
    yield evaluate_scorer(scorer, held_out, course.step, time.perf_counter() - began)


def label_loss(
    scorer: Scorer,
    takes: LabelledTakes,
    batch: int,
    training: TrainingSettings,
    generator: torch.Generator,
    device: str,
) -> Tensor:
    """Squared error to the folders' labels, 0 and 1, of as many augmented crops of each side."""
    crops = torch.cat(
        [
            draw_crops(side, batch, scorer.crop_frames, generator, shares)
            for side, shares in ((takes.reference, takes.take_weights), (takes.source, None))
        ]
    )
    crops = augment_crops(crops, training, generator).to(device)
    score = torch.sigmoid(scorer.logit(crops, generator))
    target = torch.arange(2, device=device).repeat_interleave(batch)
    return (score - target).square().mean()


def evaluate_scorer(scorer: Scorer, held_out: LabelledTakes, steps: int, seconds: float) -> TrainedScorer:
    """How a trained scorer does on takes that it never saw."""
    takes = _score_takes(scorer, held_out, "cpu")
    reference, source = map(torch.cat, takes)
    accuracy = _window_accuracy(reference, source)
    return TrainedScorer(
        scorer=scorer,
        accuracy=accuracy,
        interval=_accuracy_interval(accuracy, *takes),
        windows=len(reference) + len(source),
        takes=len(takes[0]) + len(takes[1]),
        calibration=measure_calibration(reference, source),
        reference_scores=reference,
        source_scores=source,
        steps=steps,
        seconds=seconds,
    )


def draw_crops(
    takes: Sequence[RowLevels],
    count: int,
    frames: int,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> Tensor:
    """Draw crops [count, row, frames], every moment of audio as likely as its take's share.

    A take shorter than a crop is repeated to fill it.
    """
    lengths = torch.tensor([float(max(1, take.shape[-1] - frames + 1)) for take in takes])
    if take_weights is not None:
        lengths = lengths * torch.tensor(take_weights)
    chosen = torch.multinomial(lengths, count, replacement=True, generator=generator)
    crops = []
    for index in chosen.tolist():
        take = takes[index]
        if take.shape[-1] < frames:
            take = take.repeat(1, -(-frames // take.shape[-1]))
        start = int(torch.randint(take.shape[-1] - frames + 1, (1,), generator=generator))
        crops.append(take[:, start : start + frames])
    return torch.stack(crops)


def augment_crops(crops: Tensor, training: TrainingSettings, generator: torch.Generator) -> Tensor:
    """Crops [batch, row, frame] under random tilts and random smooth masks, dB."""
    batch, rows, frames = crops.shape
    slope = torch.linspace(-1, 1, rows).to(crops)[None, :, None]
    tilt = torch.randn(batch, 1, 1, generator=generator).to(crops) * training.tilt_db * slope
    coarse = torch.randn(batch, 1, max(2, rows // 6), max(2, frames // 30), generator=generator)
    mask = torch.nn.functional.interpolate(
        coarse.to(crops), size=(rows, frames), mode="bilinear", align_corners=True
    ).squeeze(1)
    strength = torch.rand(batch, 1, 1, generator=generator).to(crops) * training.mask_db
    return crops + tilt + strength * mask


def euclidean_loss(reference: Tensor, source: Tensor) -> float:
    """The paper's loss of scores [window], both sides weighing the same."""
    return 0.5 * float(reference.square().mean() + (1 - source).square().mean())


def measure_calibration(reference: Tensor, source: Tensor, bins: int = 10) -> Calibration:
    """How far the score is from the share of source windows that get it."""
    score = torch.cat([reference, source])
    label = torch.cat([torch.zeros_like(reference), torch.ones_like(source)])
    index = (score * bins).long().clamp_max(bins - 1)
    used = [index == b for b in range(bins) if (index == b).any()]
    mean = [float(score[m].mean()) for m in used]
    share = [float(label[m].mean()) for m in used]
    count = [int(m.sum()) for m in used]
    gap = sum(c * abs(a - b) for c, a, b in zip(count, mean, share, strict=True))
    return Calibration(gap / len(score), tuple(mean), tuple(share), tuple(count))


def _validation_excerpts(held_out: LabelledTakes, frames: int) -> LabelledTakes:
    """What is looked at during training: of many windows the middles of all takes."""
    sides = []
    for side in (held_out.reference, held_out.source):
        share = _VALIDATION_WINDOWS * frames / sum(take.shape[1] for take in side)
        middles = []
        for take in side:
            length = take.shape[1] if share >= 1 else max(frames, round(share * take.shape[1]))
            first = max(0, (take.shape[1] - length) // 2)
            middles.append(take[:, first : first + length])
        sides.append(middles)
    return LabelledTakes(sides[0], sides[1], held_out.take_weights)


def _score_takes(scorer: Scorer, held_out: LabelledTakes, device: str) -> tuple[list[Tensor], list[Tensor]]:
    """Scores [window] of every held-out take."""
    reference, source = (
        [score_windows(scorer, take.to(device)).cpu() for take in side]
        for side in (held_out.reference, held_out.source)
    )
    return reference, source


def _accuracy_interval(
    accuracy: float, reference: Sequence[Tensor], source: Sequence[Tensor]
) -> tuple[float, float]:
    """95 % interval of the accuracy, every take one observation."""
    shares = [float((take < 0.5).float().mean()) for take in reference]
    shares += [float((take >= 0.5).float().mean()) for take in source]
    found = balanced_accuracy(np.array(shares), np.arange(len(shares)) >= len(reference))
    return min(found.low, accuracy), max(found.high, accuracy)


def _window_accuracy(reference: Tensor, source: Tensor) -> float:
    """Balanced: the mean of both sides' shares, so that a longer folder does not weigh more."""
    right_reference = (reference < 0.5).float().mean()
    return 0.5 * float(right_reference + (source >= 0.5).float().mean())


def _folders_row_mean(scorer: Scorer, takes: LabelledTakes) -> Tensor:
    """Mean relative level of each row [row] over both folders, each weighing the same."""
    means = []
    for side, shares in ((takes.reference, takes.take_weights), (takes.source, None)):
        relative = (part for take in side for part in _relative_chunks(scorer, TensorTimeSeries(take)))
        counts = zip(side, shares or repeat(1.0), strict=False)
        of_parts = [share for take, share in counts for _ in split_segments(take.shape[1])]
        means.append(weighted_mean(relative, of_parts))
    return torch.stack(means).mean(dim=0)


def _relative_chunks(scorer: Scorer, rows_db: TimeSeries) -> Iterator[Tensor]:
    """Rows relative to their recording's own level, part by part, dB."""
    levels = [frame_levels(part + scorer.loud_row[:, None]) for part in read_segments(rows_db)]
    level = mean_power_db(torch.cat(levels))
    return ((part - level).clamp_min(-scorer.settings.range_db) for part in read_segments(rows_db))
