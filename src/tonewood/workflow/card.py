"""A model's card in words: what it was taught, how well it tells, and where it is at home.

After Mitchell et al., *Model Cards for Model Reporting* (2019).
"""

from typing import TYPE_CHECKING, NamedTuple, Union

from tonewood.errors import shown
from tonewood.files.card import EarsCard, PredictorCard, ScorerCard
from tonewood.files.container import Described
from tonewood.scoring.findings import summary

if TYPE_CHECKING:  # a card is shown without loading torch
    from tonewood.files.modelfile import Model

AnyModel = Union["Model", Described]
"""A model, or what its file says of itself."""

UNKNOWN = "not stated"
CITATION = (
    "P. Verma and J. Berger, Learning to Model Aspects of Auditory Perception Using Neural Loss "
    "Functions",
    "Tonewood {version}, model {name}, SHA-256 {digest}",
)


class Entry(NamedTuple):
    """One thing that a card says, in a line or several."""

    name: str
    lines: tuple[str, ...]


def entries(model: AnyModel) -> list[Entry]:
    """All that a card says."""
    card = model.card
    told = [Entry("domain", (card.domain or UNKNOWN,))]
    for side, folder in (("reference", card.reference), ("source", card.source)):
        minutes = f"{folder.takes} takes, {folder.hours * 60:.1f} minutes ({shown(folder.name)})"
        told.append(Entry(side, (minutes,)))
    told += [
        Entry(who, _scorer(model, it))
        for who, it in (("scorer", card.scorer), ("judge", card.judge))
        if it is not None
    ]
    told.append(Entry("prior", _prior(model)))
    if card.ears is not None:
        told.append(Entry("ears", _ears(card.ears)))
    if card.predictor is not None:
        told.append(Entry("predictor", (_predictor(model, card.predictor),)))
    if card.audit is not None:
        fixed = model.settings.training.fix
        alike = [f"made alike: {', '.join(fixed)}"] if fixed else []
        told.append(Entry("audit", (*summary(card.audit), *alike)))
    versions = ", ".join(f"{name} {value}" for name, value in card.versions.items())
    told.append(Entry("trained", (f"in {card.seconds:.0f} s, seed {card.seed}, {versions}",)))
    told.append(Entry("licence", (card.licence or UNKNOWN,)))
    told.append(Entry("cite", citation(model)))
    if card.notice:
        told.append(Entry("notice", tuple(shown(line) for line in card.notice.splitlines())))
    return told


def citation(model: AnyModel) -> tuple[str, ...]:
    """How to cite a model, a line for the method and one for itself."""
    version = model.card.versions.get("tonewood", "")
    own = {"version": version, "name": shown(model.name), "digest": model.digest[:16]}
    return tuple(line.format(**own) for line in CITATION)


def markdown(model: AnyModel) -> str:
    """Card as the Markdown page that model hubs show, its facts for machines on top."""
    licence = model.card.licence
    head = ["---", "library_name: tonewood"]
    head += [f"license: {_plain(licence.lower())}"] if licence else []
    head += ["tags:", *(f"- {tag}" for tag in ("audio", "timbre", "equaliser")), "---"]
    body = [f"# {_plain(model.name)}", "", "A model for Tonewood."]
    body += ["", "```sh", "tonewood enhance take.wav -m MODEL.tonewood -o enhanced.wav", "```", ""]
    body += ["| | |", "|---|---|"]
    for name, lines in entries(model):
        if name != "notice":
            body.append(f"| {name} | {'<br>'.join(map(_plain, lines))} |")
    body += [
        "",
        "## Limits",
        "",
        "It filters and does not generate. It prefers what its reference folder has, whatever "
        "that is, and has nothing sensible to say about recordings unlike its source folder; "
        "those are refused. A score is not proof of a better sound: listen.",
    ]
    if model.card.notice:
        body += ["", "## Notice", "", "```", *map(shown, model.card.notice.splitlines()), "```"]
    return "\n".join([*head, "", *body]) + "\n"


def _prior(model: AnyModel) -> tuple[str, ...]:
    prior = model.card.prior
    if prior is None:
        return ("none: listeners alone taught it; masks follow the scorer, from nothing",)
    weights = prior.weights
    beliefs = [f"{100 * take:.0f} and {100 * moment:.0f} %" for take, moment in prior.beliefs]
    return (
        f"static {100 * weights[0]:.0f} %, neighbours {100 * weights[1]:.0f} %, networks "
        f"{100 * (weights[2] + weights[3]):.0f} %, {100 * weights[4]:.0f} % of their "
        f"level; guide {prior.guide_weight:g}",
        f"believed from take to take and from moment to moment: neighbours {beliefs[0]}, "
        f"networks {beliefs[1]}",
    )


def _ears(it: EarsCard) -> tuple[str, ...]:
    low, high = (100 * share for share in it.agreement_interval)
    return (
        f"{it.comparisons} comparisons and {it.ratings} ratings of {it.recordings} recordings, "
        f"{it.groups} pieces",
        f"agrees with {100 * it.agreement:.1f} % ({low:.0f} to {high:.0f}) of what was said of "
        f"pieces that it never heard: {it.held_out} answers; learnt from {it.learnt_from}",
    )


def _scorer(model: AnyModel, it: ScorerCard) -> tuple[str, ...]:
    seconds = model.settings.scorer.crop_seconds
    low, high = (100 * share for share in it.accuracy_interval)
    reference, source = it.reference_scores, it.source_scores
    return (
        f"{100 * it.accuracy:.1f} % right ({low:.0f} to {high:.0f}) on {it.windows} windows of "
        f"{seconds:g} s of {it.takes} held-out takes; calibration error "
        f"{it.calibration_error:.3f}; {it.parameters:,} parameters",
        f"reference takes score {reference.median:.2f} ({reference.low:.2f} to "
        f"{reference.high:.2f}), source takes {source.median:.2f} ({source.low:.2f} to "
        f"{source.high:.2f})",
    )


def _predictor(model: AnyModel, it: PredictorCard) -> str:
    before, prior, predicted = it.cycle_db
    ahead = model.settings.predictor.lookahead * model.settings.spectrum.hop_ms
    return (
        f"{it.parameters:,} parameters, hears {ahead:g} ms ahead; misses the search's masks by "
        f"{it.missed_db:.1f} of {it.spread_db:.1f} dB on {it.takes} held-out takes; cycle distance "
        f"{before:.2f} dB, by the prior {prior:.2f}, predicted {predicted:.2f}"
    )


def _plain(text: str) -> str:
    """Text that Markdown takes for text, on one line of a table."""
    kept = shown(text).replace("\\", "\\\\")
    for mark in "|<>[]`*_#":
        kept = kept.replace(mark, f"\\{mark}")
    return kept
