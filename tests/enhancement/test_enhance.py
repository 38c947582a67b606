"""A recording and a model → the recording, reshaped, and what was found of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tonewood.dsp.chunking import TensorTimeSeries
from tonewood.dsp.features import mean_level
from tonewood.enhancement.analysis import mean_score
from tonewood.enhancement.pipeline import Enhancement, enhance_array, scorer_input, to_analysis_rate
from tonewood.mask.certificate import OutOfDomainDetector
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, default_enhance_settings

FORCED = EnhanceSettings(force=True)


def made(wave: Any, model: Model, settings: EnhanceSettings, rate: int = 16_000) -> Enhancement:
    *_, last = enhance_array(wave, rate, model, settings)
    assert isinstance(last, Enhancement)
    return last


@pytest.fixture
def source(play: Callable[..., Any]) -> Any:
    """A take like those of the tiny model's source folder."""
    return play(4, formant_hz=2_500.0, seed=99)


def with_limit(cloud: OutOfDomainDetector, limit: float) -> OutOfDomainDetector:
    return replace(cloud, limit=limit)


def test_the_guided_step_is_the_minimum_of_the_linearised_objective(source: Any, model: Model) -> None:
    guided = replace(model, guide_weight=1.0)
    settings = FORCED.replace(search=dict(smooth_ms=0, alpha=0.3, listen=False, steps=1))
    steps = [s for s in enhance_array(source, 16_000, guided, settings) if isinstance(s, SearchStep)]
    rows = scorer_input(to_analysis_rate(source, 16_000, model), model)
    near = rows + steps[0].mask_db
    wanted = steps[0].mask_db + model.guide.direction(near[None], float(mean_level(near)))[0]
    bound = settings.render.max_gain_db
    free = steps[0].mask_db.abs() < bound  # cells at the bound stay there
    assert free.float().mean() > 0.5
    torch.testing.assert_close(
        steps[1].mask_db[free], wanted.clamp(-bound, bound)[free], atol=1e-2, rtol=1e-2
    )


def test_a_weight_of_nothing_leaves_the_prior(source: Any, model: Model) -> None:
    still = replace(model, guide_weight=0.0)
    deaf = FORCED.replace(search=dict(listen=False))
    steps = [s for s in enhance_array(source, 16_000, still, deaf) if isinstance(s, SearchStep)]
    torch.testing.assert_close(steps[0].mask_db, steps[-1].mask_db)


def test_the_search_brings_the_sound_nearer_to_what_the_prior_asks_for(source: Any, model: Model) -> None:
    still = replace(model, guide_weight=0.0)
    steps = [s for s in enhance_array(source, 16_000, still, FORCED) if isinstance(s, SearchStep)]
    assert [step.number for step in steps] == [0, 1, 2, 3]
    distances = [step.distance for step in steps]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0] - 0.1


def test_scores_are_of_the_sound_itself(source: Any, model: Model) -> None:
    found = made(source, model, FORCED)
    for samples, score in ((source, found.scorer.before), (found.samples, found.scorer.after)):
        rows = TensorTimeSeries(scorer_input(to_analysis_rate(samples, 16_000, model), model))
        assert mean_score(model.scorer, rows) == pytest.approx(score, abs=1e-6)


def test_an_input_unlike_the_source_is_refused_and_gets_the_static_mask(source: Any, model: Model) -> None:
    strict = replace(model, source_likeness=with_limit(model.source_likeness, 1e-3))
    assert (
        mean_score(
            model.scorer,
            TensorTimeSeries(scorer_input(to_analysis_rate(source, 16_000, model), model)),
        )
        >= 0.5
    )
    found = made(source, strict, EnhanceSettings())
    assert found.certificate.verdict == "refused"
    assert found.prior == "static"
    assert found.mask.roughness_db < 0.2
    assert "source folder" in found.certificate.line


def test_what_is_unlike_it_and_like_the_reference_is_left_alone(
    play: Callable[..., Any], model: Model
) -> None:
    reference = play(4, formant_hz=600.0, seed=98)
    strict = replace(model, source_likeness=with_limit(model.source_likeness, 1e-3))
    assert (
        mean_score(
            model.scorer,
            TensorTimeSeries(scorer_input(to_analysis_rate(reference, 16_000, model), model)),
        )
        < 0.5
    )
    found = made(reference, strict, EnhanceSettings())
    assert (found.certificate.verdict, found.prior) == ("refused", "none")
    assert found.mask.largest_db == 0


def test_force_reshapes_it_all_the_same(source: Any, model: Model) -> None:
    strict = replace(model, source_likeness=with_limit(model.source_likeness, 1e-3))
    found = made(source, strict, FORCED)
    assert found.prior == "auto"
    assert found.certificate.verdict == "refused"  # what was found stays said
    assert found.mask.roughness_db > 0.01


def test_random_pixels_fool_the_scorer_and_never_the_certificate(source: Any, model: Model) -> None:
    control = default_enhance_settings("paper").replace(
        prior=dict(kind="random"), search=dict(alpha=0, beta=0, steps=60)
    )
    found = made(source, model, control)
    assert found.scorer.after < found.scorer.before - 0.3
    assert found.certificate.verdict == "limited"
    assert found.certificate.roughness_db > 1.5
    assert found.mask.gain_db.shape[0] == 257


def test_channels_get_the_same_gain(play: Callable[..., Any], model: Model) -> None:
    stereo = play(3, channels=2, formant_hz=2_500.0, seed=97)
    found = made(stereo, model, FORCED).samples
    heard = np.abs(found[0]) > 1e-3
    ratio = found[1][heard] / found[0][heard]
    np.testing.assert_allclose(ratio, 0.5, atol=1e-3)


def test_same_seed_same_output(source: Any, model: Model) -> None:
    one, two = (made(source, model, FORCED) for _ in range(2))
    np.testing.assert_array_equal(one.samples, two.samples)
    assert one.certificate == two.certificate
