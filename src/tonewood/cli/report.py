"""Results, told to people in lines or to programs in JSON: what several commands share."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.workflow.card import AnyModel
    from tonewood.workflow.layout import Failed


def emit(value: dict[str, Any]) -> None:
    """Write one JSON object on a line of standard output."""
    # ASCII: file names may hold bytes that are no UTF-8, and the stream may be of any encoding.
    print(json.dumps(value, allow_nan=False), flush=True)


def say(line: str) -> None:
    """Write a line for people on standard error."""
    print(line, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """A time as musicians read it, as in 1:02.5."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def failure(failure: "Failed", as_json: bool) -> None:
    """Name a recording that could not be done, and why."""
    say(f"tonewood: {failure.error}")
    if as_json:
        emit({"input": str(failure.input), "error": str(failure.error)})


def card(model: "AnyModel") -> dict[str, Any]:
    """A model's card and settings, for programs."""
    settings = model.settings.model_dump(mode="json")
    return {"card": model.card.model_dump(mode="json"), "settings": settings}


def print_card(model: "AnyModel") -> None:
    """Tell a model's card."""
    from tonewood.workflow.card import entries

    for name, lines in entries(model):
        for number, line in enumerate(lines):
            print(f"{'' if number else name:<11}{line}".rstrip())
