"""To and from other listening tests: webMUSHRA and ReSEval."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tonewood.errors import CallError, FolderError, OutputError, printable
from tonewood.files.output import temporary_folder
from tonewood.listening.answers import AnswerDatabase
from tonewood.listening.design import ListeningTest
from tonewood.listening.foreign import ImportedAnswer
from tonewood.listening.replies import screen_to_json
from tonewood.listening.reseval import read_reseval_answers, write_reseval_test
from tonewood.listening.webmushra import read_webmushra_answers, write_webmushra_test


class _ExchangeFormat(NamedTuple):
    """How a test is written for another program, and how its answers are read."""

    write: Callable[[ListeningTest, Path, Path, str], Path]
    read: Callable[[ListeningTest, Path], Iterator[ImportedAnswer]]


_EXCHANGE_FORMATS = {
    "webmushra": _ExchangeFormat(write_webmushra_test, read_webmushra_answers),
    "reseval": _ExchangeFormat(write_reseval_test, read_reseval_answers),
}


class ImportCount(NamedTuple):
    """How much was imported."""

    listeners: int
    answers: int


def export_listening_test(test: ListeningTest, folder: Path, to: str, out: Path) -> Path:
    """Write a test for webMUSHRA or ReSEval into a new folder; returns what to open there.

    Raises
    ------
    CallError, OutputError
        There is no such format, or the folder may not be written.
    """
    form = _exchange_format(to)
    if out.exists():
        raise OutputError(f"{printable(out)} exists: name another folder")
    name = re.sub(r"[^a-z0-9]+", "-", out.name.lower()).strip("-") or "test"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out.parent) as hidden:
            made = hidden / "out"
            made.mkdir()
            opened = form.write(test, folder, made, name).relative_to(made)
            made.rename(out)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise OutputError(f"{printable(out)} cannot be made ({why}): name another folder") from None
    return out / opened


def read_imported_answers(test: ListeningTest, came_from: str, table: Path) -> list[ImportedAnswer]:
    """All answers of a table that was made elsewhere.

    Raises
    ------
    CallError, FolderError
        There is no such format, or the table does not fit the test; the line is named.
    """
    given = list(_exchange_format(came_from).read(test, table))
    if not given:
        raise FolderError(f"{printable(table)} holds no answers to this test: name its results")
    return given


def import_answers(answers: AnswerDatabase, imported: Sequence[ImportedAnswer]) -> ImportCount:
    """Bring in answers that were given elsewhere; what is there already stays as it is."""
    listeners, total = 0, 0
    for one in imported:
        listeners += answers.add_imported_listener(one.listener_id)
        answers.save_question(one.listener_id, one.trial, screen_to_json(one.screen))
        total += answers.save_answer(one.listener_id, one.trial, one.value, final=True, seconds=one.seconds)
    return ImportCount(listeners, total)


def _exchange_format(name: str) -> _ExchangeFormat:
    if name not in _EXCHANGE_FORMATS:
        raise CallError(f"{name!r} is no known format; choose {' or '.join(_EXCHANGE_FORMATS)}")
    return _EXCHANGE_FORMATS[name]
