"""Results, told to people in lines or to programs in JSON: what several commands share."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.workflow.card import ModelOrInfo
    from tonewood.workflow.layout import FileFailure


def print_json(value: dict[str, Any]) -> None:
    """Write one JSON object on a line of standard output."""
    # ASCII: file names may hold bytes that are no UTF-8, and the stream may be of any encoding.
    print(json.dumps(value, allow_nan=False), flush=True)


def print_stderr(line: str) -> None:
    """Write a line for people on standard error."""
    print(line, file=sys.stderr, flush=True)


def format_time(seconds: float) -> str:
    """A time as musicians read it, as in 1:02.5."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def print_failure(failure: "FileFailure", as_json: bool) -> None:
    """Name a recording that could not be done, and why."""
    print_stderr(f"tonewood: {failure.error}")
    if as_json:
        print_json({"input": str(failure.input), "error": str(failure.error)})


def card_json(model: "ModelOrInfo") -> dict[str, Any]:
    """A model's card and settings, for programs."""
    settings = model.settings.model_dump(mode="json")
    return {"card": model.card.model_dump(mode="json"), "settings": settings}


def print_card(model: "ModelOrInfo") -> None:
    """Tell a model's card."""
    from tonewood.workflow.card import card_lines

    for name, lines in card_lines(model):
        for number, line in enumerate(lines):
            print(f"{'' if number else name:<11}{line}".rstrip())
