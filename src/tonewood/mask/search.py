"""The search for a mask: gradient steps on the objective, the scorer frozen; yields its steps.

The objective (paper III): L_c(X + M) + alpha‖M - M_prior‖² + beta Var(M), and the guide.

Sticky notes (paper III and figure 2): blocks of mask, averaged into a smooth one.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tonewood.dsp.filterbank import frame_levels
from tonewood.errors import CallError
from tonewood.mask.mask import moving_average
from tonewood.settings import NoteSettings, SearchSettings

ScoreFunction = Callable[[Tensor], Tensor]
"""Rows [batch, row, frame] in dB → a value [batch], differentiable; any callable will do."""


class Objective(NamedTuple):
    """The objective's value and its parts, each a scalar tensor."""

    total: Tensor
    score: Tensor
    distance: Tensor  # dB², mean over cells
    variance: Tensor  # dB²


def compute_objective(
    score: Tensor,
    mask_db: Tensor,
    prior_db: Tensor,
    settings: SearchSettings,
    energy_db2: Tensor | None = None,
) -> Objective:
    """Add the penalties to the neural losses.

    Parameters
    ----------
    score : Tensor, scalar
        Mean of L_c(X + M) over what is scored.
    mask_db, prior_db : Tensor [row, frame]
        Mask, and the prior it is pulled towards (0 dB: the paper's ‖X_inp - X_t‖²).
    energy_db2 : Tensor, scalar, optional
        Guide's energy, a sum over cells; counts twice alpha times its mean, so that against the
        norm alone its minimum lies where the mask has moved by the energy's gradient.
    """
    distance = (mask_db - prior_db).square().mean()
    variance = mask_db.var(correction=0)
    total = settings.score * score + settings.alpha * distance + settings.beta * variance
    if energy_db2 is not None and settings.guide:
        total = total + 2 * settings.alpha * settings.guide * energy_db2 / mask_db.numel()
    return Objective(total, score, distance, variance)


_CELL_HZ_PER_S = 31.25 / 0.010  # a cell of the paper's spectrogram: 16 kHz / 512, every 10 ms


@dataclass(frozen=True)
class StickyNotes:
    """So many notes, each with a place, a width, a height and a gain.

    Parameters
    ----------
    seconds, hz : Tensor [note]
        Centres.
    width_s, height_hz : Tensor [note]
        Extents.
    gain_db : Tensor [note]
    """

    seconds: Tensor
    hz: Tensor
    width_s: Tensor
    height_hz: Tensor
    gain_db: Tensor

    def profiles(
        self, row_hz: Tensor, frame_s: Tensor, smooth_hz: float = 0.0, smooth_s: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Share of each note in each row [note, row] and in each frame [note, frame].

        A note's mask is the outer product of its two profiles. Averaging a block of width w over
        a span s turns its edges into ramps of length s; span 0 leaves the block itself.
        """
        return (
            _block_coverage(row_hz, self.hz, self.height_hz, smooth_hz),
            _block_coverage(frame_s, self.seconds, self.width_s, smooth_s),
        )


def scatter_sticky_notes(
    settings: NoteSettings, duration_s: float, top_hz: float, generator: torch.Generator
) -> StickyNotes:
    """Scatter notes over a recording at random, with random gains.

    A rectangular note has the width and height of the settings; a square one has the same area
    and spans as many of the paper's frames as of its bins.
    """
    count = max(1, round(settings.per_second * duration_s))
    place = torch.rand(2, count, generator=generator)
    width = torch.full((count,), settings.width_ms / 1000)
    height = torch.full((count,), settings.height_hz)
    if settings.shape == "square":
        area = width * height
        width, height = (area / _CELL_HZ_PER_S).sqrt(), (area * _CELL_HZ_PER_S).sqrt()
    gain = torch.randn(count, generator=generator) * settings.gain_db
    return StickyNotes(place[0] * duration_s, place[1] * top_hz, width, height, gain)


def render_sticky_notes(gain_db: Tensor, row_profile: Tensor, frame_profile: Tensor) -> Tensor:
    """Mask [row, frame] in dB of notes with these gains [note] and profiles.

    Where notes overlap, their gains are averaged; where a note's smoothed edge stands alone, it
    fades to 0 dB.
    """
    covered = row_profile.T @ frame_profile
    return ((row_profile * gain_db[:, None]).T @ frame_profile) / covered.clamp_min(1.0)


def _block_coverage(grid: Tensor, centre: Tensor, extent: Tensor, span: float) -> Tensor:
    """Share [note, point] of a window of length `span` around each point that the block covers."""
    distance = (grid[None, :] - centre[:, None]).abs()
    half = extent[:, None] / 2
    if span == 0:
        return (distance <= half).to(grid.dtype)
    covered = torch.minimum(half, distance + span / 2) - torch.maximum(-half, distance - span / 2)
    return (covered / span).clamp(0, 1)


_AUDIBLE_DB = 50.0
_MAX_FEEDBACK_DB = 6.0

RenderFeedback = Callable[[Tensor], Tensor]
"""Mask [row, frame] in dB → levels [row, frame] of the sound that it makes, dB."""


@dataclass(frozen=True)
class SearchStep:
    """One step of a search: the objective's parts and the mask that gave them.

    A long recording is searched part by part; the mask is of the part that begins at `offset`, of
    a recording of `total_frames`.
    """

    number: int
    total: float
    score: float
    distance: float
    variance: float
    mask_db: Tensor  # [row, frame]
    stopped: bool = False
    offset: int = 0
    total_frames: int = 0


class Parametrisation(Protocol):
    """What the optimiser turns, and the mask [row, frame] that it makes."""

    values: Tensor

    def mask(self) -> Tensor:
        """Mask in dB, differentiable in `values`."""
        ...


class FreeMask:
    """Every cell of the mask turns by itself; its change from the start is averaged in time."""

    def __init__(self, start_db: Tensor, smooth_frames: int = 1) -> None:
        self.start_db, self.smooth_frames = start_db.detach(), smooth_frames
        self.values = torch.zeros_like(start_db, requires_grad=True)

    def mask(self) -> Tensor:
        """Start plus the smoothed change."""
        return self.start_db + moving_average(self.values, self.smooth_frames)


class StickyNoteGains:
    """The gains of sticky notes turn; places and sizes stay."""

    def __init__(
        self,
        notes: StickyNotes,
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
        return render_sticky_notes(self.values, *self.profiles)


def search_mask(
    score: ScoreFunction,
    rows_db: Tensor,
    parametrisation: Parametrisation,
    prior_db: Tensor,
    settings: SearchSettings,
    *,
    window_frames: int,
    max_gain_db: float,
    generator: torch.Generator,
    guide_energy: ScoreFunction | None = None,
    render_feedback: RenderFeedback | None = None,
    loudest_db: float | None = None,
    stop_score: float | None = None,
) -> Iterator[SearchStep]:
    """Minimise the objective over one recording's mask (paper III).

    Every step scores the whole recording, cut into windows as long as the scorer's training
    crops; the cuts move from step to step, so that no border is special.

    Frames overlap and rows mix, so the sound that a mask makes lies short of the levels that it
    asks for. With `render_feedback` the objective is that of the sound itself, and its gradient is handed
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
    prior_db : Tensor [row, frame]
        Prior that the mask is pulled towards.
    guide_energy : ScoreFunction, optional
        The guide: energy in dB² of the whole recording.
    render_feedback : RenderFeedback, optional
        Renders a mask and measures it.
    loudest_db : float, optional
        Level of the recording's loudest frame, where the rows are only a part of it.
    stop_score : float, optional
        Stop once the mean score is at or below it: reference recordings get no less.

    Yields
    ------
    Step
        The start as number 0, then one a step, at most `search_settings.total_steps` of them.
    """
    optimiser = _make_optimiser(settings, parametrisation.values)

    # In units of the norm's own curvature a step of plain gradient descent is a step in dB.
    unit = rows_db.numel() / (2 * settings.alpha or 1.0)

    level = frame_levels(rows_db)
    audible = level > (level.max() if loudest_db is None else loudest_db) - _AUDIBLE_DB

    def evaluate(starts: list[int]) -> tuple[Tensor, Objective]:
        mask = parametrisation.mask().clamp(-max_gain_db, max_gain_db)
        done = mask
        if render_feedback is not None:
            beside = render_feedback(mask.detach()) - rows_db - mask.detach()
            done = mask + beside.clamp(-_MAX_FEEDBACK_DB, _MAX_FEEDBACK_DB) * audible
        heard = rows_db + done
        cut = torch.stack([heard[:, s : s + window_frames] for s in starts])
        with torch.set_grad_enabled(settings.score > 0):
            scored = score(cut).mean()
        guided = guide_energy(heard[None])[0] if guide_energy is not None else None
        return mask, compute_objective(scored, done, prior_db, settings, guided)

    for number in range(settings.steps + 1):
        starts = _crop_offsets(rows_db.shape[-1], window_frames, generator)
        last = number == settings.steps
        with torch.set_grad_enabled(not last):
            mask, parts = evaluate(starts)
        total, scored, distance, variance = objective_values(parts)
        if not math.isfinite(total):
            raise CallError(
                f"the search went beyond all numbers at step {number}: lower "
                "search.learning_rate, search.alpha or search.beta"
            )
        reached = stop_score is not None and scored <= stop_score
        yield SearchStep(
            number,
            total,
            scored,
            distance,
            variance,
            mask.detach(),
            stopped=reached,
            total_frames=mask.shape[1],
        )
        if reached or last:
            return
        known = [parts.total]  # of where the optimiser stands; some ask for other places too

        def closure(starts: list[int] = starts, known: list[Tensor] = known) -> Tensor:
            asked = unit * (known.pop() if known else evaluate(starts)[1].total)
            parametrisation.values.grad = None
            asked.backward()  # type: ignore[no-untyped-call]
            return asked.detach()

        optimiser.step(closure)


def objective_values(parts: Objective) -> list[float]:
    """All parts as numbers: a device is waited for once."""
    values: list[float] = torch.stack([it.detach() for it in parts]).tolist()
    return values


def _crop_offsets(total: int, window: int, generator: torch.Generator) -> list[int]:
    if total <= window:
        return [0]
    offset = int(torch.randint(window, (1,), generator=generator))
    return sorted({0, *range(offset, total - window, window), total - window})


class _ClosureOptimiser(Protocol):
    def step(self, closure: Callable[[], Tensor]) -> object: ...


class _GradientDescent:
    """Plain gradient descent."""

    def __init__(self, values: Tensor, learning_rate: float) -> None:
        self.values, self.learning_rate = values, learning_rate

    def step(self, closure: Callable[[], Tensor]) -> None:
        closure()
        with torch.no_grad():
            self.values -= self.learning_rate * self.direction(_gradient(self.values))

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient


class _Adam(_GradientDescent):
    """Kingma & Ba 2015, with its customary constants."""

    def __init__(self, values: Tensor, learning_rate: float) -> None:
        super().__init__(values, learning_rate)
        self.mean, self.square = torch.zeros_like(values), torch.zeros_like(values)
        self.steps = 0

    def direction(self, gradient: Tensor) -> Tensor:
        self.steps += 1
        self.mean.lerp_(gradient, 1 - 0.9)
        self.square.lerp_(gradient.square(), 1 - 0.999)
        spread = (self.square / (1 - 0.999**self.steps)).sqrt()
        return self.mean / (1 - 0.9**self.steps) / (spread + 1e-8)


def _gradient(values: Tensor) -> Tensor:
    assert values.grad is not None
    return values.grad


# torch.optim's own, whose first use takes a second of imports.
_LIGHT_OPTIMISERS: dict[str, type[_GradientDescent]] = {"SGD": _GradientDescent, "Adam": _Adam}


def _make_optimiser(settings: SearchSettings, values: Tensor) -> _ClosureOptimiser:
    if settings.optimiser in _LIGHT_OPTIMISERS:
        return _LIGHT_OPTIMISERS[settings.optimiser](values, settings.learning_rate)
    kind: type[torch.optim.AdamW] = getattr(torch.optim, settings.optimiser)
    return kind([values], lr=settings.learning_rate)
