from collections.abc import Iterator
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tonewood.errors import CallError
from tonewood.mask.mask import moving_average
from tonewood.mask.search import (
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

ROWS, FRAMES = 6, 40


def search_settings(**fields: object) -> SearchSettings:
    """Return settings of a search by the score alone, as in the paper."""
    defaults = {"score": 1.0, "guide": 0.0, "optimiser": "Adam", "learning_rate": 0.1}
    return SearchSettings.model_validate({**defaults, **fields})


def field(seed: int, frames: int = FRAMES) -> Tensor:
    return 3 * torch.randn(ROWS, frames, generator=torch.Generator().manual_seed(seed))


def toward(target: Tensor) -> ScoreFunction:
    """Return a score function with minimum 0 at the target."""
    return lambda rows: (rows - target).square().mean(dim=(1, 2))


def run(
    score: ScoreFunction,
    settings: SearchSettings,
    *,
    recording: Tensor | None = None,
    start: Parametrisation | None = None,
    anchor: Tensor | None = None,
    window_frames: int = 10_000,
    max_gain_db: float = 60.0,
    stop_score: float | None = None,
    guide_energy: ScoreFunction | None = None,
    feedback: RenderFeedback | None = None,
    seed: int = 0,
) -> Iterator[SearchStep]:
    rows = field(1) if recording is None else recording
    problem = SearchProblem(
        score,
        rows,
        torch.zeros_like(rows) if anchor is None else anchor,
        settings,
        window_frames=window_frames,
        max_gain_db=max_gain_db,
        guide_energy=guide_energy,
        render_feedback=feedback,
    )
    generator = torch.Generator().manual_seed(seed)
    return search_mask(problem, start or FreeMask(torch.zeros_like(rows)), generator, stop_score=stop_score)


OPTIMISERS = [("Adam", 0.2, 250), ("SGD", 0.25, 30), ("LBFGS", 1.0, 15)]


@pytest.mark.parametrize(("optimiser", "rate", "steps"), OPTIMISERS)
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_search_finds_the_known_optimum(optimiser: str, rate: float, steps: int, alpha: float) -> None:
    """Of mean (X + M - T)² + alpha mean (M - A)²: M = (T - X + alpha A) / (1 + alpha)."""
    recording, target, anchor = field(1), field(2), field(3)
    settings = search_settings(alpha=alpha, beta=0, optimiser=optimiser, learning_rate=rate, steps=steps)
    *_, last = run(toward(target), settings, recording=recording, anchor=anchor)
    optimum = (target - recording + alpha * anchor) / (1 + alpha)
    assert (last.mask_db - optimum).abs().max() < 0.05
    assert last.number == steps


def test_variance_pulls_the_mask_to_its_mean() -> None:
    """Of mean (M - D)² + beta Var(M): M = (D + beta mean D) / (1 + beta)."""
    expected = field(2) - field(1)
    settings = search_settings(alpha=0, beta=2.0, learning_rate=0.1, steps=250)
    *_, last = run(toward(field(2)), settings)
    optimum = (expected + 2 * expected.mean()) / 3
    assert (last.mask_db - optimum).abs().max() < 0.05


@pytest.mark.parametrize("window_frames", [7, 16, 39])
def test_search_in_windows_finds_the_known_optimum(window_frames: int) -> None:
    target = torch.arange(6.0)[:, None]
    settings = search_settings(alpha=0, learning_rate=0.2, steps=300)
    *_, last = run(toward(target), settings, window_frames=window_frames)
    assert (last.mask_db - (target - field(1))).abs().max() < 0.1


def test_each_step_scores_the_whole_recording_in_moving_windows() -> None:
    frames = 101
    recording = torch.arange(float(frames)).expand(ROWS, frames)
    seen: list[Tensor] = []

    def record(rows: Tensor) -> Tensor:
        seen.append(rows.detach()[:, 0])
        return 0 * rows.sum(dim=(1, 2))

    settings = search_settings(steps=12)
    for _ in run(record, settings, recording=recording, window_frames=20):
        pass
    for cut in seen:
        assert cut.shape[1] == 20
        assert set(cut.round().flatten().tolist()) == set(range(frames))
        assert (cut.round().diff(dim=1) == 1).all()
    first_cut_inside = {int(cut[1, 0].round()) for cut in seen}
    assert len(first_cut_inside) > 4


def test_short_recording_is_one_window() -> None:
    shapes = []

    def record(rows: Tensor) -> Tensor:
        shapes.append(tuple(rows.shape))
        return rows.mean(dim=(1, 2))

    list(run(record, search_settings(steps=1), window_frames=FRAMES + 1))
    assert set(shapes) == {(1, ROWS, FRAMES)}


def test_step_0_is_the_start_and_every_step_reports_its_parts() -> None:
    start, target = field(4), field(2)
    settings = search_settings(alpha=0.1, beta=0.2, steps=3)
    steps = list(run(toward(target), settings, start=FreeMask(start), anchor=field(3)))
    assert [step.number for step in steps] == [0, 1, 2, 3]
    assert torch.equal(steps[0].mask_db, start)
    for step in steps:
        mask = step.mask_db
        assert not mask.requires_grad
        assert step.score == pytest.approx((field(1) + mask - target).square().mean().item())
        assert step.distance == pytest.approx((mask - field(3)).square().mean().item())
        assert step.variance == pytest.approx(mask.var(correction=0).item())
        assert step.total == pytest.approx(step.score + 0.1 * step.distance + 0.2 * step.variance)
        assert not step.stopped
    assert steps[3].total < steps[2].total < steps[1].total < steps[0].total


def test_masks_of_earlier_steps_do_not_change() -> None:
    steps = list(run(toward(field(2)), search_settings(steps=3)))
    assert (steps[0].mask_db == 0).all()
    assert not torch.equal(steps[1].mask_db, steps[2].mask_db)


def test_zero_steps_yield_only_the_start() -> None:
    (only,) = run(toward(field(2)), search_settings(steps=0), start=FreeMask(field(4)))
    assert only.number == 0
    assert torch.equal(only.mask_db, field(4))


def test_search_stops_at_stop_score() -> None:
    settings = search_settings(alpha=0, learning_rate=0.1, steps=500)
    steps = list(run(toward(field(2)), settings, stop_score=2.0))
    assert len(steps) < 100
    assert steps[-1].stopped
    assert steps[-1].score <= 2.0 < steps[-2].score
    assert not any(step.stopped for step in steps[:-1])


def test_search_stops_at_start_below_stop_score() -> None:
    (only,) = run(toward(field(1)), search_settings(steps=9), stop_score=0.0)
    assert only.stopped
    assert (only.mask_db == 0).all()


@pytest.mark.parametrize(("optimiser", "rate", "steps"), OPTIMISERS)
def test_gains_stay_within_the_limit(optimiser: str, rate: float, steps: int) -> None:
    settings = search_settings(alpha=0, optimiser=optimiser, learning_rate=rate, steps=steps)
    start = FreeMask(10 * field(4))
    outcome = list(run(toward(field(2) + 20), settings, start=start, max_gain_db=5.0))
    assert all(step.mask_db.abs().max() <= 5 for step in outcome)
    assert outcome[-1].mask_db.abs().max() == 5


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_every_optimiser_descends(name: str) -> None:
    settings = search_settings(alpha=0.1, optimiser=name, learning_rate=0.05, steps=8)
    steps = list(run(toward(field(2)), settings))
    assert steps[-1].total < steps[0].total


def test_unknown_optimiser_is_rejected() -> None:
    for name in ("Adamant", "lr_scheduler", "SparseAdam", "__name__"):
        with pytest.raises(ValidationError, match="optimiser"):
            search_settings(optimiser=name)


def test_diverging_search_raises() -> None:
    endless = run(lambda rows: torch.inf * rows.square().mean(dim=(1, 2)), search_settings(steps=3))
    with pytest.raises(CallError, match=r"diverged at step 0: lower search\.lear"):
        next(endless)


@pytest.mark.parametrize("alpha", [0.01, 0.7])
@pytest.mark.parametrize("guide", [0.5, 2.0])
def test_one_gradient_step_moves_mask_by_guide_direction(alpha: float, guide: float) -> None:
    """Of alpha mean (M - A)² + 2 alpha g E / cells, E = -sum (lack M): M = A + g lack."""
    lack, anchor = field(5), field(3)
    settings = search_settings(score=0, guide=guide, alpha=alpha, optimiser="SGD", learning_rate=1.0, steps=1)
    *_, last = run(
        toward(torch.zeros(1)),
        settings,
        start=FreeMask(anchor),
        anchor=anchor,
        window_frames=10,
        guide_energy=lambda masked: -(lack * masked).sum(dim=(1, 2)),
    )
    assert torch.allclose(last.mask_db, anchor + guide * lack, atol=1e-3)


def run_with_feedback(rows: Tensor, anchor: Tensor) -> tuple[list[SearchStep], RenderFeedback]:
    """Return a search for the prior, and a rendering that blurs masks over five frames."""

    def render(mask: Tensor) -> Tensor:
        return rows + moving_average(mask, 5)

    settings = search_settings(score=0, alpha=0.3, optimiser="SGD", learning_rate=1.0, steps=3)
    start = FreeMask(anchor)
    steps = run(toward(torch.zeros(1)), settings, recording=rows, start=start, anchor=anchor, feedback=render)
    return list(steps), render


WAVES = 4 * torch.sin(torch.arange(float(FRAMES)) / 3).expand(ROWS, -1)


def test_render_feedback_brings_the_sound_to_the_prior() -> None:
    rows = field(1)
    steps, render = run_with_feedback(rows, WAVES)
    errors = [float((render(s.mask_db) - rows - WAVES).square().mean()) for s in steps]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]
    assert steps[0].distance == pytest.approx(errors[0], rel=1e-4)


def test_render_feedback_ignores_pauses() -> None:
    rows = field(1)
    rows[:, :10] -= 90
    *_, last = run_with_feedback(rows, WAVES)[0]
    torch.testing.assert_close(last.mask_db[:, :10], WAVES[:, :10])
    assert not torch.allclose(last.mask_db[:, 10:], WAVES[:, 10:], atol=0.05)


def test_generator_determines_the_windows() -> None:
    uneven = toward(field(2, 8))
    settings = search_settings(steps=5)
    masks = [list(run(uneven, settings, window_frames=8, seed=s))[-1].mask_db for s in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_search_leaves_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    list(run(toward(torch.zeros(1)), search_settings(steps=2), window_frames=9))
    assert torch.equal(before, torch.get_rng_state())


def test_free_mask_smooths_the_change_but_not_the_start() -> None:
    cells = FreeMask(field(4), smooth_frames=9)
    assert torch.equal(cells.mask(), field(4))
    settings = search_settings(alpha=0, learning_rate=0.1, steps=30)
    *_, last = run(toward(field(2)), settings, start=cells)
    added = last.mask_db - field(4)
    assert torch.allclose(added, moving_average(cells.values.detach(), 9), atol=1e-5)
    assert added.abs().max() > 0.5
    rough = (field(2) - field(1)).diff(dim=1).abs().mean()
    assert added.diff(dim=1).abs().mean() < 0.2 * rough


def scattered() -> StickyNotes:
    settings = NoteSettings(per_second=12, width_ms=80, height_hz=1_500)
    return scatter_sticky_notes(settings, 0.4, 8_000.0, torch.Generator().manual_seed(0))


def gains_of(notes: StickyNotes) -> StickyNoteGains:
    row_hz, frame_s = torch.linspace(200, 7_800, ROWS), torch.arange(FRAMES) * 0.01
    return StickyNoteGains(notes, row_hz, frame_s, 300.0, 0.03)


def test_note_gains_start_at_the_notes_and_recover_a_mask() -> None:
    notes = scattered()
    start = gains_of(notes)
    hidden = gains_of(notes)
    with torch.no_grad():
        hidden.values.copy_(torch.linspace(-6, 6, len(notes.gain_db)))
        expected = hidden.mask()
    settings = search_settings(alpha=0, learning_rate=0.2, steps=300)
    steps = list(run(toward(field(1) + expected), settings, start=start))
    assert torch.equal(steps[0].mask_db, gains_of(notes).mask().detach())
    assert steps[0].score > 1
    assert steps[-1].score < 1e-3
    assert (steps[-1].mask_db - expected).abs().max() < 0.2


def test_note_gains_do_not_modify_the_notes() -> None:
    notes = scattered()
    gains_before = notes.gain_db.clone()
    list(run(toward(field(2)), search_settings(steps=3), start=gains_of(notes)))
    assert torch.equal(notes.gain_db, gains_before)


@pytest.mark.parametrize("optimiser", ["SGD", "Adam"])
def test_optimisers_equal_those_of_torch(optimiser: OptimizerName) -> None:
    target, values = field(3), torch.zeros(ROWS, FRAMES, requires_grad=True)
    settings = search_settings(optimiser=optimiser, learning_rate=0.05, steps=20, alpha=0.1)
    *_, last = run(toward(target), settings)
    twin = getattr(torch.optim, optimiser)([values], lr=0.05)
    unit = values.numel() / (2 * settings.alpha)
    for _ in range(20):
        twin.zero_grad()
        output = field(1) + values
        loss = (output - target).square().mean() + settings.alpha * values.square().mean()
        (unit * loss).backward()  # type: ignore[no-untyped-call]
        twin.step()
    torch.testing.assert_close(last.mask_db, values.detach(), atol=1e-4, rtol=1e-4)
