"""Pictures: an enhancement's before, mask and after; a ladder of scorer sizes."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import MissingExtraError
from tonewood.files.modelfile import Model
from tonewood.files.output import atomic_path
from tonewood.masking.mask import Mask
from tonewood.settings import SpectrumSettings
from tonewood.signal.spectrum import log_magnitude, stft
from tonewood.workflow.enhance import Enhancement, mono_at
from tonewood.workflow.search import Ladder

_RANGE_DB = 80.0
_COLUMNS = 1600  # more than a page shows; longer recordings are thinned to this


def check(what: str = "--plot") -> None:
    """Raise MissingExtraError now rather than after the work if nothing can draw."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError(f"{what} needs matplotlib: pip install 'tonewood[plot]'") from None


def draw(
    path: Path,
    before: NDArray[np.float32],
    enhancement: Enhancement,
    model: Model,
    *,
    title: str,
    overwrite: bool = False,
) -> None:
    """Draw the spectrograms of input and output and the mask between them, as a PNG.

    Parameters
    ----------
    before : float32 array (channels, samples)
        The input, at the enhancement's rate.
    """
    from matplotlib.figure import Figure

    spectrum = model.settings.spectrum
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, sharey=True)
    levels = []
    for samples in (before, enhancement.samples):
        wave = mono_at(samples, enhancement.rate, model)
        levels.append(log_magnitude(stft(wave, spectrum), spectrum).numpy())
    frames = levels[0].shape[1]
    loudest = max(float(level.max()) for level in levels)
    show_levels(top, levels[0], spectrum, "before", loudest)
    show_levels(bottom, levels[1], spectrum, "after", loudest)
    show_gains(middle, enhancement.applied, frames, spectrum, "mask")
    bottom.set_xlabel("s")
    change = enhancement.scorer
    figure.suptitle(
        f"{title}   ·   model {model.name}   ·   score {change.before:.2f} → {change.after:.2f}"
        "   (0 = reference)"
    )
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=110)


def show_levels(
    axes: Any,  # noqa: ANN401 - matplotlib comes without types
    levels_db: NDArray[np.float32],
    spectrum: SpectrumSettings,
    title: str,
    loudest: float | None = None,
) -> None:
    """Show log magnitudes [bin, frame] in dBFS, 80 dB down from the loudest."""
    top = float(levels_db.max()) if loudest is None else loudest
    frames = levels_db.shape[1]
    image = levels_db[:, _thinned(frames)]
    _show(axes, image, frames, spectrum, title, "dBFS", "magma", (top - _RANGE_DB, top))


def show_gains(
    axes: Any,  # noqa: ANN401
    mask: Mask,
    frames: int,
    spectrum: SpectrumSettings,
    title: str,
    label: str = "gain, dB",
    least: float = 1.0,
) -> None:
    """Show a mask over so many frames on the spectrogram's own bins: blue below 0, red above.

    The colours reach as far as the mask does, and at least `least`.
    """
    hz = np.arange(spectrum.bins) * (spectrum.rate / spectrum.fft)
    gain = mask.at(hz, _thinned(frames) * (spectrum.hop / spectrum.rate))
    reach = max(least, float(np.abs(gain).max()))
    _show(axes, gain, frames, spectrum, title, label, "RdBu_r", (-reach, reach))


def _show(
    axes: Any,  # noqa: ANN401
    image: NDArray[np.float32],
    frames: int,
    spectrum: SpectrumSettings,
    title: str,
    label: str,
    colours: str,
    limits: tuple[float, float],
) -> None:
    seconds = frames * spectrum.hop / spectrum.rate
    shown = axes.imshow(
        image,
        origin="lower",
        aspect="auto",
        extent=(0.0, seconds, 0.0, spectrum.rate / 2),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
    )
    axes.set(title=title, ylabel="Hz")
    axes.figure.colorbar(shown, ax=axes, label=label, pad=0.01)


def _thinned(frames: int) -> NDArray[np.int64]:
    return np.linspace(0, frames - 1, min(frames, _COLUMNS)).round().astype(np.int64)


def draw_ladder(path: Path, ladder: Ladder, *, overwrite: bool = False) -> None:
    """Draw held-out accuracy and loss against parameters, knee and choice marked, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    parameters = [rung.parameters for rung in ladder.rungs]
    marks = (
        (ladder.knee, {"marker": "D", "s": 110, "facecolor": "none", "edgecolor": "tab:orange"}),
        (ladder.chosen, {"marker": "o", "s": 220, "facecolor": "none", "edgecolor": "tab:red"}),
    )
    for axes, name in zip(panels, ("accuracy", "loss"), strict=True):
        estimates = [getattr(rung, name) for rung in ladder.rungs]
        axes.errorbar(
            parameters,
            [estimate.mean for estimate in estimates],
            [estimate.error for estimate in estimates],
            marker=".",
            capsize=3,
        )
        for (rung, style), label in zip(marks, ("knee", "chosen"), strict=True):
            axes.scatter([rung.parameters], [getattr(rung, name).mean], label=label, **style)
        axes.set(xscale="log", ylabel=f"held-out {name}")
        axes.grid(alpha=0.3)
    panels[0].legend()
    panels[1].set_xlabel("parameters")
    size = ladder.chosen.size
    figure.suptitle(
        f"width {size.width}, depth {size.depth}: the smallest scorer within one standard error "
        "of the best"
    )
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=110)
