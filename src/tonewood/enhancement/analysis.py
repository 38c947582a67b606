"""Analyse a recording of any length chunk by chunk, and score it.

Levels on the scorer's bands, pitch, loudness and peak are computed in one pass; arrays as long as the
recording are on disk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.recording import resample
from tonewood.dsp.chunking import Chunk, TimeSeries, overlapping_chunks, split_chunk
from tonewood.dsp.features import (
    CONTEXT_FRAMES,
    N_PITCH_BINS,
    ReferenceLevels,
    center_frequencies,
    chunk_margin_for,
    chunk_size_for,
    compute_chunk_features,
    frame_levels,
    total_power,
)
from tonewood.dsp.loudness import LoudnessBlocks, gated_loudness, measure_loudness_blocks
from tonewood.mask.components import split_components
from tonewood.model.model import Model
from tonewood.scorer.network import Scorer, score_recording
from tonewood.setting_types import ChannelLink
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import DiskArray, Levels, to_mono
from tonewood.utils.parallel import parallel_map

# Frames analysed at once. Even, because pitch frames lie on every second frame.
_ANALYSIS_BLOCK_FRAMES = 1024
_ARRAY_BLOCK_SAMPLES = 1 << 16  # the blocks are views, so their size costs no memory


class AudioSource(Protocol):
    """Audio that can be read from the start any number of times."""

    @property
    def rate(self) -> int:
        """Sample rate, Hz."""
        ...

    @property
    def channels(self) -> int:
        """Number of channels."""
        ...

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the audio in blocks (channels, samples)."""
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Audio (channels, samples) in memory."""

    samples: NDArray[np.float32]
    rate: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.samples.shape[0])

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield views of the array."""
        for start in range(0, self.samples.shape[1], _ARRAY_BLOCK_SAMPLES):
            yield self.samples[:, start : start + _ARRAY_BLOCK_SAMPLES]


@dataclass(frozen=True, eq=False)
class ComponentSource:
    """One component of a recording whose channels are not linked, as a mono recording."""

    source: AudioSource
    link: ChannelLink
    index: int
    channels: int = 1

    @property
    def rate(self) -> int:
        """Sample rate, Hz."""
        return self.source.rate

    @property
    def is_silent(self) -> bool:
        """True if it has no sound, as the side of a mono recording in stereo."""
        return not any(block.any() for block in self.blocks())

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the component in blocks (1, samples)."""
        for block in self.source.blocks():
            yield split_components(block, self.link)[self.index : self.index + 1]


@dataclass(frozen=True, eq=False)
class TruncatedSource:
    """First seconds of a recording."""

    source: AudioSource
    seconds: float

    @property
    def rate(self) -> int:
        """Sample rate, Hz."""
        return self.source.rate

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.source.channels

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks until the duration is reached."""
        remaining = round(self.seconds * self.rate)
        # Later blocks are not read: a long recording costs no more than its beginning.
        for block in self.source.blocks():
            yield block[:, :remaining]
            remaining -= block.shape[1]
            if remaining <= 0:
                return


@dataclass(frozen=True)
class Analysis:
    """Analysis of a recording."""

    wave: DiskArray  # [sample]: mean of the channels, at the analysis rate
    rows_db: DiskArray  # [row, frame]: levels on the scorer's bands, dB
    pitches: DiskArray  # [pitch, pitch frame]: power on quarter tones; empty if it was not computed
    levels: ReferenceLevels
    loudness: float  # integrated loudness (ITU-R BS.1770), LUFS
    peak: float  # largest sample; 1.0 is full scale
    n_samples: int  # samples of each channel, at the recording's own rate


class ChunkAnalysis(NamedTuple):
    """Analysis of one chunk, without its margins; fields as in `Analysis`."""

    wave: NDArray[np.float32]
    rows_db: Levels
    pitches: NDArray[np.float32]
    loudness_blocks: LoudnessBlocks
    peak: float
    n_samples: int


@dataclass(frozen=True)
class ChunkAnalyzer:
    """Analyse one chunk of a recording. Stateless, so chunks may run on any thread."""

    rate: int
    channels: int
    spectrum: SpectrumSettings
    bands: BandSettings
    with_pitch: bool = True

    @property
    def chunk_size(self) -> int:
        """Samples of a chunk."""
        return chunk_size_for(self.rate, self.channels, self.spectrum)

    @property
    def margin(self) -> int:
        """Samples beyond a chunk that its analysis needs."""
        return chunk_margin_for(self.rate, self.spectrum)

    def __call__(self, chunk: Chunk) -> ChunkAnalysis:
        """Analyse a chunk (channels, samples)."""
        # Chunks last a whole number of samples at both rates (`frames_to_samples`), so nothing is rounded.
        rate = self.spectrum.rate
        wave = resample(to_mono(chunk.samples), self.rate, rate)
        offset, left_margin, core_size = (
            count * rate // self.rate for count in (chunk.offset, chunk.left_margin, chunk.core_size)
        )
        if chunk.is_last:  # all that resampling returns, however it rounds
            core_size = len(wave) - left_margin
        mono = Chunk(wave, offset, left_margin, core_size, chunk.is_last)
        hop = self.spectrum.hop
        # Short blocks fit the processor's cache; a whole chunk does not.
        features = [
            compute_chunk_features(block, self.bands, self.spectrum, with_pitch=self.with_pitch)
            for block in split_chunk(mono, _ANALYSIS_BLOCK_FRAMES * hop, CONTEXT_FRAMES * hop)
        ]
        return ChunkAnalysis(
            wave=mono.core,
            rows_db=np.concatenate([rows for rows, _ in features], axis=1),
            pitches=np.concatenate([pitches for _, pitches in features], axis=1),
            # Loudness and peak are those of all channels, at the recording's own rate.
            loudness_blocks=measure_loudness_blocks(chunk, self.rate),
            # Without `abs`, which would copy the chunk.
            peak=max(float(chunk.core.max()), -float(chunk.core.min())),
            n_samples=chunk.core_size,
        )


class AnalysisAccumulator:
    """Join the analyses of consecutive chunks.

    Parameters
    ----------
    scratch_dir : Path, optional
        Folder for arrays as long as the recording; the system's temporary folder if None.
    """

    def __init__(self, analyzer: ChunkAnalyzer, scratch_dir: Path | None = None) -> None:
        self._rate = analyzer.rate
        rows = len(center_frequencies(analyzer.bands, analyzer.spectrum))
        self._wave, self._rows = DiskArray(None, scratch_dir), DiskArray(rows, scratch_dir)
        self._pitches = DiskArray(N_PITCH_BINS, scratch_dir)
        self._loudness_blocks: list[LoudnessBlocks] = []
        self._peak = self._power = self._pitch_power = 0.0
        self._loudest, self._samples = -np.inf, 0

    def add(self, chunk: ChunkAnalysis) -> None:
        """Add the next chunk."""
        self._wave.append(chunk.wave)
        self._rows.append(chunk.rows_db)
        level = frame_levels(chunk.rows_db)
        self._power += total_power(level)
        self._loudest = max(self._loudest, float(level.max()))
        if chunk.pitches.shape[1]:  # empty if pitches are not computed
            self._pitches.append(chunk.pitches)
            self._pitch_power = max(self._pitch_power, float(chunk.pitches.max()))
        self._loudness_blocks.append(chunk.loudness_blocks)
        self._peak = max(self._peak, chunk.peak)
        self._samples += chunk.n_samples

    def finish(self) -> Analysis:
        """Return the analysis of all chunks."""
        # The mean of power, not of decibels: that is the level of the recording as a whole.
        mean = 10 * np.log10(self._power / self._rows.frames)
        return Analysis(
            self._wave,
            self._rows,
            self._pitches,
            ReferenceLevels(float(mean), self._loudest, self._pitch_power),
            # The relative gate of BS.1770 depends on all blocks, so it is applied last.
            gated_loudness(self._loudness_blocks, self._rate),
            self._peak,
            self._samples,
        )


def analyzer_for(source: AudioSource, model: Model, *, with_pitch: bool = True) -> ChunkAnalyzer:
    """Return the analyzer of a recording for a model."""
    bands = model.settings.scorer.bands
    return ChunkAnalyzer(source.rate, source.channels, model.settings.spectrum, bands, with_pitch)


def analyse_source(
    source: AudioSource, model: Model, scratch_dir: Path | None = None, *, with_pitch: bool = True
) -> Analysis:
    """Analyse a whole recording.

    Parameters
    ----------
    scratch_dir : Path, optional
        Folder for arrays as long as the recording; the system's temporary folder if None.
    with_pitch : bool
        Compute `Analysis.pitches`, which only adaptive priors need.
    """
    analyzer = analyzer_for(source, model, with_pitch=with_pitch)
    accumulator = AnalysisAccumulator(analyzer, scratch_dir)
    chunks = overlapping_chunks(source.blocks(), analyzer.chunk_size, analyzer.margin)
    for chunk in parallel_map(analyzer, chunks):
        accumulator.add(chunk)
    return accumulator.finish()


@dataclass(frozen=True)
class Score:
    """Scores of one recording: 0 sounds like the reference, 1 like the source.

    Parameters
    ----------
    scorer : float
        Mean over the audible windows, which are as long as the scorer's training crops.
    judge : float or None
        Mean of the judge, if the model has one.
    windows : tuple of float
        Score of each audible window, in time order.
    unlikeness : float
        Distance from the nearer folder: above 1, the recording is unlike both folders, and its scores say
        little.
    """

    scorer: float
    judge: float | None
    windows: tuple[float, ...]
    unlikeness: float

    def __repr__(self) -> str:
        judge = "none" if self.judge is None else f"{self.judge:.2f}"
        return (
            f"<Score: {self.scorer:.2f}, judge {judge}, unlikeness {self.unlikeness:.2f}; "
            f"{len(self.windows)} windows>"
        )

    def _repr_html_(self) -> str:
        """Return the scores and their curve over time as HTML for notebooks."""
        from tonewood import html_report

        judge = "none" if self.judge is None else f"{self.judge:.2f}"
        score = f"{self.scorer:.2f} (0 sounds like the reference, 1 like the source)"
        windows = f"{len(self.windows)}, from {min(self.windows):.2f} to {max(self.windows):.2f}"
        kind = "known" if self.unlikeness <= 1 else "unlike both folders"
        likeness = f"{self.unlikeness:.2f} of the limit: {kind}"
        rows = [("score", score), ("judge", judge), ("windows", windows), ("unlikeness", likeness)]
        return html_report.table_html(rows) + html_report.score_curve_html(self.windows)


def score_array(samples: NDArray[np.float32], rate: int, model: Model) -> Score:
    """Score samples (channels, samples) at any rate."""
    return score_source(ArraySource(samples, rate), model)


def score_source(source: AudioSource, model: Model) -> Score:
    """Score a recording of any length."""
    # Scorer and judge read levels only.
    rows_db = analyse_source(source, model, with_pitch=False).rows_db
    windows = score_recording(model.scorer, rows_db)
    judge = mean_score(model.judge, rows_db) if model.judge else None
    return Score(
        float(windows.mean()), judge, tuple(windows.tolist()), model.folder_distances(rows_db).nearer
    )


def mean_score(scorer: Scorer, rows_db: TimeSeries) -> float:
    """Return the mean score of a recording's audible windows."""
    return float(score_recording(scorer, rows_db).mean())
