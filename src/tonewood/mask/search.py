"""Search for a mask by gradient descent on the objective, with frozen networks.

The objective is L_c(X + M) + alpha‖M - M_prior‖² + beta Var(M) (paper, section III), plus the guide's
energy. The mask is parametrised by its cells, or by sticky notes: smoothed blocks (paper, figure 2).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tonewood.dsp.features import frame_levels
from tonewood.errors import CallError
from tonewood.mask.mask import moving_average
from tonewood.settings import NoteSettings, SearchSettings

ScoreFunction = Callable[[Tensor], Tensor]
"""Maps levels [batch, row, frame] in dB to values [batch], differentiably."""

RenderFeedback = Callable[[Tensor], Tensor]
"""Maps a mask [row, frame] in dB to the levels [row, frame] in dB of its rendering."""

_CELL_HZ_PER_S = 31.25 / 0.010  # one cell of the paper's spectrogram: 16 kHz / 512, every 10 ms
_FEEDBACK_RANGE_DB = 50.0  # feedback is used for frames within this range of the loudest
_MAX_FEEDBACK_DB = 6.0  # largest correction of a cell by the feedback


class Objective(NamedTuple):
    """Value of the objective and its terms, each a scalar tensor."""

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
    """Add the penalties, and the guide's energy, to the score.

    Parameters
    ----------
    score : Tensor, scalar
        Mean of L_c(X + M) over windows.
    mask_db, prior_db : Tensor [row, frame]
        Mask, and the centre of the penalty (0 dB: the paper's ‖X_inp - X_t‖²).
    energy_db2 : Tensor, scalar, optional
        Guide's energy, a sum over cells. Its weight 2 alpha places the minimum of penalty plus
        energy one gradient step of the energy away from the prior.
    """
    distance = (mask_db - prior_db).square().mean()
    variance = mask_db.var(correction=0)
    total = settings.score * score + settings.alpha * distance + settings.beta * variance
    if energy_db2 is not None and settings.guide:
        total = total + 2 * settings.alpha * settings.guide * energy_db2 / mask_db.numel()
    return Objective(total, score, distance, variance)


@dataclass(frozen=True)
class StickyNotes:
    """Blocks of gain over time and frequency, by their centres and extents; all Tensors [note]."""

    seconds: Tensor
    hz: Tensor
    width_s: Tensor
    height_hz: Tensor
    gain_db: Tensor

    def profiles(
        self, row_hz: Tensor, frame_s: Tensor, smooth_hz: float = 0.0, smooth_s: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Return each note's coverage of each row [note, row] and of each frame [note, frame].

        A note's mask is the outer product of its profiles. Averaging a block over a span turns its
        edges into ramps as long as the span.
        """
        return (
            _block_coverage(row_hz, self.hz, self.height_hz, smooth_hz),
            _block_coverage(frame_s, self.seconds, self.width_s, smooth_s),
        )


def scatter_sticky_notes(
    settings: NoteSettings, duration_s: float, top_hz: float, generator: torch.Generator
) -> StickyNotes:
    """Scatter notes over a recording at random, with random gains.

    Rectangular notes have the width and height of the settings. Square ones have the same area and
    cover as many frames as bins of the paper's spectrogram.
    """
    count = max(1, round(settings.per_second * duration_s))
    position = torch.rand(2, count, generator=generator)
    width = torch.full((count,), settings.width_ms / 1000)
    height = torch.full((count,), settings.height_hz)
    if settings.shape == "square":
        area = width * height
        # width · height = area and height / width = _CELL_HZ_PER_S.
        width, height = (area / _CELL_HZ_PER_S).sqrt(), (area * _CELL_HZ_PER_S).sqrt()
    gain = torch.randn(count, generator=generator) * settings.gain_db
    return StickyNotes(position[0] * duration_s, position[1] * top_hz, width, height, gain)


def render_sticky_notes(gain_db: Tensor, row_profile: Tensor, frame_profile: Tensor) -> Tensor:
    """Return the mask [row, frame] in dB of notes with gains [note] and profiles.

    Overlapping notes are averaged; a smoothed edge that overlaps no other note fades to 0 dB.
    """
    covered = row_profile.T @ frame_profile
    # Division by at least 1 averages overlaps, but leaves the ramps of single notes.
    return ((row_profile * gain_db[:, None]).T @ frame_profile) / covered.clamp_min(1.0)


def _block_coverage(grid: Tensor, centre: Tensor, extent: Tensor, span: float) -> Tensor:
    """Return the share [note, point] of a window around each point that a block covers."""
    distance = (grid[None, :] - centre[:, None]).abs()
    half = extent[:, None] / 2
    if span == 0:
        return (distance <= half).to(grid.dtype)
    covered = torch.minimum(half, distance + span / 2) - torch.maximum(-half, distance - span / 2)
    return (covered / span).clamp(0, 1)


@dataclass(frozen=True)
class SearchStep:
    """One step of a search: the terms of the objective, and the mask that they are of.

    A long recording is searched segment by segment; `offset` is the first frame of the mask in a
    recording of `total_frames`.
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
    """Parameters of a mask: `values` are optimised."""

    values: Tensor

    def mask(self) -> Tensor:
        """Return the mask [row, frame] in dB, differentiable in `values`."""
        ...


class FreeMask:
    """Mask with one parameter per cell; its change from the start is averaged over time."""

    def __init__(self, start_db: Tensor, smooth_frames: int = 1) -> None:
        self.start_db, self.smooth_frames = start_db.detach(), smooth_frames
        self.values = torch.zeros_like(start_db, requires_grad=True)

    def mask(self) -> Tensor:
        """Add the smoothed change to the start."""
        return self.start_db + moving_average(self.values, self.smooth_frames)


class StickyNoteGains:
    """Mask with one parameter per sticky note, its gain; places and sizes are fixed."""

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
        """Render the notes with their current gains."""
        return render_sticky_notes(self.values, *self.profiles)


@dataclass(frozen=True, eq=False)
class SearchProblem:
    """Recording and losses of a search: all that determines the objective of a mask.

    Frames overlap and rows mix, so a rendered mask misses the levels that it asks for. With
    `render_feedback` the objective measures the rendered sound, and its gradient is passed to the
    mask as if rendering were the identity (straight-through estimator, Bengio, Léonard & Courville 2013).

    Parameters
    ----------
    score : ScoreFunction
        The scorer.
    rows_db, prior_db : Tensor [row, frame]
        Recording, and the mask that is the centre of the penalty.
    window_frames : int
        Length of the scorer's training crops.
    guide_energy : ScoreFunction, optional
        Energy in dB² of the whole recording.
    loudest_db : float, optional
        Level of the recording's loudest frame, if the rows are a segment of it.
    """

    score: ScoreFunction
    rows_db: Tensor
    prior_db: Tensor
    settings: SearchSettings
    window_frames: int
    max_gain_db: float
    guide_energy: ScoreFunction | None = None
    render_feedback: RenderFeedback | None = None
    loudest_db: float | None = None

    @cached_property
    def audible(self) -> Tensor:
        """Mark the frames [frame] for which render feedback is used."""
        level = frame_levels(self.rows_db)
        loudest = level.max() if self.loudest_db is None else self.loudest_db
        return level > loudest - _FEEDBACK_RANGE_DB

    def evaluate(self, mask_db: Tensor, offsets: Sequence[int]) -> Objective:
        """Return the objective of a mask [row, frame], its score averaged over windows at offsets."""
        gain_db = self._achieved_gain(mask_db)
        output = self.rows_db + gain_db
        windows = torch.stack([output[:, s : s + self.window_frames] for s in offsets])
        # Without weight the score is only reported; its gradient is not needed.
        with torch.set_grad_enabled(self.settings.score > 0):
            mean_score = self.score(windows).mean()
        energy = None if self.guide_energy is None else self.guide_energy(output[None])[0]
        return compute_objective(mean_score, gain_db, self.prior_db, self.settings, energy)

    def _achieved_gain(self, mask_db: Tensor) -> Tensor:
        if self.render_feedback is None:
            return mask_db
        # Adding a constant keeps the gradient of the mask: the straight-through estimator.
        error = self.render_feedback(mask_db.detach()) - self.rows_db - mask_db.detach()
        return mask_db + error.clamp(-_MAX_FEEDBACK_DB, _MAX_FEEDBACK_DB) * self.audible


def search_mask(
    problem: SearchProblem,
    parametrisation: Parametrisation,
    generator: torch.Generator,
    *,
    stop_score: float | None = None,
) -> Iterator[SearchStep]:
    """Minimise the objective over the mask of a recording (paper III).

    Each step scores the whole recording in windows as long as the scorer's training crops. The
    windows move from step to step, so that no border is special.

    Parameters
    ----------
    stop_score : float, optional
        Stop once the mean score is at or below this value.

    Yields
    ------
    SearchStep
        The start as number 0, then up to `settings.steps` steps.

    Raises
    ------
    CallError
        The objective is not finite any more.
    """
    settings, frames = problem.settings, problem.rows_db.shape[1]
    optimiser = _make_optimiser(settings, parametrisation.values)
    # In units of the penalty's curvature, a step of plain gradient descent is a step in dB.
    unit = problem.rows_db.numel() / (2 * settings.alpha or 1.0)

    def evaluate(offsets: list[int]) -> tuple[Tensor, Objective]:
        mask_db = parametrisation.mask().clamp(-problem.max_gain_db, problem.max_gain_db)
        return mask_db, problem.evaluate(mask_db, offsets)

    for number in range(settings.steps + 1):
        offsets = _crop_offsets(frames, problem.window_frames, generator)
        is_last = number == settings.steps
        with torch.set_grad_enabled(not is_last):
            mask_db, objective = evaluate(offsets)
        total, mean_score, distance, variance = objective_values(objective)
        if not math.isfinite(total):
            raise CallError(
                f"the search diverged at step {number}: lower search.learning_rate, search.alpha or "
                "search.beta"
            )
        stopped = stop_score is not None and mean_score <= stop_score
        terms = (total, mean_score, distance, variance)
        yield SearchStep(number, *terms, mask_db.detach(), stopped=stopped, total_frames=frames)
        if stopped or is_last:
            return
        # Most optimisers call the closure once, at the point just evaluated; line searches call it again.
        evaluated = [objective.total]

        def closure(offsets: list[int] = offsets, evaluated: list[Tensor] = evaluated) -> Tensor:
            total = unit * (evaluated.pop() if evaluated else evaluate(offsets)[1].total)
            parametrisation.values.grad = None
            total.backward()  # type: ignore[no-untyped-call]
            return total.detach()

        optimiser.step(closure)


def objective_values(objective: Objective) -> list[float]:
    """Return all terms as floats; one transfer, since each would wait for the GPU."""
    values: list[float] = torch.stack([term.detach() for term in objective]).tolist()
    return values


def _crop_offsets(total: int, window: int, generator: torch.Generator) -> list[int]:
    if total <= window:
        return [0]
    offset = int(torch.randint(window, (1,), generator=generator))
    # The first and the last window are always there, so that the ends count at every step.
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
    """Adam (Kingma & Ba 2015) with its default constants."""

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


# Importing torch.optim takes a second; the two optimisers in use need a few lines.
_LIGHT_OPTIMISERS: dict[str, type[_GradientDescent]] = {"SGD": _GradientDescent, "Adam": _Adam}


def _make_optimiser(settings: SearchSettings, values: Tensor) -> _ClosureOptimiser:
    if settings.optimiser in _LIGHT_OPTIMISERS:
        return _LIGHT_OPTIMISERS[settings.optimiser](values, settings.learning_rate)
    kind: type[torch.optim.AdamW] = getattr(torch.optim, settings.optimiser)
    return kind([values], lr=settings.learning_rate)
