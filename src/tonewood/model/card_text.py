"""Model card as text and as Markdown, after Mitchell et al., *Model Cards for Model Reporting* (2019)."""

from typing import TYPE_CHECKING, NamedTuple, Union

from tonewood.errors import printable
from tonewood.model.card import ListenerCard, PredictorCard, ScorerCard, summarize_audit
from tonewood.model.model_file import ModelFile

if TYPE_CHECKING:  # a card is shown without loading the networks
    from tonewood.model.model import Model

ModelOrFile = Union["Model", ModelFile]

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
        "that is. Recordings unlike its source folder are refused, because the model is not valid for "
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
    return (
        f"{100 * card.accuracy:.1f} % right ({low:.0f} to {high:.0f}) on {card.windows} windows of "
        f"{seconds:g} s of {card.takes} held-out takes; calibration error "
        f"{card.calibration_error:.3f}; {card.parameters:,} parameters",
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
