"""A recording in memory: what a header says, samples with their rate, resampling.

Recordings are found below a folder, and named by their content.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from tonewood.audio_io import ffmpeg, libsndfile
from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES, AudioFormat, readable_suffixes
from tonewood.errors import FolderError, printable

AudioArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AudioInfo:
    """What a recording's header says.

    Parameters
    ----------
    rate : int
        Samples per second.
    channels : int
        Number of channels.
    frames : int or None
        Samples in each channel, as promised; None if not stated.
    format : AudioFormat
        Container and encoding.
    tracks : int
        Audio tracks, of which the first is meant.
    """

    rate: int
    channels: int
    frames: int | None
    format: AudioFormat
    tracks: int = 1

    @property
    def duration(self) -> float | None:
        """Promised duration in seconds."""
        return None if self.frames is None else self.frames / self.rate


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording in memory.

    Parameters
    ----------
    samples : ndarray of float32, (channels, samples)
        Full scale is ±1. Integers of up to 24 bits and 32-bit floats are exact; 32-bit integers
        and 64-bit floats are rounded to the 24 significant bits of a float32.
    rate : int
        Samples per second.
    format : AudioFormat
        How the file keeps them.
    path : Path
        Where they were read.
    """

    samples: AudioArray
    rate: int
    format: AudioFormat
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
        """Whether some channel stays at full scale; see `is_clipped`."""
        return is_clipped(self.samples, self.format)

    def mono(self) -> AudioArray:
        """Mean of the channels, ``(samples,)``."""
        return to_mono(self.samples)

    def at_rate(self, rate: int) -> AudioArray:
        """Mean of the channels at another rate (Hz), ``(samples,)``; see :func:`resample`."""
        return resample(self.mono(), self.rate, rate)


def to_mono(samples: AudioArray) -> AudioArray:
    """Mean of the channels, ``(samples,)``, of ``(channels, samples)``."""
    mean: AudioArray = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def resample(samples: AudioArray, from_rate: int, to_rate: int) -> AudioArray:
    """Resample along the last axis with soxr's HQ filter (linear phase, aliases at -140 dB).

    Parameters
    ----------
    samples : ndarray, (samples,) or (channels, samples)
        Audio at `from_rate`.
    from_rate, to_rate : int
        Samples per second.

    Returns
    -------
    ndarray of float32
        Same layout; ``samples · to_rate / from_rate`` long, rounded. Time zero stays in place.
    """
    if from_rate == to_rate:
        return samples.astype(np.float32)
    turned = soxr.resample(np.ascontiguousarray(samples.T), from_rate, to_rate, quality="HQ")
    return np.ascontiguousarray(np.asarray(turned, dtype=np.float32).T)


class Resampler:
    """`resample` for a waveform (samples,) that comes in blocks."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._stream = (
            None
            if from_rate == to_rate
            else soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")
        )

    def push(self, block: AudioArray) -> AudioArray:
        """What can be had so far of a block; later blocks bring the rest."""
        if self._stream is None:
            return block
        return np.asarray(self._stream.resample_chunk(block), dtype=np.float32)

    def flush(self) -> AudioArray:
        """What is left; nothing can be pushed after it."""
        nothing = np.zeros(0, np.float32)
        if self._stream is None:
            return nothing
        return np.asarray(self._stream.resample_chunk(nothing, last=True), dtype=np.float32)


def resample_blocks(blocks: Iterable[AudioArray], from_rate: int, to_rate: int) -> Iterator[AudioArray]:
    """All that `Resampler` makes of some blocks (samples,)."""
    resampler = Resampler(from_rate, to_rate)
    for block in blocks:
        yield resampler.push(block)
    yield resampler.flush()


def is_clipped(samples: AudioArray, audio_format: AudioFormat) -> bool:
    """Whether some channel of samples (channels, samples) stays at full scale.

    On one side, for three samples or more: one or two there are an ordinary peak. Full scale is
    the largest positive integer of the format (limiters clip both sides to it), or 1 for floats
    and codecs.
    """
    bits = audio_format.integer_bits
    # Seen through float32, which keeps 24 bits: 32-bit full scale reads as 1.
    top = np.float32(1.0 if bits is None else 1.0 - 2.0 ** (1 - bits))
    if max(samples.max(initial=0), -samples.min(initial=0)) < top:
        return False
    return any(
        bool(np.any(there[:, :-2] & there[:, 1:-1] & there[:, 2:]))
        for there in (samples >= top, samples <= -top)
    )


def find_audio_files(folder: str | os.PathLike[str]) -> list[Path]:
    """List every audio file below a folder, sorted by path, by suffix only.

    What needs PyAV is listed where that is installed.

    Hidden files and folders are skipped. Symbolic links are followed, but a folder or file that
    has been met is not listed again: links may form loops, and a take listed twice could fall
    into both halves of a split.

    Raises
    ------
    FolderError
        If there is no such folder, it (or one below it) cannot be read, or no audio is in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise FolderError(f"{printable(folder)} {kind}; a folder of recordings is needed: name one")
    met = {os.path.realpath(folder)}
    found: list[Path] = []
    needing: list[str] = []
    known = readable_suffixes()

    def refuse(error: OSError) -> None:
        raise FolderError(
            f"{printable(error.filename)} cannot be read; every folder below {printable(folder)} is "
            "needed: change its permissions or move it away"
        ) from error

    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [n for n in sorted(folders) if n[0] != "." and _is_new_path(root, n, met)]
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            if name.startswith(".") or suffix not in WRITABLE_SUFFIXES | ffmpeg.FFMPEG_SUFFIXES:
                continue
            if suffix not in known:
                needing.append(name)
            elif _is_new_path(root, name, met):
                found.append(Path(root) / name)
    if not found and needing:
        raise FolderError(
            f"{printable(folder)} holds only recordings such as {printable(min(needing))}, which need PyAV "
            "to be read: pip install '.[media]'"
        )
    if not found:
        kinds = " ".join(sorted(known))
        raise FolderError(f"no audio file below {printable(folder)}; {kinds} are looked for: add some")
    return sorted(found)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in pieces; AudioError if unreadable."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise libsndfile.read_error(Path(path), error) from error


def _is_new_path(root: str, name: str, seen: set[str]) -> bool:
    real = os.path.realpath(Path(root) / name)
    if real in seen:
        return False
    seen.add(real)
    return True
