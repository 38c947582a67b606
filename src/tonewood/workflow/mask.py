"""A recording that was heard, and a model → its mask, found part by part."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tonewood.files.modelfile import Model
from tonewood.files.spool import Spool
from tonewood.masking.mask import LongMask, Mask
from tonewood.masking.optimise import Cells, Step, search
from tonewood.masking.priors import Priors, Weights
from tonewood.scoring.scorer import Scorer
from tonewood.scoring.training import score_windows
from tonewood.settings import EnhanceSettings, Method, PriorKind, SearchSettings
from tonewood.signal.bands import band_levels, centres_hz, frame_levels
from tonewood.signal.features import LONG_HOPS, PITCHES, Features, Levels, unveiled
from tonewood.signal.spectrum import Floats
from tonewood.signal.spread import follow, spread
from tonewood.signal.tracks import Made, Span, Track, parts, spans
from tonewood.workflow.hearing import Heard
from tonewood.workflow.partsearch import (
    LISTENING_MARGIN,
    Part,
    PartSearch,
    Scale,
    moved,
    scale_of,
)
from tonewood.workflow.predict import predictor_of

_PART_FRAMES = 3_000  # half a minute: small enough for every core to have one
_FEATURE_MARGIN = 32  # frames that smoothing and the networks look to either side; even
_MOST_MARGIN = 1_500


class Grid(NamedTuple):
    """A scale, and the levels of a recording on it [row, frame]."""

    scale: Scale
    levels_db: Track

    @property
    def hz(self) -> Floats:
        """Of the rows."""
        return self.scale.hz


@dataclass(frozen=True)
class Found:
    """A mask, and the steps that its search took."""

    mask: LongMask
    steps: int


def grid_of(heard: Heard, model: Model, method: Method) -> Grid:
    """Grid of a recording for a method."""
    spectrum = model.settings.spectrum
    scale = scale_of(model.scorer, spectrum, method)
    if method != "paper":
        return Grid(scale, heard.rows_db)

    def levels(first: int, last: int) -> Tensor:
        begin = max(0, first - LISTENING_MARGIN)
        wave = heard.wave.part(begin * spectrum.hop, (last + LISTENING_MARGIN) * spectrum.hop)
        made = band_levels(wave, spectrum.rate, scale.bands, spectrum)
        return made[:, first - begin : last - begin]

    return Grid(scale, Made(heard.rows_db.frames, levels))


def find_mask(
    heard: Heard,
    model: Model,
    settings: EnhanceSettings,
    *,
    device: str = "cpu",
    folder: Path | None = None,
) -> Generator[Step, None, Found]:
    """Find the mask of a recording; yields every step of the search.

    A long recording is searched part by part, each with so much of its neighbours that the
    borders change nothing. What cannot be parted, random notes and pixels and a penalty on the
    whole mask's variance, is searched as one.
    """
    grid = grid_of(heard, model, settings.method)
    kind, frames = settings.prior.kind, heard.rows_db.frames
    anchored = anchor("auto" if kind == "predicted" else kind, heard, grid, model, folder, device)
    ahead = _departure(heard, model, folder) if kind == "predicted" else None
    searching = settings.search
    if searching.guide is None:
        searching = searching.model_copy(update={"guide": model.guide_weight})
    stop = model.card.scorer.reference_scores.median
    hears = searching.listen and searching.steps > 0
    spectrum = model.settings.spectrum
    hop = spectrum.hop / spectrum.rate
    gains, steps = Spool(len(grid.hz), folder), 0
    whole = kind in ("random", "blocks") or searching.beta > 0
    work = PartSearch(
        model.scorer,
        model.guide if settings.method == "search" and searching.guide else None,
        model.learnt_priors is None,
        spectrum,
        settings.model_copy(update={"search": searching}),
        anchored.level_db,
        heard.levels.loudest_db,
        stop if searching.stop_at_reference and searching.score else None,
        frames,
        device,
    )

    def part(span: Span) -> Part:
        begin, end = span.begin, span.end
        return Part(
            span,
            grid.levels_db.part(begin, end),
            anchored.mask_db.part(begin, end),
            None if ahead is None else ahead.part(begin, end),
            heard.wave.part(begin * spectrum.hop, end * spectrum.hop) if hears else None,
        )

    with moved(device, work.scorer, work.guide):
        parted = map(part, _parted(frames, whole, model, searching))
        for taken in follow(work.steps, parted, portable=device == "cpu"):
            for step in taken:
                yield step
            steps = max(steps, step.number)
            mask = Mask(step.mask_db.cpu().numpy(), grid.hz, hop, spectrum.rate / 2)
            gains.append(mask.bounded(settings.render.max_gain_db).rounded().gain_db)
    return Found(LongMask(gains, grid.hz, hop, spectrum.rate / 2), steps)


def _departure(heard: Heard, model: Model, folder: Path | None) -> Track:
    """How far from the prior the predictor expects a search to end [row, frame], dB."""
    departures = Spool(heard.rows_db.rows, folder)
    for foreseen in predictor_of(model).along(parts(heard.rows_db, _PART_FRAMES)):
        departures.append(foreseen.departure_db)
    return departures


class Anchored(NamedTuple):
    """A prior's mask, and the mean level of the recording as it corrects it, dB."""

    mask_db: Track
    level_db: float


def anchor(
    kind: PriorKind,
    heard: Heard,
    grid: Grid,
    model: Model,
    folder: Path | None = None,
    device: str = "cpu",
) -> Anchored:
    """Mask [row, frame] in dB on a grid that the model's statistics suggest."""
    if kind in ("none", "random", "blocks"):
        # The paper's ‖X_inp - X_t‖² pulls towards no change.
        nothing = Made(heard.rows_db.frames, lambda a, b: torch.zeros(len(grid.hz), b - a))
        return Anchored(nothing, heard.levels.mean_db)
    weights = model.priors.weights_of(kind)
    suggested = _suggested(heard, model, weights, folder, device)
    masks = Spool(len(model.priors.static_db), folder)
    power = 0.0
    for span in spans(heard.rows_db.frames):
        parts = [None if it is None else it.part(span.first, span.last) for it in suggested.adapted]
        present = suggested.present[span.first : span.last]
        mask = model.priors.shaped(present, parts, suggested.means_db, weights)
        masks.append(mask)
        level = frame_levels(heard.rows_db.part(span.first, span.last) + mask)
        power += float((level.double() * (np.log(10) / 10)).exp().sum())
    level_db = 10 * float(np.log10(power / masks.frames))
    spectrum, bands = model.settings.spectrum, model.settings.scorer.bands
    hop = spectrum.hop / spectrum.rate
    own = LongMask(masks, centres_hz(bands, spectrum), hop, spectrum.rate / 2)
    if np.array_equal(own.hz, grid.hz):
        return Anchored(masks, level_db)

    def on_grid(first: int, last: int) -> Tensor:
        return torch.from_numpy(own.at(grid.hz, np.arange(first, last) * hop))

    return Anchored(Made(masks.frames, on_grid), level_db)


class _Suggested(NamedTuple):
    """What adapts, unquestioned: masks [row, frame], their means [row]; presence [frame]."""

    adapted: list[Spool | None]
    means_db: list[Tensor | None]
    present: Tensor


def _suggested(
    heard: Heard, model: Model, weights: Weights, folder: Path | None, device: str
) -> _Suggested:
    rows = len(model.priors.static_db)
    spools = [Spool(rows, folder) if share > 0 else None for share in weights[1:4]]
    sums = [torch.zeros(rows, dtype=torch.float64) for _ in spools]
    present, audible = [], 0
    pitched = any(weights[1:4])  # only what adapts asks for pitches

    def part(span: Span) -> _Told:
        power = None
        if pitched:
            power = heard.pitches.part(span.begin // LONG_HOPS, -(-span.end // LONG_HOPS))
        return _Told(span, heard.rows_db.part(span.begin, span.end), power)

    work = _Adapting(model.priors.on(torch.device(device)), weights, heard.levels, device)
    told = map(part, spans(heard.rows_db.frames, _PART_FRAMES, _FEATURE_MARGIN))
    for found in spread(work, told, portable=device == "cpu"):
        audible += int(found.audible.sum())
        present.append(found.present)
        for spool, total, mask in zip(spools, sums, found.masks_db, strict=True):
            if spool is not None and mask is not None:
                spool.append(mask)
                total += mask[:, found.audible].sum(dim=1)
    means = [
        None if spool is None else (total / audible).float()
        for spool, total in zip(spools, sums, strict=True)
    ]
    return _Suggested(spools, means, torch.cat(present))


class _Told(NamedTuple):
    """What priors are told of a part: rows [row, frame]; power [pitch, long frame], if asked."""

    span: Span
    rows_db: Tensor
    pitch_power: Tensor | None


class _Adapted(NamedTuple):
    """Of a part: masks [row, frame] of what adapts; frames [frame] audible, and present."""

    masks_db: list[Tensor | None]
    audible: Tensor
    present: Tensor


@dataclass(frozen=True, eq=False)
class _Adapting:
    """Asks what adapts about a part of a recording with such levels; the part alone decides."""

    priors: Priors
    weights: Weights
    levels: Levels
    device: str

    def __call__(self, told: _Told) -> _Adapted:
        span = told.span
        rows_db, frames = told.rows_db.to(self.device), span.end - span.begin
        fine = rows_db.new_zeros(PITCHES, frames)
        if told.pitch_power is not None:
            fine = unveiled(told.pitch_power.to(self.device), self.levels.pitch_power, frames)
        take = self.priors.source.take(Features(rows_db, fine), self.levels)
        masks = [
            None if mask is None else mask[:, span.inner].contiguous().cpu()
            for mask in self.priors.adapted(take, self.weights)
        ]
        return _Adapted(masks, take.audible[span.inner].cpu(), take.present[span.inner].cpu())


def _parted(frames: int, whole: bool, model: Model, settings: SearchSettings) -> Iterator[Span]:
    """Parts that a recording is searched in; each begins where the guide's pooling does."""
    if whole:
        return spans(frames, frames)
    pool = model.settings.guide.pooled_frames
    smooth = model.settings.spectrum.frames(settings.smooth_ms / 1000)
    guided = model.learnt_guide.reach_frames if model.learnt_guide is not None else 0
    reach = guided + 2 * smooth + LISTENING_MARGIN
    margin = min(reach * settings.steps, _MOST_MARGIN)
    return spans(frames, _PART_FRAMES // pool * pool, -(-margin // pool) * pool)


def fooled_judge(
    rows_db: Track, model: Model, judge: Scorer, settings: EnhanceSettings
) -> float | None:
    """Judge of what a search from random pixels, without any penalty, makes of the recording.

    The control of the paper's figure 1: how far a mask that is no EQ could have fooled the judge.
    """
    limits = settings.certificate
    if limits.control_steps == 0:
        return None
    excerpt = rows_db.part(0, model.settings.spectrum.frames(limits.control_seconds))
    generator = torch.Generator().manual_seed(settings.seed)
    start = torch.randn(excerpt.shape, generator=generator) * settings.prior.random_db
    free = SearchSettings(
        score=1.0, guide=0.0, alpha=0.0, steps=limits.control_steps, optimiser="Adam"
    )
    steps = search(
        model.scorer.score,
        excerpt,
        Cells(start),
        torch.zeros_like(excerpt),
        free,
        window_frames=model.scorer.crop_frames,
        max_gain_db=settings.render.max_gain_db,
        generator=generator,
    )
    *_, last = steps
    return float(score_windows(judge, excerpt + last.mask_db).mean())
