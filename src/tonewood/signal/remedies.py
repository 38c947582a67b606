"""Making the recordings of two folders alike in what is not the instrument, both sides the same.

One loudness, one cut-off, one floor: each is brought to where the worse side stands, because what
is missing cannot be put back.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, kaiserord, oaconvolve

from tonewood.settings import Fix, Fixable
from tonewood.signal.blocks import overlapping
from tonewood.signal.marks import CENTRES_HZ, EDGE, Floats
from tonewood.signal.traces import Traces

_SKIRT_HZ = 200.0
_STOP_DB = 80.0
_PIECE = 1 << 18  # samples that are filtered at once
_STRETCH = 1 << 21  # samples of noise that are drawn at once
_FADE_S = 0.2
_Wave = NDArray[Any]  # in double precision, which pieces and blocks leave as it is
_EDGES_HZ: Floats = np.concatenate([[0.0], CENTRES_HZ[1:] / EDGE, [np.inf]])


def plan(kinds: Sequence[Fixable], reference: Sequence[Traces], source: Sequence[Traces]) -> Fix:
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
        cutoff = min(_decile([it.cutoff_hz for it in side], 10) for side in sides)
    if "noise" in kinds:
        known = [
            np.stack([it.floor_bands_db + _gain_db(it, loudness) for it in side])
            for side in ([it for it in side if it.floor_db is not None] for side in sides)
            if side
        ]
        if known:
            highest = np.stack([_highest(floors) for floors in known])
            wanted = np.fmax.reduce(highest, axis=0)
            floor = tuple(float(db) if np.isfinite(db) else None for db in wanted)
    return Fix(loudness=loudness, cutoff_hz=cutoff, floor_bands_db=floor)


def fixed(
    samples: NDArray[np.float32], rate: int, traces: Traces, fix: Fix, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Recording (channels, samples) with a fix applied; as long as it was.

    Parameters
    ----------
    traces : Traces
        Of the recording as it is.
    rng : Generator
        Draws the noise, the same for every channel.
    """
    made = list(fixed_blocks([samples], samples.shape[1], rate, traces, fix, rng))
    return np.concatenate(made, axis=1)


def fixed_blocks(
    blocks: Iterable[NDArray[np.float32]],
    length: int,
    rate: int,
    traces: Traces,
    fix: Fix,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.float32]]:
    """`fixed` for a recording of so many samples that comes, and goes, in blocks.

    What comes out does not depend on where the blocks end.
    """
    factor = 10 ** (_gain_db(traces, fix.loudness) / 20)
    lifted: Iterator[_Wave] = (block.astype(np.float64) * factor for block in blocks)
    if fix.floor_bands_db is not None:
        wanted = np.array([np.nan if db is None else db for db in fix.floor_bands_db])
        own = traces.floor_bands_db + _gain_db(traces, fix.loudness)
        noise = _floor_noises(length, rate, wanted, own, rng)
        lifted = (block + part for part, block in _beside(noise, lifted))
    if fix.cutoff_hz is not None and fix.cutoff_hz < rate / 2 - _SKIRT_HZ:
        lifted = _low_passed_blocks(lifted, rate, fix.cutoff_hz)
    return (block.astype(np.float32) for block in lifted)


def low_passed(wave: Floats, rate: int, cutoff: float) -> Floats:
    """Waves (channels, samples) without what lies above `cutoff` Hz: linear phase, 80 dB down."""
    return np.concatenate(list(_low_passed_blocks([wave], rate, cutoff)), axis=1)


def _low_passed_blocks(blocks: Iterable[_Wave], rate: int, cutoff: float) -> Iterator[_Wave]:
    taps, beta = kaiserord(_STOP_DB, 2 * _SKIRT_HZ / rate)
    kernel = firwin(taps | 1, cutoff - _SKIRT_HZ / 2, window=("kaiser", beta), fs=rate)
    lead = len(kernel) // 2
    for piece in overlapping(blocks, _PIECE, lead):
        passed: _Wave = oaconvolve(piece.samples, kernel[None], mode="full", axes=1)
        first = lead + piece.lead
        yield passed[:, first : first + piece.size]


def _floor_noises(
    length: int, rate: int, wanted_db: Floats, own_db: Floats, rng: np.random.Generator
) -> Iterator[_Wave]:
    """`floor_noise` stretch by stretch, each faded into the next, their power the same throughout.

    A recording of one stretch or less gets it whole.
    """
    if length <= _STRETCH:
        yield floor_noise(length, rate, wanted_db, own_db, rng)
        return
    fade = round(_FADE_S * rate)
    # Independent noises add in power, and sin² + cos² = 1.
    rising = np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
    before: Floats = np.zeros(0)
    for first in range(0, length, _STRETCH):
        noise = floor_noise(_STRETCH + fade, rate, wanted_db, own_db, rng)
        if before.size:
            noise[:fade] = noise[:fade] * rising + before * rising[::-1]
        before = noise[_STRETCH:].copy()
        yield noise[: min(_STRETCH, length - first)]


def floor_noise(
    length: int, rate: int, wanted_db: Floats, own_db: Floats, rng: np.random.Generator
) -> Floats:
    """Noise [sample] that lifts a floor to the wanted level in every third octave, dBFS.

    Parameters
    ----------
    wanted_db, own_db : array [band]
        NaN above the highest band that is known: there it is as dense as in that band. All NaN:
        nothing is there, or wanted.
    """
    lacking = np.maximum(0.0, 10 ** (_extended(wanted_db) / 10) - 10 ** (_extended(own_db) / 10))
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hz = np.fft.rfftfreq(length, 1 / rate)
    band = np.searchsorted(_EDGES_HZ, hz, side="right") - 1
    # Below the lowest band the noise goes on as dense as it is there. White noise of power 1 has
    # 2 / rate for each Hz.
    density = (lacking / (CENTRES_HZ * (EDGE - 1 / EDGE)))[band] * rate / 2
    noise: Floats = np.fft.irfft(spectrum * np.sqrt(density), length)
    return noise


def _beside(stream: Iterator[_Wave], blocks: Iterable[_Wave]) -> Iterator[tuple[_Wave, _Wave]]:
    """As much of a stream (samples,) as each block is long, and the block."""
    held: _Wave = np.zeros(0)
    for block in blocks:
        while len(held) < block.shape[-1]:
            held = np.concatenate([held, next(stream)])
        yield held[: block.shape[-1]], block
        held = held[block.shape[-1] :]


def _extended(bands_db: Floats) -> Floats:
    """Levels [band], those beyond the highest known one as dense as that; -300 if none is."""
    known = np.flatnonzero(np.isfinite(bands_db))
    if known.size == 0:
        return np.full(len(bands_db), -300.0)
    above = np.maximum(0, np.arange(len(bands_db)) - known[-1])
    level: Floats = np.where(above > 0, bands_db[known[-1]], bands_db) + 20 * above * np.log10(EDGE)
    return level


def _gain_db(traces: Traces, loudness: float | None) -> float:
    return 0.0 if loudness is None else loudness - traces.loudness


def _decile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent, method="lower"))


def _highest(floors: Floats) -> Floats:
    """Highest decile [band] of floors [recording, band]; NaN where none is known."""
    lowest = np.where(np.isfinite(floors), floors, -300.0)
    high: Floats = np.percentile(lowest, 90, axis=0, method="lower")
    return np.where(high > -299, high, np.nan)
