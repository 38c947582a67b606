"""A mask becomes sound: exp(M) on the recording's own spectrum, then loudness and peak.

How much louder masks make a recording, from its row levels alone; for streams, as it goes on.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.dsp.chunking import Chunk, LazyTimeSeries, overlapping_chunks, with_margin
from tonewood.dsp.equalizer import bandpass_reach_seconds, restrict_to_band
from tonewood.dsp.features import chunk_margin_for, chunk_size_for, frames_to_samples
from tonewood.dsp.loudness import integrated_loudness, k_weighting_db, true_peak_db
from tonewood.dsp.stft import filter_chunk, filter_margin
from tonewood.mask.components import mean_gain_db, select_component
from tonewood.mask.mask import Mask
from tonewood.settings import RenderSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray, Samples
from tonewood.utils.parallel import parallel_map


@dataclass(frozen=True)
class LoudnessMatch:
    """How loud a recording was and became.

    Parameters
    ----------
    gain_db : float
        Gain that matched the loudness and held the peak.
    loudness_before, loudness_after : float
        Integrated loudness, LUFS.
    peak_limited : bool
        The peak's ceiling, and not the loudness, set the gain.
    """

    gain_db: float
    loudness_before: float
    loudness_after: float
    peak_limited: bool

    @property
    def factor(self) -> np.float32:
        """The gain as a factor of the samples."""
        return np.float32(10 ** (self.gain_db / 20))


@dataclass(frozen=True, eq=False)
class RenderResult(LoudnessMatch):
    """Sound that a mask made: float32 samples (channels, samples), matched."""

    samples: NDArray[np.float32]


def render_through_mask(
    samples: NDArray[np.float32],
    rate: int,
    mask: Mask,
    settings: RenderSettings,
    spectrum: SpectrumSettings,
) -> RenderResult:
    """Pass samples (channels, samples) at any rate through a mask.

    Amount 0 returns the input itself. Otherwise, unless told to leave both alone or to change only
    a part of the recording, one gain makes the output as loud as the input, or less where its true
    peak would pass the ceiling.
    """
    before = integrated_loudness(samples, rate)
    if settings.amount == 0:
        return RenderResult(0.0, before, before, peak_limited=False, samples=samples)
    blocks = render_blocks([samples], rate, samples.shape[0], mask, settings, spectrum)
    return apply_loudness_match(np.concatenate(list(blocks), axis=1), rate, before, settings)


def render_blocks(
    blocks: Iterable[Samples],
    rate: int,
    channels: int,
    mask: Mask,
    settings: RenderSettings,
    spectrum: SpectrumSettings,
) -> Iterator[Samples]:
    """A recording of any length passed through a mask, its loudness as it comes out.

    What comes out depends on the samples alone, and not on how they are cut into blocks.

    Parameters
    ----------
    blocks : iterable of Block
        The recording (channels, samples).
    """
    way = ChunkRenderer(rate, channels, settings.aspect.between, spectrum)
    force = effective_mask(mask, settings, spectrum)
    pieces = overlapping_chunks(blocks, way.chunk_size, way.margin)
    passing = (way.item(piece, force) for piece in pieces)
    return (made.core for made in parallel_map(way, passing))


class RenderItem(NamedTuple):
    """A piece of a recording, and what applies to it of a mask."""

    chunk: Chunk[Samples]
    mask: Mask


@dataclass(frozen=True)
class ChunkRenderer:
    """The way of a recording's pieces through a mask; a piece and its part of the mask decide.

    Parameters
    ----------
    rate, channels : int
        Of the recording.
    between : pair of float, optional
        Hz that alone may change.
    spectrum : SpectrumSettings
    device : str
        Where to filter.
    """

    rate: int
    channels: int
    between: tuple[float, float] | None
    spectrum: SpectrumSettings
    device: str = "cpu"

    @property
    def chunk_size(self) -> int:
        """Samples of a piece."""
        return chunk_size_for(self.rate, self.channels, self.spectrum)

    @property
    def margin(self) -> int:
        """Samples beyond a piece that it takes; whole frames of the analysis."""
        samples = self._analysis_margin + self._band_margin + filter_margin(self.rate, self.spectrum)
        return frames_to_samples(self.spectrum.to_frames(samples / self.rate) + 1, self.rate, self.spectrum)

    @property
    def _analysis_margin(self) -> int:
        return chunk_margin_for(self.rate, self.spectrum)

    @property
    def _band_margin(self) -> int:
        return 0 if self.between is None else round(bandpass_reach_seconds(*self.between) * self.rate) + 1

    def item(self, chunk: Chunk[Samples], mask: Mask) -> RenderItem:
        """A piece with what is in force for it."""
        end = chunk.offset + chunk.samples.shape[1]
        hop = self.spectrum.hop / self.spectrum.rate  # frames are filtered beyond the end
        return RenderItem(chunk, mask.window(chunk.offset / self.rate, end / self.rate + 2 * hop))

    def __call__(self, item: RenderItem) -> Chunk[Samples]:
        """What a piece becomes, with as much margin as it takes to hear it."""
        piece = with_margin(item.chunk, self._analysis_margin)
        wide = with_margin(piece, self._band_margin)
        # A file mapped into memory may not be written to, which torch complains of.
        wave = torch.from_numpy(np.require(wide.samples, requirements=("C", "W")))
        there = Chunk(wave.to(self.device), *wide[1:])
        field = item.mask.gain_function(torch.device(self.device))
        made = filter_chunk(there, self.rate, field, self.spectrum).cpu().numpy()
        if self.between is not None:
            # The masks' window tells frequencies 66 Hz apart; the ear, and the promise, are finer.
            made = restrict_to_band(wide.core, made, self.rate, *self.between)
        samples = np.ascontiguousarray(made[:, piece.core_start - wide.core_start :][:, : piece.core_size])
        lead = item.chunk.core_start - piece.core_start
        return Chunk(samples, piece.core_start, lead, item.chunk.core_size, piece.is_last)


def effective_mask(mask: Mask, settings: RenderSettings, spectrum: SpectrumSettings) -> Mask:
    """What is applied of a mask as it was found: the aspect that is wanted, times the amount."""
    aspect, reach = settings.aspect, spectrum.window_ms / 2000
    if aspect.between is not None:
        reach += bandpass_reach_seconds(*aspect.between)
    mean = mean_gain_db(mask) if aspect.only in ("bands", "dynamics-of-bands") else None
    frames = mask.frames
    if frames == 1:  # stands for all times: short, whatever becomes of it
        return select_component(mask.load(), aspect, reach).scale(settings.amount)

    def make(first: int, last: int) -> Tensor:
        # Two frames at least: a single one would be taken for a mask that does not move.
        part = mask.slice_frames(first, max(last, 2))
        made = select_component(part, aspect, reach, first_frame=first, mean_db=mean).scale(settings.amount)
        return torch.from_numpy(made.gain_db[:, : last - first])

    hz = select_component(mask.slice_frames(0, 2), aspect, reach, mean_db=mean).hz
    return Mask(LazyTimeSeries(frames, make), hz, mask.hop_seconds, mask.top_hz)


def apply_loudness_match(
    unmatched: NDArray[np.float32], rate: int, loudness: float, settings: RenderSettings
) -> RenderResult:
    """Give samples (channels, samples) a loudness in LUFS, or less to keep the peak's ceiling."""
    peak = true_peak_db(unmatched, rate) if settings.matches_loudness else 0.0
    found = match_loudness(loudness, integrated_loudness(unmatched, rate), peak, settings)
    samples = unmatched * found.factor if found.gain_db else unmatched
    return RenderResult(
        found.gain_db,
        found.loudness_before,
        found.loudness_after,
        found.peak_limited,
        samples=samples,
    )


def match_loudness(before: float, after: float, peak_db: float, settings: RenderSettings) -> LoudnessMatch:
    """Gain for a rendering of so much loudness (LUFS) and true peak (dBTP)."""
    if not settings.matches_loudness:
        return LoudnessMatch(settings.gain_db, before, after + settings.gain_db, peak_limited=False)
    wanted = before - after if np.isfinite(before) and np.isfinite(after) else 0.0
    headroom = settings.ceiling_dbtp - peak_db
    gain = min(wanted, headroom)
    return LoudnessMatch(gain, before, after + gain, peak_limited=headroom < wanted)


_PRIOR_SECONDS = 3.0


def added_loudness_db(rows_db: FloatArray, mask_db: FloatArray, row_hz: FloatArray) -> float:
    """Ungated loudness that a mask adds to a recording, both [row, frame] in dB."""
    before = rows_db + k_weighting_db(row_hz)[:, None]
    added = np.power(10.0, (before + mask_db) / 10).sum() / np.power(10.0, before / 10).sum()
    return 10 * math.log10(added)


class LoudnessFollower:
    """The loudness that masks have added so far, older frames counting less and less.

    It starts as if some seconds had been heard that gain what the source folder's takes gain, so
    that the first note is neither a jump nor a guess; silence leaves it alone. It follows what
    the masks do, not how loud the music is: dynamics are not touched.

    Parameters
    ----------
    row_hz : float64 array (row,)
    start_db : array (amount,)
        What is added at each amount, to begin with.
    amounts : sequence of float
        Rising, two.
    seconds : float
        After which a frame counts 1/e.
    hop_seconds : float
    """

    def __init__(
        self,
        row_hz: FloatArray,
        start_db: FloatArray,
        amounts: tuple[float, float],
        seconds: float,
        hop_seconds: float,
    ) -> None:
        self.amounts = np.array(amounts)
        self.start_power = np.power(10.0, np.asarray(start_db, dtype=np.float64) / 10)
        self.weighting = np.power(10.0, k_weighting_db(row_hz) / 10)
        self.decay = math.exp(-hop_seconds / seconds)
        self.prior_frames = _PRIOR_SECONDS / hop_seconds  # frames
        self.reset()

    def reset(self) -> None:
        """Forget all that was heard."""
        self.prior_weight = self.prior_frames
        self.peak_power = 0.0
        self.power_before = 0.0
        self.power_after: NDArray[np.float64] = np.zeros(2)

    def update(self, rows_db: FloatArray, mask_db: FloatArray) -> None:
        """Hear one frame's levels and its mask at amount 1, both (row,) in dB."""
        power = self.weighting * np.power(10.0, rows_db / 10)
        gains = np.power(10.0, self.amounts[:, None] * mask_db / 10)
        self.power_before = self.decay * self.power_before + power.sum()
        self.power_after = self.decay * self.power_after + gains @ power
        # What it starts from weighs as so many frames as loud as the loudest of late.
        self.peak_power = max(self.decay * self.peak_power, float(power.sum()))
        self.prior_weight *= self.decay

    def gain_db(self, amount: float) -> float:
        """Gain in dB that undoes what masks of an amount add; 0 for amount 0."""
        credit = self.prior_weight * self.peak_power or 1.0
        added = 10 * np.log10((self.power_after + credit * self.start_power) / (self.power_before + credit))
        # A parabola through no amount, no gain, and the two that are followed.
        (a, b), (at_a, at_b) = self.amounts, added / self.amounts
        slope = (at_b - at_a) / (b - a)
        return float(-amount * (at_a + slope * (amount - a)))
