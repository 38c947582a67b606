"""Enhance a recording: analyse it, find a mask, render through the mask, and certify the result.

Rendering and analysing the output is one pass over the audio, chunk by chunk, so memory does not grow
with the recording's length and the output is never read back.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.recording import resample
from tonewood.dsp.chunking import TimeSeries, overlapping_chunks, split_segments
from tonewood.dsp.features import band_levels, center_frequencies
from tonewood.dsp.loudness import level_db, true_peak
from tonewood.enhancement.analysis import (
    Analysis,
    AnalysisAccumulator,
    ArraySource,
    AudioSource,
    ChunkAnalysis,
    ChunkAnalyzer,
    analyse_source,
    analyzer_for,
)
from tonewood.enhancement.certification import (
    InputMeasurements,
    RenderedMask,
    certify_share,
    measure_input,
)
from tonewood.enhancement.mask_search import FoundMask, find_mask
from tonewood.enhancement.prior_mask import predict_mask
from tonewood.enhancement.recipe import InputRecord, MaskRecord, ModelRecord, Recipe, TransferRecord
from tonewood.errors import AudioError
from tonewood.mask.certificate import Certificate, Change, is_unknown_kind, needs_no_change, share_text
from tonewood.mask.mask import Mask, resample_mask
from tonewood.mask.render import (
    ChunkRenderer,
    LoudnessMatch,
    RenderItem,
    RenderResult,
    effective_mask,
    match_loudness,
)
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.setting_types import EnhanceMethod, PriorKind
from tonewood.settings import EnhanceSettings, RenderSettings, SearchSettings, SpectrumSettings
from tonewood.utils.arrays import Levels, Samples, to_mono
from tonewood.utils.disk_array import DiskArray
from tonewood.utils.parallel import parallel_map

_OUTPUT_BLOCK_SAMPLES = 1 << 16  # 1.4 s at 48 kHz: small beside a chunk, large beside a disk read


class RenderedAudio(NamedTuple):
    """Output of a mask, before the gain that matches its loudness.

    Attributes
    ----------
    samples : DiskArray (channels, samples), or None if the mask changes nothing
    analysis : Analysis
        Of the samples, as `analyse_source` makes it of an input.
    loudness_match : LoudnessMatch
        Gain that restores the input's loudness and keeps the true-peak ceiling.
    peak : float
        Largest sample after that gain; 1.0 is full scale.
    """

    samples: DiskArray | None
    analysis: Analysis
    loudness_match: LoudnessMatch
    peak: float


class _RenderedChunk(NamedTuple):
    samples: NDArray[np.float32]
    analysis: ChunkAnalysis
    true_peak: float


@dataclass(frozen=True)
class _RenderTask:
    """Render and analyse one chunk. Stateless, so chunks may run on any thread."""

    renderer: ChunkRenderer
    analyzer: ChunkAnalyzer
    needs_true_peak: bool

    def __call__(self, item: RenderItem) -> _RenderedChunk:
        chunk = self.renderer(item)
        peak = true_peak(chunk, self.analyzer.rate) if self.needs_true_peak else 0.0
        return _RenderedChunk(np.ascontiguousarray(chunk.core), self.analyzer(chunk), peak)


def render_and_analyse(
    source: AudioSource,
    analysis: Analysis,
    mask: Mask,
    model: Model,
    settings: RenderSettings,
    scratch_dir: Path | None,
) -> RenderedAudio:
    """Render a recording through a mask and analyse the output.

    Parameters
    ----------
    analysis : Analysis
        Of the input; its loudness is the target.
    scratch_dir : Path, optional
        Folder for the rendered samples; the system's temporary folder if None.
    """
    if settings.amount == 0:  # the output is the input, bit by bit
        unchanged = LoudnessMatch(0.0, analysis.loudness, analysis.loudness, peak_limited=False)
        return RenderedAudio(None, analysis, unchanged, analysis.peak)
    samples = DiskArray(source.channels, scratch_dir)
    # Scores and certificate read levels only.
    analyzer = analyzer_for(source, model, with_pitch=False)
    accumulator = AnalysisAccumulator(analyzer, scratch_dir)
    largest_peak = 0.0
    for chunk in _render_chunks(source, mask, model, settings, analyzer):
        samples.append(chunk.samples)
        accumulator.add(chunk.analysis)
        largest_peak = max(largest_peak, chunk.true_peak)
    output = accumulator.finish()
    match = match_loudness(analysis.loudness, output.loudness, level_db(largest_peak), settings)
    # The samples are on disk without their gain, which is known only at their end.
    return RenderedAudio(samples, output, match, output.peak * float(match.factor))


def _render_chunks(
    source: AudioSource, mask: Mask, model: Model, settings: RenderSettings, analyzer: ChunkAnalyzer
) -> Iterator[_RenderedChunk]:
    spectrum = model.settings.spectrum
    renderer = ChunkRenderer(source.rate, source.channels, settings.aspect.between, spectrum)
    task = _RenderTask(renderer, analyzer, settings.matches_loudness)
    active_mask = effective_mask(mask, settings, spectrum)
    # Chunks overlap by the renderer's margin, which is why each can be rendered alone.
    chunks = overlapping_chunks(source.blocks(), renderer.chunk_size, renderer.margin)
    return parallel_map(task, (renderer.item(chunk, active_mask) for chunk in chunks))


def _output_levels(
    source: AudioSource, mask: Mask, model: Model, settings: RenderSettings, scratch_dir: Path | None
) -> TimeSeries:
    """Return the levels [row, frame] of an output in dB, without keeping its samples."""
    analyzer = analyzer_for(source, model, with_pitch=False)
    accumulator = AnalysisAccumulator(analyzer, scratch_dir)
    unmatched = settings.model_copy(update={"match": False})  # levels need no true peak
    for chunk in _render_chunks(source, mask, model, unmatched, analyzer):
        accumulator.add(chunk.analysis)
    return accumulator.finish().rows_db


@dataclass(frozen=True, eq=False)
class EnhancementResult:
    """Mask of an enhancement and its certificate, without the audio; fields as in `Enhancement`."""

    mask: Mask
    prior: str
    steps: int
    certificate: Certificate
    settings: EnhanceSettings
    spectrum: SpectrumSettings

    @property
    def applied(self) -> Mask:
        """Mask that was applied: the selected component, times the amount."""
        return effective_mask(self.mask, self.settings.render, self.spectrum)


@dataclass(frozen=True, eq=False)
class Enhancement(EnhancementResult):
    """Result of an enhancement, in memory.

    Parameters
    ----------
    mask : Mask
        Found mask; `applied` is the part of it that `settings.render` selects.
    prior : str
        Prior that was used.
    steps : int
        Search steps.
    certificate : Certificate
        Scores of input and output (0 sounds like the reference), and checks of the change.
    settings : EnhanceSettings
    spectrum : SpectrumSettings
        The model's analysis; the mask lives on its frames.
    rate : int
        Of input and output, Hz.
    rendered : RenderResult
        Output, its loudness and gain.
    """

    rate: int
    rendered: RenderResult

    @property
    def samples(self) -> NDArray[np.float32]:
        """Output (channels, samples)."""
        return self.rendered.samples

    @property
    def applied(self) -> Mask:
        """Mask that was applied, in memory."""
        return super().applied.load()

    @property
    def scorer(self) -> Change:
        """Score of the input and of the output."""
        return self.certificate.scorer

    @property
    def judge(self) -> Change | None:
        """Judge's score of the input and of the output; None if the model has no judge."""
        return self.certificate.judge

    def _repr_html_(self) -> str:
        """Return verdict, player, spectrogram and mask as HTML for notebooks."""
        from tonewood import html_report  # only notebooks need it

        score, judge = self.scorer, self.judge
        rows = [
            ("verdict", self.certificate.line),
            ("score", f"{score.before:.2f} → {score.after:.2f} (0 sounds like the reference)"),
            ("judge", f"{judge.before:.2f} → {judge.after:.2f}" if judge else "none"),
            ("prior", f"{self.prior}, {self.steps} steps of search"),
        ]
        return (
            html_report.table_html(rows)
            + html_report.audio_player_html(self.samples, self.rate)
            + html_report.spectrogram_html(self.samples, self.rate, self.spectrum)
            + self.applied._repr_html_()
        )


@dataclass(frozen=True, eq=False)
class StreamedEnhancement(EnhancementResult):
    """Result of an enhancement of any length; audio and mask are on disk.

    Parameters
    ----------
    source : AudioSource
        Input.
    input_analysis : Analysis
    output : RenderedAudio
    """

    source: AudioSource
    input_analysis: Analysis
    output: RenderedAudio

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the output in blocks (channels, samples)."""
        samples = self.output.samples
        if samples is None:
            yield from self.source.blocks()
            return
        for segment in split_segments(samples.frames, _OUTPUT_BLOCK_SAMPLES):
            yield samples.read(segment.start, segment.stop) * self.output.loudness_match.factor

    def delta_blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield output minus input in blocks (channels, samples): what was added and taken away."""
        samples, start = self.output.samples, 0
        for block in self.source.blocks():
            stop = start + block.shape[1]
            if samples is None:
                yield np.zeros_like(block)
            else:
                yield samples.read(start, stop) * self.output.loudness_match.factor - block
            start = stop


def enhance_array(
    samples: NDArray[np.float32], rate: int, model: Model, settings: EnhanceSettings
) -> Iterator[SearchStep | Enhancement]:
    """Enhance samples (channels, samples) in memory; yields every search step and, last, the result."""
    for event in enhance_stream(ArraySource(samples, rate), model, settings):
        if isinstance(event, SearchStep):
            yield event
        else:
            result = event
    # At amount 0 the input itself, not a copy of its blocks.
    output = samples if settings.render.amount == 0 else np.concatenate(list(result.blocks()), axis=1)
    yield Enhancement(
        mask=result.mask.load(),
        prior=result.prior,
        steps=result.steps,
        certificate=result.certificate,
        settings=settings,
        spectrum=result.spectrum,
        rate=rate,
        rendered=result.output.loudness_match.with_samples(output),
    )


def enhance_stream(
    source: AudioSource,
    model: Model,
    settings: EnhanceSettings,
    *,
    scratch_dir: Path | None = None,
) -> Iterator[SearchStep | StreamedEnhancement]:
    """Enhance a recording of any length; yields every search step and, last, the result.

    A recording that sounds like the reference already stays as it is, unless `settings.force`.
    The mask is found at the analysis rate and applied at the recording's own rate. An input that the model
    does not know is not searched, unless `settings.force`: it gets the static mask, as strong as it
    seems to need it. Models of earlier versions give it the static mask if the scorer takes it for a
    source, else no change.

    Parameters
    ----------
    scratch_dir : Path, optional
        Folder for arrays as long as the recording; the system's temporary folder if None.
    """
    # The predictor reads levels only, so a prediction without search needs no pitch analysis.
    one_pass = settings.prior.kind == "predicted" and settings.search.steps == 0
    analysis = analyse_source(source, model, scratch_dir, with_pitch=not one_pass)
    check_start_time(analysis.n_samples / source.rate, settings)
    used = settings_for_preference_model(settings, model)
    before = measure_input(analysis.rows_db, model, used)
    kind = None if settings.force else _substitute_prior(before, model, settings.method)
    if kind is not None:
        used = settings.replace(prior=dict(kind=kind), search=dict(steps=0))
        if one_pass and kind == "auto":  # which reads pitches
            analysis = analyse_source(source, model, scratch_dir)
    # Settings that were changed above go through `find_mask`, which evaluates any prior.
    if one_pass and used is settings:
        found_mask = FoundMask(predict_mask(source, model, used.render.max_gain_db, scratch_dir), 0)
    else:
        nearer = min(before.unlikeness, before.unlike_reference)
        found_mask = yield from find_mask(analysis, model, used, scratch_dir=scratch_dir, unlikeness=nearer)
    yield render_and_certify(source, analysis, found_mask, model, settings, used, scratch_dir, before)


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
    # Without its adaptive part `auto` is the static mask, as strong as the recording needs it.
    return "auto" if graded else "static"


def render_and_certify(
    source: AudioSource,
    analysis: Analysis,
    found_mask: FoundMask,
    model: Model,
    settings: EnhanceSettings,
    effective_settings: EnhanceSettings,
    scratch_dir: Path | None = None,
    before: InputMeasurements | None = None,
) -> StreamedEnhancement:
    """Render a recording through a mask and certify the change.

    Parameters
    ----------
    settings, effective_settings : EnhanceSettings
        As given by the user, and as used to find the mask.
    before : InputMeasurements, optional
        Of the recording, if it was measured already.
    """
    mask, render = found_mask.mask, settings.render
    output = render_and_analyse(source, analysis, mask, model, render, scratch_dir)
    spectrum = model.settings.spectrum
    scorer_hz = center_frequencies(model.settings.scorer.bands, spectrum)

    def rendered(part: RenderSettings, output_db: TimeSeries) -> RenderedMask:
        applied = effective_mask(mask, part, spectrum)
        # On the scorer's rows, whatever grid the method found the mask on.
        hop, frames = spectrum.hop / spectrum.rate, analysis.rows_db.frames
        mask_db = resample_mask(applied, scorer_hz, hop, frames)
        return RenderedMask(mask_db, applied.roughness_db, analysis.rows_db, output_db)

    whole = None
    if render.whole != render:
        levels_db = _output_levels(source, mask, model, render.whole, scratch_dir)
        whole = rendered(render.whole, levels_db)
    if before is None:
        before = measure_input(analysis.rows_db, model, effective_settings)
    applied = rendered(render, output.analysis.rows_db)
    share = share_text(render)
    certificate = certify_share(applied, whole, share, before, model, settings.certificate)
    return StreamedEnhancement(
        mask=found_mask.mask,
        prior=effective_settings.prior.kind,
        steps=found_mask.steps,
        certificate=certificate,
        settings=settings,
        spectrum=spectrum,
        source=source,
        input_analysis=analysis,
        output=output,
    )


def build_recipe(
    recording: InputRecord,
    model: Model,
    enhancement: EnhancementResult,
    match: LoudnessMatch,
    mask: MaskRecord,
    carried: TransferRecord | None = None,
) -> Recipe:
    """Return the recipe of an enhancement.

    Parameters
    ----------
    mask : MaskRecord
        With its gains, or without them if they are written later.
    carried : TransferRecord, optional
        Recipe that the mask was transferred from.
    """
    loudness = None
    # Silence has a loudness of -inf, which JSON cannot hold.
    if math.isfinite(match.loudness_before) and math.isfinite(match.loudness_after):
        loudness = Change(before=match.loudness_before, after=match.loudness_after)
    return Recipe(
        tonewood=version("tonewood"),
        input=recording,
        model=ModelRecord(name=model.name, digest=model.digest),
        settings=enhancement.settings,
        prior=enhancement.prior,
        steps=enhancement.steps,
        gain_db=match.gain_db,
        certificate=enhancement.certificate,
        loudness_lufs=loudness,
        mask=mask,
        spectrum=enhancement.spectrum,
        carried=carried,
    )


def check_start_time(seconds: float, settings: EnhanceSettings) -> None:
    """Raise AudioError if the part to change starts after the recording's end."""
    start = settings.render.aspect.start_s
    if start is not None and start >= seconds:
        raise AudioError(
            f"the recording lasts {seconds:.1f} s; there is nothing to change from {start:g} s on: "
            "give an earlier start"
        )


def to_analysis_rate(samples: NDArray[np.float32], rate: int, model: Model) -> Samples:
    """Return the mean of the channels [sample] at the model's analysis rate."""
    return resample(to_mono(samples), rate, model.settings.spectrum.rate)


def scorer_input(wave: Samples, model: Model) -> Levels:
    """Return the scorer's input [row, frame] in dB for a waveform [sample] at the analysis rate."""
    spectrum = model.settings.spectrum
    return band_levels(wave, spectrum.rate, model.settings.scorer.bands, spectrum)


# The scorer of a preference model is smooth but has no prior to stay near: small steps down its score
# alone, smooth over a second, with a weak pull towards no change (`alpha`).
PREFERENCE_SEARCH = SearchSettings(
    score=1.0, guide=0.0, alpha=3e-4, steps=40, learning_rate=0.004, smooth_ms=1000.0
)
PREFERENCE_MAX_GAIN_DB = 12.0  # lower than the default: no folder shows how far recordings differ


def settings_for_preference_model(settings: EnhanceSettings, model: Model) -> EnhanceSettings:
    """Return settings that fit a model trained from preferences alone; others are returned unchanged.

    Such a model has no prior and no guide. The mask starts from zero, and every search setting that
    has its default value becomes that of `PREFERENCE_SEARCH`.
    """
    if model.learnt_priors is not None or settings.method != "search":
        return settings
    defaults = EnhanceSettings()
    # A value that differs from the default was chosen by the user, and stays.
    search = {
        name: getattr(PREFERENCE_SEARCH, name)
        for name in SearchSettings.model_fields
        if getattr(settings.search, name) == getattr(defaults.search, name)
    }
    adapted = settings.model_copy(update={"search": settings.search.model_copy(update=search)})
    if settings.render.max_gain_db == defaults.render.max_gain_db:
        adapted = adapted.replace(render=dict(max_gain_db=PREFERENCE_MAX_GAIN_DB))
    if settings.prior.kind == "auto":
        adapted = adapted.replace(prior=dict(kind="none"))
    return adapted
