"""What the method looks at in a recording: levels on its rows, and the fine structure of pitch.

The pieces in which recordings of any length are worked on: by a thread, or another process.

A piece lasts as long as whole frames of the analysis do, so that what is found of it stands where
it would in the whole, at the recording's rate as at the analysis rate.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tonewood.dsp.chunking import Chunk, TimeSeries
from tonewood.dsp.filterbank import band_levels, frame_levels, is_audible, mean_level
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray, Samples

WINDOW_BATCH = 64  # windows that are scored at once


RowLevels = Tensor


_LOWEST_PITCH_HZ, _PITCHES_PER_OCTAVE, N_PITCH_BINS = (
    55.0,
    24,
    144,
)  # quarter tones over six octaves
_PITCH_WINDOW_MS = 128.0  # a window that tells a semitone from the next at 110 Hz
_ENVELOPE_SIGMA_BINS = 6.0  # spread of the envelope that is taken off: a quarter of an octave
_FLOOR_DB = -10.0
PITCH_HOP_RATIO = 2  # from one long frame to the next
_POWER_FLOOR_RATIO = 1e-9  # in power: 90 dB
_BLOCK_FRAMES = 256  # spectra and blurs at once: neither is kept for a whole recording


class ReferenceLevels(NamedTuple):
    """What of a whole recording its moments are measured against.

    Parameters
    ----------
    mean_db : float
        Mean power of the frames.
    loudest_db : float
        Level of the loudest frame.
    pitch_power : float
        Largest power on any pitch of the long windows.
    """

    mean_db: float
    loudest_db: float
    pitch_power: float

    @classmethod
    def from_features(cls, rows_db: Tensor, pitch_power: Tensor) -> "ReferenceLevels":
        """Of rows [row, frame] and the power on pitches [pitch, long frame]."""
        return cls(
            float(mean_level(rows_db)),
            float(frame_levels(rows_db).max()),
            float(pitch_power.max()),
        )


class Features(NamedTuple):
    """One recording, or a part of it, analysed.

    Parameters
    ----------
    rows_db : Tensor [row, frame]
        Levels on the scorer's rows, dB.
    fine_db : Tensor [pitch, frame]
        Long-window spectrum on quarter tones, its envelope taken off: where the partials stand,
        whatever the instrument's or the microphone's colour, dB.
    """

    rows_db: Tensor
    fine_db: Tensor

    def select(self, frames: Tensor) -> "Features":
        """Only the frames that a mask [frame] of booleans names."""
        return Features(self.rows_db[:, frames], self.fine_db[:, frames])


class CompactFeatures(NamedTuple):
    """Features as they are kept: fine structure at every long frame, and not twice.

    Parameters
    ----------
    rows_db : Tensor [row, frame]
    long_db : Tensor [pitch, long frame]
    """

    rows_db: Tensor
    long_db: Tensor

    @classmethod
    def from_features(cls, features: Features) -> "CompactFeatures":
        """Keep features, frame by frame: as an entry on disk has them, a crop on few pages."""
        return cls(features.rows_db, features.fine_db[:, ::PITCH_HOP_RATIO]).to_frame_major()

    def to_frame_major(self) -> "CompactFeatures":
        """The same, each frame's values side by side."""
        return CompactFeatures(*(it.T.contiguous().T for it in self))

    def expand(self, start: int = 0, stop: int | None = None) -> Features:
        """Features of the frames from `start`, a multiple of `PITCH_HOP_RATIO`, up to `stop`."""
        rows = self.rows_db[:, start:stop]
        fine = self.long_db[:, start // PITCH_HOP_RATIO :]
        return Features(rows, _repeat_to_frames(fine, rows.shape[1]))


def compute_features(wave: Tensor, bands: BandSettings, spectrum: SpectrumSettings) -> Features:
    """Features of a mono waveform [sample] at the analysis rate."""
    rows = band_levels(wave, spectrum.rate, bands, spectrum)
    return Features(rows, fine_structure(wave, spectrum, rows.shape[-1]))


CONTEXT_FRAMES = 8
"""Margin that `analysed` takes: half a long window, and the padding of the short ones."""


def compute_chunk_features(
    chunk: Chunk[Samples],
    bands: BandSettings,
    spectrum: SpectrumSettings,
    *,
    with_pitch: bool = True,
    device: str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Rows [row, frame], and power [pitch, long frame], of the frames that a piece is about.

    Parameters
    ----------
    chunk : Chunk[Samples]
        Mono, at the analysis rate, of an even number of frames; its margins hold a long window.
    with_pitch : bool
        Whether pitches are of interest; their power has no frames else.
    device : str
        Where to, and where the result is.
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
    """Quarter-tone spectrum [pitch, frames] of a waveform [sample], envelope taken off, dB."""
    power = pitch_power(wave, spectrum)
    return remove_envelope(power, power.max(), frames)


def pitch_power(wave: Tensor, spectrum: SpectrumSettings) -> Tensor:
    """Power [pitch, long frame] on quarter tones of a waveform [sample].

    Analysed at every second hop, since a window of 128 ms changes little in 10 ms: long frame k
    stands where frame 2 k of the rows does.
    """
    window = round(_PITCH_WINDOW_MS * spectrum.rate / 1000)
    fft = 2 * window
    hz = _LOWEST_PITCH_HZ * 2 ** (np.arange(N_PITCH_BINS) / _PITCHES_PER_OCTAVE)
    position = np.minimum(hz * fft / spectrum.rate, fft / 2 - 1)
    whole = np.floor(position)
    low = torch.from_numpy(whole.astype(np.int64)).to(wave.device)
    part = torch.from_numpy(position - whole).to(wave)[:, None]
    pieces = []
    for spectrum_block in _iter_spectra(wave, window, fft, PITCH_HOP_RATIO * spectrum.hop):
        power = spectrum_block.real.square() + spectrum_block.imag.square()
        pieces.append(power[low] * (1 - part) + power[low + 1] * part)
    return torch.cat(pieces, dim=1)


def remove_envelope(power: Tensor, max_power: Tensor | float, frames: int) -> Tensor:
    """Fine structure [pitch, frames] in dB of the power on pitches [pitch, long frame].

    Parameters
    ----------
    max_power : float, or Tensor, scalar
        Largest power of the whole recording. The floor lies below it, so that the recording's
        level changes nothing.
    """
    if isinstance(max_power, Tensor):
        max_power = max_power.double()  # as a number would be
    level = 10 * torch.log10(power + _POWER_FLOOR_RATIO * max_power + 1e-30)
    blocks = torch.split(level, _BLOCK_FRAMES, dim=1)
    fine = torch.cat([part - _gaussian_blur(part, _ENVELOPE_SIGMA_BINS) for part in blocks], dim=1)
    return _repeat_to_frames(fine.clamp_min(_FLOOR_DB), frames)


def _repeat_to_frames(long_db: Tensor, frames: int) -> Tensor:
    """What stands at long frames, at so many frames of the rows; the last one repeats."""
    fine = long_db[:, : -(-frames // PITCH_HOP_RATIO)].repeat_interleave(PITCH_HOP_RATIO, dim=1)
    missing = frames - fine.shape[1]
    if missing > 0:
        fine = torch.cat([fine, fine[:, -1:].expand(-1, missing)], dim=1)
    return fine[:, :frames]


def _iter_spectra(wave: Tensor, window: int, fft: int, hop: int) -> Iterator[Tensor]:
    padded = torch.nn.functional.pad(wave, (window // 2, window // 2))
    taper = torch.hann_window(window, dtype=wave.dtype, device=wave.device)
    frames = padded.unfold(0, window, hop)
    return (torch.fft.rfft(part * taper, fft).T for part in torch.split(frames, _BLOCK_FRAMES))


def _gaussian_blur(level: Tensor, spread: float) -> Tensor:
    """Blur along the first axis; edges repeat."""
    reach = int(4 * spread)
    offset = torch.arange(-reach, reach + 1, dtype=level.dtype, device=level.device)
    kernel = torch.exp(-0.5 * (offset / spread).square())
    rows = torch.nn.functional.pad(level.T[:, None], (reach, reach), mode="replicate")
    return torch.nn.functional.conv1d(rows, (kernel / kernel.sum())[None, None])[:, 0].T


_CHUNK_FRAMES = 1_024  # 10 s
_MAX_SAMPLES = 1 << 22  # samples of all channels
_MARGIN_FRAMES = 26  # in which filters of loudness and resampling forget what came before


def chunk_size_for(rate: int, channels: int, settings: SpectrumSettings) -> int:
    """Samples of a piece: of 10 s, or less where they would be many."""
    most = _MAX_SAMPLES * settings.frames_per_second / (rate * channels)
    return frames_to_samples(min(_CHUNK_FRAMES, int(most)), rate, settings)


def chunk_margin_for(rate: int, settings: SpectrumSettings) -> int:
    """Samples beyond a piece that it takes to hear it."""
    return frames_to_samples(_MARGIN_FRAMES, rate, settings)


def frames_to_samples(frames: int, rate: int, settings: SpectrumSettings) -> int:
    """Samples at a rate that last as long as so many frames of the analysis, or somewhat longer.

    As long as a whole number of long frames: then samples at both rates fall on one moment.
    """
    step = PITCH_HOP_RATIO * settings.hop
    unit = math.lcm(rate * step, settings.rate) // settings.rate  # a second's worth at most
    wanted = frames * settings.hop * rate / settings.rate
    return unit * math.ceil(wanted / unit)


def long_term_spectra(rows_db: TimeSeries, frames: int) -> FloatArray:
    """Long-term spectra [window, row] of a take's audible windows, level removed, dB."""
    powers, loudest = [], []
    for cut in window_batches(rows_db, frames):
        powers.append(torch.pow(10.0, cut.double() / 10).mean(dim=-1))
        loudest.append(cut.amax(dim=(1, 2)))
    level = 10 * torch.log10(torch.cat(powers)[is_audible(torch.cat(loudest))])
    spectra: FloatArray = (level - level.mean(dim=1, keepdim=True)).numpy()
    return spectra


def cut_windows(rows: RowLevels, frames: int) -> Tensor:
    """Cut a take into windows [n, row, frames]; the last one ends with the take.

    A take shorter than a window is a single, shorter one.
    """
    return torch.stack([rows[:, s : s + frames] for s in _window_starts(rows.shape[-1], frames)])


def window_batches(rows_db: TimeSeries, frames: int) -> Iterator[Tensor]:
    """`cut_windows` of a recording that need not be in memory, few [n, row, frames] at a time."""
    length = min(frames, rows_db.frames)
    for batch in torch.split(torch.tensor(_window_starts(rows_db.frames, length)), WINDOW_BATCH):
        yield torch.stack([rows_db.read(s, s + length) for s in batch.tolist()])


def _window_starts(total: int, frames: int) -> list[int]:
    return [*range(0, total - frames, frames), max(0, total - frames)]
