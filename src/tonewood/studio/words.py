"""The certificate in plain words: what was found, what it means, what to do."""

from typing import NamedTuple

from tonewood.masking.certify import Certificate


class CertificateLine(NamedTuple):
    """One thing that a certificate says; `kind` is good, caution or plain."""

    kind: str
    title: str
    text: str


def verdict_line(certificate: Certificate) -> CertificateLine:
    """The verdict as a heading and a sentence."""
    if certificate.verdict == "good":
        return CertificateLine(
            "good",
            "A change to be believed",
            "Scorer and judge agree, and the change is as smooth as an equaliser's. Your ears have "
            "the last word.",
        )
    if certificate.verdict == "limited":
        return CertificateLine(
            "caution",
            "A change with reservations",
            "Something speaks against taking this at its word; it is named below. Listen closely, "
            "or turn the amount down.",
        )
    return CertificateLine(
        "refused",
        "Not a recording that this model knows",
        "The recording is unlike those that the model was taught to improve, so it was given a "
        "steady equaliser at most. Choose a model of this instrument, or press “Enhance "
        "anyway” and trust your ears alone.",
    )


def certificate_lines(certificate: Certificate) -> list[CertificateLine]:
    """Everything a certificate holds, as sentences."""
    scorer, judge = certificate.scorer, certificate.judge
    told = [
        CertificateLine(
            "good" if scorer.after < 0.5 else "caution",
            "Scorer",
            f"{_describe_score(scorer.before).capitalize()} before, {_describe_score(scorer.after)} after "
            f"({scorer.before:.2f} → {scorer.after:.2f}; 0 is the reference).",
        )
    ]
    if judge is None:
        told.append(CertificateLine("caution", "Judge", "This model has none, so nobody checked."))
    else:
        told.append(CertificateLine(
            "good" if judge.after < 0.5 else "caution",
            "Judge",
            f"A second network, which the search never saw, "
            f"{'agrees' if judge.after < 0.5 else 'does not agree'} "
            f"({judge.before:.2f} → {judge.after:.2f}).",
        ))  # fmt: skip
    # Where the judge did not follow at all, there is nothing that could survive.
    if judge is not None and judge.after < 0.5 and certificate.judge_smoothed is not None:
        survives = certificate.judge_smoothed < 0.5
        told.append(CertificateLine(
            "good" if survives else "caution",
            "Smoothness",
            "The effect survives when the mask is made smoother still: it is an equaliser, not a "
            "trick." if survives else
            "The effect is gone when the mask is made smoother: it may please the scorer more "
            "than your ears.",
        ))  # fmt: skip
    if certificate.static_share is not None:
        share = round(100 * min(max(certificate.static_share, 0), 1))
        told.append(CertificateLine(
            "plain",
            "Fixed or moving",
            f"A fixed equaliser alone would have had {share} % of the effect; the rest follows "
            "the music.",
        ))  # fmt: skip
    far = certificate.unlike_reference.after > 1
    told.append(CertificateLine(
        "caution" if far else "good",
        "Near the reference",
        f"The output lies {'beyond' if far else 'within'} what recordings of the reference folder "
        f"differ by ({certificate.unlike_reference.after:.2f} of the limit).",
    ))  # fmt: skip
    strange = certificate.unlikeness > 1
    told.append(CertificateLine(
        "caution" if strange else "good",
        "A recording it knows",
        f"The recording is {'unlike' if strange else 'like'} the source folder "
        f"({certificate.unlikeness:.2f} of the limit).",
    ))  # fmt: skip
    told.append(CertificateLine(
        "plain",
        "Size of the change",
        f"{certificate.rms_db:.1f} dB on average, {certificate.largest_db:.1f} dB at most, moving "
        f"by {certificate.roughness_db:.2f} dB every hundredth of a second.",
    ))  # fmt: skip
    return told


def _describe_score(score: float) -> str:
    if score < 0.2:
        return "like the reference"
    if score < 0.5:
        return "nearer the reference"
    if score < 0.8:
        return "nearer the source"
    return "like the source"
