"""The mask in one pass: what a model's predictor makes of a recording."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.errors import ModelError, printable
from tonewood.files.audio import to_mono, resample_blocks
from tonewood.files.modelfile import Model
from tonewood.files.spool import DiskArray
from tonewood.masking.mask import LazyMask, Mask
from tonewood.masking.predictor import Predictor
from tonewood.signal.bands import band_levels, center_frequencies
from tonewood.signal.blocks import Chunk, Samples, overlapping_chunks
from tonewood.signal.spectrum import scale_to_rate
from tonewood.signal.spread import parallel_map
from tonewood.workflow.hearing import AudioSource

_PREDICTOR_CHUNK_FRAMES, _PREDICTOR_MARGIN_FRAMES = 1_024, 4


def require_predictor(model: Model) -> Predictor:
    """Predictor of a model; ModelError if it has none."""
    if model.predictor is None:
        raise ModelError(
            f"{printable(model.name)} has no predictor: add one with train --predictor --onto, or use "
            "--method search"
        )
    return model.predictor


def predict_mask(
    source: AudioSource, model: Model, max_gain_db: float, scratch_dir: Path | None = None
) -> LazyMask:
    """Mask that the predictor makes of a recording, at any rate.

    It is analysed at its own rate, as a stream is, unless that is below the analysis rate.
    """
    predictor, spectrum = require_predictor(model), model.settings.spectrum
    rate = max(source.rate, spectrum.rate)
    _, hop, _ = scale_to_rate(spectrum, rate)
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    gains = DiskArray(len(hz), scratch_dir)
    for foreseen in predictor.predict_chunks(iter_features(source, model)):
        part = Mask(foreseen.mask_db.numpy(), hz, hop / rate, spectrum.rate / 2)
        gains.append(part.clip(max_gain_db).quantize().gain_db)
    return LazyMask(gains, hz, hop / rate, spectrum.rate / 2)


def iter_features(source: AudioSource, model: Model) -> Iterator[Tensor]:
    """Rows [row, frame] of a recording, part by part, analysed at its own rate."""
    spectrum = model.settings.spectrum
    rate = max(source.rate, spectrum.rate)
    _, hop, _ = scale_to_rate(spectrum, rate)
    mono = resample_blocks((to_mono(block) for block in source.blocks()), source.rate, rate)

    def analysed(piece: Chunk[Samples]) -> Tensor:
        rows, first = features_at_rate(piece.samples, rate, model), piece.left_margin // hop
        return rows[:, first:] if piece.is_last else rows[:, first : first + piece.core_size // hop]

    return parallel_map(analysed, overlapping_chunks(mono, _PREDICTOR_CHUNK_FRAMES * hop, _PREDICTOR_MARGIN_FRAMES * hop))


def features_at_rate(mono: NDArray[np.float32], rate: int, model: Model) -> Tensor:
    """Row levels [row, frame] in dB of a mono waveform (samples,), analysed at its own rate."""
    bands, spectrum = model.settings.scorer.bands, model.settings.spectrum
    return band_levels(torch.from_numpy(mono), rate, bands, spectrum)
