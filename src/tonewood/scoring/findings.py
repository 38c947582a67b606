"""What an audit of two folders found, as a model's card keeps it, and in a line or two.

Plain records: nothing here computes, so that a card is shown without loading what does.
"""

from collections.abc import Sequence
from typing import Literal

from tonewood.settings import Settings

AuditVerdict = Literal["fine", "untested", "beware", "confounded"]

MIN_RECORDINGS = 5  # recordings a side: four and four part by chance in 2 of 70 draws, five in 2 of 252
_VERDICT_ORDER: tuple[AuditVerdict, ...] = ("fine", "untested", "beware", "confounded")


class Accuracy(Settings):
    """Balanced accuracy on recordings left out, and its 95 % interval."""

    mean: float
    low: float
    high: float


class AuditFinding(Settings):
    """What a question came to.

    Parameters
    ----------
    name : str
    verdict : Verdict
    accuracy : Accuracy or None
        None if untested.
    p_value : float or None
        How often chance would tell the folders apart as well, by any of the questions.
    reference, source : tuple of float or None
        Median of each feature, in its own unit; None where unknown.
    heard : bool
        Whether the scorer could hear it. If not, it is no more than a warning.
    """

    name: str
    verdict: AuditVerdict
    accuracy: Accuracy | None = None
    p_value: float | None = None
    reference: tuple[float | None, ...] = ()
    source: tuple[float | None, ...] = ()
    heard: bool = True


class SessionAccuracy(Settings):
    """How the long-term spectrum does on a session that it never saw."""

    side: Literal["reference", "source"]
    name: str
    windows: int
    accuracy: float


class ConfoundAudit(Settings):
    """Two folders, questioned.

    Parameters
    ----------
    recordings : (int, int)
        Of reference and source.
    findings : tuple of AuditFinding
    spectrum : Accuracy or None
        Of a linear classifier on the long-term spectrum, its level removed: what a shallow look
        gets. None if there are too few recordings.
    sessions : tuple of Session
        One session left out at a time; empty where a side has only one.
    """

    recordings: tuple[int, int]
    findings: tuple[AuditFinding, ...]
    spectrum: Accuracy | None = None
    sessions: tuple[SessionAccuracy, ...] = ()

    @property
    def verdict(self) -> AuditVerdict:
        """The worst of the findings."""
        return worst_verdict([finding.verdict for finding in self.findings])

    def names_with_verdict(self, verdict: AuditVerdict) -> list[str]:
        """Names of the findings with this verdict."""
        return [finding.name for finding in self.findings if finding.verdict == verdict]


def worst_verdict(verdicts: Sequence[AuditVerdict]) -> AuditVerdict:
    """The worst verdict; untested is worse than fine only where nothing was tested."""
    tested = [verdict for verdict in verdicts if verdict != "untested"]
    return max(tested, key=_VERDICT_ORDER.index) if tested else "untested"


def summarize_audit(audit: ConfoundAudit) -> list[str]:
    """An audit in one or two lines."""
    if audit.verdict == "untested":
        few = min(audit.recordings)
        return [
            f"untested: {few} recording{'' if few == 1 else 's'} on one side; {MIN_RECORDINGS} a side are "
            "needed to tell a habit from chance"
        ]
    named = [
        f"{verdict}: {', '.join(names)}"
        for verdict in ("confounded", "beware")
        if (names := audit.names_with_verdict(verdict))
    ]
    first = (
        "; ".join(named) or "fine: no trace of room, microphone or codec tells the folders apart"
    )
    lines = [first]
    if audit.spectrum is not None:
        lines.append(f"the long-term spectrum alone is right on {format_accuracy(audit.spectrum)} of takes")
    return lines


def format_accuracy(accuracy: Accuracy) -> str:
    """Accuracy and interval as people read them."""
    return f"{100 * accuracy.mean:.0f} % ({100 * accuracy.low:.0f} to {100 * accuracy.high:.0f})"
