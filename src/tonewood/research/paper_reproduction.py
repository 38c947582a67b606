"""A corpus → the paper's figures, its accuracy and a table of methods, on one page.

The paper's three figures, drawn anew with a model and recordings at hand.
"""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.data.loading import AuditProgress, SideLoadProgress
from tonewood.dsp.chunking import TensorTimeSeries, split_segments
from tonewood.dsp.filterbank import center_frequencies
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.enhancement.analysis import ArraySource, analyse_source, score_array
from tonewood.enhancement.mask_search import MaskSearch, mask_grid
from tonewood.enhancement.output_files import FileFailure
from tonewood.enhancement.pipeline import Enhancement, scorer_input, to_analysis_rate
from tonewood.enhancement.plotting import plot_gains, plot_levels
from tonewood.enhancement.prior_mask import PriorMask
from tonewood.errors import FolderError, printable
from tonewood.evaluation import pairs as pairs_module
from tonewood.evaluation.metrics import gap_closed, mel_distance
from tonewood.evaluation.pairs import (
    MeasureProgress,
    RecordingPair,
    apply_method,
    pairs_by_name,
    to_mono_16k,
)
from tonewood.html_report import ReportFigure, ReportTable, figure_png, new_figure, render_report
from tonewood.mask.mask import Mask
from tonewood.mask.search import StickyNoteGains, scatter_sticky_notes
from tonewood.model.model import Model
from tonewood.scorer.saliency import class_activation_map, interpolate_cam
from tonewood.setting_types import NoteShape
from tonewood.settings import (
    EnhanceSettings,
    ModelSettings,
    Settings,
    default_enhance_settings,
)
from tonewood.training.distillation import LabelProgress
from tonewood.training.pipeline import train_model
from tonewood.training.preferences import ListenerAudioProgress
from tonewood.training.scorers import CheckEvent
from tonewood.utils.atomic_write import prepare_report_folder, write_bytes, write_text
from tonewood.utils.device import check_device


class OptimizedBlocks(NamedTuple):
    """An optimised mask of sticky notes, its edges sharp and averaged."""

    shape: str
    sharp: Mask
    smooth: Mask


def plot_transformation(
    before: NDArray[np.float32], blocks: Enhancement, free: Enhancement, model: Model
) -> bytes:
    """Figure 1: input and output, the mask from blocks, and the adversarial one; a PNG.

    Parameters
    ----------
    before : float32 array (channels, samples)
        The input, at the enhancements' rate.
    blocks, free : Enhancement
        By the paper's method from blocks, and from random pixels without penalties.
    """
    spectrum = model.settings.spectrum
    levels = [
        _spectrogram_levels(to_analysis_rate(it, blocks.rate, model), model)
        for it in (before, blocks.samples)
    ]
    loudest = max(float(level.max()) for level in levels)
    frames = levels[0].shape[1]
    figure, panels = new_figure(2, 2)
    plot_levels(panels[0][0], levels[0], spectrum, "input", loudest)
    plot_levels(panels[0][1], levels[1], spectrum, "transformed", loudest)
    plot_gains(panels[1][0], blocks.mask, frames, spectrum, "mask from blocks")
    plot_gains(panels[1][1], free.mask, frames, spectrum, "mask from random pixels, α = β = 0")
    return figure_png(figure)


def plot_block_masks(waves: Sequence[Tensor], model: Model, seed: int) -> bytes:
    """Figure 2: optimised blocks of two pieces [sample], before and after smoothing; a PNG."""
    spectrum = model.settings.spectrum
    figure, panels = new_figure(2 * len(waves), 2)
    rows = iter(panels)
    for number, wave in enumerate(waves, start=1):
        frames = _spectrogram_levels(wave, model).shape[1]
        for shape in get_args(NoteShape):
            made = optimize_blocks(wave, model, shape, seed)
            left, right = next(rows)
            name = f"piece {number}, {shape} blocks"
            plot_gains(left, made.sharp, frames, spectrum, f"{name}, before smoothing")
            plot_gains(right, made.smooth, frames, spectrum, f"{name}, smoothed")
    return figure_png(figure)


def optimize_blocks(wave: Tensor, model: Model, shape: NoteShape, seed: int) -> OptimizedBlocks:
    """Blocks over a mono waveform [sample], their gains found by the paper's objective."""
    settings = default_enhance_settings("paper").replace(prior=dict(notes=dict(shape=shape)))
    layout, spectrum = settings.prior.notes, model.settings.spectrum
    analysis = analyse_source(ArraySource(wave.numpy()[None], spectrum.rate), model)
    grid, frames, hop = (
        mask_grid(analysis, model, "paper"),
        analysis.rows_db.frames,
        spectrum.hop / spectrum.rate,
    )
    row_hz = torch.from_numpy(grid.hz).float()
    frame_s = torch.arange(frames) * hop
    generator = torch.Generator().manual_seed(seed)
    notes = scatter_sticky_notes(layout, len(frame_s) * hop, spectrum.rate / 2, generator)
    start = StickyNoteGains(notes, row_hz, frame_s, layout.smooth_hz, layout.smooth_ms / 1000)
    flat = PriorMask(TensorTimeSeries(torch.zeros(len(grid.hz), frames)), analysis.levels.mean_db)
    (segment,) = split_segments(frames, frames)
    *_, last = MaskSearch(model, settings, analysis, grid, flat).steps(segment, start, generator)
    found = replace(notes, gain_db=start.values.detach())
    sharp = StickyNoteGains(found, row_hz, frame_s, 0.0, 0.0).mask().detach()
    return OptimizedBlocks(
        shape,
        *(
            Mask(gain.numpy(), grid.hz, hop, spectrum.rate / 2).clip(settings.render.max_gain_db)
            for gain in (sharp, last.mask_db)
        ),
    )


def plot_saliency(waves: Sequence[Tensor], model: Model) -> bytes:
    """Figure 3: reference recordings [sample], and what speaks for the reference; a PNG."""
    spectrum = model.settings.spectrum
    figure, panels = new_figure(2, len(waves))
    for column, wave in enumerate(waves):
        levels, rows = _spectrogram_levels(wave, model), scorer_input(wave, model)
        activation = class_activation_map(model.scorer, rows)
        drawn = interpolate_cam(model.scorer, -activation, *rows.shape)
        # Brought to the spectrogram's own frequencies as a mask is, so that both panels line up.
        hz = center_frequencies(model.settings.scorer.bands, spectrum)
        weight = Mask(drawn.numpy(), hz, spectrum.hop / spectrum.rate, spectrum.rate / 2)
        plot_levels(panels[0][column], levels, spectrum, f"reference recording {column + 1}")
        plot_gains(
            panels[1][column],
            weight,
            levels.shape[1],
            spectrum,
            "saliency",
            label="for the reference",
            min_range_db=1e-6,
        )
    return figure_png(figure)


def _spectrogram_levels(wave: Tensor, model: Model) -> NDArray[np.float32]:
    spectrum = model.settings.spectrum
    levels: NDArray[np.float32] = log_magnitude(stft(wave, spectrum), spectrum).numpy()
    return levels


REPRODUCTION_PAGE, REPRODUCTION_TABLE = "index.html", "table.json"
FIGURE_FILES = ("figure-1.png", "figure-2.png", "figure-3.png")
_MAX_LENGTH_MISMATCH = 0.02  # of a pair's length; more is no alignment

_FREE_MASK_METHOD = "paper: random pixels, α = β = 0"
_BLOCK_MASK_METHOD = "paper: rectangular blocks"
_SEARCH_SETTINGS, _PAPER_SETTINGS = (
    default_enhance_settings("search"),
    default_enhance_settings("paper"),
)
REPRODUCED_METHODS: dict[str, EnhanceSettings | None] = {
    pairs_module.METHOD_UNTOUCHED: None,
    pairs_module.METHOD_STATIC: pairs_module.EVALUATED_METHODS[pairs_module.METHOD_STATIC],
    "neighbours": _SEARCH_SETTINGS.replace(prior=dict(kind="neighbours"), search=dict(steps=0)),
    _FREE_MASK_METHOD: _PAPER_SETTINGS.replace(prior=dict(kind="random"), search=dict(alpha=0, beta=0)),
    _BLOCK_MASK_METHOD: _PAPER_SETTINGS,
    pairs_module.METHOD_TONEWOOD: _SEARCH_SETTINGS,
}


class MethodMeans(Settings):
    """A method's means over the test pairs.

    Parameters
    ----------
    closed : float
        Share of the mel log-spectral distance to the paired take that was closed.
    scorer, judge : float
        Scores of the outputs, 0 sounds like the reference; the judge is missing from models
        without one.
    """

    method: str
    closed: float
    scorer: float
    judge: float | None


@dataclass(frozen=True)
class Reproduction:
    """What was found and where it was written."""

    page: Path
    accuracy: float
    windows: int
    crop_seconds: float
    pairs: int
    rows: tuple[MethodMeans, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """What was found, as JSON."""
        return {
            "accuracy": self.accuracy,
            "windows": self.windows,
            "crop_seconds": self.crop_seconds,
            "pairs": self.pairs,
            "methods": [row.model_dump(mode="json") for row in self.rows],
        }

    @property
    def table(self) -> list[list[str]]:
        """The methods as text, the head first."""
        table = [["method", "closed, %", "scorer", "judge"]]
        for row in self.rows:
            judge = "-" if row.judge is None else f"{row.judge:.2f}"
            table.append([row.method, f"{100 * row.closed:.1f}", f"{row.scorer:.2f}", judge])
        return table


ReproductionEvent = (
    AuditProgress
    | SideLoadProgress
    | ListenerAudioProgress
    | CheckEvent
    | LabelProgress
    | MeasureProgress
    | Reproduction
)


def reproduce_paper(
    corpus: Path,
    out: Path,
    settings: ModelSettings,
    *,
    model: Model | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> Iterator[ReproductionEvent]:
    """Write the report into the folder `out`; yields its progress and, last, what was found.

    Parameters
    ----------
    corpus : Path
        Laid out as train|test/{good,cheap}; test pieces are pairs by name.
    model : Model, optional
        Instead of one that is trained on the corpus, by `search_settings`.

    Raises
    ------
    FolderError, AudioError
        The corpus is laid out otherwise, or a recording in it cannot be used.
    OutputError
        The report cannot be written there.
    """
    check_device(device)
    prepare_report_folder(out, (*FIGURE_FILES, REPRODUCTION_TABLE, REPRODUCTION_PAGE), overwrite)
    test = read_test_pairs(corpus / "test")
    if model is None:
        folders = corpus / "train" / "good", corpus / "train" / "cheap"
        for event in train_model(*folders, settings, name=corpus.resolve().name, device=device):
            if isinstance(event, Model):
                model = event
            else:
                yield event
        assert model is not None
    seed = settings.training.seed
    rows, kept = [], {}
    for number, (name, how) in enumerate(REPRODUCED_METHODS.items()):
        measured = []
        for index, pair in enumerate(test):
            yield MeasureProgress(number * len(test) + index + 1, len(REPRODUCED_METHODS) * len(test), name)
            made = apply_method(pair.source, model, how, seed, device) if how else None
            if index == 0 and made is not None:
                kept[name] = made
            samples = pair.source.samples if made is None else made.samples
            measured.append(_measure_method(name, pair, samples, model))
        rows.append(_mean_of_pairs(measured))
    sources, references = (
        [to_analysis_rate(it.samples, it.rate, model) for it in side[:2]] for side in zip(*test, strict=True)
    )
    drawn = (
        plot_transformation(test[0].source.samples, kept[_BLOCK_MASK_METHOD], kept[_FREE_MASK_METHOD], model),
        plot_block_masks(sources, model, seed),
        plot_saliency(references, model),
    )
    card = model.card.scorer
    done = Reproduction(
        page=out / REPRODUCTION_PAGE,
        accuracy=card.accuracy,
        windows=card.windows,
        crop_seconds=model.settings.scorer.crop_seconds,
        pairs=len(test),
        rows=tuple(rows),
    )
    for name, png in zip(FIGURE_FILES, drawn, strict=True):
        write_bytes(out / name, png, overwrite=overwrite)
    write_text(out / REPRODUCTION_TABLE, json.dumps(done.summary, indent=1) + "\n", overwrite=overwrite)
    write_text(out / REPRODUCTION_PAGE, _reproduction_page(done, corpus, model, drawn), overwrite=overwrite)
    yield done


def read_test_pairs(folder: Path) -> list[RecordingPair]:
    """Pairs of one name below cheap/ and good/.

    Raises
    ------
    FolderError
        A piece has no partner, or one of another length.
    """
    read = []
    for files in pairs_by_name(folder / "cheap", folder / "good"):
        if isinstance(files, FileFailure):
            raise files.error
        pair = files.read()
        short, long = sorted(recording.duration for recording in pair)
        if short < (1 - _MAX_LENGTH_MISMATCH) * long:
            raise FolderError(
                f"{printable(files.source)} lasts {pair.source.duration:.2f} s and its partner "
                f"{pair.reference.duration:.2f} s: align them first"
            )
        read.append(pair)
    return read


def _measure_method(
    name: str, pair: RecordingPair, samples: NDArray[np.float32], model: Model
) -> MethodMeans:
    rate = pair.source.rate
    waves = [
        to_mono_16k(pair.reference.samples, pair.reference.rate),
        to_mono_16k(pair.source.samples, rate),
        to_mono_16k(samples, rate),
    ]
    length = min(len(wave) for wave in waves)
    wanted, before, after = (wave[:length] for wave in waves)
    share = gap_closed(mel_distance(before, wanted), mel_distance(after, wanted))
    found = score_array(samples, rate, model)
    return MethodMeans(method=name, closed=share, scorer=found.scorer, judge=found.judge)


def _mean_of_pairs(rows: Sequence[MethodMeans]) -> MethodMeans:
    judges = [row.judge for row in rows if row.judge is not None]
    return MethodMeans(
        method=rows[0].method,
        closed=statistics.fmean(row.closed for row in rows),
        scorer=statistics.fmean(row.scorer for row in rows),
        judge=statistics.fmean(judges) if judges else None,
    )


def _reproduction_page(result: Reproduction, corpus: Path, model: Model, figure_pngs: Sequence[bytes]) -> str:
    captions = (
        "Figure 1. A source recording, transformed by the paper's method from rectangular blocks; "
        "that mask; and the mask that random pixels become without penalties (α = β = 0), noisy "
        "however well it scores.",
        "Figure 2. Rectangular and square blocks with the gains that the paper's objective found, "
        "before and after smoothing.",
        "Figure 3. Reference recordings and their class activation maps, turned over: red speaks "
        "for the reference, blue against it. Each map's mean, less the bias, is minus the logit.",
    )
    names = ("Figure 1", "Figure 2", "Figure 3")
    versions = ", ".join(f"{name} {value}" for name, value in model.card.versions.items())
    return render_report(
        f"The paper reproduced on {printable(corpus.resolve().name)}",
        (
            "After Verma & Berger, Learning to Model Aspects of Auditory Perception Using Neural "
            "Loss Functions.",
            f"The scorer of model {printable(model.name)} is right on {100 * result.accuracy:.1f} % of "
            f"{result.windows} held-out windows of {result.crop_seconds:g} s; the paper reports about "
            "93 %, on other recordings.",
            f"Trained with {versions}; seed {model.card.seed}.",
            ReportTable(
                f"Means over {result.pairs} test pairs. Closed: share of the mel log-spectral "
                "distance to the paired reference take; negative is worse than doing nothing. "
                "Scorer and judge: 1 sounds like the source, 0 like the reference; the judge is a "
                "scorer that no search saw.",
                result.table,
            ),
            *(ReportFigure(*it) for it in zip(names, figure_pngs, captions, strict=True)),
        ),
    )
