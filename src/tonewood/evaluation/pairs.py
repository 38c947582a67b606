"""Pairs of files, a source and the same piece as the reference plays it, and methods on them."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.audio_io.reader import Recording, find_audio_files, read_recording, resample
from tonewood.enhancement.output_files import FileFailure
from tonewood.enhancement.pipeline import Enhancement, enhance_array
from tonewood.errors import AudioError, CallError, FolderError, printable
from tonewood.evaluation.alignment import Anchor
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, default_enhance_settings

MEASURE_RATE = 16_000  # of the measures, Hz

_TONEWOOD_SETTINGS = default_enhance_settings("search")
METHOD_UNTOUCHED, METHOD_STATIC, METHOD_TONEWOOD = "untouched", "static", "Tonewood"
EVALUATED_METHODS: dict[str, EnhanceSettings | None] = {
    METHOD_UNTOUCHED: None,
    METHOD_STATIC: _TONEWOOD_SETTINGS.replace(prior=dict(kind="static"), search=dict(steps=0)),
    METHOD_TONEWOOD: _TONEWOOD_SETTINGS,
}
_FILE_COLUMNS, _TIME_COLUMNS = ["source", "reference"], ["source_s", "reference_s"]


class RecordingPair(NamedTuple):
    """A source recording, and the same piece as the reference plays it."""

    source: Recording
    reference: Recording


class PairFiles(NamedTuple):
    """A pair's name, where it lies, and moments of both that belong together."""

    name: str
    source: Path
    reference: Path
    anchors: tuple[Anchor, ...] = ()

    def read(self) -> RecordingPair:
        """Both recordings.

        Raises
        ------
        AudioError
            One cannot be used, or ends before an anchor.
        """
        pair = RecordingPair(read_recording(self.source), read_recording(self.reference))
        for anchor in self.anchors:
            for seconds, recording in zip(anchor, pair, strict=True):
                if seconds > recording.duration:
                    raise AudioError(
                        f"{printable(recording.path)} lasts {recording.duration:.2f} s and has an "
                        f"anchor at {seconds:g} s: mend the table"
                    )
        return pair


class MeasureProgress(NamedTuple):
    """A method's turn on a piece; number counts all such turns from 1."""

    number: int
    total: int
    method: str


def pairs_by_name(source: Path, reference: Path) -> list[PairFiles | FileFailure]:
    """Pairs of one name below two folders, whatever their suffixes; the rest is `FileFailure`.

    Raises
    ------
    FolderError
        A folder is missing, or holds no audio.
    """
    sides = [_recordings_by_name(folder) for folder in (source, reference)]
    found: list[PairFiles | FileFailure] = []
    for name in sorted({*sides[0], *sides[1]}):
        here, there = (side.get(name, []) for side in sides)
        for several in (here, there):
            if len(several) > 1:
                error = f"{printable(several[0])} and {printable(several[1])} have one name: rename one"
                found.append(FileFailure(several[0], FolderError(error)))
        if max(len(here), len(there)) > 1:
            continue
        if here and there:
            found.append(PairFiles(name, here[0], there[0]))
        else:
            alone, other = (here[0], reference) if here else (there[0], source)
            missing = FolderError(f"{printable(alone)} has no partner: add {printable(other / name)}")
            found.append(FileFailure(alone, missing))
    return found


def pairs_from_table(table: Path, source: Path, reference: Path) -> list[PairFiles]:
    """Pairs that a CSV names, in its order.

    Its columns are `source` and `reference`, files below the two folders, and, any number of
    times, `source_s` and `reference_s`: a moment of each that belong together, in seconds. A pair
    that stands on several lines has the moments of all.

    Raises
    ------
    CallError
        The table cannot be read, or one of its lines; it is named.
    """
    moments: dict[tuple[str, str], list[Anchor]] = {}
    lines = _table_lines(table)
    _, head = next(lines, (1, []))
    times = head[2:]
    if head[:2] != _FILE_COLUMNS or times != _TIME_COLUMNS * (len(times) // 2):
        raise _table_error(table, 1, "is no head", "source,reference[,source_s,reference_s …]")
    for number, row in lines:
        if len(row) != len(head):
            raise _table_error(table, number, f"has {len(row)} fields", f"{len(head)}, as the head has")
        if not (row[0] and row[1]):
            raise _table_error(table, number, "lacks a file", "a source and a reference")
        kept = moments.setdefault((row[0], row[1]), [])
        for here, there in zip(row[2::2], row[3::2], strict=True):
            if not (here or there):
                continue
            anchor = Anchor(_parse_seconds(table, number, here), _parse_seconds(table, number, there))
            if kept and not all(a < b for a, b in zip(kept[-1], anchor, strict=True)):
                raise _table_error(table, number, "goes back in time", "moments that rise in both")
            kept.append(anchor)
    if not moments:
        raise CallError(f"{printable(table)} names no pair: add lines")
    return [
        PairFiles(here, source / here, reference / there, tuple(anchors))
        for (here, there), anchors in moments.items()
    ]


def apply_method(
    recording: Recording, model: Model, settings: EnhanceSettings, seed: int, device: str
) -> Enhancement:
    """What a method makes of a recording.

    Every method is measured at work, on inputs that a user would be warned of too.
    """
    plain = settings.replace(seed=seed, force=True, certificate=dict(control_steps=0))
    *_, made = enhance_array(recording.samples, recording.rate, model, plain, device=device)
    assert isinstance(made, Enhancement)
    return made


def to_mono_16k(samples: NDArray[np.float32], rate: int) -> Tensor:
    """Mean of the channels [sample] of samples (channels, samples), at the measures' 16 kHz."""
    mono = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    return torch.from_numpy(resample(mono, rate, MEASURE_RATE))


def _recordings_by_name(folder: Path) -> dict[str, list[Path]]:
    """Recordings below a folder by their path in it, without suffix."""
    named: dict[str, list[Path]] = {}
    for path in find_audio_files(folder):
        named.setdefault(str(path.relative_to(folder).with_suffix("")), []).append(path)
    return named


def _table_lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines of a CSV that hold something, with their numbers."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = (getattr(error, "strerror", None) or "it is no UTF-8").lower()
        raise CallError(f"{printable(table)} cannot be read ({why}): name a CSV file") from None
    reader = csv.reader(text.splitlines())
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield reader.line_num, [field.strip() for field in row]
    except csv.Error as error:
        raise _table_error(table, reader.line_num, f"is no CSV ({error})", "plain text") from None


def _parse_seconds(table: Path, number: int, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise _table_error(table, number, f"has the time {text!r}", "seconds from 0 on, as in 12.5")
    return seconds


def _table_error(table: Path, number: int, what: str, expected: str) -> CallError:
    return CallError(f"{printable(table)}: line {number} {what}; give {expected}")
