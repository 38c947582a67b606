"""Training on listeners' answers: preferences between pairs, and opinion scores.

Pairs use the Bradley–Terry likelihood, P(a preferred to b) = σ(logit b − logit a), since a low score
is better. Opinions use the squared error to a continuous target, as the paper's first experiment
does. Folder labels may be added.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tonewood.dsp.features import cut_windows
from tonewood.scorer.network import Scorer, audible_windows
from tonewood.scorer.training import (
    LabelledTakes,
    TrainedScorer,
    ValidationCheck,
    augment_crops,
    draw_crops,
    evaluate_scorer,
    label_loss,
)
from tonewood.scorer.training_loop import TrainingState, start_run
from tonewood.settings import ScorerSettings, SpectrumSettings, TrainingSettings
from tonewood.utils.arrays import Levels, weighted_mean

_LOGIT_PENALTY = 0.01  # pairs do not fix the mean logit; this keeps it near 0


@dataclass(frozen=True)
class ListenerData:
    """Recordings that listeners compared or rated."""

    rows: Sequence[Levels]  # [row, frame]
    groups: Sequence[str]  # recordings of one group are versions of one moment, or of one piece
    # [pair]: indices of recordings
    better: Tensor
    worse: Tensor
    rated: Tensor  # [rating]: indices of recordings
    target: Tensor  # [rating]: target scores in [0, 1], 0 for the best opinion
    in_better_half: Tensor  # [recording]: by all answers together

    def select_groups(self, groups: set[str]) -> "ListenerData":
        """Return the data of some groups only."""
        selected = [k for k, group in enumerate(self.groups) if group in groups]
        new_index = torch.full((len(self.rows),), -1)
        new_index[selected] = torch.arange(len(selected))
        # -1 marks recordings of other groups; pairs that involve them are dropped.
        pair = (new_index[self.better] >= 0) & (new_index[self.worse] >= 0)
        rated = new_index[self.rated] >= 0
        return ListenerData(
            [self.rows[k] for k in selected],
            [self.groups[k] for k in selected],
            new_index[self.better[pair]],
            new_index[self.worse[pair]],
            new_index[self.rated[rated]],
            self.target[rated],
            self.in_better_half[selected],
        )

    def split_by_preference(self) -> LabelledTakes:
        """Return the better half as reference, the worse as source."""
        halves: tuple[list[Levels], list[Levels]] = ([], [])
        for rows, is_better in zip(self.rows, self.in_better_half.tolist(), strict=True):
            halves[0 if is_better else 1].append(rows)
        return LabelledTakes(*halves)


def train_preference_scorer(
    train: ListenerData,
    held_out: ListenerData,
    settings: ScorerSettings,
    spectrum: SpectrumSettings,
    training: TrainingSettings,
    *,
    labels: tuple[LabelledTakes, LabelledTakes] | None = None,
    seed: int,
    device: str = "cpu",
    state: TrainingState | None = None,
) -> Iterator[ValidationCheck | TrainedScorer]:
    """Train a scorer; yields a `ValidationCheck` at intervals and the `TrainedScorer` at the end.

    There is no early stopping: held-out answers are too few to select weights by, and unused ones
    give an unbiased result.

    Parameters
    ----------
    train, held_out : ListenerData
        Without groups in common.
    labels : tuple of LabelledTakes, optional
        Folders for training and held out. The `TrainedScorer` is evaluated on them, or else on the
        better and worse half of the held-out recordings.
    seed, device, state
        As in `train_scorer`.
    """
    start_time = time.perf_counter()
    folders = labels[0] if labels else None
    row_mean = partial(_recordings_row_mean, train, folders)
    run = start_run(settings, spectrum, training, row_mean, seed=seed, device=device, state=state)
    scorer = run.scorer
    draw_loss = partial(
        _training_loss, scorer, train, folders, training, run.generator, device, run.local_batch
    )
    for loss in run.iterate_checks(draw_loss):
        used = scorer.as_arrays()
        logits = torch.tensor([mean_logit(used, rows) for rows in held_out.rows])
        held_out_loss, agreed = preference_loss(logits, held_out), agreement(logits, held_out)
        yield ValidationCheck(run.step, training.steps, loss, agreed, held_out_loss, run)
    evaluation_takes = labels[1] if labels else held_out.split_by_preference()
    seconds = time.perf_counter() - start_time
    yield evaluate_scorer(scorer.as_arrays(), evaluation_takes, training.steps, seconds)


def mean_logit(scorer: Scorer, rows: Levels) -> float:
    """Return the mean logit of the audible windows of a recording [row, frame] in dB."""
    windows = cut_windows(rows, scorer.crop_frames)
    return float(scorer.logit(windows[audible_windows(windows)]).mean())


def preference_loss(logits: Tensor, data: ListenerData) -> float:
    """Return the training loss for recordings' logits [recording], without penalties."""
    terms = []
    if len(data.better):
        terms.append(functional.softplus(logits[data.better] - logits[data.worse]).mean())
    if len(data.rated):
        terms.append((torch.sigmoid(logits[data.rated]) - data.target).square().mean())
    return float(torch.stack(terms).sum())


def agreement(logits: Tensor, data: ListenerData) -> float:
    """Return the share of pairs, of preferences or of ratings, that logits [recording] order correctly."""
    if len(data.better):
        gap = logits[data.worse] - logits[data.better]
    else:
        difference = data.target[:, None] - data.target[None, :]
        rated = logits[data.rated]
        # Each pair of unequal ratings once, the worse (higher) target first.
        first, second = torch.nonzero(difference > 0, as_tuple=True)
        gap = rated[first] - rated[second]
    return float((gap > 0).float().mean()) if len(gap) else float("nan")


def _training_loss(
    scorer: Scorer,
    data: ListenerData,
    labels: LabelledTakes | None,
    training: TrainingSettings,
    generator: torch.Generator,
    device: str,
    batch: int,
) -> Tensor:
    """Return the sum of the losses of all kinds of answers."""
    terms = []
    if len(data.better):
        better, worse = _draw_pair_crops(scorer, data, batch, training, generator)
        logits = scorer.logit(torch.cat([better, worse]).to(device), generator)
        better_logit, worse_logit = logits.chunk(2)
        # -log σ(worse - better) = softplus(better - worse): the Bradley–Terry likelihood.
        likelihood = functional.softplus(better_logit - worse_logit).mean()
        terms.append(likelihood + _LOGIT_PENALTY * logits.mean().square())
    if len(data.rated):
        # As many crops as a batch of pairs has.
        sample = torch.randint(len(data.rated), (2 * batch,), generator=generator)
        crops = torch.cat(
            [
                draw_crops([data.rows[k]], 1, scorer.crop_frames, generator)
                for k in data.rated[sample].tolist()
            ]
        )
        score = torch.sigmoid(scorer.logit(crops.to(device), generator))
        terms.append((score - data.target[sample].to(device)).square().mean())
    if labels is not None:
        terms.append(label_loss(scorer, labels, batch, training, generator, device))
    return torch.stack(terms).sum()


def _draw_pair_crops(
    scorer: Scorer, data: ListenerData, batch: int, training: TrainingSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw crops [batch, row, frame] of both sides of pairs; within a group, of the same moment.

    Both get the same augmentation, since a change of both must not affect the preference.
    """
    sample = torch.randint(len(data.better), (batch,), generator=generator)
    # Crops are shorter than recordings: within a group, unrelated moments would add noise.
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for pair in sample.tolist():
        a, b = int(data.better[pair]), int(data.worse[pair])
        first, second = data.rows[a], data.rows[b]
        if data.groups[a] == data.groups[b] and first.shape == second.shape:
            # Stacked along the rows, so that both sides are cut at the same moment.
            joint = draw_crops([np.concatenate([first, second])], 1, scorer.crop_frames, generator)
            crops = joint.chunk(2, dim=1)
        else:
            crops = tuple(draw_crops([rows], 1, scorer.crop_frames, generator) for rows in (first, second))
        for side, crop in zip(sides, crops, strict=True):
            side.append(crop)
    better, worse = map(torch.cat, sides)
    change = augment_crops(torch.zeros_like(better), training, generator)
    return better + change, worse + change


def _recordings_row_mean(
    data: ListenerData, labels: LabelledTakes | None, scorer: Scorer
) -> NDArray[np.float32]:
    """Return the mean relative level of each row [row], recordings weighted by their length."""
    recordings = [*data.rows, *(labels.reference if labels else ()), *(labels.source if labels else ())]
    relative = ((rows - scorer.level(rows[None])[0]).clip(-scorer.settings.range_db) for rows in recordings)
    return weighted_mean(relative)
