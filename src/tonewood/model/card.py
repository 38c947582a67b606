"""Records inside a model file, model card and confound audit, and the card as text and as Markdown.

The card follows Mitchell et al., *Model Cards for Model Reporting* (2019). Nothing here computes, so a card
can be shown without loading the modules that do.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union

import numpy as np
from numpy.typing import ArrayLike
from pydantic import SerializerFunctionWrapHandler, model_serializer

from tonewood.errors import printable
from tonewood.setting_types import Settings
from tonewood.settings import Normalization
from tonewood.stats.classification import Accuracy

if TYPE_CHECKING:
    from tonewood.model.model import Model
    from tonewood.model.model_file import ModelFile

AuditVerdict = Literal["fine", "untested", "beware", "confounded"]

# Per side. Chance separates 4 recordings from 4 in 2 of 70 permutations (p = 0.03), and 5 from 5 in 2 of
# 252 (p = 0.008).
MIN_RECORDINGS = 5
_VERDICT_ORDER: tuple[AuditVerdict, ...] = ("fine", "untested", "beware", "confounded")


class AuditFinding(Settings):
    """Result of one test of an audit."""

    name: str
    verdict: AuditVerdict
    accuracy: Accuracy | None = None  # None if untested
    # Probability that chance separates the folders this well in any of the tests
    p_value: float | None = None
    # Median of each feature in its own unit; None if unknown
    reference: tuple[float | None, ...] = ()
    source: tuple[float | None, ...] = ()
    # True if the difference is audible to the scorer; if not, the finding is only a warning
    heard: bool = True


class SessionAccuracy(Settings):
    """Accuracy of the long-term spectrum on a session that was left out."""

    side: Literal["reference", "source"]
    name: str
    windows: int
    accuracy: float


class ConfoundAudit(Settings):
    """Result of a confound audit of two folders."""

    recordings: tuple[int, int]  # number of recordings of reference and source
    findings: tuple[AuditFinding, ...]
    # Of a linear classifier on the long-term spectrum without its level; None for too few recordings
    spectrum: Accuracy | None = None
    # One session is left out at a time; empty if a side has only one
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
    """Answers of listeners, and how well the scorer agrees with held-out ones."""

    comparisons: int
    ratings: int
    recordings: int
    groups: int
    # Answers on either side of the split; an answer about recordings of both sides counts on neither
    learnt_from: int
    held_out: int
    # Sample size of the interval: held-out pairs of recordings, each counted once, or rated recordings
    independent: int
    # Share of the held-out answers, or of pairs of ratings, that the scorer ranks in the same order
    agreement: float
    agreement_interval: tuple[float, float]


class FolderCard(Settings):
    """Content of a training folder."""

    name: str
    takes: int
    hours: float


class PriorCard(Settings):
    """Blend of priors that the training selected."""

    # Shares of static mask, neighbours, forward and backward network, and of the mask's level
    weights: tuple[float, float, float, float, float]
    # Shrinkage factors per recording and per frame, of the neighbours' and of the networks' masks
    beliefs: tuple[tuple[float, float], tuple[float, float]]
    # Cycle distance of every candidate, dB
    cycle_db: tuple[tuple[tuple[float, float, float, float, float], float], ...]
    # Energy distance of every candidate's output from the reference, dB; empty in earlier models
    energy_db: tuple[float, ...] = ()
    guide_weight: float
    # Reduction of the cycle distance for every guide weight that was tried, dB
    guide_gains: tuple[tuple[float, float], ...]


class PredictorCard(Settings):
    """Performance of a predictor on held-out takes, in dB rms."""

    parameters: int
    takes: int
    missed_db: float  # difference between its masks and those of the search
    spread_db: float  # difference between the masks of the search and the static mask
    # Cycle distance of the unchanged source, of the prior and of the predictor
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


ModelOrFile = Union["Model", "ModelFile"]

NOT_STATED = "not stated"
CITATION = (
    "P. Verma and J. Berger, Learning to Model Aspects of Auditory Perception Using Neural Loss Functions",
    "Tonewood {version}, model {name}, SHA-256 {digest}",
)


class CardLine(NamedTuple):
    """Entry of a card: a name and one or more lines."""

    name: str
    lines: tuple[str, ...]


def card_lines(model: ModelOrFile) -> list[CardLine]:
    """Return all entries of a card."""
    card = model.card
    entries = [CardLine("domain", (card.domain or NOT_STATED,))]
    for side, folder in (("reference", card.reference), ("source", card.source)):
        size = f"{folder.takes} takes, {folder.hours * 60:.1f} minutes ({printable(folder.name)})"
        entries.append(CardLine(side, (size,)))
    entries += [
        CardLine(name, _describe_scorer(model, scorer))
        for name, scorer in (("scorer", card.scorer), ("judge", card.judge))
        if scorer is not None
    ]
    entries.append(CardLine("prior", _describe_prior(model)))
    if model.has_way_guide:
        entries.append(CardLine("guide", ("whole-way guide for the paper's method (--method paper)",)))
    if card.ears is not None:
        entries.append(CardLine("ears", _describe_listeners(card.ears)))
    if card.predictor is not None:
        entries.append(CardLine("predictor", (_describe_predictor(model, card.predictor),)))
    if card.audit is not None:
        fix = model.settings.training.fix
        normalized = [f"normalized: {', '.join(fix)}"] if fix else []
        entries.append(CardLine("audit", (*summarize_audit(card.audit), *normalized)))
    versions = ", ".join(f"{name} {value}" for name, value in card.versions.items())
    entries.append(CardLine("trained", (f"in {card.seconds:.0f} s, seed {card.seed}, {versions}",)))
    entries.append(CardLine("licence", (card.licence or NOT_STATED,)))
    entries.append(CardLine("cite", citation_lines(model)))
    if card.notice:
        entries.append(CardLine("notice", tuple(printable(line) for line in card.notice.splitlines())))
    return entries


def citation_lines(model: ModelOrFile) -> tuple[str, ...]:
    """Return the citation of a model: a line for the method, and one for the model."""
    version = model.card.versions.get("tonewood", "")
    # 16 hexadecimal digits are 64 bits, enough to identify a model.
    fields = {"version": version, "name": printable(model.name), "digest": model.digest[:16]}
    return tuple(line.format(**fields) for line in CITATION)


def card_markdown(model: ModelOrFile) -> str:
    """Return the card as a Markdown page for model hubs, with YAML metadata on top."""
    licence = model.card.licence
    # The Hub reads library, licence and tags from this header.
    head = ["---", "library_name: tonewood"]
    head += [f"license: {_escape_markdown(licence.lower())}"] if licence else []
    head += ["tags:", *(f"- {tag}" for tag in ("audio", "timbre", "equaliser")), "---"]
    body = [f"# {_escape_markdown(model.name)}", "", "A model for Tonewood."]
    body += ["", "```sh", "tonewood enhance take.wav -m MODEL.tonewood -o enhanced.wav", "```", ""]
    body += ["| | |", "|---|---|"]
    for name, lines in card_lines(model):
        if name != "notice":  # too long for a table: it has a section of its own
            body.append(f"| {name} | {'<br>'.join(map(_escape_markdown, lines))} |")
    body += [
        "",
        "## Limits",
        "",
        "The model filters and does not generate. It prefers the sound of its reference folder, whatever "
        "that is. Recordings unlike both folders are refused, because the model is not valid for "
        "them. A score is not proof of a better sound: listen.",
    ]
    if model.card.notice:
        body += ["", "## Notice", "", "```", *map(printable, model.card.notice.splitlines()), "```"]
    return "\n".join([*head, "", *body]) + "\n"


def _describe_prior(model: ModelOrFile) -> tuple[str, ...]:
    prior = model.card.prior
    if prior is None:
        return ("none: learnt from listeners alone; masks start at 0 dB and follow the scorer",)
    # Weights 2 and 3 are the forward and the backward network, and are shown as one.
    weights = prior.weights
    beliefs = [f"{100 * take:.0f} and {100 * moment:.0f} %" for take, moment in prior.beliefs]
    return (
        f"static {100 * weights[0]:.0f} %, neighbours {100 * weights[1]:.0f} %, networks "
        f"{100 * (weights[2] + weights[3]):.0f} %, {100 * weights[4]:.0f} % of their "
        f"level; guide {prior.guide_weight:g}",
        f"weight of differences between recordings and between frames: neighbours {beliefs[0]}, "
        f"networks {beliefs[1]}",
    )


def _describe_listeners(card: ListenerCard) -> tuple[str, ...]:
    low, high = (100 * share for share in card.agreement_interval)
    return (
        f"{card.comparisons} comparisons and {card.ratings} ratings of {card.recordings} recordings, "
        f"{card.groups} pieces",
        f"agrees with {100 * card.agreement:.1f} % ({low:.0f} to {high:.0f}) of the answers on "
        f"held-out pieces: {card.held_out} answers; learnt from {card.learnt_from}",
    )


def _describe_scorer(model: ModelOrFile, card: ScorerCard) -> tuple[str, ...]:
    seconds = model.settings.scorer.crop_seconds
    low, high = (100 * share for share in card.accuracy_interval)
    reference, source = card.reference_scores, card.source_scores
    # Graded scores are no probabilities of the folders.
    is_graded = model.settings.training.targets == "graded"
    calibration = "" if is_graded else f"; calibration error {card.calibration_error:.3f}"
    return (
        f"{100 * card.accuracy:.1f} % right ({low:.0f} to {high:.0f}) on {card.windows} windows of "
        f"{seconds:g} s of {card.takes} held-out takes{calibration}; {card.parameters:,} parameters",
        f"reference takes score {reference.median:.2f} ({reference.low:.2f} to "
        f"{reference.high:.2f}), source takes {source.median:.2f} ({source.low:.2f} to "
        f"{source.high:.2f})",
    )


def _describe_predictor(model: ModelOrFile, card: PredictorCard) -> str:
    before, prior, predicted = card.cycle_db
    ahead = model.settings.predictor.lookahead * model.settings.spectrum.hop_ms
    return (
        f"{card.parameters:,} parameters, {ahead:g} ms of look-ahead; differs from the search's masks by "
        f"{card.missed_db:.1f} of {card.spread_db:.1f} dB on {card.takes} held-out takes; cycle distance "
        f"{before:.2f} dB, by the prior {prior:.2f}, predicted {predicted:.2f}"
    )


def _escape_markdown(text: str) -> str:
    """Escape text for one cell of a Markdown table."""
    # Names come from other people's files, so a link or HTML in one must stay text.
    escaped = printable(text).replace("\\", "\\\\")
    for mark in "|<>[]`*_#":
        escaped = escaped.replace(mark, f"\\{mark}")
    return escaped
