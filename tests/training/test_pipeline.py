from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from tests.training.conftest import Split
from tonewood.audio_io.reader import read_recording
from tonewood.data import loading
from tonewood.enhancement.pipeline import Enhancement, enhance_array, to_analysis_rate
from tonewood.errors import CallError, DeviceError
from tonewood.evaluation.metrics import gap_closed, mel_distance
from tonewood.model.model import Model, load_model
from tonewood.model.model_file import bundled_models
from tonewood.settings import EnhanceSettings
from tonewood.training import networks, pipeline
from tonewood.utils.parallel import check_device

Small = Callable[..., Any]
Learn = Callable[..., Model]


def tensors(model: Model) -> dict[str, NDArray[Any]]:
    named = {f"scorer.{k}": v for k, v in model.scorer.weights.items()}
    if model.judge:
        named |= {f"judge.{k}": v for k, v in model.judge.weights.items()}
    return named | model.priors.tensors()


def test_same_seed_gives_identical_model(training_folders: Any, small: Small, static_model: Model) -> None:
    """The events name every recording and every validation on the way."""
    reference, source = training_folders
    *events, again = pipeline.train_model(reference, source, small())
    assert isinstance(again, Model)
    mine, same = tensors(static_model), tensors(again)
    assert mine.keys() == same.keys()
    for name, value in mine.items():
        assert np.array_equal(value, same[name]), name
    assert static_model.digest == again.digest
    loaded = [e for e in events if isinstance(e, loading.RecordingProgress) and e.stage == "load"]
    assert [(e.side, e.number, e.total) for e in loaded] == [
        (side, n, 4) for side in ("reference", "source") for n in range(1, 5)
    ]
    checked = [(e.network, e.check.step) for e in events if isinstance(e, networks.CheckEvent)]
    assert checked == [(who, n) for who in ("scorer", "judge") for n in (10, 20, 30, 40)]


@pytest.mark.usefixtures("fitted_correction")
def test_judge_is_independent_and_optional(
    training_folders: Any, small: Small, learn: Learn, model: Model
) -> None:
    assert model.judge is not None
    assert model.card.judge is not None
    assert model.card.judge.seed != model.card.scorer.seed
    mine, judge = model.scorer.weights, model.judge.weights
    assert any(not np.array_equal(value, judge[name]) for name, value in mine.items())
    alone = learn(training_folders, small(judge=False))
    assert alone.judge is None
    assert alone.card.judge is None
    # The judge takes nothing from the scorer's randomness.
    for name, value in mine.items():
        assert np.array_equal(value, alone.scorer.weights[name])


@pytest.mark.usefixtures("fitted_correction")
@pytest.mark.parametrize("group_by", ["file", "folder"])
def test_held_out_takes_are_not_trained_on(
    training_folders: Any,
    small: Small,
    learn: Learn,
    splits: list[Split],
    group_by: str,
) -> None:
    learn(training_folders, small(group_by=group_by, steps=1))
    assert len(splits) == 2
    for train, held_out in splits:
        for side in ("reference", "source"):
            learnt, checked = getattr(train, side), getattr(held_out, side)
            assert len(learnt) + len(checked) == 4
            assert len(checked) == (2 if group_by == "folder" else 1)
            assert not any(np.array_equal(a, b) for a in learnt for b in checked)


def test_tiny_scorer_separates_its_instruments(model: Model) -> None:
    # Else the tests that build on it would show little.
    assert model.card.scorer.accuracy > 0.9
    assert model.card.scorer.reference_scores.median < 0.4
    assert model.card.scorer.source_scores.median > 0.6
    assert model.card.reference.hours == pytest.approx(64 / 3600, abs=1e-4)


def test_unknown_device_is_refused() -> None:
    check_device("cpu")
    with pytest.raises(CallError, match="'gpu': choose cpu or cuda"):
        check_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="this machine has no CUDA device: use --device cpu"):
            check_device("cuda")


def test_bundled_cello_closes_the_distance(corpora: Path) -> None:
    folder = corpora / "real_cello" / "test"
    if "cello" not in bundled_models() or not folder.is_dir():
        pytest.skip(f"needs the bundled model `cello` and {folder}")
    model = load_model("cello")
    settings = EnhanceSettings()
    before, after = [], []
    for path in sorted((folder / "cheap").iterdir())[::2]:
        recording = read_recording(path)
        *_, enhancement = enhance_array(recording.samples, recording.rate, model, settings)
        assert isinstance(enhancement, Enhancement)
        paired = read_recording(folder / "good" / path.name)
        target = to_analysis_rate(paired.samples, paired.rate, model)
        source, output = (
            to_analysis_rate(s, recording.rate, model)[: len(target)]
            for s in (recording.samples, enhancement.samples)
        )
        target = target[: len(source)]
        before.append(mel_distance(source, target))
        after.append(mel_distance(output, target))
    assert len(before) == 6
    assert gap_closed(sum(before), sum(after)) >= 0.28


def test_training_accepts_mixed_rates_and_channels(
    tmp_path: Path, play: Callable[..., Any], small: Small, learn: Learn
) -> None:
    for side, formant in (("reference", 600.0), ("source", 2_500.0)):
        (tmp_path / side).mkdir()
        for number, (rate, channels) in enumerate(((22_050, 2), (16_000, 1))):
            wave = play(31.0, rate, channels, formant_hz=formant, seed=number)
            soundfile.write(tmp_path / side / f"{number}.flac", wave.T, rate)
    output = learn(
        type("F", (), {"reference": tmp_path / "reference", "source": tmp_path / "source"}),
        small(judge=False, steps=1),
    )
    assert output.card.reference.takes == 2


def test_guide_is_trusted_as_far_as_adaptive_masks(model: Model) -> None:
    """Where the blend is mostly static, what the guide learned from pseudo-source may harm."""
    networks_factor = model.priors.shrinkage.networks.per_frame
    for static, expected in ((1.0, 0.0), (0.85, 0.0), (0.25, 0.75 * networks_factor), (0.0, networks_factor)):
        weights = model.priors.weights._replace(static=static)
        trust = pipeline._guide_trust(replace(model.priors, weights=weights))
        assert trust == pytest.approx(expected)
