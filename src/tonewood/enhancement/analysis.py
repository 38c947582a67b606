"""A recording as it comes → what the method knows of it along its time, kept on disk.

A recording and a model → how much it sounds like the source, along time and in all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood import html_report
from tonewood.audio_io.recording import resample, to_mono
from tonewood.dsp.chunking import Chunk, TimeSeries, overlapping_chunks, split_chunk
from tonewood.dsp.features import (
    CONTEXT_FRAMES,
    N_PITCH_BINS,
    ReferenceLevels,
    chunk_margin_for,
    chunk_size_for,
    compute_chunk_features,
)
from tonewood.dsp.filterbank import center_frequencies, frame_levels
from tonewood.dsp.loudness import LoudnessBlocks, gated_loudness, measure_loudness_blocks
from tonewood.model.model import Model
from tonewood.scorer.network import Scorer
from tonewood.scorer.training import score_recording
from tonewood.settings import (
    BandSettings,
    SpectrumSettings,
)
from tonewood.utils.arrays import Samples
from tonewood.utils.disk_array import DiskArray
from tonewood.utils.parallel import parallel_map

_ANALYSIS_BLOCK_FRAMES = 1024  # analysed at once; even, so that long frames fall on it too
_ARRAY_BLOCK_SAMPLES = 1 << 16


class AudioSource(Protocol):
    """A recording that can be run through, more than once."""

    @property
    def rate(self) -> int:
        """Hz."""
        ...

    @property
    def channels(self) -> int:
        """Number of channels."""
        ...

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """All of it, (channels, samples) at a time."""
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """A recording (channels, samples) in memory."""

    samples: NDArray[np.float32]
    rate: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.samples.shape[0])

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Views of it."""
        for start in range(0, self.samples.shape[1], _ARRAY_BLOCK_SAMPLES):
            yield self.samples[:, start : start + _ARRAY_BLOCK_SAMPLES]


@dataclass(frozen=True, eq=False)
class TruncatedSource:
    """The first seconds of a recording."""

    source: AudioSource
    seconds: float

    @property
    def rate(self) -> int:
        """Hz."""
        return self.source.rate

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.source.channels

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """As many blocks as it is long."""
        left = round(self.seconds * self.rate)
        for block in self.source.blocks():
            yield block[:, :left]
            left -= block.shape[1]
            if left <= 0:
                return


@dataclass(frozen=True)
class Analysis:
    """A recording, analysed.

    Parameters
    ----------
    wave : DiskArray [sample]
        Mean of the channels, at the analysis rate.
    rows_db : DiskArray [row, frame]
        On the scorer's rows.
    pitches : DiskArray [pitch, long frame]
        Power on quarter tones; empty where they were of no interest.
    levels : Levels
    loudness : float
        Integrated, LUFS.
    peak : float
        Largest sample, 1 at full scale.
    n_samples : int
        In each channel, at the recording's own rate.
    """

    wave: DiskArray
    rows_db: DiskArray
    pitches: DiskArray
    levels: ReferenceLevels
    loudness: float
    peak: float
    n_samples: int


class ChunkAnalysis(NamedTuple):
    """What is heard of a piece of a recording.

    Parameters
    ----------
    wave : Tensor [sample]
        Mean of the channels, at the analysis rate.
    rows_db : Tensor [row, frame]
    pitches : Tensor [pitch, long frame]
        Without frames where they are of no interest.
    loudness_blocks : LoudnessBlocks
    peak : float
        Largest sample.
    n_samples : int
        In each channel, at the recording's own rate.
    """

    wave: Tensor
    rows_db: Tensor
    pitches: Tensor
    loudness_blocks: LoudnessBlocks
    peak: float
    n_samples: int


@dataclass(frozen=True)
class ChunkAnalyzer:
    """Analyses a piece of a recording; the piece alone decides what is heard.

    Parameters
    ----------
    rate, channels : int
        Of the recording.
    spectrum : SpectrumSettings
    bands : BandSettings
    with_pitch : bool
        Whether pitches are of interest.
    device : str
        Where to analyse.
    """

    rate: int
    channels: int
    spectrum: SpectrumSettings
    bands: BandSettings
    with_pitch: bool = True
    device: str = "cpu"

    @property
    def chunk_size(self) -> int:
        """Samples of a piece."""
        return chunk_size_for(self.rate, self.channels, self.spectrum)

    @property
    def margin(self) -> int:
        """Samples beyond a piece that it takes to hear it."""
        return chunk_margin_for(self.rate, self.spectrum)

    def __call__(self, chunk: Chunk[Samples]) -> ChunkAnalysis:
        """Hear a piece (channels, samples)."""
        rate = self.spectrum.rate
        wave = resample(to_mono(chunk.samples), self.rate, rate)
        first, lead, size = (
            it * rate // self.rate for it in (chunk.offset, chunk.left_margin, chunk.core_size)
        )
        if chunk.is_last:
            size = len(wave) - lead
        mono = Chunk(wave, first, lead, size, chunk.is_last)
        hop = self.spectrum.hop
        parts = split_chunk(mono, _ANALYSIS_BLOCK_FRAMES * hop, CONTEXT_FRAMES * hop)
        heard = [
            compute_chunk_features(
                part, self.bands, self.spectrum, with_pitch=self.with_pitch, device=self.device
            )
            for part in parts
        ]
        return ChunkAnalysis(
            wave=torch.from_numpy(np.ascontiguousarray(mono.core)),
            rows_db=torch.cat([rows for rows, _ in heard], dim=1).cpu(),
            pitches=torch.cat([it for _, it in heard], dim=1).cpu(),
            loudness_blocks=measure_loudness_blocks(chunk, self.rate),
            peak=max(float(chunk.core.max()), -float(chunk.core.min())),
            n_samples=chunk.core_size,
        )


class AnalysisAccumulator:
    """Keeps what is heard of a recording, piece after piece, on disk.

    Parameters
    ----------
    analyzer : ChunkAnalyzer
        That hears.
    scratch_dir : Path, optional
        On whose disk.
    """

    def __init__(self, analyzer: ChunkAnalyzer, scratch_dir: Path | None = None) -> None:
        self._rate = analyzer.rate
        rows = len(center_frequencies(analyzer.bands, analyzer.spectrum))
        self._wave, self._rows = DiskArray(None, scratch_dir), DiskArray(rows, scratch_dir)
        self._pitches = DiskArray(N_PITCH_BINS, scratch_dir)
        self._energies: list[LoudnessBlocks] = []
        self._peak = self._power = self._pitch_power = 0.0
        self._loudest, self._samples = -np.inf, 0

    def add(self, chunk: ChunkAnalysis) -> None:
        """Keep what was heard of the next piece."""
        self._wave.append(chunk.wave)
        self._rows.append(chunk.rows_db)
        level = frame_levels(chunk.rows_db)
        self._power += float((level.double() * (np.log(10) / 10)).exp().sum())
        self._loudest = max(self._loudest, float(level.max()))
        if chunk.pitches.shape[1]:
            self._pitches.append(chunk.pitches)
            self._pitch_power = max(self._pitch_power, float(chunk.pitches.max()))
        self._energies.append(chunk.loudness_blocks)
        self._peak = max(self._peak, chunk.peak)
        self._samples += chunk.n_samples

    def finish(self) -> Analysis:
        """All that was heard."""
        mean = 10 * np.log10(self._power / self._rows.frames)
        return Analysis(
            self._wave,
            self._rows,
            self._pitches,
            ReferenceLevels(float(mean), self._loudest, self._pitch_power),
            gated_loudness(self._energies, self._rate),
            self._peak,
            self._samples,
        )


def analyzer_for(
    source: AudioSource, model: Model, *, with_pitch: bool = True, device: str = "cpu"
) -> ChunkAnalyzer:
    """An ear for a recording, as a model hears."""
    bands = model.settings.scorer.bands
    return ChunkAnalyzer(source.rate, source.channels, model.settings.spectrum, bands, with_pitch, device)


def analyse_source(
    source: AudioSource,
    model: Model,
    scratch_dir: Path | None = None,
    *,
    with_pitch: bool = True,
    device: str = "cpu",
) -> Analysis:
    """Analyse a whole recording; without its pitches where they are of no interest."""
    ear = analyzer_for(source, model, with_pitch=with_pitch, device=device)
    memory = AnalysisAccumulator(ear, scratch_dir)
    pieces = overlapping_chunks(source.blocks(), ear.chunk_size, ear.margin)
    for heard in parallel_map(ear, pieces):
        memory.add(heard)
    return memory.finish()


@dataclass(frozen=True)
class Score:
    """Scores of one recording: 0 sounds like the reference, 1 like the source.

    Parameters
    ----------
    scorer : float
        Mean over windows as long as the scorer's training crops.
    judge : float or None
        The same by the judge.
    windows : tuple of float
        The scorer's score of each audible window, in time order.
    """

    scorer: float
    judge: float | None
    windows: tuple[float, ...]

    def _repr_html_(self) -> str:
        """The scores for notebooks, and the scorer's along time."""
        judge = "none" if self.judge is None else f"{self.judge:.2f}"
        score = f"{self.scorer:.2f} (0 sounds like the reference, 1 like the source)"
        windows = f"{len(self.windows)}, from {min(self.windows):.2f} to {max(self.windows):.2f}"
        rows = [("score", score), ("judge", judge), ("windows", windows)]
        return html_report.table_html(rows) + html_report.score_curve_html(self.windows)


def score_array(samples: NDArray[np.float32], rate: int, model: Model) -> Score:
    """Score samples (channels, samples) at any rate."""
    return score_source(ArraySource(samples, rate), model)


def score_source(source: AudioSource, model: Model) -> Score:
    """Score a recording of any length."""
    rows = analyse_source(source, model, with_pitch=False).rows_db
    along = score_recording(model.scorer, rows)
    judge = mean_score(model.judge, rows) if model.judge else None
    return Score(float(along.mean()), judge, tuple(along.tolist()))


def mean_score(scorer: Scorer, rows_db: TimeSeries) -> float:
    """Mean score of a recording's audible windows."""
    return float(score_recording(scorer, rows_db).mean())
