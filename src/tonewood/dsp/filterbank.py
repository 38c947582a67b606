"""Mel or linear filterbanks, levels in their bands, and levels of frames."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tonewood.dsp.stft import log_magnitude, scale_to_rate, stft
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray

AUDIBLE_RANGE_DB = 45.0
"""Frames further below the loudest one count as silence."""

_NEPERS_PER_DB = math.log(10) / 10  # of power


def hz_to_mel(hz: FloatArray) -> FloatArray:
    """Convert Hz to mel (O'Shaughnessy 1987): 2595 log10(1 + f / 700)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz, dtype=np.float64) / 700.0)


def mel_to_hz(mel: FloatArray) -> FloatArray:
    """Convert mel to Hz, the inverse of `hz_to_mel`."""
    return 700.0 * (10.0 ** (np.asarray(mel, dtype=np.float64) / 2595.0) - 1.0)


def center_frequencies(bands: BandSettings, spectrum: SpectrumSettings) -> FloatArray:
    """Return the centre frequency of each row in Hz, ascending."""
    if bands.scale == "linear":
        return np.arange(spectrum.bins) * (spectrum.rate / spectrum.fft)
    return _mel_edges(bands)[1:-1]


@lru_cache(maxsize=8)
def filterbank_matrix(bands: BandSettings, spectrum: SpectrumSettings) -> Tensor:
    """Return weights [row, bin] that sum bin power into rows: triangles of height 1 in Hz."""
    bins = np.arange(spectrum.bins) * (spectrum.rate / spectrum.fft)
    if bands.scale == "linear":
        return torch.eye(spectrum.bins)
    # A line up from the lower edge and one down from the upper: the smaller of both is the triangle.
    edges = _mel_edges(bands)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    # A triangle narrower than a bin may miss all of them; it takes the nearest, so no row is empty.
    for row in np.flatnonzero(weights.sum(axis=1) == 0):
        weights[row, np.abs(bins - edges[row + 1]).argmin()] = 1.0
    return torch.from_numpy(weights.astype(np.float32))


@lru_cache(maxsize=8)
def filterbank_matrix_on(
    bands: BandSettings, spectrum: SpectrumSettings, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return `filterbank_matrix` on a device, transferred once."""
    return filterbank_matrix(bands, spectrum).to(device, dtype)


def apply_filterbank(magnitude_db: Tensor, bands: BandSettings, spectrum: SpectrumSettings) -> Tensor:
    """Return row levels [..., row, frame] in dB of log magnitudes [..., bin, frame] in dB."""
    if bands.scale == "linear":
        return magnitude_db
    weights = filterbank_matrix_on(bands, spectrum, magnitude_db.device, magnitude_db.dtype)
    return filterbank_levels(magnitude_db, weights)


def filterbank_levels(magnitude_db: Tensor, weights: Tensor | None) -> Tensor:
    """Return row levels [..., row, frame] in dB by weights [row, bin]; None keeps the bins."""
    if weights is None:
        return magnitude_db
    power = torch.pow(10.0, magnitude_db / 10)
    return 10 * torch.log10(weights @ power)


def frame_levels(rows_db: Tensor) -> Tensor:
    """Return the level of each frame [..., frame] in dB: the summed power of rows [..., row, frame]."""
    # logsumexp does not overflow, and its gradient is finite at the floor.
    return torch.logsumexp(rows_db * _NEPERS_PER_DB, dim=-2) / _NEPERS_PER_DB


def is_audible(level_db: Tensor, range_db: float = AUDIBLE_RANGE_DB) -> Tensor:
    """Return a mask [..., frame] of the levels [..., frame] within `range_db` of the highest."""
    return level_db > level_db.amax(dim=-1, keepdim=True) - range_db


def audible_frames(rows_db: Tensor, range_db: float = AUDIBLE_RANGE_DB) -> Tensor:
    """Return a mask [..., frame] of the frames of rows [..., row, frame] that are audible."""
    return is_audible(frame_levels(rows_db), range_db)


def mean_level(rows_db: Tensor) -> Tensor:
    """Return the level [...] in dB of the mean power over the frames of rows [..., row, frame]."""
    return mean_power_db(frame_levels(rows_db))


def mean_power_db(levels_db: Tensor) -> Tensor:
    """Return the level [...] in dB of the mean power of frame levels [..., frame]."""
    power = torch.logsumexp(levels_db * _NEPERS_PER_DB, dim=-1)
    return (power - math.log(levels_db.shape[-1])) / _NEPERS_PER_DB


def band_levels(wave: Tensor, rate: int, bands: BandSettings, spectrum: SpectrumSettings) -> Tensor:
    """Return row levels [..., row, frame] in dB of a waveform [..., sample]; differentiable.

    Nothing is resampled: a rate above the analysis rate is analysed with windows of the same
    duration, whose lowest bins have the frequencies of the analysis.
    """
    if rate == spectrum.rate:
        return apply_filterbank(log_magnitude(stft(wave, spectrum), spectrum), bands, spectrum)
    window, hop, fft = scale_to_rate(spectrum, rate)
    # model_construct skips validation, which would refuse durations that are not round.
    scaled = SpectrumSettings.model_construct(
        rate=rate,
        window_ms=1000 * window / rate,
        hop_ms=1000 * hop / rate,
        fft=fft,
        floor_db=spectrum.floor_db,
    )
    magnitude = log_magnitude(stft(wave, scaled), spectrum)[..., : spectrum.bins, :]
    return apply_filterbank(magnitude, bands, spectrum)


def _mel_edges(bands: BandSettings) -> FloatArray:
    # count triangles need count + 2 edges: each centre is an edge of both neighbours.
    low, high = hz_to_mel(np.array([bands.low_hz, bands.high_hz]))
    return mel_to_hz(np.linspace(low, high, bands.count + 2))
