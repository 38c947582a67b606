"""One band alone: what lies outside of it is not to be touched by anybody."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, oaconvolve

from tonewood.signal.spectrum import Floats

Block = NDArray[np.float32]
"""Samples (channels, samples)."""

STOP_DB = 100.0
FADE_OCTAVES = 1 / 3
_LEAST_HZ = 40.0  # of a fade: the 30 ms window of the masks resolves no less


def band_alone(
    pairs: Iterable[tuple[Block, Block]], rate: int, low_hz: float, high_hz: float
) -> Iterator[Block]:
    """A recording changed in one band alone: itself, and of the change what the band holds.

    The change is passed through a linear-phase band-pass, in time with the recording: faded inside
    the band over a third of an octave, or over 40 Hz where that is more; 100 dB down outside
    (Kaiser's window, 1974). An end beyond the Nyquist frequency is no end.

    Parameters
    ----------
    pairs : iterable of (Block, Block)
        The recording and what was made of it, block by block, of the same lengths.

    Yields
    ------
    Block
        Of other lengths than those given; as long in all.
    """
    kernel = _kernel(rate, low_hz, high_hz)
    lag = len(kernel) // 2
    waiting: list[Block] = []  # recordings that the band-pass has not caught up with
    ahead: Floats | None = None  # what blocks so far give to samples yet to come
    skip = lag
    for before, made in pairs:
        waiting.append(before)
        full = oaconvolve((made - before).astype(np.float64), kernel[None], axes=1)
        if ahead is not None:
            full[:, : ahead.shape[1]] += ahead
        ready, ahead = np.split(full, [before.shape[1]], axis=1)
        ready = ready[:, min(skip, ready.shape[1]) :]
        skip -= before.shape[1] - ready.shape[1]
        if ready.shape[1]:
            yield _added(waiting, ready)
    if ahead is not None:
        rest = ahead[:, skip : skip + sum(block.shape[1] for block in waiting)]
        yield _added(waiting, rest)


def fade_hz(low_hz: float, high_hz: float) -> float:
    """Width of each fade: of the lower one, the narrower; at most half the band."""
    return min(max(low_hz * (2**FADE_OCTAVES - 1), _LEAST_HZ), (high_hz - low_hz) / 2)


def reach_seconds(low_hz: float, high_hz: float) -> float:
    """How far the band-pass reaches, either way: longer for narrower fades (Kaiser's rule)."""
    return (STOP_DB - 7.95) / (2.285 * 2 * np.pi * fade_hz(low_hz, high_hz)) / 2


def _kernel(rate: int, low_hz: float, high_hz: float) -> Floats:
    fade = fade_hz(low_hz, high_hz)
    cuts = [low_hz + fade / 2, high_hz - fade / 2]
    taps = 2 * round(reach_seconds(low_hz, high_hz) * rate) + 1
    if cuts[0] >= rate / 2:
        return np.zeros(taps)
    if cuts[1] >= rate / 2:
        cuts.pop()
    beta = 0.1102 * (STOP_DB - 8.7)
    kernel: Floats = firwin(taps, cuts, window=("kaiser", beta), pass_zero=False, fs=rate)
    return kernel


def _added(waiting: list[Block], change: Floats) -> Block:
    """The oldest of what waits, as much as there is change for, with the change added."""
    before = np.concatenate(waiting, axis=1)
    count = change.shape[1]
    waiting[:] = [before[:, count:]]
    made: Block = before[:, :count] + change.astype(np.float32)
    return made
