"""Answers in SQLite: on the disk before the page hears that they are kept.

Write-ahead log, every commit synchronised: a killed server, or a closed tab, loses nothing that was
acknowledged. A deleted listener leaves no trace in the file.

What listeners said, joined with what they heard: the only place where both meet.
"""

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tonewood.errors import FolderError, OutputError, printable
from tonewood.listening.definition import ListeningTest, TestExcerpt
from tonewood.listening.trial_order import (
    REFERENCE_LABEL,
    X_LABEL,
    LabelledStimulus,
    Screen,
    draw_screens,
    is_valid_answer,
)

MAX_LISTENERS = 10_000  # what each is asked depends on all before

_ANSWER_SCHEMA = """
CREATE TABLE IF NOT EXISTS listener (
    id TEXT PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,
    began INTEGER NOT NULL,
    consent TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS asked (
    listener TEXT NOT NULL REFERENCES listener(id) ON DELETE CASCADE,
    screen INTEGER NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (listener, screen)
);
CREATE TABLE IF NOT EXISTS answer (
    listener TEXT NOT NULL REFERENCES listener(id) ON DELETE CASCADE,
    screen INTEGER NOT NULL,
    final INTEGER NOT NULL,
    value TEXT NOT NULL,
    seconds REAL NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (listener, screen)
);
"""


_SQLITE_PRAGMAS = (
    "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON",
)  # fmt: skip


class Listener(NamedTuple):
    """Somebody who takes part: a random number, and the place in the balanced design."""

    id: str
    number: int


class ListenerAnswer(NamedTuple):
    """What was answered on a screen; not final while it may still be changed."""

    screen: int
    final: bool
    value: Any
    seconds: float


class AnswerDatabase:
    """The answers of one test.

    Every method opens its own connection, so that any thread may ask.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._transaction() as connection:
            for table in _ANSWER_SCHEMA.split(";"):
                connection.execute(table)

    def add_listener(self, consent: str) -> Listener:
        """A new listener, who consented to this text; takes the first free place."""
        identity = secrets.token_urlsafe(16)
        with self._transaction() as connection:
            taken = {number for (number,) in connection.execute("SELECT number FROM listener")}
            number = next(n for n in range(len(taken) + 1) if n not in taken)
            if number >= MAX_LISTENERS:
                raise OutputError(f"{MAX_LISTENERS:,} have taken part, the most of one test: make another")
            connection.execute(
                "INSERT INTO listener VALUES (?, ?, ?, ?)",
                (identity, number, int(time.time()), consent),
            )
        return Listener(identity, number)

    def add_imported_listener(self, identity: str) -> bool:
        """Add somebody who took part elsewhere, below all others; False if known already."""
        with self._transaction() as connection:
            lowest = connection.execute("SELECT min(number, 0) FROM listener ORDER BY 1").fetchone()
            number = (lowest[0] if lowest else 0) - 1
            done = connection.execute(
                "INSERT OR IGNORE INTO listener VALUES (?, ?, ?, ?)",
                (identity, number, int(time.time()), "imported"),
            )
            return done.rowcount == 1

    def get_listener(self, identity: str) -> Listener | None:
        """A listener by its number, or None if there is no such."""
        rows = self._query("SELECT id, number FROM listener WHERE id = ?", identity, of=(str, int))
        return Listener(*rows[0]) if rows else None

    def list_listeners(self) -> list[Listener]:
        """All listeners, in the order of their places."""
        rows = self._query("SELECT id, number FROM listener ORDER BY number", of=(str, int))
        return [Listener(*row) for row in rows]

    def save_answer(
        self,
        identity: str,
        screen: int,
        value: Any,  # noqa: ANN401
        *,
        final: bool,
        seconds: float,
    ) -> bool:
        """Keep an answer; a final one stays as it is. Returns whether it was taken."""
        row = (identity, screen, int(final), json.dumps(value), seconds, int(time.time()))
        with self._transaction() as connection:
            done = connection.execute(
                "INSERT INTO answer VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (listener, screen) "
                "DO UPDATE SET final = excluded.final, value = excluded.value, "
                "seconds = excluded.seconds, at = excluded.at WHERE final = 0",
                row,
            )
            return done.rowcount == 1

    def answers_of(self, identity: str) -> dict[int, ListenerAnswer]:
        """A listener's answers by screen."""
        rows = self._query(
            "SELECT screen, final, value, seconds FROM answer WHERE listener = ? ORDER BY screen",
            identity,
            of=(int, int, str, float),
        )
        return {s: ListenerAnswer(s, bool(final), self._parse_json(v), took) for s, final, v, took in rows}

    def save_question(self, identity: str, screen: int, content: Any) -> Any:  # noqa: ANN401
        """Keep what a listener is asked on a screen; what was kept before stays."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO asked VALUES (?, ?, ?)",
                (identity, screen, json.dumps(content)),
            )
        return self.questions_of(identity)[screen]

    def questions_of(self, identity: str) -> dict[int, Any]:
        """What was drawn for a listener while the test ran, by screen."""
        rows = self._query("SELECT screen, content FROM asked WHERE listener = ?", identity, of=(int, str))
        return {screen: self._parse_json(content) for screen, content in rows}

    def delete_listener(self, identity: str) -> bool:
        """Delete a listener and all answers; returns whether there was one.

        Freed pages are overwritten, and the log, which held them too, is emptied.
        """
        with self._transaction() as connection:
            done = connection.execute("DELETE FROM listener WHERE id = ?", (identity,)).rowcount
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("BEGIN")
        return done == 1

    def damaged_error(self) -> OutputError:
        """What is raised where the file tells what no page can have sent."""
        return OutputError(f"{printable(self.path)} is damaged: restore it from a copy")

    def _query(self, query: str, *about: str, of: tuple[type, ...]) -> list[tuple[Any, ...]]:
        """Rows of a query, their columns of these types: SQLite itself lets any be of any."""
        with self._transaction() as connection:
            rows = connection.execute(query, about).fetchall()
        if not all(isinstance(it, kind) for row in rows for it, kind in zip(row, of, strict=True)):
            raise self.damaged_error()
        return rows

    def _parse_json(self, text: str) -> Any:  # noqa: ANN401
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self.damaged_error() from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection whose transaction is written whole or not at all."""
        connection = None
        try:
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            for pragma in _SQLITE_PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise _unusable_error(self.path, error) from None
        except UnicodeDecodeError:  # of the words in which SQLite complains
            raise self.damaged_error() from None
        finally:
            if connection is not None:
                connection.close()  # which undoes what was not committed


def count_answers(path: Path) -> int:
    """How many answers a file holds; raises FolderError if it is none of ours."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        with connection:
            found = connection.execute("SELECT count(*) FROM answer").fetchone()
        connection.close()
    except sqlite3.Error as error:
        raise FolderError(f"{printable(path)} cannot be read ({_sqlite_reason(error)}): restore it") from None
    return int(found[0])


def _unusable_error(path: Path, error: sqlite3.Error) -> OutputError:
    return OutputError(
        f"{printable(path)} cannot be used ({_sqlite_reason(error)}): check the folder and the disk"
    )


def _sqlite_reason(error: sqlite3.Error) -> str:
    return " ".join(str(error).split())  # a damaged schema is quoted line by line


StimulusFiles = Mapping[tuple[int, str, int], str]

MIN_HEADPHONES_CORRECT = 5  # of six, as Woods et al. (2017) ask


class TrialResponse(NamedTuple):
    """One answer and what it was about.

    Parameters
    ----------
    repeat_of : int or None
        Number of the screen that this one repeats.
    """

    screen_number: int
    question: Screen
    excerpt: TestExcerpt
    value: Any
    seconds: float
    repeat_of: int | None

    @property
    def preferred(self) -> LabelledStimulus:
        """The sound that was chosen of two."""
        return next(slot for slot in self.question.stimuli if slot.label == self.value)

    @property
    def rejected(self) -> LabelledStimulus:
        """The sound that was not."""
        return next(s for s in self.question.stimuli if s.label != self.value and s.label in "AB")

    @property
    def correct(self) -> bool:
        """Whether an ABX answer is right."""
        return bool(self.value == self.question.correct_answer)

    @property
    def ratings(self) -> dict[str, tuple[LabelledStimulus, float]]:
        """Sound and rating by condition."""
        by_label = {slot.label: slot for slot in self.question.stimuli}
        return {by_label[k].condition: (by_label[k], float(v)) for k, v in self.value.items()}


class Participant(NamedTuple):
    """A listener: a number, what the checks found, and the replies.

    Parameters
    ----------
    headphones : bool or None
        Whether the check was passed; None while it was not finished, or for a test without.
    hearing : float or None
        Share of the right answers.
    """

    listener: Listener
    name: str
    code: str
    finished: bool
    headphones: bool | None
    hearing: float | None
    responses: tuple[TrialResponse, ...]


def screens_of(test: ListeningTest, answers: AnswerDatabase, listener: Listener) -> dict[int, Screen]:
    """A listener's screens by number: as drawn beforehand, or kept while the test ran.

    Those who took part elsewhere have negative numbers, and only what was imported of them.
    """
    if listener.number >= MAX_LISTENERS:
        raise answers.damaged_error()
    drawn = dict(enumerate(draw_screens(test, listener.number))) if listener.number >= 0 else {}
    try:
        files = test.file_by_condition()
        kept = {at: screen_from_json(it, test, files) for at, it in answers.questions_of(listener.id).items()}
    except ValueError:
        raise answers.damaged_error() from None
    return drawn | kept


def list_participants(test: ListeningTest, answers: AnswerDatabase) -> list[Participant]:
    """Everybody who took part, with their final answers to trials that count."""
    return [_build_participant(test, answers, listener) for listener in answers.list_listeners()]


def _build_participant(test: ListeningTest, answers: AnswerDatabase, listener: Listener) -> Participant:
    asked, given = screens_of(test, answers, listener), answers.answers_of(listener.id)
    final = {place: it for place, it in given.items() if it.final and place in asked}
    if not all(is_valid_answer(it.value, asked[k], test.kind, final=True) for k, it in final.items()):
        raise answers.damaged_error()
    phones = _check_results(asked, final, "headphones")
    ears = _check_results(asked, final, "hearing")
    return Participant(
        listener=listener,
        name=f"L{listener.number + 1}" if listener.number >= 0 else f"I{-listener.number}",
        code=test.completion_code(listener.id),
        finished=len(final) == len(asked),
        headphones=None if phones is None else sum(phones) >= MIN_HEADPHONES_CORRECT,
        hearing=None if ears is None else sum(ears) / len(ears),
        responses=tuple(
            TrialResponse(
                place,
                asked[place],
                test.excerpts[test.trials[asked[place].trial or 0].excerpt],
                it.value,
                it.seconds,
                asked[place].repeat_of,
            )
            for place, it in sorted(final.items())
            if asked[place].stage == "trial"
        ),
    )


def _check_results(
    screens: Mapping[int, Screen], answers: Mapping[int, ListenerAnswer], stage: str
) -> list[bool] | None:
    places = [place for place, screen in screens.items() if screen.stage == stage]
    if not places or not all(place in answers for place in places):
        return None
    return [answers[place].value == screens[place].correct_answer for place in places]


def screen_to_json(screen: Screen) -> dict[str, Any]:
    """A screen as JSON, to be kept."""
    slots = [[it.label, it.file, it.condition] for it in screen.stimuli]
    return {
        "stage": screen.stage, "trial": screen.trial, "slots": slots, "right": screen.correct_answer,
        "again": screen.repeat_of,
    }  # fmt: skip


def screen_from_json(content: Any, test: ListeningTest, files: StimulusFiles) -> Screen:  # noqa: ANN401
    """Inverse of `screen_to_json`; ValueError for what is no screen of the test with these files."""
    try:
        slots = tuple(LabelledStimulus(*it) for it in content["slots"])
        screen = Screen("trial", content["trial"], slots, content["right"], content.get("again"))
        trial = test.trials[content["trial"]]
        labels = sorted(it.label for it in slots if it.label not in (REFERENCE_LABEL, X_LABEL))
        told = {it.condition for it in slots}
        ours = all(
            it.file in [files.get((trial.excerpt, it.condition, copy)) for copy in (0, 1)] for it in slots
        )
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("a screen lacks something") from error
    if (
        content.get("stage") != "trial"
        or content["trial"] < 0
        or not ours
        or told != set(trial.conditions)
        or labels != [chr(ord("A") + k) for k in range(len(trial.conditions))]
        or (test.kind == "abx") != (screen.correct_answer in labels)
        or not isinstance(screen.repeat_of, int | None)
    ):
        raise ValueError("a screen is about something else")
    return screen
