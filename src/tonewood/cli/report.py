"""Results, told to people in lines or to programs in JSON: what several commands share."""

import json
import sys
from typing import TYPE_CHECKING, Any

from tonewood.errors import shown

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.files.modelfile import Model
    from tonewood.workflow.batch import Failed


def emit(value: dict[str, Any]) -> None:
    """Write one JSON object on a line of standard output."""
    # ASCII: file names may hold bytes that are no UTF-8, and the stream may be of any encoding.
    print(json.dumps(value, allow_nan=False), flush=True)


def say(line: str) -> None:
    """Write a line for people on standard error."""
    print(line, file=sys.stderr, flush=True)


def failure(failure: "Failed", as_json: bool) -> None:
    """Name a recording that could not be done, and why."""
    say(f"tonewood: {failure.error}")
    if as_json:
        emit({"input": str(failure.input), "error": str(failure.error)})


def card(model: "Model") -> dict[str, Any]:
    """A model's card and settings, for programs."""
    settings = model.settings.model_dump(mode="json")
    return {"card": model.card.model_dump(mode="json"), "settings": settings}


def print_card(model: "Model") -> None:
    """Tell a model's card."""
    card = model.card
    for name, folder in (("reference", card.reference), ("source", card.source)):
        print(
            f"{name:<11}{folder.takes} takes, {folder.hours * 60:.1f} minutes "
            f"({shown(folder.name)})"
        )
    for name, it in (("scorer", card.scorer), ("judge", card.judge)):
        if it is None:
            continue
        seconds = model.settings.scorer.crop_seconds
        print(
            f"{name:<11}{100 * it.accuracy:.1f} % right on {it.windows} held-out windows of "
            f"{seconds:g} s; calibration error {it.calibration_error:.3f}; "
            f"{it.parameters:,} parameters"
        )
        reference, source = it.reference_scores, it.source_scores
        print(
            f"{'':<11}reference takes score {reference.median:.2f} "
            f"({reference.low:.2f} to {reference.high:.2f}), source takes {source.median:.2f} "
            f"({source.low:.2f} to {source.high:.2f})"
        )
    blend = card.prior.weights
    print(
        f"{'prior':<11}static {100 * blend[0]:.0f} %, neighbours {100 * blend[1]:.0f} %, networks "
        f"{100 * (blend[2] + blend[3]):.0f} %, {100 * blend[4]:.0f} % of their level; "
        f"guide {card.prior.guide_weight:g}"
    )
    if card.audit is not None:
        from tonewood.workflow.audit import summary

        fixed = model.settings.training.fix
        told = summary(card.audit) + ([f"made alike: {', '.join(fixed)}"] if fixed else [])
        for number, line in enumerate(told):
            print(f"{'' if number else 'audit':<11}{line}")
    versions = ", ".join(f"{name} {value}" for name, value in card.versions.items())
    print(f"{'trained':<11}in {card.seconds:.0f} s, seed {card.seed}, {versions}")
    for number, line in enumerate(card.notice.splitlines()):
        print(f"{'' if number else 'notice':<11}{shown(line)}".rstrip())
