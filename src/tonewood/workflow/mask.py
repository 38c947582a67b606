"""A recording that was heard, and a model → its mask, found part by part."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tonewood.files.modelfile import Model
from tonewood.files.spool import Spool
from tonewood.masking.mask import Field, LongMask, Mask
from tonewood.masking.notes import scatter
from tonewood.masking.objective import ScoreFunction
from tonewood.masking.optimise import Cells, Listen, NoteGains, Parametrisation, Step, search
from tonewood.masking.priors import Weights
from tonewood.scoring.scorer import Scorer
from tonewood.scoring.training import score_windows
from tonewood.settings import EnhanceSettings, Method, PriorKind, SearchSettings
from tonewood.signal.bands import band_levels, centres_hz, frame_levels
from tonewood.signal.features import LONG_HOPS, PITCHES, Features, unveiled
from tonewood.signal.spectrum import Floats, refiltering
from tonewood.signal.spread import spread
from tonewood.signal.tracks import Made, Span, Track, parts, spans
from tonewood.workflow.hearing import Heard
from tonewood.workflow.predict import predictor_of

_PART_FRAMES = 3_000  # half a minute: small enough for every core to have one
_FEATURE_MARGIN = 32  # frames that smoothing and the networks look to either side; even
_LISTENING_MARGIN = 16  # frames that a rendering, and the analysis of it, reach
_MOST_MARGIN = 1_500


class Grid(NamedTuple):
    """Where a mask lives, and what listens to it.

    Parameters
    ----------
    levels_db : Track [row, frame]
        The recording.
    hz : float64 array (row,)
    score : ScoreFunction
        Of [batch, row, frame] in dB.
    levels_of : callable
        Levels [row, frame] of a mono waveform [sample] at the analysis rate.
    """

    levels_db: Track
    hz: Floats
    score: ScoreFunction
    levels_of: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Found:
    """A mask, and the steps that its search took."""

    mask: LongMask
    steps: int


def grid_of(heard: Heard, model: Model, method: Method) -> Grid:
    """Grid for a method: the scorer's rows, or for `paper` the spectrogram's own bins."""
    spectrum, bands = model.settings.spectrum, model.settings.scorer.bands
    if method == "paper":
        bands = bands.model_copy(update={"scale": "linear"})

    def levels_of(sound: Tensor) -> Tensor:
        return band_levels(sound, spectrum.rate, bands, spectrum)

    def levels(first: int, last: int) -> Tensor:
        begin = max(0, first - _LISTENING_MARGIN)
        wave = heard.wave.part(begin * spectrum.hop, (last + _LISTENING_MARGIN) * spectrum.hop)
        return levels_of(wave)[:, first - begin : last - begin]

    hz = centres_hz(bands, spectrum)
    if method == "paper":
        return Grid(Made(heard.rows_db.frames, levels), hz, model.scorer, levels_of)
    return Grid(heard.rows_db, hz, model.scorer.score, levels_of)


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
    guided = settings.method == "search" and bool(searching.guide)
    guide = model.guide if guided else None
    energy = None if guide is None else partial(guide.energy, level_db=anchored.level_db)
    stop = model.card.scorer.reference_scores.median
    spectrum = model.settings.spectrum
    hop = spectrum.hop / spectrum.rate
    gains, steps = Spool(len(grid.hz), folder), 0
    whole = kind in ("random", "blocks") or searching.beta > 0

    def part(span: Span) -> Iterator[Step]:
        """Steps of the search of a part."""
        generator = torch.Generator().manual_seed(settings.seed + span.first)
        anchor_db = anchored.mask_db.part(span.begin, span.end).to(device)
        begin_db = anchor_db
        if ahead is not None:  # where the search is expected to end
            begin_db = anchor_db + ahead.part(span.begin, span.end).to(device)
        hears = searching.listen and searching.steps > 0
        found = search(
            grid.score,
            grid.levels_db.part(span.begin, span.end).to(device),
            _start(kind, begin_db, grid, model, settings, generator),
            anchor_db,
            searching,
            window_frames=model.scorer.crop_frames,
            max_gain_db=settings.render.max_gain_db,
            generator=generator,
            energy=energy,
            listen=listener(heard.wave, span, grid, model, device) if hears else None,
            loudest_db=heard.levels.loudest_db,
            stop_score=stop if searching.stop_at_reference and searching.score else None,
        )
        for step in found:
            own = step.mask_db[:, span.inner]
            yield replace(step, mask_db=own, first=span.first, frames=frames)

    model.scorer.to(device)
    if guide is not None:
        guide.to(device)
    try:
        parted = list(_parted(frames, whole, model, searching))
        # One part is followed step by step; several are searched at once, each to its end.
        alone = len(parted) == 1
        for taken in map(part, parted) if alone else spread(lambda span: [*part(span)], parted):
            for step in taken:
                yield step
            steps = max(steps, step.number)
            mask = Mask(step.mask_db.cpu().numpy(), grid.hz, hop, spectrum.rate / 2)
            gains.append(mask.bounded(settings.render.max_gain_db).rounded().gain_db)
    finally:
        model.scorer.cpu()
        if guide is not None:
            guide.cpu()
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
    priors = model.priors.on(torch.device(device))
    rows = len(model.priors.static_db)
    spools = [Spool(rows, folder) if share > 0 else None for share in weights[1:4]]
    sums = [torch.zeros(rows, dtype=torch.float64) for _ in spools]
    present, audible = [], 0

    def part(span: Span) -> _Adapted:
        frames = span.end - span.begin
        fine = torch.zeros(PITCHES, frames, device=device)
        if any(weights[1:4]):  # only what adapts asks for pitches
            power = heard.pitches.part(span.begin // LONG_HOPS, -(-span.end // LONG_HOPS))
            fine = unveiled(power.to(device), heard.levels.pitch_power, frames)
        features = Features(heard.rows_db.part(span.begin, span.end).to(device), fine)
        take = priors.source.take(features, heard.levels)
        masks = [
            None if mask is None else mask[:, span.inner].cpu()
            for mask in priors.adapted(take, weights)
        ]
        return _Adapted(masks, take.audible[span.inner].cpu(), take.present[span.inner].cpu())

    for found in spread(part, spans(heard.rows_db.frames, _PART_FRAMES, _FEATURE_MARGIN)):
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


class _Adapted(NamedTuple):
    """Of a part: masks [row, frame] of what adapts; frames [frame] audible, and present."""

    masks_db: list[Tensor | None]
    audible: Tensor
    present: Tensor


def _parted(frames: int, whole: bool, model: Model, settings: SearchSettings) -> Iterator[Span]:
    """Parts that a recording is searched in; each begins where the guide's pooling does."""
    if whole:
        return spans(frames, frames)
    pool = model.settings.guide.pooled_frames
    smooth = model.settings.spectrum.frames(settings.smooth_ms / 1000)
    guided = model.learnt_guide.reach_frames if model.learnt_guide is not None else 0
    reach = guided + 2 * smooth + _LISTENING_MARGIN
    margin = min(reach * settings.steps, _MOST_MARGIN)
    return spans(frames, _PART_FRAMES // pool * pool, -(-margin // pool) * pool)


def listener(wave: Track, span: Span, grid: Grid, model: Model, device: str = "cpu") -> Listen:
    """Ears of the search: a mask on the grid is rendered at the analysis rate and measured.

    Parameters
    ----------
    wave : Track [sample]
        The recording, at the analysis rate.
    span : Span
        Frames of it that the mask is for, margins included.
    device : str
        Where the masks are.
    """
    spectrum = model.settings.spectrum
    hop = spectrum.hop / spectrum.rate
    sound = wave.part(span.begin * spectrum.hop, span.end * spectrum.hop).to(device)
    through = refiltering(sound[None], spectrum.rate, spectrum)

    def listen(mask_db: Tensor) -> Tensor:
        made = through(Field(mask_db, grid.hz, hop, spectrum.rate / 2).at)[0]
        return grid.levels_of(made)[:, : mask_db.shape[1]]

    return listen


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


def _start(
    kind: PriorKind,
    anchor_db: Tensor,
    grid: Grid,
    model: Model,
    settings: EnhanceSettings,
    generator: torch.Generator,
) -> Parametrisation:
    """What turns: cells from the prior on, random cells, or the gains of random notes."""
    device = anchor_db.device
    if kind == "random":
        noise = torch.randn(anchor_db.shape, generator=generator) * settings.prior.random_db
        return Cells(noise.to(device))
    spectrum, laid = model.settings.spectrum, settings.prior.notes
    smooth = spectrum.frames(settings.search.smooth_ms / 1000)
    if kind == "none":
        # A prior is smooth already, and listeners gave none.
        return Cells(anchor_db, max(1, smooth) if model.learnt_priors is None else 1)
    if kind != "blocks":
        return Cells(anchor_db, smooth)
    hop = spectrum.hop / spectrum.rate
    frame_s = torch.arange(anchor_db.shape[1]) * hop
    scattered = scatter(laid, len(frame_s) * hop, spectrum.rate / 2, generator)
    row_hz = torch.from_numpy(grid.hz).float()
    return NoteGains(scattered, row_hz, frame_s, laid.smooth_hz, laid.smooth_ms / 1000, str(device))
