"""Features of a recording: levels in mel or linear bands, fine structure of pitch, windows of both.

Long recordings are analysed in chunks that last a whole number of long frames, so that frames of
chunks have the same times as those of the whole recording, at any sample rate.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tonewood.dsp.chunking import Chunk, TimeSeries
from tonewood.dsp.stft import hann_window, power_spectrum, scale_to_rate, stft, tapered_fft
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import Array, FloatArray, Levels, Samples, logsumexp, namespace

AUDIBLE_RANGE_DB = 45.0
"""Frames further below the loudest one count as silence."""
N_PITCH_BINS = 144
"""Quarter tones over six octaves."""
PITCH_HOP_RATIO = 2
"""Hops from one long frame to the next: a window of 128 ms changes little in 10 ms."""
CONTEXT_FRAMES = 8
"""Margin that `compute_chunk_features` needs: half a long window, and the padding of short ones."""
WINDOW_BATCH = 16
"""Windows that are scored at once."""
_NEPERS_PER_DB = math.log(10) / 10  # of power
_LOWEST_PITCH_HZ, _PITCHES_PER_OCTAVE = 55.0, 24
_PITCH_WINDOW_MS = 128.0  # resolves a semitone at 110 Hz
_ENVELOPE_SIGMA_BINS = 6.0  # a quarter of an octave
_FLOOR_DB = -10.0
_POWER_FLOOR_RATIO = 1e-9  # 90 dB below the largest power
_BLOCK_FRAMES = 256  # spectra and blurs at once: neither is held for a whole recording

_CHUNK_FRAMES = 1_024  # 10 s
_MAX_SAMPLES = 1 << 22  # of all channels
_MARGIN_FRAMES = 26  # after which the filters of loudness and of resampling have settled


# --- Bands


def hz_to_mel(hz: FloatArray) -> FloatArray:
    """Convert Hz to mel (O'Shaughnessy 1987): 2595 log10(1 + f / 700)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz, dtype=np.float64) / 700.0)


def mel_to_hz(mel: FloatArray) -> FloatArray:
    """Convert mel to Hz, the inverse of `hz_to_mel`."""
    return 700.0 * (10.0 ** (np.asarray(mel, dtype=np.float64) / 2595.0) - 1.0)


def center_frequencies(bands: BandSettings, spectrum: SpectrumSettings) -> FloatArray:
    """Return the centre frequency of each row in Hz, ascending."""
    if bands.scale == "linear":
        return np.arange(spectrum.bins) * (spectrum.rate / spectrum.fft)
    return _mel_edges(bands)[1:-1]


@lru_cache(maxsize=8)
def filterbank_matrix(bands: BandSettings, spectrum: SpectrumSettings) -> NDArray[np.float32]:
    """Return weights [row, bin] that sum bin power into rows: triangles of height 1 in Hz."""
    if bands.scale == "linear":
        return np.eye(spectrum.bins, dtype=np.float32)
    bins = np.arange(spectrum.bins) * (spectrum.rate / spectrum.fft)  # Hz
    # A line up from the lower edge and one down from the upper: the smaller of both is the triangle.
    edges = _mel_edges(bands)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    # A triangle narrower than a bin may miss all of them; it takes the nearest, so no row is empty.
    for row in np.flatnonzero(weights.sum(axis=1) == 0):
        weights[row, np.abs(bins - edges[row + 1]).argmin()] = 1.0
    return weights.astype(np.float32)


def _mel_edges(bands: BandSettings) -> FloatArray:
    # count triangles need count + 2 edges: each centre is an edge of both neighbours.
    low, high = hz_to_mel(np.array([bands.low_hz, bands.high_hz]))
    return mel_to_hz(np.linspace(low, high, bands.count + 2))


def apply_filterbank(magnitude_db: Array, bands: BandSettings, spectrum: SpectrumSettings) -> Array:
    """Return row levels [..., row, frame] in dB of log magnitudes [..., bin, frame] in dB."""
    if bands.scale == "linear":
        return magnitude_db
    return _row_levels(power_of_db(magnitude_db), bands, spectrum)


def filterbank_gradient(
    row_gradient: Levels, magnitude_db: Levels, bands: BandSettings, spectrum: SpectrumSettings
) -> Levels:
    """Return the gradient [..., bin, frame] of the input of `apply_filterbank`, of its output."""
    if bands.scale == "linear":
        return row_gradient
    # A row's level changes with a bin's by the bin's share of the row's power.
    slope = row_gradient * power_of_db(-apply_filterbank(magnitude_db, bands, spectrum))
    gradient: Levels = (filterbank_matrix(bands, spectrum).T @ slope) * power_of_db(magnitude_db)
    return gradient


def band_levels(wave: Array, rate: int, bands: BandSettings, spectrum: SpectrumSettings) -> Array:
    """Return row levels [..., row, frame] in dB of a waveform [..., sample]; differentiable in torch.

    Nothing is resampled: a rate above the analysis rate is analysed with windows of the same
    duration, whose lowest bins have the frequencies of the analysis.
    """
    scaled = spectrum
    if rate != spectrum.rate:
        window, hop, fft = scale_to_rate(spectrum, rate)
        # model_construct skips validation, which would refuse durations that are not round.
        scaled = SpectrumSettings.model_construct(
            rate=rate,
            window_ms=1000 * window / rate,
            hop_ms=1000 * hop / rate,
            fft=fft,
            floor_db=spectrum.floor_db,
        )
    power = power_spectrum(stft(wave, scaled)[..., : spectrum.bins, :], spectrum)
    if bands.scale == "linear":
        levels: Array = 10 * namespace(power).log10(power)
        return levels
    return _row_levels(power, bands, spectrum)


def _row_levels(power: Array, bands: BandSettings, spectrum: SpectrumSettings) -> Array:
    """Return row levels [..., row, frame] in dB of the power [..., bin, frame]."""
    xp, weights = namespace(power), filterbank_matrix(bands, spectrum)
    if xp is not np:
        weights = xp.from_numpy(weights).to(power)
    levels: Array = 10 * xp.log10(weights @ power)
    return levels


# --- Levels of frames


def power_of_db(level_db: Array) -> Array:
    """Return the power of levels in dB."""
    power: Array = namespace(level_db).exp(level_db * _NEPERS_PER_DB)
    return power


def frame_levels(rows_db: Array) -> Array:
    """Return the level of each frame [..., frame] in dB: the summed power of rows [..., row, frame]."""
    return logsumexp(rows_db * _NEPERS_PER_DB, -2) / _NEPERS_PER_DB


def is_audible(level_db: Array, range_db: float = AUDIBLE_RANGE_DB) -> Array:
    """Return a mask [..., frame] of the levels [..., frame] within `range_db` of the highest."""
    audible: Array = level_db > namespace(level_db).amax(level_db, -1, keepdims=True) - range_db
    return audible


def audible_frames(rows_db: Array, range_db: float = AUDIBLE_RANGE_DB) -> Array:
    """Return a mask [..., frame] of the frames of rows [..., row, frame] that are audible."""
    return is_audible(frame_levels(rows_db), range_db)


def mean_level(rows_db: Array) -> Array:
    """Return the level [...] in dB of the mean power over the frames of rows [..., row, frame]."""
    return mean_power_db(frame_levels(rows_db))


def mean_power_db(levels_db: Array) -> Array:
    """Return the level [...] in dB of the mean power of frame levels [..., frame]."""
    power = logsumexp(levels_db * _NEPERS_PER_DB, -1)
    return (power - math.log(levels_db.shape[-1])) / _NEPERS_PER_DB


def total_power(levels_db: Levels) -> float:
    """Return the sum of the powers of frame levels [frame] in dB, in double precision.

    Sums of consecutive chunks add up to that of the whole; float32 would lose quiet frames of a long
    recording.
    """
    return float(np.exp(levels_db.astype(np.float64) * _NEPERS_PER_DB).sum())


# --- Features: levels and fine structure


class ReferenceLevels(NamedTuple):
    """Mean and loudest frame level of a whole recording, and its largest power in any pitch bin."""

    mean_db: float
    loudest_db: float
    pitch_power: float

    @classmethod
    def from_features(cls, rows_db: Levels, pitch_power: Levels) -> "ReferenceLevels":
        """Return the levels of rows [row, frame] and pitch power [pitch, long frame]."""
        return cls(float(mean_level(rows_db)), float(frame_levels(rows_db).max()), float(pitch_power.max()))


class Features(NamedTuple):
    """Features of a recording or a part of it."""

    rows_db: Levels  # [row, frame]: levels in the scorer's rows, dB
    # [pitch, frame]: long-window spectrum on quarter tones without its envelope, dB. It shows the position of
    # partials, independent of the colour of instrument and microphone.
    fine_db: Levels


class CompactFeatures(NamedTuple):
    """Features as they are stored: levels [row, frame], fine structure [pitch, long frame], dB."""

    rows_db: Levels
    long_db: Levels

    @classmethod
    def from_features(cls, features: Features) -> "CompactFeatures":
        """Return features in the memory layout of a cache entry."""
        return cls(features.rows_db, features.fine_db[:, ::PITCH_HOP_RATIO]).to_frame_major()

    def to_frame_major(self) -> "CompactFeatures":
        """Return the same with each frame's values adjacent, so that a crop touches few pages."""
        return CompactFeatures(*map(np.asfortranarray, self))

    def expand(self, start: int = 0, stop: int | None = None) -> Features:
        """Return the features of frames `start`, a multiple of `PITCH_HOP_RATIO`, to `stop`."""
        rows = self.rows_db[:, start:stop]
        fine = self.long_db[:, start // PITCH_HOP_RATIO :]
        return Features(rows, _repeat_to_frames(fine, rows.shape[1]))


def compute_features(wave: Samples, bands: BandSettings, spectrum: SpectrumSettings) -> Features:
    """Return the features of a mono waveform [sample] at the analysis rate."""
    rows = band_levels(wave, spectrum.rate, bands, spectrum)
    return Features(rows, fine_structure(wave, spectrum, rows.shape[-1]))


def compute_chunk_features(
    chunk: Chunk, bands: BandSettings, spectrum: SpectrumSettings, *, with_pitch: bool = True
) -> tuple[Levels, NDArray[np.float32]]:
    """Return rows [row, frame] and pitch power [pitch, long frame] of a chunk's core.

    The chunk is mono, at the analysis rate, and lasts an even number of frames; its margins hold a
    long window. Without pitch, the pitch power has no frames.
    """
    first = chunk.left_margin // spectrum.hop
    count = None if chunk.is_last else chunk.core_size // spectrum.hop
    rows = band_levels(chunk.samples, spectrum.rate, bands, spectrum)[:, first:][:, :count]
    if not with_pitch:
        return rows, np.zeros((N_PITCH_BINS, 0), dtype=np.float32)
    power = pitch_power(chunk.samples, spectrum)[:, first // PITCH_HOP_RATIO :]
    return rows, power[:, : None if count is None else count // PITCH_HOP_RATIO]


def fine_structure(wave: Samples, spectrum: SpectrumSettings, frames: int) -> Levels:
    """Return the quarter-tone spectrum [pitch, frames] of a waveform, without its envelope, dB."""
    power = pitch_power(wave, spectrum)
    return remove_envelope(power, float(power.max()), frames)


def pitch_power(wave: Samples, spectrum: SpectrumSettings) -> NDArray[np.float32]:
    """Return the power [pitch, long frame] on quarter tones of a waveform [sample].

    Long frame k has the time of frame `PITCH_HOP_RATIO` k of the rows.
    """
    window = round(_PITCH_WINDOW_MS * spectrum.rate / 1000)
    fft = 2 * window  # zero padding: quarter tones at 55 Hz are 1.6 Hz apart, bins 3.9 Hz
    hz = _LOWEST_PITCH_HZ * 2 ** (np.arange(N_PITCH_BINS) / _PITCHES_PER_OCTAVE)
    # Linear interpolation of power between the two nearest bins.
    position = np.minimum(hz * fft / spectrum.rate, fft / 2 - 1)
    low = np.floor(position).astype(np.int64)
    fraction = (position - low).astype(wave.dtype)
    padded = np.pad(wave, window // 2)
    views = sliding_window_view(padded, window)[:: PITCH_HOP_RATIO * spectrum.hop]
    blocks = []
    for start in range(0, len(views), _BLOCK_FRAMES):
        spectra = tapered_fft(views[start : start + _BLOCK_FRAMES], hann_window(window), fft)
        spectra = spectra[:, : low[-1] + 2]  # bins above the highest pitch are not used
        power = spectra.real**2 + spectra.imag**2
        blocks.append(power[:, low] * (1 - fraction) + power[:, low + 1] * fraction)
    return np.concatenate(blocks).T


def remove_envelope(power: NDArray[np.float32], max_power: float, frames: int) -> Levels:
    """Return the fine structure [pitch, frames] in dB of pitch power [pitch, long frame].

    The floor is relative to `max_power`, the largest of the whole recording, so that the
    recording's level changes nothing.
    """
    level = 10 * np.log10(power + np.float32(_POWER_FLOOR_RATIO * max_power + 1e-30))
    fine = _without_envelope_matrix(level.shape[0]) @ level
    return _repeat_to_frames(np.maximum(fine, np.float32(_FLOOR_DB)), frames)


def _repeat_to_frames(long_db: Levels, frames: int) -> Levels:
    """Repeat each long frame for the frames that it covers; the last one fills the rest."""
    index = np.minimum(np.arange(frames) // PITCH_HOP_RATIO, long_db.shape[1] - 1)
    return long_db[:, index]


@lru_cache(maxsize=2)
def _without_envelope_matrix(count: int) -> NDArray[np.float32]:
    """Return the matrix [row, row] that subtracts from each row a Gaussian average of its neighbours."""
    radius = int(4 * _ENVELOPE_SIGMA_BINS)  # the Gaussian is 3e-4 of its peak there
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / _ENVELOPE_SIGMA_BINS) ** 2)
    matrix = np.eye(count)
    for row in range(count):
        # Rows beyond the edges repeat it.
        neighbours = np.clip(np.arange(row - radius, row + radius + 1), 0, count - 1)
        np.subtract.at(matrix[row], neighbours, kernel / kernel.sum())
    return matrix.astype(np.float32)


# --- Chunks and windows


def chunk_size_for(rate: int, channels: int, settings: SpectrumSettings) -> int:
    """Return the samples of a chunk's core: 10 s, or less if rate or channels are many."""
    most = _MAX_SAMPLES * settings.frames_per_second / (rate * channels)
    return frames_to_samples(min(_CHUNK_FRAMES, int(most)), rate, settings)


def chunk_margin_for(rate: int, settings: SpectrumSettings) -> int:
    """Return the samples of margin that the analysis of a chunk needs."""
    return frames_to_samples(_MARGIN_FRAMES, rate, settings)


def frames_to_samples(frames: int, rate: int, settings: SpectrumSettings) -> int:
    """Return the duration of frames in samples at a rate, rounded up.

    The result lasts a whole number of long frames, at which samples of both rates coincide.
    """
    step = PITCH_HOP_RATIO * settings.hop
    # The smallest duration that is whole in samples of both rates and in long frames.
    unit = math.lcm(rate * step, settings.rate) // settings.rate  # at most a second's worth
    return unit * math.ceil(frames * settings.hop * rate / settings.rate / unit)


def long_term_spectra(rows_db: TimeSeries, frames: int) -> FloatArray:
    """Return long-term spectra [window, row] of the audible windows, level removed, dB."""
    powers, loudest = [], []
    for read in window_batches(rows_db, frames):
        windows = read()
        powers.append(np.power(10.0, windows.astype(np.float64) / 10).mean(axis=-1))
        loudest.append(windows.max(axis=(1, 2)))
    level = 10 * np.log10(np.concatenate(powers)[is_audible(np.concatenate(loudest))])
    spectra: FloatArray = level - level.mean(axis=1, keepdims=True)
    return spectra


def cut_windows(rows: Levels, frames: int) -> Levels:
    """Cut rows into windows [n, row, frames]; the last one ends with the recording.

    A recording shorter than a window is a single, shorter one.
    """
    return np.stack([rows[:, s : s + frames] for s in _window_starts(rows.shape[-1], frames)])


def window_batches(rows_db: TimeSeries, frames: int) -> Iterator[Callable[[], Levels]]:
    """Yield functions that read the windows [n, row, frames] of `cut_windows`, a few each.

    Reading may compute what is read, so threads do it.
    """
    length = min(frames, rows_db.frames)
    starts = _window_starts(rows_db.frames, length)
    for first in range(0, len(starts), WINDOW_BATCH):
        yield partial(_read_windows, rows_db, starts[first : first + WINDOW_BATCH], length)


def _read_windows(rows_db: TimeSeries, starts: Sequence[int], frames: int) -> Levels:
    return np.stack([rows_db.read(start, start + frames) for start in starts])


def _window_starts(total: int, frames: int) -> list[int]:
    return [*range(0, total - frames, frames), max(0, total - frames)]
