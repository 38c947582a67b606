"""Studio database: sessions, edit histories and jobs in SQLite; audio files in a folder per session."""

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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.enhancement.editing import Edit
from tonewood.errors import OutputError, TonewoodError, failure_reason, printable
from tonewood.setting_types import Settings
from tonewood.utils.files import HAS_FILE_LOCKS, lock_shared, make_private, remove_stale_temporaries, try_lock

SAMPLES_FILE = "input.f32"
"""Decoded samples of a session: float32, little-endian, channels interleaved."""
DOWNLOAD_PREFIX = "taken-"
"""Start of the names of files that are deleted when they are sent; a killed server leaves them."""
PART_PREFIX = "part-"
"""Start of the names of masks whose search is running; a killed server leaves them too."""
MAX_UNDO_STEPS = 500
"""Edits stored for each session."""
# Without the folder lock, another server may use this folder. Its uploads take less than a day.
_STALE_SECONDS = 86_400.0
# The column names `found`, `asked` and `told` are older than the Python names; files in use have them.
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
_SELECT_SESSIONS = "SELECT id, title, created, changed, sound, model FROM sessions "


class NotFoundError(TonewoodError):
    """A session, job or file that does not exist."""


class MaskGoneError(NotFoundError):
    """A mask that a search has not found, or that was cancelled with it."""


class ConflictError(TonewoodError):
    """Another page changed a session in the meantime."""


class RecordingInfo(Settings):
    """Properties of a session's recording."""

    name: str  # name given by the user; never used as a path
    upload: str  # name of the uploaded file in the session's folder
    encoding: tuple[str, str, str]  # libsndfile's container, subtype and byte order
    sha256: str  # of the uploaded file
    rate: int  # in Hz
    channels: int
    samples: int  # of each channel
    clipped: bool

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.samples / self.rate


@dataclass(frozen=True)
class EditState:
    """An edit in a session's history."""

    number: int  # place in the history, from 0
    mask_number: int | None  # mask that the edit changes; None before the first search
    edit: Edit
    can_undo: bool
    can_redo: bool
    base_number: int | None = None  # mask that holds after the part of a mask that a running search has found


class HistoryRow(NamedTuple):
    """An edit of a session, its number and the mask that it changes."""

    number: int
    mask_number: int | None
    edit: Edit


@dataclass(frozen=True)
class StudioSession:
    """A recording that is edited in the studio."""

    id: str
    title: str
    # Seconds since 1970
    created: float
    changed: float
    recording: RecordingInfo
    model: str  # name of the model that the next search uses
    folder: Path  # folder of the session's files

    def open_samples(self) -> NDArray[np.float32]:
        """Return the decoded samples (channels, samples) as a memory map."""
        return memory_map_samples(self.folder / SAMPLES_FILE, self.recording.channels)

    @property
    def upload_path(self) -> Path:
        """Path of the uploaded file."""
        return self.folder / self.recording.upload


def memory_map_samples(path: Path, channels: int) -> NDArray[np.float32]:
    """Return the samples (channels, samples) of a session's file without reading them into memory."""
    return np.memmap(path, "<f4", "r").reshape(-1, channels).T


@dataclass
class StudioJob:
    """Background work: its request and its progress so far."""

    id: str
    session: str | None  # id of its session; None for work on folders
    kind: str  # key of `job_queue.QUEUE_BY_KIND`
    state: str  # queued, running, done, failed, cancelled or interrupted
    request: dict[str, Any]
    progress: dict[str, Any]
    created: float  # seconds since 1970
    ahead: int = 0  # jobs before it in its queue
    started: float | None = None  # when it began to run, in seconds since 1970
    expected_s: float | None = None  # how long it takes, estimated from earlier jobs

    @property
    def recording_seconds(self) -> float | None:
        """Duration of the recording; None for work on folders."""
        sound = self.request.get("sound")
        return None if sound is None else float(sound["samples"] / sound["rate"])

    @property
    def is_finished(self) -> bool:
        """True once the state is final."""
        return self.state not in ("queued", "running")

    def to_json(self) -> dict[str, Any]:
        """Return the job as the page receives it, without the paths of a batch's files."""
        progress = dict(self.progress)
        if "rows" in progress:
            progress["rows"] = [_without_paths(row) for row in progress["rows"]]
        if "row" in progress:
            number, row = progress["row"]
            progress["row"] = [number, _without_paths(row)]
        return {
            "id": self.id,
            "session": self.session,
            "kind": self.kind,
            "state": self.state,
            "told": progress,
            "created": self.created,
            "ahead": self.ahead,
            "running_s": None if self.started is None else round(time.time() - self.started, 3),
            "expected_s": self.expected_s,
        }


def _without_paths(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("input", "output")}


class SessionDatabase:
    """SQLite database and session folders below one folder.

    SQLite runs in WAL mode: after a crash every acknowledged change is still there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            for name in ("sessions", "models"):
                (folder / name).mkdir(parents=True, exist_ok=True)
                make_private(folder / name)  # recordings are nobody else's on a shared machine
            self.connection = sqlite3.connect(folder / "studio.db", check_same_thread=False)
            make_private(folder / "studio.db")
            # In WAL mode, NORMAL survives a killed process; a power failure may undo the last commits.
            # Another server may use the same file, hence the timeout.
            self.connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;"
                "PRAGMA busy_timeout=5000;" + _STUDIO_SCHEMA
            )
        except (OSError, sqlite3.Error) as error:
            reason = failure_reason(error)
            raise OutputError(
                f"{printable(folder)} cannot store sessions ({reason}): choose another --folder"
            ) from None
        self.lock = threading.RLock()
        # An exclusive lock shows that no other server uses the folder, so all leftovers may be removed.
        # A shared lock then remains while this server runs.
        self._lock_descriptor: int | None = None
        exclusive = False
        if HAS_FILE_LOCKS:
            self._lock_descriptor = os.open(folder, os.O_RDONLY)
            exclusive = try_lock(self._lock_descriptor) is True
        self._recover_after_crash(exclusive)
        if self._lock_descriptor is not None:
            lock_shared(self._lock_descriptor)

    @property
    def models_folder(self) -> Path:
        """Folder of trained and imported models."""
        return self.folder / "models"

    def close(self) -> None:
        """Close the database and release the folder."""
        with self.lock:
            self.connection.close()
            if self._lock_descriptor is not None:
                os.close(self._lock_descriptor)
                self._lock_descriptor = None

    # --- sessions

    def create_session_folder(self) -> tuple[str, Path]:
        """Return a new session's id and its empty folder."""
        name = secrets.token_hex(8)  # the page's router expects 16 hexadecimal digits
        path = self.folder / "sessions" / name
        path.mkdir()
        return name, path

    def discard_session(self, name: str) -> None:
        """Remove a session's folder, and its entry if it has one."""
        try:
            with self._transaction() as execute:
                execute("DELETE FROM sessions WHERE id=?", (name,))
        finally:  # a full disk may refuse the deletion of the entry; removing files frees space
            shutil.rmtree(self.folder / "sessions" / name, ignore_errors=True)

    def add_session(self, name: str, title: str, recording: RecordingInfo, model: str) -> StudioSession:
        """Add a session whose folder is complete; its history starts with an empty edit."""
        now = time.time()
        with self._transaction() as execute:
            execute("INSERT INTO sessions VALUES (?,?,?,?,?,?,0)",
                    (name, title, now, now, recording.model_dump_json(), model))  # fmt: skip
            execute("INSERT INTO edits VALUES (?,0,NULL,?)", (name, Edit().model_dump_json()))
        return self.get_session(name)

    def list_sessions(self) -> list[StudioSession]:
        """Return all sessions, the last changed first."""
        with self._transaction() as execute:
            rows = execute(_SELECT_SESSIONS + "ORDER BY changed DESC", ()).fetchall()
        return [self._parse_session(row) for row in rows]

    def get_session(self, name: str) -> StudioSession:
        """Return a session; raise NotFoundError if it does not exist."""
        with self._transaction() as execute:
            row = execute(_SELECT_SESSIONS + "WHERE id=?", (name,)).fetchone()
        if row is None:
            raise NotFoundError("this session does not exist: open the recording again")
        return self._parse_session(row)

    def set_session_model(self, name: str, model: str) -> None:
        """Set the model that the session's next search uses."""
        with self._transaction() as execute:
            execute("UPDATE sessions SET model=?, changed=? WHERE id=?", (model, time.time(), name))

    def set_session_title(self, name: str, title: str) -> None:
        """Rename a session."""
        with self._transaction() as execute:
            execute("UPDATE sessions SET title=?, changed=? WHERE id=?", (title, time.time(), name))

    def delete_session(self, name: str) -> None:
        """Delete a session and its files; raise NotFoundError if it does not exist."""
        self.get_session(name)
        # If the entry cannot be deleted, the session keeps its files and can be deleted later.
        with self._transaction() as execute:
            execute("DELETE FROM sessions WHERE id=?", (name,))
        self.discard_session(name)

    # --- edits

    def get_state(self, name: str, number: int | None = None) -> EditState:
        """Return the current edit of a session, or one entry of its history."""
        with self._transaction() as execute:
            current = execute("SELECT at FROM sessions WHERE id=?", (name,)).fetchone()
            if current is None:
                raise NotFoundError("this session does not exist: open the recording again")
            if number is None:
                number = int(current[0])
            row = execute("SELECT found, body FROM edits WHERE session=? AND number=?",
                          (name, number)).fetchone()  # fmt: skip
            first, last = execute("SELECT min(number), max(number) FROM edits WHERE session=?",
                                  (name,)).fetchone()  # fmt: skip
        if row is None:
            raise NotFoundError("this edit does not exist any more: reload the page")
        mask_number, body = row
        return EditState(number, mask_number, Edit.model_validate_json(body), number > first, number < last)

    def append_edit(self, name: str, edit: Edit, mask_number: int | None) -> EditState:
        """Add an edit after the current one; edits that were undone are deleted."""
        with self._transaction() as execute:
            current = self.get_state(name)
            if (edit, mask_number) == (current.edit, current.mask_number):
                return current
            number = current.number + 1
            # Both ends are trimmed, so the numbers of a history never have a gap.
            execute("DELETE FROM edits WHERE session=? AND (number>=? OR number<?)",
                    (name, number, number - MAX_UNDO_STEPS))  # fmt: skip
            execute("INSERT INTO edits VALUES (?,?,?,?)",
                    (name, number, mask_number, edit.model_dump_json()))  # fmt: skip
            execute("UPDATE sessions SET at=?, changed=? WHERE id=?", (number, time.time(), name))
        return self.get_state(name)

    def step_history(self, name: str, by: int) -> EditState:
        """Undo (-1) or redo (+1), if the history has such a step."""
        current = self.get_state(name)
        if (by < 0 and current.can_undo) or (by > 0 and current.can_redo):
            with self._transaction() as execute:
                execute("UPDATE sessions SET at=?, changed=? WHERE id=?",
                        (current.number + by, time.time(), name))  # fmt: skip
        return self.get_state(name)

    def get_history(self, name: str) -> list[HistoryRow]:
        """Return all edits of a session."""
        with self._transaction() as execute:
            rows = execute("SELECT number, found, body FROM edits WHERE session=? ORDER BY number",
                           (name,)).fetchall()  # fmt: skip
        return [HistoryRow(number, mask, Edit.model_validate_json(body)) for number, mask, body in rows]

    def replace_history(self, name: str, edits: list[HistoryRow], current: int) -> None:
        """Replace a session's history; `current` is the number of its current edit."""
        with self._transaction() as execute:
            execute("DELETE FROM edits WHERE session=?", (name,))
            for number, mask_number, edit in edits:
                execute("INSERT INTO edits VALUES (?,?,?,?)",
                        (name, number, mask_number, edit.model_dump_json()))  # fmt: skip
            execute("UPDATE sessions SET at=? WHERE id=?", (current, name))

    # --- jobs

    def save_job(self, job: StudioJob) -> None:
        """Store a job, unless its session was deleted."""
        with self._transaction() as execute:
            # The foreign key would raise IntegrityError for a job that outlives its session.
            if (
                job.session is not None
                and not execute("SELECT 1 FROM sessions WHERE id=?", (job.session,)).fetchone()
            ):
                return
            execute("INSERT OR REPLACE INTO jobs VALUES (?,?,?,?,?,?,?)",
                    (job.id, job.session, job.kind, job.state, json.dumps(job.request),
                     json.dumps(job.progress), job.created))  # fmt: skip

    def list_folder_jobs(self) -> list[StudioJob]:
        """Return the newest jobs on folders, which belong to no session."""
        with self._transaction() as execute:
            rows = execute(
                "SELECT * FROM jobs WHERE session IS NULL ORDER BY created DESC LIMIT 50", ()
            ).fetchall()
        return [_parse_job(row) for row in rows]

    def last_done_job(self, kind: str) -> StudioJob | None:
        """Return the newest job of a kind that is done."""
        with self._transaction() as execute:
            row = execute(
                "SELECT * FROM jobs WHERE kind=? AND state='done' ORDER BY created DESC LIMIT 1", (kind,)
            ).fetchone()
        return None if row is None else _parse_job(row)

    def get_job(self, name: str) -> StudioJob:
        """Return a job; raise NotFoundError if it does not exist."""
        with self._transaction() as execute:
            row = execute("SELECT * FROM jobs WHERE id=?", (name,)).fetchone()
        if row is None:
            raise NotFoundError("this job does not exist: reload the page")
        return _parse_job(row)

    # --- internals

    def _parse_session(self, row: tuple[Any, ...]) -> StudioSession:
        name, title, created, changed, recording, model = row
        info = RecordingInfo.model_validate_json(recording)
        return StudioSession(name, title, created, changed, info, model, self.folder / "sessions" / name)

    def _recover_after_crash(self, exclusive: bool) -> None:
        """Mark unfinished jobs as interrupted and remove files that a killed server left.

        If another server may use this folder, recent files may belong to its uploads and stay.
        """
        with self._transaction() as execute:
            execute("UPDATE jobs SET state='interrupted' WHERE state IN ('queued','running')", ())
            known = {row[0] for row in execute("SELECT id FROM sessions", ()).fetchall()}
        stale_before = time.time() - _STALE_SECONDS
        for path in [*(self.folder / "sessions").iterdir()]:  # a list, because entries are removed
            if path.name not in known and (exclusive or path.stat().st_mtime < stale_before):
                shutil.rmtree(path, ignore_errors=True)
        for prefix in (DOWNLOAD_PREFIX, PART_PREFIX):
            for path in self.folder.glob(f"sessions/*/{prefix}*"):
                if exclusive or path.stat().st_mtime < stale_before:
                    path.unlink(missing_ok=True)
        remove_stale_temporaries([self.models_folder, *(self.folder / "sessions").iterdir()])

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Yield `execute`; commit the whole block or nothing of it. Transactions may be nested."""
        # One connection serves all threads, so transactions of different threads must not mix.
        with self.lock:
            outermost = not self.connection.in_transaction
            try:
                yield self.connection.execute
                if outermost:
                    self.connection.commit()
            except BaseException as error:
                if outermost:
                    with suppress(sqlite3.Error):  # SQLite may have rolled back already
                        self.connection.rollback()
                if isinstance(error, sqlite3.OperationalError):  # such as a full disk
                    raise OutputError(
                        f"the change cannot be stored ({error}): free some disk space or check the disk"
                    ) from error
                raise


def _parse_job(row: tuple[Any, ...]) -> StudioJob:
    name, session, kind, state, request, progress, created = row
    return StudioJob(name, session, kind, state, json.loads(request), json.loads(progress), created)
