"""Certificates of outputs with known properties."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonewood.dsp.chunking import ArrayTimeSeries, TimeSeries
from tonewood.mask.certificate import Certificate, Change, Measurements, adaptive_share, certify, share_text
from tonewood.settings import CertificateSettings, RenderSettings

ROWS, FRAMES = 20, 300
TILT = np.repeat(np.linspace(-6, 6, ROWS, dtype=np.float32)[:, None], FRAMES, axis=1)


def judge(rows: TimeSeries, first: int = 0) -> float:
    """Score the tilt: 1 is dull, 0 is 6 dB brighter."""
    rows_db = rows.read(first, rows.frames)
    slope = (rows_db.mean(axis=1) * TILT[:, 0]).mean() / np.square(TILT[:, 0]).mean()
    return float((1 - slope).clip(0, 1))


def certify_with(**changes: Any) -> Certificate:
    rows_db = changes.pop("rows_db", np.zeros((ROWS, FRAMES), np.float32))
    mask = changes.pop("mask_db", TILT.copy())
    judge_score = changes.pop("judge_score", judge)
    measured: dict[str, Any] = {
        "scorer": Change(before=0.9, after=0.1),
        "judge": Change(before=1.0, after=0.1),
        "judge_fooled": 0.0,
        "roughness_db": float(np.abs(np.diff(mask, axis=1)).mean()),
        "unlikeness": 0.5,
        "unlike_reference": Change(before=1.2, after=0.4),
    }
    measurements = Measurements(**{**measured, **changes})
    series = ArrayTimeSeries(rows_db), ArrayTimeSeries(mask)
    return certify(measurements, *series, judge_score, CertificateSettings())


def test_eq_followed_by_judge_is_good() -> None:
    result = certify_with()
    assert (result.verdict, result.reasons, result.line) == ("good", (), "good")
    assert result.static_share == pytest.approx(1)
    assert result.largest_db == pytest.approx(6)


@pytest.mark.parametrize("silent_gain_db", [0.0, 30.0, -30.0])
@pytest.mark.parametrize("gain_db", [(6.0, 6.0), (-8.0, -2.0), (3.0, -3.0)])
def test_size_where_there_is_sound_counts_what_is_heard(
    gain_db: tuple[float, float], silent_gain_db: float
) -> None:
    """Two rows sound equally loud, the others are 200 dB below; their overall level is matched."""
    mask, rows_db = (np.full((ROWS, FRAMES), x, np.float32) for x in (silent_gain_db, -200.0))
    mask[3], mask[7] = gain_db
    rows_db[[3, 7]] = -20.0
    result = certify_with(mask_db=mask, rows_db=rows_db)
    assert result.heard_db == pytest.approx(abs(gain_db[0] - gain_db[1]) / 2, abs=1e-3)
    assert f"{result.heard_db:.1f} dB where there is sound" in result.size
    # The silent rows do not count, however large their gains are.
    assert result.most_db == pytest.approx(max(map(abs, gain_db)), abs=0.03)
    assert f"at most {result.most_db:.1f} dB on 99 % of it" in result.size
    assert result.largest_db == max(map(abs, (*gain_db, silent_gain_db)))


@pytest.mark.parametrize(("share", "most_db"), [(0.005, 0.0), (0.02, 20.0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_size_of_most_of_the_sound_leaves_out_a_hundredth(share: float, most_db: float, sign: int) -> None:
    """One row has a share of the input's power, or of the output's if it is raised."""
    mask, rows_db = (np.full((ROWS, FRAMES), x, np.float32) for x in (0.0, -200.0))
    mask[7], rows_db[3] = sign * 20.0, 0.0
    rows_db[7] = 10 * np.log10(share) - (20 if sign > 0 else 0)
    result = certify_with(mask_db=mask, rows_db=rows_db)
    assert result.most_db == pytest.approx(most_db)


def test_size_of_silence_is_finite() -> None:
    silence = np.full((ROWS, FRAMES), -140.0, np.float32)
    result = certify_with(mask_db=np.zeros_like(silence), rows_db=silence)
    assert result.most_db == result.largest_db == 0


def test_size_of_an_earlier_certificate_is_that_of_the_whole_mask() -> None:
    last = certify_with().model_copy(update={"most_db": None, "heard_db": 2.0})
    assert last.size == "2.0 dB where there is sound, 6.0 dB at most"
    earlier = last.model_copy(update={"heard_db": None, "rms_db": 3.04})
    assert earlier.size == "3.0 dB rms, 6.0 dB at most"
    assert "heard_db" not in earlier.model_dump()


def test_noise_is_limited_even_if_it_fools_the_judge() -> None:
    noise = np.random.default_rng(0).normal(0, 6, (ROWS, FRAMES)).astype(np.float32)
    result = certify_with(mask_db=noise)
    assert result.verdict == "limited"
    assert any("survive" in reason for reason in result.reasons)
    assert any("a frame" in reason for reason in result.reasons)


@pytest.mark.parametrize(
    ("change", "verdict", "reason"),
    [
        ({"judge": Change(before=0.9, after=0.7)}, "limited", "judge does not agree enough"),
        ({"unlike_reference": Change(before=1, after=1.3)}, "limited", "reference folder"),
        ({"roughness_db": 2.0}, "limited", "steps by 2.00 dB"),
        ({"unlikeness": 1.5}, "refused", "1.50 times as far from the source folder"),
    ],
)
def test_each_exceeded_limit_is_a_reason(change: dict[str, Any], verdict: str, reason: str) -> None:
    result = certify_with(**change)
    assert result.verdict == verdict
    assert reason in result.line


def test_static_share_of_time_varying_effect_is_half() -> None:
    moving = TILT * (np.linspace(0, 2, FRAMES) > 1)
    assert certify_with(mask_db=2 * TILT * 0.5).static_share == pytest.approx(1, abs=0.01)
    result = certify_with(
        mask_db=moving,
        judge=Change(before=1.0, after=0.0),
        judge_score=lambda rows: judge(rows, FRAMES // 2),
    )
    assert result.static_share == pytest.approx(0.5, abs=0.01)


def test_certificate_without_judge() -> None:
    result = certify_with(judge=None, judge_score=None, judge_fooled=None)
    assert result.verdict == "good"
    assert (result.judge_smoothed, result.judge_fooled, result.static_share) == (None, None, None)


@given(st.floats(0, 1))
def test_known_recordings_keep_the_adaptive_part(unlikeness: float) -> None:
    assert adaptive_share(unlikeness) == 1


@given(st.floats(1.3, 100))
def test_unknown_recordings_lose_the_adaptive_part(unlikeness: float) -> None:
    assert adaptive_share(unlikeness) == 0


@given(st.floats(0, 1))
def test_adaptive_part_fades_linearly_in_between(share: float) -> None:
    assert adaptive_share(1.3 - 0.3 * share) == pytest.approx(share, abs=1e-9)


ARRIVED: dict[str, Any] = {
    "scorer": Change(before=0.2, after=0.1),
    "judge": Change(before=0.3, after=0.1),
    "unlike_reference": Change(before=0.8, after=0.4),
    "has_graded_scorer": True,
}


def test_recording_like_the_reference_is_already_there() -> None:
    result = certify_with(**ARRIVED)
    assert result.verdict == "unneeded"
    assert result.line == "already there: the recording sounds like the reference already (score 0.20)"


def test_recording_like_the_reference_is_already_there_without_a_judge() -> None:
    result = certify_with(**{**ARRIVED, "judge": None, "judge_fooled": None}, judge_score=None)
    assert result.verdict == "unneeded"


@pytest.mark.parametrize(
    "change",
    [
        {"scorer": Change(before=0.1, after=0.9)},
        {"judge": Change(before=0.3, after=0.6)},
        {"unlike_reference": Change(before=0.8, after=1.4)},
    ],
)
def test_recording_that_is_moved_away_from_the_reference_is_limited(change: dict[str, Any]) -> None:
    """A curve or `--force` changes a recording that needs no change."""
    result = certify_with(**{**ARRIVED, **change})
    assert result.verdict == "limited"
    assert "sounded like the reference already" in result.line
    assert len(result.reasons) > 1
    untouched = certify_with(**{**ARRIVED, **change}, mask_db=np.zeros((ROWS, FRAMES), np.float32))
    assert untouched.verdict == "unneeded"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scorer": Change(before=0.21, after=0.28)}, "the score rises (0.21 → 0.28)"),
        ({"judge": Change(before=0.23, after=0.32)}, "the judge does not agree enough (0.23 → 0.32)"),
    ],
)
def test_output_that_is_worse_is_limited(change: dict[str, Any], reason: str) -> None:
    """Scores below 0.5 are on the side of the reference, yet they may rise."""
    nearly = {**ARRIVED, "scorer": Change(before=0.4, after=0.3)}
    assert certify_with(**nearly).verdict == "good"
    result = certify_with(**{**nearly, **change})
    assert result.verdict == "limited"
    assert reason in result.reasons


@pytest.mark.parametrize(
    "change",
    [
        {"scorer": Change(before=0.36, after=0.1)},
        {"judge": Change(before=0.5, after=0.1)},
        {"unlike_reference": Change(before=1.01, after=0.4)},
        {"has_graded_scorer": False},
    ],
)
def test_each_sign_of_the_reference_is_necessary(change: dict[str, Any]) -> None:
    assert certify_with(**{**ARRIVED, **change}).verdict == "good"


@pytest.mark.parametrize(("unlikeness", "reference"), [(5.0, 0.8), (5.0, 1.0), (1.2, 1.25), (0.5, 5.0)])
def test_recording_like_either_folder_is_not_refused(unlikeness: float, reference: float) -> None:
    result = certify_with(
        unlikeness=unlikeness,
        unlike_reference=Change(before=reference, after=0.4),
        has_graded_scorer=True,
    )
    assert result.verdict != "refused"
    # Like the reference, it need not be like the source.
    is_objection = any("both folders" in reason for reason in result.reasons)
    assert is_objection == (unlikeness > 1 and reference > 1)


@pytest.mark.parametrize(("unlikeness", "reference"), [(1.3, 1.4), (2.0, 1.3)])
def test_recording_unlike_both_folders_is_refused(unlikeness: float, reference: float) -> None:
    result = certify_with(
        unlikeness=unlikeness,
        unlike_reference=Change(before=reference, after=0.4),
        has_graded_scorer=True,
    )
    assert result.verdict == "refused"
    assert "unlike both folders" in result.line


@pytest.mark.parametrize(("unlikeness", "verdict"), [(1.0, "good"), (1.01, "refused")])
def test_models_of_earlier_versions_refuse_beyond_the_limit_of_the_source(
    unlikeness: float, verdict: str
) -> None:
    result = certify_with(
        unlikeness=unlikeness,
        scorer=Change(before=0.2, after=0.1),
        judge=Change(before=0.3, after=0.1),
        unlike_reference=Change(before=0.2, after=0.2),
    )
    assert result.verdict == verdict


def test_verdict_of_a_share_is_that_of_the_whole() -> None:
    whole = certify_with()
    applied = certify_with(judge=Change(before=1.0, after=0.8), scorer=Change(before=0.9, after=0.7))
    assert applied.verdict == "limited"
    half = whole.of_share("50 %", applied)
    assert (half.verdict, half.reasons) == ("good", ())
    assert half.line == "good (applied: 50 %; judged in full)"
    assert (half.scorer, half.judge) == (applied.scorer, applied.judge)
    assert half.whole is not None
    assert (half.whole.scorer, half.whole.judge) == (whole.scorer, whole.judge)
    assert {"share", "whole"} <= set(half.model_dump())
    assert not {"share", "whole"} & set(whole.model_dump())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, None),
        ({"max_gain_db": 6, "match": False}, None),
        ({"amount": 0.5}, "50 %"),
        ({"amount": -1}, "-100 %, away from the reference"),
        ({"aspect": {"only": "dynamics-of-bands", "start_s": 1}}, "dynamics of bands only, from 1 s"),
        ({"aspect": {"between": (200, 4_000), "end_s": 2}}, "200 to 4000 Hz only, to 2 s"),
        ({"shape": {"smooth_octaves": 1, "low_hz": 90}}, "smoothed over 1 octave, above 90 Hz"),
        ({"shape": {"high_hz": 900, "direction": "cut"}}, "below 900 Hz, cuts only"),
    ],
)
def test_share_is_described(changes: dict[str, Any], text: str | None) -> None:
    settings = RenderSettings.model_validate(changes)
    assert share_text(settings) == text
    assert (settings.whole == settings) is (text is None)
