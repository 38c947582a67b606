"""Training material by list instead of by folder: a CSV or JSONL file that names recordings.

A row has a `path` (from the list's own folder), a `label` (reference or source) and, where wanted,
`get_session`, `start` and `end` in seconds. Other columns are left alone.

CSV tables that others wrote: read line by line, refused with the line that is wrong.

One recording of a training folder or of a list: where it is, what it belongs to, its sound.
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

from tonewood.audio_io.reader import (
    MIN_RECORDING_SECONDS,
    AudioReader,
    file_sha256,
    find_audio_files,
)
from tonewood.audio_io.recording import AudioArray
from tonewood.errors import AudioError, CallError, FolderError, OutputError, printable
from tonewood.utils.atomic_write import (
    check_not_existing,
    write_text,
)


class ContentKey(NamedTuple):
    """A recording by its bytes, and which part of it, in seconds."""

    sha256: str
    start: float | None = None
    end: float | None = None


SIDE_LABELS = ("reference", "source")


class ManifestEntry(NamedTuple):
    """A recording, or a piece of one.

    Parameters
    ----------
    session : str or None
        What is recorded together, and kept together when takes are held out.
    start, end : float or None
        Seconds; None for the recording's own.
    line : int
        Of the list, for messages.
    """

    path: Path
    session: str | None
    start: float | None
    end: float | None
    line: int


class ManifestRow(NamedTuple):
    """A recording to be put on a list."""

    path: Path
    label: str
    session: str | None


class ManifestSide(NamedTuple):
    """All that a list names of one side."""

    manifest: Path
    label: str
    entries: tuple[ManifestEntry, ...]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.manifest.stem}:{self.label}"


def read_manifest(path: Path) -> tuple[ManifestSide, ManifestSide]:
    """Read a list: (reference, source).

    Raises
    ------
    FolderError
        It cannot be read, or a row is wrong: the file, the line, and what it should be.
    """
    sides: dict[str, list[ManifestEntry]] = {label: [] for label in SIDE_LABELS}
    for line, row in _read_manifest_rows(path):
        where = f"{printable(path)}, line {line}"
        label = str(row.get("label") or "").strip().lower()
        if label not in SIDE_LABELS:
            raise FolderError(f"{where}: label is {label!r}; write reference or source")
        name = str(row.get("path") or "").strip()
        if not name:
            raise FolderError(f"{where}: no path is given; write one from the list's folder")
        start, end = (_parse_manifest_seconds(row.get(key), key, where) for key in ("start", "end"))
        if end is not None and end <= (start or 0.0):
            raise FolderError(f"{where}: a piece from {start or 0:g} to {end:g} s holds nothing")
        session = str(row.get("session") or "").strip() or None
        sides[label].append(ManifestEntry(path.parent / name, session, start, end, line))
    for label, entries in sides.items():
        if not entries:
            raise FolderError(f"{printable(path)} names no {label}; a model needs both sides: add some")
    first, second = (ManifestSide(path, label, tuple(sides[label])) for label in SIDE_LABELS)
    return first, second


def check_manifest_output(path: Path, overwrite: bool) -> None:
    """Refuse before the work a list that cannot be written after it; OutputError."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise OutputError(f"{printable(path)} is no kind of list: name one such as takes.csv or .jsonl")
    if not path.resolve().parent.is_dir():
        raise OutputError(
            f"{printable(path)} is in a folder that does not exist: create {printable(path.resolve().parent)} first"
        )
    check_not_existing([path], overwrite)


def write_manifest(path: Path, rows: Iterable[ManifestRow], *, overwrite: bool = False) -> None:
    """Write a list, its paths from its own folder; raises as `output.write_text`."""
    folder = path.resolve().parent
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    as_json = path.suffix.lower() == ".jsonl"
    if not as_json:
        table.writerow(["path", "label", "session"])
    for it in rows:
        place = Path(os.path.relpath(it.path.resolve(), folder)).as_posix()
        if as_json:
            row = {"path": place, "label": it.label, "session": it.session or ""}
            text.write(json.dumps(row) + "\n")
        else:
            table.writerow([place, it.label, it.session or ""])
    write_text(path, text.getvalue(), overwrite=overwrite)


def _read_manifest_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with the number of the line they stand on."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise FolderError(f"{printable(path)} cannot be read ({why}): name a CSV or JSONL") from None
    except UnicodeDecodeError:
        raise FolderError(f"{printable(path)} is no UTF-8: save the list as UTF-8") from None
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield number, _parse_json_object(line, f"{printable(path)}, line {number}")
        return
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True, strict=True)
    try:
        missing = {"path", "label"} - set(reader.fieldnames or ())
        if missing:
            raise FolderError(
                f"{printable(path)} has no column {' and no column '.join(sorted(missing))}: head it "
                "path,label or path,label,session,start,end"
            )
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        after = f"after line {reader.line_num}"
        raise FolderError(f"{printable(path)}, {after}: {error}: mend the list") from None


def _parse_json_object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise FolderError(f"{where}: this is no JSON object; write one a line")
    return row


def _parse_manifest_seconds(value: object, key: str, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise FolderError(f"{where}: {key} is {str(value)!r}; write seconds")
    return seconds


def read_csv_rows(table: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a table, each with its number in the file, counted from 1.

    Parameters
    ----------
    required : sequence of str
        Columns that every line must fill.

    Raises
    ------
    CallError
        The file cannot be read.
    FolderError
        It is no table, lacks a column, or a line of it is cut short.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            lacks = [name for name in required if name not in (reader.fieldnames or ())]
            if lacks:
                raise FolderError(
                    f"{printable(table)} has no column {lacks[0]}; {', '.join(required)} are needed: "
                    "name another table"
                )
            for number, row in enumerate(reader, start=2):
                if not all(row.get(name) for name in required):
                    raise FolderError(
                        f"{printable(table)}, line {number}: {' or '.join(required)} is missing: mend it"
                    )
                yield number, {k: v for k, v in row.items() if isinstance(k, str) and v is not None}
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CallError(f"{printable(table)} cannot be read ({why}): name a CSV table") from None
    except (UnicodeDecodeError, csv.Error):
        raise FolderError(f"{printable(table)} is no CSV table in UTF-8: save it as one") from None


FolderOrManifest = Path | ManifestSide
"""Where one side's recordings are: below a folder, or on a list."""

RecordingRef = Path | ManifestEntry
"""One of them."""


class ExcerptReader:
    """A recording, or the piece of one that a list names, decoded anew each time it is run through.

    Attributes
    ----------
    rate, channels : int
    format : AudioFormat

    Raises
    ------
    AudioError
        It cannot be used: here, or where `blocks` shows it.
    """

    def __init__(self, item: RecordingRef) -> None:
        self._stream = AudioReader(recording_path(item))
        self.rate, self.channels = self._stream.rate, self._stream.channels
        self.format = self._stream.format
        self._entry = item if isinstance(item, ManifestEntry) else None
        self._checked = False

    def blocks(self) -> Iterator[AudioArray]:
        """All of it, (channels, samples) at a time."""
        return self._stream.blocks() if self._entry is None else self._excerpt_blocks(self._entry)

    def _excerpt_blocks(self, entry: ManifestEntry) -> Iterator[AudioArray]:
        """From its start to its end, as a list says."""
        first = round((entry.start or 0.0) * self.rate)
        last = None if entry.end is None else round(entry.end * self.rate)
        at = found = 0
        low, high = np.inf, -np.inf
        for block in self._stream.blocks():
            if self._checked and last is not None and at >= last:
                return  # the file was found whole before
            own = block[:, max(0, first - at) : None if last is None else max(0, last - at)]
            at += block.shape[1]
            if own.shape[1]:
                found += own.shape[1]
                low, high = min(low, float(own.min())), max(high, float(own.max()))
                yield np.ascontiguousarray(own)
        if found < MIN_RECORDING_SECONDS * self.rate:
            raise AudioError(
                f"{printable(entry.path)} lasts {at / self.rate:.2f} s; line {entry.line} of the list "
                f"leaves {found / self.rate:.2f} s of it and {MIN_RECORDING_SECONDS:g} s are needed"
            )
        if low == high:
            raise AudioError(
                f"{printable(entry.path)} is silent where line {entry.line} of the list looks: "
                "name another piece"
            )
        self._checked = True


def list_recordings(dataset: FolderOrManifest) -> list[RecordingRef]:
    """All recordings of a side, in a fixed order; FolderError where there are none."""
    return list(dataset.entries if isinstance(dataset, ManifestSide) else find_audio_files(dataset))


def recording_path(item: RecordingRef) -> Path:
    """File of a recording."""
    return item.path if isinstance(item, ManifestEntry) else item


def content_key(item: RecordingRef) -> ContentKey:
    """What names its content."""
    if isinstance(item, ManifestEntry):
        return ContentKey(file_sha256(item.path), item.start, item.end)
    return ContentKey(file_sha256(item))


def group_key(item: RecordingRef, dataset: FolderOrManifest, group_by: str) -> str:
    """What a recording is kept together with; by "folder" also what the audit calls a session."""
    if isinstance(item, ManifestEntry):
        # A session that a list states is one whatever takes are otherwise grouped by.
        return item.session or ("." if group_by == "folder" else str(item.path))
    assert isinstance(dataset, Path)
    return group_of_path(item.relative_to(dataset), group_by)


def group_of_path(path: Path, group_by: str) -> str:
    """Group of a recording at a path relative to its folder: itself, or its first sub-folder.

    Recordings in no sub-folder are a group of their own.
    """
    if group_by == "file":
        return str(path)
    return path.parts[0] if len(path.parts) > 1 else "."
