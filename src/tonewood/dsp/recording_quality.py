"""Measure traces of room, microphone, converter and codec in a recording.

Each is measured where the instrument's own colour interferes least: a cut-off is a cliff and not a
rolloff, the noise floor is that of the rests, hum is a line that never stops, and reverberation
limits the fastest decay.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
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
from tonewood.dsp.stft import hann_window, tapered_fft
from tonewood.utils.arrays import FloatArray, Samples, to_mono

_WINDOW_SECONDS = 0.04
_BINWISE_FRAMES = 4096  # of the rests: longer recordings average every n-th frame bin by bin
_BLOCK_SAMPLES = 1 << 17
_REST_DB = 40.0  # below the loud frames, where the noise floor begins to show


class RecordingQuality(NamedTuple):
    """Technical quality of a recording."""

    seconds: float
    rate: int
    loudness: float  # LUFS
    floor_db: float | None  # level of the rests above 400 Hz, where no hum is, dBFS; None without rests
    # [band]: level in third octaves of the rests and of the whole, dBFS; NaN where unknown
    floor_bands_db: FloatArray
    long_term_db: FloatArray
    # Silence before the first and after the last sound
    lead_s: float
    tail_s: float
    silent: float  # share of the frames that are rests
    gated: float  # share of the frames that are digital silence
    cutoff_hz: float  # frequency of a low-pass; half the rate if there is none
    holes: float  # share of spectral dropouts above 4 kHz
    # Height of the tallest line at multiples of 50 and of 60 Hz; None if too short
    hum_db: tuple[float, float] | None
    offset_db: float  # DC offset, dBFS
    clips: float  # clipped peaks per minute
    # Time for 60 dB at the fastest decays, 500 Hz to 2 kHz and 2 to 5 kHz
    decay_s: tuple[float, float] | None
    width_db: float  # level of side against mid, from -60 (mono) to 60


class QualityFirstPass:
    """First of two passes over the blocks of a recording; its levels define rests and peaks.

    Memory grows by 3 kB for each second of audio.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self.rate, self.channels = rate, channels
        self.samples, self.mid_energy, self.side_energy = 0, 0.0, 0.0
        self.sums, self.peaks = np.zeros(channels), np.zeros(channels, np.float32)
        self.loudness, self.hum = LoudnessMeter(rate), HumDetector(rate)
        self.spectra = _SpectrumAccumulator(rate)

    def push(self, block: Samples) -> None:
        """Add samples (channels, samples)."""
        mono = to_mono(block)
        self.samples += block.shape[1]
        self.sums += block.sum(axis=1, dtype=np.float64)
        self.peaks = np.maximum(self.peaks, np.abs(block).max(axis=1, initial=0))
        # Sums in double precision: an hour of single-precision sums would lose the quiet frames.
        self.mid_energy += float(np.square(mono, dtype=np.float64).sum())
        self.side_energy += float(np.square(block - mono, dtype=np.float64).sum())
        self.loudness.push(block)
        self.hum.push(mono)
        self.spectra.push(mono)

    def second_pass(self) -> "QualitySecondPass":
        """End this pass and return the second one, which takes the same blocks again."""
        return QualitySecondPass(self)

    @property
    def width_db(self) -> float:
        """Level of side against mid, dB."""
        # Energies of a whole recording can be 0: mono has no side, and opposite channels no mid.
        mid, side = self.mid_energy / self.samples, self.side_energy / (self.samples * self.channels)
        return float(np.clip(power_to_db(side / max(mid, 1e-20)), -60.0, 60.0))


class QualitySecondPass:
    """Second pass over the blocks of a recording: its rests, clipped peaks and hum."""

    def __init__(self, first: QualityFirstPass) -> None:
        self._first = first
        first.spectra.finish()
        power = np.concatenate(first.spectra.frames)
        self._level = power_to_db(power)
        # Digital silence is a rest too, but says nothing about the noise floor.
        self._quiet = self._level < _rest_threshold_db(self._level)
        rests = self._quiet & (self._level >= DIGITAL_SILENCE_DB)
        self._rests = _RestAnalyzer(first.spectra, power, rests)
        self._hum, self._clips = first.hum.second_pass(), ClippedPeaks(first.peaks)

    def push(self, block: Samples) -> None:
        """Add samples (channels, samples), the same as in the first pass."""
        mono = to_mono(block)
        self._rests.push(mono)
        self._clips.push(block)
        if self._hum is not None:
            self._hum.push(mono)

    def result(self) -> RecordingQuality:
        """Return the quality of the recording."""
        first, spectra = self._first, self._first.spectra
        quiet, level, rate = self._quiet, self._level, self._first.rate
        sounding = np.flatnonzero(~quiet)
        floor = self._rests.noise_floor()
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
            holes=spectra.dropouts.ratio(cutoff),
            hum_db=None if self._hum is None else self._hum.tallest_line_db(),
            offset_db=float(20 * np.log10(offset + 1e-9)),
            clips=60 * self._clips.count * rate / first.samples,
            decay_s=fastest_decay_seconds(np.concatenate(spectra.decay_bands, axis=1)),
            width_db=first.width_db,
        )


def measure_quality(samples: Samples, rate: int) -> RecordingQuality:
    """Measure the quality of samples (channels, samples); full scale is ±1."""
    first = QualityFirstPass(rate, samples.shape[0])
    for block in _split_into_blocks(samples):
        first.push(block)
    second = first.second_pass()
    for block in _split_into_blocks(samples):
        second.push(block)
    return second.result()


class _SpectrumAccumulator:
    """Power of each frame, and sums over frames by bin and by third octave."""

    def __init__(self, rate: int) -> None:
        self.window, self.hop = round(_WINDOW_SECONDS * rate), round(HOP_SECONDS * rate)
        hz = np.arange(self.window // 2 + 1) * (rate / self.window)
        centres = THIRD_OCTAVES_HZ[rate / 2 >= THIRD_OCTAVES_HZ * HALF_BAND_RATIO, None]
        in_band = (hz >= centres / HALF_BAND_RATIO) & (hz < centres * HALF_BAND_RATIO)
        self.band_matrix = in_band.astype(np.float32)
        # DC offset and rumble must not count as sound, or no frame would be a rest.
        self._above_rumble = hz > 40
        self._total, self.bands = np.zeros(len(hz)), np.zeros(len(centres))
        self.frames: list[FloatArray] = []
        self.decay_bands: list[FloatArray] = []
        self.dropouts, self._splitter = SpectralDropouts(len(centres)), FrameSplitter(self.window, self.hop)

    def push(self, mono: Samples) -> None:
        """Add samples (samples,)."""
        self._add_frames(self._splitter.push(mono))

    def finish(self) -> None:
        """End the recording; one shorter than a frame is padded."""
        if not self.frames:
            self._add_frames(self._splitter.padded_frame())

    def mean_power(self) -> FloatArray:
        """Return the mean power [bin]."""
        return self._total / sum(map(len, self.frames))

    def _add_frames(self, frames: Samples) -> None:
        if len(frames) == 0:
            return
        power = _frame_power(frames)
        bands = (self.band_matrix @ power).astype(np.float64)
        self._total += power.sum(axis=1, dtype=np.float64)
        self.frames.append(power[self._above_rumble].sum(axis=0).astype(np.float64))
        self.bands += bands.sum(axis=1)
        self.decay_bands.append(decay_band_power(bands))
        self.dropouts.push(bands)


class _NoiseFloor(NamedTuple):
    """Mean power of the rests after notes have decayed: bins [bin], third octaves [band]."""

    mean: FloatArray
    bands: FloatArray


class _RestAnalyzer:
    """Noise floor in the quieter half of the rests [frame], in which notes have decayed."""

    def __init__(self, spectra: _SpectrumAccumulator, power: FloatArray, rests: NDArray[np.bool_]) -> None:
        frames = np.flatnonzero(rests)
        # The louder half may still hold decaying notes.
        quieter = frames[power[frames] <= np.median(power[frames])] if frames.size else frames
        if quieter.size < MIN_FRAMES:
            quieter = quieter[:0]
        self._quieter = quieter
        self._binwise = quieter[:: 1 + quieter.size // _BINWISE_FRAMES]
        self._band_matrix, self._next = spectra.band_matrix, 0
        self._splitter = FrameSplitter(spectra.window, spectra.hop)
        self._mean, self._bands = np.zeros(spectra.window // 2 + 1), np.zeros(len(spectra.band_matrix))

    def push(self, mono: Samples) -> None:
        """Add samples (samples,)."""
        if not self._quieter.size:
            return
        frames, first = self._splitter.push(mono), self._next
        self._next += len(frames)
        # Indices of the frames in this block that belong to the floor, and to its average by bin.
        quieter, binwise = (
            indices[slice(*np.searchsorted(indices, [first, self._next]))]
            for indices in (self._quieter, self._binwise)
        )
        if quieter.size:
            power = _frame_power(frames[quieter - first])
            self._bands += (self._band_matrix @ power).sum(axis=1, dtype=np.float64)
            self._mean += power[:, np.isin(quieter, binwise)].sum(axis=1, dtype=np.float64)

    def noise_floor(self) -> _NoiseFloor | None:
        """Return the noise floor; None if there are too few rests."""
        if not self._quieter.size:
            return None
        return _NoiseFloor(self._mean / self._binwise.size, self._bands / self._quieter.size)


def _split_into_blocks(samples: Samples) -> Iterable[Samples]:
    return (samples[:, k : k + _BLOCK_SAMPLES] for k in range(0, samples.shape[1], _BLOCK_SAMPLES))


def _frame_power(frames: Samples) -> NDArray[np.float32]:
    """Return the power [bin, frame] of frames [frame, sample]; a full-scale sine sums to 1/2."""
    taper = hann_window(frames.shape[1]).astype(np.float32)
    # 2 for the two sides of the spectrum, divided by the window's own energy.
    scale = 2 / (frames.shape[1] * float(np.square(taper).sum()))
    spectrum = tapered_fft(frames, taper, frames.shape[1])
    power: NDArray[np.float32] = (spectrum.real**2 + spectrum.imag**2).T * np.float32(scale)
    return power


def _rest_threshold_db(level: FloatArray) -> float:
    """Return the level in dB below which a frame [frame] is a rest."""
    loud = float(np.percentile(level, 95))
    if np.sum(level < loud - _REST_DB) < MIN_FRAMES:
        # No frame is that quiet, but loud noise may fill the rests: its level is constant, while
        # that of decaying notes is not.
        lowest, low = np.percentile(level, [1, 8])
        if low - lowest < 1.0 and low < loud - 15:
            return float(low) + 1.0
    return loud - _REST_DB


def _hiss_level_db(power: FloatArray, rate: int) -> float:
    hz = np.arange(len(power)) * (rate / 2 / (len(power) - 1))
    # Hum and its strong harmonics are below 400 Hz.
    return float(power_to_db(power[hz > 400].sum()))


def _pad_bands(bands_db: FloatArray) -> FloatArray:
    return np.pad(bands_db, (0, len(THIRD_OCTAVES_HZ) - len(bands_db)), constant_values=np.nan)
