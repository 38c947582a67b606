"""Answer database: listeners, their questions and answers in SQLite, and the answers joined with stimuli.

Each commit is synchronised with the disk before the page receives its confirmation, so a killed server
loses no acknowledged answer. Deleted rows are overwritten.
"""

import json
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import FolderError, OutputError, printable
from tonewood.listening.definition import Excerpt, FileByCondition, ListeningTest
from tonewood.listening.trial_order import (
    REFERENCE_LABEL,
    X_LABEL,
    LabelledStimulus,
    Screen,
    draw_screens,
    is_valid_answer,
)
from tonewood.utils.files import make_private

MAX_LISTENERS = 10_000  # the allocation of trials to a listener depends on all listeners before
MIN_HEADPHONES_CORRECT = 5  # of six, after Woods et al. (2017)

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
    """A participant: a random id, and the number that determines the trials.

    Imported listeners have negative numbers.
    """

    id: str
    number: int


class ListenerAnswer(NamedTuple):
    """An answer to a screen; a draft if not final."""

    final: bool
    value: Any
    seconds: float


class AnswerDatabase:
    """Answers to one test. Each method opens its own connection, so any thread may call it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._transaction() as connection:
            # Not `executescript`, which would commit the open transaction first.
            for table in _ANSWER_SCHEMA.split(";"):
                connection.execute(table)
        make_private(path)

    def add_listener(self, consent: str) -> Listener:
        """Add a listener who consented to a text, with the first unused number."""
        identity = secrets.token_urlsafe(16)
        with self._transaction() as connection:
            used = {number for (number,) in connection.execute("SELECT number FROM listener")}
            # A deleted listener's number is used again, so that the design stays balanced.
            number = next(n for n in range(len(used) + 1) if n not in used)
            if number >= MAX_LISTENERS:
                raise OutputError(
                    f"this test has {MAX_LISTENERS:,} listeners, the maximum: make another test"
                )
            connection.execute(
                "INSERT INTO listener VALUES (?, ?, ?, ?)", (identity, number, int(time.time()), consent)
            )
        return Listener(identity, number)

    def add_imported_listener(self, identity: str) -> bool:
        """Add a listener of another test system; return False if known already."""
        with self._transaction() as connection:
            (lowest,) = connection.execute("SELECT min(0, coalesce(min(number), 0)) FROM listener").fetchone()
            inserted = connection.execute(
                "INSERT OR IGNORE INTO listener VALUES (?, ?, ?, ?)",
                (identity, lowest - 1, int(time.time()), "imported"),
            )
            return inserted.rowcount == 1

    def get_listener(self, identity: str) -> Listener | None:
        """Return a listener by id, or None."""
        rows = self._query("SELECT id, number FROM listener WHERE id = ?", identity, types=(str, int))
        return Listener(*rows[0]) if rows else None

    def list_listeners(self) -> list[Listener]:
        """Return all listeners in the order of their numbers."""
        rows = self._query("SELECT id, number FROM listener ORDER BY number", types=(str, int))
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
        """Store an answer; return False if the screen has a final answer, which stays."""
        row = (identity, screen, int(final), json.dumps(value), seconds, int(time.time()))
        with self._transaction() as connection:
            stored = connection.execute(
                "INSERT INTO answer VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (listener, screen) "
                "DO UPDATE SET final = excluded.final, value = excluded.value, "
                "seconds = excluded.seconds, at = excluded.at WHERE final = 0",
                row,
            )
            return stored.rowcount == 1

    def answers_of(self, identity: str) -> dict[int, ListenerAnswer]:
        """Return a listener's answers by screen."""
        rows = self._query(
            "SELECT screen, final, value, seconds FROM answer WHERE listener = ? ORDER BY screen",
            identity,
            types=(int, int, str, float),
        )
        return {
            screen: ListenerAnswer(bool(final), self._parse_json(value), seconds)
            for screen, final, value, seconds in rows
        }

    def save_question(self, identity: str, screen: int, content: Any) -> Any:  # noqa: ANN401
        """Store what a screen asks and return it; a question stored before stays."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO asked VALUES (?, ?, ?)", (identity, screen, json.dumps(content))
            )
        return self.questions_of(identity)[screen]

    def questions_of(self, identity: str) -> dict[int, Any]:
        """Return the questions that were stored for a listener, by screen."""
        rows = self._query("SELECT screen, content FROM asked WHERE listener = ?", identity, types=(int, str))
        return {screen: self._parse_json(content) for screen, content in rows}

    def delete_listener(self, identity: str) -> bool:
        """Delete a listener with all answers; return False if unknown.

        `secure_delete` overwrites freed pages. The write-ahead log has copies of them, so it is emptied.
        """
        with self._transaction() as connection:
            deleted = connection.execute("DELETE FROM listener WHERE id = ?", (identity,)).rowcount
            connection.execute("COMMIT")  # a checkpoint is not possible within a transaction
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("BEGIN")
        return deleted == 1

    def damaged_error(self) -> OutputError:
        """Return the error for content that no page can have sent."""
        return OutputError(f"{printable(self.path)} is damaged: restore it from a copy")

    def _query(self, query: str, *values: str, types: tuple[type, ...]) -> list[tuple[Any, ...]]:
        """Return rows and check the types of their columns, which SQLite does not enforce."""
        with self._transaction() as connection:
            rows = connection.execute(query, values).fetchall()
        if not all(isinstance(v, kind) for row in rows for v, kind in zip(row, types, strict=True)):
            raise self.damaged_error()
        return rows

    def _parse_json(self, text: str) -> Any:  # noqa: ANN401
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self.damaged_error() from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection; commit the whole block or nothing of it."""
        connection = None
        try:
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            for pragma in _SQLITE_PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise OutputError(
                f"{printable(self.path)} cannot be used ({_sqlite_reason(error)}): check the folder and "
                "the disk"
            ) from None
        except UnicodeDecodeError:  # SQLite quotes damaged names in its messages
            raise self.damaged_error() from None
        finally:
            if connection is not None:
                connection.close()  # rolls back what was not committed


def count_answers(path: Path) -> int:
    """Return the number of answers in a file; raise FolderError if it is not an answer database."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        with connection:
            (count,) = connection.execute("SELECT count(*) FROM answer").fetchone()
        connection.close()
    except sqlite3.Error as error:
        reason = _sqlite_reason(error)
        raise FolderError(f"{printable(path)} cannot be read ({reason}): restore it from a copy") from None
    return int(count)


def _sqlite_reason(error: sqlite3.Error) -> str:
    return " ".join(str(error).split())  # a damaged schema is quoted with its line breaks


class TrialResponse(NamedTuple):
    """A final answer to a trial, with the screen and the excerpt."""

    screen_number: int
    question: Screen
    excerpt: Excerpt
    value: Any
    seconds: float

    @property
    def trial(self) -> int:
        """Index of the test's trial."""
        assert self.question.trial is not None
        return self.question.trial

    @property
    def repeat_of(self) -> int | None:
        """Number of the screen that this screen repeats."""
        return self.question.repeat_of

    @property
    def preferred(self) -> LabelledStimulus:
        """Sound that was chosen of two."""
        return next(stimulus for stimulus in self.question.stimuli if stimulus.label == self.value)

    @property
    def rejected(self) -> LabelledStimulus:
        """Sound that was not chosen of two."""
        return next(s for s in self.question.stimuli if s.label != self.value and s.label in "AB")

    @property
    def correct(self) -> bool:
        """True for a correct ABX answer."""
        return bool(self.value == self.question.correct_answer)

    @property
    def ratings(self) -> dict[str, tuple[LabelledStimulus, float]]:
        """Sound and rating by condition."""
        by_label = {stimulus.label: stimulus for stimulus in self.question.stimuli}
        return {by_label[k].condition: (by_label[k], float(v)) for k, v in self.value.items()}


class Participant(NamedTuple):
    """A listener with the results of the checks and all responses."""

    listener: Listener
    name: str
    code: str
    finished: bool
    # True if the headphone check was passed; None if it is not finished, or not part of the test
    headphones: bool | None
    hearing: float | None  # share of correct answers in the hearing check
    responses: tuple[TrialResponse, ...]

    @property
    def first_answers(self) -> list[TrialResponse]:
        """Responses without those to repeated questions."""
        return [response for response in self.responses if response.repeat_of is None]


def screens_of(test: ListeningTest, answers: AnswerDatabase, listener: Listener) -> dict[int, Screen]:
    """Return a listener's screens by number: drawn from the seed, or stored while the test ran.

    Imported listeners have stored screens only.
    """
    if listener.number >= MAX_LISTENERS:
        raise answers.damaged_error()
    drawn = dict(enumerate(draw_screens(test, listener.number))) if listener.number >= 0 else {}
    try:
        files = test.file_by_condition()
        questions = answers.questions_of(listener.id)
        stored = {number: screen_from_json(content, test, files) for number, content in questions.items()}
    except ValueError:
        raise answers.damaged_error() from None
    return drawn | stored


def list_participants(test: ListeningTest, answers: AnswerDatabase) -> list[Participant]:
    """Return all participants with their final answers to the trials."""
    return [_build_participant(test, answers, listener) for listener in answers.list_listeners()]


def _build_participant(test: ListeningTest, answers: AnswerDatabase, listener: Listener) -> Participant:
    screens = screens_of(test, answers, listener)
    final = {
        number: answer
        for number, answer in answers.answers_of(listener.id).items()
        if answer.final and number in screens
    }
    for number, answer in final.items():
        if not is_valid_answer(answer.value, screens[number], test.kind, final=True):
            raise answers.damaged_error()
    headphones = _check_results(screens, final, "headphones")
    hearing = _check_results(screens, final, "hearing")
    responses = []
    for number, answer in sorted(final.items()):
        screen = screens[number]
        if screen.stage == "trial":
            assert screen.trial is not None  # an open screen offers no answer, so none is valid
            excerpt = test.excerpts[test.trials[screen.trial].excerpt]
            responses.append(TrialResponse(number, screen, excerpt, answer.value, answer.seconds))
    return Participant(
        listener=listener,
        name=f"L{listener.number + 1}" if listener.number >= 0 else f"I{-listener.number}",
        code=test.completion_code(listener.id),
        finished=len(final) == len(screens),
        headphones=None if headphones is None else sum(headphones) >= MIN_HEADPHONES_CORRECT,
        hearing=None if hearing is None else sum(hearing) / len(hearing),
        responses=tuple(responses),
    )


def count_wins(test: ListeningTest, responses: Iterable[TrialResponse]) -> NDArray[np.float64]:
    """Return how often one condition was preferred to another [preferred, rejected]."""
    index = {name: k for k, name in enumerate(test.conditions)}
    wins = np.zeros((len(index), len(index)))
    for response in responses:
        wins[index[response.preferred.condition], index[response.rejected.condition]] += 1
    return wins


def _check_results(
    screens: Mapping[int, Screen], answers: Mapping[int, ListenerAnswer], stage: str
) -> list[bool] | None:
    """Return whether each check of a stage was answered correctly; None if one is unanswered."""
    numbers = [number for number, screen in screens.items() if screen.stage == stage]
    if not numbers or not all(number in answers for number in numbers):
        return None
    return [answers[number].value == screens[number].correct_answer for number in numbers]


def screen_to_json(screen: Screen) -> dict[str, Any]:
    """Return a screen as JSON, for `AnswerDatabase.save_question`."""
    return {
        "stage": screen.stage,
        "trial": screen.trial,
        "slots": [[s.label, s.file, s.condition] for s in screen.stimuli],
        "right": screen.correct_answer,
        "again": screen.repeat_of,
    }


def screen_from_json(content: Any, test: ListeningTest, files: FileByCondition) -> Screen:  # noqa: ANN401
    """Return the screen that `screen_to_json` wrote; raise ValueError unless it is one of the test."""
    try:
        stimuli = tuple(LabelledStimulus(*values) for values in content["slots"])
        screen = Screen("trial", content["trial"], stimuli, content["right"], content.get("again"))
        trial = test.trials[content["trial"]]
        labels = sorted(s.label for s in stimuli if s.label not in (REFERENCE_LABEL, X_LABEL))
        conditions = {s.condition for s in stimuli}
        files_match = all(
            s.file in [files.get((trial.excerpt, s.condition, copy)) for copy in (0, 1)] for s in stimuli
        )
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("the screen is incomplete") from error
    if (
        content.get("stage") != "trial"
        or content["trial"] < 0  # counted from the end by Python, so it is found above
        or not files_match
        or conditions != set(trial.conditions)
        or labels != [chr(ord("A") + k) for k in range(len(trial.conditions))]
        or (test.kind == "abx") != (screen.correct_answer in labels)
        or not isinstance(screen.repeat_of, int | None)
    ):
        raise ValueError("the screen does not belong to this test")
    return screen
