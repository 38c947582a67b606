"""A mask becomes sound: exp(M) on the recording's own spectrum, then loudness and peak."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tonewood.masking.mask import Mask
from tonewood.settings import RenderSettings, SpectrumSettings
from tonewood.signal.loudness import integrated_loudness, true_peak_db
from tonewood.signal.spectrum import filtered


@dataclass(frozen=True, eq=False)
class Rendered:
    """Sound that a mask made.

    Parameters
    ----------
    samples : float32 array (channels, samples)
    gain_db : float
        Gain that matched the loudness and held the peak.
    loudness_before, loudness_after : float
        Integrated loudness, LUFS.
    held : bool
        The peak's ceiling, and not the loudness, set the gain.
    """

    samples: NDArray[np.float32]
    gain_db: float
    loudness_before: float
    loudness_after: float
    held: bool


def rendered(
    samples: NDArray[np.float32],
    rate: int,
    mask: Mask,
    settings: RenderSettings,
    spectrum: SpectrumSettings,
) -> Rendered:
    """Pass samples (channels, samples) at any rate through a mask.

    Amount 0 returns the input itself. Otherwise, unless told to leave both alone, one gain makes
    the output as loud as the input, or less where its true peak would pass the ceiling.
    """
    before = integrated_loudness(samples, rate)
    if settings.amount == 0:
        return Rendered(samples, 0.0, before, before, held=False)
    made = filtered(samples, rate, mask.scaled(settings.amount).at, spectrum)
    if not settings.match:
        return Rendered(made, 0.0, before, integrated_loudness(made, rate), held=False)
    return matched(made, rate, before, settings)


def matched(
    made: NDArray[np.float32], rate: int, loudness: float, settings: RenderSettings
) -> Rendered:
    """Give samples (channels, samples) a loudness in LUFS, or less to keep the peak's ceiling."""
    after = integrated_loudness(made, rate)
    wanted = loudness - after if np.isfinite(loudness) and np.isfinite(after) else 0.0
    headroom = settings.ceiling_dbtp - true_peak_db(made, rate)
    gain = min(wanted, headroom)
    scaled = made * np.float32(10 ** (gain / 20))
    return Rendered(scaled, gain, loudness, after + gain, held=headroom < wanted)
