"""Explanations of one recording: exact, audible, the same at any rate."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tonewood.audio_io.reader import read_recording
from tonewood.enhancement.analysis import score_array
from tonewood.enhancement.pipeline import scorer_input, to_analysis_rate
from tonewood.errors import CallError
from tonewood.explanation.pipeline import (
    OCTAVE_CENTERS_HZ,
    evidence_mask,
    explain_recording,
    filter_by_evidence,
)
from tonewood.model.model import Model, load_model
from tonewood.scorer.network import score_windows

Play = Callable[..., Any]


def explain(samples: Any, rate: int, model: Model, **how: Any) -> Any:
    return explain_recording(samples, rate, model, parts=False, draws=1, **how)


@pytest.mark.parametrize("side", ["reference", "source"])
@pytest.mark.parametrize("method", ["cam", "integrated"])
def test_map_and_bias_sum_to_logit(model: Model, play: Play, side: str, method: str) -> None:
    wave = play(3.4, 22_050, 2)
    wave[:, 21_500:44_600] = 0  # a silent window
    explanation = explain(wave, 22_050, model, side=side, method=method)
    scores = score_windows(model.scorer, scorer_input(to_analysis_rate(wave, 22_050, model), model))
    scores = scores.astype(np.float64)
    logits = np.log(scores / (1 - scores)) * (-1 if side == "reference" else 1)
    assert explanation.windows == len(scores) == 3
    assert explanation.logit == pytest.approx(float(logits.mean()), abs=1e-4)  # float32 scores
    assert abs(explanation.map_mean + explanation.base - explanation.logit) < 1e-6
    assert explanation.residual < 1e-6
    assert explanation.score == pytest.approx(score_array(wave, 22_050, model).scorer, abs=1e-6)


def test_map_and_bias_sum_to_logit_on_real_recordings(corpora: Path) -> None:
    model = load_model("cello")
    for path in sorted((corpora / "real_cello" / "test" / "good").glob("*.flac"))[:2]:
        recording = read_recording(path)
        explanation = explain(recording.samples, recording.rate, model)
        assert explanation.residual < 1e-6
        assert abs(explanation.map_mean + explanation.base - explanation.logit) < 1e-6
        assert explanation.score == pytest.approx(
            score_array(recording.samples, recording.rate, model).scorer, abs=1e-6
        )


def test_windows_that_do_not_overlap_average_to_the_logit(model: Model, play: Play) -> None:
    wave = play(3.0)[:, :47_900]  # 300 frames
    explanation = explain(wave, 16_000, model)
    assert explanation.evidence.shape == (48, 300)
    assert float(explanation.evidence.mean()) == pytest.approx(explanation.logit, abs=1e-6)
    assert float(np.mean(explanation.frame_evidence)) == pytest.approx(explanation.logit, abs=1e-6)


def test_silent_windows_have_no_evidence(model: Model, play: Play) -> None:
    wave = play(4.0)
    wave[:, 15_700:32_300] = 0
    evidence = explain(wave, 16_000, model).frame_evidence
    silent = np.isnan(evidence)
    assert silent[105:195].all()
    assert not silent[:95].any()
    assert not silent[205:].any()


def test_other_class_has_opposite_evidence(model: Model, play: Play) -> None:
    one, other = (explain(play(1.2), 16_000, model, side=side) for side in ("reference", "source"))
    np.testing.assert_allclose(one.evidence, -other.evidence)
    assert one.logit == -other.logit
    np.testing.assert_allclose(one.octaves, -other.octaves)


def test_octaves_show_the_formant(model: Model, play: Play) -> None:
    # 600 Hz is the reference's formant, 2500 Hz the source's.
    for side, formant, expected, other in (
        ("reference", 600.0, 500, 2_000), ("source", 2_500.0, 2_000, 500),
    ):  # fmt: skip
        explanation = explain(play(3.0, formant_hz=formant, seed=7), 16_000, model, side=side)
        assert explanation.logit > 0
        by_hz = dict(zip(OCTAVE_CENTERS_HZ, explanation.octaves, strict=True))
        assert by_hz[expected] + by_hz[other] > 0
        assert explanation.octaves.sum() > 0


def test_correct_map_is_faithful(model: Model, play: Play) -> None:
    explanation = explain_recording(play(2.0), 16_000, model, parts=False, method="integrated")
    assert explanation.faithfulness.is_faithful
    deletion, insertion = explanation.faithfulness.deletion, explanation.faithfulness.insertion
    assert float(deletion[0]) == pytest.approx(float(insertion[-1]), abs=1e-4)
    assert float(deletion[0]) == pytest.approx(explanation.logit, abs=1e-3)


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2)])
def test_evidence_and_rest_sum_to_recording(model: Model, play: Play, rate: int, channels: int) -> None:
    wave = play(1.3, rate, channels)
    sounds = filter_by_evidence(wave, rate, explain(wave, rate, model, side="source"), model)
    assert sounds is not None
    before = [sound.samples / np.float32(10 ** (sound.gain_db / 20)) for sound in sounds]
    assert before[0].shape == wave.shape
    np.testing.assert_allclose(before[0] + before[1], wave, atol=1e-6)
    for part in before:  # neither is all of it
        assert 0.01 < np.square(part).sum() / np.square(wave).sum() < 0.99
    for sound in sounds:
        assert sound.peak_limited or sound.loudness_after == pytest.approx(sound.loudness_before, abs=0.1)


def test_evidence_mask_passes_positive_evidence(model: Model) -> None:
    evidence = np.full((48, 100), -1.0)
    evidence[20:30, 40:60] = 2.0
    mask = evidence_mask(evidence, model)
    assert mask is not None
    gain = mask.gain_at(mask.hz[[5, 25, 40]], np.array([0.2, 0.5, 0.8]))
    assert gain[1, 1] == pytest.approx(0, abs=0.1)
    assert gain[0].max() < -50
    assert gain[:, [0, 2]].max() < -50
    # What the scorer cannot hear was not used.
    assert mask.gain_at(np.array([9_000.0, 20_000.0]), np.array([0.5])).max() < -50
    assert evidence_mask(np.full((48, 100), -1.0), model) is None


def test_parts_have_names_and_weights(model: Model, play: Play) -> None:
    explanation = explain_recording(play(1.5), 16_000, model, draws=1)
    assert explanation.parts is not None
    assert len(explanation.parts.labels) == explanation.evidence.shape[1]
    sums = explanation.part_sums(0.01)
    assert sums is not None
    scored = np.isfinite(explanation.frame_evidence)
    assert sums.seconds.sum() == pytest.approx(0.01 * scored.sum())
    assert sums.evidence.sum() == pytest.approx(0.01 * explanation.frame_evidence[scored].sum())


def test_unknown_class_is_refused(model: Model, play: Play) -> None:
    with pytest.raises(CallError, match="--for is 'good': choose reference or source"):
        explain_recording(play(1.0), 16_000, model, side="good")  # type: ignore[arg-type]
