"""Plot spectrograms and masks with matplotlib."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import TimeSeries
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.errors import MissingExtraError
from tonewood.mask.certificate import Change
from tonewood.mask.mask import Mask
from tonewood.model.model import Model
from tonewood.settings import SpectrumSettings
from tonewood.utils.atomic_write import atomic_path
from tonewood.utils.figures import save_figure

_PLOT_RANGE_DB = 80.0  # below that, most recordings show only their noise floor
_MAX_PLOT_COLUMNS = 1600  # more than the page has pixels: longer recordings show every n-th frame


def check_matplotlib(option: str = "--plot") -> None:
    """Raise MissingExtraError before the work if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError(f"{option} needs matplotlib: pip install '.[plot]'") from None


def plot_enhancement(
    path: Path,
    before: TimeSeries,
    after: TimeSeries,
    mask: Mask,
    spectrum: SpectrumSettings,
    *,
    title: str,
    after_gain_db: float = 0.0,
    overwrite: bool = False,
) -> None:
    """Draw the spectrograms of input and output and the mask between them, as a PNG.

    Parameters
    ----------
    before, after : TimeSeries [sample]
        Mono waveforms at the analysis rate.
    mask : Mask
        Gains that were applied.
    after_gain_db : float
        Gain of the whole output, if `after` does not contain it yet.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8.5), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, sharey=True)
    frames = before.frames // spectrum.hop + 1  # of a centred analysis
    before_db = _visible_levels(before, frames, spectrum)
    after_db = _visible_levels(after, frames, spectrum) + after_gain_db
    # One colour scale for both, or a difference of level would not show.
    loudest = max(float(before_db.max()), float(after_db.max()))
    plot_levels(top, before_db, spectrum, "before", loudest, frames)
    plot_levels(bottom, after_db, spectrum, "after", loudest, frames)
    plot_gains(middle, _thin_mask(mask), frames, spectrum, "mask")
    bottom.set_xlabel("s")
    figure.suptitle(title)
    with atomic_path(path, overwrite) as temporary:
        save_figure(figure, temporary, dpi=110)


def enhancement_title(recording: str, model: Model, score: Change) -> str:
    """Return the title of a picture: recording, model and change of the score."""
    return (
        f"{recording}   ·   model {model.name}   ·   score {score.before:.2f} → {score.after:.2f}"
        "   (0 = reference)"
    )


def plot_levels(
    axes: Any,  # noqa: ANN401 - matplotlib is not typed
    levels_db: NDArray[np.float32],
    spectrum: SpectrumSettings,
    title: str,
    loudest: float | None = None,
    frames: int | None = None,
) -> None:
    """Plot log magnitudes [bin, frame] in dBFS over 80 dB below the loudest.

    Parameters
    ----------
    frames : int, optional
        Frames of the recording, if `levels_db` contains only some of them.
    """
    top = float(levels_db.max()) if loudest is None else loudest
    columns = levels_db.shape[1]
    image = levels_db[:, _visible_frames(columns)]
    _plot_image(axes, image, frames or columns, spectrum, title, "dBFS", "magma", (top - _PLOT_RANGE_DB, top))


def plot_gains(
    axes: Any,  # noqa: ANN401 - matplotlib is not typed
    mask: Mask,
    frames: int,
    spectrum: SpectrumSettings,
    title: str,
    label: str = "gain, dB",
    min_range_db: float = 1.0,
) -> None:
    """Plot a mask on the spectrogram's bins: blue below 0 dB, red above.

    The colour scale reaches the largest gain, and at least `min_range_db`.
    """
    hz = np.arange(spectrum.bins) * (spectrum.rate / spectrum.fft)
    gain = mask.gain_at(hz, _visible_frames(frames) * (spectrum.hop / spectrum.rate))
    # Symmetric, so that white is 0 dB; a weak mask must not look like a strong one.
    reach = max(min_range_db, float(np.abs(gain).max()))
    _plot_image(axes, gain, frames, spectrum, title, label, "RdBu_r", (-reach, reach))


def _visible_levels(wave: TimeSeries, frames: int, spectrum: SpectrumSettings) -> NDArray[np.float32]:
    """Return log magnitudes [bin, frame] of the frames that are plotted."""
    if frames <= _MAX_PLOT_COLUMNS:
        return log_magnitude(stft(wave.read(0, wave.frames), spectrum), spectrum)
    # An excerpt around each plotted frame; its first and last frames would lack samples.
    reach = -(-spectrum.fft // spectrum.hop)
    columns = []
    for frame in _visible_frames(frames):
        begin = max(0, frame - reach)
        excerpt = wave.read(begin * spectrum.hop, (frame + reach) * spectrum.hop)
        columns.append(stft(excerpt, spectrum)[:, frame - begin])
    return log_magnitude(np.stack(columns, axis=1), spectrum)


def _thin_mask(mask: Mask) -> Mask:
    """Return the frames of a mask that are plotted, as a mask with a longer hop."""
    frames = mask.frames
    if frames <= _MAX_PLOT_COLUMNS:
        return mask.load()
    gain = np.concatenate([mask.gains.read(k, k + 1) for k in _visible_frames(frames).tolist()], axis=1)
    # First and last frame keep their times.
    hop_seconds = mask.hop_seconds * (frames - 1) / (_MAX_PLOT_COLUMNS - 1)
    return Mask(gain, mask.hz, hop_seconds, mask.top_hz)


def _plot_image(
    axes: Any,  # noqa: ANN401 - matplotlib is not typed
    image: NDArray[np.float32],
    frames: int,
    spectrum: SpectrumSettings,
    title: str,
    label: str,
    colours: str,
    limits: tuple[float, float],
) -> None:
    seconds = frames * spectrum.hop / spectrum.rate
    picture = axes.imshow(
        image,
        origin="lower",
        aspect="auto",
        extent=(0.0, seconds, 0.0, spectrum.rate / 2),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
    )
    axes.set(title=title, ylabel="Hz")
    axes.figure.colorbar(picture, ax=axes, label=label, pad=0.01)


def _visible_frames(frames: int) -> NDArray[np.int64]:
    return np.linspace(0, frames - 1, min(frames, _MAX_PLOT_COLUMNS)).round().astype(np.int64)
