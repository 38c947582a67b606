"""What a certificate says is what it found."""

from typing import Any

import pytest

from tonewood.mask.certificate import Certificate, Change
from tonewood.studio.state import certificate_lines, verdict_line


def certificate(**changes: Any) -> Certificate:
    found = {
        "verdict": "good", "reasons": (), "scorer": Change(before=0.97, after=0.1),
        "judge": Change(before=0.95, after=0.2), "judge_smoothed": 0.3, "judge_fooled": 0.0,
        "static_share": 0.5, "largest_db": 9.0, "rms_db": 3.0, "roughness_db": 0.2,
        "unlikeness": 0.6, "unlike_reference": Change(before=1.4, after=0.7),
    }  # fmt: skip
    return Certificate.model_validate(found | changes)


def kinds(found: Certificate) -> dict[str, str]:
    return {it.title: it.kind for it in certificate_lines(found)}


def test_a_good_one_has_no_caution() -> None:
    found = certificate()
    assert verdict_line(found).kind == "good"
    assert "caution" not in kinds(found).values()
    told = {it.title: it.text for it in certificate_lines(found)}
    assert "Like the source before, like the reference after" in told["Scorer"]
    assert "50 %" in told["Fixed or moving"]


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"scorer": Change(before=0.9, after=0.8)}, "Scorer"),
        ({"judge": Change(before=0.9, after=0.6)}, "Judge"),
        ({"judge": None}, "Judge"),
        ({"judge_smoothed": 0.8}, "Smoothness"),
        ({"unlike_reference": Change(before=1.4, after=1.2)}, "Near the reference"),
        ({"unlikeness": 1.5, "verdict": "refused"}, "A recording it knows"),
    ],
)
def test_what_speaks_against_it_is_a_caution(changes: dict[str, Any], title: str) -> None:
    assert kinds(certificate(**changes))[title] == "caution"


def test_a_refusal_says_what_can_be_done() -> None:
    told = verdict_line(certificate(verdict="refused", unlikeness=2.0))
    assert told.kind == "refused"
    assert "Choose a model of this instrument" in told.text


def test_where_the_judge_did_not_follow_nothing_is_said_of_smoothing() -> None:
    found = certificate(judge=Change(before=1, after=1), judge_smoothed=1.0)
    assert "Smoothness" not in kinds(found)
