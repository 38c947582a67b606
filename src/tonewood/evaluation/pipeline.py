"""Pairs of recordings → how much nearer to the reference's take each method brings the source's.

A pair is aligned once, the untouched source with the reference, and every method is measured by
that alignment: an EQ that varies in time moves nothing in time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tonewood.enhancement.analysis import score_array
from tonewood.enhancement.output_files import FileFailure
from tonewood.errors import AudioError, FolderError, TonewoodError, printable
from tonewood.evaluation import alignment as aligning
from tonewood.evaluation.alignment import Alignment, AlignmentQuality
from tonewood.evaluation.metrics import PairDistances, gap_closed, measure_distances
from tonewood.evaluation.pairs import (
    EVALUATED_METHODS,
    METHOD_TONEWOOD,
    METHOD_UNTOUCHED,
    MeasureProgress,
    PairFiles,
    apply_method,
    to_mono_16k,
)
from tonewood.model.model import Model
from tonewood.stats.sampling import BootstrapInterval, bootstrap_interval
from tonewood.utils.device import check_device


class MethodResult(NamedTuple):
    """A method on a piece.

    Parameters
    ----------
    closed : float
        Share of the mel distance to the reference's take that was closed.
    mel, log_spectral, multi_resolution, long_term : float
        Distances to the reference's take, dB.
    scorer, judge : float
        Scores, 0 sounds like the reference; no judge in models without one.
    """

    closed: float
    mel: float
    log_spectral: float
    multi_resolution: float
    long_term: float
    scorer: float
    judge: float | None


@dataclass(frozen=True, eq=False)
class PairResult:
    """A pair, measured.

    Parameters
    ----------
    files : PairFiles
    seconds : float
        Of the source.
    alignment : Alignment
    methods : dict of Row
        By method.
    waveforms : dict of Tensor [sample], or None
        What was measured, mono at 16 kHz, by method; with the reference under its own name. Kept
        for the first pieces only.
    """

    files: PairFiles
    seconds: float
    alignment: Alignment
    methods: dict[str, MethodResult]
    waveforms: dict[str, Tensor] | None

    @classmethod
    def from_summary(cls, files: PairFiles, summary: dict[str, Any]) -> "PairResult":
        """A piece whose summary was kept: its sounds, and the path of its alignment, were not."""
        aligned = dict(summary["alignment"])
        exact = aligned.pop("exact")
        alignment = Alignment(np.zeros(0), AlignmentQuality(**aligned), exact)
        rows = {method: MethodResult(**row) for method, row in summary["methods"].items()}
        return cls(files, summary["seconds"], alignment, rows, None)

    @property
    def summary(self) -> dict[str, Any]:
        """All but the sounds, as JSON."""
        return {
            "piece": self.files.name,
            "source": str(self.files.source),
            "reference": str(self.files.reference),
            "seconds": self.seconds,
            "alignment": {"exact": self.alignment.exact, **self.alignment.quality._asdict()},
            "methods": {method: row._asdict() for method, row in self.methods.items()},
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All pieces, and what follows from them.

    Parameters
    ----------
    pairs : tuple of Piece
    failed : tuple of FileFailure
        Pairs that could not be measured.
    means : dict of dict of Interval
        By method and measure, with 95 % bootstrap intervals over pieces.
    gains : dict of dict of Interval
        Tonewood less another method, piece by piece, by that method and measure.
    """

    pairs: tuple[PairResult, ...]
    failed: tuple[FileFailure, ...]
    means: dict[str, dict[str, BootstrapInterval]]
    gains: dict[str, dict[str, BootstrapInterval]]

    @property
    def summary(self) -> dict[str, Any]:
        """What was found, as JSON."""
        return {
            "pairs": len(self.pairs),
            "failed": [{"input": str(it.input), "error": str(it.error)} for it in self.failed],
            "means": _intervals_to_json(self.means),
            "gains": _intervals_to_json(self.gains),
            "pieces": [piece.summary for piece in self.pairs],
        }


EvaluationEvent = MeasureProgress | FileFailure | PairResult | Evaluation


def evaluate_pairs(
    pairs: Sequence[PairFiles | FileFailure],
    model: Model,
    *,
    seed: int = 0,
    device: str = "cpu",
    audible_pairs: int = 0,
) -> Iterator[EvaluationEvent]:
    """Measure every method on every pair; yields its progress and, last, the `Evaluation`.

    A pair that cannot be read, or not be aligned well enough to be believed, is a `FileFailure`, and
    the others go on.

    Parameters
    ----------
    pairs : sequence
        As `pairs.pairs_by_name` and `pairs.pairs_from_table` give them.
    seed : int
        Of the bootstrap and of what is random in a method.
    audible_pairs : int
        Pieces, from the first on, whose sounds are kept.

    Raises
    ------
    MissingExtraError
        Nothing here can align.
    FolderError
        No pair could be measured.
    """
    check_device(device)
    aligning.require_synctoolbox()
    pieces: list[PairResult] = []
    failed = []
    for number, files in enumerate(pairs):
        if isinstance(files, FileFailure):
            failed.append(files)
            yield files
            continue
        try:
            done = len(EVALUATED_METHODS) * number
            for event in _iter_measurements(files, model, seed, device, len(pieces) < audible_pairs):
                if isinstance(event, PairResult):
                    pieces.append(event)
                    yield event
                else:
                    done += 1
                    yield MeasureProgress(done, len(EVALUATED_METHODS) * len(pairs), event)
        except TonewoodError as error:
            failed.append(FileFailure(files.source, error))
            yield failed[-1]
    yield summarize_evaluation(pieces, failed, seed)


def _iter_measurements(
    files: PairFiles, model: Model, seed: int, device: str, keep_audio: bool
) -> Iterator[str | PairResult]:
    """Yield every method before its turn, and last the piece."""
    pair = files.read()
    rate = pair.source.rate
    wanted = to_mono_16k(pair.reference.samples, pair.reference.rate)
    alignment = _align_pair(files, to_mono_16k(pair.source.samples, rate), wanted)
    rows: dict[str, MethodResult] = {}
    sounds = {"reference": wanted}
    for method, how in EVALUATED_METHODS.items():
        yield method
        samples = pair.source.samples
        if how is not None:
            samples = apply_method(pair.source, model, how, seed, device).samples
        sounds[method] = to_mono_16k(samples, rate)
        found = _aligned_distances(sounds[method], wanted, alignment)
        if found.mel == 0 and method == METHOD_UNTOUCHED:
            raise AudioError(
                f"{printable(files.source)} and {printable(files.reference)} are the same recording; "
                "there is nothing to close: name another pair"
            )
        untouched = rows[METHOD_UNTOUCHED].mel if rows else found.mel
        scored = score_array(samples, rate, model)
        rows[method] = MethodResult(gap_closed(untouched, found.mel), *found, scored.scorer, scored.judge)
    yield PairResult(files, pair.source.duration, alignment, rows, sounds if keep_audio else None)


def measure_pair(files: PairFiles, model: Model, seed: int, device: str, keep_audio: bool) -> PairResult:
    """Measure every method on one pair; AudioError as `evaluate` tells it."""
    *_, piece = _iter_measurements(files, model, seed, device, keep_audio)
    assert isinstance(piece, PairResult)
    return piece


def _align_pair(files: PairFiles, source: Tensor, reference: Tensor) -> Alignment:
    """Alignment of a pair; AudioError, which says what was found, if it cannot be believed."""
    alignment = aligning.align_recordings(source, reference, files.anchors)
    if fault := alignment.quality.problem:
        raise AudioError(f"{printable(files.source)} and {printable(files.reference)}: {fault}")
    return alignment


def _aligned_distances(estimate: Tensor, reference: Tensor, alignment: Alignment) -> PairDistances:
    if not alignment.exact:
        return measure_distances(estimate, reference, alignment.to_reference)
    length = min(len(estimate), len(reference))
    return measure_distances(estimate[:length], reference[:length])


def summarize_evaluation(pairs: Sequence[PairResult], failed: Sequence[FileFailure], seed: int) -> Evaluation:
    """What follows from all pieces; FolderError if there are none."""
    if not pairs:
        raise FolderError("no pair could be measured: mend or replace what is named above")
    figures = {
        method: {
            measure: np.array([getattr(piece.methods[method], measure) for piece in pairs])
            for measure in MethodResult._fields
            if getattr(pairs[0].methods[method], measure) is not None
        }
        for method in EVALUATED_METHODS
    }
    ours = figures[METHOD_TONEWOOD]

    def over_pieces(values: NDArray[np.float64]) -> BootstrapInterval:
        # One seed: every interval is drawn from the same choices of pieces.
        return bootstrap_interval(values, np.random.default_rng(seed))

    return Evaluation(
        pairs=tuple(pairs),
        failed=tuple(failed),
        means={
            method: {measure: over_pieces(values) for measure, values in by_measure.items()}
            for method, by_measure in figures.items()
        },
        gains={
            method: {measure: over_pieces(ours[measure] - values) for measure, values in by_measure.items()}
            for method, by_measure in figures.items()
            if method != METHOD_TONEWOOD
        },
    )


def _intervals_to_json(intervals: dict[str, dict[str, BootstrapInterval]]) -> dict[str, Any]:
    return {
        method: {measure: value._asdict() for measure, value in by_measure.items()}
        for method, by_measure in intervals.items()
    }
