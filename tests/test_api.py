import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tonewood
from tests.conftest import Folders
from tonewood.dsp.loudness import integrated_loudness, true_peak_db
from tonewood.enhancement.analysis import score_array as workflow_score
from tonewood.enhancement.pipeline import enhance_array as workflow_enhance
from tonewood.errors import AudioError, CallError, ModelError, OutputError, TonewoodError
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, ModelSettings, PriorSettings, RenderSettings, SearchSettings

Play = Callable[..., NDArray[np.float32]]
BRIEF = EnhanceSettings(prior=PriorSettings(kind="static"), search=SearchSettings(steps=2), force=True)


@pytest.fixture(scope="module")
def wave(play: Play) -> NDArray[np.float32]:
    """Two seconds in stereo."""
    return play(2.0, 22_050, 2, formant_hz=2_500.0, seed=77)


def fresh(code: str) -> str:
    """What a fresh interpreter prints."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def test_amount_and_method_are_keywords(wave: NDArray[np.float32], model: Model) -> None:
    whole = tonewood.enhance(wave, 22_050, model, settings=BRIEF)
    half = tonewood.enhance(wave, 22_050, model, amount=0.5, settings=BRIEF)
    assert half.settings == BRIEF.replace(render=dict(amount=0.5))
    np.testing.assert_allclose(half.applied.gain_db, whole.applied.gain_db / 2, atol=1e-3)
    assert tonewood.enhance(wave, 22_050, model, method="search", amount=0.0).settings.render.amount == 0
    with pytest.raises(CallError, match=r"^amount is 3: give a number from -1 to 2"):
        tonewood.enhance(wave, 22_050, model, amount=3)
    with pytest.raises(CallError, match="method and settings cannot be used together"):
        tonewood.enhance(wave, 22_050, model, method="paper", settings=BRIEF)


def test_results_print_on_one_line(wave: NDArray[np.float32], model: Model) -> None:
    result = tonewood.enhance(wave, 22_050, model, settings=BRIEF)
    for printed in (result, result.mask, model, tonewood.score(wave, 22_050, model)):
        assert len(repr(printed)) < 200
        assert "\n" not in repr(printed)
    assert "2.00 s, 2 channels at 22050 Hz" in repr(result)
    assert f"{result.scorer.before:.2f} → {result.scorer.after:.2f}" in repr(result)


def test_empty_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="model is empty: give a path"):
        tonewood.load("")
    for reference, source in (("", tmp_path), ({"": 1.0}, tmp_path), (tmp_path, "")):
        with pytest.raises(CallError, match="is empty: give a path"):
            tonewood.train(reference, source)


def test_version_is_that_of_the_package() -> None:
    assert tonewood.__version__ == version("tonewood")


def test_public_names_are_pinned() -> None:
    assert tonewood.__all__ == [
        "Enhancement",
        "FeatureLoss",
        "Model",
        "NeuralLoss",
        "Score",
        "Stream",
        "TonewoodError",
        "enhance",
        "from_pretrained",
        "load",
        "push_to_hub",
        "save_pretrained",
        "score",
        "train",
    ]
    assert dir(tonewood) == sorted(tonewood.__all__)


@pytest.mark.parametrize("name", tonewood.__all__)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    exported = getattr(tonewood, name)
    assert exported.__name__ == name
    assert len(exported.__doc__.splitlines()[0]) > 20


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'tonewood' has no attribute 'enhanced'"):
        _ = tonewood.enhanced
    assert not hasattr(tonewood, "files_of_no_kind")


def test_import_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'scipy', 'soundfile', 'pydantic'}"
    code = f"import sys, tonewood; print(sorted({heavy} & set(sys.modules)))"
    assert fresh(code) == "[]"


def test_import_of_errors_loads_nothing_heavy() -> None:
    code = "import sys, tonewood; tonewood.TonewoodError; print('torch' in sys.modules)"
    assert fresh(code) == "False"


def test_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from tonewood import *", names)
    assert set(names) - {"__builtins__"} == set(tonewood.__all__)


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 3])
def test_enhance_keeps_rate_channels_and_length(rate: int, channels: int, play: Play, model: Model) -> None:
    samples = play(1.3, rate, channels, formant_hz=2_500.0, seed=5)
    original = samples.copy()
    result = tonewood.enhance(samples, rate, model, settings=BRIEF)
    assert isinstance(result, tonewood.Enhancement)
    assert result.rate == rate
    assert result.samples.shape == samples.shape
    assert result.samples.dtype == np.float32
    assert np.array_equal(samples, original)
    assert result.mask.largest_db > 0.5
    assert not np.allclose(result.samples, samples, atol=1e-3)
    before, after = (integrated_loudness(s, rate) for s in (samples, result.samples))
    assert after == pytest.approx(before, abs=0.1)
    assert true_peak_db(result.samples, rate) <= -1
    assert 0 <= result.scorer.after <= 1
    assert result.settings == BRIEF


def test_enhance_equals_the_workflow(wave: NDArray[np.float32], model: Model) -> None:
    *_, last = workflow_enhance(wave, 22_050, model, BRIEF)
    result = tonewood.enhance(wave, 22_050, model, settings=BRIEF)
    assert isinstance(last, tonewood.Enhancement)
    assert np.array_equal(result.samples, last.samples)
    assert np.array_equal(result.mask.gain_db, last.mask.gain_db)


def test_enhance_has_default_settings(wave: NDArray[np.float32], model: Model) -> None:
    result = tonewood.enhance(wave, 22_050, model)
    assert result.settings == EnhanceSettings()
    assert result.samples.shape == wave.shape


def test_enhance_with_amount_zero_returns_the_input(wave: NDArray[np.float32], model: Model) -> None:
    none = EnhanceSettings(render=RenderSettings(amount=0), search=SearchSettings(steps=0))
    result = tonewood.enhance(wave, 22_050, model, settings=none)
    assert np.array_equal(result.samples, wave)
    assert result.scorer.before == result.scorer.after


def test_one_dimensional_array_is_one_channel(wave: NDArray[np.float32], model: Model) -> None:
    result = tonewood.enhance(wave[0], 22_050, model, settings=BRIEF)
    assert result.samples.shape == (1, wave.shape[1])
    listed = tonewood.score(wave[0].astype(np.float64).tolist(), 22_050, model)
    assert listed == tonewood.score(wave[:1], 22_050, model)


def test_score_equals_the_workflow(wave: NDArray[np.float32], model: Model) -> None:
    result = tonewood.score(wave, 22_050, model)
    assert isinstance(result, tonewood.Score)
    assert result == workflow_score(wave, 22_050, model)
    assert result.scorer == pytest.approx(np.mean(result.windows), abs=1e-6)


def test_score_separates_the_two_instruments(play: Play, model: Model) -> None:
    good, poor = (
        tonewood.score(play(3.0, 16_000, formant_hz=hz, seed=91), 16_000, model).scorer
        for hz in (600.0, 2_500.0)
    )
    assert good < poor


def test_model_can_be_a_file(wave: NDArray[np.float32], model: Model, model_file: Path) -> None:
    loaded = tonewood.load(model_file)
    assert isinstance(loaded, tonewood.Model)
    assert loaded.digest == model.digest
    by_object = tonewood.score(wave, 22_050, model)
    assert tonewood.score(wave, 22_050, model_file) == by_object
    assert tonewood.score(wave, 22_050, str(model_file)) == by_object


def test_neural_loss_contains_the_score_and_has_a_gradient(play: Play, model: Model) -> None:
    samples = play(0.99, 16_000, 2, seed=3)  # as long as one of the scorer's windows
    waves = torch.from_numpy(samples)[None].requires_grad_()
    loss = tonewood.NeuralLoss(model, 16_000)
    assert isinstance(loss, torch.nn.Module)
    value = loss(waves)
    score = loss.terms(waves).score.item()
    assert score == pytest.approx(tonewood.score(samples, 16_000, model).scorer, abs=1e-3)
    value.backward()
    assert waves.grad is not None
    assert waves.grad.isfinite().all()
    assert waves.grad.abs().max() > 0


def test_neural_loss_takes_a_file_and_a_reduction(model_file: Path) -> None:
    loss = tonewood.NeuralLoss(model_file, rate=44_100, reduction="none")
    assert loss.rate == 44_100
    assert loss(torch.randn(3, 1, 22_050)).shape == (3,)


@pytest.mark.usefixtures("fitted_correction")
def test_train_writes_the_model_that_it_returns(
    training_folders: Folders, small: Callable[..., ModelSettings], tmp_path: Path
) -> None:
    path = tmp_path / "made.tonewood"
    trained = tonewood.train(
        training_folders.reference,
        str(training_folders.source),
        path,
        settings=small(judge=False, steps=5),
    )
    assert trained.name == "made"
    assert trained.judge is None
    assert tonewood.load(path).digest == trained.digest
    with pytest.raises(OutputError, match="exists"):
        trained.save(path)


REFUSED = [
    (np.zeros((1, 2, 3)), CallError, r"samples have shape \(1, 2, 3\): give \(channels, samples\)"),
    (np.ones((1, 3_999)), AudioError, r"samples last 0\.25 s; a score needs 0\.25 s"),
    (np.ones((2, 160)), AudioError, r"samples last 0\.01 s; .*give a longer recording"),
    (np.full((1, 8_000), np.nan), AudioError, "samples contain NaN or infinite values"),
    (np.append(np.zeros(8_000), np.inf), AudioError, "samples contain NaN or infinite values"),
    (np.zeros((2, 8_000)), AudioError, "samples are silent"),
    (np.full((1, 8_000), 0.5), AudioError, "samples are silent"),
]


@pytest.mark.parametrize(("samples", "error", "message"), REFUSED)
def test_invalid_samples_are_rejected(
    samples: NDArray[np.float64], error: type[TonewoodError], message: str, model: Model
) -> None:
    with pytest.raises(error, match=message):
        tonewood.score(samples, 16_000, model)
    with pytest.raises(error, match=message):
        tonewood.enhance(samples, 16_000, model)


def test_wrong_calls_are_named(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="--device is 'tpu': choose cpu or cuda"):
        tonewood.train(tmp_path, tmp_path / "source", device="tpu")
    with pytest.raises(ModelError, match="neither a model file nor a bundled model"):
        tonewood.load(tmp_path / "none.tonewood")
    with pytest.raises(CallError, match="given as both folders"):
        tonewood.train(tmp_path, tmp_path)
