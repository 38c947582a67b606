"""To and from other listening tests: webMUSHRA and ReSEval."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tonewood.errors import CallError, FolderError, OutputError, shown
from tonewood.files.output import temporary_folder
from tonewood.listening import reseval, webmushra
from tonewood.listening.answers import Answers
from tonewood.listening.design import Test
from tonewood.listening.foreign import Given
from tonewood.listening.replies import content_of

_FORMATS = {"webmushra": webmushra, "reseval": reseval}


class Taken(NamedTuple):
    """How much was imported."""

    listeners: int
    answers: int


def export(test: Test, folder: Path, to: str, out: Path) -> Path:
    """Write a test for webMUSHRA or ReSEval into a new folder; returns what to open there.

    Raises
    ------
    CallError, OutputError
        There is no such format, or the folder may not be written.
    """
    form = _form(to)
    if out.exists():
        raise OutputError(f"{shown(out)} exists: name another folder")
    name = re.sub(r"[^a-z0-9]+", "-", out.name.lower()).strip("-") or "test"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out.parent) as hidden:
            made = hidden / "out"
            made.mkdir()
            opened: Path = form.write(test, folder, made, name).relative_to(made)
            made.rename(out)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise OutputError(f"{shown(out)} cannot be made ({why}): name another folder") from None
    return out / opened


def read(test: Test, came_from: str, table: Path) -> list[Given]:
    """All answers of a table that was made elsewhere.

    Raises
    ------
    CallError, FolderError
        There is no such format, or the table does not fit the test; the line is named.
    """
    given = list(_form(came_from).read(test, table))
    if not given:
        raise FolderError(f"{shown(table)} holds no answers to this test: name its results")
    return given


def take(answers: Answers, given: Sequence[Given]) -> Taken:
    """Bring in answers that were given elsewhere; what is there already stays as it is."""
    listeners, total = 0, 0
    for one in given:
        listeners += answers.bring(one.who)
        answers.ask(one.who, one.trial, content_of(one.screen))
        total += answers.keep(one.who, one.trial, one.value, final=True, seconds=one.seconds)
    return Taken(listeners, total)


def _form(name: str) -> ModuleType:
    if name not in _FORMATS:
        raise CallError(f"{name!r} is no known format; choose {' or '.join(_FORMATS)}")
    return _FORMATS[name]
