"""The mask in one pass: what a model's predictor makes of a recording."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.errors import ModelError, shown
from tonewood.files.audio import mono_of, resampled
from tonewood.files.modelfile import Model
from tonewood.files.spool import Spool
from tonewood.masking.mask import LongMask, Mask
from tonewood.masking.predictor import Predictor
from tonewood.signal.bands import band_levels, centres_hz
from tonewood.signal.blocks import Piece, Samples, overlapping
from tonewood.signal.spectrum import scaled_to
from tonewood.signal.spread import spread
from tonewood.workflow.hearing import Sound

_PART_FRAMES, _MARGIN_FRAMES = 1_024, 4


def predictor_of(model: Model) -> Predictor:
    """Predictor of a model; ModelError if it has none."""
    if model.predictor is None:
        raise ModelError(
            f"{shown(model.name)} has no predictor: add one with train --predictor --onto, or use "
            "--method search"
        )
    return model.predictor


def predicted_mask(
    sound: Sound, model: Model, max_gain_db: float, folder: Path | None = None
) -> LongMask:
    """Mask that the predictor makes of a recording, at any rate.

    It is analysed at its own rate, as a stream is, unless that is below the analysis rate.
    """
    predictor, spectrum = predictor_of(model), model.settings.spectrum
    rate = max(sound.rate, spectrum.rate)
    _, hop, _ = scaled_to(spectrum, rate)
    hz = centres_hz(model.settings.scorer.bands, spectrum)
    gains = Spool(len(hz), folder)
    for foreseen in predictor.along(rows_along(sound, model)):
        part = Mask(foreseen.mask_db.numpy(), hz, hop / rate, spectrum.rate / 2)
        gains.append(part.bounded(max_gain_db).rounded().gain_db)
    return LongMask(gains, hz, hop / rate, spectrum.rate / 2)


def rows_along(sound: Sound, model: Model) -> Iterator[Tensor]:
    """Rows [row, frame] of a recording, part by part, analysed at its own rate."""
    spectrum = model.settings.spectrum
    rate = max(sound.rate, spectrum.rate)
    _, hop, _ = scaled_to(spectrum, rate)
    mono = resampled((mono_of(block) for block in sound.blocks()), sound.rate, rate)

    def analysed(piece: Piece[Samples]) -> Tensor:
        rows, first = rows_at(piece.samples, rate, model), piece.lead // hop
        return rows[:, first:] if piece.last else rows[:, first : first + piece.size // hop]

    return spread(analysed, overlapping(mono, _PART_FRAMES * hop, _MARGIN_FRAMES * hop))


def rows_at(mono: NDArray[np.float32], rate: int, model: Model) -> Tensor:
    """Row levels [row, frame] in dB of a mono waveform (samples,), analysed at its own rate."""
    bands, spectrum = model.settings.scorer.bands, model.settings.spectrum
    return band_levels(torch.from_numpy(mono), rate, bands, spectrum)
