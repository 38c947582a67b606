"""Sessions on disk: a database of what was decided, and a folder each for what was made.

SQLite in WAL mode: a server that is killed comes back with all that was answered.
"""

import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tonewood.errors import OutputError, shown
from tonewood.files.output import LOCKS, join, lock, sweep
from tonewood.studio.entries import Job, MissingError, Session, Sound, State
from tonewood.workflow.edit import Edit

UNDO = 500
"""Edits kept for each session."""
_RUIN_SECONDS = 86_400.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
  id TEXT PRIMARY KEY, title TEXT NOT NULL, created REAL NOT NULL, changed REAL NOT NULL,
  sound TEXT NOT NULL, model TEXT NOT NULL, at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS edits (
  session TEXT NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
  number INTEGER NOT NULL, found INTEGER, body TEXT NOT NULL, PRIMARY KEY (session, number)
);
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY, session TEXT REFERENCES sessions(id) ON DELETE CASCADE,
  kind TEXT NOT NULL, state TEXT NOT NULL, asked TEXT NOT NULL, told TEXT NOT NULL,
  created REAL NOT NULL
);
"""


class Store:
    """Database and folders below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            for name in ("sessions", "models"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            self.database = sqlite3.connect(folder / "studio.db", check_same_thread=False)
            self.database.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;"
                "PRAGMA busy_timeout=5000;" + _SCHEMA
            )
        except (OSError, sqlite3.Error) as error:
            why = str(getattr(error, "strerror", None) or error).lower()
            raise OutputError(
                f"{shown(folder)} cannot keep sessions ({why}): name another --folder"
            ) from None
        self.lock = threading.RLock()
        self._here, alone = _entered(folder)
        self._recover(alone)
        if self._here is not None:
            join(self._here)

    @property
    def models(self) -> Path:
        """Folder of the models that were trained or brought here."""
        return self.folder / "models"

    def close(self) -> None:
        """Let go of the database."""
        with self.lock:
            self.database.close()
            if self._here is not None:
                os.close(self._here)
                self._here = None

    # --- sessions

    def place(self) -> tuple[str, Path]:
        """A new session's id and its empty folder."""
        name = secrets.token_hex(8)
        path = self.folder / "sessions" / name
        path.mkdir()
        return name, path

    def discard(self, name: str) -> None:
        """Remove a session's folder, whatever is in it, and its entry, if there is one."""
        try:
            with self._transaction() as run:
                run("DELETE FROM sessions WHERE id=?", (name,))
        finally:  # a full disk may refuse the one, and wants the other
            shutil.rmtree(self.folder / "sessions" / name, ignore_errors=True)

    def add(self, name: str, title: str, sound: Sound, model: str) -> Session:
        """Enter a session whose folder is filled; its history starts with no change at all."""
        now = time.time()
        with self._transaction() as run:
            run("INSERT INTO sessions VALUES (?,?,?,?,?,?,0)",
                (name, title, now, now, sound.model_dump_json(), model))  # fmt: skip
            run("INSERT INTO edits VALUES (?,0,NULL,?)", (name, Edit().model_dump_json()))
        return self.session(name)

    def sessions(self) -> list[Session]:
        """All sessions, the last touched first."""
        with self._transaction() as run:
            rows = run("SELECT id, title, created, changed, sound, model FROM sessions "
                       "ORDER BY changed DESC", ()).fetchall()  # fmt: skip
        return [self._session(row) for row in rows]

    def session(self, name: str) -> Session:
        """One session; MissingError if there is none."""
        with self._transaction() as run:
            row = run("SELECT id, title, created, changed, sound, model FROM sessions WHERE id=?",
                      (name,)).fetchone()  # fmt: skip
        if row is None:
            raise MissingError("there is no such session: open the recording again")
        return self._session(row)

    def choose(self, name: str, model: str) -> None:
        """Choose a session's model."""
        with self._transaction() as run:
            run("UPDATE sessions SET model=?, changed=? WHERE id=?", (model, time.time(), name))

    def remove(self, name: str) -> None:
        """Forget a session and all that was made for it."""
        self.session(name)
        with self._transaction() as run:
            run("DELETE FROM sessions WHERE id=?", (name,))
        self.discard(name)

    # --- edits

    def state(self, name: str, number: int | None = None) -> State:
        """Where a session's history stands, or one entry of it."""
        with self._transaction() as run:
            at = run("SELECT at FROM sessions WHERE id=?", (name,)).fetchone()
            if at is None:
                raise MissingError("there is no such session: open the recording again")
            wanted = at[0] if number is None else number
            row = run("SELECT found, body FROM edits WHERE session=? AND number=?",
                      (name, wanted)).fetchone()  # fmt: skip
            least, most = run("SELECT min(number), max(number) FROM edits WHERE session=?",
                              (name,)).fetchone()  # fmt: skip
        if row is None:
            raise MissingError("that edit is no more: load the page again")
        return State(
            wanted, row[0], Edit.model_validate_json(row[1]), wanted > least, wanted < most
        )

    def change(self, name: str, edit: Edit, found: int | None) -> State:
        """Enter an edit after the present one; what had been undone is forgotten."""
        with self._transaction() as run:
            now = self.state(name)
            if (edit, found) == (now.edit, now.found):
                return now
            number = now.number + 1
            run("DELETE FROM edits WHERE session=? AND (number>=? OR number<?)",
                (name, number, number - UNDO))  # fmt: skip
            run("INSERT INTO edits VALUES (?,?,?,?)",
                (name, number, found, edit.model_dump_json()))  # fmt: skip
            run("UPDATE sessions SET at=?, changed=? WHERE id=?", (number, time.time(), name))
        return self.state(name)

    def step(self, name: str, by: int) -> State:
        """Undo (-1) or redo (+1), as far as there is history."""
        now = self.state(name)
        if (by < 0 and now.undo) or (by > 0 and now.redo):
            with self._transaction() as run:
                run("UPDATE sessions SET at=?, changed=? WHERE id=?",
                    (now.number + by, time.time(), name))  # fmt: skip
        return self.state(name)

    def history(self, name: str) -> list[tuple[int, int | None, Edit]]:
        """All edits of a session: number, found mask, edit."""
        with self._transaction() as run:
            rows = run("SELECT number, found, body FROM edits WHERE session=? ORDER BY number",
                       (name,)).fetchall()  # fmt: skip
        return [(n, found, Edit.model_validate_json(body)) for n, found, body in rows]

    def restore(self, name: str, edits: list[tuple[int, int | None, Edit]], at: int) -> None:
        """Put a history in the place of a session's own."""
        with self._transaction() as run:
            run("DELETE FROM edits WHERE session=?", (name,))
            for number, found, edit in edits:
                run("INSERT INTO edits VALUES (?,?,?,?)",
                    (name, number, found, edit.model_dump_json()))  # fmt: skip
            run("UPDATE sessions SET at=? WHERE id=?", (at, name))

    # --- jobs

    def keep(self, job: Job) -> None:
        """Write down a job as it is; one of a session that is gone is forgotten."""
        with self._transaction() as run:
            if (
                job.session is not None
                and not run("SELECT 1 FROM sessions WHERE id=?", (job.session,)).fetchone()
            ):
                return
            run("INSERT OR REPLACE INTO jobs VALUES (?,?,?,?,?,?,?)",
                (job.id, job.session, job.kind, job.state, json.dumps(job.asked),
                 json.dumps(job.told), job.created))  # fmt: skip

    def jobs(self, session: str | None = None) -> list[Job]:
        """Jobs of a session, or those that belong to none, the newest first."""
        with self._transaction() as run:
            rows = run("SELECT * FROM jobs WHERE session IS ? ORDER BY created DESC LIMIT 50",
                       (session,)).fetchall()  # fmt: skip
        return [_job(row) for row in rows]

    def job(self, name: str) -> Job:
        """One job; MissingError if there is none."""
        with self._transaction() as run:
            row = run("SELECT * FROM jobs WHERE id=?", (name,)).fetchone()
        if row is None:
            raise MissingError("there is no such job: load the page again")
        return _job(row)

    # --- within

    def _session(self, row: tuple[Any, ...]) -> Session:
        name, title, created, changed, sound, model = row
        folder = self.folder / "sessions" / name
        parsed = Sound.model_validate_json(sound)
        return Session(name, title, created, changed, parsed, model, folder)

    def _recover(self, alone: bool) -> None:
        """Say of jobs that a killed server left that they were interrupted; clear its ruins.

        Where another server may share this folder, what is young may be on its way through it.
        """
        with self._transaction() as run:
            run("UPDATE jobs SET state='interrupted' WHERE state IN ('queued','running')", ())
            known = {row[0] for row in run("SELECT id FROM sessions", ()).fetchall()}
        old = time.time() - _RUIN_SECONDS
        for path in [*(self.folder / "sessions").iterdir()]:
            if path.name not in known and (alone or path.stat().st_mtime < old):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob("sessions/*/taken-*"):
            if alone or path.stat().st_mtime < old:
                path.unlink(missing_ok=True)
        sweep([self.models, *(self.folder / "sessions").iterdir()])

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Yield `execute`; all of the block is kept, or nothing of it. May be nested."""
        with self.lock:
            outer = not self.database.in_transaction
            try:
                yield self.database.execute
                if outer:
                    self.database.commit()
            except sqlite3.OperationalError as error:  # the disk is full, say
                if outer:
                    self._undo()
                raise OutputError(
                    f"what was decided cannot be kept ({error}): free some space, or look at the "
                    "disk"
                ) from error
            except BaseException:
                if outer:
                    self._undo()
                raise

    def _undo(self) -> None:
        with suppress(sqlite3.Error):  # SQLite may have done it by itself
            self.database.rollback()


def _entered(folder: Path) -> tuple[int | None, bool]:
    """Hold a folder for as long as this server runs; and whether no other one does."""
    if not LOCKS:
        return None, False
    held = os.open(folder, os.O_RDONLY)
    return held, lock(held) is True


def _job(row: tuple[Any, ...]) -> Job:
    name, session, kind, state, asked, told, created = row
    return Job(name, session, kind, state, json.loads(asked), json.loads(told), created)
