"""Text of a certificate for the page: the verdict, the size of the change, and every check."""

from operator import itemgetter
from typing import Any, Literal, NamedTuple

from tonewood.mask.certificate import UNCHANGED_DB, Certificate, is_improvement

LineKind = Literal["good", "caution", "plain", "refused", "none"]
Treatment = Literal["unchanged", "fixed", "moving"]
_FIXED_DB = 0.005  # steps from frame to frame below it are shown as 0.00 dB


class CertificateLine(NamedTuple):
    """One statement of a certificate; the kind `none` is a check that does not apply."""

    kind: LineKind
    title: str
    text: str


def certificate_view(certificate: Certificate, *, current: bool) -> dict[str, Any]:
    """Return a certificate as the page receives it.

    `current` is False if it is that of the search, and the edit is not checked yet.
    """
    return {
        "current": current,
        "verdict": certificate.verdict,
        "treatment": treatment(certificate),
        "size": size_text(certificate),
        "heading": verdict_line(certificate)._asdict(),
        "statements": [line._asdict() for line in certificate_lines(certificate)],
        "scorer": certificate.scorer.model_dump(),
        "judge": certificate.judge and certificate.judge.model_dump(),
        "reasons": list(certificate.reasons),
    }


def treatment(certificate: Certificate) -> Treatment:
    """Return whether the output is unchanged, or changed by a fixed or by a moving equaliser."""
    if certificate.is_unchanged:
        return "unchanged"
    return "fixed" if certificate.roughness_db < _FIXED_DB else "moving"


def size_text(certificate: Certificate) -> str:
    """Return the size of the change in one line."""
    if treatment(certificate) == "unchanged":
        return "No change: 0.0 dB."
    size = f"Changes {certificate.size}"
    gained = certificate.scorer.before - certificate.scorer.after
    if gained <= 0 or certificate.rms_db < UNCHANGED_DB:
        return f"{size}."
    return f"{size}; each dB improves the match score by {gained / certificate.rms_db:.2f}."


def verdict_line(certificate: Certificate) -> CertificateLine:
    """Return the verdict as a heading and an explanation."""
    kind = treatment(certificate)
    if certificate.verdict == "unneeded":
        if kind == "unchanged":
            text = "It was left unchanged: nothing needs to be done."
            return CertificateLine("plain", "Already sounds like the reference", text)
        text = "You changed it anyway. Compare it with the original before you keep the change."
        return CertificateLine("plain", "Already sounded like the reference", text)
    if certificate.verdict == "refused":
        return _refused_line(certificate, kind)
    if kind == "unchanged":
        return CertificateLine("plain", "Unchanged", "At this amount, the output is the original.")
    if certificate.whole is not None and certificate.scorer.after > certificate.scorer.before:
        text = f"At {certificate.share}, the output is less like the reference than the original."
        return CertificateLine("plain", "Moved away from the reference", text)
    share = f" This is the verdict on all of it; applied: {certificate.share}." if certificate.share else ""
    if certificate.verdict == "good":
        return CertificateLine(
            "good",
            "Looks trustworthy",
            "Match score and second opinion agree, and the change is as smooth as an equaliser's. Listen "
            f"before you decide.{share}",
        )
    return CertificateLine(
        "caution",
        "Use with care",
        f"At least one check below speaks against this result. Listen closely, or reduce the amount.{share}",
    )


def _refused_line(certificate: Certificate, kind: Treatment) -> CertificateLine:
    unknown = "This model does not know recordings of this kind"
    advice = "Choose a model of this instrument, or press “Enhance anyway” and judge the result by ear."
    if kind == "unchanged":
        return CertificateLine("refused", "Left unchanged", f"{unknown}. {advice}")
    if kind == "fixed":
        text = f"{unknown}, so it received a fixed EQ of at most {certificate.largest_db:.1f} dB. {advice}"
        return CertificateLine("refused", "Fixed EQ only", text)
    text = (
        f"{unknown}, so its checks mean little. Judge by ear. Choose a model of this instrument if you can."
    )
    return CertificateLine("refused", "Enhanced against advice", text)


def certificate_lines(certificate: Certificate) -> list[CertificateLine]:
    """Return every measurement of a certificate as a sentence."""
    return [*_effect_lines(certificate), *_distance_lines(certificate), _size_line(certificate)]


def _checked(title: str, text: str, good: bool | None = None) -> CertificateLine:
    return CertificateLine("plain" if good is None else "good" if good else "caution", title, text)


def _effect_lines(certificate: Certificate) -> list[CertificateLine]:
    """Return what the change does to the scores: below 0.5, a recording is closer to the reference."""
    scorer, judge = certificate.scorer, certificate.judge
    before, after = _describe_score(scorer.before).capitalize(), _describe_score(scorer.after)
    if treatment(certificate) == "unchanged":
        nothing = "Does not apply: nothing was changed."
        score = f"{before} ({scorer.before:.2f}; 0 is the reference)."
        return [
            CertificateLine("plain", "Match score", score),
            CertificateLine("none", "Second opinion", nothing),
            CertificateLine("none", "Smoothness", nothing),
        ]
    scores = f"{scorer.before:.2f} → {scorer.after:.2f}; 0 is the reference"
    # A share has less effect; that alone does not speak against it.
    unmoved = None if certificate.share else False
    improved = is_improvement(scorer.before, scorer.after) or unmoved
    lines = [_checked("Match score", f"{before} before, {after} after ({scores}).", improved)]
    if judge is None:
        text = "This model has no second network, so the result was not checked independently."
        return [*lines, _checked("Second opinion", text, False)]

    agrees = is_improvement(judge.before, judge.after)
    verb, scores = "agrees" if agrees else "does not agree", f"{judge.before:.2f} → {judge.after:.2f}"
    text = f"A second network, which the search did not use, {verb} ({scores})."
    lines.append(_checked("Second opinion", text, agrees or unmoved))
    # A second network that does not agree leaves no effect that smoothing could remove.
    if not agrees or certificate.judge_smoothed is None:
        lines.append(CertificateLine("none", "Smoothness", "Does not apply without a second opinion."))
    elif is_improvement(judge.before, certificate.judge_smoothed):
        lines.append(_checked("Smoothness", "The effect holds up after smoothing.", True))
    else:
        text = "The effect disappears after smoothing: it may improve the score, not the sound."
        lines.append(_checked("Smoothness", text, False))
    if certificate.static_share is not None:
        share = round(100 * min(max(certificate.static_share, 0), 1))
        text = f"A fixed EQ alone reaches {share} % of the effect; the rest follows the music."
        lines.append(_checked("Fixed or moving", text))
    return lines


def _distance_lines(certificate: Certificate) -> list[CertificateLine]:
    """Return how far input and output are from the folders; 1 is the most that their own takes have."""
    output, reference = certificate.unlike_reference.after, certificate.unlike_reference.before
    # A recording that sounds like the reference already may be unlike the source folder.
    folder, recording = min(("source", certificate.unlikeness), ("reference", reference), key=itemgetter(1))
    if certificate.verdict == "refused" and recording <= 1:
        # A model of an earlier version, which refuses all that is unlike the source folder.
        folder, recording = "source", certificate.unlikeness
    place = "outside" if output > 1 else "within"
    text = f"The output lies {place} the range of the reference recordings ({_of_limit(output)})."
    lines = [_checked("Distance to the reference", text, not output > 1)]
    if treatment(certificate) == "unchanged":
        lines = [_checked("Distance to the reference", text.replace("output", "recording"))]
    likeness = "Unlike" if recording > 1 else "Similar to"
    text = f"{likeness} the {folder} recordings ({_of_limit(recording)})."
    return [*lines, _checked("Known kind of recording", text, not recording > 1)]


def _size_line(certificate: Certificate) -> CertificateLine:
    if treatment(certificate) == "unchanged":
        return CertificateLine("plain", "Size of the change", "0.0 dB: the output is the original.")
    # Roughness is the mean step in 10 ms.
    speed = f"it changes by {100 * certificate.roughness_db:.0f} dB per second on average"
    return CertificateLine("plain", "Size of the change", f"{certificate.size}; {speed}.")


def _of_limit(distance: float) -> str:
    side = "just inside" if 0.9 < distance <= 1 else "inside" if distance <= 1 else "outside"
    return f"{side}: {100 * distance:.0f} % of the limit"


def _describe_score(score: float) -> str:
    if score < 0.2:
        return "like the reference"
    if score < 0.5:
        return "closer to the reference"
    return "closer to the source" if score < 0.8 else "like the source"
