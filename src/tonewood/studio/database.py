"""Sessions on disk: a database of what was decided, and a folder each for what was made.

SQLite in WAL mode: a server that is killed comes back with all that was answered.

What the store holds: sessions, their recordings and edits, and jobs.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.enhancement.editing import Edit
from tonewood.errors import OutputError, TonewoodError, printable
from tonewood.settings import Settings
from tonewood.utils.atomic_write import (
    HAS_FILE_LOCKS,
    lock_shared,
    remove_stale_temporaries,
    try_lock,
)

SAMPLES_FILE = "input.f32"
"""Name of a session's samples: float32, little-endian, channel by channel within each moment."""


class NotFoundError(TonewoodError):
    """There is no such session, job or file."""


class RecordingInfo(Settings):
    """What is known of a session's recording.

    Parameters
    ----------
    name : str
        As its owner called it; never a path here.
    upload : str
        Name of the file as it came, in the session's folder.
    encoding : tuple of str
        libsndfile's container, subtype and byte order.
    sha256 : str
        Of the file as it came.
    """

    name: str
    upload: str
    encoding: tuple[str, str, str]
    sha256: str
    rate: int
    channels: int
    samples: int
    clipped: bool

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.samples / self.rate


@dataclass(frozen=True)
class EditState:
    """An edit in a session's history.

    Parameters
    ----------
    number : int
        Place in the history, from 0.
    mask_number : int or None
        Which found mask it changes; None before the first.
    """

    number: int
    mask_number: int | None
    edit: Edit
    can_undo: bool
    can_redo: bool


@dataclass(frozen=True)
class StudioSession:
    """A recording at work."""

    id: str
    title: str
    created: float
    changed: float
    recording: RecordingInfo
    model: str
    folder: Path

    def open_samples(self) -> NDArray[np.float32]:
        """Samples (channels, samples) as float32, on disk until they are looked at."""
        return memory_map_samples(self.folder / SAMPLES_FILE, self.recording.channels)

    @property
    def upload_path(self) -> Path:
        """The file as it came."""
        return self.folder / self.recording.upload


def memory_map_samples(path: Path, channels: int) -> NDArray[np.float32]:
    """Samples (channels, samples) of a session's file, on disk until they are looked at."""
    flat = np.memmap(path, "<f4", "r")
    return flat.reshape(-1, channels).T


@dataclass
class StudioJob:
    """Work that takes a while: what was asked, and what is told of it."""

    id: str
    session: str | None
    kind: str
    state: str
    request: dict[str, Any]
    progress: dict[str, Any]
    created: float

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will come."""
        return self.state not in ("queued", "running")

    def to_json(self) -> dict[str, Any]:
        """As the page sees it."""
        told = {key: value for key, value in self.progress.items() if key not in ("row", "rows")}
        if "rows" in self.progress:
            told["rows"] = [_without_paths(row) for row in self.progress["rows"]]
        if "row" in self.progress:
            at, row = self.progress["row"]
            told["row"] = [at, _without_paths(row)]
        return {
            "id": self.id,
            "session": self.session,
            "kind": self.kind,
            "state": self.state,
            "told": told,
            "created": self.created,
        }


def _without_paths(row: dict[str, Any]) -> dict[str, Any]:
    """A recording of a batch without where it lies, which is no page's business."""
    return {key: value for key, value in row.items() if key not in ("input", "output")}


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
        return EditState(wanted, row[0], Edit.model_validate_json(row[1]), wanted > least, wanted < most)

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
                    f"what was decided cannot be kept ({error}): free some space, or look at the disk"
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
