"""A recording and a model → the recording, reshaped.

A recording and a mask → the recording as the mask makes it, heard while it is made.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood import html_report
from tonewood.audio_io.recording import resample, to_mono
from tonewood.dsp.chunking import TimeSeries, overlapping_chunks, split_segments
from tonewood.dsp.filterbank import band_levels, center_frequencies
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
    mean_score,
)
from tonewood.enhancement.certification import RenderedMask, certify_rendering, measure_input
from tonewood.enhancement.mask_search import FoundMask, find_mask, on_device
from tonewood.enhancement.prior_mask import predict_mask
from tonewood.errors import AudioError
from tonewood.mask.certificate import Certificate, Change
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
from tonewood.settings import (
    EnhanceSettings,
    RenderSettings,
    SearchSettings,
    Settings,
    SpectrumSettings,
)
from tonewood.utils.disk_array import DiskArray
from tonewood.utils.parallel import parallel_map


class RenderedAudio(NamedTuple):
    """Sound that a mask made: samples (channels, samples) before their gain, none if untouched."""

    samples: DiskArray | None
    analysis: Analysis
    loudness_match: LoudnessMatch
    peak: float


class _RenderedChunk(NamedTuple):
    """What became of a piece: its samples, what is heard of them, their true peak."""

    samples: NDArray[np.float32]
    analysis: ChunkAnalysis
    true_peak: float


@dataclass(frozen=True)
class _RenderTask:
    """Passes a piece through its part of a mask, and listens to what comes out."""

    renderer: ChunkRenderer
    analyzer: ChunkAnalyzer
    needs_true_peak: bool

    def __call__(self, item: RenderItem) -> _RenderedChunk:
        made = self.renderer(item)
        peak = true_peak(made, self.analyzer.rate) if self.needs_true_peak else 0.0
        return _RenderedChunk(np.ascontiguousarray(made.core), self.analyzer(made), peak)


def render_and_analyse(
    source: AudioSource,
    analysis: Analysis,
    mask: Mask,
    model: Model,
    settings: RenderSettings,
    scratch_dir: Path | None,
    device: str,
) -> RenderedAudio:
    """Pass a recording through its mask, and listen to what comes out."""
    if settings.amount == 0:
        unmoved = LoudnessMatch(0.0, analysis.loudness, analysis.loudness, peak_limited=False)
        return RenderedAudio(None, analysis, unmoved, analysis.peak)
    spectrum = model.settings.spectrum
    way = ChunkRenderer(source.rate, source.channels, settings.aspect.between, spectrum, device)
    ear = analyzer_for(source, model, with_pitch=False, device=device)
    making = _RenderTask(way, ear, settings.matches_loudness)
    force = effective_mask(mask, settings, spectrum)
    made, memory, peak = (
        DiskArray(source.channels, scratch_dir),
        AnalysisAccumulator(ear, scratch_dir),
        0.0,
    )
    pieces = overlapping_chunks(source.blocks(), way.chunk_size, way.margin)
    passing = (way.item(it, force) for it in pieces)
    for found in parallel_map(making, passing):
        made.append(found.samples)
        memory.add(found.analysis)
        peak = max(peak, found.true_peak)
    after = memory.finish()
    level = match_loudness(analysis.loudness, after.loudness, level_db(peak), settings)
    return RenderedAudio(made, after, level, after.peak * float(level.factor))


_OUTPUT_BLOCK_SAMPLES = 1 << 16


@dataclass(frozen=True, eq=False)
class Enhancement:
    """A reshaped recording, and what was done to it.

    Parameters
    ----------
    samples : float32 array (channels, samples)
    rate : int
        Hz, the input's.
    mask : Mask
        As found; `apply` is what `search_settings.render` takes of it on rendering.
    prior : str
        Prior that was used.
    steps : int
        Steps that the search took.
    certificate : Certificate
        Scores of input and output, 0 sounds like the reference; what the mask really did.
    rendered : RenderResult
        Loudness and gain.
    settings : EnhanceSettings
        As asked for.
    spectrum : SpectrumSettings
        The model's analysis, by which the mask was found and applied.
    """

    samples: NDArray[np.float32]
    rate: int
    mask: Mask
    prior: str
    steps: int
    certificate: Certificate
    rendered: RenderResult
    settings: EnhanceSettings
    spectrum: SpectrumSettings

    @property
    def applied(self) -> Mask:
        """What was applied of the mask: the aspect that is wanted, times the amount."""
        return effective_mask(self.mask, self.settings.render, self.spectrum).load()

    def _repr_html_(self) -> str:
        """What came of it, for notebooks: verdict, player, spectrogram, mask."""
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

    @property
    def scorer(self) -> Change:
        """Score of the input and of the output."""
        return self.certificate.scorer

    @property
    def judge(self) -> Change | None:
        """The judge's."""
        return self.certificate.judge


@dataclass(frozen=True, eq=False)
class StreamedEnhancement:
    """A recording of any length, reshaped; its sound and its mask are kept on disk.

    Parameters
    ----------
    input_analysis, output_analysis : Heard
        The input and the output.
    mask : Mask
        As found; `apply` is what `search_settings.render` takes of it on rendering.
    prior : str
        Prior that was used.
    steps : int
        Steps that the search took.
    certificate : Certificate
    loudness_match : LoudnessMatch
        Loudness and gain.
    peak : float
        Largest sample of the output, 1 at full scale.
    settings : EnhanceSettings
        As asked for.
    spectrum : SpectrumSettings
        The model's analysis, by which the mask was found and applied.
    """

    input_analysis: Analysis
    output_analysis: Analysis
    mask: Mask
    prior: str
    steps: int
    certificate: Certificate
    loudness_match: LoudnessMatch
    peak: float
    settings: EnhanceSettings
    spectrum: SpectrumSettings
    _source: AudioSource
    _samples: DiskArray | None

    @property
    def applied(self) -> Mask:
        """As of `Enhancement`."""
        return effective_mask(self.mask, self.settings.render, self.spectrum)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The output, (channels, samples) at a time."""
        if self._samples is None:
            yield from self._source.blocks()
            return
        for span in split_segments(self._samples.frames, _OUTPUT_BLOCK_SAMPLES):
            yield self._samples.read(span.start, span.stop).numpy() * self.loudness_match.factor


def enhance_array(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    settings: EnhanceSettings,
    *,
    device: str = "cpu",
) -> Iterator[SearchStep | Enhancement]:
    """Reshape a recording in memory; yields every `Step` of the search and, last, the result.

    Parameters
    ----------
    samples : float32 array (channels, samples)
    rate : int
        Hz.
    """
    made: StreamedEnhancement | None = None
    for event in enhance_stream(ArraySource(samples, rate), model, settings, device=device):
        if isinstance(event, SearchStep):
            yield event
        else:
            made = event
    assert made is not None
    out = samples if settings.render.amount == 0 else np.concatenate(list(made.blocks()), axis=1)
    level = made.loudness_match
    yield Enhancement(
        samples=out,
        rate=rate,
        mask=made.mask.load(),
        prior=made.prior,
        steps=made.steps,
        certificate=made.certificate,
        rendered=RenderResult(
            level.gain_db,
            level.loudness_before,
            level.loudness_after,
            level.peak_limited,
            samples=out,
        ),
        settings=settings,
        spectrum=made.spectrum,
    )


def enhance_stream(
    source: AudioSource,
    model: Model,
    settings: EnhanceSettings,
    *,
    device: str = "cpu",
    scratch_dir: Path | None = None,
) -> Iterator[SearchStep | StreamedEnhancement]:
    """Find a mask at the analysis rate and apply it at the recording's own.

    Yields every `Step` of the search and, last, the `StreamedEnhancement`. An input unlike the source
    folder gets the static mask if the scorer takes it for a source all the same, else none,
    unless `search_settings.mask` says otherwise.

    Memory does not grow with the recording's length; what is known along its time is kept on disk
    while it is needed.

    Parameters
    ----------
    source : Sound
    scratch_dir : Path, optional
        On whose disk.
    """
    foreseen = settings.prior.kind == "predicted" and settings.search.steps == 0
    heard = analyse_source(source, model, scratch_dir, with_pitch=not foreseen, device=device)
    check_start_time(heard.n_samples / source.rate, settings)
    unlikeness = model.source_likeness.distance(heard.rows_db)
    used = settings_for_preference_model(settings, model)
    if unlikeness > 1 and not settings.force and settings.method != "paper":
        taken = mean_score(model.scorer, heard.rows_db) >= 0.5  # for a source
        static = taken and model.learnt_priors is not None
        used = settings.replace(prior=dict(kind="static" if static else "none"), search=dict(steps=0))
    if foreseen and used is settings:
        found = FoundMask(predict_mask(source, model, used.render.max_gain_db, scratch_dir), 0)
    else:
        found = yield from find_mask(heard, model, used, device=device, scratch_dir=scratch_dir)
    with on_device(device, model.scorer, model.judge):
        made = render_and_certify(source, heard, found, model, settings, used, scratch_dir, device)
    yield made


def render_and_certify(
    source: AudioSource,
    analysis: Analysis,
    found_mask: FoundMask,
    model: Model,
    settings: EnhanceSettings,
    effective_settings: EnhanceSettings,
    scratch_dir: Path | None = None,
    device: str = "cpu",
) -> StreamedEnhancement:
    """Render a mask that was found, and certify what it does.

    Parameters
    ----------
    settings, effective_settings : EnhanceSettings
        As asked for, and as the mask was found.
    folder, device
        As of `enhance_stream`; scorer and judge are there.
    """
    made = render_and_analyse(source, analysis, found_mask.mask, model, settings.render, scratch_dir, device)
    applied = effective_mask(found_mask.mask, settings.render, model.settings.spectrum)
    rendered = RenderedMask(
        mask_db=_gains_on_scorer_rows(applied, model, analysis.rows_db.frames),
        roughness_db=applied.roughness_db,
        input_db=analysis.rows_db,
        output_db=made.analysis.rows_db,
    )
    before = measure_input(analysis.rows_db, model, effective_settings)
    certificate = certify_rendering(rendered, before, model, settings.certificate)
    return StreamedEnhancement(
        input_analysis=analysis,
        output_analysis=made.analysis,
        mask=found_mask.mask,
        prior=effective_settings.prior.kind,
        steps=found_mask.steps,
        certificate=certificate,
        loudness_match=made.loudness_match,
        peak=made.peak,
        settings=settings,
        spectrum=model.settings.spectrum,
        _source=source,
        _samples=made.samples,
    )


def check_start_time(seconds: float, settings: EnhanceSettings) -> None:
    """Raise AudioError if the span that is asked for begins after a recording's end."""
    start = settings.render.aspect.start_s
    if start is not None and start >= seconds:
        raise AudioError(
            f"the recording lasts {seconds:.1f} s; nothing is there to change from {start:g} s on: "
            "name an earlier start"
        )


def to_analysis_rate(samples: NDArray[np.float32], rate: int, model: Model) -> Tensor:
    """Mean of the channels [sample] at the model's analysis rate."""
    return torch.from_numpy(resample(to_mono(samples), rate, model.settings.spectrum.rate))


def scorer_input(wave: Tensor, model: Model) -> Tensor:
    """Rows [row, frame] that the scorer hears of a waveform [sample] at the analysis rate."""
    spectrum = model.settings.spectrum
    return band_levels(wave, spectrum.rate, model.settings.scorer.bands, spectrum)


def _gains_on_scorer_rows(mask: Mask, model: Model, frames: int) -> TimeSeries:
    """Return a mask's gains [row, frame] on the scorer's rows and frames."""
    spectrum = model.settings.spectrum
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    return resample_mask(mask, hz, spectrum.hop / spectrum.rate, frames)


# A descent from nothing: small steps down the scorer alone, smooth in time, near the recording.
PREFERENCE_SEARCH = SearchSettings(
    score=1.0, guide=0.0, alpha=3e-4, steps=40, learning_rate=0.004, smooth_ms=1000.0
)


PREFERENCE_MAX_GAIN_DB = 12.0  # no folder shows how far recordings of the kind differ


def settings_for_preference_model(settings: EnhanceSettings, model: Model) -> EnhanceSettings:
    """Settings that fit a model learnt from listeners alone; any other keeps its own.

    It has no prior and no guide: the mask starts from nothing, and what of the search was left at
    its default becomes a descent of the scorer.
    """
    if model.learnt_priors is not None or settings.method != "search":
        return settings
    plain = EnhanceSettings()
    search = {
        name: getattr(PREFERENCE_SEARCH, name)
        for name in SearchSettings.model_fields
        if getattr(settings.search, name) == getattr(plain.search, name)
    }
    wanted: dict[str, Settings] = {"search": settings.search.model_copy(update=search)}
    if settings.render.max_gain_db == plain.render.max_gain_db:
        bound = {"max_gain_db": PREFERENCE_MAX_GAIN_DB}
        wanted["render"] = settings.render.model_copy(update=bound)
    if settings.prior.kind == "auto":
        wanted["prior"] = settings.prior.model_copy(update={"kind": "none"})
    return settings.model_copy(update=wanted)
