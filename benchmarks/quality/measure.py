"""Columns: measurements of every output, and means over pieces and seeds."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import tonewood
from quality import outside
from quality.bench import Bench, Fitted, Output, Row, SkippedError
from quality.corpus import Piece, mono
from tonewood.dsp.features import center_frequencies
from tonewood.evaluation.metrics import PairDistances, gap_closed, measure_distances, zimtohrli_distance
from tonewood.mask.mask import Mask
from tonewood.settings import BandSettings, ModelSettings

# Roughness depends on the grid; every mask is looked at on this one.
_GRID_HZ = center_frequencies(BandSettings(scale="mel", count=48), ModelSettings().spectrum)


class Column(NamedTuple):
    """A figure of one output, by its name in JSON."""

    head: str
    unit: str
    decimals: int
    meaning: str


COLUMNS = {
    "closed": Column("closed", "%", 1, "share of the mel log-spectral distance to the paired take"),
    "log_spectral": Column("LSD", "dB", 2, "log-spectral distance, all FFT bins"),
    "multi_resolution": Column(
        "multi-res", "dB", 2, "log-spectral distance, mean over windows of 32, 64 and 128 ms"
    ),
    "long_term": Column("long-term", "dB", 2, "band error of the long-term mel spectrum"),
    "scorer": Column("scorer", "", 2, "Tonewood's scorer, which the search may use; 0 = reference"),
    "judge": Column("judge", "", 2, "Tonewood's judge, which the search does not use; 0 = reference"),
    "outside": Column("outside judge", "", 2, "judge of another architecture, trained on other takes"),
    "zimtohrli": Column("Zimtohrli", "", 4, "perceptual distance to the paired take; 0 = equal"),
    "roughness_db": Column("rough", "dB", 2, "mean step of the mask in 10 ms, on 48 mel rows"),
    "largest_db": Column("largest", "dB", 1, "largest gain of the mask"),
    "seconds": Column("s/piece", "s", 2, "of one core, per recording"),
    "training_seconds": Column("training", "s", 0, "of one core, once"),
}


def run(bench: Bench, row: Row, judge: outside.OutsideJudge) -> dict:
    """Train one row and test it on every piece; {"skipped": reason} if it is not available."""
    try:
        fitted = row.fit(bench)
    except SkippedError as error:
        return {"skipped": str(error)}
    pieces = [_measure_output(piece, *_timed(fitted, piece), bench, judge) for piece in bench.corpus.test]
    means = {name: _mean([values[name] for values in pieces]) for name in pieces[0]}
    names = [piece.name for piece in bench.corpus.test]
    return {
        "seed": bench.seed,
        **means,
        "training_seconds": fitted.seconds,
        "note": fitted.note,
        "pieces": dict(zip(names, pieces, strict=True)),
    }


def summary(seeds: Sequence[dict]) -> dict[str, tuple[float | None, float]]:
    """Mean and standard deviation over seeds of every column; None where there is no figure."""
    table = {}
    for name in COLUMNS:
        values = [run[name] for run in seeds if run.get(name) is not None]  # older files lack columns
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        table[name] = (_mean(values), spread)
    return table


def _timed(fitted: Fitted, piece: Piece) -> tuple[Output, float]:
    start_time = time.process_time()
    output = fitted.enhance(piece)
    seconds = time.process_time() - start_time
    return output, seconds if output.seconds is None else output.seconds


def _measure_output(piece: Piece, output: Output, seconds: float, bench: Bench, judge: outside.OutsideJudge):
    model = bench.trained().model
    wave = mono(output.samples, output.rate)
    length = len(piece.target)
    padded = np.pad(wave[:length], (0, max(0, length - len(wave))))
    after = measure_distances(padded, piece.target)
    before: PairDistances = measure_distances(piece.before, piece.target)
    score = tonewood.score(output.samples, output.rate, model)
    return {
        "closed": 100 * gap_closed(before.mel, after.mel),
        **after._asdict(),
        "scorer": score.scorer,
        "judge": score.judge,
        "outside": judge.score(wave),
        "zimtohrli": zimtohrli_distance(padded, piece.target),
        "roughness_db": _roughness(output.mask),
        "largest_db": output.mask.largest_db if output.mask else None,
        "seconds": seconds,
    }


def _roughness(mask: Mask | None) -> float | None:
    if mask is None:
        return None
    frames = math.ceil(mask.gain_db.shape[1] * mask.hop_seconds / 0.01)
    seconds = np.arange(frames) * 0.01
    return Mask(mask.gain_at(_GRID_HZ, seconds), _GRID_HZ, 0.01, mask.top_hz).roughness_db


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
