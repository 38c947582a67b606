"""Features of a recording: levels in mel or linear bands, fine structure of pitch, windows of both.

Long recordings are analysed in chunks that last a whole number of long frames, so that frames of
chunks have the same times as those of the whole recording, at any sample rate.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tonewood.dsp.chunking import Chunk, TimeSeries
from tonewood.dsp.stft import log_magnitude, scale_to_rate, stft
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray, Samples

AUDIBLE_RANGE_DB = 45.0
"""Frames further below the loudest one count as silence."""
N_PITCH_BINS = 144
"""Quarter tones over six octaves."""
PITCH_HOP_RATIO = 2
"""Hops from one long frame to the next: a window of 128 ms changes little in 10 ms."""
CONTEXT_FRAMES = 8
"""Margin that `compute_chunk_features` needs: half a long window, and the padding of short ones."""
WINDOW_BATCH = 64
"""Windows that are scored at once."""
RowLevels = Tensor
"""Levels [row, frame] in dB."""

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
def filterbank_matrix(bands: BandSettings, spectrum: SpectrumSettings) -> Tensor:
    """Return weights [row, bin] that sum bin power into rows: triangles of height 1 in Hz."""
    if bands.scale == "linear":
        return torch.eye(spectrum.bins)
    bins = np.arange(spectrum.bins) * (spectrum.rate / spectrum.fft)  # Hz
    # A line up from the lower edge and one down from the upper: the smaller of both is the triangle.
    edges = _mel_edges(bands)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    # A triangle narrower than a bin may miss all of them; it takes the nearest, so no row is empty.
    for row in np.flatnonzero(weights.sum(axis=1) == 0):
        weights[row, np.abs(bins - edges[row + 1]).argmin()] = 1.0
    return torch.from_numpy(weights.astype(np.float32))


@lru_cache(maxsize=8)
def filterbank_matrix_on(
    bands: BandSettings, spectrum: SpectrumSettings, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return `filterbank_matrix` on a device, transferred once."""
    return filterbank_matrix(bands, spectrum).to(device, dtype)


def _mel_edges(bands: BandSettings) -> FloatArray:
    # count triangles need count + 2 edges: each centre is an edge of both neighbours.
    low, high = hz_to_mel(np.array([bands.low_hz, bands.high_hz]))
    return mel_to_hz(np.linspace(low, high, bands.count + 2))


def apply_filterbank(magnitude_db: Tensor, bands: BandSettings, spectrum: SpectrumSettings) -> Tensor:
    """Return row levels [..., row, frame] in dB of log magnitudes [..., bin, frame] in dB."""
    if bands.scale == "linear":
        return magnitude_db
    weights = filterbank_matrix_on(bands, spectrum, magnitude_db.device, magnitude_db.dtype)
    return filterbank_levels(magnitude_db, weights)


def filterbank_levels(magnitude_db: Tensor, weights: Tensor | None) -> Tensor:
    """Return row levels [..., row, frame] in dB by weights [row, bin]; None keeps the bins."""
    if weights is None:
        return magnitude_db
    power = torch.pow(10.0, magnitude_db / 10)
    return 10 * torch.log10(weights @ power)


def band_levels(wave: Tensor, rate: int, bands: BandSettings, spectrum: SpectrumSettings) -> Tensor:
    """Return row levels [..., row, frame] in dB of a waveform [..., sample]; differentiable.

    Nothing is resampled: a rate above the analysis rate is analysed with windows of the same
    duration, whose lowest bins have the frequencies of the analysis.
    """
    if rate == spectrum.rate:
        return apply_filterbank(log_magnitude(stft(wave, spectrum), spectrum), bands, spectrum)
    window, hop, fft = scale_to_rate(spectrum, rate)
    # model_construct skips validation, which would refuse durations that are not round.
    scaled = SpectrumSettings.model_construct(
        rate=rate,
        window_ms=1000 * window / rate,
        hop_ms=1000 * hop / rate,
        fft=fft,
        floor_db=spectrum.floor_db,
    )
    magnitude = log_magnitude(stft(wave, scaled), spectrum)[..., : spectrum.bins, :]
    return apply_filterbank(magnitude, bands, spectrum)


# --- Levels of frames


def frame_levels(rows_db: Tensor) -> Tensor:
    """Return the level of each frame [..., frame] in dB: the summed power of rows [..., row, frame]."""
    # logsumexp does not overflow, and its gradient is finite at the floor.
    return torch.logsumexp(rows_db * _NEPERS_PER_DB, dim=-2) / _NEPERS_PER_DB


def is_audible(level_db: Tensor, range_db: float = AUDIBLE_RANGE_DB) -> Tensor:
    """Return a mask [..., frame] of the levels [..., frame] within `range_db` of the highest."""
    return level_db > level_db.amax(dim=-1, keepdim=True) - range_db


def audible_frames(rows_db: Tensor, range_db: float = AUDIBLE_RANGE_DB) -> Tensor:
    """Return a mask [..., frame] of the frames of rows [..., row, frame] that are audible."""
    return is_audible(frame_levels(rows_db), range_db)


def mean_level(rows_db: Tensor) -> Tensor:
    """Return the level [...] in dB of the mean power over the frames of rows [..., row, frame]."""
    return mean_power_db(frame_levels(rows_db))


def mean_power_db(levels_db: Tensor) -> Tensor:
    """Return the level [...] in dB of the mean power of frame levels [..., frame]."""
    power = torch.logsumexp(levels_db * _NEPERS_PER_DB, dim=-1)
    return (power - math.log(levels_db.shape[-1])) / _NEPERS_PER_DB


def total_power(levels_db: Tensor) -> float:
    """Return the sum of the powers of frame levels [frame] in dB, in double precision.

    Sums of consecutive chunks add up to that of the whole; float32 would lose quiet frames of a long
    recording.
    """
    return float((levels_db.double() * _NEPERS_PER_DB).exp().sum())


def interpolate_noise(
    count: int, points: tuple[int, int], size: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Return smooth random fields [count, row, frame]: normal values at points, bilinear between them.

    Parameters
    ----------
    points, size : (int, int)
        Rows and frames of the coarse grid, and of the fields.
    """
    coarse = torch.randn(count, 1, *points, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=True)[:, 0]


# --- Features: levels and fine structure


class ReferenceLevels(NamedTuple):
    """Mean and loudest frame level of a whole recording, and its largest power in any pitch bin."""

    mean_db: float
    loudest_db: float
    pitch_power: float

    @classmethod
    def from_features(cls, rows_db: Tensor, pitch_power: Tensor) -> "ReferenceLevels":
        """Return the levels of rows [row, frame] and pitch power [pitch, long frame]."""
        return cls(float(mean_level(rows_db)), float(frame_levels(rows_db).max()), float(pitch_power.max()))


class Features(NamedTuple):
    """Features of a recording or a part of it.

    Parameters
    ----------
    rows_db : Tensor [row, frame]
        Levels in the scorer's rows, dB.
    fine_db : Tensor [pitch, frame]
        Long-window spectrum on quarter tones without its envelope, dB: the position of partials,
        independent of the colour of instrument and microphone.
    """

    rows_db: Tensor
    fine_db: Tensor

    def select(self, frames: Tensor) -> "Features":
        """Return the frames that a boolean mask [frame] selects."""
        return Features(self.rows_db[:, frames], self.fine_db[:, frames])


class CompactFeatures(NamedTuple):
    """Features as they are stored: levels [row, frame], fine structure [pitch, long frame], dB."""

    rows_db: Tensor
    long_db: Tensor

    @classmethod
    def from_features(cls, features: Features) -> "CompactFeatures":
        """Return features in the memory layout of a cache entry."""
        return cls(features.rows_db, features.fine_db[:, ::PITCH_HOP_RATIO]).to_frame_major()

    def to_frame_major(self) -> "CompactFeatures":
        """Return the same with each frame's values adjacent, so that a crop touches few pages."""
        return CompactFeatures(*(values.T.contiguous().T for values in self))

    def expand(self, start: int = 0, stop: int | None = None) -> Features:
        """Return the features of frames `start`, a multiple of `PITCH_HOP_RATIO`, to `stop`."""
        rows = self.rows_db[:, start:stop]
        fine = self.long_db[:, start // PITCH_HOP_RATIO :]
        return Features(rows, _repeat_to_frames(fine, rows.shape[1]))


def compute_features(wave: Tensor, bands: BandSettings, spectrum: SpectrumSettings) -> Features:
    """Return the features of a mono waveform [sample] at the analysis rate."""
    rows = band_levels(wave, spectrum.rate, bands, spectrum)
    return Features(rows, fine_structure(wave, spectrum, rows.shape[-1]))


def compute_chunk_features(
    chunk: Chunk[Samples],
    bands: BandSettings,
    spectrum: SpectrumSettings,
    *,
    with_pitch: bool = True,
    device: str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Return rows [row, frame] and pitch power [pitch, long frame] of a chunk's core, on `device`.

    The chunk is mono, at the analysis rate, and lasts an even number of frames; its margins hold a
    long window. Without pitch, the pitch power has no frames.
    """
    wave = torch.from_numpy(chunk.samples).to(device)
    first = chunk.left_margin // spectrum.hop
    count = None if chunk.is_last else chunk.core_size // spectrum.hop
    rows = band_levels(wave, spectrum.rate, bands, spectrum)[:, first:][:, :count]
    if not with_pitch:
        return rows, rows.new_zeros(N_PITCH_BINS, 0)
    power = pitch_power(wave, spectrum)[:, first // PITCH_HOP_RATIO :]
    return rows, power[:, : None if count is None else count // PITCH_HOP_RATIO]


def fine_structure(wave: Tensor, spectrum: SpectrumSettings, frames: int) -> Tensor:
    """Return the quarter-tone spectrum [pitch, frames] of a waveform, without its envelope, dB."""
    power = pitch_power(wave, spectrum)
    return remove_envelope(power, power.max(), frames)


def pitch_power(wave: Tensor, spectrum: SpectrumSettings) -> Tensor:
    """Return the power [pitch, long frame] on quarter tones of a waveform [sample].

    Long frame k has the time of frame `PITCH_HOP_RATIO` k of the rows.
    """
    window = round(_PITCH_WINDOW_MS * spectrum.rate / 1000)
    fft = 2 * window  # zero padding: quarter tones at 55 Hz are 1.6 Hz apart, bins 3.9 Hz
    hz = _LOWEST_PITCH_HZ * 2 ** (np.arange(N_PITCH_BINS) / _PITCHES_PER_OCTAVE)
    # Linear interpolation of power between the two nearest bins.
    position = np.minimum(hz * fft / spectrum.rate, fft / 2 - 1)
    whole = np.floor(position)
    low = torch.from_numpy(whole.astype(np.int64)).to(wave.device)
    fraction = torch.from_numpy(position - whole).to(wave)[:, None]
    padded = torch.nn.functional.pad(wave, (window // 2, window // 2))
    taper = torch.hann_window(window, dtype=wave.dtype, device=wave.device)
    blocks = []
    for frames in torch.split(padded.unfold(0, window, PITCH_HOP_RATIO * spectrum.hop), _BLOCK_FRAMES):
        spectra = torch.fft.rfft(frames * taper, fft).T
        power = spectra.real.square() + spectra.imag.square()
        blocks.append(power[low] * (1 - fraction) + power[low + 1] * fraction)
    return torch.cat(blocks, dim=1)


def remove_envelope(power: Tensor, max_power: Tensor | float, frames: int) -> Tensor:
    """Return the fine structure [pitch, frames] in dB of pitch power [pitch, long frame].

    The floor is relative to `max_power`, the largest of the whole recording, so that the
    recording's level changes nothing.
    """
    if isinstance(max_power, Tensor):
        max_power = max_power.double()  # a Python float has double precision too
    level = 10 * torch.log10(power + _POWER_FLOOR_RATIO * max_power + 1e-30)
    blocks = torch.split(level, _BLOCK_FRAMES, dim=1)
    fine = torch.cat([block - _gaussian_blur(block, _ENVELOPE_SIGMA_BINS) for block in blocks], dim=1)
    return _repeat_to_frames(fine.clamp_min(_FLOOR_DB), frames)


def _repeat_to_frames(long_db: Tensor, frames: int) -> Tensor:
    """Repeat each long frame for the frames that it covers; the last one fills the rest."""
    fine = long_db[:, : -(-frames // PITCH_HOP_RATIO)].repeat_interleave(PITCH_HOP_RATIO, dim=1)
    missing = frames - fine.shape[1]
    if missing > 0:
        fine = torch.cat([fine, fine[:, -1:].expand(-1, missing)], dim=1)
    return fine[:, :frames]


def _gaussian_blur(level: Tensor, sigma: float) -> Tensor:
    """Blur along the first axis; edges repeat."""
    radius = int(4 * sigma)  # the Gaussian is 3e-4 of its peak there
    offset = torch.arange(-radius, radius + 1, dtype=level.dtype, device=level.device)
    kernel = torch.exp(-0.5 * (offset / sigma).square())
    rows = torch.nn.functional.pad(level.T[:, None], (radius, radius), mode="replicate")
    return torch.nn.functional.conv1d(rows, (kernel / kernel.sum())[None, None])[:, 0].T


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
    for windows in window_batches(rows_db, frames):
        powers.append(torch.pow(10.0, windows.double() / 10).mean(dim=-1))
        loudest.append(windows.amax(dim=(1, 2)))
    level = 10 * torch.log10(torch.cat(powers)[is_audible(torch.cat(loudest))])
    spectra: FloatArray = (level - level.mean(dim=1, keepdim=True)).numpy()
    return spectra


def cut_windows(rows: RowLevels, frames: int) -> Tensor:
    """Cut rows into windows [n, row, frames]; the last one ends with the recording.

    A recording shorter than a window is a single, shorter one.
    """
    return torch.stack([rows[:, s : s + frames] for s in _window_starts(rows.shape[-1], frames)])


def window_batches(rows_db: TimeSeries, frames: int) -> Iterator[Tensor]:
    """Yield the windows [n, row, frames] of `cut_windows`, a few at a time."""
    length = min(frames, rows_db.frames)
    for batch in torch.split(torch.tensor(_window_starts(rows_db.frames, length)), WINDOW_BATCH):
        yield torch.stack([rows_db.read(s, s + length) for s in batch.tolist()])


def _window_starts(total: int, frames: int) -> list[int]:
    return [*range(0, total - frames, frames), max(0, total - frames)]
