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

from tonewood.errors import OutputError, printable
from tonewood.files.output import HAS_FILE_LOCKS, lock_shared, try_lock, remove_stale_temporaries
from tonewood.studio.entries import StudioJob, NotFoundError, StudioSession, RecordingInfo, EditState
from tonewood.workflow.edit import Edit

MAX_UNDO_STEPS = 500
"""Edits kept for each session."""
_STALE_SECONDS = 86_400.0
_STUDIO_SCHEMA = """
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


class SessionDatabase:
    """Database and folders below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            for name in ("sessions", "models"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            self.connection = sqlite3.connect(folder / "studio.db", check_same_thread=False)
            self.connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;"
                "PRAGMA busy_timeout=5000;" + _STUDIO_SCHEMA
            )
        except (OSError, sqlite3.Error) as error:
            why = str(getattr(error, "strerror", None) or error).lower()
            raise OutputError(
                f"{printable(folder)} cannot keep sessions ({why}): name another --folder"
            ) from None
        self.lock = threading.RLock()
        self._lock_descriptor, alone = _lock_studio_folder(folder)
        self._recover_after_crash(alone)
        if self._lock_descriptor is not None:
            lock_shared(self._lock_descriptor)

    @property
    def models_folder(self) -> Path:
        """Folder of the models that were trained or brought here."""
        return self.folder / "models"

    def close(self) -> None:
        """Let go of the database."""
        with self.lock:
            self.connection.close()
            if self._lock_descriptor is not None:
                os.close(self._lock_descriptor)
                self._lock_descriptor = None

    # --- sessions

    def create_session_folder(self) -> tuple[str, Path]:
        """A new session's id and its empty folder."""
        name = secrets.token_hex(8)
        path = self.folder / "sessions" / name
        path.mkdir()
        return name, path

    def discard_session(self, name: str) -> None:
        """Remove a session's folder, whatever is in it, and its entry, if there is one."""
        try:
            with self._transaction() as run:
                run("DELETE FROM sessions WHERE id=?", (name,))
        finally:  # a full disk may refuse the one, and wants the other
            shutil.rmtree(self.folder / "sessions" / name, ignore_errors=True)

    def add_session(self, name: str, title: str, recording: RecordingInfo, model: str) -> StudioSession:
        """Enter a session whose folder is filled; its history starts with no change at all."""
        now = time.time()
        with self._transaction() as run:
            run("INSERT INTO sessions VALUES (?,?,?,?,?,?,0)",
                (name, title, now, now, recording.model_dump_json(), model))  # fmt: skip
            run("INSERT INTO edits VALUES (?,0,NULL,?)", (name, Edit().model_dump_json()))
        return self.get_session(name)

    def list_sessions(self) -> list[StudioSession]:
        """All sessions, the last touched first."""
        with self._transaction() as run:
            rows = run("SELECT id, title, created, changed, sound, model FROM sessions "
                       "ORDER BY changed DESC", ()).fetchall()  # fmt: skip
        return [self._parse_session(row) for row in rows]

    def get_session(self, name: str) -> StudioSession:
        """One session; MissingError if there is none."""
        with self._transaction() as run:
            row = run("SELECT id, title, created, changed, sound, model FROM sessions WHERE id=?",
                      (name,)).fetchone()  # fmt: skip
        if row is None:
            raise NotFoundError("there is no such session: open the recording again")
        return self._parse_session(row)

    def set_session_model(self, name: str, model: str) -> None:
        """Choose a session's model."""
        with self._transaction() as run:
            run("UPDATE sessions SET model=?, changed=? WHERE id=?", (model, time.time(), name))

    def delete_session(self, name: str) -> None:
        """Forget a session and all that was made for it."""
        self.get_session(name)
        with self._transaction() as run:
            run("DELETE FROM sessions WHERE id=?", (name,))
        self.discard_session(name)

    # --- edits

    def get_state(self, name: str, number: int | None = None) -> EditState:
        """Where a session's history stands, or one entry of it."""
        with self._transaction() as run:
            at = run("SELECT at FROM sessions WHERE id=?", (name,)).fetchone()
            if at is None:
                raise NotFoundError("there is no such session: open the recording again")
            wanted = at[0] if number is None else number
            row = run("SELECT found, body FROM edits WHERE session=? AND number=?",
                      (name, wanted)).fetchone()  # fmt: skip
            least, most = run("SELECT min(number), max(number) FROM edits WHERE session=?",
                              (name,)).fetchone()  # fmt: skip
        if row is None:
            raise NotFoundError("that edit is no more: load the page again")
        return EditState(
            wanted, row[0], Edit.model_validate_json(row[1]), wanted > least, wanted < most
        )

    def append_edit(self, name: str, edit: Edit, mask_number: int | None) -> EditState:
        """Enter an edit after the present one; what had been undone is forgotten."""
        with self._transaction() as run:
            now = self.get_state(name)
            if (edit, mask_number) == (now.edit, now.mask_number):
                return now
            number = now.number + 1
            run("DELETE FROM edits WHERE session=? AND (number>=? OR number<?)",
                (name, number, number - MAX_UNDO_STEPS))  # fmt: skip
            run("INSERT INTO edits VALUES (?,?,?,?)",
                (name, number, mask_number, edit.model_dump_json()))  # fmt: skip
            run("UPDATE sessions SET at=?, changed=? WHERE id=?", (number, time.time(), name))
        return self.get_state(name)

    def step_history(self, name: str, by: int) -> EditState:
        """Undo (-1) or redo (+1), as far as there is history."""
        now = self.get_state(name)
        if (by < 0 and now.can_undo) or (by > 0 and now.can_redo):
            with self._transaction() as run:
                run("UPDATE sessions SET at=?, changed=? WHERE id=?",
                    (now.number + by, time.time(), name))  # fmt: skip
        return self.get_state(name)

    def get_history(self, name: str) -> list[tuple[int, int | None, Edit]]:
        """All edits of a session: number, found mask, edit."""
        with self._transaction() as run:
            rows = run("SELECT number, found, body FROM edits WHERE session=? ORDER BY number",
                       (name,)).fetchall()  # fmt: skip
        return [(n, found, Edit.model_validate_json(body)) for n, found, body in rows]

    def replace_history(self, name: str, edits: list[tuple[int, int | None, Edit]], at: int) -> None:
        """Put a history in the place of a session's own."""
        with self._transaction() as run:
            run("DELETE FROM edits WHERE session=?", (name,))
            for number, found, edit in edits:
                run("INSERT INTO edits VALUES (?,?,?,?)",
                    (name, number, found, edit.model_dump_json()))  # fmt: skip
            run("UPDATE sessions SET at=? WHERE id=?", (at, name))

    # --- jobs

    def save_job(self, job: StudioJob) -> None:
        """Write down a job as it is; one of a session that is gone is forgotten."""
        with self._transaction() as run:
            if (
                job.session is not None
                and not run("SELECT 1 FROM sessions WHERE id=?", (job.session,)).fetchone()
            ):
                return
            run("INSERT OR REPLACE INTO jobs VALUES (?,?,?,?,?,?,?)",
                (job.id, job.session, job.kind, job.state, json.dumps(job.request),
                 json.dumps(job.progress), job.created))  # fmt: skip

    def list_jobs(self, session: str | None = None) -> list[StudioJob]:
        """Jobs of a session, or those that belong to none, the newest first."""
        with self._transaction() as run:
            rows = run("SELECT * FROM jobs WHERE session IS ? ORDER BY created DESC LIMIT 50",
                       (session,)).fetchall()  # fmt: skip
        return [_parse_job(row) for row in rows]

    def get_job(self, name: str) -> StudioJob:
        """One job; MissingError if there is none."""
        with self._transaction() as run:
            row = run("SELECT * FROM jobs WHERE id=?", (name,)).fetchone()
        if row is None:
            raise NotFoundError("there is no such job: load the page again")
        return _parse_job(row)

    # --- within

    def _parse_session(self, row: tuple[Any, ...]) -> StudioSession:
        name, title, created, changed, sound, model = row
        folder = self.folder / "sessions" / name
        parsed = RecordingInfo.model_validate_json(sound)
        return StudioSession(name, title, created, changed, parsed, model, folder)

    def _recover_after_crash(self, alone: bool) -> None:
        """Say of jobs that a killed server left that they were interrupted; clear its ruins.

        Where another server may share this folder, what is young may be on its way through it.
        """
        with self._transaction() as run:
            run("UPDATE jobs SET state='interrupted' WHERE state IN ('queued','running')", ())
            known = {row[0] for row in run("SELECT id FROM sessions", ()).fetchall()}
        old = time.time() - _STALE_SECONDS
        for path in [*(self.folder / "sessions").iterdir()]:
            if path.name not in known and (alone or path.stat().st_mtime < old):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob("sessions/*/taken-*"):
            if alone or path.stat().st_mtime < old:
                path.unlink(missing_ok=True)
        remove_stale_temporaries([self.models_folder, *(self.folder / "sessions").iterdir()])

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Yield `execute`; all of the block is kept, or nothing of it. May be nested."""
        with self.lock:
            outer = not self.connection.in_transaction
            try:
                yield self.connection.execute
                if outer:
                    self.connection.commit()
            except sqlite3.OperationalError as error:  # the disk is full, say
                if outer:
                    self._rollback()
                raise OutputError(
                    f"what was decided cannot be kept ({error}): free some space, or look at the "
                    "disk"
                ) from error
            except BaseException:
                if outer:
                    self._rollback()
                raise

    def _rollback(self) -> None:
        with suppress(sqlite3.Error):  # SQLite may have done it by itself
            self.connection.rollback()


def _lock_studio_folder(folder: Path) -> tuple[int | None, bool]:
    """Hold a folder for as long as this server runs; and whether no other one does."""
    if not HAS_FILE_LOCKS:
        return None, False
    held = os.open(folder, os.O_RDONLY)
    return held, try_lock(held) is True


def _parse_job(row: tuple[Any, ...]) -> StudioJob:
    name, session, kind, state, asked, told, created = row
    return StudioJob(name, session, kind, state, json.loads(asked), json.loads(told), created)
