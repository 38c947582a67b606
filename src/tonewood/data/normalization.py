"""Making the recordings of two folders alike in what is not the instrument, both sides the same.

One loudness, one cut-off, one floor: each is brought to where the worse side stands, because what
is missing cannot be put back.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, kaiserord, oaconvolve

from tonewood.dsp.artifact_detectors import HALF_BAND_RATIO, THIRD_OCTAVES_HZ
from tonewood.dsp.chunking import overlapping_chunks
from tonewood.dsp.recording_quality import RecordingQuality
from tonewood.setting_types import NormalizedProperty
from tonewood.settings import Normalization
from tonewood.utils.arrays import FloatArray

_SKIRT_HZ = 200.0
_STOPBAND_DB = 80.0
_FILTER_BLOCK = 1 << 18  # samples that are filtered at once
_NOISE_BLOCK = 1 << 21  # samples of noise that are drawn at once
_FADE_SECONDS = 0.2
_Wave = NDArray[Any]  # in double precision, which pieces and blocks leave as it is
_BAND_EDGES_HZ: FloatArray = np.concatenate([[0.0], THIRD_OCTAVES_HZ[1:] / HALF_BAND_RATIO, [np.inf]])


def fit_normalization(
    kinds: Sequence[NormalizedProperty],
    reference: Sequence[RecordingQuality],
    source: Sequence[RecordingQuality],
) -> Normalization:
    """What makes both sides alike.

    Loudness becomes the median of all recordings; the cut-off that of the narrower side, its
    lowest decile; the floor, band by band, that of the louder side, its highest decile.
    """
    sides = (reference, source)
    both = [*reference, *source]
    loudness = cutoff = floor = None
    if "level" in kinds:
        loudness = float(np.median([it.loudness for it in both]))
    if "bandwidth" in kinds:
        cutoff = min(_lower_percentile([it.cutoff_hz for it in side], 10) for side in sides)
    if "noise" in kinds:
        known = [
            np.stack([it.floor_bands_db + _loudness_gain_db(it, loudness) for it in side])
            for side in ([it for it in side if it.floor_db is not None] for side in sides)
            if side
        ]
        if known:
            highest = np.stack([_highest_floor_decile(floors) for floors in known])
            wanted = np.fmax.reduce(highest, axis=0)
            floor = tuple(float(db) if np.isfinite(db) else None for db in wanted)
    return Normalization(loudness=loudness, cutoff_hz=cutoff, floor_bands_db=floor)


def normalize_recording(
    samples: NDArray[np.float32],
    rate: int,
    quality: RecordingQuality,
    normalization: Normalization,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Recording (channels, samples) with a fix applied; as long as it was.

    Parameters
    ----------
    quality : RecordingQuality
        Of the recording as it is.
    rng : Generator
        Draws the noise, the same for every channel.
    """
    made = list(normalize_blocks([samples], samples.shape[1], rate, quality, normalization, rng))
    return np.concatenate(made, axis=1)


def normalize_blocks(
    blocks: Iterable[NDArray[np.float32]],
    length: int,
    rate: int,
    quality: RecordingQuality,
    normalization: Normalization,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.float32]]:
    """`normalize_recording` for a recording of so many samples that comes, and goes, in blocks.

    What comes out does not depend on where the blocks end.
    """
    factor = 10 ** (_loudness_gain_db(quality, normalization.loudness) / 20)
    lifted: Iterator[_Wave] = (block.astype(np.float64) * factor for block in blocks)
    if normalization.floor_bands_db is not None:
        wanted = np.array([np.nan if db is None else db for db in normalization.floor_bands_db])
        own = quality.floor_bands_db + _loudness_gain_db(quality, normalization.loudness)
        noise = _shaped_noise_blocks(length, rate, wanted, own, rng)
        lifted = (block + part for part, block in _pair_stream_with_blocks(noise, lifted))
    if normalization.cutoff_hz is not None and normalization.cutoff_hz < rate / 2 - _SKIRT_HZ:
        lifted = _low_pass_blocks(lifted, rate, normalization.cutoff_hz)
    return (block.astype(np.float32) for block in lifted)


def low_pass_filter(wave: FloatArray, rate: int, cutoff: float) -> FloatArray:
    """Waves (channels, samples) without what lies above `cutoff` Hz: linear phase, 80 dB down."""
    return np.concatenate(list(_low_pass_blocks([wave], rate, cutoff)), axis=1)


def _low_pass_blocks(blocks: Iterable[_Wave], rate: int, cutoff: float) -> Iterator[_Wave]:
    taps, beta = kaiserord(_STOPBAND_DB, 2 * _SKIRT_HZ / rate)
    kernel = firwin(taps | 1, cutoff - _SKIRT_HZ / 2, window=("kaiser", beta), fs=rate)
    lead = len(kernel) // 2
    for piece in overlapping_chunks(blocks, _FILTER_BLOCK, lead):
        passed: _Wave = oaconvolve(piece.samples, kernel[None], mode="full", axes=1)
        first = lead + piece.left_margin
        yield passed[:, first : first + piece.core_size]


def _shaped_noise_blocks(
    length: int,
    rate: int,
    target_db: FloatArray,
    current_db: FloatArray,
    rng: np.random.Generator,
) -> Iterator[_Wave]:
    """`shaped_noise` stretch by stretch, each faded into the next, their power the same throughout.

    A recording of one stretch or less gets it whole.
    """
    if length <= _NOISE_BLOCK:
        yield shaped_noise(length, rate, target_db, current_db, rng)
        return
    fade = round(_FADE_SECONDS * rate)
    # Independent noises add in power, and sin² + cos² = 1.
    rising = np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
    before: FloatArray = np.zeros(0)
    for first in range(0, length, _NOISE_BLOCK):
        noise = shaped_noise(_NOISE_BLOCK + fade, rate, target_db, current_db, rng)
        if before.size:
            noise[:fade] = noise[:fade] * rising + before * rising[::-1]
        before = noise[_NOISE_BLOCK:].copy()
        yield noise[: min(_NOISE_BLOCK, length - first)]


def shaped_noise(
    length: int,
    rate: int,
    target_db: FloatArray,
    current_db: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """Noise [sample] that lifts a floor to the wanted level in every third octave, dBFS.

    Parameters
    ----------
    target_db, current_db : array [band]
        NaN above the highest band that is known: there it is as dense as in that band. All NaN:
        nothing is there, or wanted.
    """
    lacking = np.maximum(
        0.0,
        10 ** (_extrapolate_bands(target_db) / 10) - 10 ** (_extrapolate_bands(current_db) / 10),
    )
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hz = np.fft.rfftfreq(length, 1 / rate)
    band = np.searchsorted(_BAND_EDGES_HZ, hz, side="right") - 1
    # Below the lowest band the noise goes on as dense as it is there. White noise of power 1 has
    # 2 / rate for each Hz.
    density = (lacking / (THIRD_OCTAVES_HZ * (HALF_BAND_RATIO - 1 / HALF_BAND_RATIO)))[band] * rate / 2
    noise: FloatArray = np.fft.irfft(spectrum * np.sqrt(density), length)
    return noise


def _pair_stream_with_blocks(
    stream: Iterator[_Wave], blocks: Iterable[_Wave]
) -> Iterator[tuple[_Wave, _Wave]]:
    """As much of a stream (samples,) as each block is long, and the block."""
    held: _Wave = np.zeros(0)
    for block in blocks:
        while len(held) < block.shape[-1]:
            held = np.concatenate([held, next(stream)])
        yield held[: block.shape[-1]], block
        held = held[block.shape[-1] :]


def _extrapolate_bands(bands_db: FloatArray) -> FloatArray:
    """Levels [band], those beyond the highest known one as dense as that; -300 if none is."""
    known = np.flatnonzero(np.isfinite(bands_db))
    if known.size == 0:
        return np.full(len(bands_db), -300.0)
    above = np.maximum(0, np.arange(len(bands_db)) - known[-1])
    level: FloatArray = np.where(above > 0, bands_db[known[-1]], bands_db) + 20 * above * np.log10(
        HALF_BAND_RATIO
    )
    return level


def _loudness_gain_db(quality: RecordingQuality, loudness: float | None) -> float:
    return 0.0 if loudness is None else loudness - quality.loudness


def _lower_percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent, method="lower"))


def _highest_floor_decile(floors: FloatArray) -> FloatArray:
    """Highest decile [band] of floors [recording, band]; NaN where none is known."""
    lowest = np.where(np.isfinite(floors), floors, -300.0)
    high: FloatArray = np.percentile(lowest, 90, axis=0, method="lower")
    return np.where(high > -299, high, np.nan)
