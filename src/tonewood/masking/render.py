"""A mask becomes sound: exp(M) on the recording's own spectrum, then loudness and peak."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tonewood.masking.aspects import wanted
from tonewood.masking.mask import Mask
from tonewood.settings import RenderSettings, SpectrumSettings
from tonewood.signal.bandpass import band_alone, reach_seconds
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

    Amount 0 returns the input itself. Otherwise, unless told to leave both alone or to change only
    a part of the recording, one gain makes the output as loud as the input, or less where its true
    peak would pass the ceiling.
    """
    before = integrated_loudness(samples, rate)
    if settings.amount == 0:
        return Rendered(samples, 0.0, before, before, held=False)
    made = filtered(samples, rate, in_force(mask, settings, spectrum).at, spectrum)
    if settings.aspect.between is not None:
        # The masks' window tells frequencies 66 Hz apart; the ear, and the promise, are finer.
        parts = list(band_alone([(samples, made)], rate, *settings.aspect.between))
        made = np.concatenate(parts, axis=1)
    if settings.matches:
        return matched(made, rate, before, settings)
    if settings.gain_db:
        made = made * np.float32(10 ** (settings.gain_db / 20))
    after = integrated_loudness(made, rate)
    return Rendered(made, settings.gain_db, before, after, held=False)


def in_force(mask: Mask, settings: RenderSettings, spectrum: SpectrumSettings) -> Mask:
    """What is applied of a mask as it was found: the aspect that is wanted, times the amount."""
    aspect, reach = settings.aspect, spectrum.window_ms / 2000
    if aspect.between is not None:
        reach += reach_seconds(*aspect.between)
    return wanted(mask, aspect, reach).scaled(settings.amount)


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
