"""Recordings as they were analysed, kept on disk and mapped into memory: found again next time.

An entry is a safetensors file named by what decides its content: the recording's own bytes, the
piece of it, the settings of the analysis, and what is done to it before. Nothing in it is believed
beyond that: an entry that cannot be read is made again.

One recording of a training folder → all that is known of it, in pieces of bounded size.

A recording is run through twice at least, and never held: what is measured against the whole of it
(its rests, its peak, its largest power on a pitch) is known after the first run.
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import Resampler, to_mono
from tonewood.audio_io.recording import AudioArray
from tonewood.data.manifest import ContentKey, ExcerptReader, RecordingRef
from tonewood.data.normalization import normalize_blocks
from tonewood.dsp.chunking import SEGMENT_FRAMES, Chunk, Rechunker, split_segments
from tonewood.dsp.features import (
    CONTEXT_FRAMES,
    N_PITCH_BINS,
    PITCH_HOP_RATIO,
    CompactFeatures,
    compute_chunk_features,
    long_term_spectra,
    remove_envelope,
)
from tonewood.dsp.filterbank import center_frequencies
from tonewood.dsp.recording_quality import QualityFirstPass, RecordingQuality
from tonewood.errors import OutputError
from tonewood.settings import ModelSettings, Normalization
from tonewood.utils.atomic_write import atomic_path, remove_stale_temporaries
from tonewood.utils.disk_array import DiskArray

_CACHE_VERSION = 1
_CACHE_SUFFIX = ".take"
_MAX_CACHE_BYTES = 20 * 2**30


class CachedFeatures(NamedTuple):
    """All that is kept of one recording.

    Parameters
    ----------
    digest : str
        SHA-256 of the samples, as they were before any fix.
    seconds : float
    format : AudioFormat
    features : CompactFeatures
    traces : RecordingQuality
    spectra : array [window, row]
        As `scoring.audit.long_term` makes them.
    """

    digest: str
    seconds: float
    format: AudioFormat
    features: CompactFeatures
    traces: RecordingQuality
    spectra: NDArray[Any]


class ExtractedFeatures(NamedTuple):
    """All that is kept of one recording, just made, what grows with its length on disk.

    Parameters
    ----------
    digest, seconds, format, traces, spectra
        As of `CachedFeatures`.
    rows_db : DiskArray [row, frame]
    long_db : DiskArray [pitch, long frame]
    """

    digest: str
    seconds: float
    format: AudioFormat
    traces: RecordingQuality
    spectra: NDArray[Any]
    rows_db: DiskArray
    long_db: DiskArray

    def to_memory(self) -> CachedFeatures:
        """All of it in memory."""
        analysis = CompactFeatures(*(it.read(0, it.frames) for it in (self.rows_db, self.long_db)))
        return CachedFeatures(
            self.digest,
            self.seconds,
            self.format,
            analysis.to_frame_major(),
            self.traces,
            self.spectra,
        )


@dataclass(frozen=True)
class FeatureCache:
    """Where entries are kept; nowhere, if no folder is given.

    Parameters
    ----------
    folder : Path, optional
    max_bytes : int
        What is kept after a run; entries that were not used for longest go first.
    """

    folder: Path | None = None
    max_bytes: int = _MAX_CACHE_BYTES

    @classmethod
    def for_user(cls) -> "FeatureCache":
        """The user's own: what `TONEWOOD_CACHE` names, else the system's place for such things."""
        named = os.environ.get("TONEWOOD_CACHE")
        return cls(Path(named) if named else user_cache_path("tonewood") / "takes")

    def get_or_extract(
        self,
        content_key: Callable[[], ContentKey],
        extract: Callable[[Path | None], ExtractedFeatures],
        key_parts: Sequence[str],
    ) -> CachedFeatures:
        """What is kept of a piece, or what `extract` makes of it, which is kept from now on.

        A folder that cannot be written to keeps nothing, and is no error.

        Parameters
        ----------
        extract : callable
            Is given the folder on whose disk there should be space, if any.
        key_parts : sequence of str
            What else decides the analysis.
        """
        if self.folder is None:
            return extract(None).to_memory()
        name = hashlib.sha256(json.dumps([_CACHE_VERSION, *content_key(), *key_parts]).encode()).hexdigest()
        path = self.folder / f"{name}{_CACHE_SUFFIX}"
        kept = _read_cache_entry(path)
        if kept is not None:
            return kept
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            made = extract(self.folder)
        except (OSError, OutputError):
            return extract(None).to_memory()
        try:
            _write_cache_entry(path, made)
        except (OSError, OutputError):
            return made.to_memory()
        return _read_cache_entry(path) or made.to_memory()

    @contextmanager
    def enforce_size(self) -> Iterator[None]:
        """Keep the folder within its size when the block ends, and free of what was left in it."""
        try:
            if self.folder is not None:
                remove_stale_temporaries([self.folder])
            yield
        finally:
            if self.folder is not None:
                self._remove_oldest(self.folder)

    def _remove_oldest(self, folder: Path) -> None:
        found = []
        for path in folder.glob(f"*{_CACHE_SUFFIX}"):
            try:
                status = path.stat()
            except OSError:
                continue  # another process was quicker
            found.append((status.st_mtime, status.st_size, path))
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left <= self.max_bytes:
                break
            path.unlink(missing_ok=True)  # what maps it keeps it
            left -= size


NO_CACHE = FeatureCache()


def _write_cache_entry(path: Path, extracted: ExtractedFeatures) -> None:
    """Write an entry in place, what is long piece by piece.

    `save_file` of safetensors writes another file and renames it: without the lock that tells a
    sweep that somebody works on it, and left behind by a process that is killed.
    """
    traces = extracted.traces._asdict()
    arrays = {name: traces.pop(name) for name in [*traces] if isinstance(traces[name], np.ndarray)}
    arrays["spectra"] = extracted.spectra
    tracks = {"rows_db": extracted.rows_db, "long_db": extracted.long_db}
    told = [
        extracted.digest,
        extracted.seconds,
        [extracted.format.container, extracted.format.subtype, extracted.format.endian],
    ]
    header: dict[str, Any] = {"__metadata__": {"told": json.dumps([*told, traces])}}
    end = 0
    # Doubles first, then singles: each lies where its own size divides.
    shapes = [(name, "F64", array.shape) for name, array in arrays.items()]
    shapes += [(name, "F32", (track.frames, track.rows)) for name, track in tracks.items()]
    for name, kind, shape in shapes:
        first, end = end, end + math.prod(shape) * int(kind[1:]) // 8
        header[name] = {"dtype": kind, "shape": [*shape], "data_offsets": [first, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path, overwrite=True) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, dtype="<f8").data)
        for track in tracks.values():
            track.copy_to(file)


def _read_cache_entry(path: Path) -> CachedFeatures | None:
    """An entry, its arrays mapped; None if there is none, or it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            digest, seconds, form, traces = json.loads(file.metadata()["told"])
            arrays: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        os.utime(path)
        analysis = CompactFeatures(arrays.pop("rows_db").T, arrays.pop("long_db").T)
        spectra = arrays.pop("spectra").numpy()
        known: dict[str, Any] = {name: it.numpy() for name, it in arrays.items()}
        for name, it in traces.items():
            known[name] = tuple(it) if isinstance(it, list) else it
        return CachedFeatures(
            digest, seconds, AudioFormat(*form), analysis, RecordingQuality(**known), spectra
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


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

    def __init__(
        self, reader: ExcerptReader, summary: RecordingSummary, normalization: Normalization
    ) -> None:
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


def open_recording(
    item: RecordingRef, normalization: Normalization | None = None
) -> ExcerptReader | NormalizedReader:
    """A recording, or the piece of one that a list names, with its fix applied.

    Raises
    ------
    AudioError
        It cannot be used.
    """
    plain = ExcerptReader(item)
    return (
        plain if normalization is None else NormalizedReader(plain, summarize_recording(plain), normalization)
    )


def summarize_recording(
    reader: ExcerptReader | NormalizedReader,
    on_block: BlockConsumer | None = None,
    digest: str | None = None,
) -> RecordingSummary:
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
    item: RecordingRef,
    settings: ModelSettings,
    normalization: Normalization | None,
    folder: Path | None = None,
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
        known = summarize_recording(
            NormalizedReader(plain, before, normalization), analysing.push, before.digest
        )
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
            power = self._power.read(
                span.padded_start // PITCH_HOP_RATIO, -(-span.padded_stop // PITCH_HOP_RATIO)
            )
            made = remove_envelope(power, self._loudest, span.padded_stop - span.padded_start)
            fine.append(made[:, span.core][:, ::PITCH_HOP_RATIO])
        return fine
