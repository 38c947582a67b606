"""The pieces in which recordings of any length are worked on: by a thread, or another process.

A piece lasts as long as whole frames of the analysis do, so that what is found of it stands where
it would in the whole, at the recording's rate as at the analysis rate.
"""

import math

from tonewood.settings import SpectrumSettings
from tonewood.signal.features import PITCH_HOP_RATIO

_CHUNK_FRAMES = 1_024  # 10 s
_MAX_SAMPLES = 1 << 22  # samples of all channels
_MARGIN_FRAMES = 26  # in which filters of loudness and resampling forget what came before


def chunk_size_for(rate: int, channels: int, settings: SpectrumSettings) -> int:
    """Samples of a piece: of 10 s, or less where they would be many."""
    most = _MAX_SAMPLES * settings.frames_per_second / (rate * channels)
    return frames_to_samples(min(_CHUNK_FRAMES, int(most)), rate, settings)


def chunk_margin_for(rate: int, settings: SpectrumSettings) -> int:
    """Samples beyond a piece that it takes to hear it."""
    return frames_to_samples(_MARGIN_FRAMES, rate, settings)


def frames_to_samples(frames: int, rate: int, settings: SpectrumSettings) -> int:
    """Samples at a rate that last as long as so many frames of the analysis, or somewhat longer.

    As long as a whole number of long frames: then samples at both rates fall on one moment.
    """
    step = PITCH_HOP_RATIO * settings.hop
    unit = math.lcm(rate * step, settings.rate) // settings.rate  # a second's worth at most
    wanted = frames * settings.hop * rate / settings.rate
    return unit * math.ceil(wanted / unit)
