"""What a room, a microphone or a codec leaves in a recording, each looked for where it shows.

The instrument's own colour is left out as far as can be: a cut-off is a cliff, not a rolloff; the
floor is what the rests hold; hum is a line that never stops; a tail is how fast sound can end.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tonewood.dsp.artifact_detectors import (
    DIGITAL_SILENCE_DB,
    HALF_BAND_RATIO,
    HOP_SECONDS,
    MIN_FRAMES,
    THIRD_OCTAVES_HZ,
    ClippedPeaks,
    FrameSplitter,
    HumDetector,
    SpectralDropouts,
    decay_band_power,
    detect_cutoff_hz,
    fastest_decay_seconds,
    power_to_db,
)
from tonewood.dsp.loudness import LoudnessMeter
from tonewood.utils.arrays import FloatArray, Samples

_WINDOW_SECONDS = 0.04
_MAX_BINWISE_FRAMES = 4096  # frames of the rests that are averaged bin by bin, at least, where there are more
_BLOCK_SAMPLES = 1 << 17
_REST_DB = 40.0  # below the loud frames, where the floor begins to show


class RecordingQuality(NamedTuple):
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
    floor_bands_db: FloatArray
    long_term_db: FloatArray
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


class QualityFirstPass:
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
        self.loudness, self.hum = LoudnessMeter(rate), HumDetector(rate)
        self.spectra = _SpectrumAccumulator(rate)

    def push(self, block: Samples) -> None:
        """Hear more samples (channels, samples)."""
        mono = _mix_to_mono(block)
        self.samples += block.shape[1]
        self.sums += block.sum(axis=1, dtype=np.float64)
        self.peaks = np.maximum(self.peaks, np.abs(block).max(axis=1, initial=0))
        self.common += float(np.square(mono, dtype=np.float64).sum())
        self.apart += float(np.square(block - mono, dtype=np.float64).sum())
        self.loudness.push(block)
        self.hum.push(mono)
        self.spectra.push(mono)

    def second_pass(self) -> "QualitySecondPass":
        """Who is to be given the same blocks once more; nothing can be pushed here after it."""
        return QualitySecondPass(self)

    @property
    def width_db(self) -> float:
        """What differs between channels against what is common, dB."""
        common, apart = self.common / self.samples, self.apart / (self.samples * self.channels)
        return float(np.clip(power_to_db(apart / max(common, 1e-20)), -60.0, 60.0))


class QualitySecondPass:
    """The second run; see `QualityFirstPass`."""

    def __init__(self, first: QualityFirstPass) -> None:
        self._first = first
        first.spectra.finish()
        self._power = np.concatenate(first.spectra.frames)
        self._level = power_to_db(self._power)
        self._quiet = self._level < _rest_threshold_db(self._level)
        self._rests = _RestAnalyzer(
            first.spectra, self._power, self._quiet & (self._level >= DIGITAL_SILENCE_DB)
        )
        self._lines, self._tops = first.hum.second_pass(), ClippedPeaks(first.peaks)

    def push(self, block: Samples) -> None:
        """Hear a block again."""
        mono = _mix_to_mono(block)
        self._rests.push(mono)
        self._tops.push(block)
        if self._lines is not None:
            self._lines.push(mono)

    def result(self) -> RecordingQuality:
        """All that was found."""
        first, spectra, rests = self._first, self._first.spectra, self._rests
        quiet, level, rate = self._quiet, self._level, self._first.rate
        sounding = np.flatnonzero(~quiet)
        floor = rests.noise_floor()
        cutoff = detect_cutoff_hz(spectra.mean_power(), floor.mean if floor else None, rate)
        offset = np.abs(first.sums / first.samples).max()
        return RecordingQuality(
            seconds=first.samples / rate,
            rate=rate,
            loudness=first.loudness.integrated(),
            floor_db=_hiss_level_db(floor.mean, rate) if floor else None,
            floor_bands_db=_pad_bands(power_to_db(floor.bands) if floor else np.empty(0)),
            long_term_db=_pad_bands(power_to_db(spectra.bands / len(level))),
            lead_s=float(sounding[0]) * HOP_SECONDS,
            tail_s=float(len(level) - 1 - sounding[-1]) * HOP_SECONDS,
            silent=float(quiet.mean()),
            gated=float((level < DIGITAL_SILENCE_DB).mean()),
            cutoff_hz=cutoff,
            holes=spectra.holes.ratio(cutoff),
            hum_db=None if self._lines is None else self._lines.tallest_line_db(),
            offset_db=float(20 * np.log10(offset + 1e-9)),
            clips=60 * self._tops.count * rate / first.samples,
            decay_s=fastest_decay_seconds(np.concatenate(spectra.tails, axis=1)),
            width_db=first.width_db,
        )


def measure_quality(samples: NDArray[np.float32], rate: int) -> RecordingQuality:
    """Traces of a recording.

    Parameters
    ----------
    samples : float32 array (channels, samples)
        Full scale is ±1.
    rate : int
        Hz.
    """
    first = QualityFirstPass(rate, samples.shape[0])
    for block in _split_into_blocks(samples):
        first.push(block)
    second = first.second_pass()
    for block in _split_into_blocks(samples):
        second.push(block)
    return second.result()


class _SpectrumAccumulator:
    """Power of a recording: of its frames, and summed over them, of bins and third octaves.

    Parameters
    ----------
    rate : int
        Hz.
    """

    def __init__(self, rate: int) -> None:
        self.window, self.hop = round(_WINDOW_SECONDS * rate), round(HOP_SECONDS * rate)
        hz = np.arange(self.window // 2 + 1) * (rate / self.window)
        at = THIRD_OCTAVES_HZ[rate / 2 >= THIRD_OCTAVES_HZ * HALF_BAND_RATIO, None]
        self.mix = torch.from_numpy(
            ((hz >= at / HALF_BAND_RATIO) & (hz < at * HALF_BAND_RATIO)).astype(np.float32)
        )
        # The lowest bins hold offset and rumble, which have other names.
        self._above = torch.from_numpy(hz > 40)
        self._total, self.bands = np.zeros(len(hz)), np.zeros(len(at))
        self.frames: list[FloatArray] = []
        self.tails: list[FloatArray] = []
        self.holes, self._splitter = SpectralDropouts(len(at)), FrameSplitter(self.window, self.hop)

    def push(self, mono: Samples) -> None:
        """Hear more of a waveform (samples,)."""
        self._add_frames(self._splitter.push(mono))

    def finish(self) -> None:
        """Nothing more comes."""
        if not self.frames:
            self._add_frames(self._splitter.padded_frame())

    def mean_power(self) -> FloatArray:
        """Mean power [bin]."""
        return self._total / sum(map(len, self.frames))

    def _add_frames(self, frames: Samples) -> None:
        if len(frames) == 0:
            return
        power = _frame_power(torch.from_numpy(frames))
        bands = (self.mix @ power).double().numpy()
        self._total += power.sum(dim=1, dtype=torch.float64).numpy()
        self.frames.append(power[self._above].sum(dim=0).double().numpy())
        self.bands += bands.sum(axis=1)
        self.tails.append(decay_band_power(bands))
        self.holes.push(bands)


class _NoiseFloor(NamedTuple):
    """Mean power of the rests in which notes have died away: bins [bin], third octaves [band]."""

    mean: FloatArray
    bands: FloatArray


class _RestAnalyzer:
    """The quieter half of the rests, in which notes have died away, looked at again.

    Parameters
    ----------
    spectra : _Spectra
    power : array [frame]
    rests : array [frame]
        Which frames are rests that hold something.
    """

    def __init__(self, spectra: _SpectrumAccumulator, power: FloatArray, rests: NDArray[np.bool_]) -> None:
        found = np.flatnonzero(rests)
        chosen = found[power[found] <= np.median(power[found])] if found.size else found
        if chosen.size < MIN_FRAMES:
            chosen = chosen[:0]
        self._chosen = chosen
        self._binwise = chosen[:: 1 + chosen.size // _MAX_BINWISE_FRAMES]
        self._mix, self._next = spectra.mix, 0
        self._splitter = FrameSplitter(spectra.window, spectra.hop)
        self._mean, self._bands = np.zeros(spectra.window // 2 + 1), np.zeros(len(spectra.mix))

    def push(self, mono: Samples) -> None:
        """Hear more of the waveform (samples,)."""
        if not self._chosen.size:
            return
        frames, first = self._splitter.push(mono), self._next
        self._next += len(frames)
        here, some = (
            it[slice(*np.searchsorted(it, [first, self._next]))] for it in (self._chosen, self._binwise)
        )
        if here.size:
            power = _frame_power(torch.from_numpy(frames[here - first]))
            self._bands += (self._mix @ power).sum(dim=1, dtype=torch.float64).numpy()
            of_bins = power[:, torch.from_numpy(np.isin(here, some))]
            self._mean += of_bins.sum(dim=1, dtype=torch.float64).numpy()

    def noise_floor(self) -> _NoiseFloor | None:
        """What they hold; None if they are too few."""
        if not self._chosen.size:
            return None
        return _NoiseFloor(self._mean / self._binwise.size, self._bands / self._chosen.size)


def _split_into_blocks(samples: Samples) -> Iterable[Samples]:
    return (samples[:, k : k + _BLOCK_SAMPLES] for k in range(0, samples.shape[1], _BLOCK_SAMPLES))


def _mix_to_mono(block: Samples) -> Samples:
    mean: Samples = block.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _frame_power(frames: torch.Tensor) -> torch.Tensor:
    """Power [bin, frame] of frames [frame, sample]; a full-scale sine sums to 1/2."""
    taper = torch.hann_window(frames.shape[1], periodic=True)
    # Two sides of the spectrum, and the window's own energy.
    scale = 2 / (frames.shape[1] * float(taper.square().sum()))
    power: torch.Tensor = torch.fft.rfft(frames * taper).abs().square().T * scale
    return power


def _rest_threshold_db(level: FloatArray) -> float:
    """Level under which a frame of a recording [frame] is a rest, dB.

    Where nothing is that quiet, noise may fill the rests: it stands level, as dying notes do not.
    """
    loud = float(np.percentile(level, 95))
    if np.sum(level < loud - _REST_DB) < MIN_FRAMES:
        lowest, low = np.percentile(level, [1, 8])
        if low - lowest < 1.0 and low < loud - 15:
            return float(low) + 1.0
    return loud - _REST_DB


def _hiss_level_db(power: FloatArray, rate: int) -> float:
    hz = np.arange(len(power)) * (rate / 2 / (len(power) - 1))
    return float(power_to_db(power[hz > 400].sum()))


def _pad_bands(bands_db: FloatArray) -> FloatArray:
    return np.pad(bands_db, (0, len(THIRD_OCTAVES_HZ) - len(bands_db)), constant_values=np.nan)
