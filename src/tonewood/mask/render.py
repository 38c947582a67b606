"""Render a mask: filter a recording by exp(M), then match its loudness within a peak limit.

For streams, `LoudnessFollower` estimates the loudness that masks add from row levels alone.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import Chunk, LazyTimeSeries, overlapping_chunks, with_margin
from tonewood.dsp.equalizer import bandpass_reach_seconds, restrict_to_band
from tonewood.dsp.features import chunk_margin_for, chunk_size_for, frames_to_samples
from tonewood.dsp.loudness import integrated_loudness, k_weighting_db, true_peak_db
from tonewood.dsp.stft import filter_chunk, filter_margin
from tonewood.mask.components import (
    add_curve,
    filter_components,
    limit_to_aspect,
    select_component,
    shape_mask,
)
from tonewood.mask.mask import Mask
from tonewood.setting_types import ChannelLink
from tonewood.settings import RenderSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray, Levels, Samples
from tonewood.utils.parallel import parallel_map

_PRIOR_SECONDS = 3.0  # weight of a loudness follower's start value, as a duration


@dataclass(frozen=True)
class LoudnessMatch:
    """Gain that matches the loudness of an output to its input's."""

    gain_db: float
    # Integrated loudness of input and output, LUFS
    loudness_before: float
    loudness_after: float
    peak_limited: bool  # the true-peak ceiling, not the loudness, determines the gain

    @property
    def factor(self) -> np.float32:
        """Gain as a factor of the samples."""
        return np.float32(10 ** (self.gain_db / 20))

    def with_samples(self, samples: Samples) -> "RenderResult":
        """Return this match together with the samples (channels, samples) that the gain was applied to."""
        return RenderResult(
            self.gain_db, self.loudness_before, self.loudness_after, self.peak_limited, samples
        )


@dataclass(frozen=True, eq=False)
class RenderResult(LoudnessMatch):
    """Rendered samples (channels, samples), with the matching gain applied."""

    samples: NDArray[np.float32]


def render_through_mask(
    samples: NDArray[np.float32], rate: int, mask: Mask, settings: RenderSettings, spectrum: SpectrumSettings
) -> RenderResult:
    """Render samples (channels, samples) at any rate through a mask, as `render_through_masks` does."""
    return render_through_masks(samples, rate, [mask], settings, spectrum)


def render_through_masks(
    samples: NDArray[np.float32],
    rate: int,
    masks: Sequence[Mask],
    settings: RenderSettings,
    spectrum: SpectrumSettings,
) -> RenderResult:
    """Render samples (channels, samples) at any rate through the masks of their components.

    Amount 0 returns the input itself. Otherwise one gain matches the output's loudness to the
    input's, or less if the true peak would exceed the ceiling; `settings.matches_loudness` says if.
    """
    before = integrated_loudness(samples, rate)
    if settings.amount == 0:
        return LoudnessMatch(0.0, before, before, peak_limited=False).with_samples(samples)
    blocks = render_blocks([samples], rate, samples.shape[0], masks, settings, spectrum)
    return apply_loudness_match(np.concatenate(list(blocks), axis=1), rate, before, settings)


def render_blocks(
    blocks: Iterable[Samples],
    rate: int,
    channels: int,
    masks: Sequence[Mask],
    settings: RenderSettings,
    spectrum: SpectrumSettings,
) -> Iterator[Samples]:
    """Render a recording of any length, in blocks (channels, samples), without matching its loudness.

    The output does not depend on how the samples are split into blocks.

    Parameters
    ----------
    masks : sequence of Mask
        One for each component of the recording (`mask.components`).
    """
    renderer = ChunkRenderer(rate, channels, settings.aspect.between, spectrum, settings.link)
    items = render_items(renderer, blocks, masks, settings)
    return (chunk.core for chunk in parallel_map(renderer, items))


def render_items(
    renderer: "ChunkRenderer", blocks: Iterable[Samples], masks: Sequence[Mask], settings: RenderSettings
) -> "Iterator[RenderItem]":
    """Return the chunks of a recording with the parts of the masks that apply to them."""
    applied = [effective_mask(mask, settings, renderer.spectrum) for mask in masks]
    # Chunks overlap by the renderer's margin, which is why each can be rendered alone.
    chunks = overlapping_chunks(blocks, renderer.chunk_size, renderer.margin)
    return (renderer.item(chunk, applied) for chunk in chunks)


class RenderItem(NamedTuple):
    """A chunk, and for each component the part of its mask that applies."""

    chunk: Chunk
    masks: tuple[Mask, ...]


@dataclass(frozen=True)
class ChunkRenderer:
    """Render one chunk through its part of the masks. Stateless, so chunks may run on any thread.

    `between` are the frequencies in Hz outside of which nothing changes.
    """

    rate: int
    channels: int
    between: tuple[float, float] | None
    spectrum: SpectrumSettings
    link: ChannelLink = "all"

    @property
    def chunk_size(self) -> int:
        """Number of samples in a chunk."""
        return chunk_size_for(self.rate, self.channels, self.spectrum)

    @property
    def margin(self) -> int:
        """Number of samples that a chunk needs on either side, in whole analysis frames."""
        # Analysis, band filter and mask filter follow one another, so their margins add up.
        samples = self._analysis_margin + self._band_margin + filter_margin(self.rate, self.spectrum)
        return frames_to_samples(self.spectrum.to_frames(samples / self.rate) + 1, self.rate, self.spectrum)

    @property
    def _analysis_margin(self) -> int:
        return chunk_margin_for(self.rate, self.spectrum)

    @property
    def _band_margin(self) -> int:
        return 0 if self.between is None else round(bandpass_reach_seconds(*self.between) * self.rate) + 1

    def item(self, chunk: Chunk, masks: Sequence[Mask]) -> RenderItem:
        """Pair a chunk with its part of each mask."""
        start, end = chunk.offset, chunk.offset + chunk.samples.shape[1]
        hop = self.spectrum.hop / self.spectrum.rate  # filtering goes beyond the end
        windows = (mask.window(start / self.rate, end / self.rate + 2 * hop) for mask in masks)
        return RenderItem(chunk, tuple(windows))

    def __call__(self, item: RenderItem) -> Chunk:
        """Render a chunk, with the margins that its analysis needs."""
        padded = with_margin(item.chunk, self._analysis_margin)
        wide = with_margin(padded, self._band_margin)
        output = self._filter(wide, item.masks)
        if self.between is not None:
            # The analysis window resolves 66 Hz; the promise that nothing else changes is stricter.
            output = restrict_to_band(wide.core, output, self.rate, *self.between)
        start = padded.core_start - wide.core_start
        samples = np.ascontiguousarray(output[:, start:][:, : padded.core_size])
        left_margin = item.chunk.core_start - padded.core_start
        return Chunk(samples, padded.core_start, left_margin, item.chunk.core_size, padded.is_last)

    def _filter(self, chunk: Chunk, masks: tuple[Mask, ...]) -> Samples:
        def filter_part(part: Samples, mask: Mask) -> Samples:
            return filter_chunk(chunk._replace(samples=part), self.rate, mask.gain_at, self.spectrum)

        return filter_components(chunk.samples, masks, self.link, filter_part)


def effective_mask(mask: Mask, settings: RenderSettings, spectrum: SpectrumSettings) -> Mask:
    """Return the mask that is applied, computed when it is read.

    The order is: curve, component, shape, band and time span, amount.
    """
    # Fades must end before the sound outside a span is influenced by window or band filter.
    aspect, reach = settings.aspect, spectrum.window_ms / 2000
    if aspect.between is not None:
        reach += bandpass_reach_seconds(*aspect.between)
    mask = add_curve(mask, settings.curve)
    mask = shape_mask(select_component(mask, aspect.only), settings.shape, settings.amount)
    frames = mask.frames
    if frames == 1:  # holds for all times
        return limit_to_aspect(mask.load(), aspect, reach).scale(settings.amount)

    def read(start: int, stop: int) -> Levels:
        # At least two frames: a mask of one frame holds for all times.
        part = limit_to_aspect(mask.slice_frames(start, max(stop, 2)), aspect, reach, first_frame=start)
        return part.scale(settings.amount).gain_db[:, : stop - start]

    hz = limit_to_aspect(mask.slice_frames(0, 2), aspect, reach).hz
    return Mask(LazyTimeSeries(frames, read), hz, mask.hop_seconds, mask.top_hz)


def apply_loudness_match(
    unmatched: NDArray[np.float32], rate: int, loudness: float, settings: RenderSettings
) -> RenderResult:
    """Scale samples (channels, samples) to a loudness in LUFS, or less to keep the true-peak ceiling."""
    peak = true_peak_db(unmatched, rate) if settings.matches_loudness else 0.0
    match = match_loudness(loudness, integrated_loudness(unmatched, rate), peak, settings)
    return match.with_samples(unmatched * match.factor if match.gain_db else unmatched)


def match_loudness(before: float, after: float, peak_db: float, settings: RenderSettings) -> LoudnessMatch:
    """Return the gain that brings an output from loudness `after` to `before`, in LUFS.

    It is limited by the output's true peak in dBTP and the ceiling of the settings.
    """
    if not settings.matches_loudness:
        return LoudnessMatch(settings.gain_db, before, after + settings.gain_db, peak_limited=False)
    # Silence has no loudness (-inf); it needs no gain.
    difference = before - after if np.isfinite(before) and np.isfinite(after) else 0.0
    headroom = settings.ceiling_dbtp - peak_db  # a gain shifts the true peak by the same dB
    gain = min(difference, headroom)
    return LoudnessMatch(gain, before, after + gain, peak_limited=headroom < difference)


def added_loudness_db(rows_db: FloatArray, mask_db: FloatArray, row_hz: FloatArray) -> float:
    """Return the ungated loudness that a mask adds to a recording, both [row, frame] in dB."""
    before = rows_db + k_weighting_db(row_hz)[:, None]
    added = np.power(10.0, (before + mask_db) / 10).sum() / np.power(10.0, before / 10).sum()
    return 10 * math.log10(added)


class LoudnessFollower:
    """Running estimate of the loudness that masks add, with exponential forgetting.

    It starts from the mean of the source folder, so that the first note causes no jump. It follows
    the masks, not the loudness of the music: silence and dynamics do not change it.

    Parameters
    ----------
    start_db : array (2,)
        Initial estimate for each of `amounts`.
    amounts : pair of float
        Rising, above 0 and up to 1. Amounts -1 and 2 are followed too.
    seconds : float
        Time constant of the forgetting.
    """

    def __init__(
        self,
        row_hz: FloatArray,
        start_db: FloatArray,
        amounts: tuple[float, float],
        seconds: float,
        hop_seconds: float,
    ) -> None:
        learnt = np.asarray(start_db, dtype=np.float64)
        self.amounts = np.array([-1.0, *amounts, 2.0])
        start = [_parabola_at(amount, np.array(amounts), learnt) for amount in (-1.0, 2.0)]
        self.start_power = np.power(10.0, np.array([start[0], *learnt, start[1]]) / 10)
        self.weighting = np.power(10.0, k_weighting_db(row_hz) / 10)
        self.decay = math.exp(-hop_seconds / seconds)
        self.prior_frames = _PRIOR_SECONDS / hop_seconds
        self.reset()

    def reset(self) -> None:
        """Return to the initial estimate."""
        self.prior_weight = self.prior_frames
        self.peak_power = 0.0
        self.power_before = 0.0
        self.power_after: NDArray[np.float64] = np.zeros(len(self.amounts))

    def update(self, rows_db: FloatArray, mask_db: FloatArray) -> None:
        """Add one frame's levels and its mask at amount 1, both (row,) in dB."""
        power = self.weighting * np.power(10.0, rows_db / 10)
        gains = np.power(10.0, self.amounts[:, None] * mask_db / 10)
        self.power_before = self.decay * self.power_before + power.sum()
        self.power_after = self.decay * self.power_after + gains @ power
        # The start value counts as frames that are as loud as the loudest recent one.
        self.peak_power = max(self.decay * self.peak_power, float(power.sum()))
        self.prior_weight *= self.decay

    def gain_db(self, amount: float) -> float:
        """Return the gain in dB that compensates masks at an amount; 0 for amount 0."""
        prior_power = self.prior_weight * self.peak_power or 1.0
        power_after = self.power_after + prior_power * self.start_power
        added = 10 * np.log10(power_after / (self.power_before + prior_power))
        # The two estimated amounts between or beside which this one is; 0 dB at amount 0 is known.
        first = 0 if amount < 0 else 2 if amount > 1 else 1
        return -_parabola_at(amount, self.amounts[first : first + 2], added[first : first + 2])


def _parabola_at(amount: float, amounts: FloatArray, values: FloatArray) -> float:
    """Return the value at an amount of the parabola through (0, 0) and two more points."""
    (a, b), (at_a, at_b) = amounts, values / amounts
    slope = (at_b - at_a) / (b - a)
    return float(amount * (at_a + slope * (amount - a)))
