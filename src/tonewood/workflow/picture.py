"""Pictures: an enhancement's before, mask and after; a ladder of scorer sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tonewood.errors import MissingExtraError
from tonewood.files.modelfile import Model
from tonewood.files.output import atomic_path
from tonewood.masking.mask import LongMask, Mask
from tonewood.settings import SpectrumSettings
from tonewood.signal.spectrum import log_magnitude, stft
from tonewood.signal.tracks import Track
from tonewood.workflow.enhance import Reshaped
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
    path: Path, reshaped: Reshaped, model: Model, *, title: str, overwrite: bool = False
) -> None:
    """Draw the spectrograms of input and output and the mask between them, as a PNG."""
    from matplotlib.figure import Figure

    spectrum = model.settings.spectrum
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, sharey=True)
    frames = reshaped.before.rows_db.frames
    before, after = (
        _looked_at(it.wave, frames, spectrum) for it in (reshaped.before, reshaped.after)
    )
    after = after + reshaped.matching.gain_db
    loudest = max(float(before.max()), float(after.max()))
    show_levels(top, before, spectrum, "before", loudest, frames)
    show_levels(bottom, after, spectrum, "after", loudest, frames)
    mask = _thin(reshaped.mask).scaled(reshaped.settings.render.amount)
    show_gains(middle, mask, frames, spectrum, "mask")
    bottom.set_xlabel("s")
    change = reshaped.certificate.scorer
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
    frames: int | None = None,
) -> None:
    """Show log magnitudes [bin, frame] in dBFS, 80 dB down from the loudest.

    They may be of some only of a recording's `frames`.
    """
    top = float(levels_db.max()) if loudest is None else loudest
    there = levels_db.shape[1]
    image = levels_db[:, _thinned(there)]
    _show(axes, image, frames or there, spectrum, title, "dBFS", "magma", (top - _RANGE_DB, top))


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


def _looked_at(wave: Track, frames: int, spectrum: SpectrumSettings) -> NDArray[np.float32]:
    """Log magnitudes [bin, frame] of as many frames as are shown."""
    if frames <= _COLUMNS:
        return log_magnitude(stft(wave.part(0, wave.frames), spectrum), spectrum).numpy()
    reach = -(-spectrum.fft // spectrum.hop)
    looked_at = []
    for frame in _thinned(frames):
        begin = max(0, frame - reach)
        piece = wave.part(begin * spectrum.hop, (frame + reach) * spectrum.hop)
        looked_at.append(stft(piece, spectrum)[:, frame - begin])
    return log_magnitude(torch.stack(looked_at, dim=1), spectrum).numpy()


def _thin(mask: LongMask) -> Mask:
    """As many frames of a mask as are shown, further apart."""
    frames = mask.gain_db.frames
    if frames <= _COLUMNS:
        return mask.whole()
    gain = torch.cat([mask.gain_db.part(k, k + 1) for k in _thinned(frames).tolist()], dim=1)
    apart = mask.hop_seconds * (frames - 1) / (_COLUMNS - 1)
    return Mask(gain.numpy(), mask.hz, apart, mask.top_hz)


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
