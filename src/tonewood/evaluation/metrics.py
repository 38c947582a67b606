"""Distances between a recording and a paired reference take: plain functions on arrays.

Every distance is in dB, is 0 for equal sounds, and takes no notice of the overall level. Takes that
are simultaneous are compared frame by frame; for others a `Warp` says where in the reference each
moment of the estimate is, and its frames are compared with the reference's there.
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
_FLOOR_DB = -100.0


class PairDistances(NamedTuple):
    """All distances of one estimate to one reference, dB."""

    mel: float
    log_spectral: float
    multi_resolution: float
    long_term: float


def measure_distances(estimate: Tensor, reference: Tensor, warp: Warp | None = None) -> PairDistances:
    """Distances between waveforms [sample] at 16 kHz.

    Parameters
    ----------
    warp : Warp, optional
        Without one the waveforms are simultaneous and of one length.

    Raises
    ------
    CallError
        The lengths differ, and no warp says what belongs together.
    """
    flat = estimate.ndim == reference.ndim == 1
    if not flat or (warp is None and estimate.shape != reference.shape):
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
    """Share of a distance that was closed: 1 all, 0 nothing, negative where it grew."""
    return 1 - after / before


def mel_distance(estimate: Tensor, reference: Tensor, warp: Warp | None = None) -> float:
    """Mel log-spectral distance: 48 bands from 40 Hz to 8 kHz.

    Over the frames where the reference is within 45 dB of its loudest: take off the mean
    difference, once for the whole recording, then average each frame's root mean square over
    bands.
    """
    return rows_distance(
        *_matched_frames(_mel_levels_db(estimate), _mel_levels_db(reference), _SPECTRUM, warp)
    )


def rows_distance(estimate_db: Tensor, reference_db: Tensor) -> float:
    """Distance of `mel_distance` between row levels [row, frame] in dB."""
    difference = (estimate_db - reference_db)[:, audible_frames(reference_db)]
    difference = difference - difference.mean()
    return float(difference.square().mean(dim=0).sqrt().mean())


def log_spectral_distance(estimate: Tensor, reference: Tensor, warp: Warp | None = None) -> float:
    """Log-spectral distance over the bins of the paper's spectrogram, as `mel_distance`."""
    return rows_distance(
        *_matched_frames(_bin_levels_db(estimate), _bin_levels_db(reference), _SPECTRUM, warp)
    )


def multi_resolution_distance(estimate: Tensor, reference: Tensor, warp: Warp | None = None) -> float:
    """Mean over windows of 32, 64 and 128 ms of the log-spectral distance.

    After the multi-resolution STFT loss (Yamamoto et al. 2020), its logarithmic part, in dB.
    """
    parts = []
    for fft in (512, 1024, 2048):
        settings = SpectrumSettings(window_ms=1000 * fft / 16_000, hop_ms=250 * fft / 16_000, fft=fft)
        rows = _bin_levels_db(estimate, settings), _bin_levels_db(reference, settings)
        parts.append(rows_distance(*_matched_frames(*rows, settings, warp)))
    return sum(parts) / len(parts)


def long_term_error(estimate: Tensor, reference: Tensor, warp: Warp | None = None) -> float:
    """Root mean square difference of the two long-term mel spectra, mean level taken off."""
    rows = _matched_frames(_mel_levels_db(estimate), _mel_levels_db(reference), _SPECTRUM, warp)
    power = [torch.pow(10.0, side / 10).mean(dim=1) for side in rows]
    difference = 10 * torch.log10(power[0] / power[1])
    return float((difference - difference.mean()).square().mean().sqrt())


def _matched_frames(
    estimate_db: Tensor, reference_db: Tensor, settings: SpectrumSettings, warp: Warp | None
) -> tuple[Tensor, Tensor]:
    """Rows [row, frame] of the estimate's frames, and of the reference's that belong to them."""
    if warp is None:
        return estimate_db, reference_db
    hop = settings.hop / settings.rate
    place = warp(np.arange(estimate_db.shape[1]) * hop) / hop
    used = np.isfinite(place)
    if not used.any():
        raise CallError("no moment of the estimate has a counterpart: align another pair")
    columns = place[used].round().astype(np.int64).clip(0, reference_db.shape[1] - 1)
    return estimate_db[:, torch.from_numpy(used)], reference_db[:, torch.from_numpy(columns)]


def _mel_levels_db(wave: Tensor) -> Tensor:
    return band_levels(wave, _SPECTRUM.rate, _BANDS, _SPECTRUM).clamp_min(_FLOOR_DB)


def _bin_levels_db(wave: Tensor, settings: SpectrumSettings = _SPECTRUM) -> Tensor:
    return log_magnitude(stft(wave, settings), settings).clamp_min(_FLOOR_DB)
