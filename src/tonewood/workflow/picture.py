"""Before, mask and after on one page."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import MissingExtraError
from tonewood.files.modelfile import Model
from tonewood.files.output import atomic_path
from tonewood.signal.spectrum import log_magnitude, stft
from tonewood.workflow.enhance import Enhancement, mono_at

_RANGE_DB = 80.0
_COLUMNS = 1600  # more than a page shows; longer recordings are thinned to this


def check() -> None:
    """Raise MissingExtraError now rather than after the work if nothing can draw."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("--plot needs matplotlib: pip install 'tonewood[plot]'") from None


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
    seconds = frames * spectrum.hop / spectrum.rate
    thin = np.linspace(0, frames - 1, min(frames, _COLUMNS)).round().astype(int)
    extent = (0.0, seconds, 0.0, spectrum.rate / 2)
    loudest = max(float(level.max()) for level in levels)
    for axes, level, name in ((top, levels[0], "before"), (bottom, levels[1], "after")):
        image = axes.imshow(
            level[:, thin],
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap="magma",
            vmin=loudest - _RANGE_DB,
            vmax=loudest,
        )
        axes.set(title=name, ylabel="Hz")
        figure.colorbar(image, ax=axes, label="dBFS", pad=0.01)
    mask = enhancement.mask.scaled(enhancement.settings.render.amount)
    hz = np.arange(spectrum.bins) * (spectrum.rate / spectrum.fft)
    gain = mask.at(hz, thin * (spectrum.hop / spectrum.rate))
    reach = max(1.0, float(np.abs(gain).max()))
    image = middle.imshow(
        gain, origin="lower", aspect="auto", extent=extent, cmap="RdBu_r", vmin=-reach, vmax=reach
    )
    middle.set(title="mask", ylabel="Hz")
    figure.colorbar(image, ax=middle, label="gain, dB", pad=0.01)
    bottom.set_xlabel("s")
    change = enhancement.scorer
    figure.suptitle(
        f"{title}   ·   model {model.name}   ·   score {change.before:.2f} → {change.after:.2f}"
        "   (0 = reference)"
    )
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=110)
