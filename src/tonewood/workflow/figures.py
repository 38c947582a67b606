"""The paper's three figures, drawn anew with a model and recordings at hand."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.files.modelfile import Model
from tonewood.masking.mask import Mask
from tonewood.masking.notes import scatter_sticky_notes
from tonewood.masking.optimise import StickyNoteGains, search_mask
from tonewood.scoring.saliency import class_activation_map, interpolate_cam
from tonewood.settings import apply_assignments, default_enhance_settings
from tonewood.signal.bands import center_frequencies
from tonewood.signal.spectrum import log_magnitude, stft
from tonewood.workflow.enhance import Enhancement, to_analysis_rate, scorer_input
from tonewood.workflow.hearing import ArraySource, analyse_source
from tonewood.workflow.mask import mask_grid
from tonewood.workflow.picture import plot_gains, plot_levels


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
    levels = [_spectrogram_levels(to_analysis_rate(it, blocks.rate, model), model) for it in (before, blocks.samples)]
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
        for shape in ("rectangular", "square"):
            made = optimize_blocks(wave, model, shape, seed)
            left, right = next(rows)
            name = f"piece {number}, {shape} blocks"
            plot_gains(left, made.sharp, frames, spectrum, f"{name}, before smoothing")
            plot_gains(right, made.smooth, frames, spectrum, f"{name}, smoothed")
    return figure_png(figure)


def optimize_blocks(wave: Tensor, model: Model, shape: str, seed: int) -> OptimizedBlocks:
    """Blocks over a mono waveform [sample], their gains found by the paper's objective."""
    settings = apply_assignments(default_enhance_settings("paper"), [f"prior.notes.shape={shape}"])
    laid, spectrum = settings.prior.notes, model.settings.spectrum
    grid = mask_grid(analyse_source(ArraySource(wave.numpy()[None], spectrum.rate), model), model, "paper")
    levels = grid.levels_db.read(0, grid.levels_db.frames)
    hop = spectrum.hop / spectrum.rate
    row_hz = torch.from_numpy(grid.hz).float()
    frame_s = torch.arange(levels.shape[1]) * hop
    generator = torch.Generator().manual_seed(seed)
    notes = scatter_sticky_notes(laid, len(frame_s) * hop, spectrum.rate / 2, generator)
    start = StickyNoteGains(notes, row_hz, frame_s, laid.smooth_hz, laid.smooth_ms / 1000)
    *_, last = search_mask(
        grid.scale.score,
        levels,
        start,
        torch.zeros_like(levels),
        settings.search,
        window_frames=model.scorer.crop_frames,
        max_gain_db=settings.render.max_gain_db,
        generator=generator,
    )
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


def new_figure(
    rows: int, columns: int, *, width: float = 6.5, height: float = 3.2
) -> tuple[Any, Any]:
    """A figure of so many panels, each of this size in inches, and the panels [row][column]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels[-1]:
        axes.set_xlabel("s")
    return figure, panels


def figure_png(figure: Any) -> bytes:  # noqa: ANN401 - matplotlib comes without types
    """A figure as a PNG."""
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()
