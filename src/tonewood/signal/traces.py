"""What a room, a microphone or a codec leaves in a recording, each looked for where it shows.

The instrument's own colour is left out as far as can be: a cut-off is a cliff, not a rolloff; the
floor is what the rests hold; hum is a line that never stops; a tail is how fast sound can end.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tonewood.signal.loudness import Loudness
from tonewood.signal.marks import (
    CENTRES_HZ,
    EDGE,
    FEWEST,
    HOP_S,
    SILENT_DB,
    Floats,
    cutoff_hz,
    decay_s,
    decibels,
    tails,
)
from tonewood.signal.running import FlatTops, Frames, Holes, Hum, Samples

_WINDOW_S = 0.04
_ENOUGH = 4096  # frames of the rests that are averaged bin by bin, at least, where there are more
_BLOCK = 1 << 17
_REST_DB = 40.0  # below the loud frames, where the floor begins to show


class Traces(NamedTuple):
    """What one recording betrays of how it was made; None where it cannot be known.

    Parameters
    ----------
    seconds : float
    rate : int
        Hz.
    loudness : float
        LUFS.
    floor_db : float or None
        Level of its rests above 400 Hz, where no hum is, dBFS; None if there are none.
    floor_bands_db, long_term_db : array [band]
        Level in third octaves of the rests and of the whole, dBFS; NaN where there are none.
    lead_s, tail_s : float
        Silence before the first and after the last sound.
    silent : float
        Share of its frames that are rests.
    gated : float
        Share of its frames that hold nothing at all, not even a floor.
    cutoff_hz : float
        Above it stands a cliff and then nothing; half the rate if there is no cliff.
    holes : float
        Share of the cells above 4 kHz that drop out by themselves, as codecs and denoisers do.
    hum_db : tuple of float or None
        Height of the tallest line on multiples of 50 and of 60 Hz above its neighbours.
    offset_db : float
        Constant part, dBFS.
    clips : float
        Flat tops a minute.
    decay_s : tuple of float or None
        Time for 60 dB at the rate of the fastest falls, 500 Hz to 2 kHz and 2 to 5 kHz.
    width_db : float
        What differs between channels against what is common, -60 (mono) to 60.
    """

    seconds: float
    rate: int
    loudness: float
    floor_db: float | None
    floor_bands_db: Floats
    long_term_db: Floats
    lead_s: float
    tail_s: float
    silent: float
    gated: float
    cutoff_hz: float
    holes: float
    hum_db: tuple[float, float] | None
    offset_db: float
    clips: float
    decay_s: tuple[float, float] | None
    width_db: float


class Tracing:
    """Traces of a recording that is run through twice: push its blocks, then look again.

    Levels of the whole decide where its rests are, and its peak where it may be clipped; memory
    grows with its length by 3 kB a second.

    Parameters
    ----------
    rate : int
        Hz.
    channels : int
    """

    def __init__(self, rate: int, channels: int) -> None:
        self.rate, self.channels = rate, channels
        self.samples, self.common, self.apart = 0, 0.0, 0.0
        self.sums, self.peaks = np.zeros(channels), np.zeros(channels, np.float32)
        self.loudness, self.hum = Loudness(rate), Hum(rate)
        self.spectra = _Spectra(rate)

    def push(self, block: Samples) -> None:
        """Hear more samples (channels, samples)."""
        mono = _mono(block)
        self.samples += block.shape[1]
        self.sums += block.sum(axis=1, dtype=np.float64)
        self.peaks = np.maximum(self.peaks, np.abs(block).max(axis=1, initial=0))
        self.common += float(np.square(mono, dtype=np.float64).sum())
        self.apart += float(np.square(block - mono, dtype=np.float64).sum())
        self.loudness.push(block)
        self.hum.push(mono)
        self.spectra.push(mono)

    def again(self) -> "Retracing":
        """Who is to be given the same blocks once more; nothing can be pushed here after it."""
        return Retracing(self)

    @property
    def width_db(self) -> float:
        """What differs between channels against what is common, dB."""
        common, apart = self.common / self.samples, self.apart / (self.samples * self.channels)
        return float(np.clip(decibels(apart / max(common, 1e-20)), -60.0, 60.0))


class Retracing:
    """The second run; see `Tracing`."""

    def __init__(self, first: Tracing) -> None:
        self._first = first
        first.spectra.end()
        self._power = np.concatenate(first.spectra.frames)
        self._level = decibels(self._power)
        self._quiet = self._level < _rest_level(self._level)
        self._rests = _Rests(first.spectra, self._power, self._quiet & (self._level >= SILENT_DB))
        self._lines, self._tops = first.hum.lines(), FlatTops(first.peaks)

    def push(self, block: Samples) -> None:
        """Hear a block again."""
        mono = _mono(block)
        self._rests.push(mono)
        self._tops.push(block)
        if self._lines is not None:
            self._lines.push(mono)

    def traces(self) -> Traces:
        """All that was found."""
        first, spectra, rests = self._first, self._first.spectra, self._rests
        quiet, level, rate = self._quiet, self._level, self._first.rate
        sounding = np.flatnonzero(~quiet)
        floor = rests.floor()
        cutoff = cutoff_hz(spectra.mean(), floor.mean if floor else None, rate)
        offset = np.abs(first.sums / first.samples).max()
        return Traces(
            seconds=first.samples / rate,
            rate=rate,
            loudness=first.loudness.integrated(),
            floor_db=_hiss_db(floor.mean, rate) if floor else None,
            floor_bands_db=_padded(decibels(floor.bands) if floor else np.empty(0)),
            long_term_db=_padded(decibels(spectra.bands / len(level))),
            lead_s=float(sounding[0]) * HOP_S,
            tail_s=float(len(level) - 1 - sounding[-1]) * HOP_S,
            silent=float(quiet.mean()),
            gated=float((level < SILENT_DB).mean()),
            cutoff_hz=cutoff,
            holes=spectra.holes.share(cutoff),
            hum_db=None if self._lines is None else self._lines.tallest_db(),
            offset_db=float(20 * np.log10(offset + 1e-9)),
            clips=60 * self._tops.count * rate / first.samples,
            decay_s=decay_s(np.concatenate(spectra.tails, axis=1)),
            width_db=first.width_db,
        )


def traces(samples: NDArray[np.float32], rate: int) -> Traces:
    """Traces of a recording.

    Parameters
    ----------
    samples : float32 array (channels, samples)
        Full scale is ±1.
    rate : int
        Hz.
    """
    first = Tracing(rate, samples.shape[0])
    for block in _blocks(samples):
        first.push(block)
    second = first.again()
    for block in _blocks(samples):
        second.push(block)
    return second.traces()


class _Spectra:
    """Power of a recording: of its frames, and summed over them, of bins and third octaves.

    Parameters
    ----------
    rate : int
        Hz.
    """

    def __init__(self, rate: int) -> None:
        self.window, self.hop = round(_WINDOW_S * rate), round(HOP_S * rate)
        hz = np.arange(self.window // 2 + 1) * (rate / self.window)
        at = CENTRES_HZ[rate / 2 >= CENTRES_HZ * EDGE, None]
        self.mix = torch.from_numpy(((hz >= at / EDGE) & (hz < at * EDGE)).astype(np.float32))
        # The lowest bins hold offset and rumble, which have other names.
        self._above = torch.from_numpy(hz > 40)
        self._total, self.bands = np.zeros(len(hz)), np.zeros(len(at))
        self.frames: list[Floats] = []
        self.tails: list[Floats] = []
        self.holes, self._coming = Holes(len(at)), Frames(self.window, self.hop)

    def push(self, mono: Samples) -> None:
        """Hear more of a waveform (samples,)."""
        self._look(self._coming.push(mono))

    def end(self) -> None:
        """Nothing more comes."""
        if not self.frames:
            self._look(self._coming.padded())

    def mean(self) -> Floats:
        """Mean power [bin]."""
        return self._total / sum(map(len, self.frames))

    def _look(self, frames: Samples) -> None:
        if len(frames) == 0:
            return
        power = _power(torch.from_numpy(frames))
        bands = (self.mix @ power).double().numpy()
        self._total += power.sum(dim=1, dtype=torch.float64).numpy()
        self.frames.append(power[self._above].sum(dim=0).double().numpy())
        self.bands += bands.sum(axis=1)
        self.tails.append(tails(bands))
        self.holes.push(bands)


class _Floor(NamedTuple):
    """Mean power of the rests in which notes have died away: bins [bin], third octaves [band]."""

    mean: Floats
    bands: Floats


class _Rests:
    """The quieter half of the rests, in which notes have died away, looked at again.

    Parameters
    ----------
    spectra : _Spectra
    power : array [frame]
    rests : array [frame]
        Which frames are rests that hold something.
    """

    def __init__(self, spectra: _Spectra, power: Floats, rests: NDArray[np.bool_]) -> None:
        found = np.flatnonzero(rests)
        chosen = found[power[found] <= np.median(power[found])] if found.size else found
        if chosen.size < FEWEST:
            chosen = chosen[:0]
        self._chosen = chosen
        self._binwise = chosen[:: 1 + chosen.size // _ENOUGH]
        self._mix, self._next = spectra.mix, 0
        self._coming = Frames(spectra.window, spectra.hop)
        self._mean, self._bands = np.zeros(spectra.window // 2 + 1), np.zeros(len(spectra.mix))

    def push(self, mono: Samples) -> None:
        """Hear more of the waveform (samples,)."""
        if not self._chosen.size:
            return
        frames, first = self._coming.push(mono), self._next
        self._next += len(frames)
        here, some = (
            it[slice(*np.searchsorted(it, [first, self._next]))]
            for it in (self._chosen, self._binwise)
        )
        if here.size:
            power = _power(torch.from_numpy(frames[here - first]))
            self._bands += (self._mix @ power).sum(dim=1, dtype=torch.float64).numpy()
            of_bins = power[:, torch.from_numpy(np.isin(here, some))]
            self._mean += of_bins.sum(dim=1, dtype=torch.float64).numpy()

    def floor(self) -> _Floor | None:
        """What they hold; None if they are too few."""
        if not self._chosen.size:
            return None
        return _Floor(self._mean / self._binwise.size, self._bands / self._chosen.size)


def _blocks(samples: Samples) -> Iterable[Samples]:
    return (samples[:, k : k + _BLOCK] for k in range(0, samples.shape[1], _BLOCK))


def _mono(block: Samples) -> Samples:
    mean: Samples = block.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _power(frames: torch.Tensor) -> torch.Tensor:
    """Power [bin, frame] of frames [frame, sample]; a full-scale sine sums to 1/2."""
    taper = torch.hann_window(frames.shape[1], periodic=True)
    # Two sides of the spectrum, and the window's own energy.
    scale = 2 / (frames.shape[1] * float(taper.square().sum()))
    power: torch.Tensor = torch.fft.rfft(frames * taper).abs().square().T * scale
    return power


def _rest_level(level: Floats) -> float:
    """Level under which a frame of a recording [frame] is a rest, dB.

    Where nothing is that quiet, noise may fill the rests: it stands level, as dying notes do not.
    """
    loud = float(np.percentile(level, 95))
    if np.sum(level < loud - _REST_DB) < FEWEST:
        lowest, low = np.percentile(level, [1, 8])
        if low - lowest < 1.0 and low < loud - 15:
            return float(low) + 1.0
    return loud - _REST_DB


def _hiss_db(power: Floats, rate: int) -> float:
    hz = np.arange(len(power)) * (rate / 2 / (len(power) - 1))
    return float(decibels(power[hz > 400].sum()))


def _padded(bands_db: Floats) -> Floats:
    return np.pad(bands_db, (0, len(CENTRES_HZ) - len(bands_db)), constant_values=np.nan)
