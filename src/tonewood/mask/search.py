"""Search for a mask by gradient descent on the objective, with frozen networks.

The objective is L_c(X + M) + alpha‖M - M_prior‖² + beta Var(M) (paper, section III), plus the guide's
energy. The mask is parametrised by its cells, or by sticky notes: smoothed blocks (paper, figure 2).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.features import frame_levels
from tonewood.errors import CallError
from tonewood.mask.mask import moving_average, moving_average_gradient
from tonewood.settings import NoteSettings, SearchSettings
from tonewood.utils.arrays import Levels, RandomDraws, usual_torch_state
from tonewood.utils.parallel import lazy_property

RenderFeedback = Callable[[Levels], Levels]
"""Maps a mask [row, frame] in dB to the levels [row, frame] in dB of its rendering."""

EnergyFunction = Callable[[Levels], tuple[float, Levels]]
"""Maps levels [row, frame] in dB to an energy in dB², a sum over cells, and its gradient [row, frame]."""

Vector = NDArray[np.float32]

_CELL_HZ_PER_S = 31.25 / 0.010  # one cell of the paper's spectrogram: 16 kHz / 512, every 10 ms
_FEEDBACK_RANGE_DB = 50.0  # feedback is used for frames within this range of the loudest
MAX_FEEDBACK_DB = 6.0  # largest correction of a cell by the feedback, unless a problem has its own


class ScoreFunction(Protocol):
    """Scores of windows of levels [window, row, frame] in dB."""

    def __call__(self, windows: Levels) -> Vector:
        """Return the scores [window]."""
        ...

    def gradient(self, windows: Levels) -> Levels:
        """Return the gradient [window, row, frame] of the mean score."""
        ...


@dataclass(frozen=True)
class StickyNotes:
    """Blocks of gain over time and frequency, by their centres and extents; all arrays [note]."""

    seconds: Vector
    hz: Vector
    width_s: Vector
    height_hz: Vector
    gain_db: Vector

    def profiles(
        self, row_hz: Vector, frame_s: Vector, smooth_hz: float = 0.0, smooth_s: float = 0.0
    ) -> tuple[Levels, Levels]:
        """Return each note's coverage of each row [note, row] and of each frame [note, frame].

        A note's mask is the outer product of its profiles. Averaging a block over a span turns its
        edges into ramps as long as the span.
        """
        return (
            _block_coverage(row_hz, self.hz, self.height_hz, smooth_hz),
            _block_coverage(frame_s, self.seconds, self.width_s, smooth_s),
        )


def scatter_sticky_notes(
    settings: NoteSettings, duration_s: float, top_hz: float, draws: RandomDraws
) -> StickyNotes:
    """Scatter notes over a recording at random, with random gains.

    Rectangular notes have the width and height of the settings. Square ones have the same area and
    cover as many frames as bins of the paper's spectrogram.
    """
    count = max(1, round(settings.per_second * duration_s))
    position = draws.uniform(2, count)
    width = np.full(count, settings.width_ms / 1000, dtype=np.float32)
    height = np.full(count, settings.height_hz, dtype=np.float32)
    if settings.shape == "square":
        area = width * height
        # width · height = area and height / width = _CELL_HZ_PER_S.
        width = np.sqrt(area * np.float32(1 / _CELL_HZ_PER_S))
        height = width * np.float32(_CELL_HZ_PER_S)
    gain = draws.normal(count) * np.float32(settings.gain_db)
    seconds, hz = position * np.array([[duration_s], [top_hz]], dtype=np.float32)
    return StickyNotes(seconds, hz, width, height, gain)


def render_sticky_notes(gain_db: Vector, row_profile: Levels, frame_profile: Levels) -> Levels:
    """Return the mask [row, frame] in dB of notes with gains [note] and profiles.

    Overlapping notes are averaged; a smoothed edge that overlaps no other note fades to 0 dB.
    """
    weighted: Levels = row_profile * gain_db[:, None]
    mask: Levels = (weighted.T @ frame_profile) / _overlaps(row_profile, frame_profile)
    return mask


def _overlaps(row_profile: Levels, frame_profile: Levels) -> Levels:
    """Return the number of notes over each cell [row, frame], at least 1."""
    # Division by at least 1 averages overlaps, but leaves the ramps of single notes.
    overlaps: Levels = np.maximum(row_profile.T @ frame_profile, np.float32(1))
    return overlaps


def _block_coverage(grid: Vector, centre: Vector, extent: Vector, span: float) -> Levels:
    """Return the share [note, point] of a window around each point that a block covers."""
    distance = np.abs(grid[None, :] - centre[:, None])
    half = extent[:, None] / 2
    if span == 0:
        share: Levels = (distance <= half).astype(np.float32)
    else:
        covered = np.minimum(half, distance + span / 2) - np.maximum(-half, distance - span / 2)
        share = (covered / span).clip(0, 1).astype(np.float32)
    return share


class Parametrisation(Protocol):
    """Parameters of a mask: `values` are optimised, in place."""

    values: NDArray[np.float32]

    def mask(self) -> Levels:
        """Return the mask [row, frame] in dB."""
        ...

    def gradient(self, mask_gradient: Levels) -> NDArray[np.float32]:
        """Return the gradient of the values, of that of the mask [row, frame]."""
        ...


class FreeMask:
    """Mask with one parameter per cell; its change from the start is averaged over time."""

    def __init__(self, start_db: Levels, smooth_frames: int = 1) -> None:
        self.start_db, self.smooth_frames = start_db, smooth_frames
        self.values: Levels = np.zeros_like(start_db)

    def mask(self) -> Levels:
        """Add the smoothed change to the start."""
        return self.start_db + moving_average(self.values, self.smooth_frames)

    def gradient(self, mask_gradient: Levels) -> Levels:
        """Return the gradient of the change before its smoothing."""
        return moving_average_gradient(mask_gradient, self.smooth_frames)


class StickyNoteGains:
    """Mask with one parameter per sticky note, its gain; places and sizes are fixed."""

    def __init__(
        self, notes: StickyNotes, row_hz: Vector, frame_s: Vector, smooth_hz: float, smooth_s: float
    ) -> None:
        self.profiles = notes.profiles(row_hz, frame_s, smooth_hz, smooth_s)
        self.values = notes.gain_db.copy()

    def mask(self) -> Levels:
        """Render the notes with their current gains."""
        return render_sticky_notes(self.values, *self.profiles)

    def gradient(self, mask_gradient: Levels) -> Vector:
        """Return the gradient of each note's gain [note]."""
        rows, frames = self.profiles
        gradient: Vector = ((rows @ (mask_gradient / _overlaps(rows, frames))) * frames).sum(axis=1)
        return gradient


@dataclass(frozen=True, eq=False)
class SearchProblem:
    """Recording and losses of a search: all that determines the objective of a mask.

    Frames overlap and rows mix, so a rendered mask misses the levels that it asks for. With
    `render_feedback` the objective measures the rendered sound, and its gradient is passed to the
    mask as if rendering were the identity (straight-through estimator, Bengio, Léonard & Courville 2013).
    """

    score: ScoreFunction  # the scorer
    rows_db: Levels  # [row, frame]: recording
    prior_db: Levels  # [row, frame]: mask that is the centre of the penalty
    settings: SearchSettings
    window_frames: int  # length of the scorer's training crops
    max_gain_db: float
    guide_energy: EnergyFunction | None = None
    render_feedback: RenderFeedback | None = None
    loudest_db: float | None = None  # level of the recording's loudest frame, if the rows are a segment of it
    max_feedback_db: float = MAX_FEEDBACK_DB

    @lazy_property
    def audible(self) -> NDArray[np.bool_]:
        """Mark the frames [frame] for which render feedback is used."""
        level = frame_levels(self.rows_db)
        loudest = level.max() if self.loudest_db is None else self.loudest_db
        return level > loudest - _FEEDBACK_RANGE_DB

    def achieved_gain(self, mask_db: Levels) -> Levels:
        """Return the gain [row, frame] in dB that a mask has in the sound."""
        if self.render_feedback is None:
            return mask_db
        # Adding a constant keeps the gradient of the mask: the straight-through estimator.
        error = self.render_feedback(mask_db) - self.rows_db - mask_db
        limit = self.max_feedback_db
        achieved: Levels = mask_db + error.clip(-limit, limit) * self.audible
        return achieved


class Objective:
    """Objective of a mask, its terms and its gradient; each is computed when it is first asked for.

    The penalty draws to the prior, which for the paper is 0 dB: ‖X_inp - X_t‖². The weight 2 alpha of the
    guide places the minimum of penalty plus energy one gradient step of the energy away from the prior.

    Parameters
    ----------
    mask_db : array [row, frame]
    offsets : sequence of int
        First frames of the windows that are scored.
    """

    def __init__(self, problem: SearchProblem, mask_db: Levels, offsets: Sequence[int]) -> None:
        self._problem, self._mask_db, self._offsets = problem, mask_db, offsets

    @lazy_property
    def total(self) -> float:
        """Weighted sum of all terms."""
        settings = self._problem.settings
        total = settings.alpha * self.distance + settings.beta * self.variance
        if settings.score > 0:
            total += settings.score * self.score
        if self._guide is not None:
            total += self._guide_weight * self._guide[0]
        return total

    @lazy_property
    def score(self) -> float:
        """Mean of L_c(X + M) over windows."""
        return float(self._problem.score(self._windows).mean())

    @lazy_property
    def distance(self) -> float:
        """Mean square of the gain's difference from the prior, dB²."""
        return float(np.square(self._departure).mean(dtype=np.float64))

    @lazy_property
    def variance(self) -> float:
        """Variance of the gain over all cells, dB²."""
        return float(self._gain_db.var(dtype=np.float64))

    @lazy_property
    def gradient(self) -> Levels:
        """Gradient [row, frame] of the total."""
        settings, gain_db = self._problem.settings, self._gain_db
        gradient: Levels = np.float32(2 * settings.alpha / gain_db.size) * self._departure
        if settings.beta > 0:
            gradient += np.float32(2 * settings.beta / gain_db.size) * (gain_db - gain_db.mean())
        if self._guide is not None:
            gradient += np.float32(self._guide_weight) * self._guide[1]
        if settings.score > 0:
            slopes = self._problem.score.gradient(self._windows)
            for start, slope in zip(self._offsets, slopes, strict=True):
                window = slice(start, start + self._problem.window_frames)
                gradient[:, window] += np.float32(settings.score) * slope
        return gradient

    @lazy_property
    def _gain_db(self) -> Levels:
        return self._problem.achieved_gain(self._mask_db)

    @lazy_property
    def _departure(self) -> Levels:
        return self._gain_db - self._problem.prior_db

    @lazy_property
    def _windows(self) -> Levels:
        output = self._problem.rows_db + self._gain_db
        return np.stack([output[:, s : s + self._problem.window_frames] for s in self._offsets])

    @lazy_property
    def _guide(self) -> tuple[float, Levels] | None:
        """Energy of the guide and its gradient; None if it does not take part."""
        problem = self._problem
        if problem.guide_energy is None or not problem.settings.guide:
            return None
        return problem.guide_energy(problem.rows_db + self._gain_db)

    @property
    def _guide_weight(self) -> float:
        settings = self._problem.settings
        return 2 * settings.alpha * (settings.guide or 0.0) / self._mask_db.size


@dataclass(frozen=True)
class SearchStep:
    """One step of a search: a mask and its objective.

    A long recording is searched segment by segment; `offset` is the first frame of the mask in a
    recording of `total_frames`. The objective is that of the segment with its margins.
    """

    number: int
    mask_db: Levels  # [row, frame]
    objective: Objective
    stopped: bool = False
    offset: int = 0
    total_frames: int = 0


def search_mask(
    problem: SearchProblem,
    parametrisation: Parametrisation,
    draws: RandomDraws,
    *,
    stop_score: float | None = None,
) -> Iterator[SearchStep]:
    """Minimise the objective over the mask of a recording (paper III).

    If the scorer has weight, each step scores the whole recording in windows as long as its training
    crops. The windows move from step to step, so that no border is special.

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
    unit = problem.rows_db.size / (2 * settings.alpha or 1.0)

    # A search that diverges overflows; its objective says so.
    quiet = partial(np.errstate, over="ignore", invalid="ignore")
    for number in range(settings.steps + 1):
        offsets, is_last = _crop_offsets(frames, problem.window_frames, draws), number == settings.steps
        with quiet():
            mask_db = parametrisation.mask().clip(-problem.max_gain_db, problem.max_gain_db)
            objective = Objective(problem, mask_db, offsets)
            # The objective of the last mask is only reported, if anybody asks for it.
            finite = np.isfinite(mask_db).all() and (is_last or math.isfinite(objective.total))
        if not finite:
            raise CallError(
                f"the search diverged at step {number}: lower search.learning_rate, search.alpha or "
                "search.beta"
            )
        stopped = stop_score is not None and objective.score <= stop_score
        yield SearchStep(number, mask_db, objective, stopped=stopped, total_frames=frames)
        if stopped or is_last:
            return
        with quiet():
            optimiser.step(_Slope(problem, parametrisation, offsets, unit, objective))


class _Slope:
    """Value and gradient of an objective at the current values of a parametrisation.

    Most optimisers ask once, at the point just evaluated; line searches ask again.
    """

    def __init__(
        self,
        problem: SearchProblem,
        parametrisation: Parametrisation,
        offsets: Sequence[int],
        unit: float,
        objective: Objective,
    ) -> None:
        self._problem, self._parametrisation, self._offsets = problem, parametrisation, offsets
        self._unit, self._evaluated = unit, [objective]

    def __call__(self) -> tuple[float, NDArray[np.float32]]:
        unlimited, limit = self._parametrisation.mask(), self._problem.max_gain_db
        if self._evaluated:
            objective = self._evaluated.pop()
        else:
            objective = Objective(self._problem, unlimited.clip(-limit, limit), self._offsets)
        # Beyond the limit, a change of the mask has no effect.
        inside = np.abs(unlimited) <= limit
        slope = self._parametrisation.gradient(np.float32(self._unit) * objective.gradient * inside)
        return self._unit * objective.total, slope


def _crop_offsets(total: int, window: int, draws: RandomDraws) -> list[int]:
    if total <= window:
        return [0]
    offset = draws.integer(window)
    # The first and the last window are always there, so that the ends count at every step.
    return sorted({0, *range(offset, total - window, window), total - window})


class _Optimiser(Protocol):
    def step(self, slope: _Slope) -> object: ...


class _GradientDescent:
    """Plain gradient descent."""

    def __init__(self, values: NDArray[np.float32], learning_rate: float) -> None:
        self.values, self.learning_rate = values, np.float32(learning_rate)

    def step(self, slope: _Slope) -> None:
        _, gradient = slope()
        self.values -= self.learning_rate * self.direction(gradient)

    def direction(self, gradient: NDArray[np.float32]) -> NDArray[np.float32]:
        return gradient


class _Adam(_GradientDescent):
    """Adam (Kingma & Ba 2015) with its default constants."""

    def __init__(self, values: NDArray[np.float32], learning_rate: float) -> None:
        super().__init__(values, learning_rate)
        self.mean, self.square = np.zeros_like(values), np.zeros_like(values)
        self.steps = 0

    def direction(self, gradient: NDArray[np.float32]) -> NDArray[np.float32]:
        self.steps += 1
        self.mean += np.float32(1 - 0.9) * (gradient - self.mean)
        self.square += np.float32(1 - 0.999) * (np.square(gradient) - self.square)
        mean, square = self.mean / (1 - 0.9**self.steps), self.square / (1 - 0.999**self.steps)
        direction: NDArray[np.float32] = mean / (np.sqrt(square) + np.float32(1e-8))
        return direction


class _TorchOptimiser:
    """Optimiser of `torch.optim`, on the memory of the values."""

    def __init__(self, name: str, values: NDArray[np.float32], learning_rate: float) -> None:
        import torch  # the two optimisers above do without

        with usual_torch_state():
            self._values = torch.from_numpy(values).requires_grad_()
            kind: type[torch.optim.AdamW] = getattr(torch.optim, name)
            self._optimiser = kind([self._values], lr=learning_rate)

    def step(self, slope: _Slope) -> None:
        import torch

        def closure() -> float:
            total, gradient = slope()
            self._values.grad = torch.from_numpy(np.ascontiguousarray(gradient))
            return total

        with usual_torch_state():
            self._optimiser.step(closure)


_LIGHT_OPTIMISERS: dict[str, type[_GradientDescent]] = {"SGD": _GradientDescent, "Adam": _Adam}


def _make_optimiser(settings: SearchSettings, values: NDArray[np.float32]) -> _Optimiser:
    if settings.optimiser in _LIGHT_OPTIMISERS:
        return _LIGHT_OPTIMISERS[settings.optimiser](values, settings.learning_rate)
    return _TorchOptimiser(settings.optimiser, values, settings.learning_rate)
