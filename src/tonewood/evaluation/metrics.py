"""Distances between a recording and a paired, aligned reference take: plain functions on arrays.

Every distance is in dB, is 0 for equal sounds, and takes no notice of the overall level.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tonewood.errors import CallError
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.signal.bands import band_levels, frame_levels
from tonewood.signal.spectrum import log_magnitude, stft

_BANDS = BandSettings(scale="mel", count=48, low_hz=40.0, high_hz=8_000.0)
_SPECTRUM = SpectrumSettings()
_AUDIBLE_DB = 45.0
_FLOOR_DB = -100.0


class Distances(NamedTuple):
    """All distances of one estimate to one reference, dB."""

    mel: float
    log_spectral: float
    multi_resolution: float
    long_term: float


def distances(estimate: Tensor, reference: Tensor) -> Distances:
    """Distances between waveforms [sample] at 16 kHz, of equal length and aligned.

    Raises
    ------
    CallError
        The lengths differ.
    """
    if estimate.shape != reference.shape or estimate.ndim != 1:
        raise CallError(
            f"a distance needs two waveforms of one length, not {tuple(estimate.shape)} and "
            f"{tuple(reference.shape)}: align them first"
        )
    return Distances(
        mel_distance(estimate, reference),
        log_spectral_distance(estimate, reference),
        multi_resolution_distance(estimate, reference),
        long_term_error(estimate, reference),
    )


def closed(before: float, after: float) -> float:
    """Share of a distance that was closed: 1 all, 0 nothing, negative where it grew."""
    return 1 - after / before


def mel_distance(estimate: Tensor, reference: Tensor) -> float:
    """Mel log-spectral distance: 48 bands from 40 Hz to 8 kHz.

    Over the frames where the reference is within 45 dB of its loudest: take off the mean
    difference, once for the whole recording, then average each frame's root mean square over
    bands.
    """
    return rows_distance(_mel(estimate), _mel(reference))


def rows_distance(estimate_db: Tensor, reference_db: Tensor) -> float:
    """Distance of `mel_distance` between row levels [row, frame] in dB."""
    difference = (estimate_db - reference_db)[:, audible_frames(reference_db)]
    difference = difference - difference.mean()
    return float(difference.square().mean(dim=0).sqrt().mean())


def log_spectral_distance(estimate: Tensor, reference: Tensor) -> float:
    """Log-spectral distance over the bins of the paper's spectrogram, as `mel_distance`."""
    difference = [_bins(wave) for wave in (estimate, reference)]
    return rows_distance(*difference)


def multi_resolution_distance(estimate: Tensor, reference: Tensor) -> float:
    """Mean over windows of 32, 64 and 128 ms of the log-spectral distance.

    After the multi-resolution STFT loss (Yamamoto et al. 2020), its logarithmic part, in dB.
    """
    parts = []
    for fft in (512, 1024, 2048):
        settings = SpectrumSettings(
            window_ms=1000 * fft / 16_000, hop_ms=250 * fft / 16_000, fft=fft
        )
        parts.append(rows_distance(_bins(estimate, settings), _bins(reference, settings)))
    return sum(parts) / len(parts)


def long_term_error(estimate: Tensor, reference: Tensor) -> float:
    """Root mean square difference of the two long-term mel spectra, mean level taken off."""
    power = [torch.pow(10.0, _mel(wave) / 10).mean(dim=1) for wave in (estimate, reference)]
    difference = 10 * torch.log10(power[0] / power[1])
    return float((difference - difference.mean()).square().mean().sqrt())


def audible_frames(rows_db: Tensor) -> Tensor:
    """Which frames [frame] are within 45 dB of the loudest."""
    level = frame_levels(rows_db)
    return level > level.max() - _AUDIBLE_DB


def _mel(wave: Tensor) -> Tensor:
    return band_levels(wave, _SPECTRUM.rate, _BANDS, _SPECTRUM).clamp_min(_FLOOR_DB)


def _bins(wave: Tensor, settings: SpectrumSettings = _SPECTRUM) -> Tensor:
    return log_magnitude(stft(wave, settings), settings).clamp_min(_FLOOR_DB)
