"""Extract the features of training recordings, and cache them on disk.

An entry of the cache is a safetensors file that is mapped into memory. Its name is a hash of everything
that decides its content: the file's bytes, the excerpt, the settings of the analysis and the normalization.
An entry that cannot be read is replaced.

A recording is read at least twice and never held in memory, because some values (rests, peak, largest power
at a pitch) depend on the whole recording and are known after the first pass.
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open

from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.recording import Resampler
from tonewood.data.manifest import ContentKey, ExcerptReader, RecordingRef
from tonewood.data.normalization import normalize_blocks
from tonewood.dsp.chunking import SEGMENT_FRAMES, Chunk, Rechunker, split_segments
from tonewood.dsp.features import (
    CONTEXT_FRAMES,
    N_PITCH_BINS,
    PITCH_HOP_RATIO,
    CompactFeatures,
    center_frequencies,
    compute_chunk_features,
    long_term_spectra,
    remove_envelope,
)
from tonewood.dsp.recording_quality import QualityFirstPass, RecordingQuality
from tonewood.errors import OutputError
from tonewood.settings import ModelSettings, Normalization
from tonewood.utils.arrays import DiskArray, Samples, to_mono
from tonewood.utils.files import atomic_path, remove_stale_temporaries

_CACHE_VERSION = 1  # increase it when the analysis changes
_CACHE_SUFFIX = ".take"
_MAX_CACHE_BYTES = 20 * 2**30


class CachedFeatures(NamedTuple):
    """Features of one recording, in memory or mapped into it."""

    digest: str  # SHA-256 of the samples before normalization
    seconds: float
    format: AudioFormat
    features: CompactFeatures
    traces: RecordingQuality
    spectra: NDArray[Any]  # [window, row]: long-term spectra; see `long_term_spectra`


class ExtractedFeatures(NamedTuple):
    """Features of one recording, as in `CachedFeatures`; long arrays are in temporary files."""

    digest: str
    seconds: float
    format: AudioFormat
    traces: RecordingQuality
    spectra: NDArray[Any]
    rows_db: DiskArray  # [row, frame]
    long_db: DiskArray  # [pitch, long frame]

    def to_memory(self) -> CachedFeatures:
        """Load all features into memory."""
        features = CompactFeatures(*(array.read(0, array.frames) for array in (self.rows_db, self.long_db)))
        return CachedFeatures(
            self.digest, self.seconds, self.format, features.to_frame_major(), self.traces, self.spectra
        )


@dataclass(frozen=True)
class FeatureCache:
    """Cache of features in a folder; without a folder nothing is cached.

    `max_bytes` is enforced after a run, when the least recently used entries are removed.
    """

    folder: Path | None = None
    max_bytes: int = _MAX_CACHE_BYTES

    @classmethod
    def for_user(cls) -> "FeatureCache":
        """Return the cache in the folder of `TONEWOOD_CACHE`, or in the user's cache folder."""
        folder = os.environ.get("TONEWOOD_CACHE")
        return cls(Path(folder) if folder else user_cache_path("tonewood") / "takes")

    def get_or_extract(
        self,
        content_key: Callable[[], ContentKey],
        extract: Callable[[Path | None], ExtractedFeatures],
        key_parts: Sequence[str],
    ) -> CachedFeatures:
        """Return the cached features of a recording, or extract and cache them.

        Nothing is cached in a folder that cannot be written to; that is not an error.

        Parameters
        ----------
        extract : callable
            Its argument is the folder for temporary files, if any.
        key_parts : sequence of str
            Everything besides the content that decides the features.
        """
        if self.folder is None:
            return extract(None).to_memory()
        name = hashlib.sha256(json.dumps([_CACHE_VERSION, *content_key(), *key_parts]).encode()).hexdigest()
        path = self.folder / f"{name}{_CACHE_SUFFIX}"
        if (cached := _read_cache_entry(path)) is not None:
            return cached
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            extracted = extract(self.folder)
        except (OSError, OutputError):  # the disk is full or read-only: use the temporary folder
            return extract(None).to_memory()
        try:
            _write_cache_entry(path, extracted)
        except (OSError, OutputError):
            return extracted.to_memory()
        # Mapped, because a mapped entry can leave memory again; the extracted copy is freed.
        return _read_cache_entry(path) or extracted.to_memory()

    @contextmanager
    def enforce_size(self) -> Iterator[None]:
        """Remove stale temporaries on entry, and the oldest entries above the limit on exit."""
        try:
            if self.folder is not None:
                remove_stale_temporaries([self.folder])
            yield
        finally:
            if self.folder is not None:
                self._remove_oldest(self.folder)

    def _remove_oldest(self, folder: Path) -> None:
        entries = []
        for path in folder.glob(f"*{_CACHE_SUFFIX}"):
            try:
                status = path.stat()
            except OSError:
                continue  # removed by another process
            entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)  # a process that has mapped it keeps its content
            total -= size


NO_CACHE = FeatureCache()


def _write_cache_entry(path: Path, extracted: ExtractedFeatures) -> None:
    """Write an entry; long arrays are copied in blocks."""
    # Not by safetensors' `save_file`: its temporary file has no lock against removal as stale, and remains
    # when the process is killed.
    quality = extracted.traces._asdict()
    arrays = {name: quality.pop(name) for name in [*quality] if isinstance(quality[name], np.ndarray)}
    arrays["spectra"] = extracted.spectra
    disk_arrays = {"rows_db": extracted.rows_db, "long_db": extracted.long_db}
    metadata = [extracted.digest, extracted.seconds, astuple(extracted.format), quality]
    header: dict[str, Any] = {"__metadata__": {"told": json.dumps(metadata)}}
    # Double precision comes before single precision, so that each array is aligned to its item size.
    shapes = [(name, "F64", array.shape) for name, array in arrays.items()]
    shapes += [(name, "F32", (array.frames, array.rows)) for name, array in disk_arrays.items()]
    stop = 0
    for name, dtype, shape in shapes:
        start, stop = stop, stop + math.prod(shape) * int(dtype[1:]) // 8
        header[name] = {"dtype": dtype, "shape": [*shape], "data_offsets": [start, stop]}
    text = json.dumps(header).encode()
    # The header is padded to 8 bytes, which aligns the data behind it.
    text += b" " * (-len(text) % 8)
    with atomic_path(path, overwrite=True) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, dtype="<f8").data)
        for disk_array in disk_arrays.values():
            disk_array.copy_to(file)


def _read_cache_entry(path: Path) -> CachedFeatures | None:
    """Map an entry into memory; return None if it does not exist or is damaged."""
    try:
        # torch maps a file and closes it. NumPy's own mapping keeps it open, and a folder may have more
        # recordings than a process may open files; safetensors' arrays for NumPy are copies.
        with safe_open(path, "pt") as file:
            digest, seconds, audio_format, quality = json.loads(file.metadata()["told"])
            arrays: dict[str, NDArray[Any]] = {
                name: file.get_tensor(name).numpy()
                for name in file.keys()  # noqa: SIM118 - safe_open is not a mapping
            }
        os.utime(path)  # marks the entry as used, for `_remove_oldest`
        features = CompactFeatures(arrays.pop("rows_db").T, arrays.pop("long_db").T)
        spectra = arrays.pop("spectra")
        fields: dict[str, Any] = {**arrays}
        for name, value in quality.items():
            fields[name] = tuple(value) if isinstance(value, list) else value
        return CachedFeatures(
            digest, seconds, AudioFormat(*audio_format), features, RecordingQuality(**fields), spectra
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


# --- Extraction

_EXTRACT_FRAMES = 2048  # a multiple of `PITCH_HOP_RATIO`, so that every chunk starts on a long frame


class RecordingSummary(NamedTuple):
    """Digest of a recording's samples, and the recording's quality."""

    digest: str
    traces: RecordingQuality


class NormalizedReader:
    """Recording that is normalized each time it is read; `summary` is from before normalization."""

    def __init__(
        self, reader: ExcerptReader, summary: RecordingSummary, normalization: Normalization
    ) -> None:
        self._reader, self._summary, self._normalization = reader, summary, normalization
        self.rate, self.channels = reader.rate, reader.channels

    def blocks(self) -> Iterator[Samples]:
        """Yield normalized blocks (channels, samples)."""
        # The digest seeds the noise, which is then the same in every run, and independent of other
        # recordings and of the side.
        rng = np.random.default_rng(int(self._summary.digest[:16], 16))
        quality = self._summary.traces
        length = round(quality.seconds * self.rate)
        return normalize_blocks(self._reader.blocks(), length, self.rate, quality, self._normalization, rng)


def open_recording(
    item: RecordingRef, normalization: Normalization | None = None
) -> ExcerptReader | NormalizedReader:
    """Open a recording or an excerpt, with an optional normalization; AudioError if it cannot be used."""
    reader = ExcerptReader(item)
    if normalization is None:
        return reader
    return NormalizedReader(reader, summarize_recording(reader), normalization)


def summarize_recording(
    reader: ExcerptReader | NormalizedReader,
    on_block: Callable[[Samples], None] | None = None,
    digest: str | None = None,
) -> RecordingSummary:
    """Read a recording, call `on_block` once with every block, and return digest and quality.

    The digest is the SHA-256 of the samples, one channel after the other; a known one is not computed again.
    """
    hasher, channels = hashlib.sha256(), reader.channels

    def blocks_hashing(channel: int) -> Iterator[Samples]:
        for block in reader.blocks():
            if digest is None and channel < channels:
                hasher.update(np.ascontiguousarray(block[channel]).data)
            yield block

    # The quality needs two passes, which also hash the first two channels; each further one needs a pass.
    first_pass = QualityFirstPass(reader.rate, channels)
    for block in blocks_hashing(0):
        first_pass.push(block)
        if on_block is not None:
            on_block(block)
    second_pass = first_pass.second_pass()
    for block in blocks_hashing(1):
        second_pass.push(block)
    for channel in range(2, channels if digest is None else 2):
        for _ in blocks_hashing(channel):
            pass
    return RecordingSummary(digest or hasher.hexdigest(), second_pass.result())


def extract_features(
    item: RecordingRef,
    settings: ModelSettings,
    normalization: Normalization | None,
    folder: Path | None = None,
) -> ExtractedFeatures:
    """Decode, normalize and analyse a recording; temporary files go to `folder`."""
    reader = ExcerptReader(item)
    extractor = FeatureExtractor(reader.rate, settings, folder)
    if normalization is None:
        summary = summarize_recording(reader, extractor.push)
    else:
        before = summarize_recording(reader)
        normalized = NormalizedReader(reader, before, normalization)
        summary = summarize_recording(normalized, extractor.push, before.digest)
    return extractor.finish(summary, reader.format)


def extract_audit_features(item: RecordingRef, settings: ModelSettings) -> ExtractedFeatures:
    """Decode and analyse a recording for an audit, without the fine structure."""
    reader = ExcerptReader(item)
    extractor = FeatureExtractor(reader.rate, settings, with_pitches=False)
    return extractor.finish(summarize_recording(reader, extractor.push), reader.format)


class FeatureExtractor:
    """Streaming analysis of a recording: row levels, and the fine structure if `with_pitches`."""

    def __init__(
        self, rate: int, settings: ModelSettings, folder: Path | None = None, *, with_pitches: bool = True
    ) -> None:
        self._settings, self._folder, self._with_pitches = settings, folder, with_pitches
        self._bands, self._spectrum = settings.scorer.bands, settings.spectrum
        self._rows = DiskArray(len(center_frequencies(self._bands, self._spectrum)), folder)
        self._power, self._max_power = DiskArray(N_PITCH_BINS, folder), 0.0
        self._resampler = Resampler(rate, self._spectrum.rate)
        hop = self._spectrum.hop
        self._rechunker = Rechunker(_EXTRACT_FRAMES * hop, CONTEXT_FRAMES * hop)

    def push(self, block: Samples) -> None:
        """Analyse more samples (channels, samples)."""
        self._analyse_chunks(self._rechunker.push(self._resampler.push(to_mono(block))))

    def finish(self, summary: RecordingSummary, audio_format: AudioFormat) -> ExtractedFeatures:
        """Return all features; nothing can be pushed afterwards."""
        self._analyse_chunks(self._rechunker.push(self._resampler.flush()))
        self._analyse_chunks(self._rechunker.flush())
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

    def _analyse_chunks(self, chunks: Iterator[Chunk]) -> None:
        for chunk in chunks:
            rows, power = compute_chunk_features(
                chunk, self._bands, self._spectrum, with_pitch=self._with_pitches
            )
            self._rows.append(rows)
            if power.shape[1]:
                self._power.append(power)
                self._max_power = max(self._max_power, float(power.max()))

    def _fine_structure(self) -> DiskArray:
        """Return the fine structure at every long frame, relative to the recording's largest power."""
        fine = DiskArray(N_PITCH_BINS, self._folder)
        if not self._with_pitches:
            return fine
        # The margin covers a missing last long frame, which repeats the one before it.
        for segment in split_segments(self._rows.frames, SEGMENT_FRAMES, PITCH_HOP_RATIO):
            start, stop = segment.padded_start, segment.padded_stop
            power = self._power.read(start // PITCH_HOP_RATIO, -(-stop // PITCH_HOP_RATIO))
            structure = remove_envelope(power, self._max_power, stop - start)
            fine.append(structure[:, segment.core][:, ::PITCH_HOP_RATIO])
        return fine
