"""A recording that was heard, and a model → its mask, found part by part."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tonewood.dsp.chunking import LazyTimeSeries, Segment, TimeSeries, read_segments, split_segments
from tonewood.dsp.features import (
    N_PITCH_BINS,
    PITCH_HOP_RATIO,
    Features,
    ReferenceLevels,
    remove_envelope,
)
from tonewood.dsp.filterbank import band_levels, center_frequencies, frame_levels
from tonewood.enhancement.analysis import Analysis
from tonewood.enhancement.segment_search import (
    RENDER_FEEDBACK_MARGIN,
    MaskScale,
    SearchSegment,
    SegmentSearch,
    mask_scale,
    on_device,
    require_predictor,
)
from tonewood.mask.mask import LazyMask, Mask
from tonewood.mask.search import FreeMask, SearchStep, search_mask
from tonewood.model.model import Model
from tonewood.priors.priors import BlendWeights, Priors
from tonewood.scorer.network import Scorer
from tonewood.scorer.training import score_windows
from tonewood.settings import EnhanceMethod, EnhanceSettings, PriorKind, SearchSettings
from tonewood.utils.arrays import FloatArray
from tonewood.utils.disk_array import DiskArray
from tonewood.utils.parallel import parallel_iterate, parallel_map

_SEARCH_SEGMENT_FRAMES = 3_000  # half a minute: small enough for every core to have one
_PRIOR_MARGIN_FRAMES = 32  # frames that smoothing and the networks look to either side; even
_MAX_SEARCH_MARGIN = 1_500


class MaskGrid(NamedTuple):
    """A scale, and the levels of a recording on it [row, frame]."""

    scale: MaskScale
    levels_db: TimeSeries

    @property
    def hz(self) -> FloatArray:
        """Of the rows."""
        return self.scale.hz


@dataclass(frozen=True)
class FoundMask:
    """A mask, and the steps that its search took."""

    mask: LazyMask
    steps: int


def mask_grid(analysis: Analysis, model: Model, method: EnhanceMethod) -> MaskGrid:
    """Grid of a recording for a method."""
    spectrum = model.settings.spectrum
    scale = mask_scale(model.scorer, spectrum, method)
    if method != "paper":
        return MaskGrid(scale, analysis.rows_db)

    def levels(first: int, last: int) -> Tensor:
        begin = max(0, first - RENDER_FEEDBACK_MARGIN)
        wave = analysis.wave.read(begin * spectrum.hop, (last + RENDER_FEEDBACK_MARGIN) * spectrum.hop)
        made = band_levels(wave, spectrum.rate, scale.bands, spectrum)
        return made[:, first - begin : last - begin]

    return MaskGrid(scale, LazyTimeSeries(analysis.rows_db.frames, levels))


def find_mask(
    analysis: Analysis,
    model: Model,
    settings: EnhanceSettings,
    *,
    device: str = "cpu",
    scratch_dir: Path | None = None,
) -> Generator[SearchStep, None, FoundMask]:
    """Find the mask of a recording; yields every step of the search.

    A long recording is searched part by part, each with so much of its neighbours that the
    borders change nothing. What cannot be parted, random notes and pixels and a penalty on the
    whole mask's variance, is searched as one.
    """
    grid = mask_grid(analysis, model, settings.method)
    kind, frames = settings.prior.kind, analysis.rows_db.frames
    anchored = find_prior_mask(
        "auto" if kind == "predicted" else kind, analysis, grid, model, scratch_dir, device
    )
    ahead = _predict_departure(analysis, model, scratch_dir) if kind == "predicted" else None
    searching = settings.search
    if searching.guide is None:
        searching = searching.model_copy(update={"guide": model.guide_weight})
    stop = model.card.scorer.reference_scores.median
    hears = searching.listen and searching.steps > 0
    spectrum = model.settings.spectrum
    hop = spectrum.hop / spectrum.rate
    gains, steps = DiskArray(len(grid.hz), scratch_dir), 0
    whole = kind in ("random", "blocks") or searching.beta > 0
    work = SegmentSearch(
        model.scorer,
        model.guide if settings.method == "search" and searching.guide else None,
        model.learnt_priors is None,
        spectrum,
        settings.model_copy(update={"search": searching}),
        anchored.level_db,
        analysis.levels.loudest_db,
        stop if searching.stop_at_reference and searching.score else None,
        frames,
        device,
    )

    def part(span: Segment) -> SearchSegment:
        begin, end = span.padded_start, span.padded_stop
        return SearchSegment(
            span,
            grid.levels_db.read(begin, end),
            anchored.mask_db.read(begin, end),
            None if ahead is None else ahead.read(begin, end),
            analysis.wave.read(begin * spectrum.hop, end * spectrum.hop) if hears else None,
        )

    with on_device(device, work.scorer, work.guide):
        parted = map(part, _search_segments(frames, whole, model, searching))
        for taken in parallel_iterate(work.steps, parted):
            for step in taken:
                yield step
            steps = max(steps, step.number)
            mask = Mask(step.mask_db.cpu().numpy(), grid.hz, hop, spectrum.rate / 2)
            gains.append(mask.clip(settings.render.max_gain_db).quantize().gain_db)
    return FoundMask(LazyMask(gains, grid.hz, hop, spectrum.rate / 2), steps)


def _predict_departure(analysis: Analysis, model: Model, scratch_dir: Path | None) -> TimeSeries:
    """How far from the prior the predictor expects a search to end [row, frame], dB."""
    departures = DiskArray(analysis.rows_db.rows, scratch_dir)
    for foreseen in require_predictor(model).predict_chunks(
        read_segments(analysis.rows_db, _SEARCH_SEGMENT_FRAMES)
    ):
        departures.append(foreseen.departure_db)
    return departures


class PriorMask(NamedTuple):
    """A prior's mask, and the mean level of the recording as it corrects it, dB."""

    mask_db: TimeSeries
    level_db: float


def find_prior_mask(
    kind: PriorKind,
    analysis: Analysis,
    grid: MaskGrid,
    model: Model,
    scratch_dir: Path | None = None,
    device: str = "cpu",
) -> PriorMask:
    """Mask [row, frame] in dB on a grid that the model's statistics suggest."""
    if kind in ("none", "random", "blocks"):
        # The paper's ‖X_inp - X_t‖² pulls towards no change.
        nothing = LazyTimeSeries(analysis.rows_db.frames, lambda a, b: torch.zeros(len(grid.hz), b - a))
        return PriorMask(nothing, analysis.levels.mean_db)
    weights = model.priors.weights_of(kind)
    suggested = _collect_suggestions(analysis, model, weights, scratch_dir, device)
    masks = DiskArray(len(model.priors.static_db), scratch_dir)
    power = 0.0
    for span in split_segments(analysis.rows_db.frames):
        parts = [None if it is None else it.read(span.start, span.stop) for it in suggested.masks_db]
        present = suggested.activity[span.start : span.stop]
        mask = model.priors.combine(present, parts, suggested.means_db, weights)
        masks.append(mask)
        level = frame_levels(analysis.rows_db.read(span.start, span.stop) + mask)
        power += float((level.double() * (np.log(10) / 10)).exp().sum())
    level_db = 10 * float(np.log10(power / masks.frames))
    spectrum, bands = model.settings.spectrum, model.settings.scorer.bands
    hop = spectrum.hop / spectrum.rate
    own = LazyMask(masks, center_frequencies(bands, spectrum), hop, spectrum.rate / 2)
    if np.array_equal(own.hz, grid.hz):
        return PriorMask(masks, level_db)

    def on_grid(first: int, last: int) -> Tensor:
        return torch.from_numpy(own.gain_at(grid.hz, np.arange(first, last) * hop))

    return PriorMask(LazyTimeSeries(masks.frames, on_grid), level_db)


class _PriorSuggestions(NamedTuple):
    """What adapts, unquestioned: masks [row, frame], their means [row]; presence [frame]."""

    masks_db: list[DiskArray | None]
    means_db: list[Tensor | None]
    activity: Tensor


def _collect_suggestions(
    analysis: Analysis, model: Model, weights: BlendWeights, scratch_dir: Path | None, device: str
) -> _PriorSuggestions:
    rows = len(model.priors.static_db)
    spools = [DiskArray(rows, scratch_dir) if share > 0 else None for share in weights[1:4]]
    sums = [torch.zeros(rows, dtype=torch.float64) for _ in spools]
    present, audible = [], 0
    pitched = any(weights[1:4])  # only what adapts asks for pitches

    def part(span: Segment) -> _PriorInput:
        power = None
        if pitched:
            power = analysis.pitches.read(
                span.padded_start // PITCH_HOP_RATIO, -(-span.padded_stop // PITCH_HOP_RATIO)
            )
        return _PriorInput(span, analysis.rows_db.read(span.padded_start, span.padded_stop), power)

    work = _PriorTask(model.priors.to(torch.device(device)), weights, analysis.levels, device)
    told = map(part, split_segments(analysis.rows_db.frames, _SEARCH_SEGMENT_FRAMES, _PRIOR_MARGIN_FRAMES))
    for found in parallel_map(work, told):
        audible += int(found.audible.sum())
        present.append(found.activity)
        for spool, total, mask in zip(spools, sums, found.masks_db, strict=True):
            if spool is not None and mask is not None:
                spool.append(mask)
                total += mask[:, found.audible].sum(dim=1)
    means = [
        None if spool is None else (total / audible).float()
        for spool, total in zip(spools, sums, strict=True)
    ]
    return _PriorSuggestions(spools, means, torch.cat(present))


class _PriorInput(NamedTuple):
    """What priors are told of a part: rows [row, frame]; power [pitch, long frame], if asked."""

    span: Segment
    rows_db: Tensor
    pitch_power: Tensor | None


class _PriorOutput(NamedTuple):
    """Of a part: masks [row, frame] of what adapts; frames [frame] audible, and present."""

    masks_db: list[Tensor | None]
    audible: Tensor
    activity: Tensor


@dataclass(frozen=True, eq=False)
class _PriorTask:
    """Asks what adapts about a part of a recording with such levels; the part alone decides."""

    priors: Priors
    weights: BlendWeights
    levels: ReferenceLevels
    device: str

    def __call__(self, item: _PriorInput) -> _PriorOutput:
        span = item.span
        rows_db, frames = item.rows_db.to(self.device), span.padded_stop - span.padded_start
        fine = rows_db.new_zeros(N_PITCH_BINS, frames)
        if item.pitch_power is not None:
            fine = remove_envelope(item.pitch_power.to(self.device), self.levels.pitch_power, frames)
        take = self.priors.source.prior_features(Features(rows_db, fine), self.levels)
        masks = [
            None if mask is None else mask[:, span.core].contiguous().cpu()
            for mask in self.priors.adaptive_masks(take, self.weights)
        ]
        return _PriorOutput(masks, take.audible[span.core].cpu(), take.activity[span.core].cpu())


def _search_segments(
    frames: int, undivided: bool, model: Model, settings: SearchSettings
) -> Iterator[Segment]:
    """Parts that a recording is searched in; each begins where the guide's pooling does."""
    if undivided:
        return split_segments(frames, frames)
    pool = model.settings.guide.pooled_frames
    smooth = model.settings.spectrum.to_frames(settings.smooth_ms / 1000)
    guided = model.learnt_guide.reach_frames if model.learnt_guide is not None else 0
    reach = guided + 2 * smooth + RENDER_FEEDBACK_MARGIN
    margin = min(reach * settings.steps, _MAX_SEARCH_MARGIN)
    return split_segments(frames, _SEARCH_SEGMENT_FRAMES // pool * pool, -(-margin // pool) * pool)


def adversarial_judge_score(
    rows_db: TimeSeries, model: Model, judge: Scorer, settings: EnhanceSettings
) -> float | None:
    """Judge of what a search from random pixels, without any penalty, makes of the recording.

    The control of the paper's figure 1: how far a mask that is no EQ could have fooled the judge.
    """
    limits = settings.certificate
    if limits.control_steps == 0:
        return None
    excerpt = rows_db.read(0, model.settings.spectrum.to_frames(limits.control_seconds))
    generator = torch.Generator().manual_seed(settings.seed)
    start = torch.randn(excerpt.shape, generator=generator) * settings.prior.random_db
    free = SearchSettings(score=1.0, guide=0.0, alpha=0.0, steps=limits.control_steps, optimiser="Adam")
    steps = search_mask(
        model.scorer.score,
        excerpt,
        FreeMask(start),
        torch.zeros_like(excerpt),
        free,
        window_frames=model.scorer.crop_frames,
        max_gain_db=settings.render.max_gain_db,
        generator=generator,
    )
    *_, last = steps
    return float(score_windows(judge, excerpt + last.mask_db).mean())
