"""What a room, a microphone or a codec leaves in a recording, each looked for where it shows.

The instrument's own colour is left out as far as can be: a cut-off is a cliff, not a rolloff; the
floor is what the rests hold; hum is a line that never stops; a tail is how fast sound can end.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tonewood.signal.loudness import integrated_loudness
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
    flat_tops,
    holes,
    hum_db,
)

_WINDOW_S, _BLOCK = 0.04, 4096
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


class _Spectra(NamedTuple):
    """Power of a recording: mean of each bin [bin], frames [frame], third octaves [band, frame]."""

    mean: Floats
    frames: Floats
    bands: Floats


class _Rests(NamedTuple):
    """Power of the rests in which notes have died away: each bin [bin], third octaves [band]."""

    mean: Floats
    bands: Floats


def traces(samples: NDArray[np.float32], rate: int) -> Traces:
    """Traces of a recording.

    Parameters
    ----------
    samples : float32 array (channels, samples)
        Full scale is ±1.
    rate : int
        Hz.
    """
    mono = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    spectra = _spectra(mono, rate)
    level = decibels(spectra.frames)
    quiet = level < _rest_level(level)
    gated = level < SILENT_DB
    sounding = np.flatnonzero(~quiet)
    rests = _rests(mono, rate, spectra, np.flatnonzero(quiet & ~gated))
    cutoff = cutoff_hz(spectra.mean, rests.mean if rests else None, rate)
    return Traces(
        seconds=samples.shape[1] / rate,
        rate=rate,
        loudness=integrated_loudness(samples, rate),
        floor_db=_hiss_db(rests.mean, rate) if rests else None,
        floor_bands_db=_padded(decibels(rests.bands)) if rests else _padded(np.empty(0)),
        long_term_db=_padded(decibels(spectra.bands.mean(axis=1))),
        lead_s=float(sounding[0]) * HOP_S,
        tail_s=float(len(level) - 1 - sounding[-1]) * HOP_S,
        silent=float(quiet.mean()),
        gated=float(gated.mean()),
        cutoff_hz=cutoff,
        holes=holes(decibels(spectra.bands), cutoff),
        hum_db=hum_db(mono, rate),
        offset_db=float(20 * np.log10(np.abs(samples.mean(axis=1, dtype=np.float64)).max() + 1e-9)),
        clips=60 * flat_tops(samples) * rate / samples.shape[1],
        decay_s=decay_s(spectra.bands),
        width_db=_width_db(samples, mono),
    )


def _spectra(mono: NDArray[np.float32], rate: int) -> _Spectra:
    framed = _frames(mono, rate)
    window = framed.shape[1]
    hz = np.arange(window // 2 + 1) * (rate / window)
    at = CENTRES_HZ[rate / 2 >= CENTRES_HZ * EDGE, None]
    mix = torch.from_numpy(((hz >= at / EDGE) & (hz < at * EDGE)).astype(np.float32))
    # The lowest bins hold offset and rumble, which have other names.
    above = torch.from_numpy(hz > 40)
    total, frames, bands = np.zeros(len(hz)), [], []
    for block in torch.split(framed, _BLOCK):
        power = _power(block)
        total += power.sum(dim=1, dtype=torch.float64).numpy()
        frames.append(power[above].sum(dim=0).double().numpy())
        bands.append((mix @ power).double().numpy())
    return _Spectra(total / len(framed), np.concatenate(frames), np.concatenate(bands, axis=1))


def _frames(mono: NDArray[np.float32], rate: int) -> torch.Tensor:
    """Overlapping frames [frame, sample], a view."""
    window, hop = round(_WINDOW_S * rate), round(HOP_S * rate)
    wave = torch.from_numpy(mono)
    if len(mono) < window:
        wave = torch.nn.functional.pad(wave, (0, window - len(mono)))
    return wave.unfold(0, window, hop)


def _power(frames: torch.Tensor) -> torch.Tensor:
    """Power [bin, frame] of frames [frame, sample]; a full-scale sine sums to 1/2."""
    taper = torch.hann_window(frames.shape[1], periodic=True)
    # Two sides of the spectrum, and the window's own energy.
    scale = 2 / (frames.shape[1] * float(taper.square().sum()))
    power: torch.Tensor = torch.fft.rfft(frames * taper).abs().square().T * scale
    return power


def _rests(
    mono: NDArray[np.float32], rate: int, spectra: _Spectra, rests: NDArray[np.int64]
) -> _Rests | None:
    """The quieter half of the rests, in which notes have died away; None if they are too few."""
    level = spectra.frames[rests]
    chosen = rests[level <= np.median(level)] if rests.size else rests
    if chosen.size < FEWEST:
        return None
    frames = _frames(mono, rate)[torch.from_numpy(chosen[:: 1 + chosen.size // _BLOCK])]
    return _Rests(
        mean=_power(frames).mean(dim=1, dtype=torch.float64).numpy(),
        bands=spectra.bands[:, chosen].mean(axis=1),
    )


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


def _width_db(samples: NDArray[np.float32], mono: NDArray[np.float32]) -> float:
    common = float(np.square(mono, dtype=np.float64).mean())
    apart = float(np.square(samples - mono, dtype=np.float64).mean())
    return float(np.clip(decibels(apart / max(common, 1e-20)), -60.0, 60.0))
