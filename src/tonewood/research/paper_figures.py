"""Figures of the paper: a transformation with its masks, optimized blocks, saliency."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import ArrayTimeSeries, split_segments
from tonewood.dsp.features import center_frequencies
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.enhancement.analysis import ArraySource, analyse_source
from tonewood.enhancement.mask_search import MaskSearch, mask_grid, settings_for_model
from tonewood.enhancement.pipeline import Enhancement, scorer_input, to_analysis_rate
from tonewood.enhancement.plotting import plot_gains, plot_levels
from tonewood.enhancement.prior_mask import PriorMask
from tonewood.html_report import figure_png, new_figure
from tonewood.mask.mask import Mask
from tonewood.mask.search import StickyNoteGains, scatter_sticky_notes
from tonewood.model.model import Model
from tonewood.scorer.saliency import class_activation_map, interpolate_cam
from tonewood.setting_types import NoteShape
from tonewood.settings import default_enhance_settings
from tonewood.utils.arrays import Levels, RandomDraws, Samples


class OptimizedBlocks(NamedTuple):
    """Optimized mask of blocks (the paper's sticky notes), before and after smoothing."""

    shape: str
    sharp: Mask
    smooth: Mask


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
    settings = settings_for_model(settings, model)
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
