"""A recording and a mask → the recording as the mask makes it, heard while it is made."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.files.modelfile import Model
from tonewood.files.spool import DiskArray
from tonewood.masking.mask import LazyMask
from tonewood.masking.render import LoudnessMatch, ChunkRenderer, RenderItem, effective_mask, match_loudness
from tonewood.settings import RenderSettings
from tonewood.signal.blocks import overlapping_chunks
from tonewood.signal.loudness import level_db, true_peak
from tonewood.signal.spread import parallel_map
from tonewood.workflow.hearing import ChunkAnalyzer, Analysis, AnalysisAccumulator, ChunkAnalysis, AudioSource, analyzer_for


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
    mask: LazyMask,
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
    made, memory, peak = DiskArray(source.channels, scratch_dir), AnalysisAccumulator(ear, scratch_dir), 0.0
    pieces = overlapping_chunks(source.blocks(), way.chunk_size, way.margin)
    passing = (way.item(it, force) for it in pieces)
    for found in parallel_map(making, passing, picklable=device == "cpu"):
        made.append(found.samples)
        memory.add(found.analysis)
        peak = max(peak, found.true_peak)
    after = memory.finish()
    level = match_loudness(analysis.loudness, after.loudness, level_db(peak), settings)
    return RenderedAudio(made, after, level, after.peak * float(level.factor))
