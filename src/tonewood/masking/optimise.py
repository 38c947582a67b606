"""The search for a mask: gradient steps on the objective, the scorer frozen; yields its steps."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tonewood.errors import CallError
from tonewood.masking.mask import smoothed
from tonewood.masking.notes import Notes, rendered
from tonewood.masking.objective import Objective, ScoreFunction, objective
from tonewood.settings import SearchSettings
from tonewood.signal.bands import frame_levels

_AUDIBLE_DB = 50.0
_BLURRED_DB = 6.0

Listen = Callable[[Tensor], Tensor]
"""Mask [row, frame] in dB → levels [row, frame] of the sound that it makes, dB."""


@dataclass(frozen=True)
class Step:
    """One step of a search: the objective's parts and the mask that gave them."""

    number: int
    total: float
    score: float
    distance: float
    variance: float
    mask_db: Tensor  # [row, frame]
    stopped: bool = False


class Parametrisation(Protocol):
    """What the optimiser turns, and the mask [row, frame] that it makes."""

    values: Tensor

    def mask(self) -> Tensor:
        """Mask in dB, differentiable in `values`."""
        ...


class Cells:
    """Every cell of the mask turns by itself; its change from the start is averaged in time."""

    def __init__(self, start_db: Tensor, smooth_frames: int = 1) -> None:
        self.start, self.smooth_frames = start_db.detach(), smooth_frames
        self.values = torch.zeros_like(start_db, requires_grad=True)

    def mask(self) -> Tensor:
        """Start plus the smoothed change."""
        return self.start + smoothed(self.values, self.smooth_frames)


class NoteGains:
    """The gains of sticky notes turn; places and sizes stay."""

    def __init__(
        self,
        notes: Notes,
        row_hz: Tensor,
        frame_s: Tensor,
        smooth_hz: float,
        smooth_s: float,
        device: str = "cpu",
    ) -> None:
        rows, frames = notes.profiles(row_hz, frame_s, smooth_hz, smooth_s)
        self.profiles = rows.to(device), frames.to(device)
        self.values = notes.gain_db.to(device).clone().requires_grad_()

    def mask(self) -> Tensor:
        """Notes rendered with their present gains."""
        return rendered(self.values, *self.profiles)


def search(
    score: ScoreFunction,
    rows_db: Tensor,
    parametrisation: Parametrisation,
    anchor_db: Tensor,
    settings: SearchSettings,
    *,
    window_frames: int,
    max_gain_db: float,
    generator: torch.Generator,
    energy: ScoreFunction | None = None,
    listen: Listen | None = None,
    stop_score: float | None = None,
) -> Iterator[Step]:
    """Minimise the objective over one recording's mask (paper III).

    Every step scores the whole recording, cut into windows as long as the scorer's training
    crops; the cuts move from step to step, so that no border is special.

    Frames overlap and rows mix, so the sound that a mask makes lies short of the levels that it
    asks for. With `listen` the objective is that of the sound itself, and its gradient is handed
    to the mask as if rendering were the identity, from which it differs little (the
    straight-through estimator, Bengio, Léonard & Courville 2013).

    Parameters
    ----------
    score : ScoreFunction
        The frozen scorer.
    rows_db : Tensor [row, frame]
        Recording.
    parametrisation : Parametrisation
        Where the mask starts and what may turn.
    anchor_db : Tensor [row, frame]
        Prior that the mask is pulled towards.
    energy : ScoreFunction, optional
        The guide: energy in dB² of the whole recording.
    listen : Listen, optional
        Renders a mask and measures it.
    stop_score : float, optional
        Stop once the mean score is at or below it: reference recordings get no less.

    Yields
    ------
    Step
        The start as number 0, then one a step, at most `settings.steps` of them.
    """
    optimiser = _optimiser(settings, parametrisation.values)

    # In units of the norm's own curvature a step of plain gradient descent is a step in dB.
    unit = rows_db.numel() / (2 * settings.alpha or 1.0)

    def evaluate(starts: list[int]) -> tuple[Tensor, Objective]:
        mask = parametrisation.mask().clamp(-max_gain_db, max_gain_db)
        done = mask if listen is None else mask + _blurred(mask.detach(), rows_db, listen)
        heard = rows_db + done
        cut = torch.stack([heard[:, s : s + window_frames] for s in starts])
        guided = energy(heard[None])[0] if energy is not None else None
        return mask, objective(score(cut).mean(), done, anchor_db, settings, guided)

    for number in range(settings.steps + 1):
        starts = _starts(rows_db.shape[-1], window_frames, generator)
        with torch.no_grad():
            mask, parts = evaluate(starts)
        if not math.isfinite(parts.total.item()):
            raise CallError(
                f"the search went beyond all numbers at step {number}: lower "
                "search.learning_rate, search.alpha or search.beta"
            )
        reached = stop_score is not None and parts.score.item() <= stop_score
        yield Step(
            number,
            parts.total.item(),
            parts.score.item(),
            parts.distance.item(),
            parts.variance.item(),
            mask,
            stopped=reached,
        )
        if reached or number == settings.steps:
            return

        def closure(starts: list[int] = starts) -> float:
            optimiser.zero_grad()
            total = unit * evaluate(starts)[1].total
            total.backward()  # type: ignore[no-untyped-call]
            return total.item()

        optimiser.step(closure)


def _blurred(mask_db: Tensor, rows_db: Tensor, listen: Listen) -> Tensor:
    """What rendering makes of a mask beside what it asks for [row, frame], dB, where all sounds."""
    level = frame_levels(rows_db)
    audible = level > level.max() - _AUDIBLE_DB
    return (listen(mask_db) - rows_db - mask_db).clamp(-_BLURRED_DB, _BLURRED_DB) * audible


def _starts(total: int, window: int, generator: torch.Generator) -> list[int]:
    if total <= window:
        return [0]
    offset = int(torch.randint(window, (1,), generator=generator))
    return sorted({0, *range(offset, total - window, window), total - window})


def _optimiser(settings: SearchSettings, values: Tensor) -> torch.optim.Optimizer:
    kind: type[torch.optim.Adam] = getattr(torch.optim, settings.optimiser)
    return kind([values], lr=settings.learning_rate)
