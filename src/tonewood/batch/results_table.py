"""One Parquet table of a run: a row a recording, kept while it runs, whole when it is done.

Rows are appended to a stream of record batches beside the table's name, which can be read however
abruptly it ends; when the run is through they become the table.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Self

from tonewood.audio_io import remote
from tonewood.audio_io.remote import Location
from tonewood.errors import MissingExtraError, OutputError, printable
from tonewood.utils.atomic_write import (
    DISK_FULL_ERRNOS,
    HAS_FILE_LOCKS,
    atomic_path,
    disk_full_error,
    try_lock,
)

PARTIAL_SUFFIX = ".partial"
_BATCH_ROWS, _GROUP_ROWS = 64, 4_096  # rows
_FLUSH_SECONDS = 2.0  # after which what came is kept, however little it is
_RUN_KEY = b"tonewood"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"  # of a stream, by Arrow's columnar format


@dataclass(frozen=True)
class ResultRow:
    """What a run knows of one recording.

    Parameters
    ----------
    path, output : str
        Where it lies, and what was made of it.
    sha256 : str or None
        Of its bytes; None if it could not be read.
    seconds : float or None
        Of sound.
    scorer, judge, scorer_after, judge_after : float or None
        Scores before and after: 0 sounds like the reference.
    verdict : str or None
        Of the certificate.
    certificate, details : str or None
        JSON; details are what else the command tells.
    error : str or None
        Why it could not be done.
    took : float
        Seconds of work.
    tries : int
    """

    path: str
    output: str | None = None
    sha256: str | None = None
    seconds: float | None = None
    scorer: float | None = None
    judge: float | None = None
    scorer_after: float | None = None
    judge_after: float | None = None
    verdict: str | None = None
    certificate: str | None = None
    details: str | None = None
    error: str | None = None
    took: float = 0.0
    tries: int = 1


def check_parquet_available() -> None:
    """Raise MissingExtraError if tables cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise MissingExtraError("--parquet needs pyarrow: pip install 'tonewood[cluster]'") from None


class ResultsTable:
    """Rows of a run, as they come; the table takes its name when `publish` is called.

    Parameters
    ----------
    location : Path or URL
    run : dict
        What decides every row: command, model, settings. A table of another run is not touched.

    Raises
    ------
    MissingExtraError
        pyarrow is not installed.
    OutputError
        Another run's table is there, or one that works right now.
    """

    def __init__(self, location: Location, run: dict[str, Any], *, overwrite: bool = False) -> None:
        check_parquet_available()
        self.location, self._overwrite = location, overwrite
        self._run = json.dumps(run, sort_keys=True)
        self.previous: dict[str, ResultRow] = {}
        self._waiting: list[ResultRow] = []
        self._flushed_at = time.monotonic()

    def __enter__(self) -> Self:
        import pyarrow as pa

        self._schema = _arrow_schema({_RUN_KEY: self._run})
        if isinstance(self.location, Path):
            if self.location.is_dir():
                raise OutputError(f"{printable(self.location)} is a folder, not a file: name a file in it")
            partial = self._partial
            with self._write_errors():
                partial.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._open_partial(partial)
        else:
            import tempfile

            self._file = tempfile.TemporaryFile()
        try:
            missing = self._recover()
            # What earlier runs kept is never rewritten, and so never lost: a new stream follows.
            self._file.truncate(self._end)
            if self._open:
                self._file.write(_STREAM_END)
            self._stream = pa.ipc.new_stream(self._file, self._schema)
        except BaseException:
            if isinstance(self.location, Path) and self._file.seek(0, os.SEEK_END) == 0:
                self._partial.unlink(missing_ok=True)
            self._file.close()
            raise
        for row in missing:
            self.add(row)
        self.flush()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, OutputError):
            self.flush()
        self._file.close()

    def add(self, row: ResultRow) -> None:
        """Take a row; a later one of the same path replaces it."""
        self._waiting.append(row)
        if len(self._waiting) >= _BATCH_ROWS or time.monotonic() - self._flushed_at > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        import pyarrow as pa

        if self._waiting:
            rows = [asdict(row) for row in self._waiting]
            with self._write_errors():
                self._stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=self._schema))
                self._file.flush()
        self._waiting, self._flushed_at = [], time.monotonic()

    def publish(self) -> None:
        """Give the table its name, whole."""
        self.flush()
        with self._write_errors():
            self._stream.close()
            self._file.seek(0)
            if isinstance(self.location, Path):
                with atomic_path(self.location, overwrite=True) as temporary:
                    self._write_parquet(temporary)
                self._partial.unlink(missing_ok=True)
                return
            import tempfile

            with tempfile.TemporaryDirectory(prefix="tonewood-") as folder:
                local = Path(folder) / "table.parquet"
                self._write_parquet(local)
                remote.upload_file(local, self.location, overwrite=True)

    @property
    def _partial(self) -> Path:
        assert isinstance(self.location, Path)
        return self.location.with_name(self.location.name + PARTIAL_SUFFIX)

    def _open_partial(self, partial: Path) -> BinaryIO:
        """Open the partial table, and keep other runs off it."""
        while True:
            file = open(partial, "a+b")  # noqa: PTH123, SIM115 - closed on leaving
            if try_lock(file.fileno()) is False:
                file.close()
                raise OutputError(
                    f"another run writes {printable(partial)} right now: wait or name another --parquet"
                )
            if not HAS_FILE_LOCKS or os.fstat(file.fileno()).st_nlink:
                return file
            file.close()  # the other run ended between the two, and removed it

    def _recover(self) -> list[ResultRow]:
        """Read what earlier runs found: the finished table, then what came after it.

        Rows that only the finished table has are returned.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._end, self._open = 0, False
        if self._overwrite:
            return []
        with contextlib.ExitStack() as stack:
            there = (
                self.location.exists()
                if isinstance(self.location, Path)
                else remote.url_exists(self.location)
            )
            if there:
                try:
                    file = pq.ParquetFile(stack.enter_context(remote.local_copy(self.location)))
                except (pa.ArrowInvalid, OSError):
                    raise self._other_run_error() from None
                self._check_schema(file.schema_arrow)
                for batch in file.iter_batches():
                    self._merge(batch)
        finished = list(self.previous.values())
        kept: set[str] = set()
        with contextlib.suppress(pa.ArrowInvalid, OSError):  # it ends where a run was killed
            for batch in self._read_batches():
                kept.update(self._merge(batch))
        return [row for row in finished if row.path not in kept]

    def _check_schema(self, schema: Any) -> None:  # noqa: ANN401 - a pyarrow schema
        if (schema.metadata or {}).get(_RUN_KEY, b"").decode() != self._run:
            raise self._other_run_error()

    def _other_run_error(self) -> OutputError:
        return OutputError(
            f"{printable(self.location)} exists and is of another run: name another --parquet or pass "
            "--overwrite"
        )

    def _merge(self, batch: Any) -> list[str]:  # noqa: ANN401 - a pyarrow batch
        rows = batch.to_pylist()
        self.previous.update((row["path"], ResultRow(**row)) for row in rows)
        return [row["path"] for row in rows]

    def _write_parquet(self, path: Path) -> None:
        """Write the table, by groups of rows; of several rows of one path the last."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        last: dict[str, int] = {}
        for number, batch in enumerate(self._read_batches()):
            for at, name in enumerate(batch.column("path").to_pylist()):
                last[name] = number << 32 | at
        with pq.ParquetWriter(path, self._schema) as writer:
            waiting: list[Any] = []
            for number, batch in enumerate(self._read_batches()):
                names = batch.column("path").to_pylist()
                wanted = [last[name] == number << 32 | at for at, name in enumerate(names)]
                waiting.append(batch.filter(pa.array(wanted)))
                if sum(map(len, waiting)) >= _GROUP_ROWS:
                    writer.write_table(pa.Table.from_batches(waiting, self._schema))
                    waiting = []
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting, self._schema))

    def _read_batches(self) -> Iterator[Any]:
        """Batches of this run and of those before it, a stream each; the last may be cut off.

        Leaves `_end`, where what is whole ends, and `_open`, whether the last stream's end is
        still to be written.
        """
        import pyarrow as pa

        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        self._end, self._open = 0, False
        while not self._open and self._end < size:
            reader = pa.ipc.open_stream(self._file)
            self._check_schema(reader.schema)
            self._end, self._open = self._file.tell(), True
            for batch in reader:
                self._end = self._file.tell()
                yield batch
            if self._file.tell() == self._end + len(_STREAM_END):
                self._end, self._open = self._file.tell(), False

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise disk_full_error(self.location) from error
            why = (error.strerror or str(error)).lower()
            raise OutputError(
                f"{printable(self.location)} cannot be written ({why}): name another --parquet"
            ) from error


def read_results(path: str | os.PathLike[str]) -> list[ResultRow]:
    """All rows of a table."""
    import pyarrow.parquet as pq

    return [ResultRow(**row) for row in pq.read_table(path).to_pylist()]


def _arrow_schema(metadata: dict[bytes, str]) -> Any:  # noqa: ANN401 - a pyarrow schema
    import pyarrow as pa

    kinds = {"seconds": pa.float64(), "took": pa.float64(), "tries": pa.int32()}
    kinds |= dict.fromkeys(("scorer", "judge", "scorer_after", "judge_after"), pa.float64())
    columns = [(it.name, kinds.get(it.name, pa.string())) for it in fields(ResultRow)]
    return pa.schema(columns, metadata=metadata)
