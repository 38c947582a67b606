"""What an evaluation found, as JSON, as CSV and as a page with players and spectrograms."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.errors import shown
from tonewood.evaluation.frechet import Estimate
from tonewood.evaluation.intervals import Interval
from tonewood.files.modelfile import Model
from tonewood.files.output import prepare_folder, write_text
from tonewood.settings import SpectrumSettings
from tonewood.signal.loudness import integrated_loudness
from tonewood.signal.spectrum import log_magnitude, stft
from tonewood.workflow import picture
from tonewood.workflow.distribution import Comparison
from tonewood.workflow.evaluate import Evaluation, Piece, Row
from tonewood.workflow.page import Block, Heading, Picture, Sound, Table, page
from tonewood.workflow.pairs import RATE, TONEWOOD

PAGE, DATA, TABLE = "index.html", "evaluation.json", "evaluation.csv"
KEPT = 3  # pieces to be heard on the page
_EXCERPT_SECONDS = 5.0
_PEAK = 0.9
_SPECTRUM = SpectrumSettings()
# Title, scale and digits of what is told of a method.
_COLUMNS = {
    "closed": ("closed, %", 100.0, 1),
    "mel": ("mel, dB", 1.0, 2),
    "multi_resolution": ("several windows, dB", 1.0, 2),
    "long_term": ("long-term, dB", 1.0, 2),
    "scorer": ("scorer", 1.0, 2),
    "judge": ("judge", 1.0, 2),
}
_AT_A_GLANCE = ("closed", "mel", "judge")

Text = list[list[str]]


class Report(NamedTuple):
    """What was asked for: pairs, folders, or both."""

    pairs: Evaluation | None
    folders: Comparison | None

    @property
    def summary(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {
            "pairs": self.pairs.summary if self.pairs else None,
            "folders": self.folders.summary if self.folders else None,
        }


def prepare(out: Path, overwrite: bool) -> None:
    """Make the folder, or refuse before the work what would be refused after it."""
    picture.check("a report")
    prepare_folder(out, (PAGE, DATA, TABLE), overwrite)


def write(out: Path, done: Report, model: Model, *, overwrite: bool = False) -> Path:
    """Write the report's files into the folder `out`; returns the page."""
    files = {DATA: json.dumps(done.summary, indent=1, allow_nan=False) + "\n"}
    if done.pairs:
        files[TABLE] = _csv(done.pairs.pieces)
    files[PAGE] = _page(done, model)
    for name, text in files.items():
        write_text(out / name, text, overwrite=overwrite)
    return out / PAGE


def means_table(found: Evaluation, measures: Sequence[str] = _AT_A_GLANCE) -> Text:
    """Methods and their means, each with its interval, as text; the head first."""
    rows = [["method", *(_COLUMNS[measure][0] for measure in measures)]]
    for method, by_measure in found.means.items():
        rows.append([method, *_cells(by_measure, measures)])
    for method, by_measure in found.gains.items():
        rows.append([f"{TONEWOOD} − {method}", *_cells(by_measure, measures)])
    return rows


def folders_table(found: Comparison) -> Text:
    """Fréchet distances as text, the head first."""
    rows = [["Fréchet distance of", "distance", "error", "bias left in"]]
    named = (("the scorer's features", found.scorer), ("mel levels, dB²", found.mel))
    rows.extend([name, *_significant(value)] for name, value in named)
    return rows


def _significant(value: Estimate) -> list[str]:
    return [f"{number:.4g}" for number in value]


def _cells(by_measure: dict[str, Interval], measures: Sequence[str]) -> list[str]:
    return [
        _told(by_measure[measure], *_COLUMNS[measure][1:]) if measure in by_measure else "-"
        for measure in measures
    ]


def _told(value: Interval, scale: float, digits: int) -> str:
    mean, *ends = (None if it is None else f"{scale * it:.{digits}f}" for it in value)
    return f"{mean}" if None in ends else f"{mean} ({ends[0]} to {ends[1]})"


def _csv(pieces: Sequence[Piece]) -> str:
    """Every method on every piece, a line each."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    quality = pieces[0].alignment.quality._fields
    writer.writerow(["piece", "method", *Row._fields, "exact", *quality])
    for piece in pieces:
        aligned = [piece.alignment.exact, *piece.alignment.quality]
        for method, row in piece.rows.items():
            values = ["" if it is None else it for it in (*row, *aligned)]
            writer.writerow([shown(piece.files.name), method, *values])
    return stream.getvalue()


def _page(done: Report, model: Model) -> str:
    blocks: list[Block] = [
        f"Model {shown(model.name)}: reference {shown(model.card.reference.name)}, source "
        f"{shown(model.card.source.name)}."
    ]
    if done.pairs:
        blocks += _pair_blocks(done.pairs)
    if done.folders:
        blocks += _folder_blocks(done.folders)
    for piece in done.pairs.pieces if done.pairs else ():
        if piece.sounds is not None:
            blocks += _piece_blocks(piece, piece.sounds)
    return page("How near to the reference", blocks)


def _pair_blocks(found: Evaluation) -> list[Block]:
    blocks: list[Block] = [
        Heading("Pairs"),
        Table(
            f"Means over {len(found.pieces)} pairs, with 95 % bootstrap intervals over pairs. "
            "Closed: share of the mel log-spectral distance to the paired reference take; negative "
            "is worse than doing nothing. Distances in dB. Scorer and judge: 1 sounds like the "
            "source, 0 like the reference.",
            means_table(found, tuple(_COLUMNS)),
        ),
        Table(
            "Alignment: agreement of the pitches along it, and by chance; extremes of the tempo "
            "ratio; share of the source without a counterpart. Exact pairs were left as they are.",
            _pieces_table(found.pieces),
        ),
    ]
    if found.failed:
        rows = [["left out"], *([str(it.error)] for it in found.failed)]
        blocks.append(Table("In none of the figures, each with its reason.", rows))
    return blocks


def _folder_blocks(found: Comparison) -> list[Block]:
    return [
        Heading("Folders"),
        Table(
            f"{shown(found.output)} ({found.stretches[0]} stretches of up to ten seconds) against "
            f"{shown(found.reference)} ({found.stretches[1]}). Distances are extrapolated to "
            "endless recordings and so may fall below 0 where there is no difference.",
            folders_table(found),
        ),
    ]


def _pieces_table(pieces: Sequence[Piece]) -> Text:
    methods = [method for method in pieces[0].rows if method != "untouched"]
    closed = [f"{method} closed, %" for method in methods]
    head = ["pair", *closed, "alignment", "agreement", "chance", "tempo ratio", "lone, %"]
    rows = [head]
    for piece in pieces:
        quality = piece.alignment.quality
        rows.append(
            [
                shown(piece.files.name),
                *(f"{100 * piece.rows[method].closed:.1f}" for method in methods),
                "exact pair" if piece.alignment.exact else "warped",
                f"{quality.similarity:.2f}",
                f"{quality.chance:.2f}",
                f"{quality.slowest:.2f} to {quality.fastest:.2f}",
                f"{100 * quality.stuck:.1f}",
            ]
        )
    return rows


def _piece_blocks(piece: Piece, sounds: dict[str, Tensor]) -> list[Block]:
    """An excerpt of a piece: players and spectrograms of every method and the reference."""
    excerpts = _excerpts(piece, sounds)
    name = shown(piece.files.name)
    blocks: list[Block] = [Heading(name)]
    blocks += [Sound("audio/flac", _flac(wave), title) for title, wave in excerpts.items()]
    caption = "The same excerpts: log magnitude, 80 dB down from the loudest."
    return [*blocks, Picture(f"Spectrograms of {name}", _spectrograms(excerpts), caption)]


def _excerpts(piece: Piece, sounds: dict[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    """Five seconds around the middle by method, and the reference's same moment, equally loud."""
    seconds = min(_EXCERPT_SECONDS, piece.seconds)
    grid = (piece.seconds - seconds) / 2 + np.arange(51) * (seconds / 50)
    places = piece.alignment.at(grid)
    places = places[np.isfinite(places)]
    own = float(grid[0]), float(grid[-1])
    theirs = (float(places[0]), float(places[-1])) if places.size else (0.0, seconds)
    cut = {}
    for name, wave in sounds.items():
        first, last = (round(s * RATE) for s in (theirs if name == "reference" else own))
        cut[name] = wave[first : max(last, first + RATE // 4)].numpy()
    loud = {name: integrated_loudness(wave[None], RATE) for name, wave in cut.items()}
    wanted = loud["untouched"]
    levelled = {
        name: wave * 10 ** ((wanted - loud[name]) / 20) if np.isfinite(loud[name]) else wave
        for name, wave in cut.items()
    }
    peak = max(float(np.abs(wave).max(initial=0.0)) for wave in levelled.values())
    gain = min(1.0, _PEAK / peak) if peak > 0 else 1.0
    return {name: (wave * gain).astype(np.float32) for name, wave in levelled.items()}


def _flac(wave: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, wave, RATE, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def _spectrograms(excerpts: dict[str, NDArray[np.float32]]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.4 * len(excerpts)), layout="constrained")
    panels = figure.subplots(len(excerpts), 1, squeeze=False)[:, 0]
    levels = {
        name: log_magnitude(stft(torch.from_numpy(wave), _SPECTRUM), _SPECTRUM).numpy()
        for name, wave in excerpts.items()
    }
    loudest = max(float(level.max()) for level in levels.values())
    for axes, (name, level) in zip(panels, levels.items(), strict=True):
        picture.show_levels(axes, level, _SPECTRUM, name, loudest)
    panels[-1].set_xlabel("s")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    return stream.getvalue()
