"""Pictures: an enhancement's before, mask and after; a ladder of scorer sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tonewood.dsp.chunking import TimeSeries
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.enhancement.pipeline import StreamedEnhancement
from tonewood.errors import MissingExtraError
from tonewood.mask.mask import Mask
from tonewood.model.model import Model
from tonewood.settings import SpectrumSettings
from tonewood.utils.atomic_write import atomic_path

_PLOT_RANGE_DB = 80.0
_MAX_PLOT_COLUMNS = 1600  # more than a page shows; longer recordings are thinned to this


def check_matplotlib(option: str = "--plot") -> None:
    """Raise MissingExtraError now rather than after the work if nothing can draw."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError(f"{option} needs matplotlib: pip install '.[plot]'") from None


def plot_enhancement(
    path: Path,
    enhancement: StreamedEnhancement,
    model: Model,
    *,
    title: str,
    overwrite: bool = False,
) -> None:
    """Draw the spectrograms of input and output and the mask between them, as a PNG."""
    from matplotlib.figure import Figure

    spectrum = model.settings.spectrum
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, sharey=True)
    frames = enhancement.input_analysis.rows_db.frames
    before, after = (
        _visible_levels(it.wave, frames, spectrum)
        for it in (enhancement.input_analysis, enhancement.output_analysis)
    )
    after = after + enhancement.loudness_match.gain_db
    loudest = max(float(before.max()), float(after.max()))
    plot_levels(top, before, spectrum, "before", loudest, frames)
    plot_levels(bottom, after, spectrum, "after", loudest, frames)
    mask = _thin_mask(enhancement.applied)
    plot_gains(middle, mask, frames, spectrum, "mask")
    bottom.set_xlabel("s")
    change = enhancement.certificate.scorer
    figure.suptitle(
        f"{title}   ·   model {model.name}   ·   score {change.before:.2f} → {change.after:.2f}"
        "   (0 = reference)"
    )
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=110)


def plot_levels(
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
    image = levels_db[:, _visible_frames(there)]
    _plot_image(axes, image, frames or there, spectrum, title, "dBFS", "magma", (top - _PLOT_RANGE_DB, top))


def plot_gains(
    axes: Any,  # noqa: ANN401
    mask: Mask,
    frames: int,
    spectrum: SpectrumSettings,
    title: str,
    label: str = "gain, dB",
    min_range_db: float = 1.0,
) -> None:
    """Show a mask over so many frames on the spectrogram's own bins: blue below 0, red above.

    The colours reach as far as the mask does, and at least `min_range_db`.
    """
    hz = np.arange(spectrum.bins) * (spectrum.rate / spectrum.fft)
    gain = mask.gain_at(hz, _visible_frames(frames) * (spectrum.hop / spectrum.rate))
    reach = max(min_range_db, float(np.abs(gain).max()))
    _plot_image(axes, gain, frames, spectrum, title, label, "RdBu_r", (-reach, reach))


def _visible_levels(wave: TimeSeries, frames: int, spectrum: SpectrumSettings) -> NDArray[np.float32]:
    """Log magnitudes [bin, frame] of as many frames as are shown."""
    if frames <= _MAX_PLOT_COLUMNS:
        return log_magnitude(stft(wave.read(0, wave.frames), spectrum), spectrum).numpy()
    reach = -(-spectrum.fft // spectrum.hop)
    looked_at = []
    for frame in _visible_frames(frames):
        begin = max(0, frame - reach)
        piece = wave.read(begin * spectrum.hop, (frame + reach) * spectrum.hop)
        looked_at.append(stft(piece, spectrum)[:, frame - begin])
    return log_magnitude(torch.stack(looked_at, dim=1), spectrum).numpy()


def _thin_mask(mask: Mask) -> Mask:
    """As many frames of a mask as are shown, further apart."""
    frames = mask.frames
    if frames <= _MAX_PLOT_COLUMNS:
        return mask.load()
    gain = torch.cat([mask.gains.read(k, k + 1) for k in _visible_frames(frames).tolist()], dim=1)
    apart = mask.hop_seconds * (frames - 1) / (_MAX_PLOT_COLUMNS - 1)
    return Mask(gain.numpy(), mask.hz, apart, mask.top_hz)


def _plot_image(
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


def _visible_frames(frames: int) -> NDArray[np.int64]:
    return np.linspace(0, frames - 1, min(frames, _MAX_PLOT_COLUMNS)).round().astype(np.int64)
