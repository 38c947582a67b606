"""Prior masks of whole recordings: as strong as needed, and faded for unknown recordings."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tonewood.dsp.chunking import split_segments
from tonewood.dsp.features import PITCH_HOP_RATIO, Features, center_frequencies, remove_envelope
from tonewood.enhancement import prior_mask
from tonewood.enhancement.analysis import Analysis, ArraySource, analyse_source
from tonewood.enhancement.pipeline import enhance_array
from tonewood.enhancement.prior_mask import find_prior_mask
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.priors.priors import MaskProjection
from tonewood.setting_types import PriorKind
from tonewood.settings import EnhanceSettings
from tonewood.utils.arrays import Levels

Play = Callable[..., Any]


@pytest.fixture(scope="module")
def analysis(play: Play, model: Model) -> Analysis:
    """Return a recording whose first half is like the source, and the second like the reference."""
    halves = [play(6, formant_hz=formant, seed=99) for formant in (2_500.0, 600.0)]
    return analyse_source(ArraySource(np.concatenate(halves, axis=1), 16_000), model)


@pytest.fixture(scope="module")
def needing_half(model: Model, analysis: Analysis) -> Model:
    """Return the model with a limit of need that makes the recording need about half of the blend."""
    unscaled = with_source_need(model, None)
    whole = mask_of(unscaled, analysis)
    take = model.priors.source.prior_features(features(analysis))
    ratio = model.priors.project(take, whole).ratio
    assert ratio > 0.1
    return with_source_need(model, 2 * ratio)


def with_source_need(model: Model, need: float | None) -> Model:
    return replace(model, learnt_priors=replace(model.priors, source_need=need))


def with_unlikeness(model: Model, analysis: Analysis, unlikeness: float) -> Model:
    """Return the model with limits at which the recording has this distance from both folders."""
    likeness = (
        replace(detector, limit=detector.limit * detector.distance(analysis.rows_db) / unlikeness)
        for detector in (model.source_likeness, model.reference_likeness)
    )
    source, reference = likeness
    return replace(model, source_likeness=source, reference_likeness=reference)


def features(analysis: Analysis) -> Features:
    frames = analysis.rows_db.frames
    power = analysis.pitches.read(0, -(-frames // PITCH_HOP_RATIO))
    fine = remove_envelope(power, analysis.levels.pitch_power, frames)
    return Features(analysis.rows_db.read(0, frames), fine)


def mask_of(model: Model, analysis: Analysis, kind: PriorKind = "auto", *, fade: bool = False) -> Levels:
    hz = center_frequencies(model.settings.scorer.bands, model.settings.spectrum)
    prior = find_prior_mask(kind, analysis, hz, model, fade=fade)
    return prior.mask_db.read(0, analysis.rows_db.frames)


def test_prior_mask_is_as_strong_as_needed(model: Model, needing_half: Model, analysis: Analysis) -> None:
    whole = mask_of(with_source_need(model, None), analysis)
    np.testing.assert_allclose(mask_of(needing_half, analysis), 0.5 * whole, atol=0.02, rtol=0)


def test_prior_mask_equals_that_of_the_priors(needing_half: Model, analysis: Analysis) -> None:
    expected = needing_half.priors.mask(features(analysis), "auto")
    np.testing.assert_allclose(mask_of(needing_half, analysis), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("prior_frames", "frames"), [(300, 250), (702, 10**6), (10**6, 333)])
def test_need_is_that_of_the_whole_recording(
    needing_half: Model,
    analysis: Analysis,
    monkeypatch: pytest.MonkeyPatch,
    prior_frames: int,
    frames: int,
) -> None:
    """The halves of the recording need different shares, so segments alone would show."""
    whole = mask_of(needing_half, analysis)
    monkeypatch.setattr(prior_mask, "_PRIOR_SEGMENT_FRAMES", prior_frames)
    monkeypatch.setattr(
        prior_mask,
        "split_segments",
        lambda total, size=frames, margin=0: split_segments(total, size, margin),
    )
    np.testing.assert_allclose(mask_of(needing_half, analysis), whole, atol=1e-3, rtol=0)


def test_halves_of_the_recording_need_different_shares(model: Model, analysis: Analysis) -> None:
    """Without this, the test of segments would show little."""
    whole = mask_of(with_source_need(model, None), analysis)
    take = model.priors.source.prior_features(features(analysis))
    remaining, half = model.priors.remaining_mask(take), analysis.rows_db.frames // 2
    ratios = [
        MaskProjection.from_masks(remaining[:, part], whole[:, part], take.activity[part]).ratio
        for part in (slice(0, half), slice(half, None))
    ]
    assert ratios[0] > ratios[1] + 0.1


@pytest.mark.parametrize("kind", ["static", "neighbours", "network"])
def test_priors_chosen_by_hand_are_not_scaled(
    model: Model, needing_half: Model, analysis: Analysis, kind: PriorKind
) -> None:
    unscaled = mask_of(with_source_need(model, None), analysis, kind)
    assert np.array_equal(mask_of(needing_half, analysis, kind, fade=True), unscaled)
    far = with_unlikeness(needing_half, analysis, 2.0)
    assert np.array_equal(mask_of(far, analysis, kind, fade=True), unscaled)


def test_static_prior_is_the_static_mask(needing_half: Model, analysis: Analysis) -> None:
    static = needing_half.priors.static_db[:, None]
    mask = mask_of(needing_half, analysis, "static", fade=True)
    np.testing.assert_allclose(mask, np.broadcast_to(static, mask.shape))


def test_adaptive_part_fades_for_unlike_recordings(model: Model, analysis: Analysis) -> None:
    """Moves of the mask around its mean show the adaptive part; full need keeps the scale at 1."""
    full = with_source_need(model, 1e-6)

    def moves(unlikeness: float, *, fade: bool = True) -> Levels:
        mask = mask_of(with_unlikeness(full, analysis, unlikeness), analysis, fade=fade)
        return mask - full.priors.static_db[:, None]

    whole = moves(0.9)
    assert np.sqrt(np.square(whole).mean()) > 0.5
    np.testing.assert_allclose(moves(1.15), 0.5 * whole, atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(moves(1.4), np.zeros_like(whole), atol=1e-5, rtol=0)
    np.testing.assert_allclose(moves(1.4, fade=False), whole, atol=1e-5, rtol=0)


def test_models_of_earlier_versions_do_not_fade(model: Model, analysis: Analysis) -> None:
    earlier = with_source_need(model, None)
    far = with_unlikeness(earlier, analysis, 2.0)
    assert np.array_equal(mask_of(far, analysis, fade=True), mask_of(earlier, analysis))


def test_level_is_that_under_the_scaled_mask(needing_half: Model, analysis: Analysis) -> None:
    hz = center_frequencies(needing_half.settings.scorer.bands, needing_half.settings.spectrum)
    prior = find_prior_mask("auto", analysis, hz, needing_half)
    frames = analysis.rows_db.frames
    corrected = analysis.rows_db.read(0, frames) + prior.mask_db.read(0, frames)
    power = np.power(10, corrected.astype(np.float64) / 10).sum(axis=0).mean()
    assert prior.level_db == pytest.approx(10 * np.log10(power), abs=1e-3)


def test_search_starts_from_the_scaled_mask(play: Play, needing_half: Model) -> None:
    wave = play(4, formant_hz=2_500.0, seed=99)
    settings = EnhanceSettings(force=True).replace(search=dict(steps=0))
    analysis = analyse_source(ArraySource(wave, 16_000), needing_half)
    [first] = [s for s in enhance_array(wave, 16_000, needing_half, settings) if isinstance(s, SearchStep)]
    bound = settings.render.max_gain_db
    expected = mask_of(needing_half, analysis).clip(-bound, bound)
    np.testing.assert_allclose(first.mask_db.clip(-bound, bound), expected, atol=1e-3, rtol=0)
