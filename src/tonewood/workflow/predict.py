"""The mask in one pass: what a model's predictor makes of a recording."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.errors import ModelError, shown
from tonewood.files.audio import resample
from tonewood.files.modelfile import Model
from tonewood.masking.mask import Mask
from tonewood.masking.predictor import Predictor
from tonewood.signal.bands import band_levels, centres_hz
from tonewood.signal.spectrum import scaled_to


def predictor_of(model: Model) -> Predictor:
    """Predictor of a model; ModelError if it has none."""
    if model.predictor is None:
        raise ModelError(
            f"{shown(model.name)} has no predictor: add one with train --predictor --onto, or use "
            "--method search"
        )
    return model.predictor


def predicted_mask(mono: NDArray[np.float32], rate: int, model: Model) -> Mask:
    """Mask that the predictor makes of a mono waveform (samples,), at any rate.

    It is analysed at its own rate, as a stream is, unless that is below the analysis rate.
    """
    predictor, spectrum = predictor_of(model), model.settings.spectrum
    if rate < spectrum.rate:
        mono, rate = resample(mono, rate, spectrum.rate), spectrum.rate
    gain = predictor.foresee(rows_at(mono, rate, model)).mask_db.numpy()
    _, hop, _ = scaled_to(spectrum, rate)
    hz = centres_hz(model.settings.scorer.bands, spectrum)
    return Mask(gain, hz, hop / rate, spectrum.rate / 2)


def rows_at(mono: NDArray[np.float32], rate: int, model: Model) -> Tensor:
    """Row levels [row, frame] in dB of a mono waveform (samples,), analysed at its own rate."""
    bands, spectrum = model.settings.scorer.bands, model.settings.spectrum
    return band_levels(torch.from_numpy(mono), rate, bands, spectrum)


def mono_of(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean (samples,) of the channels (channels, samples)."""
    mono: NDArray[np.float32] = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mono
