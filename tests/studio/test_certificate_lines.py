"""Certificate text states the measurements."""

from typing import Any

import pytest

from tonewood.mask.certificate import Certificate, Change
from tonewood.studio.certificate_view import certificate_lines, certificate_view, verdict_line


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
    assert "Like the source before, like the reference after" in lines["Match score"]
    assert "50 %" in lines["Fixed or moving"]


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"scorer": Change(before=0.9, after=0.8)}, "Match score"),
        ({"judge": Change(before=0.9, after=0.7)}, "Second opinion"),
        ({"judge": None}, "Second opinion"),
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


@pytest.mark.parametrize(
    ("verdict", "changes", "title", "kind"),
    [
        ("refused", {"largest_db": 0.0, "rms_db": 0.0, "roughness_db": 0.0}, "Left unchanged", "refused"),
        ("refused", {"roughness_db": 0.0}, "Fixed EQ only", "refused"),
        ("refused", {}, "Enhanced against advice", "refused"),
        ("unneeded", {"largest_db": 0.0}, "Already sounds like the reference", "plain"),
        ("unneeded", {}, "Already sounded like the reference", "plain"),
        ("good", {"largest_db": 0.0}, "Unchanged", "plain"),
    ],
)
def test_heading_says_what_was_done(verdict: str, changes: dict[str, Any], title: str, kind: str) -> None:
    result = certificate(verdict=verdict, **changes)
    heading = verdict_line(result)
    assert (heading.title, heading.kind) == (title, kind)
    size = certificate_view(result, current=True)["size"]
    assert size == "No change: 0.0 dB." if "largest_db" in changes else "9.0 dB at most" in size


def test_checks_of_an_unchanged_recording_do_not_apply() -> None:
    result = certificate(verdict="refused", largest_db=0.0, rms_db=0.0, roughness_db=0.0)
    assert kinds(result)["Smoothness"] == kinds(result)["Second opinion"] == "none"
    assert kinds(result)["Match score"] == "plain"


def test_size_says_the_improvement_of_each_decibel() -> None:
    assert "each dB improves the match score by 0.29" in certificate_view(certificate(), current=True)["size"]


def test_recording_that_is_already_there_is_like_the_reference_folder() -> None:
    result = certificate(
        verdict="unneeded", largest_db=0.0, unlikeness=1.5, unlike_reference=Change(before=0.6, after=0.6)
    )
    assert verdict_line(result).kind == "plain"
    lines = {item.title: item for item in certificate_lines(result)}
    assert lines["Known kind of recording"].text == (
        "Similar to the reference recordings (inside: 60 % of the limit)."
    )
    assert lines["Known kind of recording"].kind == "good"


def test_smoothness_does_not_apply_when_the_second_opinion_disagrees() -> None:
    result = certificate(judge=Change(before=1, after=1), judge_smoothed=1.0)
    assert kinds(result)["Smoothness"] == "none"
