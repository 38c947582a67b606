"""Certificate text states the measurements."""

from typing import Any

import pytest

from tonewood.mask.certificate import Certificate, Change
from tonewood.studio.state import certificate_lines, verdict_line


def certificate(**changes: Any) -> Certificate:
    result = {
        "verdict": "good", "reasons": (), "scorer": Change(before=0.97, after=0.1),
        "judge": Change(before=0.95, after=0.2), "judge_smoothed": 0.3, "judge_fooled": 0.0,
        "static_share": 0.5, "largest_db": 9.0, "rms_db": 3.0, "roughness_db": 0.2,
        "unlikeness": 0.6, "unlike_reference": Change(before=1.4, after=0.7),
    }  # fmt: skip
    return Certificate.model_validate(result | changes)


def kinds(result: Certificate) -> dict[str, str]:
    return {item.title: item.kind for item in certificate_lines(result)}


def test_good_certificate_has_no_caution() -> None:
    result = certificate()
    assert verdict_line(result).kind == "good"
    assert "caution" not in kinds(result).values()
    lines = {item.title: item.text for item in certificate_lines(result)}
    assert "Like the source before, like the reference after" in lines["Scorer"]
    assert "50 %" in lines["Constant or moving"]


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"scorer": Change(before=0.9, after=0.8)}, "Scorer"),
        ({"judge": Change(before=0.9, after=0.7)}, "Judge"),
        ({"judge": None}, "Judge"),
        ({"judge_smoothed": 0.8}, "Smoothness"),
        ({"unlike_reference": Change(before=1.4, after=1.2)}, "Distance to the reference"),
        ({"unlikeness": 1.5, "verdict": "refused"}, "Known kind of recording"),
        (
            {"unlikeness": 1.5, "verdict": "refused", "unlike_reference": Change(before=0.9, after=0.7)},
            "Known kind of recording",
        ),
    ],
)
def test_failed_measurement_is_a_caution(changes: dict[str, Any], title: str) -> None:
    assert kinds(certificate(**changes))[title] == "caution"


def test_refused_verdict_suggests_another_model() -> None:
    heading = verdict_line(certificate(verdict="refused", unlikeness=2.0))
    assert heading.kind == "refused"
    assert "Choose a model of this instrument" in heading.text


def test_recording_that_is_already_there_is_like_the_reference_folder() -> None:
    result = certificate(verdict="unneeded", unlikeness=1.5, unlike_reference=Change(before=0.6, after=0.5))
    heading = verdict_line(result)
    assert (heading.kind, heading.title) == ("plain", "Already there")
    lines = {item.title: item for item in certificate_lines(result)}
    assert lines["Known kind of recording"].text == (
        "The recording is like the reference folder (0.60 of the limit)."
    )
    assert lines["Known kind of recording"].kind == "good"


def test_smoothness_is_omitted_when_the_judge_disagrees() -> None:
    result = certificate(judge=Change(before=1, after=1), judge_smoothed=1.0)
    assert "Smoothness" not in kinds(result)
