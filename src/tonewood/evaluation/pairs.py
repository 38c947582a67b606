"""Find pairs of recordings of the same piece, and apply the evaluated methods to them."""

import csv
import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import Recording, find_audio_files
from tonewood.data.tables import Table, TableRow, parse_seconds, read_table
from tonewood.enhancement.output_files import FileFailure
from tonewood.enhancement.pipeline import Enhancement, enhance_array
from tonewood.errors import AudioError, CallError, FolderError, failure_reason, printable
from tonewood.evaluation.alignment import Anchor
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, default_enhance_settings
from tonewood.utils.paths import listed_path, name_key

_TONEWOOD_SETTINGS = default_enhance_settings("search")
METHOD_UNTOUCHED, METHOD_STATIC, METHOD_TONEWOOD = "untouched", "static", "Tonewood"
EVALUATED_METHODS: dict[str, EnhanceSettings | None] = {
    METHOD_UNTOUCHED: None,
    METHOD_STATIC: _TONEWOOD_SETTINGS.replace(prior=dict(kind="static"), search=dict(steps=0)),
    METHOD_TONEWOOD: _TONEWOOD_SETTINGS,
}
_FILE_COLUMNS, _TIME_COLUMNS = ["source", "reference"], ["source_s", "reference_s"]


class RecordingPair(NamedTuple):
    """Source recording, and the same piece played by the reference."""

    source: Recording
    reference: Recording


class PairFiles(NamedTuple):
    """Files of a pair, with times in both that correspond."""

    name: str
    source: Path
    reference: Path
    anchors: tuple[Anchor, ...] = ()

    def read(self) -> RecordingPair:
        """Read both recordings; raise AudioError if one cannot be used or ends before an anchor."""
        pair = RecordingPair(read_recording(self.source), read_recording(self.reference))
        for anchor in self.anchors:
            for seconds, recording in zip(anchor, pair, strict=True):
                if seconds > recording.duration:
                    raise AudioError(
                        f"{printable(recording.path)} lasts {recording.duration:.2f} s and has an "
                        f"anchor at {seconds:g} s: correct the table"
                    )
        return pair


class MeasureProgress(NamedTuple):
    """Progress of the evaluation: a method is applied to a pair; number counts from 1."""

    number: int
    total: int
    method: str


def pairs_by_name(source: Path, reference: Path) -> list[PairFiles | FileFailure]:
    """Pair files of the same name in two folders, ignoring suffixes; others become failures.

    FolderError if a folder does not exist or has no audio.
    """
    sources, references = _recordings_by_name(source), _recordings_by_name(reference)
    pairs: list[PairFiles | FileFailure] = []
    for name in sorted({*sources, *references}):
        candidates = sources.get(name, []), references.get(name, [])
        # Without their suffixes, a.wav and a.flac have the same name: no partner is the right one.
        ambiguous = [paths for paths in candidates if len(paths) > 1]
        for paths in ambiguous:
            error = f"{printable(paths[0])} and {printable(paths[1])} have the same name: rename one"
            pairs.append(FileFailure(paths[0], FolderError(error)))
        if all(candidates) and not ambiguous:
            pairs.append(PairFiles(name, candidates[0][0], candidates[1][0]))
        elif not ambiguous:
            single, other = (candidates[0][0], reference) if candidates[0] else (candidates[1][0], source)
            error = f"{printable(single)} has no partner: add {printable(other / name)}"
            pairs.append(FileFailure(single, FolderError(error)))
    return pairs


def pairs_from_table(table: Path, source: Path, reference: Path) -> list[PairFiles]:
    """Read pairs from a CSV table, in its order.

    The columns are `source` and `reference`, paths in the two folders, and any number of times
    `source_s` and `reference_s`: corresponding times in seconds. A pair may have several lines, for
    more times.

    Raises
    ------
    CallError
        The table or one of its lines is wrong; the message names it.
    """
    anchors: dict[tuple[str, str], list[Anchor]] = {}
    opened = _open_table(table)
    head = opened.columns
    times = head[2:]
    # Time columns repeat in pairs, so cells are known by their position.
    if head[:2] != _FILE_COLUMNS or times != _TIME_COLUMNS * (len(times) // 2):
        raise _table_error(table, 1, "is not the header", "source,reference[,source_s,reference_s …]")
    for number, row in _table_rows(table, opened):
        if len(row) != len(head):
            raise _table_error(table, number, f"has {len(row)} fields", f"{len(head)}, as the header has")
        if not (row[0] and row[1]):
            raise _table_error(table, number, "has an empty file name", "a source and a reference")
        pair_anchors = anchors.setdefault((row[0], row[1]), [])
        for source_s, reference_s in zip(row[2::2], row[3::2], strict=True):
            if not (source_s or reference_s):
                continue
            anchor = Anchor(
                *(_parse_time(table, number, text, opened.separator) for text in (source_s, reference_s))
            )
            # An alignment path is monotonic, so times must rise in both recordings.
            if pair_anchors and not all(a < b for a, b in zip(pair_anchors[-1], anchor, strict=True)):
                raise _table_error(table, number, "goes back in time", "times that rise in both")
            pair_anchors.append(anchor)
    if not anchors:
        raise CallError(f"{printable(table)} has no pairs: add lines")
    return [
        PairFiles(
            source_name,
            listed_path(source, source_name),
            listed_path(reference, reference_name),
            tuple(pair_anchors),
        )
        for (source_name, reference_name), pair_anchors in anchors.items()
    ]


def apply_method(recording: Recording, model: Model, settings: EnhanceSettings, seed: int) -> Enhancement:
    """Enhance a recording with the settings of a method."""
    # A method is measured on every input: `force` skips the checks that leave unsuitable ones
    # unchanged. No distance needs the adversarial control of the certificate, which is slow.
    unchecked = settings.replace(seed=seed, force=True, certificate=dict(control_steps=0))
    # Each step holds a mask, so none is kept.
    (enhancement,) = deque(enhance_array(recording.samples, recording.rate, model, unchecked), maxlen=1)
    assert isinstance(enhancement, Enhancement)
    return enhancement


def _recordings_by_name(folder: Path) -> dict[str, list[Path]]:
    """Return the recordings in a folder by their relative path without suffix."""
    by_name: dict[str, list[Path]] = {}
    for path in find_audio_files(folder):
        by_name.setdefault(name_key(str(path.relative_to(folder).with_suffix(""))), []).append(path)
    return by_name


def _open_table(path: Path) -> Table:
    try:
        return read_table(path, _FILE_COLUMNS)
    except (OSError, UnicodeDecodeError) as error:
        reason = failure_reason(error)
        raise CallError(f"{printable(path)} cannot be read ({reason}): give a CSV file") from None
    except csv.Error as error:
        raise _table_error(path, 1, f"is not CSV ({error})", "plain text") from None


def _table_rows(path: Path, table: Table) -> Iterator[TableRow]:
    line = 1
    try:
        for row in table.rows:
            line = row.line
            yield row
    except csv.Error as error:
        raise _table_error(path, line + 1, f"is not CSV ({error})", "plain text") from None


def _parse_time(table: Path, number: int, text: str, separator: str) -> float:
    seconds = parse_seconds(text, separator)
    if math.isnan(seconds):
        raise _table_error(table, number, f"has the time {text!r}", "seconds of at least 0, such as 12.5")
    return seconds


def _table_error(table: Path, number: int, problem: str, expected: str) -> CallError:
    return CallError(f"{printable(table)}: line {number} {problem}; give {expected}")
