"""Recordings in memory, samples and rates as callers pass them, resampling, and audio files in a folder."""

import hashlib
import operator
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr
from numpy.typing import ArrayLike

from tonewood.audio_io import libsndfile
from tonewood.audio_io.ffmpeg import FFMPEG_SUFFIXES, PYAV_REMEDY, is_pyav_installed
from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES, AudioFormat, readable_suffixes
from tonewood.errors import CallError, FolderError, printable
from tonewood.utils.arrays import Samples, to_mono
from tonewood.utils.files import open_regular


@dataclass(frozen=True)
class AudioInfo:
    """Header of a recording."""

    rate: int  # samples per second
    channels: int
    frames: int | None  # declared samples per channel; None if the header declares none
    format: AudioFormat
    tracks: int = 1  # audio tracks; all other fields describe the first
    warning: str | None = None  # what is wrong with the header, if the file can be read

    @property
    def duration(self) -> float | None:
        """Declared duration in seconds."""
        return None if self.frames is None else self.frames / self.rate


@dataclass(frozen=True, eq=False)
class Recording:
    """Recording in memory."""

    # (channels, samples); full scale is ±1. Integers of up to 24 bits and 32-bit floats are exact; 32-bit
    # integers and 64-bit floats are rounded to the 24 significant bits of a float32.
    samples: Samples
    rate: int  # samples per second
    format: AudioFormat  # format of the file at `path`
    path: Path

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.samples.shape[0])

    @property
    def duration(self) -> float:
        """Duration in seconds."""
        return float(self.samples.shape[1] / self.rate)

    @property
    def clipped(self) -> bool:
        """True if a channel stays at full scale; see `is_clipped`."""
        return is_clipped(self.samples, self.format)

    def at_rate(self, rate: int) -> Samples:
        """Mean of the channels at another rate (Hz), (samples,); see :func:`resample`."""
        return resample(to_mono(self.samples), self.rate, rate)


def resample(samples: Samples, from_rate: int, to_rate: int) -> Samples:
    """Resample along the last axis with soxr's HQ filter (linear phase, aliases at -140 dB).

    Parameters
    ----------
    samples : ndarray, (samples,) or (channels, samples)

    Returns
    -------
    ndarray of float32
        Same layout; `samples · to_rate / from_rate` long, rounded. Time zero stays in place.
    """
    if from_rate == to_rate:
        return samples.astype(np.float32)
    # soxr expects (samples,) or (samples, channels).
    resampled = soxr.resample(np.ascontiguousarray(samples.T), from_rate, to_rate, quality="HQ")
    return np.ascontiguousarray(np.asarray(resampled, dtype=np.float32).T)


class Resampler:
    """Streaming version of `resample` for a waveform (samples,)."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._stream = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")

    def push(self, block: Samples) -> Samples:
        """Resample a block; the filter's delay keeps back the last samples for the next call."""
        if self._stream is None:
            return block
        return np.asarray(self._stream.resample_chunk(block), dtype=np.float32)

    def flush(self) -> Samples:
        """Return the remaining samples; nothing can be pushed afterwards."""
        empty = np.zeros(0, np.float32)
        if self._stream is None:
            return empty
        return np.asarray(self._stream.resample_chunk(empty, last=True), dtype=np.float32)


def resample_blocks(blocks: Iterable[Samples], from_rate: int, to_rate: int) -> Iterator[Samples]:
    """Resample a waveform that comes in blocks (samples,)."""
    resampler = Resampler(from_rate, to_rate)
    for block in blocks:
        yield resampler.push(block)
    yield resampler.flush()


def is_clipped(samples: Samples, audio_format: AudioFormat) -> bool:
    """Return True if a channel of samples (channels, samples) stays at full scale.

    That means three samples in a row on the same side; one or two are an ordinary peak. Full scale is the
    largest positive integer of the format (limiters clip both sides to it), or 1 for floats and lossy codecs.
    """
    top = full_scale(audio_format)
    if max(samples.max(initial=0), -samples.min(initial=0)) < top:  # much faster, and the usual case
        return False
    return any(
        bool(np.any(at_top[:, :-2] & at_top[:, 1:-1] & at_top[:, 2:]))
        for at_top in (samples >= top, samples <= -top)
    )


def full_scale(audio_format: AudioFormat) -> np.float32:
    """Return the largest sample of a format."""
    bits = audio_format.valid_bits
    # For 32 bits this rounds to 1 in float32, as the decoded samples do.
    return np.float32(1.0 if bits is None else 1.0 - 2.0 ** (1 - bits))


class MixMeter:
    """Level of the mean of the channels relative to the channels; all analysis is of that mean.

    Channels of opposite polarity cancel in it, as a plug with swapped wires makes them.
    """

    _CANCELLED_DB, _WEAK_DB = -60.0, -20.0

    def __init__(self) -> None:
        self._mix_energy = self._energy = 0.0

    def push(self, block: Samples) -> None:
        """Add samples (channels, samples)."""
        if len(block) > 1:
            mix = block.sum(axis=0) / np.float32(len(block))
            self._mix_energy += float(np.vdot(mix, mix))
            self._energy += float(np.vdot(block, block)) / len(block)

    @property
    def relative_db(self) -> float:
        """Level of the mix relative to the mean power of the channels, dB; 0 for one channel."""
        if self._energy == 0:
            return 0.0
        return float(10 * np.log10(max(self._mix_energy / self._energy, 1e-30)))

    @property
    def is_cancelled(self) -> bool:
        """True if nothing is left to analyse."""
        return self.relative_db < self._CANCELLED_DB

    @property
    def warning(self) -> str | None:
        """Warning for channels that nearly cancel."""
        if self.relative_db > self._WEAK_DB:
            return None
        return (
            f"the channels nearly cancel ({self.relative_db:.0f} dB) when they are mixed to one for the "
            "analysis: invert the polarity of one"
        )


def find_audio_files(folder: str | os.PathLike[str]) -> list[Path]:
    """List the audio files below a folder by their suffixes, sorted by path.

    Formats that need PyAV are listed if it is installed. Hidden files and folders are skipped. Symbolic
    links are followed, but each target is listed once.

    FolderError if the folder does not exist, it or one below it cannot be read, or it contains no audio.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise FolderError(f"{printable(folder)} {problem}; a folder of recordings is needed: name one")
    readable = readable_suffixes()
    paths = [path for path in _walk_recordings(folder) if path.suffix.lower() in readable]
    if not paths:
        raise _no_audio_error(folder, [path.name for path in _walk_recordings(folder)])
    return sorted(paths)  # os.walk lists the files of a folder before those of its sub-folders


class LeftOutRecording(NamedTuple):
    """Recording below a folder that is not read, and the reason."""

    path: str | Path
    reason: str


def find_left_out_recordings(folder: str | os.PathLike[str]) -> list[LeftOutRecording]:
    """List the recordings below a folder that `find_audio_files` does not list, because PyAV is missing."""
    if is_pyav_installed():
        return []
    left_out = [path for path in _walk_recordings(Path(folder)) if path.suffix.lower() in FFMPEG_SUFFIXES]
    return [LeftOutRecording(path, f"needs {PYAV_REMEDY}") for path in sorted(left_out)]


def _walk_recordings(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder with a suffix of audio, each target of links once."""
    # Links may form loops, and a recording that is listed twice could be on both sides of a split.
    visited = {os.path.realpath(folder)}

    def is_new(root: str, name: str) -> bool:
        real = os.path.realpath(Path(root) / name)
        new = real not in visited
        visited.add(real)
        return new

    def refuse(error: OSError) -> None:
        raise FolderError(
            f"{printable(error.filename)} cannot be read; every folder below {printable(folder)} is "
            "needed: change its permissions or move it away"
        ) from error

    # `folders` is changed in place: os.walk then visits in a fixed order, and skips removed folders.
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in sorted(folders) if name[0] != "." and is_new(root, name)]
        for name in sorted(files):
            has_audio_suffix = Path(name).suffix.lower() in WRITABLE_SUFFIXES | FFMPEG_SUFFIXES
            if has_audio_suffix and not name.startswith(".") and is_new(root, name):
                yield Path(root) / name


def _no_audio_error(folder: Path, needs_pyav: list[str]) -> FolderError:
    """Return an error that names the missing package if it would have helped, else the formats."""
    if needs_pyav:
        return FolderError(
            f"{printable(folder)} contains only recordings such as {printable(min(needs_pyav))}, which "
            f"need {PYAV_REMEDY}"
        )
    formats = " ".join(sorted(readable_suffixes()))
    return FolderError(f"no audio file below {printable(folder)}; {formats} are read: add some")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes; AudioError if it cannot be read."""
    try:
        with open_regular(Path(path)) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise libsndfile.read_error(Path(path), error) from error


# Full scale of integer samples, and their zero.
_INTEGER_RANGES = {"int8": (128, 0), "uint8": (128, 128), "int16": (32_768, 0), "int32": (2**31, 0)}


def to_float_samples(samples: ArrayLike) -> Samples:
    """Return samples as float32 with full scale ±1; integers are scaled by their type, as in files.

    Takes arrays, nested lists and tensors of torch, on any device and with a gradient. CallError if the
    values are not samples: booleans, complex numbers, text, other integers, or a ragged list.
    """
    array = _to_array(samples)
    if np.ma.isMaskedArray(array) and np.ma.getmaskarray(array).any():
        raise CallError("samples are masked: fill the masked values first")
    if scale := _INTEGER_RANGES.get(array.dtype.name):
        full, zero = scale
        return np.asarray((array.astype(np.float64) - zero) / full, dtype=np.float32)
    if array.dtype.kind not in "fO" or (array.dtype.kind == "O" and not _has_numbers(array)):
        raise CallError(
            f"samples are {array.dtype.name}: give floats with full scale 1, or int16, int32, int8 or uint8"
        )
    return np.asarray(array, dtype=np.float32)


def _to_array(samples: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401 - of any type
    if hasattr(samples, "detach"):  # a tensor of torch, which NumPy refuses with a gradient or on a GPU
        samples = samples.detach().cpu()
        samples = samples.float() if samples.dtype.is_floating_point else samples
    try:
        array = samples if np.ma.isMaskedArray(samples) else np.asarray(samples)
    except (TypeError, ValueError) as error:
        raise CallError(f"samples cannot be used as an array ({error}): give (channels, samples)") from None
    assert isinstance(array, np.ndarray)
    return array


def _has_numbers(array: np.ndarray[Any, Any]) -> bool:
    return all(isinstance(value, float | np.floating) for value in array.flat)


def to_whole_rate(rate: Any, low: int, high: int) -> int:  # noqa: ANN401 - of any type
    """Return a sample rate in Hz as an int; CallError if it is not a whole number from `low` to `high`."""
    try:
        if isinstance(rate, bool | np.bool_):
            raise TypeError
        value = rate.item() if hasattr(rate, "item") else rate
        whole = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
    except (TypeError, ValueError):
        raise CallError(f"rate is {rate!r}: give a whole number of Hz, such as 44100") from None
    if not low <= whole <= high:
        raise CallError(f"rate is {whole} Hz: give {low} to {high} Hz")
    return whole
