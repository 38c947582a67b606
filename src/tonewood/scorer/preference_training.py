"""Training by what listeners said: pairs of which one was preferred, and mean opinion scores.

Pairs teach by the Bradley–Terry likelihood, P(a preferred to b) = σ(logit b − logit a), for a low
score is what is wanted; opinions by the squared error to a continuous target, as the paper's first
experiment does. Folder labels may teach beside them.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tonewood.dsp.features import RowLevels, cut_windows
from tonewood.scorer.network import Scorer
from tonewood.scorer.training import (
    LabelledTakes,
    TrainedScorer,
    ValidationCheck,
    audible_windows,
    augment_crops,
    draw_crops,
    evaluate_scorer,
    label_loss,
)
from tonewood.scorer.training_loop import TrainingRun, TrainingState
from tonewood.settings import ScorerSettings, SpectrumSettings, TrainingSettings

_LOGIT_PENALTY = 0.01  # pairs say nothing of where zero lies: the mean logit is held near it


@dataclass(frozen=True)
class ListenerData:
    """Recordings that ears compared or rated.

    Parameters
    ----------
    rows : sequence of Tensor [row, frame]
    groups : sequence of str
        Recordings of one group are one moment under several conditions, or of one piece.
    better, worse : Tensor [pair] of int
        Recordings by their place in `rows`.
    rated : Tensor [rating] of int
    target : Tensor [rating]
        Wanted score of those, in [0, 1]: 0 for the best opinion.
    in_better_half : Tensor [recording] of bool
        Whether it is among the better half, by all that was said.
    """

    rows: Sequence[RowLevels]
    groups: Sequence[str]
    better: Tensor
    worse: Tensor
    rated: Tensor
    target: Tensor
    in_better_half: Tensor

    def select_groups(self, groups: set[str]) -> "ListenerData":
        """What was said of recordings of some groups, and of nothing besides."""
        kept = [k for k, group in enumerate(self.groups) if group in groups]
        place = torch.full((len(self.rows),), -1)
        place[kept] = torch.arange(len(kept))
        pair = (place[self.better] >= 0) & (place[self.worse] >= 0)
        rated = place[self.rated] >= 0
        return ListenerData(
            [self.rows[k] for k in kept],
            [self.groups[k] for k in kept],
            place[self.better[pair]],
            place[self.worse[pair]],
            place[self.rated[rated]],
            self.target[rated],
            self.in_better_half[kept],
        )

    def split_by_preference(self) -> LabelledTakes:
        """The better and the worse half, as if they were two folders."""
        both: tuple[list[RowLevels], list[RowLevels]] = ([], [])
        for rows, liked in zip(self.rows, self.in_better_half.tolist(), strict=True):
            both[0 if liked else 1].append(rows)
        return LabelledTakes(*both)


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
    """Train one scorer; yields a `Check` at every look and the `Fit` at the end.

    It takes all of its steps, and its last weights are kept: the few answers that are held out are
    too few to choose by, and what nothing was chosen by says how good the scorer is.

    Parameters
    ----------
    train, held_out : Heard
        Disjoint by group.
    labels : tuple of LabelledTakes, optional
        Folders to learn from and held out, whose labels teach too; the `Fit` is then of them, else
        of the better and the worse half of what was heard.
    seed, state
        As of `train_scorer`.
    """
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    scorer = Scorer(settings, spectrum, generator)
    scorer.row_mean.copy_(_recordings_row_mean(scorer, train, labels[0] if labels else None))
    scorer.to(device)
    course = TrainingRun(scorer, training, generator)
    if state is not None:
        course.resume(state)
    while not course.finished:
        taught = labels[0] if labels else None
        loss = _training_loss(scorer, train, taught, training, generator, device, course.local_batch)
        course.update(loss)
        if course.validation_due:
            heard = [mean_logit(scorer, rows.to(device)).cpu() for rows in held_out.rows]
            logits = torch.stack(heard)
            checked, alike = preference_loss(logits, held_out), agreement(logits, held_out)
            yield ValidationCheck(course.step, training.steps, loss.item(), alike, checked, course)
    scorer.cpu().requires_grad_(False).eval()
    told_apart = labels[1] if labels else held_out.split_by_preference()
    yield evaluate_scorer(scorer, told_apart, training.steps, time.perf_counter() - began)


def mean_logit(scorer: Scorer, rows: RowLevels) -> Tensor:
    """Mean logit, a scalar, of a recording's audible windows."""
    cut = cut_windows(rows, scorer.crop_frames)
    with torch.no_grad():
        return scorer.logit(cut[audible_windows(cut)]).mean()


def preference_loss(logits: Tensor, data: ListenerData) -> float:
    """What training minimises, of recordings' logits [recording]."""
    parts = []
    if len(data.better):
        parts.append(functional.softplus(logits[data.better] - logits[data.worse]).mean())
    if len(data.rated):
        parts.append((torch.sigmoid(logits[data.rated]) - data.target).square().mean())
    return float(torch.stack(parts).sum())


def agreement(logits: Tensor, data: ListenerData) -> float:
    """Share of the pairs that logits [recording] order as ears did; of the ratings, likewise."""
    if len(data.better):
        gap = logits[data.worse] - logits[data.better]
    else:
        difference = data.target[:, None] - data.target[None, :]
        at = logits[data.rated]
        first, second = torch.nonzero(difference > 0, as_tuple=True)
        gap = at[first] - at[second]
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
    """Sum of what each kind of answer says; a kind that is missing says nothing."""
    parts = []
    if len(data.better):
        better, worse = _draw_pair_crops(scorer, data, batch, training, generator)
        logits = scorer.logit(torch.cat([better, worse]).to(device), generator)
        liked, other = logits.chunk(2)
        parts.append(functional.softplus(liked - other).mean() + _LOGIT_PENALTY * logits.mean().square())
    if len(data.rated):
        chosen = torch.randint(len(data.rated), (2 * batch,), generator=generator)
        crops = torch.cat(
            [
                draw_crops([data.rows[k]], 1, scorer.crop_frames, generator)
                for k in data.rated[chosen].tolist()
            ]
        )
        score = torch.sigmoid(scorer.logit(crops.to(device), generator))
        parts.append((score - data.target[chosen].to(device)).square().mean())
    if labels is not None:
        parts.append(label_loss(scorer, labels, batch, training, generator, device))
    return torch.stack(parts).sum()


def _draw_pair_crops(
    scorer: Scorer,
    data: ListenerData,
    batch: int,
    training: TrainingSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Crops [batch, row, frame] of both sides of pairs; of one group, of the same moment.

    Both get the same tilt and mask: what is done to both alike is no reason to prefer one.
    """
    chosen = torch.randint(len(data.better), (batch,), generator=generator)
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for pair in chosen.tolist():
        a, b = int(data.better[pair]), int(data.worse[pair])
        first, second = data.rows[a], data.rows[b]
        if data.groups[a] == data.groups[b] and first.shape == second.shape:
            both = draw_crops([torch.cat([first, second])], 1, scorer.crop_frames, generator).chunk(2, dim=1)
        else:
            both = tuple(draw_crops([rows], 1, scorer.crop_frames, generator) for rows in (first, second))
        for side, crop in zip(sides, both, strict=True):
            side.append(crop)
    better, worse = map(torch.cat, sides)
    change = augment_crops(torch.zeros_like(better), training, generator)
    return better + change, worse + change


def _recordings_row_mean(scorer: Scorer, data: ListenerData, labels: LabelledTakes | None) -> Tensor:
    """Mean relative level of each row [row], every recording weighing by its length."""
    every = [*data.rows, *(labels.reference if labels else ()), *(labels.source if labels else ())]
    relative = [(rows - scorer.level(rows[None])[0]).clamp_min(-scorer.settings.range_db) for rows in every]
    return torch.cat(relative, dim=1).mean(dim=1)
