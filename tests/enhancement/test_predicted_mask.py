"""Predicted masks: training of the predictor, its model file, and its use in `enhance`."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save, save_file

from tonewood.enhancement.analysis import ArraySource
from tonewood.enhancement.pipeline import Enhancement, enhance_array
from tonewood.enhancement.prior_mask import features_at_rate, predict_mask
from tonewood.errors import ModelError
from tonewood.mask.mask import Mask
from tonewood.mask.search import SearchStep
from tonewood.model import model as modelfile
from tonewood.model.model import Model, load_model
from tonewood.model.model_file import model_checksum, read_tensors
from tonewood.priors.priors import ShrinkageFactors, ShrinkageTable
from tonewood.settings import EnhanceSettings, ModelSettings, PredictorSettings, default_enhance_settings
from tonewood.training.networks import LabelProgress
from tonewood.training.pipeline import add_predictor, train_model

FORCED = default_enhance_settings("predicted").replace(force=True)


def enhanced(wave: Any, model: Model, settings: EnhanceSettings, rate: int = 16_000) -> Enhancement:
    *_, last = enhance_array(wave, rate, model, settings)
    assert isinstance(last, Enhancement)
    return last


@pytest.fixture
def source(play: Callable[..., Any]) -> Any:
    """Return a recording like those of the tiny model's source folder."""
    return play(4, formant_hz=2_500.0, seed=99)


def test_prediction_is_nearer_to_the_prior_than_zero_is(predicting: Model) -> None:
    card = predicting.card.predictor
    assert card is not None
    assert card.missed_db < 0.7 * card.spread_db


def test_prediction_reduces_the_cycle_distance(predicting: Model) -> None:
    assert predicting.card.predictor is not None
    before, _, predicted = predicting.card.predictor.cycle_db
    assert predicted < 0.8 * before


def test_adding_a_predictor_changes_nothing_else_of_the_model(
    model: Model, model_file: Path, predicting_file: Path
) -> None:
    back = load_model(predicting_file)
    without = replace(
        back,
        predictor=None,
        settings=model.settings,
        card=back.card.model_copy(update={"predictor": None}),
    )
    assert without.digest == model.digest
    assert without.card == model.card
    assert back.digest != model.digest
    assert predicting_file.stat().st_size > model_file.stat().st_size


def predict(samples: Any, rate: int, model: Model) -> Mask:
    bound = FORCED.render.max_gain_db
    return predict_mask(ArraySource(samples, rate), model, bound).load()


def test_predictor_survives_its_file_and_training_is_reproducible(
    predicting: Model, predicting_file: Path, training_folders: Any, model: Model, source: Any
) -> None:
    back = load_model(predicting_file)
    assert back.digest == predicting.digest
    assert back.card == predicting.card
    first, second = (predict(source, 16_000, item).gain_db for item in (predicting, back))
    np.testing.assert_array_equal(first, second)
    *events, again = add_predictor(
        model, training_folders.reference, training_folders.source, predicting.settings.predictor
    )
    assert isinstance(again, Model)
    assert again.digest == predicting.digest
    labelled = [event for event in events if isinstance(event, LabelProgress)]
    assert [(event.number, event.total) for event in labelled] == [(n, 4) for n in range(1, 5)]


@pytest.mark.usefixtures("fitted_correction")
def test_training_adds_a_predictor_only_if_set(
    training_folders: Any, small: Callable[..., ModelSettings], model: Model
) -> None:
    settings = small(steps=1, judge=False).replace(predictor=dict(taught=True, steps=20, width=4))
    reference, source = training_folders
    *_, last = train_model(reference, source, settings)
    assert isinstance(last, Model)
    assert last.predictor is not None
    assert last.card.predictor is not None
    assert model.predictor is None


def test_model_files_without_predictor_fields_load(model: Model, tmp_path: Path) -> None:
    settings, card = (json.loads(item.model_dump_json()) for item in (model.settings, model.card))
    del settings["predictor"], card["predictor"]
    texts = json.dumps(settings), json.dumps(card)
    named = modelfile._model_tensors(model)
    parts = read_tensors(save(named))
    head = {"format": "tonewood", "version": "2", "settings": texts[0], "card": texts[1]}
    head["sha256"] = model_checksum(*texts, parts)
    path = tmp_path / "tiny.tonewood"
    save_file(named, path, head)
    back = load_model(path)
    assert back.predictor is None
    assert back.card == model.card
    assert back.digest == model.digest


def test_predicted_mask_is_applied_unchanged_and_certified(source: Any, predicting: Model) -> None:
    result = enhanced(source, predicting, FORCED)
    expected = predict(source, 16_000, predicting)
    np.testing.assert_allclose(result.mask.gain_db, expected.gain_db, atol=1e-5)
    assert result.steps == 0
    assert result.certificate.scorer.after < result.certificate.scorer.before


def test_search_from_the_prediction_starts_at_a_lower_objective(source: Any, predicting: Model) -> None:
    totals = {
        kind: [
            event.objective.total
            for event in enhance_array(
                source,
                16_000,
                predicting,
                EnhanceSettings(force=True).replace(prior=dict(kind=kind)),
            )
            if isinstance(event, SearchStep)
        ]
        for kind in ("auto", "predicted")
    }
    assert len(totals["predicted"]) == 4
    for step in range(3):
        assert totals["predicted"][step] < totals["auto"][step]


def test_predictor_does_not_learn_priors_of_zero_shrinkage(
    training_folders: Any, model: Model, predicting: Model, source: Any
) -> None:
    nothing = ShrinkageTable(ShrinkageFactors(0.0, 0.0), ShrinkageFactors(0.0, 0.0))
    doubting = replace(model, learnt_priors=replace(model.priors, shrinkage=nothing))
    brief = PredictorSettings(width=8, depth=2, steps=20, search_steps=0, guide=0.0)
    *_, last = add_predictor(doubting, training_folders.reference, training_folders.source, brief)
    assert isinstance(last, Model)
    static = model.priors.static_db[:, None]
    deviations = []
    for labelled in (last, predicting):
        mask = predict(source, 16_000, labelled).gain_db[:, 20:-20]
        # The blend keeps a share of the level whatever the shrinkage, so shapes are compared.
        deviations.append(np.abs(mask - mask.mean(axis=0) - (static - static.mean())).max())
    assert deviations[0] < 0.8
    assert deviations[1] > 2


def test_prediction_refuses_input_unlike_the_source(predicting: Model) -> None:
    noise = np.random.default_rng(0).standard_normal((1, 32_000)).astype(np.float32) * 0.1
    result = enhanced(noise, predicting, default_enhance_settings("predicted"))
    assert result.certificate.verdict == "refused"
    assert result.prior in ("auto", "none")
    assert result.mask.roughness_db == 0


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_prediction_works_at_any_sample_rate(rate: int, play: Callable[..., Any], predicting: Model) -> None:
    wave = play(2, rate, formant_hz=2_500.0, seed=5)
    mask = predict(wave, rate, predicting)
    assert mask.hop_seconds == pytest.approx(0.01, abs=1e-4)
    assert mask.gain_db.shape[1] == pytest.approx(201, abs=1)
    if rate >= 16_000:
        assert features_at_rate(wave[0], rate, predicting).shape == mask.gain_db.shape
    assert enhanced(wave, predicting, FORCED, rate).samples.shape == wave.shape


def test_model_without_predictor_raises(source: Any, model: Model) -> None:
    with pytest.raises(ModelError, match=r"tiny has no predictor: add one with train --predictor"):
        enhanced(source, model, default_enhance_settings("predicted"))
    with pytest.raises(ModelError, match="has no predictor"):
        enhanced(source, model, EnhanceSettings().replace(prior=dict(kind="predicted")))


# --- The command line


def test_train_onto_adds_a_predictor_that_enhance_uses(
    run: Callable[..., Any],
    training_folders: Any,
    model_file: Path,
    tmp_path: Path,
    play: Callable[..., Any],
) -> None:
    sides = ("--reference", training_folders.reference, "--source", training_folders.source)
    out = tmp_path / "with.tonewood"
    brief = ("--set", "predictor.steps=20", "--set", "predictor.width=4")
    ran = run("train", *sides, "--predictor", "--onto", model_file, "-o", out, *brief)
    assert ran.code == 0, ran.err
    assert "predictor  " in ran.out
    take = tmp_path / "take.wav"
    soundfile.write(take, play(1.2).T, 16_000)
    ran = run("enhance", take, "-m", out, "-o", tmp_path / "a.wav", "--method", "predicted", "--json")
    assert ran.code == 0, ran.err
    assert ran.objects[0]["steps"] == 0


@pytest.mark.parametrize("more", [(), ("--predictor", "--set", "scorer.width=5")])
def test_train_onto_accepts_no_other_change(
    run: Callable[..., Any], training_folders: Any, model_file: Path, tmp_path: Path, more: Any
) -> None:
    sides = ("--reference", training_folders.reference, "--source", training_folders.source)
    ran = run("train", *sides, "--onto", model_file, "-o", tmp_path / "a.tonewood", *more)
    assert ran.code == 2
    assert ran.err == (
        "tonewood: --onto needs --predictor and accepts no other change of the model: omit the other "
        "options\n"
    )


def test_enhance_without_predictor_fails_in_one_line(
    run: Callable[..., Any], model_file: Path, tmp_path: Path, play: Callable[..., Any]
) -> None:
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, play(1.2).T, 16_000)
    out = tmp_path / "out"
    ran = run("enhance", tmp_path, "-m", model_file, "-o", out, "--method", "predicted")
    assert ran.code == 1
    assert ran.err == (
        "tonewood: tiny has no predictor: add one with train --predictor --onto, or use --method search\n"
    )
    assert not out.exists()
