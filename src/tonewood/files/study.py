"""One recording of a training folder → all that is known of it, in pieces of bounded size.

A recording is run through twice at least, and never held: what is measured against the whole of it
(its rests, its peak, its largest power on a pitch) is known after the first run.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tonewood.files.audio import Resampler, to_mono
from tonewood.files.cache import ExtractedFeatures
from tonewood.files.formats import AudioFormat
from tonewood.files.items import ExcerptReader, RecordingRef
from tonewood.files.recording import AudioArray
from tonewood.files.spool import DiskArray
from tonewood.scoring.audit import long_term_spectra
from tonewood.settings import Normalization, ModelSettings
from tonewood.signal.bands import center_frequencies
from tonewood.signal.blocks import Chunk, Rechunker
from tonewood.signal.features import PITCH_HOP_RATIO, N_PITCH_BINS, CONTEXT_FRAMES, compute_chunk_features, remove_envelope
from tonewood.signal.remedies import normalize_blocks
from tonewood.signal.traces import RecordingQuality, QualityFirstPass
from tonewood.signal.tracks import SEGMENT_FRAMES, split_segments

_EXTRACT_FRAMES = 2048  # even, so that long frames fall on it too

BlockConsumer = Callable[[AudioArray], None]
"""Takes the next samples (channels, samples) of a recording."""


class RecordingSummary(NamedTuple):
    """Digest of a recording's samples, and its traces."""

    digest: str
    traces: RecordingQuality


class NormalizedReader:
    """A recording with a fix applied, whenever it is run through.

    Parameters
    ----------
    reader : ExcerptReader
    summary : RecordingSummary
        Of the recording as it is.
    normalization : Normalization
    """

    def __init__(self, reader: ExcerptReader, summary: RecordingSummary, normalization: Normalization) -> None:
        self._before, self._known, self._fix = reader, summary, normalization
        self.rate, self.channels = reader.rate, reader.channels

    def blocks(self) -> Iterator[AudioArray]:
        """All of it, (channels, samples) at a time."""
        # Drawn by the recording itself: its noise depends neither on its neighbours nor on its
        # side, and is the same in every run.
        rng = np.random.default_rng(int(self._known.digest[:16], 16))
        traces = self._known.traces
        length = round(traces.seconds * self.rate)
        return normalize_blocks(self._before.blocks(), length, self.rate, traces, self._fix, rng)


def open_recording(item: RecordingRef, normalization: Normalization | None = None) -> ExcerptReader | NormalizedReader:
    """A recording, or the piece of one that a list names, with its fix applied.

    Raises
    ------
    AudioError
        It cannot be used.
    """
    plain = ExcerptReader(item)
    return plain if normalization is None else NormalizedReader(plain, summarize_recording(plain), normalization)


def summarize_recording(reader: ExcerptReader | NormalizedReader, on_block: BlockConsumer | None = None, digest: str | None = None) -> RecordingSummary:
    """Run through a recording: its digest, unless that is known, and its traces.

    Parameters
    ----------
    on_block : callable, optional
        Is given all blocks once.
    digest : str, optional
        SHA-256 of the samples, one channel after the other: a copy in another container is the
        same recording.
    """
    hasher, channels = hashlib.sha256(), reader.channels

    def run(channel: int) -> Iterator[AudioArray]:
        """All blocks, a channel of them told on the way."""
        for block in reader.blocks():
            if digest is None and channel < channels:
                hasher.update(np.ascontiguousarray(block[channel]).data)
            yield block

    tracing = QualityFirstPass(reader.rate, channels)
    for block in run(0):
        tracing.push(block)
        if on_block is not None:
            on_block(block)
    again = tracing.second_pass()
    for block in run(1):
        again.push(block)
    for channel in range(2, channels if digest is None else 2):
        for _ in run(channel):
            pass
    return RecordingSummary(digest or hasher.hexdigest(), again.result())


def extract_features(
    item: RecordingRef, settings: ModelSettings, normalization: Normalization | None, folder: Path | None = None
) -> ExtractedFeatures:
    """Decode and analyse a recording, its fix applied first.

    Parameters
    ----------
    folder : Path, optional
        On whose disk its analysis is kept meanwhile.
    """
    plain = ExcerptReader(item)
    analysing = FeatureExtractor(plain.rate, settings, folder)
    if normalization is None:
        known = summarize_recording(plain, analysing.push)
    else:
        before = summarize_recording(plain)
        known = summarize_recording(NormalizedReader(plain, before, normalization), analysing.push, before.digest)
    return analysing.finish(known, plain.format)


def extract_audit_features(item: RecordingRef, settings: ModelSettings) -> ExtractedFeatures:
    """What an audit asks of a recording; its pitches are of no interest."""
    sound = ExcerptReader(item)
    analysing = FeatureExtractor(sound.rate, settings, with_pitches=False)
    return analysing.finish(summarize_recording(sound, analysing.push), sound.format)


class FeatureExtractor:
    """Rows and fine structure of a recording while it passes.

    Parameters
    ----------
    rate : int
        Of what is pushed, Hz.
    settings : ModelSettings
    folder : Path, optional
        On whose disk they are kept.
    with_pitches : bool
        Whether fine structure is of interest.
    """

    def __init__(
        self,
        rate: int,
        settings: ModelSettings,
        folder: Path | None = None,
        *,
        with_pitches: bool = True,
    ) -> None:
        self._settings, self._folder, self._pitched = settings, folder, with_pitches
        self._bands, self._spectrum = settings.scorer.bands, settings.spectrum
        self._rows = DiskArray(len(center_frequencies(self._bands, self._spectrum)), folder)
        self._power, self._loudest = DiskArray(N_PITCH_BINS, folder), 0.0
        self._resampler = Resampler(rate, self._spectrum.rate)
        hop = self._spectrum.hop
        self._pieces = Rechunker(_EXTRACT_FRAMES * hop, CONTEXT_FRAMES * hop)

    def push(self, block: AudioArray) -> None:
        """Hear more samples (channels, samples)."""
        self._analyse_chunks(self._pieces.push(self._resampler.push(to_mono(block))))

    def finish(self, summary: RecordingSummary, audio_format: AudioFormat) -> ExtractedFeatures:
        """All that was found; nothing can be pushed after it."""
        self._analyse_chunks(self._pieces.push(self._resampler.flush()))
        self._analyse_chunks(self._pieces.flush())
        window = self._spectrum.to_frames(self._settings.scorer.crop_seconds)
        return ExtractedFeatures(
            digest=summary.digest,
            seconds=summary.traces.seconds,
            format=audio_format,
            traces=summary.traces,
            spectra=long_term_spectra(self._rows, window),
            rows_db=self._rows,
            long_db=self._fine_structure(),
        )

    def _analyse_chunks(self, pieces: Iterator[Chunk[AudioArray]]) -> None:
        for piece in pieces:
            rows, power = compute_chunk_features(piece, self._bands, self._spectrum, with_pitch=self._pitched)
            self._rows.append(rows)
            if power.shape[1]:
                self._power.append(power)
                self._loudest = max(self._loudest, float(power.max()))

    def _fine_structure(self) -> DiskArray:
        """Fine structure at every long frame of the rows."""
        fine = DiskArray(N_PITCH_BINS, self._folder)
        if not self._pitched:
            return fine
        # A margin, since the last long frame may be missing, and then is the one before it.
        for span in split_segments(self._rows.frames, SEGMENT_FRAMES, PITCH_HOP_RATIO):
            power = self._power.read(span.padded_start // PITCH_HOP_RATIO, -(-span.padded_stop // PITCH_HOP_RATIO))
            made = remove_envelope(power, self._loudest, span.padded_stop - span.padded_start)
            fine.append(made[:, span.core][:, ::PITCH_HOP_RATIO])
        return fine
