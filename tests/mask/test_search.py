from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tonewood.errors import CallError
from tonewood.mask.mask import moving_average
from tonewood.mask.search import (
    EnergyFunction,
    FreeMask,
    Parametrisation,
    RenderFeedback,
    ScoreFunction,
    SearchProblem,
    SearchStep,
    StickyNoteGains,
    StickyNotes,
    scatter_sticky_notes,
    search_mask,
)
from tonewood.setting_types import OptimizerName
from tonewood.settings import NoteSettings, SearchSettings
from tonewood.utils.arrays import Levels, RandomDraws

ROWS, FRAMES = 6, 40


def search_settings(**fields: object) -> SearchSettings:
    """Return settings of a search by the score alone, as in the paper."""
    defaults = {"score": 1.0, "guide": 0.0, "optimiser": "Adam", "learning_rate": 0.1}
    return SearchSettings.model_validate({**defaults, **fields})


def field(seed: int, frames: int = FRAMES) -> Levels:
    return np.random.default_rng(seed).normal(0, 3, (ROWS, frames)).astype(np.float32)


class Toward:
    """Score function with minimum 0 at the target."""

    def __init__(self, target: Levels | float) -> None:
        self.target = target

    def __call__(self, windows: Levels) -> Levels:
        score: Levels = np.square(windows - self.target).mean(axis=(1, 2))
        return score

    def gradient(self, windows: Levels) -> Levels:
        return (2 * (windows - self.target) / windows.size).astype(np.float32)


class Recorded:
    """Score function that notes its windows; a mask does not change it."""

    def __init__(self) -> None:
        self.windows: list[Levels] = []

    def __call__(self, windows: Levels) -> Levels:
        self.windows.append(windows)
        return np.zeros(len(windows), np.float32)

    def gradient(self, windows: Levels) -> Levels:
        return np.zeros_like(windows)


def run(
    score: ScoreFunction,
    settings: SearchSettings,
    *,
    recording: Levels | None = None,
    start: Parametrisation | None = None,
    anchor: Levels | None = None,
    window_frames: int = 10_000,
    max_gain_db: float = 60.0,
    stop_score: float | None = None,
    guide_energy: EnergyFunction | None = None,
    feedback: RenderFeedback | None = None,
    seed: int = 0,
) -> Iterator[SearchStep]:
    rows = field(1) if recording is None else recording
    problem = SearchProblem(
        score,
        rows,
        np.zeros_like(rows) if anchor is None else anchor,
        settings,
        window_frames=window_frames,
        max_gain_db=max_gain_db,
        guide_energy=guide_energy,
        render_feedback=feedback,
    )
    start = start or FreeMask(np.zeros_like(rows))
    return search_mask(problem, start, RandomDraws(seed), stop_score=stop_score)


OPTIMISERS = [("Adam", 0.2, 250), ("SGD", 0.25, 30), ("LBFGS", 1.0, 15)]


@pytest.mark.parametrize(("optimiser", "rate", "steps"), OPTIMISERS)
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_search_finds_the_known_optimum(optimiser: str, rate: float, steps: int, alpha: float) -> None:
    """Of mean (X + M - T)² + alpha mean (M - A)²: M = (T - X + alpha A) / (1 + alpha)."""
    recording, target, anchor = field(1), field(2), field(3)
    settings = search_settings(alpha=alpha, beta=0, optimiser=optimiser, learning_rate=rate, steps=steps)
    *_, last = run(Toward(target), settings, recording=recording, anchor=anchor)
    optimum = (target - recording + alpha * anchor) / (1 + alpha)
    assert np.abs(last.mask_db - optimum).max() < 0.05
    assert last.number == steps


def test_variance_pulls_the_mask_to_its_mean() -> None:
    """Of mean (M - D)² + beta Var(M): M = (D + beta mean D) / (1 + beta)."""
    expected = field(2) - field(1)
    settings = search_settings(alpha=0, beta=2.0, learning_rate=0.1, steps=250)
    *_, last = run(Toward(field(2)), settings)
    optimum = (expected + 2 * expected.mean()) / 3
    assert np.abs(last.mask_db - optimum).max() < 0.05


@pytest.mark.parametrize("window_frames", [7, 16, 39])
def test_search_in_windows_finds_the_known_optimum(window_frames: int) -> None:
    target = np.arange(6, dtype=np.float32)[:, None]
    settings = search_settings(alpha=0, learning_rate=0.2, steps=300)
    *_, last = run(Toward(target), settings, window_frames=window_frames)
    assert np.abs(last.mask_db - (target - field(1))).max() < 0.1


def test_each_step_scores_the_whole_recording_in_moving_windows() -> None:
    frames = 101
    recording = np.repeat(np.arange(frames, dtype=np.float32)[None], ROWS, axis=0)
    score = Recorded()
    settings = search_settings(steps=12)
    for _ in run(score, settings, recording=recording, window_frames=20):
        pass
    seen = [windows[:, 0].round() for windows in score.windows]
    for cut in seen:
        assert cut.shape[1] == 20
        assert set(cut.flatten().tolist()) == set(range(frames))
        assert (np.diff(cut, axis=1) == 1).all()
    first_cut_inside = {int(cut[1, 0]) for cut in seen}
    assert len(first_cut_inside) > 4


def test_short_recording_is_one_window() -> None:
    score = Recorded()
    list(run(score, search_settings(steps=1), window_frames=FRAMES + 1))
    assert {windows.shape for windows in score.windows} == {(1, ROWS, FRAMES)}


def test_step_0_is_the_start_and_every_step_reports_its_parts() -> None:
    start, target = field(4), field(2)
    settings = search_settings(alpha=0.1, beta=0.2, steps=3)
    steps = list(run(Toward(target), settings, start=FreeMask(start), anchor=field(3)))
    assert [step.number for step in steps] == [0, 1, 2, 3]
    assert np.array_equal(steps[0].mask_db, start)
    for step in steps:
        mask = step.mask_db
        assert step.objective.score == pytest.approx(np.square(field(1) + mask - target).mean())
        assert step.objective.distance == pytest.approx(np.square(mask - field(3)).mean())
        assert step.objective.variance == pytest.approx(mask.var())
        assert step.objective.total == pytest.approx(
            step.objective.score + 0.1 * step.objective.distance + 0.2 * step.objective.variance
        )
        assert not step.stopped
    assert (
        steps[3].objective.total
        < steps[2].objective.total
        < steps[1].objective.total
        < steps[0].objective.total
    )


def test_masks_of_earlier_steps_do_not_change() -> None:
    steps = list(run(Toward(field(2)), search_settings(steps=3)))
    assert (steps[0].mask_db == 0).all()
    assert not np.array_equal(steps[1].mask_db, steps[2].mask_db)


def test_zero_steps_yield_only_the_start() -> None:
    (only,) = run(Toward(field(2)), search_settings(steps=0), start=FreeMask(field(4)))
    assert only.number == 0
    assert np.array_equal(only.mask_db, field(4))


def test_search_stops_at_stop_score() -> None:
    settings = search_settings(alpha=0, learning_rate=0.1, steps=500)
    steps = list(run(Toward(field(2)), settings, stop_score=2.0))
    assert len(steps) < 100
    assert steps[-1].stopped
    assert steps[-1].objective.score <= 2.0 < steps[-2].objective.score
    assert not any(step.stopped for step in steps[:-1])


def test_search_stops_at_start_below_stop_score() -> None:
    (only,) = run(Toward(field(1)), search_settings(steps=9), stop_score=0.0)
    assert only.stopped
    assert (only.mask_db == 0).all()


@pytest.mark.parametrize(("optimiser", "rate", "steps"), OPTIMISERS)
def test_gains_stay_within_the_limit(optimiser: str, rate: float, steps: int) -> None:
    settings = search_settings(alpha=0, optimiser=optimiser, learning_rate=rate, steps=steps)
    start = FreeMask(10 * field(4))
    outcome = list(run(Toward(field(2) + 20), settings, start=start, max_gain_db=5.0))
    assert all(np.abs(step.mask_db).max() <= 5 for step in outcome)
    assert np.abs(outcome[-1].mask_db).max() == 5


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_every_optimiser_descends(name: str) -> None:
    settings = search_settings(alpha=0.1, optimiser=name, learning_rate=0.05, steps=8)
    steps = list(run(Toward(field(2)), settings))
    assert steps[-1].objective.total < steps[0].objective.total


def test_unknown_optimiser_is_rejected() -> None:
    for name in ("Adamant", "lr_scheduler", "SparseAdam", "__name__"):
        with pytest.raises(ValidationError, match="optimiser"):
            search_settings(optimiser=name)


def test_diverging_search_raises() -> None:
    endless = run(Toward(np.inf), search_settings(steps=3))
    with pytest.raises(CallError, match=r"diverged at step 0: lower search\.lear"):
        next(endless)


@pytest.mark.parametrize("alpha", [0.01, 0.7])
@pytest.mark.parametrize("guide", [0.5, 2.0])
def test_one_gradient_step_moves_mask_by_guide_direction(alpha: float, guide: float) -> None:
    """Of alpha mean (M - A)² + 2 alpha g E / cells, E = -sum (lack M): M = A + g lack."""
    lack, anchor = field(5), field(3)
    settings = search_settings(score=0, guide=guide, alpha=alpha, optimiser="SGD", learning_rate=1.0, steps=1)
    *_, last = run(
        Toward(0.0),
        settings,
        start=FreeMask(anchor),
        anchor=anchor,
        window_frames=10,
        guide_energy=lambda masked: (-float((lack * masked).sum()), -lack),
    )
    assert np.allclose(last.mask_db, anchor + guide * lack, atol=1e-3)


def run_with_feedback(rows: Levels, anchor: Levels) -> tuple[list[SearchStep], RenderFeedback]:
    """Return a search for the prior, and a rendering that blurs masks over five frames."""

    def render(mask: Levels) -> Levels:
        return rows + moving_average(mask, 5)

    settings = search_settings(score=0, alpha=0.3, optimiser="SGD", learning_rate=1.0, steps=3)
    start = FreeMask(anchor)
    steps = run(Toward(0.0), settings, recording=rows, start=start, anchor=anchor, feedback=render)
    return list(steps), render


WAVES = np.repeat(4 * np.sin(np.arange(FRAMES, dtype=np.float32) / 3)[None], ROWS, axis=0)


def test_render_feedback_brings_the_sound_to_the_prior() -> None:
    rows = field(1)
    steps, render = run_with_feedback(rows, WAVES)
    errors = [float(np.square(render(s.mask_db) - rows - WAVES).mean()) for s in steps]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]
    assert steps[0].objective.distance == pytest.approx(errors[0], rel=1e-4)


def test_render_feedback_ignores_pauses() -> None:
    rows = field(1)
    rows[:, :10] -= 90
    *_, last = run_with_feedback(rows, WAVES)[0]
    np.testing.assert_allclose(last.mask_db[:, :10], WAVES[:, :10], atol=1e-5)
    assert not np.allclose(last.mask_db[:, 10:], WAVES[:, 10:], atol=0.05)


def test_generator_determines_the_windows() -> None:
    uneven = Toward(field(2, 8))
    settings = search_settings(steps=5)
    masks = [list(run(uneven, settings, window_frames=8, seed=s))[-1].mask_db for s in (0, 0, 1)]
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])


def test_search_leaves_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    list(run(Toward(0.0), search_settings(steps=2), window_frames=9))
    assert np.array_equal(before, torch.get_rng_state())


def test_free_mask_smooths_the_change_but_not_the_start() -> None:
    cells = FreeMask(field(4), smooth_frames=9)
    assert np.array_equal(cells.mask(), field(4))
    settings = search_settings(alpha=0, learning_rate=0.1, steps=30)
    *_, last = run(Toward(field(2)), settings, start=cells)
    added = last.mask_db - field(4)
    assert np.allclose(added, moving_average(cells.values, 9), atol=1e-5)
    assert np.abs(added).max() > 0.5
    rough = np.abs(np.diff(field(2) - field(1), axis=1)).mean()
    assert np.abs(np.diff(added, axis=1)).mean() < 0.2 * rough


def scattered() -> StickyNotes:
    settings = NoteSettings(per_second=12, width_ms=80, height_hz=1_500)
    return scatter_sticky_notes(settings, 0.4, 8_000.0, RandomDraws(0))


def gains_of(notes: StickyNotes) -> StickyNoteGains:
    row_hz = np.linspace(200, 7_800, ROWS, dtype=np.float32)
    frame_s = np.arange(FRAMES, dtype=np.float32) * np.float32(0.01)
    return StickyNoteGains(notes, row_hz, frame_s, 300.0, 0.03)


def test_note_gains_start_at_the_notes_and_recover_a_mask() -> None:
    notes = scattered()
    start = gains_of(notes)
    hidden = gains_of(notes)
    hidden.values[:] = np.linspace(-6, 6, len(notes.gain_db))
    expected = hidden.mask()
    settings = search_settings(alpha=0, learning_rate=0.2, steps=300)
    steps = list(run(Toward(field(1) + expected), settings, start=start))
    assert np.array_equal(steps[0].mask_db, gains_of(notes).mask())
    assert steps[0].objective.score > 1
    assert steps[-1].objective.score < 1e-3
    assert np.abs(steps[-1].mask_db - expected).max() < 0.2


def test_note_gains_do_not_modify_the_notes() -> None:
    notes = scattered()
    gains_before = notes.gain_db.copy()
    list(run(Toward(field(2)), search_settings(steps=3), start=gains_of(notes)))
    assert np.array_equal(notes.gain_db, gains_before)


@pytest.mark.parametrize("optimiser", ["SGD", "Adam"])
def test_optimisers_equal_those_of_torch(optimiser: OptimizerName) -> None:
    target, values = field(3), torch.zeros(ROWS, FRAMES, requires_grad=True)
    settings = search_settings(optimiser=optimiser, learning_rate=0.05, steps=20, alpha=0.1)
    *_, last = run(Toward(target), settings)
    twin = getattr(torch.optim, optimiser)([values], lr=0.05)
    unit = values.numel() / (2 * settings.alpha)
    for _ in range(20):
        twin.zero_grad()
        output = torch.from_numpy(field(1)) + values
        loss = (output - torch.from_numpy(target)).square().mean() + settings.alpha * values.square().mean()
        (unit * loss).backward()  # type: ignore[no-untyped-call]
        twin.step()
    np.testing.assert_allclose(last.mask_db, values.detach().numpy(), atol=1e-4, rtol=1e-4)
