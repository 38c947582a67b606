"""A mask becomes sound: exp(M) on the recording's own spectrum, then loudness and peak."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tonewood.masking.mask import Mask, smoothed
from tonewood.settings import RenderSettings, SpectrumSettings
from tonewood.signal.bands import frame_levels
from tonewood.signal.loudness import integrated_loudness, true_peak_db
from tonewood.signal.spectrum import filtered

_AUDIBLE_DB = 50.0
_SETTLE_FRAMES = 5
_SETTLE_DB = 6.0
_SETTLE_SHARE = 0.8


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


def settled(
    mask: Mask,
    wave: NDArray[np.float32],
    rows_of: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    spectrum: SpectrumSettings,
    passes: int,
) -> Mask:
    """Mask corrected for what rendering blurs.

    Frames overlap and rows mix, so the sound that a mask makes lies short of the levels that it
    asks for. Each pass renders, measures what is still lacking where there is sound at all, and
    adds most of that.

    Parameters
    ----------
    wave : float32 array (samples,)
        Mono, at the analysis rate.
    rows_of : callable
        Row levels (row, frame) in dB of such a waveform.
    """
    before = rows_of(wave)
    wanted = before + mask.gain_db
    level = frame_levels(torch.from_numpy(before)).numpy()
    heard = level > level.max() - _AUDIBLE_DB
    for _ in range(passes):
        made = filtered(wave[None], spectrum.rate, mask.at, spectrum)[0]
        lacking = torch.from_numpy(wanted - rows_of(made))
        step = smoothed(lacking, _SETTLE_FRAMES).clamp(-_SETTLE_DB, _SETTLE_DB).numpy() * heard
        mask = replace(mask, gain_db=mask.gain_db + np.float32(_SETTLE_SHARE) * step)
    return mask


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
