"""Records inside a model file: model card and confound audit.

Nothing here computes, so a card can be shown without loading the modules that do.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pydantic import SerializerFunctionWrapHandler, model_serializer

from tonewood.setting_types import Settings
from tonewood.settings import Normalization
from tonewood.stats.classification import Accuracy

AuditVerdict = Literal["fine", "untested", "beware", "confounded"]

# Per side. Chance separates 4 recordings from 4 in 2 of 70 permutations (p = 0.03), and 5 from 5 in 2 of
# 252 (p = 0.008).
MIN_RECORDINGS = 5
_VERDICT_ORDER: tuple[AuditVerdict, ...] = ("fine", "untested", "beware", "confounded")


class AuditFinding(Settings):
    """Result of one test of an audit.

    Parameters
    ----------
    accuracy : Accuracy or None
        None if untested.
    p_value : float or None
        Probability that chance separates the folders this well in any of the tests.
    reference, source : tuple of float or None
        Median of each feature in its own unit; None if unknown.
    heard : bool
        True if the difference is audible to the scorer; if not, the finding is only a warning.
    """

    name: str
    verdict: AuditVerdict
    accuracy: Accuracy | None = None
    p_value: float | None = None
    reference: tuple[float | None, ...] = ()
    source: tuple[float | None, ...] = ()
    heard: bool = True


class SessionAccuracy(Settings):
    """Accuracy of the long-term spectrum on a session that was left out."""

    side: Literal["reference", "source"]
    name: str
    windows: int
    accuracy: float


class ConfoundAudit(Settings):
    """Result of a confound audit of two folders.

    Parameters
    ----------
    recordings : (int, int)
        Number of recordings of reference and source.
    spectrum : Accuracy or None
        Of a linear classifier on the long-term spectrum without its level; None for too few recordings.
    sessions : tuple of SessionAccuracy
        One session is left out at a time; empty if a side has only one.
    """

    recordings: tuple[int, int]
    findings: tuple[AuditFinding, ...]
    spectrum: Accuracy | None = None
    sessions: tuple[SessionAccuracy, ...] = ()

    @property
    def verdict(self) -> AuditVerdict:
        """Worst verdict of the findings."""
        return worst_verdict([finding.verdict for finding in self.findings])

    def names_with_verdict(self, verdict: AuditVerdict) -> list[str]:
        """Return the names of the findings with this verdict."""
        return [finding.name for finding in self.findings if finding.verdict == verdict]


def worst_verdict(verdicts: Sequence[AuditVerdict]) -> AuditVerdict:
    """Return the worst verdict; `untested` only if there was no test."""
    # An untested property does not hide the result of the tested ones.
    tested = [verdict for verdict in verdicts if verdict != "untested"]
    return max(tested, key=_VERDICT_ORDER.index) if tested else "untested"


def summarize_audit(audit: ConfoundAudit) -> list[str]:
    """Return an audit in one or two lines."""
    if audit.verdict == "untested":
        fewest = min(audit.recordings)
        return [
            f"untested: {fewest} recording{'' if fewest == 1 else 's'} on one side; each side needs "
            f"{MIN_RECORDINGS} to distinguish a systematic difference from chance"
        ]
    verdicts = [
        f"{verdict}: {', '.join(names)}"
        for verdict in ("confounded", "beware")
        if (names := audit.names_with_verdict(verdict))
    ]
    fine = "fine: no trace of room, microphone or codec distinguishes the folders"
    lines = ["; ".join(verdicts) or fine]
    if audit.spectrum is not None:
        lines.append(f"the long-term spectrum alone is right on {format_accuracy(audit.spectrum)} of takes")
    return lines


def format_accuracy(accuracy: Accuracy) -> str:
    """Return accuracy and interval in per cent."""
    return f"{100 * accuracy.mean:.0f} % ({100 * accuracy.low:.0f} to {100 * accuracy.high:.0f})"


class Quartiles(NamedTuple):
    """Lower quartile, median and upper quartile."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: ArrayLike) -> "Quartiles":
        """Return the quartiles of values [n]."""
        return cls(*np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.5, 0.75]).tolist())


class ScorerCard(Settings):
    """Performance of a scorer or judge on held-out takes.

    The 95 % interval of the accuracy counts takes, not windows, because windows of one take are alike.
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


_MIN_ACCURACY = 0.65  # chance is 0.5


def accuracy_warnings(card: "ModelCard") -> list[str]:
    """Return one warning for each network that is hardly better than chance on held-out windows."""
    warnings = []
    for name, network in (("scorer", card.scorer), ("judge", card.judge)):
        if network is not None and network.accuracy < _MIN_ACCURACY and network.accuracy_interval[0] <= 0.5:
            low, high = (100 * limit for limit in network.accuracy_interval)
            warnings.append(
                f"the {name} cannot tell the folders apart: it is right on {100 * network.accuracy:.0f} % of "
                f"the held-out windows ({low:.0f} to {high:.0f} %), and chance on 50 %: add recordings, or "
                "test with tonewood audit how the folders differ"
            )
    return warnings


class ListenerCard(Settings):
    """Answers of listeners, and how well the scorer agrees with held-out ones.

    Parameters
    ----------
    learnt_from, held_out : int
        Answers on either side of the split; an answer about recordings of both sides counts on neither.
    independent : int
        Sample size of the interval: held-out pairs of recordings, each counted once, or rated recordings.
    agreement : float
        Share of the held-out answers, or of pairs of ratings, that the scorer ranks in the same order.
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
    """Content of a training folder."""

    name: str
    takes: int
    hours: float


class PriorCard(Settings):
    """Blend of priors that the training selected.

    Parameters
    ----------
    weights : tuple of float
        Shares of static mask, neighbours, forward and backward network, and of the mask's level.
    beliefs : tuple of (float, float)
        Shrinkage factors per recording and per frame, of the neighbours' and of the networks' masks.
    cycle_db : tuple of (weights, float)
        Cycle distance of every candidate, dB.
    energy_db : tuple of float
        Energy distance of every candidate's output from the reference, dB; empty in earlier models.
    guide_gains : tuple of (float, float)
        Reduction of the cycle distance for every guide weight that was tried, dB.
    """

    weights: tuple[float, float, float, float, float]
    beliefs: tuple[tuple[float, float], tuple[float, float]]
    cycle_db: tuple[tuple[tuple[float, float, float, float, float], float], ...]
    energy_db: tuple[float, ...] = ()
    guide_weight: float
    guide_gains: tuple[tuple[float, float], ...]


class PredictorCard(Settings):
    """Performance of a predictor on held-out takes, in dB rms.

    Parameters
    ----------
    missed_db : float
        Difference between its masks and those of the search.
    spread_db : float
        Difference between the masks of the search and the static mask.
    cycle_db : (float, float, float)
        Cycle distance of the unchanged source, of the prior and of the predictor.
    """

    parameters: int
    takes: int
    missed_db: float
    spread_db: float
    cycle_db: tuple[float, float, float]


class ModelCard(Settings):
    """Origin and performance of a model, stored in its file.

    The audit is of the recordings after normalization (`fix`). A model learnt from listeners alone
    has no prior; its folders are the halves of the recordings that they rated.
    """

    # Field names are keys of model files: with a new name, existing models could not be read.
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
        """Omit `ears` if there is none, so that the files of other models keep their bytes."""
        fields: dict[str, Any] = handler(self)
        if self.ears is None:
            fields.pop("ears", None)
        return fields
