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

from tonewood.errors import AudioError, FolderError, TonewoodError, shown
from tonewood.evaluation import align as aligning
from tonewood.evaluation.align import Alignment, Quality
from tonewood.evaluation.intervals import Interval, interval
from tonewood.evaluation.metrics import Distances, closed, distances
from tonewood.files.modelfile import Model
from tonewood.workflow.layout import Failed
from tonewood.workflow.pairs import (
    METHODS,
    TONEWOOD,
    UNTOUCHED,
    Measuring,
    PairFiles,
    enhanced,
    heard,
)
from tonewood.workflow.score import score
from tonewood.workflow.train import check_device


class Row(NamedTuple):
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
class Piece:
    """A pair, measured.

    Parameters
    ----------
    files : PairFiles
    seconds : float
        Of the source.
    alignment : Alignment
    rows : dict of Row
        By method.
    sounds : dict of Tensor [sample], or None
        What was measured, mono at 16 kHz, by method; with the reference under its own name. Kept
        for the first pieces only.
    """

    files: PairFiles
    seconds: float
    alignment: Alignment
    rows: dict[str, Row]
    sounds: dict[str, Tensor] | None

    @classmethod
    def told(cls, files: PairFiles, summary: dict[str, Any]) -> "Piece":
        """A piece whose summary was kept: its sounds, and the path of its alignment, were not."""
        aligned = dict(summary["alignment"])
        exact = aligned.pop("exact")
        alignment = Alignment(np.zeros(0), Quality(**aligned), exact)
        rows = {method: Row(**row) for method, row in summary["methods"].items()}
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
            "methods": {method: row._asdict() for method, row in self.rows.items()},
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All pieces, and what follows from them.

    Parameters
    ----------
    pieces : tuple of Piece
    failed : tuple of Failed
        Pairs that could not be measured.
    means : dict of dict of Interval
        By method and measure, with 95 % bootstrap intervals over pieces.
    gains : dict of dict of Interval
        Tonewood less another method, piece by piece, by that method and measure.
    """

    pieces: tuple[Piece, ...]
    failed: tuple[Failed, ...]
    means: dict[str, dict[str, Interval]]
    gains: dict[str, dict[str, Interval]]

    @property
    def summary(self) -> dict[str, Any]:
        """What was found, as JSON."""
        return {
            "pairs": len(self.pieces),
            "failed": [{"input": str(it.input), "error": str(it.error)} for it in self.failed],
            "means": _as_json(self.means),
            "gains": _as_json(self.gains),
            "pieces": [piece.summary for piece in self.pieces],
        }


Event = Measuring | Failed | Piece | Evaluation


def evaluate(
    found: Sequence[PairFiles | Failed],
    model: Model,
    *,
    seed: int = 0,
    device: str = "cpu",
    kept: int = 0,
) -> Iterator[Event]:
    """Measure every method on every pair; yields its progress and, last, the `Evaluation`.

    A pair that cannot be read, or not be aligned well enough to be believed, is a `Failed`, and
    the others go on.

    Parameters
    ----------
    found : sequence
        As `pairs.by_name` and `pairs.by_table` give them.
    seed : int
        Of the bootstrap and of what is random in a method.
    kept : int
        Pieces, from the first on, whose sounds are kept.

    Raises
    ------
    MissingExtraError
        Nothing here can align.
    FolderError
        No pair could be measured.
    """
    check_device(device)
    aligning.check()
    pieces: list[Piece] = []
    failed = []
    for number, files in enumerate(found):
        if isinstance(files, Failed):
            failed.append(files)
            yield files
            continue
        try:
            done = len(METHODS) * number
            for event in _measured(files, model, seed, device, len(pieces) < kept):
                if isinstance(event, Piece):
                    pieces.append(event)
                    yield event
                else:
                    done += 1
                    yield Measuring(done, len(METHODS) * len(found), event)
        except TonewoodError as error:
            failed.append(Failed(files.source, error))
            yield failed[-1]
    yield summed(pieces, failed, seed)


def _measured(
    files: PairFiles, model: Model, seed: int, device: str, keep: bool
) -> Iterator[str | Piece]:
    """Yield every method before its turn, and last the piece."""
    pair = files.read()
    rate = pair.source.rate
    wanted = heard(pair.reference.samples, pair.reference.rate)
    alignment = _aligned(files, heard(pair.source.samples, rate), wanted)
    rows: dict[str, Row] = {}
    sounds = {"reference": wanted}
    for method, how in METHODS.items():
        yield method
        samples = pair.source.samples
        if how is not None:
            samples = enhanced(pair.source, model, how, seed, device).samples
        sounds[method] = heard(samples, rate)
        found = _distances(sounds[method], wanted, alignment)
        if found.mel == 0 and method == UNTOUCHED:
            raise AudioError(
                f"{shown(files.source)} and {shown(files.reference)} are the same recording; "
                "there is nothing to close: name another pair"
            )
        untouched = rows[UNTOUCHED].mel if rows else found.mel
        scored = score(samples, rate, model)
        rows[method] = Row(closed(untouched, found.mel), *found, scored.scorer, scored.judge)
    yield Piece(files, pair.source.duration, alignment, rows, sounds if keep else None)


def measured(files: PairFiles, model: Model, seed: int, device: str, keep: bool) -> Piece:
    """Measure every method on one pair; AudioError as `evaluate` tells it."""
    *_, piece = _measured(files, model, seed, device, keep)
    assert isinstance(piece, Piece)
    return piece


def _aligned(files: PairFiles, source: Tensor, reference: Tensor) -> Alignment:
    """Alignment of a pair; AudioError, which says what was found, if it cannot be believed."""
    alignment = aligning.align(source, reference, files.anchors)
    if fault := alignment.quality.fault:
        raise AudioError(f"{shown(files.source)} and {shown(files.reference)}: {fault}")
    return alignment


def _distances(estimate: Tensor, wanted: Tensor, alignment: Alignment) -> Distances:
    if not alignment.exact:
        return distances(estimate, wanted, alignment.at)
    length = min(len(estimate), len(wanted))
    return distances(estimate[:length], wanted[:length])


def summed(pieces: Sequence[Piece], failed: Sequence[Failed], seed: int) -> Evaluation:
    """What follows from all pieces; FolderError if there are none."""
    if not pieces:
        raise FolderError("no pair could be measured: mend or replace what is named above")
    figures = {
        method: {
            measure: np.array([getattr(piece.rows[method], measure) for piece in pieces])
            for measure in Row._fields
            if getattr(pieces[0].rows[method], measure) is not None
        }
        for method in METHODS
    }
    ours = figures[TONEWOOD]

    def over_pieces(values: NDArray[np.float64]) -> Interval:
        # One seed: every interval is drawn from the same choices of pieces.
        return interval(values, np.random.default_rng(seed))

    return Evaluation(
        pieces=tuple(pieces),
        failed=tuple(failed),
        means={
            method: {measure: over_pieces(values) for measure, values in by_measure.items()}
            for method, by_measure in figures.items()
        },
        gains={
            method: {
                measure: over_pieces(ours[measure] - values)
                for measure, values in by_measure.items()
            }
            for method, by_measure in figures.items()
            if method != TONEWOOD
        },
    )


def _as_json(intervals: dict[str, dict[str, Interval]]) -> dict[str, Any]:
    return {
        method: {measure: value._asdict() for measure, value in by_measure.items()}
        for method, by_measure in intervals.items()
    }
