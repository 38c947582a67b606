"""What an audit of two folders found, as a model's card keeps it, and in a line or two.

Plain records: nothing here computes, so that a card is shown without loading what does.
"""

from collections.abc import Sequence
from typing import Literal

from tonewood.settings import Settings

Verdict = Literal["fine", "untested", "beware", "confounded"]

FEWEST = 5  # recordings a side: four and four part by chance in 2 of 70 draws, five in 2 of 252
_ORDER: tuple[Verdict, ...] = ("fine", "untested", "beware", "confounded")


class Accuracy(Settings):
    """Balanced accuracy on recordings left out, and its 95 % interval."""

    mean: float
    low: float
    high: float


class Finding(Settings):
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
    verdict: Verdict
    accuracy: Accuracy | None = None
    p_value: float | None = None
    reference: tuple[float | None, ...] = ()
    source: tuple[float | None, ...] = ()
    heard: bool = True


class Session(Settings):
    """How the long-term spectrum does on a session that it never saw."""

    side: Literal["reference", "source"]
    name: str
    windows: int
    accuracy: float


class Audit(Settings):
    """Two folders, questioned.

    Parameters
    ----------
    recordings : (int, int)
        Of reference and source.
    findings : tuple of Finding
    spectrum : Accuracy or None
        Of a linear classifier on the long-term spectrum, its level removed: what a shallow look
        gets. None if there are too few recordings.
    sessions : tuple of Session
        One session left out at a time; empty where a side has only one.
    """

    recordings: tuple[int, int]
    findings: tuple[Finding, ...]
    spectrum: Accuracy | None = None
    sessions: tuple[Session, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of the findings."""
        return worst([finding.verdict for finding in self.findings])

    def named(self, verdict: Verdict) -> list[str]:
        """Names of the findings with this verdict."""
        return [finding.name for finding in self.findings if finding.verdict == verdict]


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst verdict; untested is worse than fine only where nothing was tested."""
    tested = [verdict for verdict in verdicts if verdict != "untested"]
    return max(tested, key=_ORDER.index) if tested else "untested"


def summary(found: Audit) -> list[str]:
    """An audit in one or two lines."""
    if found.verdict == "untested":
        few = min(found.recordings)
        return [
            f"untested: {few} recording{'' if few == 1 else 's'} on one side; {FEWEST} a side are "
            "needed to tell a habit from chance"
        ]
    named = [
        f"{verdict}: {', '.join(names)}"
        for verdict in ("confounded", "beware")
        if (names := found.named(verdict))
    ]
    first = (
        "; ".join(named) or "fine: no trace of room, microphone or codec tells the folders apart"
    )
    lines = [first]
    if found.spectrum is not None:
        lines.append(f"the long-term spectrum alone is right on {percent(found.spectrum)} of takes")
    return lines


def percent(accuracy: Accuracy) -> str:
    """Accuracy and interval as people read them."""
    return f"{100 * accuracy.mean:.0f} % ({100 * accuracy.low:.0f} to {100 * accuracy.high:.0f})"
