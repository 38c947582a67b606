"""A mask becomes sound: exp(M) on the recording's own spectrum, then loudness and peak."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.masking.aspects import mean_db, wanted
from tonewood.masking.mask import LongMask, Mask
from tonewood.settings import RenderSettings, SpectrumSettings
from tonewood.signal.bandpass import Block, band_alone, reach_seconds
from tonewood.signal.blocks import in_step
from tonewood.signal.loudness import integrated_loudness, true_peak_db
from tonewood.signal.spectrum import filtered_blocks
from tonewood.signal.tracks import Made


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

    Amount 0 returns the input itself. Otherwise, unless told to leave both alone or to change only
    a part of the recording, one gain makes the output as loud as the input, or less where its true
    peak would pass the ceiling.
    """
    before = integrated_loudness(samples, rate)
    if settings.amount == 0:
        return Rendered(0.0, before, before, held=False, samples=samples)
    blocks = rendered_blocks(lambda: [samples], rate, LongMask.of(mask), settings, spectrum)
    return matched(np.concatenate(list(blocks), axis=1), rate, before, settings)


def rendered_blocks(
    blocks: Callable[[], Iterable[Block]],
    rate: int,
    mask: LongMask,
    settings: RenderSettings,
    spectrum: SpectrumSettings,
    *,
    device: str = "cpu",
) -> Iterator[Block]:
    """A recording of any length passed through a mask, its loudness as it comes out.

    What comes out depends on the samples alone, and not on how they are cut into blocks.

    Parameters
    ----------
    blocks : callable
        All blocks (channels, samples) of the recording, anew each time it is asked.
    device : str
        Where to filter them.
    """
    field = in_force(mask, settings, spectrum).at
    made = filtered_blocks(blocks(), rate, field, spectrum, device=device)
    if settings.aspect.between is None:
        return made
    # The masks' window tells frequencies 66 Hz apart; the ear, and the promise, are finer.
    return band_alone(in_step(blocks(), made), rate, *settings.aspect.between)


def in_force(mask: LongMask, settings: RenderSettings, spectrum: SpectrumSettings) -> LongMask:
    """What is applied of a mask as it was found: the aspect that is wanted, times the amount."""
    aspect, reach = settings.aspect, spectrum.window_ms / 2000
    if aspect.between is not None:
        reach += reach_seconds(*aspect.between)
    mean = mean_db(mask) if aspect.only in ("bands", "dynamics-of-bands") else None
    frames = mask.gain_db.frames
    if frames == 1:  # stands for all times: short, whatever becomes of it
        return LongMask.of(wanted(mask.whole(), aspect, reach).scaled(settings.amount))

    def make(first: int, last: int) -> Tensor:
        # Two frames at least: a single one would be taken for a mask that does not move.
        part = mask.part(first, max(last, 2))
        made = wanted(part, aspect, reach, first=first, mean_db=mean).scaled(settings.amount)
        return torch.from_numpy(made.gain_db[:, : last - first])

    hz = wanted(mask.part(0, 2), aspect, reach, mean_db=mean).hz
    return LongMask(Made(frames, make), hz, mask.hop_seconds, mask.top_hz)


def matched(
    made: NDArray[np.float32], rate: int, loudness: float, settings: RenderSettings
) -> Rendered:
    """Give samples (channels, samples) a loudness in LUFS, or less to keep the peak's ceiling."""
    peak = true_peak_db(made, rate) if settings.matches else 0.0
    found = matching(loudness, integrated_loudness(made, rate), peak, settings)
    samples = made * found.factor if found.gain_db else made
    return Rendered(
        found.gain_db, found.loudness_before, found.loudness_after, found.held, samples=samples
    )


def matching(before: float, after: float, peak_db: float, settings: RenderSettings) -> Matching:
    """Gain for a rendering of so much loudness (LUFS) and true peak (dBTP)."""
    if not settings.matches:
        return Matching(settings.gain_db, before, after + settings.gain_db, held=False)
    wanted = before - after if np.isfinite(before) and np.isfinite(after) else 0.0
    headroom = settings.ceiling_dbtp - peak_db
    gain = min(wanted, headroom)
    return Matching(gain, before, after + gain, held=headroom < wanted)
