"""A mask becomes sound: exp(M) on the recording's own spectrum, then loudness and peak."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tonewood.masking.mask import LongMask, Mask
from tonewood.settings import RenderSettings, SpectrumSettings
from tonewood.signal.loudness import integrated_loudness, true_peak_db
from tonewood.signal.spectrum import Floats, GainField, filtered


@dataclass(frozen=True)
class Matching:
    """How loud a recording was and became.

    Parameters
    ----------
    gain_db : float
        Gain that matched the loudness and held the peak.
    loudness_before, loudness_after : float
        Integrated loudness, LUFS.
    held : bool
        The peak's ceiling, and not the loudness, set the gain.
    """

    gain_db: float
    loudness_before: float
    loudness_after: float
    held: bool

    @property
    def factor(self) -> np.float32:
        """The gain as a factor of the samples."""
        return np.float32(10 ** (self.gain_db / 20))


@dataclass(frozen=True, eq=False)
class Rendered(Matching):
    """Sound that a mask made: float32 samples (channels, samples), matched."""

    samples: NDArray[np.float32]


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
        return Rendered(0.0, before, before, held=False, samples=samples)
    made = filtered(samples, rate, scaled_field(mask, settings.amount), spectrum)
    return matched(made, rate, before, settings)


def matched(
    made: NDArray[np.float32], rate: int, loudness: float, settings: RenderSettings
) -> Rendered:
    """Give samples (channels, samples) a loudness in LUFS, or less to keep the peak's ceiling."""
    peak = true_peak_db(made, rate) if settings.match else 0.0
    found = matching(loudness, integrated_loudness(made, rate), peak, settings)
    samples = made * found.factor if settings.match else made
    return Rendered(
        found.gain_db, found.loudness_before, found.loudness_after, found.held, samples=samples
    )


def matching(before: float, after: float, peak_db: float, settings: RenderSettings) -> Matching:
    """Gain for a rendering of so much loudness (LUFS) and true peak (dBTP)."""
    if not settings.match:
        return Matching(0.0, before, after, held=False)
    wanted = before - after if np.isfinite(before) and np.isfinite(after) else 0.0
    headroom = settings.ceiling_dbtp - peak_db
    gain = min(wanted, headroom)
    return Matching(gain, before, after + gain, held=headroom < wanted)


def scaled_field(mask: Mask | LongMask, amount: float) -> GainField:
    """What a mask asks for, times an amount: half of it is half the dB."""

    def field(hz: Floats, seconds: Floats) -> NDArray[np.float32]:
        return mask.at(hz, seconds) * np.float32(amount)

    return field
