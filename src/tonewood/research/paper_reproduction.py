"""Reproduce the paper on a corpus: its accuracy, its three figures and a table of methods."""

import json
import statistics
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import ArrayTimeSeries, split_segments
from tonewood.dsp.features import center_frequencies
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.enhancement.analysis import ArraySource, analyse_source, score_array
from tonewood.enhancement.mask_search import MaskSearch, mask_grid
from tonewood.enhancement.output_files import FileFailure
from tonewood.enhancement.pipeline import Enhancement, scorer_input, to_analysis_rate
from tonewood.enhancement.plotting import plot_gains, plot_levels
from tonewood.enhancement.prior_mask import PriorMask
from tonewood.errors import FolderError, printable
from tonewood.evaluation.metrics import gap_closed, mel_distance
from tonewood.evaluation.pairs import (
    EVALUATED_METHODS,
    METHOD_STATIC,
    METHOD_TONEWOOD,
    METHOD_UNTOUCHED,
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
from tonewood.setting_types import NoteShape, Settings
from tonewood.settings import EnhanceSettings, ModelSettings, default_enhance_settings
from tonewood.training.pipeline import TrainingProgress, train_model
from tonewood.utils.arrays import Levels, RandomDraws, Samples
from tonewood.utils.atomic_write import prepare_report_folder, write_bytes, write_text
from tonewood.utils.parallel import check_device
from tonewood.utils.paths import real_path

REPRODUCTION_PAGE, REPRODUCTION_TABLE = "index.html", "table.json"
FIGURE_FILES = ("figure-1.png", "figure-2.png", "figure-3.png")
_MAX_LENGTH_MISMATCH = 0.02  # of the longer recording; a larger difference cannot be an aligned pair

_FREE_MASK_METHOD = "paper: random pixels, α = β = 0"
_BLOCK_MASK_METHOD = "paper: rectangular blocks"
_SEARCH_SETTINGS, _PAPER_SETTINGS = (default_enhance_settings("search"), default_enhance_settings("paper"))
REPRODUCED_METHODS: dict[str, EnhanceSettings | None] = {
    METHOD_UNTOUCHED: None,
    METHOD_STATIC: EVALUATED_METHODS[METHOD_STATIC],
    "neighbours": _SEARCH_SETTINGS.replace(prior=dict(kind="neighbours"), search=dict(steps=0)),
    _FREE_MASK_METHOD: _PAPER_SETTINGS.replace(prior=dict(kind="random"), search=dict(alpha=0, beta=0)),
    _BLOCK_MASK_METHOD: _PAPER_SETTINGS,
    METHOD_TONEWOOD: _SEARCH_SETTINGS,
}


class MethodMeans(Settings):
    """Means of a method over the test pairs.

    Attributes
    ----------
    closed : float
        Share of the mel log-spectral distance to the paired recording that the method closes.
    scorer, judge : float
        Scores of the outputs; 0 sounds like the reference. The judge is None if the model has none.
    """

    method: str
    closed: float
    scorer: float
    judge: float | None


@dataclass(frozen=True)
class Reproduction:
    """Results of the reproduction, and the page that shows them."""

    page: Path
    accuracy: float
    windows: int
    crop_seconds: float
    pairs: int
    rows: tuple[MethodMeans, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """Results for JSON."""
        return {
            "accuracy": self.accuracy,
            "windows": self.windows,
            "crop_seconds": self.crop_seconds,
            "pairs": self.pairs,
            "methods": [row.model_dump(mode="json") for row in self.rows],
        }

    @property
    def table(self) -> list[list[str]]:
        """Means by method as text; the header is the first row."""
        table = [["method", "closed, %", "scorer", "judge"]]
        for row in self.rows:
            judge = "-" if row.judge is None else f"{row.judge:.2f}"
            table.append([row.method, f"{100 * row.closed:.1f}", f"{row.scorer:.2f}", judge])
        return table


ReproductionEvent = TrainingProgress | MeasureProgress | Reproduction


class OptimizedBlocks(NamedTuple):
    """Optimized mask of blocks (the paper's sticky notes), before and after smoothing."""

    shape: str
    sharp: Mask
    smooth: Mask


def reproduce_paper(
    corpus: Path,
    out: Path,
    settings: ModelSettings,
    *,
    model: Model | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> Iterator[ReproductionEvent]:
    """Write the report into the folder `out`; yield the progress and, last, the `Reproduction`.

    Parameters
    ----------
    corpus : Path
        Folder with train/good, train/cheap, test/good and test/cheap; test files are paired by name.
    model : Model, optional
        Used instead of training a model on the corpus.
    device : str
        Of the training.

    Raises
    ------
    FolderError, AudioError
        The corpus has another layout, or a recording in it cannot be used.
    OutputError
        The report cannot be written.
    """
    check_device(device)
    prepare_report_folder(out, (*FIGURE_FILES, REPRODUCTION_TABLE, REPRODUCTION_PAGE), overwrite)
    pairs = read_test_pairs(corpus / "test")
    if model is None:
        folders = corpus / "train" / "good", corpus / "train" / "cheap"
        for event in train_model(*folders, settings, name=real_path(corpus).name, device=device):
            if isinstance(event, Model):
                model = event
            else:
                yield event
        assert model is not None

    seed = settings.training.seed
    measured = yield from _measure_methods(pairs, model, seed)
    figure_pngs = _plot_figures(pairs, measured.first_outputs, model, seed)
    card = model.card.scorer
    result = Reproduction(
        page=out / REPRODUCTION_PAGE,
        accuracy=card.accuracy,
        windows=card.windows,
        crop_seconds=model.settings.scorer.crop_seconds,
        pairs=len(pairs),
        rows=measured.rows,
    )
    for name, png in zip(FIGURE_FILES, figure_pngs, strict=True):
        write_bytes(out / name, png, overwrite=overwrite)
    write_text(out / REPRODUCTION_TABLE, json.dumps(result.summary, indent=1) + "\n", overwrite=overwrite)
    write_text(
        out / REPRODUCTION_PAGE, _reproduction_page(result, corpus, model, figure_pngs), overwrite=overwrite
    )
    yield result


class MeasuredMethods(NamedTuple):
    """Means of every method, and the outputs for the first pair by method."""

    rows: tuple[MethodMeans, ...]
    first_outputs: dict[str, Enhancement]


def _measure_methods(
    pairs: Sequence[RecordingPair], model: Model, seed: int
) -> Generator[MeasureProgress, None, MeasuredMethods]:
    """Measure every method on every pair; yields the progress."""
    rows: list[MethodMeans] = []
    first_outputs: dict[str, Enhancement] = {}
    turn, turns = 0, len(REPRODUCED_METHODS) * len(pairs)
    for name, method in REPRODUCED_METHODS.items():
        measures = []
        for pair in pairs:
            turn += 1
            yield MeasureProgress(turn, turns, name)
            samples = pair.source.samples
            if method is not None:
                enhancement = apply_method(pair.source, model, method, seed)
                first_outputs.setdefault(name, enhancement)
                samples = enhancement.samples
            measures.append(_measure_method(name, pair, samples, model))
        rows.append(_mean_of_pairs(measures))
    return MeasuredMethods(tuple(rows), first_outputs)


def _plot_figures(
    pairs: Sequence[RecordingPair], first_outputs: Mapping[str, Enhancement], model: Model, seed: int
) -> tuple[bytes, ...]:
    """Plot the three figures of the paper; the first one shows the first pair."""
    sources, references = (
        [to_analysis_rate(recording.samples, recording.rate, model) for recording in side[:2]]
        for side in zip(*pairs, strict=True)
    )
    blocks, free = first_outputs[_BLOCK_MASK_METHOD], first_outputs[_FREE_MASK_METHOD]
    return (
        plot_transformation(pairs[0].source.samples, blocks, free, model),
        plot_block_masks(sources, model, seed),
        plot_saliency(references, model),
    )


def read_test_pairs(folder: Path) -> list[RecordingPair]:
    """Read the pairs of the same name in cheap/ and good/.

    Raises
    ------
    FolderError
        A recording has no partner, or one of another length.
    """
    pairs = []
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
        pairs.append(pair)
    return pairs


def _measure_method(
    name: str, pair: RecordingPair, samples: NDArray[np.float32], model: Model
) -> MethodMeans:
    rate = pair.source.rate
    waves = [
        to_mono_16k(pair.reference.samples, pair.reference.rate),
        to_mono_16k(pair.source.samples, rate),
        to_mono_16k(samples, rate),
    ]
    # Test pairs are simultaneous: they are cut to equal length, not aligned.
    length = min(len(wave) for wave in waves)
    reference, before, after = (wave[:length] for wave in waves)
    closed = gap_closed(mel_distance(before, reference), mel_distance(after, reference))
    score = score_array(samples, rate, model)
    return MethodMeans(method=name, closed=closed, scorer=score.scorer, judge=score.judge)


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
        "Figure 1. A source recording, and its output by the paper's method from rectangular blocks. Below: "
        "the mask from blocks, and the mask from random pixels without penalties (α = β = 0). The latter is "
        "noisy although it scores well.",
        "Figure 2. Rectangular and square blocks with gains optimized by the paper's objective, before and "
        "after smoothing.",
        "Figure 3. Reference recordings and their class activation maps with inverted sign: red speaks for "
        "the reference, blue against it. The mean of each map minus the bias is minus the logit.",
    )
    names = ("Figure 1", "Figure 2", "Figure 3")
    versions = ", ".join(f"{name} {value}" for name, value in model.card.versions.items())
    return render_report(
        f"Reproduction of the paper on {printable(real_path(corpus).name)}",
        (
            "After Verma & Berger, Learning to Model Aspects of Auditory Perception Using Neural "
            "Loss Functions.",
            f"The scorer of model {printable(model.name)} classifies {100 * result.accuracy:.1f} % of "
            f"{result.windows} held-out windows of {result.crop_seconds:g} s correctly; the paper reports "
            "about 93 % on other recordings.",
            f"Trained with {versions}; seed {model.card.seed}.",
            ReportTable(
                f"Means over {result.pairs} test pairs. Closed: share of the mel log-spectral "
                "distance to the paired reference recording that the method closes; negative is worse than "
                "doing nothing. Scorer and judge: 0 sounds like the reference, 1 like the source; the judge "
                "is a scorer that no search used.",
                result.table,
            ),
            *(ReportFigure(*figure) for figure in zip(names, figure_pngs, captions, strict=True)),
        ),
    )


def plot_transformation(
    before: NDArray[np.float32], blocks: Enhancement, free: Enhancement, model: Model
) -> bytes:
    """Plot figure 1: input and output, the mask from blocks, and the adversarial mask.

    Parameters
    ----------
    before : array (channels, samples)
        Input at the rate of the enhancements.
    blocks, free : Enhancement
        The paper's method from blocks, and from random pixels without penalties.
    """
    spectrum = model.settings.spectrum
    levels = [
        _spectrogram_levels(to_analysis_rate(samples, blocks.rate, model), model)
        for samples in (before, blocks.samples)
    ]
    # One color scale for input and output.
    loudest = max(float(level.max()) for level in levels)
    frames = levels[0].shape[1]
    figure, panels = new_figure(2, 2)
    plot_levels(panels[0][0], levels[0], spectrum, "input", loudest)
    plot_levels(panels[0][1], levels[1], spectrum, "transformed", loudest)
    plot_gains(panels[1][0], blocks.mask, frames, spectrum, "mask from blocks")
    plot_gains(panels[1][1], free.mask, frames, spectrum, "mask from random pixels, α = β = 0")
    return figure_png(figure)


def plot_block_masks(waves: Sequence[Samples], model: Model, seed: int) -> bytes:
    """Plot figure 2: optimized blocks of two pieces [sample], before and after smoothing."""
    spectrum = model.settings.spectrum
    figure, panels = new_figure(2 * len(waves), 2)
    rows = iter(panels)
    for number, wave in enumerate(waves, start=1):
        frames = _spectrogram_levels(wave, model).shape[1]
        for shape in get_args(NoteShape):
            masks = optimize_blocks(wave, model, shape, seed)
            left, right = next(rows)
            name = f"piece {number}, {shape} blocks"
            plot_gains(left, masks.sharp, frames, spectrum, f"{name}, before smoothing")
            plot_gains(right, masks.smooth, frames, spectrum, f"{name}, smoothed")
    return figure_png(figure)


def optimize_blocks(wave: Samples, model: Model, shape: NoteShape, seed: int) -> OptimizedBlocks:
    """Optimize the gains of random blocks over a waveform [sample] by the paper's objective."""
    settings = default_enhance_settings("paper").replace(prior=dict(notes=dict(shape=shape)))
    layout, spectrum = settings.prior.notes, model.settings.spectrum
    analysis = analyse_source(ArraySource(wave[None], spectrum.rate), model)
    grid, frames = mask_grid(analysis, model, "paper"), analysis.rows_db.frames
    hop = spectrum.hop / spectrum.rate
    row_hz = grid.hz.astype(np.float32)
    frame_s = np.arange(frames, dtype=np.float32) * np.float32(hop)
    draws = RandomDraws(seed)
    notes = scatter_sticky_notes(layout, frames * hop, spectrum.rate / 2, draws)
    start = StickyNoteGains(notes, row_hz, frame_s, layout.smooth_hz, layout.smooth_ms / 1000)
    # The paper optimizes a recording as a whole: one segment, without a prior.
    zeros = np.zeros((len(grid.hz), frames), dtype=np.float32)
    flat = PriorMask(ArrayTimeSeries(zeros), analysis.levels.mean_db)
    (segment,) = split_segments(frames, frames)
    steps = MaskSearch(model, settings, analysis, grid, flat).steps(segment, start, draws)
    (last,) = deque(steps, maxlen=1)  # each step holds a mask
    # The optimised gains, rendered without smoothing.
    optimized = replace(notes, gain_db=start.values)
    sharp = StickyNoteGains(optimized, row_hz, frame_s, 0.0, 0.0).mask()
    return OptimizedBlocks(
        shape,
        *(
            Mask(gain, grid.hz, hop, spectrum.rate / 2).clip(settings.render.max_gain_db)
            for gain in (sharp, last.mask_db)
        ),
    )


def plot_saliency(waves: Sequence[Samples], model: Model) -> bytes:
    """Plot figure 3: reference recordings [sample], and the evidence for the reference."""
    spectrum = model.settings.spectrum
    figure, panels = new_figure(2, len(waves))
    for column, wave in enumerate(waves):
        levels, rows = _spectrogram_levels(wave, model), scorer_input(wave, model)
        activation = class_activation_map(model.scorer, rows)
        # The logit is that of the source, so its negative speaks for the reference.
        evidence = interpolate_cam(model.scorer, -activation, *rows.shape)
        # A mask interpolates rows to the frequencies of the spectrogram, so that both panels line up.
        hz = center_frequencies(model.settings.scorer.bands, spectrum)
        weight = Mask(evidence, hz, spectrum.hop / spectrum.rate, spectrum.rate / 2)
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


def _spectrogram_levels(wave: Samples, model: Model) -> Levels:
    spectrum = model.settings.spectrum
    return log_magnitude(stft(wave, spectrum), spectrum)
