"""Find the mask of a recording: decide whether it needs one, and search it segment by segment.

Recordings whose channels, or mid and side, are not linked have a mask for each of them.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tonewood.dsp.chunking import LazyTimeSeries, Segment, TimeSeries, split_segments
from tonewood.dsp.features import band_levels, center_frequencies
from tonewood.dsp.stft import prepare_filter
from tonewood.enhancement.analysis import Analysis, AudioSource, ComponentSource, analyse_source
from tonewood.enhancement.certification import InputMeasurements, measure_input
from tonewood.enhancement.prior_mask import PriorMask, find_prior_mask, predict_departure, predict_mask
from tonewood.errors import AudioError
from tonewood.mask.certificate import is_unknown_kind, needs_no_change
from tonewood.mask.components import count_components
from tonewood.mask.mask import Mask
from tonewood.mask.search import (
    MAX_FEEDBACK_DB,
    EnergyFunction,
    FreeMask,
    Parametrisation,
    RenderFeedback,
    ScoreFunction,
    SearchProblem,
    SearchStep,
    StickyNoteGains,
    scatter_sticky_notes,
    search_mask,
)
from tonewood.model.model import Model
from tonewood.scorer.guide import Guide
from tonewood.scorer.network import Scorer, WindowScore
from tonewood.setting_types import ChannelLink, EnhanceMethod, PriorKind
from tonewood.settings import (
    BandSettings,
    EnhanceSettings,
    RenderSettings,
    SearchSettings,
    SpectrumSettings,
    default_enhance_settings,
)
from tonewood.utils.arrays import DiskArray, FloatArray, Levels, RandomDraws, Samples
from tonewood.utils.parallel import parallel_iterate

_SEARCH_SEGMENT_FRAMES = 3_000  # half a minute: short enough to keep every core busy
_MAX_SEARCH_MARGIN = 1_500  # on either side, so that the margins at most double the work
RENDER_FEEDBACK_MARGIN = 16  # frames that rendering and analysis reach to either side
# Neighbours that compare surroundings make sharper masks, which rendering blurs more.
_SHARP_MAX_FEEDBACK_DB = 12.0

# Without a whole-way guide, the paper's loss is the scorer.
PAPER_SCORER_SEARCH = default_enhance_settings("paper").search.replace(
    score=1.0, guide=0.0, steps=100, learning_rate=0.3
)

# The scorer of a preference model is smooth but has no prior to stay near: small steps down its score
# alone, smooth over a second, with a weak pull towards no change (`alpha`).
PREFERENCE_SEARCH = SearchSettings(
    score=1.0, guide=0.0, alpha=3e-4, steps=40, learning_rate=0.004, smooth_ms=1000.0
)
PREFERENCE_MAX_GAIN_DB = 12.0  # lower than the default: no folder shows how far recordings differ


class MaskScale(NamedTuple):
    """Rows of a mask, and the score function of levels [batch, row, frame] in dB on them."""

    bands: BandSettings
    hz: FloatArray
    score: ScoreFunction


def mask_scale(scorer: Scorer, spectrum: SpectrumSettings, method: EnhanceMethod) -> MaskScale:
    """Return the rows for a method: the scorer's, or the bins of the spectrogram for `paper`."""
    bands = scorer.settings.bands
    if method == "paper":
        # The paper's mask has one gain per bin of the spectrogram, and its scorer reads the bins.
        bands = bands.model_copy(update={"scale": "linear"})
        return MaskScale(bands, center_frequencies(bands, spectrum), WindowScore(scorer, reads_bins=True))
    return MaskScale(bands, center_frequencies(bands, spectrum), WindowScore(scorer))


class MaskGrid(NamedTuple):
    """Rows of a mask, and the levels of a recording on them [row, frame] in dB."""

    scale: MaskScale
    levels_db: TimeSeries

    @property
    def hz(self) -> FloatArray:
        """Centre frequencies of the rows."""
        return self.scale.hz


def mask_grid(analysis: Analysis, model: Model, method: EnhanceMethod) -> MaskGrid:
    """Return the grid on which a method searches the mask of a recording."""
    spectrum = model.settings.spectrum
    scale = mask_scale(model.scorer, spectrum, method)
    if method != "paper":
        return MaskGrid(scale, analysis.rows_db)

    def read_levels(start: int, stop: int) -> Levels:
        padded_start = max(0, start - RENDER_FEEDBACK_MARGIN)
        wave = analysis.wave.read(padded_start * spectrum.hop, (stop + RENDER_FEEDBACK_MARGIN) * spectrum.hop)
        levels = band_levels(wave, spectrum.rate, scale.bands, spectrum)
        return levels[:, start - padded_start : stop - padded_start]

    return MaskGrid(scale, LazyTimeSeries(analysis.rows_db.frames, read_levels))


@dataclass(frozen=True, eq=False)
class MaskSearch:
    """Set-up of the search for a recording's mask.

    Segments do not depend on one another, so they may be searched on any thread.
    """

    model: Model
    settings: EnhanceSettings
    analysis: Analysis
    grid: MaskGrid
    prior: PriorMask  # centre of the penalty, and start of the search unless a parametrisation is given
    # [row, frame]: predicted difference between the search's result and the prior, dB, added to the start
    departure_db: TimeSeries | None = None

    @property
    def frames(self) -> int:
        """Number of frames of the recording."""
        return self.analysis.rows_db.frames

    @property
    def guide(self) -> Guide | None:
        """The guide that takes part: near the reference for `search`, the whole way for `paper`."""
        if self.settings.method == "predicted" or not self._guide_weight:
            return None
        return self.model.way_guide if self.settings.method == "paper" else self.model.guide

    @property
    def _guide_weight(self) -> float:
        weight = self.settings.search.guide
        return self.model.guide_weight if weight is None else weight

    def steps(
        self,
        segment: Segment,
        parametrisation: Parametrisation | None = None,
        draws: RandomDraws | None = None,
    ) -> Iterator[SearchStep]:
        """Search a segment; yields its steps, margins removed.

        Parameters
        ----------
        parametrisation : Parametrisation, optional
            Of the mask; that of the settings' prior if None.
        draws : RandomDraws, optional
            Seeded by the settings and the segment's start if None.
        """
        search = self.settings.search.replace(guide=self._guide_weight)
        start, stop = segment.padded_start, segment.padded_stop
        # A seed for each segment: the result does not depend on the order in which threads take them.
        if draws is None:
            draws = RandomDraws(self.settings.seed + segment.start)
        prior_db = self.prior.mask_db.read(start, stop)
        if parametrisation is None:
            start_db = prior_db
            if self.departure_db is not None:
                start_db = prior_db + self.departure_db.read(start, stop)
            parametrisation = self._parametrise(start_db, draws)
        stop_score = None
        if search.stop_at_reference and search.score:
            # At the median of the reference folder the recording sounds like a typical one of it.
            stop_score = self.model.card.scorer.reference_scores.median
        problem = SearchProblem(
            self.grid.scale.score,
            self.grid.levels_db.read(start, stop),
            prior_db,
            search,
            window_frames=self.model.scorer.crop_frames,
            max_gain_db=self.settings.render.max_gain_db,
            guide_energy=self._guide_energy(),
            render_feedback=self._render_feedback(start, stop),
            loudest_db=self.analysis.levels.loudest_db,
            max_feedback_db=self._max_feedback_db,
        )
        for step in search_mask(problem, parametrisation, draws, stop_score=stop_score):
            core_db = step.mask_db[:, segment.core]
            yield replace(step, mask_db=core_db, offset=segment.start, total_frames=self.frames)

    @property
    def _max_feedback_db(self) -> float:
        priors = self.model.learnt_priors
        is_sharp = priors is not None and priors.reference.compares_surroundings
        return _SHARP_MAX_FEEDBACK_DB if is_sharp else MAX_FEEDBACK_DB

    def _guide_energy(self) -> EnergyFunction | None:
        guide = self.guide
        if guide is None:
            return None
        if self.settings.method == "paper":
            settings = self.model.settings
            return partial(guide.energy_of_bins, bands=settings.scorer.bands, spectrum=settings.spectrum)
        return partial(guide.energy_and_gradient, level_db=self.prior.level_db)

    def _render_feedback(self, start: int, stop: int) -> RenderFeedback | None:
        """Return the rendering of a range of frames; None if the search does not use it."""
        if not (self.settings.search.listen and self.settings.search.steps > 0):
            return None
        # Windows and bands overlap, so the rendered sound differs from the input plus the mask.
        spectrum = self.model.settings.spectrum
        wave = self.analysis.wave.read(start * spectrum.hop, stop * spectrum.hop)
        return render_feedback(wave, self.grid.scale, spectrum)

    def _parametrise(self, start_db: Levels, draws: RandomDraws) -> Parametrisation:
        """Return the parameters that the settings' prior asks for: cells, or gains of sticky notes."""
        prior, spectrum = self.settings.prior, self.model.settings.spectrum
        smooth = spectrum.to_frames(self.settings.search.smooth_ms / 1000)
        if prior.kind == "random":
            return FreeMask(draws.normal(*start_db.shape) * np.float32(prior.random_db))
        if prior.kind == "blocks":
            notes = prior.notes
            frame_s = np.arange(start_db.shape[1], dtype=np.float32) * np.float32(
                spectrum.hop / spectrum.rate
            )
            duration_s = len(frame_s) * (spectrum.hop / spectrum.rate)
            scattered = scatter_sticky_notes(notes, duration_s, spectrum.rate / 2, draws)
            hz, smooth_s = self.grid.hz.astype(np.float32), notes.smooth_ms / 1000
            gains = StickyNoteGains(scattered, hz, frame_s, notes.smooth_hz, smooth_s)
            return gains if notes.gains_only else FreeMask(gains.mask(), smooth)
        return FreeMask(start_db, smooth)


@dataclass(frozen=True)
class FoundMask:
    """A mask, and the number of steps that its search took.

    `others` are the masks of further components, if the channels are not linked.
    """

    mask: Mask
    steps: int
    others: tuple[Mask, ...] = ()

    @property
    def masks(self) -> tuple[Mask, ...]:
        """Mask of each component."""
        return (self.mask, *self.others)


def find_mask(
    analysis: Analysis,
    model: Model,
    settings: EnhanceSettings,
    *,
    scratch_dir: Path | None = None,
    unlikeness: float | None = None,
) -> Generator[SearchStep, None, FoundMask]:
    """Find the mask of a recording; yields every step of the search.

    A long recording is searched segment by segment, with margins so wide that no border shows. Random
    notes, random pixels and a penalty on the variance of the whole mask cannot be split. `unlikeness` is
    that of `find_prior_mask`.
    """
    spectrum, kind, frames = model.settings.spectrum, settings.prior.kind, analysis.rows_db.frames
    grid = mask_grid(analysis, model, settings.method)
    prior = find_prior_mask(
        "auto" if kind == "predicted" else kind,
        analysis,
        grid.hz,
        model,
        scratch_dir,
        fade=not settings.force,
        unlikeness=unlikeness,
    )
    # The predictor gives the expected result of the search; the prior stays the centre of the penalty.
    departure_db = predict_departure(analysis, model, scratch_dir) if kind == "predicted" else None
    search = MaskSearch(model, settings, analysis, grid, prior, departure_db)

    # The paper's guide and its penalties are of the whole recording.
    undivided = settings.method == "paper" or kind in ("random", "blocks") or settings.search.beta > 0
    segments = search_segments(frames, undivided, model, settings.search)
    gains, n_steps, hop = DiskArray(len(grid.hz), scratch_dir), 0, spectrum.hop / spectrum.rate
    for steps in parallel_iterate(search.steps, segments):
        for step in steps:
            yield step
        # Steps may end early in some segments; the last mask of each is the result.
        n_steps = max(n_steps, step.number)
        # Quantized as in a recipe, so that rendering from the recipe gives the same bytes.
        mask = Mask(step.mask_db, grid.hz, hop, spectrum.rate / 2)
        gains.append(mask.clip(settings.render.max_gain_db).quantize().gain_db)
    return FoundMask(Mask(gains, grid.hz, hop, spectrum.rate / 2), n_steps)


def search_segments(
    frames: int, undivided: bool, model: Model, settings: SearchSettings
) -> Iterator[Segment]:
    """Split a recording for the search, at multiples of the guide's pooling."""
    if undivided:
        return split_segments(frames, frames)
    # Pooling from a multiple of its length gives the same groups of frames as in the whole.
    pool = model.settings.guide.pooled_frames
    smooth = model.settings.spectrum.to_frames(settings.smooth_ms / 1000)
    guide_reach = model.learnt_guide.reach_frames if model.learnt_guide is not None else 0
    # Every step spreads a border's influence by what one gradient reaches.
    reach = guide_reach + 2 * smooth + RENDER_FEEDBACK_MARGIN
    margin = min(reach * settings.steps, _MAX_SEARCH_MARGIN)
    return split_segments(frames, _SEARCH_SEGMENT_FRAMES // pool * pool, -(-margin // pool) * pool)


def render_feedback(wave: Samples, scale: MaskScale, spectrum: SpectrumSettings) -> RenderFeedback:
    """Return the function that renders a mask and measures the levels of its sound.

    Parameters
    ----------
    wave : array [sample]
        Input of the rendering at the analysis rate.
    """
    hop = spectrum.hop / spectrum.rate
    apply_filter = prepare_filter(wave[None], spectrum.rate, spectrum)

    def measure(mask_db: Levels) -> Levels:
        mask = Mask(mask_db, scale.hz, hop, spectrum.rate / 2)
        sound = apply_filter(mask.gain_at)[0]
        levels: Levels = band_levels(sound, spectrum.rate, scale.bands, spectrum)[:, : mask_db.shape[1]]
        return levels

    return measure


def settings_for_model(settings: EnhanceSettings, model: Model) -> EnhanceSettings:
    """Return settings that fit the losses of a model; most are returned unchanged.

    A model trained from preferences alone has no prior and no guide: the mask starts from zero. The
    paper's search follows the scorer if the model has no whole-way guide, or if the weight of the guide
    or alpha is 0. Settings that were chosen stay, also where they equal their default.
    """
    if settings.method == "paper":
        if settings.search.guide is None:
            settings = settings.replace(search=dict(guide=default_enhance_settings("paper").search.guide))
        search = settings.search
        if model.way_guide is not None and search.guide and search.alpha > 0:
            return settings
        adapted = _with_search_defaults(settings, PAPER_SCORER_SEARCH)
        adapted = adapted.replace(search=dict(guide=0.0))
        if "gains_only" in settings.prior.notes.model_fields_set:
            return adapted
        # The gains of notes fool the scorer less than those of all cells.
        return adapted.replace(prior=dict(notes=dict(gains_only=True)))
    if model.learnt_priors is not None or settings.method != "search":
        return settings
    adapted = _with_search_defaults(settings, PREFERENCE_SEARCH)
    if "max_gain_db" not in settings.render.model_fields_set:
        adapted = adapted.replace(render=dict(max_gain_db=PREFERENCE_MAX_GAIN_DB))
    if settings.prior.kind == "auto":
        adapted = adapted.replace(prior=dict(kind="none"))
    return adapted


def _with_search_defaults(settings: EnhanceSettings, defaults: SearchSettings) -> EnhanceSettings:
    """Replace the search settings that were not chosen by other defaults."""
    changes = {
        name: getattr(defaults, name)
        for name in SearchSettings.model_fields.keys() - settings.search.model_fields_set
    }
    return settings.model_copy(update={"search": settings.search.model_copy(update=changes)})


class FoundRecording(NamedTuple):
    """Analysis of a recording, and its mask with the settings that it was found with."""

    analysis: Analysis
    before: InputMeasurements
    mask: FoundMask
    settings: EnhanceSettings


def check_link(channels: int, link: ChannelLink) -> None:
    """Raise AudioError unless a recording of so many channels can have masks of its own for a link."""
    if link == "mid-side" and channels > 2:
        raise AudioError(
            f"the recording has {channels} channels, and mid and side need 2: use --link off for a mask of "
            "each channel"
        )


def find_masks(
    source: AudioSource,
    model: Model,
    settings: EnhanceSettings,
    scratch_dir: Path | None,
    analysis: Analysis | None = None,
) -> Generator[SearchStep, None, FoundRecording]:
    """Find the mask of a recording, or of each of its components if its channels are not linked.

    Parameters
    ----------
    analysis : Analysis, optional
        Of the recording, with pitches, if it was made already.
    """
    link = settings.render.link
    check_link(source.channels, link)
    count = count_components(source.channels, link)
    if count == 1:
        return (yield from _find_component_mask(source, model, settings, scratch_dir, analysis))
    if link == "mid-side":
        # Analysis takes the mean of the channels, which is the mid: this mask is that of the mid.
        whole = yield from _find_component_mask(source, model, settings, scratch_dir)
        masks = [whole.mask]
    else:
        unsearched = settings.replace(prior=dict(kind="none"), search=dict(steps=0))
        whole = yield from _find_component_mask(source, model, unsearched, scratch_dir)
        masks = []
    for index in range(len(masks), count):
        part = ComponentSource(source, link, index)
        if part.is_silent:
            zeros = LazyTimeSeries(whole.mask.mask.frames, partial(_no_gains, len(whole.mask.mask.hz)))
            masks.append(FoundMask(whole.mask.mask.with_gains(zeros), 0))
        else:
            part_result = yield from _find_component_mask(part, model, settings, scratch_dir)
            masks.append(part_result.mask)
            whole = whole if link == "mid-side" else whole._replace(settings=part_result.settings)
    steps = max(mask.steps for mask in masks)
    return whole._replace(mask=FoundMask(masks[0].mask, steps, tuple(mask.mask for mask in masks[1:])))


def _no_gains(rows: int, start: int, stop: int) -> Levels:
    return np.zeros((rows, stop - start), dtype=np.float32)


def _find_component_mask(
    source: AudioSource,
    model: Model,
    settings: EnhanceSettings,
    scratch_dir: Path | None,
    analysis: Analysis | None = None,
) -> Generator[SearchStep, None, FoundRecording]:
    # The predictor reads levels only, so a prediction without search needs no pitch analysis.
    one_pass = settings.prior.kind == "predicted" and settings.search.steps == 0
    if analysis is None:
        analysis = analyse_source(source, model, scratch_dir, with_pitch=not one_pass)
    check_limits(analysis.n_samples, source.rate, settings.render)
    used = settings_for_model(settings, model)
    before = measure_input(analysis.rows_db, model, used)
    kind = None if settings.force else _substitute_prior(before, model, settings.method)
    if kind is not None:
        used = settings.replace(prior=dict(kind=kind), search=dict(steps=0))
        if one_pass and kind == "auto":
            # This prior reads pitches, which the analysis above left out.
            analysis = analyse_source(source, model, scratch_dir)
    # Settings that were changed above go through `find_mask`, which evaluates any prior.
    if one_pass and used is settings:
        found_mask = FoundMask(predict_mask(source, model, used.render.max_gain_db, scratch_dir), 0)
    else:
        nearer = min(before.unlikeness, before.unlike_reference)
        found_mask = yield from find_mask(analysis, model, used, scratch_dir=scratch_dir, unlikeness=nearer)
    return FoundRecording(analysis, before, found_mask, used)


def _substitute_prior(before: InputMeasurements, model: Model, method: EnhanceMethod) -> PriorKind | None:
    """Return the prior that replaces a search: for a recording that needs none, or that is unknown."""
    if method == "paper":
        return None  # the paper's method has no such check
    graded = model.has_graded_scorer
    if graded and needs_no_change(before.scorer, before.judge, before.unlike_reference):
        return "none"
    if not is_unknown_kind(before.unlikeness, before.unlike_reference, graded):
        return None
    # 0.5 is the border between the classes: 0 is the reference, 1 the source.
    if before.scorer < 0.5 or model.learnt_priors is None:
        return "none"
    # Without its adaptive part, `auto` is the static mask, as strong as the recording needs.
    return "auto" if graded else "static"


def check_limits(samples: int, rate: int, render: RenderSettings) -> None:
    """Raise AudioError if the part to change starts after a recording's end or above its frequencies."""
    seconds, start = samples / rate, render.aspect.start_s
    lowest = max((render.aspect.between or (0.0,))[0], render.shape.low_hz or 0.0)
    if lowest >= rate / 2:
        raise AudioError(
            f"the recording has frequencies up to {rate / 2:g} Hz; there is nothing to change from "
            f"{lowest:g} Hz on: give a lower limit"
        )
    if start is not None and start >= seconds:
        raise AudioError(
            f"the recording lasts {seconds:.1f} s; there is nothing to change from {start:g} s on: "
            "give an earlier start"
        )
