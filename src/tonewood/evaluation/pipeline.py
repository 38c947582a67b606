"""Evaluate methods on pairs of recordings: the same piece, played by the source and the reference.

Each pair is aligned once, from the untouched source to the reference. The alignment holds for the
outputs too, because a time-varying EQ does not change the timing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.enhancement.analysis import score_array
from tonewood.enhancement.output_files import FileFailure
from tonewood.errors import AudioError, FolderError, printable
from tonewood.evaluation.alignment import Alignment, AlignmentQuality, align_recordings
from tonewood.evaluation.metrics import (
    PairDistances,
    gap_closed,
    measure_distances,
    to_mono_16k,
    zimtohrli_distance,
)
from tonewood.evaluation.pairs import (
    EVALUATED_METHODS,
    METHOD_TONEWOOD,
    METHOD_UNTOUCHED,
    MeasureProgress,
    PairFiles,
    apply_method,
)
from tonewood.model.model import Model
from tonewood.stats.classification import BootstrapInterval, bootstrap_interval
from tonewood.utils.arrays import Samples


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
