"""Training material by list instead of by folder: a CSV or JSONL file that names recordings.

A row has a `path` (from the list's own folder), a `label` (reference or source) and, where wanted,
`get_session`, `start` and `end` in seconds. Other columns are left alone.
"""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tonewood.errors import FolderError, OutputError, printable
from tonewood.files.output import check_not_existing, write_text

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
            f"{printable(path)} has no folder to lie in: make {printable(path.resolve().parent)} first"
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
