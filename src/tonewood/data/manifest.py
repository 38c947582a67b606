"""Manifests: CSV or JSONL files that name training recordings, instead of folders.

A row has a `path` (relative to the manifest's folder), a `label` (reference or source) and optionally
`session`, and `start` and `end` in seconds. Other columns are ignored.
"""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tonewood.audio_io.reader import MIN_RECORDING_SECONDS, AudioReader
from tonewood.audio_io.recording import file_sha256, find_audio_files
from tonewood.data.tables import decode_text, parse_seconds, read_table
from tonewood.errors import AudioError, FolderError, InputFileError, OutputError, failure_reason, printable
from tonewood.utils.arrays import Samples
from tonewood.utils.files import (
    check_not_existing,
    check_parent,
    listed_path,
    read_regular,
    real_path,
    write_text,
)


class ContentKey(NamedTuple):
    """Identity of a recording's content: SHA-256 of the file, and the excerpt in seconds."""

    sha256: str
    start: float | None = None
    end: float | None = None


SIDE_LABELS = ("reference", "source")
_COLUMNS = ("path", "label", "session", "start", "end")


class ManifestEntry(NamedTuple):
    """Recording, or an excerpt of one."""

    path: Path
    session: str | None  # recordings of one session are on the same side of a split
    # Seconds; None for the start or end of the recording
    start: float | None
    end: float | None
    line: int  # line of the manifest, for messages


class ManifestRow(NamedTuple):
    """Row of a new manifest."""

    path: Path
    label: str
    session: str | None


class ManifestSide(NamedTuple):
    """Recordings of one side of a manifest."""

    manifest: Path
    label: str
    entries: tuple[ManifestEntry, ...]

    @property
    def name(self) -> str:
        """Name for display."""
        return f"{self.manifest.stem}:{self.label}"


def read_manifest(path: Path) -> tuple[ManifestSide, ManifestSide]:
    """Read a manifest; return reference and source. FolderError names the line of an invalid row."""
    sides: dict[str, list[ManifestEntry]] = {label: [] for label in SIDE_LABELS}
    for line, row, separator in _read_manifest_rows(path):
        where = f"{printable(path)}, line {line}"
        label = str(row.get("label") or "").strip().lower()
        if label not in SIDE_LABELS:
            raise FolderError(f"{where}: label is {label!r}; write reference or source")
        name = str(row.get("path") or "").strip()
        if not name:
            raise FolderError(f"{where}: no path is given; write one relative to the manifest's folder")
        start, end = (
            _parse_manifest_seconds(row.get(key), key, where, separator) for key in ("start", "end")
        )
        if end is not None and end <= (start or 0.0):
            raise FolderError(
                f"{where}: an excerpt from {start or 0:g} to {end:g} s is empty; end must be after start"
            )
        session = str(row.get("session") or "").strip() or None
        # Relative to the manifest, so that manifest and recordings can move together.
        sides[label].append(ManifestEntry(listed_path(path.parent, name), session, start, end, line))
    for label, entries in sides.items():
        if not entries:
            raise FolderError(f"{printable(path)} names no {label}; a model needs both sides: add some")
    reference, source = (ManifestSide(path, label, tuple(sides[label])) for label in SIDE_LABELS)
    return reference, source


def check_manifest_output(path: Path, overwrite: bool) -> None:
    """Raise OutputError if a manifest cannot be written to a path; checked before long work."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise OutputError(f"{printable(path)} is not a manifest: name a .csv or .jsonl, such as takes.csv")
    check_not_existing([path], overwrite)
    check_parent(path)


def write_manifest(path: Path, rows: Iterable[ManifestRow], *, overwrite: bool = False) -> None:
    """Write a manifest with paths relative to its folder; errors are those of `write_text`."""
    folder = real_path(path).parent
    text = io.StringIO()
    # csv ends lines with CR LF by default; one line end gives the same bytes on every system.
    table = csv.writer(text, lineterminator="\n")
    as_json = path.suffix.lower() == ".jsonl"
    if not as_json:
        table.writerow(["path", "label", "session"])
    for row in rows:
        relative = Path(os.path.relpath(real_path(row.path), folder)).as_posix()
        if as_json:
            fields = {"path": relative, "label": row.label, "session": row.session or ""}
            text.write(json.dumps(fields) + "\n")
        else:
            table.writerow([relative, row.label, row.session or ""])
    write_text(path, text.getvalue(), overwrite=overwrite)


def _read_manifest_rows(path: Path) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Yield line number, cells and separator of each row."""
    try:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            text = decode_text(read_regular(path))
        else:
            table = read_table(path, _COLUMNS)
    except OSError as error:
        reason = failure_reason(error)
        raise FolderError(f"{printable(path)} cannot be read ({reason}): name a CSV or JSONL") from None
    except UnicodeDecodeError:
        raise FolderError(f"{printable(path)} is not UTF-8: save the manifest as CSV UTF-8") from None
    except csv.Error as error:
        raise FolderError(f"{printable(path)}, line 1: {error}: correct the manifest") from None
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        for number, json_line in enumerate(text.splitlines(), start=1):
            if json_line.strip():
                row = _parse_json_object(json_line, f"{printable(path)}, line {number}")
                yield number, {str(key).strip().lower(): value for key, value in row.items()}, ","
        return
    missing = {"path", "label"} - set(table.columns)
    if missing:
        raise FolderError(
            f"{printable(path)} has no column {' and no column '.join(sorted(missing))}: start it with "
            "path,label or path,label,session,start,end, separated by commas, semicolons or tabs"
        )
    line = 1
    try:
        for line, cells in table.dictionaries():
            yield line, cells, table.separator
    except csv.Error as error:
        raise FolderError(f"{printable(path)}, after line {line}: {error}: correct the manifest") from None


def _parse_json_object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise FolderError(f"{where}: this is not a JSON object; write one per line")
    return row


def _parse_manifest_seconds(value: object, key: str, where: str, separator: str) -> float | None:
    if value is None or value == "":
        return None
    # JSON has numbers, and CSV has text: both are parsed alike.
    seconds = parse_seconds(str(value), separator)
    if math.isnan(seconds):
        raise FolderError(f"{where}: {key} is {str(value)!r}; write seconds or MIN:SEC")
    return seconds


def read_csv_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a table with their line numbers; every row must fill the `required` columns.

    InputFileError if the file cannot be read. FolderError if the file is not a table, lacks a column, or
    has an incomplete row.
    """
    try:
        table = read_table(path, required)
        missing = [name for name in required if name.lower() not in table.columns]
        if missing:
            raise FolderError(
                f"{printable(path)} has no column {missing[0]}; {', '.join(required)} are needed, separated "
                "by commas, semicolons or tabs: name another table"
            )
        for number, row in table.dictionaries(required):
            if not all(row.get(name) for name in required):
                raise FolderError(
                    f"{printable(path)}, line {number}: {' or '.join(required)} is missing: complete the row"
                )
            yield number, row
    except OSError as error:
        reason = failure_reason(error)
        raise InputFileError(f"{printable(path)} cannot be read ({reason}): name a CSV table") from None
    except (UnicodeDecodeError, csv.Error):
        raise FolderError(f"{printable(path)} is not a CSV table in UTF-8: save it as one") from None


# --- Recordings of a folder or manifest

FolderOrManifest = Path | ManifestSide
"""Recordings of one side."""

RecordingRef = Path | ManifestEntry
"""One recording of a side."""


class ExcerptReader:
    """Recording, or an excerpt of one, that is decoded each time it is read.

    Both the constructor and `blocks` raise AudioError if the recording cannot be used.
    """

    def __init__(self, item: RecordingRef) -> None:
        self._reader = AudioReader(recording_path(item))
        self.rate, self.channels = self._reader.rate, self._reader.channels
        self.format = self._reader.format
        self._entry = item if isinstance(item, ManifestEntry) else None
        self._checked = False

    def blocks(self) -> Iterator[Samples]:
        """Yield blocks (channels, samples)."""
        return self._reader.blocks() if self._entry is None else self._excerpt_blocks(self._entry)

    def _excerpt_blocks(self, entry: ManifestEntry) -> Iterator[Samples]:
        start = round((entry.start or 0.0) * self.rate)
        stop = None if entry.end is None else round(entry.end * self.rate)
        position = total = 0
        low, high = np.inf, -np.inf  # extremes over all channels
        for block in self._reader.blocks():
            # The first pass reads the whole file, because a cut-off file is detected only at its end.
            if self._checked and stop is not None and position >= stop:
                return
            part = block[:, max(0, start - position) : None if stop is None else max(0, stop - position)]
            position += block.shape[1]
            if part.shape[1]:
                total += part.shape[1]
                low, high = min(low, float(part.min())), max(high, float(part.max()))
                yield np.ascontiguousarray(part)
        if total < MIN_RECORDING_SECONDS * self.rate:
            raise AudioError(
                f"{printable(entry.path)} lasts {position / self.rate:.2f} s, of which line {entry.line} of "
                f"the manifest selects {total / self.rate:.2f} s; {MIN_RECORDING_SECONDS:g} s are needed: "
                "select more"
            )
        # `AudioReader` checks the whole file only, which may have a silent part.
        if low == high:
            raise AudioError(
                f"{printable(entry.path)} is silent in the excerpt of line {entry.line} of the manifest: "
                "select another"
            )
        self._checked = True


class BadRecording(NamedTuple):
    """Recording that cannot be used, and the reason."""

    path: Path
    error: AudioError


class BadRecordings:
    """Recordings that cannot be used, collected so that all are named in one go.

    With `skip`, they are left out instead of raising an error.
    """

    _MAX_NAMED = 20  # in one line

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self._found: dict[Path, BadRecording] = {}

    @property
    def found(self) -> list[BadRecording]:
        """Bad recordings, each once."""
        return list(self._found.values())

    def add(self, path: Path, error: AudioError) -> None:
        """Remember a bad recording."""
        self._found.setdefault(path, BadRecording(path, error))

    def check(self) -> None:
        """Raise an error that names all bad recordings, unless they are skipped."""
        if self.skip or not self._found:
            return
        errors = [bad.error for bad in self._found.values()]
        if len(errors) == 1:
            raise errors[0]
        named = "; ".join(map(str, errors[: self._MAX_NAMED]))
        others = f"; and {len(errors) - self._MAX_NAMED} more" if len(errors) > self._MAX_NAMED else ""
        raise FolderError(
            f"{len(errors)} recordings cannot be used; repair or remove them, or pass --skip-bad: "
            f"{named}{others}"
        )


def list_recordings(dataset: FolderOrManifest) -> list[RecordingRef]:
    """Return all recordings of a side in a fixed order; FolderError if there are none."""
    return list(dataset.entries if isinstance(dataset, ManifestSide) else find_audio_files(dataset))


def recording_path(item: RecordingRef) -> Path:
    """Return the file of a recording."""
    return item.path if isinstance(item, ManifestEntry) else item


def content_key(item: RecordingRef) -> ContentKey:
    """Return the identity of a recording's content."""
    if isinstance(item, ManifestEntry):
        return ContentKey(file_sha256(item.path), item.start, item.end)
    return ContentKey(file_sha256(item))


def group_key(item: RecordingRef, dataset: FolderOrManifest, group_by: str) -> str:
    """Return the group of a recording; grouped by "folder", it is also the session of the audit."""
    if isinstance(item, ManifestEntry):
        # A session that the user states in the manifest takes precedence over the setting.
        return item.session or ("." if group_by == "folder" else str(item.path))
    assert isinstance(dataset, Path)
    return group_of_path(item.relative_to(dataset), group_by)


def group_of_path(path: Path, group_by: str) -> str:
    """Return the group of a path relative to its folder: the path itself, or its first sub-folder or "."."""
    if group_by == "file":
        return str(path)
    return path.parts[0] if len(path.parts) > 1 else "."
