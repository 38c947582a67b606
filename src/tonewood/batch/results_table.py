"""Parquet table of a run, one row per recording.

During the run every row is appended to a journal of JSON lines beside the table. A journal stays readable
however abruptly it ends, so a killed run continues where it stopped. Parquet itself can be read only once
it is complete.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Self

from tonewood.audio_io import remote
from tonewood.audio_io.remote import Location
from tonewood.errors import MissingExtraError, OutputError, failure_reason, printable
from tonewood.utils.files import (
    DISK_FULL_ERRNOS,
    HAS_FILE_LOCKS,
    append_to_name,
    atomic_path,
    disk_full_error,
    try_lock,
)

PARTIAL_SUFFIX = ".partial"
_GROUP_ROWS = 4_096  # rows of a group: readers of a large table load one group at a time
_RUN_KEY = b"tonewood"  # of the metadata that identifies the run


@dataclass(frozen=True)
class ResultRow:
    """Result of one recording."""

    # Input and output, each a path or a URL
    path: str
    output: str | None = None
    sha256: str | None = None  # of the input's bytes; None if it could not be read
    seconds: float | None = None  # duration of the audio
    # Scores before and after; 0 means that the recording sounds like the reference
    scorer: float | None = None
    judge: float | None = None
    scorer_after: float | None = None
    judge_after: float | None = None
    verdict: str | None = None  # verdict of the certificate
    # JSON; `details` holds all other results of the command
    certificate: str | None = None
    details: str | None = None
    error: str | None = None  # reason if the recording failed
    took: float = 0.0  # seconds of work
    tries: int = 1


def check_parquet_available(option: str = "--parquet") -> None:
    """Raise MissingExtraError, which names the option, if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise MissingExtraError(f"{option} needs pyarrow: pip install '.[cluster]'") from None


class ResultsTable:
    """Rows of a run, written to the journal at once; `publish` writes the Parquet table.

    A table at a URL has no journal, so that a run continues only from its published rows.

    Parameters
    ----------
    run : dict
        Everything that decides a row: command, model and settings. A table of another run is refused
        unless `overwrite`.

    Attributes
    ----------
    rows : dict of str to ResultRow
        Rows by input, including those of earlier runs.

    Raises
    ------
    MissingExtraError
        pyarrow is not installed.
    OutputError
        The table belongs to another run, or another process is writing it.
    """

    def __init__(self, location: Location, run: dict[str, Any], *, overwrite: bool = False) -> None:
        check_parquet_available()
        self.location, self._overwrite = location, overwrite
        self._run = json.dumps(run, sort_keys=True)
        self.rows: dict[str, ResultRow] = {}
        self._journal: BinaryIO | None = None

    def __enter__(self) -> Self:
        if isinstance(self.location, Path):
            if self.location.is_dir():
                raise OutputError(f"{printable(self.location)} is a folder, not a file: name a file in it")
            with self._write_errors():
                self._journal_path.parent.mkdir(parents=True, exist_ok=True)
                self._journal = self._open_journal()
        # The journal comes after the published table, because its rows are newer.
        try:
            if not self._overwrite:
                self._read_published()
            if self._journal is not None:
                with self._write_errors():
                    self._resume_journal(self._journal)
        except BaseException:
            # Remove a journal that this call created, but keep one with the rows of an earlier run.
            if self._journal is not None and self._journal.seek(0, os.SEEK_END) == 0:
                self._journal_path.unlink(missing_ok=True)
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.close()

    def add(self, row: ResultRow) -> None:
        """Add a row; it replaces an earlier one of the same input."""
        self._keep_row(row)
        if self._journal is not None:
            with self._write_errors():
                self._journal.write(json.dumps(asdict(row)).encode() + b"\n")
                self._journal.flush()  # a killed process loses at most its current row

    def publish(self) -> None:
        """Write the Parquet table, and remove the journal."""
        with self._write_errors():
            if isinstance(self.location, Path):
                with atomic_path(self.location, overwrite=True) as temporary:
                    self._write_parquet(temporary)
                # Only now: the journal is needed until the table has its name.
                self._journal_path.unlink(missing_ok=True)
                return
            with tempfile.TemporaryDirectory(prefix="tonewood-") as folder:
                local = Path(folder) / "table.parquet"
                self._write_parquet(local)
                remote.upload_file(local, self.location, overwrite=True)

    @property
    def _journal_path(self) -> Path:
        assert isinstance(self.location, Path)
        return append_to_name(self.location, PARTIAL_SUFFIX)

    def _open_journal(self) -> BinaryIO:
        """Open the journal under a lock that excludes other runs."""
        while True:
            file = open(self._journal_path, "a+b")  # noqa: PTH123, SIM115 - closed by __exit__
            if try_lock(file.fileno()) is False:
                file.close()
                raise OutputError(
                    f"another run is writing {printable(self._journal_path)}: wait for its end, or name "
                    "another --parquet"
                )
            # Between opening and locking, another run may have published and removed the file.
            if not HAS_FILE_LOCKS or os.fstat(file.fileno()).st_nlink:
                return file
            file.close()

    def _resume_journal(self, journal: BinaryIO) -> None:
        """Read the rows of a stopped run, and cut off a last line that is incomplete."""
        # The first line identifies the run, as the metadata of the table do.
        header = json.dumps({"run": self._run}).encode() + b"\n"
        size = 0
        if not self._overwrite:
            journal.seek(0)
            for number, line in enumerate(journal):
                if not line.endswith(b"\n"):
                    break
                if number == 0 and line != header:
                    raise self._other_run_error()
                if number > 0:
                    try:
                        self._keep_row(ResultRow(**json.loads(line)))
                    except (ValueError, TypeError):  # damaged by a power cut
                        break
                size += len(line)
        journal.truncate(size)
        if size == 0:
            journal.write(header)
            journal.flush()

    def _read_published(self) -> None:
        """Read the rows of an earlier table at the location."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        location = self.location
        if not (location.exists() if isinstance(location, Path) else remote.url_exists(location)):
            return
        with remote.local_copy(location) as path:
            try:
                table = pq.read_table(path)
            except (pa.ArrowInvalid, OSError):
                raise self._other_run_error() from None
        if (table.schema.metadata or {}).get(_RUN_KEY, b"").decode() != self._run:
            raise self._other_run_error()
        for row in table.to_pylist():
            self._keep_row(ResultRow(**row))

    def _keep_row(self, row: ResultRow) -> None:
        self.rows.pop(row.path, None)  # the table is in the order of completion
        self.rows[row.path] = row

    def _write_parquet(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        numbers = ("seconds", "scorer", "judge", "scorer_after", "judge_after", "took")
        kinds = {**dict.fromkeys(numbers, pa.float64()), "tries": pa.int32()}
        columns = [(field.name, kinds.get(field.name, pa.string())) for field in fields(ResultRow)]
        # An explicit schema, because the type of a column without values cannot be inferred.
        schema = pa.schema(columns, metadata={_RUN_KEY: self._run})
        table = pa.Table.from_pylist([asdict(row) for row in self.rows.values()], schema=schema)
        pq.write_table(table, path, row_group_size=_GROUP_ROWS)

    def _other_run_error(self) -> OutputError:
        return OutputError(
            f"{printable(self.location)} exists and belongs to another run: name another --parquet or pass "
            "--overwrite"
        )

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise disk_full_error(self.location) from error
            reason = failure_reason(error)
            raise OutputError(
                f"{printable(self.location)} cannot be written ({reason}): name another --parquet"
            ) from error


def read_results(path: str | os.PathLike[str]) -> list[ResultRow]:
    """Read all rows of a published table."""
    import pyarrow.parquet as pq

    return [ResultRow(**row) for row in pq.read_table(path).to_pylist()]
