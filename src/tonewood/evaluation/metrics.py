"""Distances between a recording and a paired reference take: plain functions on arrays.

Every distance is in dB, is 0 for equal sounds, and does not depend on the overall level.
Simultaneous takes are compared frame by frame. For others, a `Warp` gives the reference time of
each frame.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.dsp.filterbank import audible_frames, band_levels
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.errors import CallError
from tonewood.settings import BandSettings, SpectrumSettings

Warp = Callable[[NDArray[np.floating[Any]]], NDArray[np.floating[Any]]]
"""Seconds in the estimate → seconds in the reference, NaN where there is no counterpart."""

_BANDS = BandSettings(scale="mel", count=48, low_hz=40.0, high_hz=8_000.0)
_SPECTRUM = SpectrumSettings()
_FLOOR_DB = -100.0  # dBFS: differences between inaudible levels must not count


class PairDistances(NamedTuple):
    """All distances of one estimate to one reference, dB."""

    mel: float
    log_spectral: float
    multi_resolution: float
    long_term: float


def measure_distances(estimate: Tensor, reference: Tensor, warp: Warp | None = None) -> PairDistances:
    """Measure all distances between waveforms [sample] at 16 kHz.

    Without a warp the waveforms are simultaneous; CallError if their lengths differ.
    """
    is_mono = estimate.ndim == reference.ndim == 1
    if not is_mono or (warp is None and estimate.shape != reference.shape):
        raise CallError(
            f"a distance needs two waveforms of one length, not {tuple(estimate.shape)} and "
            f"{tuple(reference.shape)}: align them first"
        )
    return PairDistances(
        mel_distance(estimate, reference, warp),
        log_spectral_distance(estimate, reference, warp),
        multi_resolution_distance(estimate, reference, warp),
        long_term_error(estimate, reference, warp),
    )


def gap_closed(before: float, after: float) -> float:
    """Return the share of a distance that was closed: 1 all, 0 none, negative if it grew."""
    return 1 - after / before


def mel_distance(estimate: Tensor, reference: Tensor, warp: Warp | None = None) -> float:
    """Return the mel log-spectral distance: 48 bands from 40 Hz to 8 kHz."""
    return _warped_distance(_mel_levels_db(estimate), _mel_levels_db(reference), _SPECTRUM, warp)


def rows_distance(estimate_db: Tensor, reference_db: Tensor) -> float:
    """Return the distance between row levels [row, frame] in dB.

    Over the frames where the reference is audible: remove the mean difference, once for the whole
    recording, then average the root mean square over rows of each frame.
    """
    difference = (estimate_db - reference_db)[:, audible_frames(reference_db)]
    # One gain for the whole recording: removing it frame by frame would hide wrong dynamics.
    difference = difference - difference.mean()
    return float(difference.square().mean(dim=0).sqrt().mean())


def log_spectral_distance(estimate: Tensor, reference: Tensor, warp: Warp | None = None) -> float:
    """Return the log-spectral distance over the bins of the paper's spectrogram."""
    return _warped_distance(_bin_levels_db(estimate), _bin_levels_db(reference), _SPECTRUM, warp)


def multi_resolution_distance(estimate: Tensor, reference: Tensor, warp: Warp | None = None) -> float:
    """Return the mean log-spectral distance over windows of 32, 64 and 128 ms.

    This is the logarithmic part of the multi-resolution STFT loss (Yamamoto et al. 2020) in dB.
    """
    distances = []
    for fft in (512, 1024, 2048):
        # Hops of a quarter window, as in the published loss.
        settings = SpectrumSettings(window_ms=1000 * fft / 16_000, hop_ms=250 * fft / 16_000, fft=fft)
        rows = _bin_levels_db(estimate, settings), _bin_levels_db(reference, settings)
        distances.append(_warped_distance(*rows, settings, warp))
    return sum(distances) / len(distances)


def long_term_error(estimate: Tensor, reference: Tensor, warp: Warp | None = None) -> float:
    """Return the rms difference of the long-term mel spectra, without the mean level."""
    rows = _matched_frames(_mel_levels_db(estimate), _mel_levels_db(reference), _SPECTRUM, warp)
    # Mean of power, not of dB: pauses must not weigh as much as notes.
    power = [torch.pow(10.0, side / 10).mean(dim=1) for side in rows]
    # The mean over rows is a gain, which a distance between sounds must not count.
    difference = 10 * torch.log10(power[0] / power[1])
    return float((difference - difference.mean()).square().mean().sqrt())


def _warped_distance(
    estimate_db: Tensor, reference_db: Tensor, settings: SpectrumSettings, warp: Warp | None
) -> float:
    return rows_distance(*_matched_frames(estimate_db, reference_db, settings, warp))


def _matched_frames(
    estimate_db: Tensor, reference_db: Tensor, settings: SpectrumSettings, warp: Warp | None
) -> tuple[Tensor, Tensor]:
    """Return the estimate's frames that have a counterpart, and the reference's, [row, frame]."""
    if warp is None:
        return estimate_db, reference_db
    hop = settings.hop / settings.rate
    position = warp(np.arange(estimate_db.shape[1]) * hop) / hop
    used = np.isfinite(position)
    if not used.any():
        raise CallError("no frame of the estimate has a counterpart: align another pair")
    columns = position[used].round().astype(np.int64).clip(0, reference_db.shape[1] - 1)
    return estimate_db[:, torch.from_numpy(used)], reference_db[:, torch.from_numpy(columns)]


def _mel_levels_db(wave: Tensor) -> Tensor:
    return band_levels(wave, _SPECTRUM.rate, _BANDS, _SPECTRUM).clamp_min(_FLOOR_DB)


def _bin_levels_db(wave: Tensor, settings: SpectrumSettings = _SPECTRUM) -> Tensor:
    return log_magnitude(stft(wave, settings), settings).clamp_min(_FLOOR_DB)
