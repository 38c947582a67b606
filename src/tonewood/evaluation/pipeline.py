"""Find pairs of recordings, the same piece played by source and reference, and evaluate methods on them.

Each pair is aligned once, from the untouched source to the reference. The alignment holds for the
outputs too, because a time-varying EQ does not change the timing.
"""

import csv
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import Recording, find_audio_files
from tonewood.data.tables import Table, TableRow, parse_seconds, read_table
from tonewood.enhancement.analysis import score_array
from tonewood.enhancement.output_files import FileFailure
from tonewood.enhancement.pipeline import Enhancement, enhance_array
from tonewood.errors import AudioError, CallError, FolderError, InputFileError, failure_reason, printable
from tonewood.evaluation.alignment import Alignment, AlignmentQuality, Anchor, align_recordings
from tonewood.evaluation.metrics import (
    PairDistances,
    gap_closed,
    measure_distances,
    to_mono_16k,
    zimtohrli_distance,
)
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, default_enhance_settings
from tonewood.stats.classification import BootstrapInterval, bootstrap_interval
from tonewood.utils.arrays import Samples
from tonewood.utils.files import listed_path, name_key

_TONEWOOD_SETTINGS = default_enhance_settings("search")
METHOD_UNTOUCHED, METHOD_STATIC, METHOD_TONEWOOD = "untouched", "static", "Tonewood"
EVALUATED_METHODS: dict[str, EnhanceSettings | None] = {
    METHOD_UNTOUCHED: None,
    METHOD_STATIC: _TONEWOOD_SETTINGS.replace(prior=dict(kind="static"), search=dict(steps=0)),
    METHOD_TONEWOOD: _TONEWOOD_SETTINGS,
}
_FILE_COLUMNS, _TIME_COLUMNS = ["source", "reference"], ["source_s", "reference_s"]


# --- Pairs


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

    CallError if the table or one of its lines is wrong; the message names it. InputFileError if the table
    cannot be read.
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
        raise InputFileError(f"{printable(path)} cannot be read ({reason}): give a CSV file") from None
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


# --- Measures of pairs


class MethodResult(NamedTuple):
    """Measures of one method on one pair: distances to the reference in dB, and scores.

    `closed` is the share of the mel distance between source and reference that the method closes.
    A score of 0 sounds like the reference; the judge is None if the model has none. `zimtohrli` is None
    without the extra `perceptual`, and for pairs that are not simultaneous.
    """

    closed: float
    mel: float
    log_spectral: float
    multi_resolution: float
    long_term: float
    scorer: float
    judge: float | None
    zimtohrli: float | None = None


@dataclass(frozen=True, eq=False)
class PairResult:
    """Measures of all methods on one pair.

    The waveforms [sample] are the outputs by method and the reference as "reference", mono at
    16 kHz. Only the first pairs have them.
    """

    files: PairFiles
    seconds: float
    alignment: Alignment
    methods: dict[str, MethodResult]
    waveforms: dict[str, Samples] | None

    @classmethod
    def from_summary(cls, files: PairFiles, summary: dict[str, Any]) -> "PairResult":
        """Restore a result from its summary, without waveforms and alignment path."""
        quality = dict(summary["alignment"])  # `summary` adds `exact` to the quality
        exact = quality.pop("exact")
        # The path itself is not in the summary; reports of restored results only show its quality.
        alignment = Alignment(np.zeros(0), AlignmentQuality(**quality), exact)
        methods = {method: MethodResult(**row) for method, row in summary["methods"].items()}
        return cls(files, summary["seconds"], alignment, methods, None)

    @property
    def summary(self) -> dict[str, Any]:
        """Result without waveforms, for JSON."""
        return {
            "piece": self.files.name,
            "source": str(self.files.source),
            "reference": str(self.files.reference),
            "seconds": self.seconds,
            "alignment": {"exact": self.alignment.exact, **self.alignment.quality._asdict()},
            "methods": {method: result._asdict() for method, result in self.methods.items()},
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of all pairs, and their means by method and measure with 95 % intervals.

    The gains are the means of Tonewood minus another method, paired.
    """

    pairs: tuple[PairResult, ...]
    failed: tuple[FileFailure, ...]
    means: dict[str, dict[str, BootstrapInterval]]
    gains: dict[str, dict[str, BootstrapInterval]]

    @property
    def summary(self) -> dict[str, Any]:
        """Evaluation without waveforms, for JSON."""
        return {
            "pairs": len(self.pairs),
            "failed": [{"input": str(failure.input), "error": str(failure.error)} for failure in self.failed],
            "means": _intervals_to_json(self.means),
            "gains": _intervals_to_json(self.gains),
            "pieces": [pair.summary for pair in self.pairs],
        }


def measure_pair(
    files: PairFiles, model: Model, seed: int = 0, keep_audio: bool = False
) -> Iterator[MeasureProgress | PairResult]:
    """Measure every method on a pair; yield each method before it runs and, last, the result.

    Parameters
    ----------
    seed : int
        Seed of the methods.
    keep_audio : bool
        Keep the waveforms, for players in the report.

    Raises
    ------
    AudioError
        A file cannot be read, or the pair cannot be aligned reliably.
    """
    pair = files.read()
    rate = pair.source.rate
    reference = to_mono_16k(pair.reference.samples, pair.reference.rate)
    alignment = _align_pair(files, to_mono_16k(pair.source.samples, rate), reference)
    results: dict[str, MethodResult] = {}
    waveforms = {"reference": reference}
    for number, (method, settings) in enumerate(EVALUATED_METHODS.items(), start=1):
        yield MeasureProgress(number, len(EVALUATED_METHODS), method)
        samples = pair.source.samples
        if settings is not None:
            samples = apply_method(pair.source, model, settings, seed).samples
        waveforms[method] = to_mono_16k(samples, rate)
        distances = _aligned_distances(waveforms[method], reference, alignment)
        # Without a distance, the share that a method closes is undefined.
        if distances.mel == 0 and method == METHOD_UNTOUCHED:
            raise AudioError(
                f"{_both_paths(files)} are the same recording, so there is no distance to close: choose "
                "another pair"
            )
        untouched_mel = results[METHOD_UNTOUCHED].mel if results else distances.mel
        score = score_array(samples, rate, model)
        closed = gap_closed(untouched_mel, distances.mel)
        perceptual = _perceptual_distance(waveforms[method], reference, alignment)
        results[method] = MethodResult(closed, *distances, score.scorer, score.judge, perceptual)
    # Waveforms of all pairs would fill the memory; the report plays only the first.
    yield PairResult(files, pair.source.duration, alignment, results, waveforms if keep_audio else None)


def _align_pair(files: PairFiles, source: Samples, reference: Samples) -> Alignment:
    alignment = align_recordings(source, reference, files.anchors)
    # Distances along a wrong alignment would measure the music, not the sound.
    if problem := alignment.quality.problem:
        raise AudioError(f"{_both_paths(files)}: {problem}")
    return alignment


def _both_paths(files: PairFiles) -> str:
    return f"{printable(files.source)} and {printable(files.reference)}"


def _aligned_distances(estimate: Samples, reference: Samples, alignment: Alignment) -> PairDistances:
    if not alignment.exact:
        return measure_distances(estimate, reference, alignment.to_reference)
    return measure_distances(*_common_part(estimate, reference))


def _perceptual_distance(estimate: Samples, reference: Samples, alignment: Alignment) -> float | None:
    return zimtohrli_distance(*_common_part(estimate, reference)) if alignment.exact else None


def _common_part(estimate: Samples, reference: Samples) -> tuple[Samples, Samples]:
    """Cut simultaneous recordings to one length: they may differ by some samples at the end."""
    length = min(len(estimate), len(reference))
    return estimate[:length], reference[:length]


def summarize_evaluation(pairs: Sequence[PairResult], failed: Sequence[FileFailure], seed: int) -> Evaluation:
    """Return means and gains over all pairs; raise FolderError if there is no pair."""
    if not pairs:
        raise FolderError("no pair could be measured: correct or replace the files named above")
    # A judge is missing in all pairs or in none. A perceptual distance that some pairs lack has no mean.
    values = {
        method: {
            measure: np.array([getattr(pair.methods[method], measure) for pair in pairs])
            for measure in MethodResult._fields
            if all(getattr(pair.methods[method], measure) is not None for pair in pairs)
        }
        for method in EVALUATED_METHODS
    }
    tonewood = values[METHOD_TONEWOOD]
    gains = {
        method: {measure: tonewood[measure] - per_pair for measure, per_pair in by_measure.items()}
        for method, by_measure in values.items()
        if method != METHOD_TONEWOOD
    }

    def intervals(by_measure: dict[str, NDArray[np.float64]]) -> dict[str, BootstrapInterval]:
        # The same seed everywhere, so that all intervals resample the same pairs.
        return {key: bootstrap_interval(v, np.random.default_rng(seed)) for key, v in by_measure.items()}

    return Evaluation(
        tuple(pairs),
        tuple(failed),
        {method: intervals(by_measure) for method, by_measure in values.items()},
        {method: intervals(by_measure) for method, by_measure in gains.items()},
    )


def _intervals_to_json(intervals: dict[str, dict[str, BootstrapInterval]]) -> dict[str, Any]:
    return {
        method: {measure: interval._asdict() for measure, interval in by_measure.items()}
        for method, by_measure in intervals.items()
    }
