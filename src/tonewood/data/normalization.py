"""Normalize both sides of the training data to the same loudness, bandwidth and noise floor.

Each property becomes that of the worse side, because lost bandwidth and hidden detail cannot be restored.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.artifact_detectors import HALF_BAND_RATIO, THIRD_OCTAVES_HZ
from tonewood.dsp.chunking import overlapping_chunks
from tonewood.dsp.equalizer import filter_without_delay, kaiser_filter, kaiser_filter_order
from tonewood.dsp.recording_quality import RecordingQuality
from tonewood.setting_types import NormalizedProperty
from tonewood.settings import Normalization
from tonewood.utils.arrays import FloatArray

_SKIRT_HZ = 200.0  # transition band of the low-pass
_STOPBAND_DB = 80.0
# Samples filtered and drawn at once. The second decides the noise: a change needs a new `_CACHE_VERSION`.
_FILTER_BLOCK, _NOISE_BLOCK = 1 << 18, 1 << 21
_FADE_SECONDS = 0.2
_Wave = NDArray[Any]  # in double precision
_BAND_EDGES_HZ: FloatArray = np.concatenate([[0.0], THIRD_OCTAVES_HZ[1:] / HALF_BAND_RATIO, [np.inf]])


def fit_normalization(
    kinds: Sequence[NormalizedProperty],
    reference: Sequence[RecordingQuality],
    source: Sequence[RecordingQuality],
) -> Normalization:
    """Return the normalization that makes both sides alike.

    The loudness is the median of all recordings, the cut-off the lowest decile of the narrower side, and the
    noise floor in each band the highest decile of the louder side. Deciles ignore outliers.
    """
    sides = (reference, source)
    loudness = cutoff = floor = None
    if "level" in kinds:
        loudness = float(np.median([quality.loudness for quality in [*reference, *source]]))
    if "bandwidth" in kinds:
        hz = [[quality.cutoff_hz for quality in side] for side in sides]
        cutoff = min(float(np.percentile(of_side, 10, method="lower")) for of_side in hz)
    if "noise" in kinds:
        floors = []
        for side in sides:
            measured = [quality for quality in side if quality.floor_db is not None]
            if measured:
                # The loudness gain is applied first, and moves the noise floor with it.
                bands = [
                    quality.floor_bands_db + _loudness_gain_db(quality, loudness) for quality in measured
                ]
                floors.append(_highest_floor_decile(np.stack(bands)))
        # Noise can only be added, so the louder floor is the target in every band.
        if floors:
            highest = np.fmax.reduce(np.stack(floors), axis=0)
            floor = tuple(float(db) if np.isfinite(db) else None for db in highest)
    return Normalization(loudness=loudness, cutoff_hz=cutoff, floor_bands_db=floor)


def normalize_recording(
    samples: NDArray[np.float32],
    rate: int,
    quality: RecordingQuality,
    normalization: Normalization,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Normalize a recording (channels, samples); its length does not change.

    Parameters
    ----------
    quality : RecordingQuality
        Of the recording before normalization.
    rng : Generator
        For the noise, which is the same in every channel.
    """
    blocks = list(normalize_blocks([samples], samples.shape[1], rate, quality, normalization, rng))
    return np.concatenate(blocks, axis=1)


def normalize_blocks(
    blocks: Iterable[NDArray[np.float32]],
    length: int,
    rate: int,
    quality: RecordingQuality,
    normalization: Normalization,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.float32]]:
    """Normalize a recording of `length` samples in blocks, whose borders do not affect the result."""
    factor = 10 ** (_loudness_gain_db(quality, normalization.loudness) / 20)
    waves: Iterator[_Wave] = (block.astype(np.float64) * factor for block in blocks)
    if normalization.floor_bands_db is not None:
        target = np.array([np.nan if db is None else db for db in normalization.floor_bands_db])
        current = quality.floor_bands_db + _loudness_gain_db(quality, normalization.loudness)
        noise = _shaped_noise_blocks(length, rate, target, current, rng)
        waves = (block + added for added, block in _pair_stream_with_blocks(noise, waves))
    # The low-pass comes last, so that it also limits the added noise.
    if normalization.cutoff_hz is not None and normalization.cutoff_hz < rate / 2 - _SKIRT_HZ:
        waves = _low_pass_blocks(waves, rate, normalization.cutoff_hz)
    return (block.astype(np.float32) for block in waves)


def _low_pass_blocks(blocks: Iterable[_Wave], rate: int, cutoff: float) -> Iterator[_Wave]:
    """Low-pass at `cutoff` Hz with linear phase and 80 dB attenuation."""
    taps = math.ceil(kaiser_filter_order(_STOPBAND_DB, _SKIRT_HZ) * rate + 1) | 1
    kernel = kaiser_filter(taps, 0.0, cutoff - _SKIRT_HZ / 2, _STOPBAND_DB, rate)
    for chunk in overlapping_chunks(blocks, _FILTER_BLOCK, taps // 2):
        filtered: _Wave = filter_without_delay(chunk.samples, kernel)
        yield filtered[:, chunk.left_margin : chunk.left_margin + chunk.core_size]


def _shaped_noise_blocks(
    length: int, rate: int, target_db: FloatArray, current_db: FloatArray, rng: np.random.Generator
) -> Iterator[_Wave]:
    """Yield shaped noise in crossfaded blocks of constant power; short noise is one block."""
    if length <= _NOISE_BLOCK:
        yield shaped_noise(length, rate, target_db, current_db, rng)
        return
    fade = round(_FADE_SECONDS * rate)
    # Independent noises add in power, and sin² + cos² = 1, hence a constant power.
    fade_in = np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
    tail: FloatArray = np.zeros(0)
    for start in range(0, length, _NOISE_BLOCK):
        noise = shaped_noise(_NOISE_BLOCK + fade, rate, target_db, current_db, rng)
        if tail.size:
            noise[:fade] = noise[:fade] * fade_in + tail * fade_in[::-1]
        tail = noise[_NOISE_BLOCK:].copy()
        yield noise[: min(_NOISE_BLOCK, length - start)]


def shaped_noise(
    length: int, rate: int, target_db: FloatArray, current_db: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Return noise [sample] that raises a noise floor to a target level in every third octave.

    `target_db` and `current_db` [band] are in dBFS. NaN above the highest known band means that its density
    continues there; all NaN means no noise.
    """
    missing_power = np.maximum(
        0.0, 10 ** (_extrapolate_bands(target_db) / 10) - 10 ** (_extrapolate_bands(current_db) / 10)
    )
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hz = np.fft.rfftfreq(length, 1 / rate)
    band = np.searchsorted(_BAND_EDGES_HZ, hz, side="right") - 1
    # Below the lowest band its density continues. White noise of power 1 has a density of 2 / rate per Hz.
    density = (missing_power / (THIRD_OCTAVES_HZ * (HALF_BAND_RATIO - 1 / HALF_BAND_RATIO)))[band] * rate / 2
    noise: FloatArray = np.fft.irfft(spectrum * np.sqrt(density), length)
    return noise


def _pair_stream_with_blocks(
    stream: Iterator[_Wave], blocks: Iterable[_Wave]
) -> Iterator[tuple[_Wave, _Wave]]:
    """Yield the next samples of a stream (samples,) with each block of the same length."""
    rest: _Wave = np.zeros(0)
    for block in blocks:
        while len(rest) < block.shape[-1]:
            rest = np.concatenate([rest, next(stream)])
        yield rest[: block.shape[-1]], block
        rest = rest[block.shape[-1] :]


def _extrapolate_bands(bands_db: FloatArray) -> FloatArray:
    """Return levels [band], extended above the highest known band; -300 dB if none is known."""
    known = np.flatnonzero(np.isfinite(bands_db))
    if known.size == 0:
        return np.full(len(bands_db), -300.0)
    # At constant density, a band has more power by the ratio of the widths, which is HALF_BAND_RATIO².
    above = np.maximum(0, np.arange(len(bands_db)) - known[-1])
    growth_db = 20 * above * np.log10(HALF_BAND_RATIO)
    level: FloatArray = np.where(above > 0, bands_db[known[-1]], bands_db) + growth_db
    return level


def _loudness_gain_db(quality: RecordingQuality, loudness: float | None) -> float:
    return 0.0 if loudness is None else loudness - quality.loudness


def _highest_floor_decile(floors: FloatArray) -> FloatArray:
    """Return the highest decile [band] of noise floors [recording, band]; NaN if none is known."""
    lowest = np.where(np.isfinite(floors), floors, -300.0)
    high: FloatArray = np.percentile(lowest, 90, axis=0, method="lower")
    return np.where(high > -299, high, np.nan)
