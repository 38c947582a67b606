"""Loudness and true peak after ITU-R BS.1770-4, of recordings that come in pieces."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray
from pyloudnorm.iirfilter import IIRfilter
from scipy.signal import sosfilt, sosfreqz

from tonewood.signal.blocks import Piece, Regrouped, Samples, whole
from tonewood.signal.spectrum import Floats

_ABSOLUTE_GATE = -70.0
_STEP_SECONDS = 0.1
_STEPS = 4  # in one block of 400 ms
_PIECE = 1 << 18
_FORGOTTEN_SECONDS = 0.25  # after which nothing is left of what the weighting heard
_SHELF, _HIGH_PASS = "high_shelf_DeMan", (0.5003270373253953, 38.13547087613982)  # Q and Hz


class Energies(NamedTuple):
    """K-weighted energy of some steps of 100 ms, and of what fills no step any more.

    Parameters
    ----------
    steps : float64 array (step,)
    rest : float
    left : int
        Samples of the rest.
    """

    steps: NDArray[np.float64]
    rest: float
    left: int


def energies(piece: Piece[Samples], rate: int) -> Energies:
    """Energies of the steps that begin within a piece (channels, samples) of a recording.

    The weighting forgets within the piece's margin what came before it; the margin, unless the
    recording ends, holds the rest of the last step.
    """
    weighting = _k_weighting(rate)
    step = _step(rate)
    begin = -(-piece.start // step) * step - piece.first
    end = piece.samples.shape[1]
    if not piece.last:
        end = min(end, -(-(piece.start + piece.size) // step) * step - piece.first)
    state = np.zeros((2, piece.samples.shape[0], 2))
    power = np.empty(end)
    for start in range(0, end, _PIECE):
        stop = min(start + _PIECE, end)
        block = piece.samples[:, start:stop].astype(np.float64)
        weighted, state = sosfilt(weighting, block, axis=1, zi=state)
        power[start:stop] = np.einsum("cs,cs->s", weighted, weighted)
    own = power[begin:]
    full = len(own) // step * step
    steps = own[:full].reshape(-1, step).sum(axis=1)
    return Energies(steps, float(own[full:].sum()), len(own) - full)


def integrated(parts: Sequence[Energies], rate: int) -> float:
    """Gated loudness of a recording, LUFS; -inf for silence.

    Ungated where all of it is below -70 LUFS; shorter than one 400 ms block, the whole is one
    block, ungated. Every channel weighs the same: recordings seldom say which of theirs are
    surrounds, and loudness is used here to compare a recording with itself.

    Parameters
    ----------
    parts : sequence of Energies
        Of all pieces of it, in order.
    rate : int
        Hz.
    """
    steps, step = np.concatenate([part.steps for part in parts]), _step(rate)
    if len(steps) < _STEPS:
        total = steps.sum() + sum(part.rest for part in parts)
        return _lufs(total / (len(steps) * step + sum(part.left for part in parts)))
    power = np.convolve(steps, np.ones(_STEPS), "valid") / (_STEPS * step)
    gated = power[power > 10 ** ((_ABSOLUTE_GATE + 0.691) / 10)]
    if gated.size == 0:  # all of it below the gate: very quiet recordings have a loudness too
        return _lufs(power.mean())
    # The relative gate stands 10 LU below the mean of what passed the absolute one.
    return _lufs(gated[gated > gated.mean() / 10].mean())


class Loudness:
    """`integrated` of a recording that comes in blocks; push them, then ask.

    Parameters
    ----------
    rate : int
        Hz.
    """

    def __init__(self, rate: int) -> None:
        self._rate, self._energies = rate, list[Energies]()
        self._pieces = Regrouped(_PIECE, round(_FORGOTTEN_SECONDS * rate))

    def push(self, block: NDArray[np.float32]) -> None:
        """Hear more samples (channels, samples)."""
        self._energies += [energies(piece, self._rate) for piece in self._pieces.push(block)]

    def integrated(self) -> float:
        """Loudness of all that was heard, LUFS; nothing can be pushed after it."""
        self._energies += [energies(piece, self._rate) for piece in self._pieces.rest()]
        return integrated(self._energies, self._rate)


def true_peak(piece: Piece[Samples], rate: int) -> float:
    """Highest level of a piece (channels, samples), between the samples too; 1 is full scale.

    Four times as many samples are looked at as there are, or twice from 96 kHz on (Annex 2).
    """
    factor = 4 if rate < 96_000 else 2
    channels = piece.samples.shape[0]
    stream = soxr.ResampleStream(rate, rate * factor, channels, dtype="float32", quality="HQ")
    begin = factor * piece.lead
    end = np.inf if piece.last else factor * (piece.lead + piece.size)
    peak, at = max(float(piece.own.max()), -float(piece.own.min())), 0
    blocks = [piece.samples[:, it : it + _PIECE] for it in range(0, piece.samples.shape[1], _PIECE)]
    # Flushing with zeros can ring past an abrupt end no more than the samples themselves do.
    blocks.append(np.zeros((channels, 0), np.float32))
    for number, block in enumerate(blocks, start=1):
        last = number == len(blocks)
        made = stream.resample_chunk(np.ascontiguousarray(block.T), last=last)
        own = made[max(0, begin - at) : int(max(0, min(end - at, len(made))))]
        peak = max(peak, float(own.max(initial=0)), -float(own.min(initial=0)))
        at += len(made)
    return peak


def integrated_loudness(samples: NDArray[np.float32], rate: int) -> float:
    """`integrated` of a whole recording (channels, samples) at `rate` Hz, LUFS."""
    return integrated([energies(whole(samples), rate)], rate)


def weighting_db(hz: Floats) -> Floats:
    """K-weighting at some frequencies, dB; -180 dB at 0 Hz, of which nothing passes."""
    response = sosfreqz(_k_weighting(48_000), worN=np.asarray(hz), fs=48_000)[1]
    gain: Floats = 20 * np.log10(np.maximum(np.abs(response), 1e-9))
    return gain


def true_peak_db(samples: NDArray[np.float32], rate: int) -> float:
    """`true_peak` of a whole recording (channels, samples) at `rate` Hz, dBTP."""
    return level_db(true_peak(whole(samples), rate))


def level_db(peak: float) -> float:
    """A peak in dB re full scale; -inf for silence."""
    return 20 * float(np.log10(peak)) if peak > 0 else float("-inf")


def _step(rate: int) -> int:
    return round(_STEP_SECONDS * rate)


def _k_weighting(rate: int) -> Floats:
    """Both stages [stage, coefficient] as `sosfilt` takes them.

    At 48 kHz they are those of the standard's tables (De Man 2018), and at other rates the same
    analogue filters by the bilinear transform. pyloudnorm's meter stops at five channels and at
    400 ms.
    """
    shelf = IIRfilter(3.99984385397, 0.7071752369554193, 1681.9744509555319, rate, _SHELF)
    high = IIRfilter(0.0, *_HIGH_PASS, rate, "high_pass")
    # The standard's numerator is 1, -2, 1, which lifts all that passes by 0.04 dB at 48 kHz, hence
    # by as much at every rate.
    lift = 1 / IIRfilter(0.0, *_HIGH_PASS, 48_000, "high_pass").b[0]
    return np.array([[*shelf.b, *shelf.a], [*(lift * high.b), *high.a]])


def _lufs(power: float) -> float:
    return -0.691 + 10 * float(np.log10(power)) if power > 0 else float("-inf")
