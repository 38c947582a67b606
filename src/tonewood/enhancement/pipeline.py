"""Enhance a recording: analyse it, find a mask, render through the mask, and certify the result.

Rendering and analysing the output is one pass over the audio, chunk by chunk, so memory does not grow
with the recording's length and the output is never read back.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.recording import resample
from tonewood.dsp.chunking import TimeSeries, mean_series, split_segments
from tonewood.dsp.features import band_levels, center_frequencies
from tonewood.dsp.loudness import level_db, true_peak
from tonewood.enhancement.analysis import (
    Analysis,
    AnalysisAccumulator,
    ArraySource,
    AudioSource,
    ChunkAnalysis,
    ChunkAnalyzer,
    analyzer_for,
)
from tonewood.enhancement.certification import InputMeasurements, RenderedMask, certify_share, measure_input
from tonewood.enhancement.mask_search import FoundMask, find_masks, settings_for_model
from tonewood.enhancement.recipe import InputRecord, MaskRecord, ModelRecord, Recipe, TransferRecord
from tonewood.mask.certificate import Certificate, Change, share_text
from tonewood.mask.components import scored_masks
from tonewood.mask.mask import Mask, resample_mask
from tonewood.mask.render import (
    ChunkRenderer,
    LoudnessMatch,
    RenderItem,
    RenderResult,
    effective_mask,
    match_loudness,
    render_items,
)
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, RenderSettings, SpectrumSettings
from tonewood.utils.arrays import DiskArray, Levels, Samples, to_mono
from tonewood.utils.parallel import parallel_map

_OUTPUT_BLOCK_SAMPLES = 1 << 16  # 1.4 s at 48 kHz: small beside a chunk, large beside a disk read


class RenderedAudio(NamedTuple):
    """Output of a mask, before the gain that matches its loudness."""

    samples: DiskArray | None  # (channels, samples); None if the mask changes nothing
    analysis: Analysis  # of the samples, as `analyse_source` makes it of an input
    loudness_match: LoudnessMatch  # gain that restores the input's loudness and keeps the true-peak ceiling
    peak: float  # largest sample after that gain; 1.0 is full scale
    true_peak: float = 0.0  # largest true peak before that gain; 0 if the settings do not match the loudness
    # Largest difference between a sample before that gain and the input's; the input's peak is 1
    change: float = 0.0


class _RenderedChunk(NamedTuple):
    samples: NDArray[np.float32]
    analysis: ChunkAnalysis
    true_peak: float
    largest_change: float


@dataclass(frozen=True)
class _RenderTask:
    """Render and analyse one chunk. Stateless, so chunks may run on any thread."""

    renderer: ChunkRenderer
    analyzer: ChunkAnalyzer
    needs_true_peak: bool

    def __call__(self, item: RenderItem) -> _RenderedChunk:
        chunk = self.renderer(item)
        peak = true_peak(chunk, self.analyzer.rate) if self.needs_true_peak else 0.0
        change = float(np.abs(chunk.core - item.chunk.core).max(initial=0.0))
        return _RenderedChunk(np.ascontiguousarray(chunk.core), self.analyzer(chunk), peak, change)


def render_and_analyse(
    source: AudioSource,
    analysis: Analysis,
    masks: Sequence[Mask],
    model: Model,
    settings: RenderSettings,
    scratch_dir: Path | None,
) -> RenderedAudio:
    """Render a recording through the masks of its components and analyse the output.

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
    largest_peak = largest_change = 0.0
    for chunk in _render_chunks(source, masks, model, settings, analyzer):
        samples.append(chunk.samples)
        accumulator.add(chunk.analysis)
        largest_peak = max(largest_peak, chunk.true_peak)
        largest_change = max(largest_change, chunk.largest_change)
    output = accumulator.finish()
    match = match_loudness(analysis.loudness, output.loudness, level_db(largest_peak), settings)
    # The samples are on disk without their gain, which is known only at their end.
    peak = output.peak * float(match.factor)
    return RenderedAudio(samples, output, match, peak, largest_peak, largest_change / (analysis.peak or 1.0))


def _render_chunks(
    source: AudioSource,
    masks: Sequence[Mask],
    model: Model,
    settings: RenderSettings,
    analyzer: ChunkAnalyzer,
) -> Iterator[_RenderedChunk]:
    spectrum = model.settings.spectrum
    renderer = ChunkRenderer(source.rate, source.channels, settings.aspect.between, spectrum, settings.link)
    task = _RenderTask(renderer, analyzer, settings.matches_loudness)
    return parallel_map(task, render_items(renderer, source.blocks(), masks, settings))


def _output_levels(
    source: AudioSource,
    masks: Sequence[Mask],
    model: Model,
    settings: RenderSettings,
    scratch_dir: Path | None,
) -> TimeSeries:
    """Return the levels [row, frame] of an output in dB, without keeping its samples."""
    analyzer = analyzer_for(source, model, with_pitch=False)
    accumulator = AnalysisAccumulator(analyzer, scratch_dir)
    unmatched = settings.model_copy(update={"match": False})  # levels need no true peak
    for chunk in _render_chunks(source, masks, model, unmatched, analyzer):
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
    others: tuple[Mask, ...] = field(default=(), kw_only=True)

    @property
    def applied(self) -> Mask:
        """Mask that was applied: the selected component, times the amount."""
        return self.applied_masks[0]

    @property
    def applied_masks(self) -> tuple[Mask, ...]:
        """Mask that was applied to each component of the channels."""
        render = self.settings.render
        return tuple(effective_mask(mask, render, self.spectrum) for mask in (self.mask, *self.others))


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
        With the defaults of method and model.
    spectrum : SpectrumSettings
        The model's analysis; the mask lives on its frames.
    others : tuple of Mask
        Found masks of further components, if `settings.render.link` is not "all".
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

    def __repr__(self) -> str:
        scores = f"score {self.scorer.before:.2f} → {self.scorer.after:.2f}"
        seconds = self.samples.shape[1] / self.rate
        return (
            f"<Enhancement: {seconds:.2f} s, {len(self.samples)} channels at {self.rate} Hz; {scores}; "
            f"{self.certificate.line}>"
        )

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
    """Result of an enhancement of any length; audio and mask are on disk."""

    source: AudioSource  # input
    input_analysis: Analysis
    output: RenderedAudio

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the output in blocks (channels, samples)."""
        samples = self.output.samples
        if samples is None:
            yield from self.source.blocks()
            return
        for segment in split_segments(samples.frames, _OUTPUT_BLOCK_SAMPLES):
            # Frames stay in their order on disk, which is that of an audio file.
            frames = samples.read_frames(segment.start, segment.stop)
            yield (frames * self.output.loudness_match.factor).T

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
    yield from enhance_source(ArraySource(samples, rate), model, settings)


def enhance_source(
    source: ArraySource, model: Model, settings: EnhanceSettings, analysis: Analysis | None = None
) -> Iterator[SearchStep | Enhancement]:
    """Enhance audio in memory as `enhance_array` does; `analysis` is that of `find_masks`."""
    for event in enhance_stream(source, model, settings, analysis=analysis):
        if isinstance(event, SearchStep):
            yield event
        else:
            result = event
    # At amount 0 the input itself, not a copy of its blocks.
    output = source.samples
    if settings.render.amount != 0:
        output = np.ascontiguousarray(np.concatenate(list(result.blocks()), axis=1))
    yield Enhancement(
        mask=result.mask.load(),
        prior=result.prior,
        steps=result.steps,
        certificate=result.certificate,
        settings=result.settings,
        spectrum=result.spectrum,
        others=tuple(mask.load() for mask in result.others),
        rate=source.rate,
        rendered=result.output.loudness_match.with_samples(output),
    )


def enhance_stream(
    source: AudioSource,
    model: Model,
    settings: EnhanceSettings,
    *,
    scratch_dir: Path | None = None,
    analysis: Analysis | None = None,
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
    analysis : Analysis, optional
        Of the recording, as `find_masks` takes it.
    """
    settings = settings_for_model(settings, model)
    recording = yield from find_masks(source, model, settings, scratch_dir, analysis)
    yield render_and_certify(
        source,
        recording.analysis,
        recording.mask,
        model,
        settings,
        recording.settings,
        scratch_dir,
        recording.before,
    )


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
        As used for every recording, and as used for this one, whose prior may be another.
    before : InputMeasurements, optional
        Of the recording, if it was measured already.
    """
    masks, render = found_mask.masks, settings.render
    output = render_and_analyse(source, analysis, masks, model, render, scratch_dir)
    spectrum = model.settings.spectrum
    scorer_hz = center_frequencies(model.settings.scorer.bands, spectrum)

    def rendered(part: RenderSettings, output_db: TimeSeries) -> RenderedMask:
        applied = [effective_mask(mask, part, spectrum) for mask in scored_masks(masks, render.link)]
        # On the scorer's rows, whatever grid the method found the masks on.
        hop, frames = spectrum.hop / spectrum.rate, analysis.rows_db.frames
        mask_db = mean_series([resample_mask(mask, scorer_hz, hop, frames) for mask in applied])
        roughness_db = max(mask.roughness_db for mask in applied)
        return RenderedMask(mask_db, roughness_db, analysis.rows_db, output_db)

    whole = None
    if render.whole != render:
        levels_db = _output_levels(source, masks, model, render.whole, scratch_dir)
        whole = rendered(render.whole, levels_db)
    if before is None:
        before = measure_input(analysis.rows_db, model, effective_settings)
    applied = rendered(render, output.analysis.rows_db)
    share = share_text(render)
    certificate = certify_share(applied, whole, share, output.change, before, model, settings.certificate)
    return StreamedEnhancement(
        mask=found_mask.mask,
        prior=effective_settings.prior.kind,
        steps=found_mask.steps,
        certificate=certificate,
        settings=settings,
        spectrum=spectrum,
        others=found_mask.others,
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
        others=tuple(map(MaskRecord.from_mask, enhancement.others)),
        carried=carried,
    )


def to_analysis_rate(samples: NDArray[np.float32], rate: int, model: Model) -> Samples:
    """Return the mean of the channels [sample] at the model's analysis rate."""
    return resample(to_mono(samples), rate, model.settings.spectrum.rate)


def scorer_input(wave: Samples, model: Model) -> Levels:
    """Return the scorer's input [row, frame] in dB for a waveform [sample] at the analysis rate."""
    spectrum = model.settings.spectrum
    return band_levels(wave, spectrum.rate, model.settings.scorer.bands, spectrum)
