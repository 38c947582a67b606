"""The paper's method: which loss it follows, and where it starts."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tonewood.enhancement.analysis import ArraySource, analyse_source
from tonewood.enhancement.mask_search import MaskSearch, find_mask, mask_grid, settings_for_model
from tonewood.enhancement.prior_mask import find_prior_mask
from tonewood.model.model import Model
from tonewood.setting_types import EnhanceMethod
from tonewood.settings import EnhanceSettings, default_enhance_settings
from tonewood.utils.arrays import Levels, Samples

RATE = 16_000
PAPER = default_enhance_settings("paper")


def test_paper_follows_the_whole_way_guide_by_default(model: Model) -> None:
    assert model.way_guide is not None
    assert settings_for_model(PAPER, model) == PAPER
    assert (PAPER.search.score, PAPER.prior.notes.gains_only) == (0, False)


@pytest.mark.parametrize(
    ("settings", "has_guide"),
    [
        (PAPER, False),
        (PAPER.replace(search=dict(guide=0)), True),
        (PAPER.replace(search=dict(alpha=0)), True),  # the guide is weighed against alpha
    ],
)
def test_paper_follows_the_scorer_without_a_whole_way_guide(
    settings: EnhanceSettings, has_guide: bool, model: Model
) -> None:
    adapted = settings_for_model(settings, model if has_guide else replace(model, way_guide=None))
    search = adapted.search
    assert (search.score, search.guide, search.steps, search.learning_rate) == (1, 0, 100, 0.3)
    assert search.alpha == settings.search.alpha
    assert adapted.prior.notes.gains_only


def test_settings_that_were_chosen_stay(model: Model) -> None:
    chosen = PAPER.replace(search=dict(guide=0, steps=7, learning_rate=0.1, score=0.4))
    search = settings_for_model(chosen, model).search
    assert (search.steps, search.learning_rate, search.score) == (7, 0.1, 0.4)


def test_settings_that_were_chosen_stay_where_they_equal_their_default(model: Model) -> None:
    usual = PAPER.search
    chosen = PAPER.replace(
        search=dict(guide=0, steps=usual.steps, score=usual.score), prior=dict(notes=dict(gains_only=False))
    )
    adapted = settings_for_model(chosen, model)
    assert (adapted.search.steps, adapted.search.score) == (usual.steps, usual.score)
    assert adapted.search.learning_rate == 0.3
    assert not adapted.prior.notes.gains_only


def test_settings_for_a_model_are_those_for_it_again(model: Model) -> None:
    adapted = settings_for_model(PAPER.replace(search=dict(guide=0)), model)
    stored = EnhanceSettings.model_validate_json(adapted.model_dump_json())
    assert adapted == settings_for_model(adapted, model) == settings_for_model(stored, model)


def energy(model: Model, bins_db: Levels) -> float:
    """Return the energy of the whole-way guide per cell, dB²."""
    assert model.way_guide is not None
    settings = model.settings
    return model.way_guide.energy_of_bins(bins_db, settings.scorer.bands, settings.spectrum)[0] / bins_db.size


def test_paper_from_blocks_descends_the_whole_way_guide(model: Model, play: Callable[..., Samples]) -> None:
    """The result is better than the recording, so the search undoes its blocks and goes on."""
    analysis = analyse_source(ArraySource(play(3), RATE), model)
    before = mask_grid(analysis, model, "paper").levels_db.read(0, analysis.rows_db.frames)
    masks = [step.mask_db for step in find_mask(analysis, model, PAPER)]
    first, last = energy(model, before + masks[0]), energy(model, before + masks[-1])
    assert last < 0.8 * min(first, energy(model, before))


def test_paper_searches_a_long_recording_as_a_whole(model: Model, play: Callable[..., Samples]) -> None:
    """The guide relates all levels to that of the whole recording."""
    settings = PAPER.replace(prior=dict(kind="none"), search=dict(steps=1, beta=0))
    analysis = analyse_source(ArraySource(play(32), RATE), model)
    steps = list(find_mask(analysis, model, settings))
    assert [(step.offset, step.mask_db.shape[1]) for step in steps] == [(0, analysis.rows_db.frames)] * 2


@pytest.mark.parametrize("method", ["search", "paper", "predicted"])
def test_each_method_has_its_guide(method: EnhanceMethod, model: Model, play: Callable[..., Samples]) -> None:
    settings = EnhanceSettings(method=method).replace(search=dict(guide=1))
    analysis = analyse_source(ArraySource(play(1), RATE), model)
    flat = find_prior_mask("none", analysis, mask_grid(analysis, model, method).hz, model)
    search = MaskSearch(model, settings, analysis, mask_grid(analysis, model, method), flat)
    assert search.guide is {"search": model.guide, "paper": model.way_guide, "predicted": None}[method]


@pytest.mark.parametrize("gains_only", [True, False])
def test_gains_of_notes_leave_cells_outside_of_the_notes(
    gains_only: bool, model: Model, play: Callable[..., Samples]
) -> None:
    settings = PAPER.replace(
        prior=dict(notes=dict(per_second=1, gains_only=gains_only)), search=dict(steps=2)
    )
    analysis = analyse_source(ArraySource(play(3), RATE), model)
    first, *_, last = (step.mask_db for step in find_mask(analysis, model, settings))
    outside = first == 0
    assert 0.3 < outside.mean() < 1
    assert (last[outside] == 0).all() == gains_only
