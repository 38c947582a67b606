"""Answers in SQLite: on the disk before the page hears that they are kept.

Write-ahead log, every commit synchronised: a killed server, or a closed tab, loses nothing that was
acknowledged. A deleted listener leaves no trace in the file.
"""

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tonewood.errors import FolderError, OutputError, printable

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
                raise OutputError(
                    f"{MAX_LISTENERS:,} have taken part, the most of one test: make another"
                )
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
        rows = self._query(
            "SELECT screen, content FROM asked WHERE listener = ?", identity, of=(int, str)
        )
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
