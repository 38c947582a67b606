"""Plot spectrograms and masks with matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import TimeSeries
from tonewood.dsp.stft import hann_window, tapered_fft
from tonewood.errors import MissingExtraError
from tonewood.html_report import save_figure
from tonewood.mask.certificate import Change
from tonewood.mask.mask import Mask
from tonewood.model.model import Model
from tonewood.settings import SpectrumSettings
from tonewood.utils.arrays import FloatArray, Levels
from tonewood.utils.files import atomic_path

_PLOT_RANGE_DB = 80.0  # below that, most recordings show only their noise floor
_MAX_PLOT_COLUMNS = 1600  # more than the page has pixels: longer recordings show every n-th frame

# The picture of an enhancement looks like the studio's: its axis, its windows, its colours.
_LOWEST_HZ, _ROWS = 40.0, 320
_WINDOW_S = 0.046
_MAX_PLOTTED_MASKS = 8
_TICKS_HZ = (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
_PAPER, _GROUND, _NEUTRAL, _INK, _SOFT, _LINE = (
    "#faf7f2",
    "#fcf9f4",
    "#f5f1ea",
    "#26201b",
    "#6a5f55",
    "#e2d8ca",
)
_LEVEL_COLOURS = (
    (0.0, _GROUND), (0.25, "#f0e1cb"), (0.45, "#deb88c"), (0.65, "#ba784a"), (0.82, "#83422b"),
    (0.94, "#4e221e"), (1.0, "#281214"),
)  # fmt: skip
_GAIN_COLOURS = (
    (0.0, "#1e54be"), (0.25, "#5e8fcb"), (0.45, "#cbd7e3"), (0.5, _NEUTRAL), (0.55, "#f3d5c3"),
    (0.75, "#de7545"), (1.0, "#c42818"),
)  # fmt: skip


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
    masks: Sequence[Mask],
    spectrum: SpectrumSettings,
    *,
    title: str,
    labels: Sequence[str] = (),
    after_gain_db: float = 0.0,
    overwrite: bool = False,
) -> None:
    """Draw the spectrograms of input and output and the masks between them, as a PNG.

    Of more than eight masks, the first eight are drawn.

    Parameters
    ----------
    before, after : TimeSeries [sample]
        Mono waveforms at the analysis rate.
    masks : sequence of Mask
        Gains that were applied, of each component.
    labels : sequence of str
        Of the components, if there are several.
    after_gain_db : float
        Gain of the whole output, if `after` does not contain it yet.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    rate, hop_s = spectrum.rate, spectrum.hop / spectrum.rate
    edges_hz = np.geomspace(_LOWEST_HZ, rate / 2, _ROWS + 1)
    frames = before.frames // spectrum.hop + 1  # of a centred analysis
    seconds = _visible_frames(frames) * hop_s
    before_db = _log_levels(before, seconds, edges_hz, rate)
    after_db = _log_levels(after, seconds, edges_hz, rate) + after_gain_db
    row_hz = np.sqrt(edges_hz[1:] * edges_hz[:-1])
    gains_db = [_thin_mask(mask).gain_at(row_hz, seconds) for mask in masks[:_MAX_PLOTTED_MASKS]]
    names = [f"Boost and cut, {label}" for label in labels] or ["Boost and cut"]
    # One colour scale for both, or a difference of level would not show.
    loudest = max(float(before_db.max()), float(after_db.max()))
    # Symmetric, so that the paper's colour is 0 dB; a weak mask must not look like a strong one.
    reach = max(1.0, *(float(np.abs(gain_db).max()) for gain_db in gains_db))

    level_range, gain_range = (loudest - _PLOT_RANGE_DB, loudest), (-reach, reach)
    images = [
        ("Original", before_db, level_range, _LEVEL_COLOURS, "dBFS"),
        *(
            (name, gain_db, gain_range, _GAIN_COLOURS, "dB")
            for name, gain_db in zip(names, gains_db, strict=False)
        ),
        ("Enhanced", after_db, level_range, _LEVEL_COLOURS, "dBFS"),
    ]
    figure = Figure(figsize=(11, 2.5 + 2 * len(images)), layout="constrained", facecolor=_PAPER)
    panels = figure.subplots(len(images), 1, sharex=True, sharey=True)
    for axes, (name, image, limits, colours, label) in zip(panels, images, strict=True):
        picture = axes.imshow(
            image,
            origin="lower",
            aspect="auto",
            extent=(0.0, frames * hop_s, *np.log2(edges_hz[[0, -1]])),
            cmap=LinearSegmentedColormap.from_list(name, list(colours)),
            vmin=limits[0],
            vmax=limits[1],
        )
        bar = figure.colorbar(picture, ax=axes, pad=0.01, label=label)
        bar.outline.set_visible(False)
        _style(axes, name)
        _style(bar.ax)
    ticks = [hz for hz in _TICKS_HZ if hz <= rate / 2]
    panels[0].set_yticks(np.log2(ticks), [f"{hz // 1_000}k" if hz >= 1_000 else str(hz) for hz in ticks])
    panels[-1].set_xlabel("s", color=_SOFT)
    figure.suptitle(title, color=_INK, fontsize=11)
    with atomic_path(path, overwrite) as temporary:
        save_figure(figure, temporary, dpi=110)


def _style(axes: Any, title: str | None = None) -> None:  # noqa: ANN401 - matplotlib is not typed
    """Give axes the studio's colours, and a title on the left."""
    axes.tick_params(colors=_SOFT, labelsize=9, length=3)
    axes.yaxis.label.set_color(_SOFT)
    for spine in axes.spines.values():
        spine.set_color(_LINE)
    if title is not None:
        axes.set_title(title, loc="left", color=_INK, fontsize=10, fontweight="bold")
        axes.set_ylabel("Hz", color=_SOFT)


def _log_levels(wave: TimeSeries, seconds: FloatArray, edges_hz: FloatArray, rate: int) -> Levels:
    """Return levels [row, time] in dBFS of bands between neighbouring frequencies.

    A sine has its own level in the band of its frequency.
    """
    window = round(_WINDOW_S * rate)
    fft = 4 << (window - 1).bit_length()  # interpolates between the bins of the window
    frames: Levels = np.zeros((len(seconds), window), np.float32)
    for row, start in enumerate((np.round(seconds * rate).astype(np.int64) - window // 2).tolist()):
        begin, end = max(0, start), min(wave.frames, start + window)
        if begin < end:
            frames[row, begin - start : end - start] = wave.read(begin, end)
    spectra = tapered_fft(frames, hann_window(window), fft)
    # A sine of amplitude 1 has the magnitude window / 4 under a Hann window, hence the factor.
    power = (spectra.real**2 + spectra.imag**2) * np.float32((4 / window) ** 2)
    bin_edges_hz = (np.arange(power.shape[1] + 1) - 0.5) * (rate / fft)
    total = np.concatenate([np.zeros((len(seconds), 1)), np.cumsum(power, axis=1, dtype=np.float64)], axis=1)
    at_edges = np.array([np.interp(edges_hz, bin_edges_hz, row) for row in total]) * (rate / fft)
    # A sine's power spreads over 1.5 bins of the window (Harris 1978, table I); narrower bands show its mean.
    width_hz = np.minimum(np.diff(edges_hz), 1.5 * rate / window)
    bands = np.diff(at_edges, axis=1) / width_hz
    return (10 * np.log10(np.maximum(bands, 1e-14))).T.astype(np.float32)


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
) -> None:
    """Plot log magnitudes [bin, frame] in dBFS over 80 dB below the loudest."""
    top = float(levels_db.max()) if loudest is None else loudest
    columns = levels_db.shape[1]
    image = levels_db[:, _visible_frames(columns)]
    _plot_image(axes, image, columns, spectrum, title, "dBFS", "magma", (top - _PLOT_RANGE_DB, top))


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
