"""The pieces in which recordings of any length are worked on: by a thread, or another process.

A piece lasts as long as whole frames of the analysis do, so that what is found of it stands where
it would in the whole, at the recording's rate as at the analysis rate.
"""

import math

from tonewood.settings import SpectrumSettings
from tonewood.signal.features import LONG_HOPS

_FRAMES = 1_024  # 10 s
_MOST = 1 << 22  # samples of all channels
_MARGIN_FRAMES = 26  # in which filters of loudness and resampling forget what came before


def piece_size(rate: int, channels: int, settings: SpectrumSettings) -> int:
    """Samples of a piece: of 10 s, or less where they would be many."""
    most = _MOST * settings.frames_per_second / (rate * channels)
    return lasting(min(_FRAMES, int(most)), rate, settings)


def piece_margin(rate: int, settings: SpectrumSettings) -> int:
    """Samples beyond a piece that it takes to hear it."""
    return lasting(_MARGIN_FRAMES, rate, settings)


def lasting(frames: int, rate: int, settings: SpectrumSettings) -> int:
    """Samples at a rate that last as long as so many frames of the analysis, or somewhat longer.

    As long as a whole number of long frames: then samples at both rates fall on one moment.
    """
    step = LONG_HOPS * settings.hop
    unit = math.lcm(rate * step, settings.rate) // settings.rate  # a second's worth at most
    wanted = frames * settings.hop * rate / settings.rate
    return unit * math.ceil(wanted / unit)
