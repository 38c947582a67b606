"""A model's card: what it was taught and how well it does, as it travels inside the model file.

What an audit of two folders found, as a model's card keeps it, and in a line or two.

Plain records: nothing here computes, so that a card is shown without loading what does.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pydantic import SerializerFunctionWrapHandler, model_serializer

from tonewood.settings import Normalization, Settings
from tonewood.stats.classification import Accuracy

AuditVerdict = Literal["fine", "untested", "beware", "confounded"]

MIN_RECORDINGS = 5  # recordings a side: four and four part by chance in 2 of 70 draws, five in 2 of 252
_VERDICT_ORDER: tuple[AuditVerdict, ...] = ("fine", "untested", "beware", "confounded")


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
    first = "; ".join(named) or "fine: no trace of room, microphone or codec tells the folders apart"
    lines = [first]
    if audit.spectrum is not None:
        lines.append(f"the long-term spectrum alone is right on {format_accuracy(audit.spectrum)} of takes")
    return lines


def format_accuracy(accuracy: Accuracy) -> str:
    """Accuracy and interval as people read them."""
    return f"{100 * accuracy.mean:.0f} % ({100 * accuracy.low:.0f} to {100 * accuracy.high:.0f})"


class Quartiles(NamedTuple):
    """Lower quartile, median and upper quartile."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: ArrayLike) -> "Quartiles":
        """Quartiles of values [n]."""
        return cls(*np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.5, 0.75]).tolist())


class ScorerCard(Settings):
    """How a scorer or judge does on takes that it never saw.

    The accuracy's 95 % interval counts takes, not windows: what a take has, all its windows have.
    """

    accuracy: float
    accuracy_interval: tuple[float, float]
    windows: int
    takes: int
    calibration_error: float
    reference_scores: Quartiles
    source_scores: Quartiles
    parameters: int
    steps: int
    seed: int


class ListenerCard(Settings):
    """What listeners taught, and how far the scorer agrees with them on what it never heard.

    Parameters
    ----------
    comparisons, ratings : int
        Answers, of recordings that fall into so many groups.
    learnt_from, held_out : int
        Answers on either side; what joins both sides is on neither.
    independent : int
        What the interval counts: held-out pairs of recordings, each once; of ratings, recordings.
    agreement : float
        Share of the held-out answers that the scorer orders alike; for ratings, of their pairs.
    """

    comparisons: int
    ratings: int
    recordings: int
    groups: int
    learnt_from: int
    held_out: int
    independent: int
    agreement: float
    agreement_interval: tuple[float, float]


class FolderCard(Settings):
    """What a training folder held."""

    name: str
    takes: int
    hours: float


class PriorCard(Settings):
    """The blend of priors that the cycle chose, and the cycle distance of every candidate, dB.

    Weights are the shares of static, neighbours, forward and backward network, and the share of
    the level that survives. Beliefs are in the neighbours' and the networks' masks, each in what
    it does from take to take and from moment to moment. The guide's gains are of the cycle
    distance, for every weight tried.
    """

    weights: tuple[float, float, float, float, float]
    beliefs: tuple[tuple[float, float], tuple[float, float]]
    cycle_db: tuple[tuple[tuple[float, float, float, float, float], float], ...]
    guide_weight: float
    guide_gains: tuple[tuple[float, float], ...]


class PredictorCard(Settings):
    """How a predictor does on takes that it never saw.

    It misses the masks of the whole method by so much, which themselves depart from the static
    one by so much, rms; and the cycle distances of nothing done, of the prior and of the
    predictor. All dB.
    """

    parameters: int
    takes: int
    missed_db: float
    spread_db: float
    cycle_db: tuple[float, float, float]


class ModelCard(Settings):
    """What a model is made of and how well it does; travels inside the model file.

    The audit is of the recordings as they were learnt from, a fix applied. A model learnt from
    listeners alone has no prior; its folders are the halves of what they heard.
    """

    reference: FolderCard
    source: FolderCard
    scorer: ScorerCard
    judge: ScorerCard | None
    prior: PriorCard | None
    seconds: float
    seed: int
    versions: dict[str, str]
    domain: str = ""
    licence: str = ""
    notice: str = ""
    audit: ConfoundAudit | None = None
    fix: Normalization | None = None
    predictor: PredictorCard | None = None
    ears: ListenerCard | None = None

    @model_serializer(mode="wrap")
    def _omit_absent_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what most models have nothing of, so that their files stay what they were."""
        told: dict[str, Any] = handler(self)
        if self.ears is None:
            told.pop("ears", None)
        return told
