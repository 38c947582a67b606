"""A recording and a mask → the recording as the mask makes it, heard while it is made."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.files.modelfile import Model
from tonewood.files.spool import Spool
from tonewood.masking.mask import LongMask
from tonewood.masking.render import Matching, Passage, Passing, in_force, matching
from tonewood.settings import RenderSettings
from tonewood.signal.blocks import overlapping
from tonewood.signal.loudness import level_db, true_peak
from tonewood.signal.spread import spread
from tonewood.workflow.hearing import Ear, Heard, Memory, Overheard, Sound, ear_of


class Made(NamedTuple):
    """Sound that a mask made: samples (channels, samples) before their gain, none if untouched."""

    samples: Spool | None
    heard: Heard
    matching: Matching
    peak: float


class _Piece(NamedTuple):
    """What became of a piece: its samples, what is heard of them, their true peak."""

    samples: NDArray[np.float32]
    heard: Overheard
    true_peak: float


@dataclass(frozen=True)
class _Making:
    """Passes a piece through its part of a mask, and listens to what comes out."""

    way: Passage
    ear: Ear
    peaks: bool

    def __call__(self, item: Passing) -> _Piece:
        made = self.way(item)
        peak = true_peak(made, self.ear.rate) if self.peaks else 0.0
        return _Piece(np.ascontiguousarray(made.own), self.ear(made), peak)


def make(
    sound: Sound,
    heard: Heard,
    mask: LongMask,
    model: Model,
    settings: RenderSettings,
    folder: Path | None,
    device: str,
) -> Made:
    """Pass a recording through its mask, and listen to what comes out."""
    if settings.amount == 0:
        unmoved = Matching(0.0, heard.loudness, heard.loudness, held=False)
        return Made(None, heard, unmoved, heard.peak)
    spectrum = model.settings.spectrum
    way = Passage(sound.rate, sound.channels, settings.aspect.between, spectrum, device)
    ear = ear_of(sound, model, pitched=False, device=device)
    making = _Making(way, ear, settings.matches)
    force = in_force(mask, settings, spectrum)
    made, memory, peak = Spool(sound.channels, folder), Memory(ear, folder), 0.0
    pieces = overlapping(sound.blocks(), way.size, way.margin)
    passing = (way.item(it, force) for it in pieces)
    for found in spread(making, passing, portable=device == "cpu"):
        made.append(found.samples)
        memory.keep(found.heard)
        peak = max(peak, found.true_peak)
    after = memory.heard()
    level = matching(heard.loudness, after.loudness, level_db(peak), settings)
    return Made(made, after, level, after.peak * float(level.factor))
