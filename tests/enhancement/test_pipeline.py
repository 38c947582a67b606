"""Enhancement in memory: search steps, certificate, and refusal of inputs unlike the source."""

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tonewood.dsp.chunking import ArrayTimeSeries
from tonewood.dsp.features import mean_level
from tonewood.enhancement.analysis import mean_score
from tonewood.enhancement.pipeline import Enhancement, enhance_array, scorer_input, to_analysis_rate
from tonewood.errors import AudioError
from tonewood.mask.certificate import OutOfDomainDetector
from tonewood.mask.render import render_through_mask
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.setting_types import ChannelLink, RenderChanges
from tonewood.settings import EnhanceSettings, RenderSettings, default_enhance_settings

FORCED = EnhanceSettings(force=True)
CHANNEL_LINKS: tuple[ChannelLink, ...] = ("all", "mid-side", "off")


def enhanced(wave: Any, model: Model, settings: EnhanceSettings, rate: int = 16_000) -> Enhancement:
    *_, last = enhance_array(wave, rate, model, settings)
    assert isinstance(last, Enhancement)
    return last


@pytest.fixture
def source(play: Callable[..., Any]) -> Any:
    """Return a recording like those of the tiny model's source folder."""
    return play(4, formant_hz=2_500.0, seed=99)


def with_limit(detector: OutOfDomainDetector, limit: float) -> OutOfDomainDetector:
    return replace(detector, limit=limit)


def strict_model(model: Model) -> Model:
    """Return the model with limits of both folders that no recording keeps."""
    return replace(
        model,
        source_likeness=with_limit(model.source_likeness, 1e-3),
        reference_likeness=with_limit(model.reference_likeness, 1e-3),
    )


def scorer_score(wave: Any, model: Model) -> float:
    rows = scorer_input(to_analysis_rate(wave, 16_000, model), model)
    return mean_score(model.scorer, ArrayTimeSeries(rows))


def test_guided_step_minimises_the_linearised_objective(source: Any, model: Model) -> None:
    guided = replace(model, guide_weight=1.0)
    settings = FORCED.replace(search=dict(smooth_ms=0, alpha=0.3, listen=False, steps=1))
    steps = [s for s in enhance_array(source, 16_000, guided, settings) if isinstance(s, SearchStep)]
    rows = scorer_input(to_analysis_rate(source, 16_000, model), model)
    near = rows + steps[0].mask_db
    _, slope = model.guide.energy_and_gradient(near, float(mean_level(near)))
    bound = settings.render.max_gain_db
    free = np.abs(steps[0].mask_db) < bound  # cells at the bound stay there
    assert free.mean() > 0.5
    expected = (steps[0].mask_db - slope).clip(-bound, bound)
    np.testing.assert_allclose(steps[1].mask_db[free], expected[free], atol=1e-2, rtol=1e-2)


def test_zero_guide_weight_keeps_the_prior(source: Any, model: Model) -> None:
    unguided = replace(model, guide_weight=0.0)
    without_feedback = FORCED.replace(search=dict(listen=False))
    steps = [
        s for s in enhance_array(source, 16_000, unguided, without_feedback) if isinstance(s, SearchStep)
    ]
    np.testing.assert_allclose(steps[0].mask_db, steps[-1].mask_db, atol=1e-5)


def test_search_reduces_distance_from_the_prior(source: Any, model: Model) -> None:
    unguided = replace(model, guide_weight=0.0)
    steps = [s for s in enhance_array(source, 16_000, unguided, FORCED) if isinstance(s, SearchStep)]
    assert [step.number for step in steps] == [0, 1, 2, 3]
    distances = [step.objective.distance for step in steps]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0] - 0.1


def test_certified_scores_are_those_of_the_audio(source: Any, model: Model) -> None:
    result = enhanced(source, model, FORCED)
    for samples, score in ((source, result.scorer.before), (result.samples, result.scorer.after)):
        rows = ArrayTimeSeries(scorer_input(to_analysis_rate(samples, 16_000, model), model))
        assert mean_score(model.scorer, rows) == pytest.approx(score, abs=1e-6)


def test_input_unlike_the_source_is_refused_and_gets_static_mask(source: Any, model: Model) -> None:
    strict = strict_model(model)
    assert scorer_score(source, model) >= 0.5
    result = enhanced(source, strict, EnhanceSettings())
    assert result.certificate.verdict == "refused"
    assert result.prior == "auto"
    assert result.mask.roughness_db < 0.2
    # The static mask, as strong as the recording needs it.
    shape = result.mask.gain_db.mean(axis=1)
    need = float(shape @ model.priors.static_db / np.square(model.priors.static_db).sum())
    assert 0 < need <= 1.01
    bound = EnhanceSettings().render.max_gain_db
    expected = (need * model.priors.static_db).clip(-bound, bound)
    np.testing.assert_allclose(shape, expected, atol=0.03)
    assert "both folders" in result.certificate.line


@pytest.fixture
def reference(play: Callable[..., Any]) -> Any:
    """Return a recording like those of the tiny model's reference folder."""
    return play(4, formant_hz=600.0, seed=98)


def earlier_model(model: Model) -> Model:
    """Return the model without what models of earlier versions lack."""
    return replace(model, learnt_priors=replace(model.priors, source_need=None))


def test_refused_input_like_the_reference_is_not_changed(reference: Any, model: Model) -> None:
    strict = strict_model(model)
    assert scorer_score(reference, model) < 0.5
    result = enhanced(reference, strict, EnhanceSettings())
    assert (result.certificate.verdict, result.prior) == ("refused", "none")
    assert result.mask.largest_db == 0


def test_input_like_the_reference_alone_is_not_refused(reference: Any, model: Model) -> None:
    strict = replace(model, source_likeness=with_limit(model.source_likeness, 1e-3))
    assert model.has_graded_scorer
    result = enhanced(reference, strict, EnhanceSettings())
    assert result.certificate.verdict != "refused"
    assert "folders" not in result.certificate.line


def test_models_of_earlier_versions_refuse_what_is_unlike_the_source(reference: Any, model: Model) -> None:
    earlier = earlier_model(model)
    strict = replace(earlier, source_likeness=with_limit(model.source_likeness, 1e-3))
    assert not strict.has_graded_scorer
    result = enhanced(reference, strict, EnhanceSettings())
    assert (result.certificate.verdict, result.prior) == ("refused", "none")
    assert "source folder" in result.certificate.line


def test_adversarial_control_is_computed_on_request(source: Any, model: Model) -> None:
    """Free pixels, searched against the scorer, lower the judge's score too."""
    assert enhanced(source, model, FORCED).certificate.judge_fooled is None
    requested = FORCED.replace(certificate=dict(control_steps=30))
    certificate = enhanced(source, model, requested).certificate
    assert certificate.judge is not None
    assert certificate.judge_fooled is not None
    assert 0 <= certificate.judge_fooled < certificate.judge.before


def test_verdict_of_the_reference_needs_a_graded_scorer(reference: Any, model: Model) -> None:
    """Wide limits and a scorer that is sure: only the age of the model makes the difference."""
    sure = deepcopy(model.scorer)
    sure.weights["linear.bias"] = sure.weights["linear.bias"] - 3
    wide = replace(
        model,
        scorer=sure,
        source_likeness=with_limit(model.source_likeness, 1e3),
        reference_likeness=with_limit(model.reference_likeness, 1e3),
        judge=None,
    )
    result = enhanced(reference, wide, EnhanceSettings())
    assert result.certificate.scorer.before <= 0.35
    assert result.certificate.line.startswith("already there: ")
    assert enhanced(reference, earlier_model(wide), EnhanceSettings()).certificate.verdict != "unneeded"


def test_force_enhances_an_input_unlike_the_source(source: Any, model: Model) -> None:
    strict = replace(model, source_likeness=with_limit(model.source_likeness, 1e-3))
    result = enhanced(source, strict, FORCED)
    assert result.prior == "auto"
    assert result.certificate.verdict == "refused"  # the distance is still reported
    assert result.mask.roughness_db > 0.01


def test_random_pixels_fool_the_scorer_but_not_the_certificate(source: Any, model: Model) -> None:
    control = default_enhance_settings("paper").replace(
        prior=dict(kind="random"), search=dict(alpha=0, beta=0, steps=60)
    )
    result = enhanced(source, model, control)
    assert result.scorer.after < result.scorer.before - 0.3
    assert result.certificate.verdict == "limited"
    assert result.certificate.roughness_db > 1.5
    assert result.mask.gain_db.shape[0] == 257


def test_all_channels_get_the_same_gain(play: Callable[..., Any], model: Model) -> None:
    stereo = play(3, channels=2, formant_hz=2_500.0, seed=97)
    result = enhanced(stereo, model, FORCED).samples
    audible = np.abs(result[0]) > 1e-3
    ratio = result[1][audible] / result[0][audible]
    np.testing.assert_allclose(ratio, 0.5, atol=1e-3)


def test_same_seed_gives_same_output(source: Any, model: Model) -> None:
    one, two = (enhanced(source, model, FORCED) for _ in range(2))
    np.testing.assert_array_equal(one.samples, two.samples)
    assert one.certificate == two.certificate


@pytest.mark.parametrize("render", [{"amount": 0.5}, {"aspect": {"only": "bands"}}, {"amount": -1.0}])
def test_share_gets_the_verdict_of_the_whole_correction(
    render: RenderChanges, source: Any, model: Model
) -> None:
    whole = enhanced(source, model, FORCED).certificate
    part = enhanced(source, model, FORCED.replace(render=render)).certificate
    assert (part.verdict, part.reasons) == (whole.verdict, whole.reasons)
    assert part.whole is not None
    assert part.whole.scorer == whole.scorer
    assert part.scorer.after != whole.scorer.after


@pytest.mark.parametrize(
    ("changes", "applied"),
    [
        ({"render": {"amount": 0.0}}, " (applied: 0 %)"),
        ({"render": {"shape": {"high_hz": 1}}}, " (applied: below 1 Hz)"),
        ({"prior": {"kind": "none"}, "search": {"steps": 0}}, ""),
    ],
)
def test_output_equal_to_its_input_is_not_good(
    changes: dict[str, Any], applied: str, source: Any, model: Model
) -> None:
    result = enhanced(source, model, FORCED.replace(**changes))
    assert np.abs(result.samples - source).max() < 1e-4
    assert result.certificate.verdict == "limited"
    assert result.certificate.line == (
        f"limited: nothing was changed, because every applied gain is 0 dB{applied}"
    )
    assert result.certificate.whole is None


@pytest.mark.parametrize(
    ("render", "low"),
    [
        (RenderChanges(shape={"low_hz": 1e9}), "1e+09"),
        (RenderChanges(aspect={"between": (8_000, 9_000)}), "8000"),
    ],
)
def test_limits_above_every_frequency_are_refused(
    render: RenderChanges, low: str, source: Any, model: Model
) -> None:
    message = (
        f"the recording has frequencies up to 8000 Hz; there is nothing to change from {low} Hz on: "
        "give a lower limit"
    )
    with pytest.raises(AudioError, match=re.escape(message)):
        enhanced(source, model, EnhanceSettings().replace(render=render))


def test_inverse_undoes_the_same_mask(source: Any, model: Model) -> None:
    result = enhanced(source, model, FORCED)
    plain = RenderSettings(match=False)
    there, back = (result.mask, plain), (result.mask, plain.replace(amount=-1.0))
    wave = source
    for mask, settings in (there, back):
        wave = render_through_mask(wave, 16_000, mask, settings, model.settings.spectrum).samples
    # Windows overlap, so a gain that varies from frame to frame is undone approximately.
    left = np.square(wave - source).mean() / np.square(source).mean()
    changed = np.square(result.samples - source).mean() / np.square(source).mean()
    assert left < 0.02 * changed


def test_twice_the_amount_doubles_every_gain(source: Any, model: Model) -> None:
    once, twice = (
        enhanced(source, model, FORCED.replace(render=dict(amount=amount))).applied.gain_db
        for amount in (1.0, 2.0)
    )
    assert np.allclose(twice, 2 * once)


def test_side_of_a_mono_recording_in_stereo_changes_nothing(source: Any, model: Model) -> None:
    stereo = np.repeat(source, 2, axis=0)
    linked, unlinked = (
        enhanced(stereo, model, FORCED.replace(render=dict(link=link))) for link in CHANNEL_LINKS[:2]
    )
    assert np.array_equal(linked.mask.gain_db, unlinked.mask.gain_db)
    (side,) = unlinked.others
    assert np.all(side.gain_db == 0)
    assert np.allclose(linked.samples, unlinked.samples, atol=1e-6)


def test_unlinked_channels_equal_recordings_of_their_own(play: Callable[..., Any], model: Model) -> None:
    parts = [play(2, formant_hz=2_500.0, seed=seed) for seed in (1, 2)]
    plain = FORCED.replace(render=dict(match=False))
    both = enhanced(np.concatenate(parts), model, plain.replace(render=dict(link="off")))
    for number, (part, mask) in enumerate(zip(parts, (both.mask, *both.others), strict=True)):
        alone = enhanced(part, model, plain)
        assert np.allclose(mask.gain_db, alone.mask.gain_db, atol=0.01)
        assert np.allclose(both.samples[number], alone.samples[0], atol=1e-3)


def test_mid_and_side_have_masks_of_their_own(play: Callable[..., Any], model: Model) -> None:
    mid, side = (play(2, formant_hz=2_500.0, seed=seed) for seed in (1, 2))
    stereo = np.concatenate([mid + 0.3 * side, mid - 0.3 * side])
    plain = FORCED.replace(render=dict(match=False))
    both = enhanced(stereo, model, plain.replace(render=dict(link="mid-side")))
    alone = enhanced(mid, model, plain)
    assert np.allclose(both.samples.mean(axis=0), alone.samples[0], atol=1e-3)
    assert not np.allclose(both.mask.gain_db, both.others[0].gain_db, atol=0.5)
    none = enhanced(stereo, model, FORCED.replace(render=dict(link="mid-side", amount=0.0)))
    assert none.samples is stereo


@pytest.mark.parametrize("link", ["mid-side", "off"])
def test_mono_recordings_have_one_mask(link: ChannelLink, source: Any, model: Model) -> None:
    result = enhanced(source, model, FORCED.replace(render=dict(link=link)))
    assert result.others == ()


def test_mid_and_side_need_two_channels(source: Any, model: Model) -> None:
    surround = np.repeat(source, 6, axis=0)
    with pytest.raises(AudioError, match="has 6 channels, and mid and side need 2: use --link off"):
        enhanced(surround, model, FORCED.replace(render=dict(link="mid-side")))
