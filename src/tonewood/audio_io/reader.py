"""Recordings: read and write them.

Every way in which a file can disappoint ends in one clear line (:class:`AudioError`,
:class:`OutputError`); nothing of libsndfile's shows.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from tonewood.audio_io import libsndfile, tags
from tonewood.audio_io.ffmpeg import MediaFile
from tonewood.audio_io.headers import UNKNOWN_LENGTH
from tonewood.audio_io.libsndfile import WRITABLE_SUBTYPES, AudioFormat, why_unsupported
from tonewood.audio_io.recording import (
    AudioArray,
    AudioInfo,
    Recording,
    Resampler,
    file_sha256,
    find_audio_files,
    is_clipped,
    resample,
    resample_blocks,
    to_mono,
)
from tonewood.errors import AudioError, CallError, OutputError, printable
from tonewood.utils.atomic_write import atomic_path, disk_full_error, temporary_file

__all__ = [
    "AudioFormat",
    "AudioInfo",
    "AudioReader",
    "Recording",
    "Resampler",
    "file_sha256",
    "find_audio_files",
    "probe_audio",
    "read_recording",
    "resample",
    "resample_blocks",
    "to_mono",
    "write_recording",
    "write_recording_blocks",
]  # fmt: skip

MAX_CHANNELS = 8
MIN_RECORDING_SECONDS = 0.25
MIN_RATE, MAX_RATE = 4_000, 768_000
SILENCE_PEAK = 1e-5  # peak, -100 dB re full scale: below the last bit of 16


def probe_audio(path: str | os.PathLike[str], *, max_channels: int = MAX_CHANNELS) -> AudioInfo:
    """Read a recording's header, without decoding it.

    Raises
    ------
    AudioError
        If the file is missing, empty, unreadable, no audio, or of a rate or number of channels
        out of range. What only decoding can show (silence, a cut-off end) is left to `read`.
    """
    path = Path(path)
    with libsndfile.open_audio(path) as file:
        return _audio_info(path, file, max_channels)


def read_recording(
    path: str | os.PathLike[str],
    *,
    max_channels: int = MAX_CHANNELS,
    min_seconds: float = MIN_RECORDING_SECONDS,
) -> Recording:
    """Read a recording, or say in one line why it cannot be used; arguments as of `Stream`.

    Raises
    ------
    AudioError
        As `probe_audio` and `Stream.blocks`.
    """
    stream = AudioReader(path, max_channels=max_channels, min_seconds=min_seconds)
    blocks = deque(stream.blocks())
    samples = np.empty((stream.channels, sum(it.shape[1] for it in blocks)), np.float32)
    at = 0
    while blocks:  # let go of each block once copied: half the peak memory
        block = blocks.popleft()
        samples[:, at : at + block.shape[1]] = block
        at += block.shape[1]
    return Recording(samples, stream.rate, stream.format, stream.path)


class AudioReader:
    """A recording in a file, decoded block by block.

    Parameters
    ----------
    path : path
        A file in one of the formats of :data:`tonewood.audio_io.libsndfile.WRITABLE`, or of those that
        :mod:`tonewood.audio_io.ffmpeg` reads.
    max_channels : int
        Largest number of channels accepted.
    min_seconds : float
        Shortest duration accepted, in seconds.

    Attributes
    ----------
    rate, channels : int
    format : AudioFormat
    tracks : int
        Audio tracks in the file; the first is what is read.
    clipped : bool
        Whether some channel stays at full scale in what was decoded so far; see
        `recording.is_clipped`.

    Raises
    ------
    AudioError
        As `probe_audio`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_channels: int = MAX_CHANNELS,
        min_seconds: float = MIN_RECORDING_SECONDS,
    ) -> None:
        self.path, self._min_seconds = Path(path), min_seconds
        self._info = probe_audio(path, max_channels=max_channels)
        self.rate, self.channels = self._info.rate, self._info.channels
        self.format, self.tracks = self._info.format, self._info.tracks
        self.clipped = False

    def blocks(self) -> Iterator[AudioArray]:
        """Decode from the start, ``(channels, samples)`` at a time.

        Raises
        ------
        AudioError
            Where it shows: samples are no finite numbers. At the end, if the file holds no
            samples or fewer than its header promises, is shorter than `min_seconds`, silent (no
            sample above -100 dB re full scale) or constant. Wavs and flacs that were piped, and so
            state no length, are read to their end.
        """
        low = np.full(self.channels, np.inf, np.float32)
        high, total = -low, 0
        tail = np.zeros((self.channels, 0), np.float32)
        with libsndfile.open_audio(self.path) as file:
            for block in libsndfile.decode_file(self.path, file):
                # Extremes are NaN or infinite just if some sample is.
                least, most = block.min(axis=1), block.max(axis=1)
                if not (np.isfinite(least).all() and np.isfinite(most).all()):
                    self._raise_not_finite(block, total)
                low, high = np.minimum(low, least), np.maximum(high, most)
                joined = np.concatenate([tail, block], axis=1)
                self.clipped = self.clipped or is_clipped(joined, self.format)
                tail = joined[:, -2:]
                total += block.shape[1]
                yield block
        _check_duration(self.path, self._info, total, self._min_seconds)
        _check_not_silent(self.path, low, high)

    def _raise_not_finite(self, block: AudioArray, samples_before: int) -> None:
        first = (samples_before + int(np.argmin(np.isfinite(block).all(axis=0)))) / self.rate
        raise AudioError(
            f"{printable(self.path)} has samples that are no finite numbers, the first at "
            f"{first:.2f} s: export it again"
        )


def write_recording(
    path: str | os.PathLike[str],
    samples: npt.NDArray[np.floating[Any]],
    rate: int,
    format: AudioFormat,
    *,
    overwrite: bool = False,
    tags_from: Path | None = None,
) -> None:
    """Write a recording, whole or not at all.

    Integers are rounded to the nearest (ties to even) and clipped to full scale, without
    dither: samples that came from such a file go back bit for bit, and a dithered copy of
    unchanged audio would not. Floats are kept as they are. Lossy codecs run at their best
    quality. The file is decoded once before it takes its name: libsndfile reports some full
    disks only by silence.

    Parameters
    ----------
    path : path
        Where to; its suffix is not looked at (see :meth:`AudioFormat.for_path`).
    samples : ndarray, (channels, samples)
        Full scale is ±1.
    rate : int
        Samples per second.
    format : AudioFormat
        Container and encoding.
    overwrite : bool
        Whether an existing file may be replaced.
    tags_from : Path, optional
        The recording that it was made from, whose tags, cover and cue points go along.

    Raises
    ------
    OutputError
        If the format cannot hold such audio, samples are not finite, or as
        :func:`tonewood.utils.atomic_write.atomic_path`.
    CallError
        If `samples` is not two-dimensional and non-empty.
    """
    if samples.ndim != 2 or samples.size == 0:
        raise CallError(
            f"samples have the shape {samples.shape}; (channels, samples) is needed, none of them "
            "zero: reshape them"
        )
    write_recording_blocks(
        path, [samples], samples.shape, rate, format, overwrite=overwrite, tags_from=tags_from
    )


def write_recording_blocks(
    path: str | os.PathLike[str],
    blocks: Iterable[npt.NDArray[np.floating[Any]]],
    shape: tuple[int, ...],
    rate: int,
    format: AudioFormat,
    *,
    overwrite: bool = False,
    before_publish: Callable[[Path], None] = lambda _: None,
    tags_from: Path | None = None,
) -> None:
    """`write` for a recording of a known shape (channels, samples) that comes in blocks.

    Parameters
    ----------
    before_publish : callable
        Called with the temporary file once it is whole, before it takes its name.
    """
    channels, frames = shape
    if why := why_unsupported(format, frames, channels, rate):
        raise OutputError(f"{printable(path)} {why}: name an output in .w64, .wav or .flac")
    with atomic_path(path, overwrite) as temporary:
        try:
            libsndfile.encode_blocks(temporary, _check_finite_blocks(path, blocks), channels, rate, format)
        except (soundfile.SoundFileError, AssertionError) as error:
            # soundfile asserts that all was written; 2 is libsndfile's 'system error'.
            if getattr(error, "code", 2) == 2:
                raise disk_full_error(path) from error
            raise OutputError(
                f"{printable(path)} cannot be written: {format.container} {format.subtype} refuses "
                f"{channels} channels at {rate} Hz: name an output in .w64, .wav or .flac"
            ) from error
        if tags_from is not None:
            _add_tags(tags_from, temporary, (channels, frames), rate, format)
        try:
            kept = libsndfile.count_samples(temporary)
        except soundfile.SoundFileError as error:
            raise disk_full_error(path) from error
        if kept != frames:
            raise disk_full_error(path)
        before_publish(temporary)


def _add_tags(tags_from: Path, output: Path, shape: tuple[int, int], rate: int, format: AudioFormat) -> None:
    """Put the tags of a recording into an output, if a few samples with them can be read."""
    there = probe_audio(tags_from)
    placed = (there.rate, there.frames) == (rate, shape[1])
    few = np.zeros((shape[0], rate), np.float32)
    with temporary_file(output.parent, output.suffix) as trial:
        try:
            libsndfile.encode_blocks(trial, [few], shape[0], rate, format)
            _copy_tags_or_raise(tags_from, trial, placed)
            holds = libsndfile.count_samples(trial) == rate
        except (soundfile.SoundFileError, AssertionError):  # as in `write_blocks`
            holds = False
    if holds:
        _copy_tags_or_raise(tags_from, output, placed)


def _copy_tags_or_raise(tags_from: Path, output: Path, keep_cue_points: bool) -> None:
    try:
        tags.copy_tags(tags_from, output, keep_cue_points=keep_cue_points)
    except OSError as error:
        if error.filename == str(tags_from):  # it has vanished
            raise libsndfile.read_error(tags_from, error) from error
        raise


def _check_finite_blocks(
    path: str | os.PathLike[str], blocks: Iterable[npt.NDArray[np.floating[Any]]]
) -> Iterator[npt.NDArray[np.floating[Any]]]:
    for block in blocks:
        if not np.isfinite(block).all():
            raise OutputError(
                f"{printable(path)} was not written: some samples are not finite numbers: replace them first"
            )
        yield block


def _audio_info(path: Path, file: libsndfile.SequentialFile | MediaFile, max_channels: int) -> AudioInfo:
    form = AudioFormat(file.format, file.subtype, file.endian)
    if isinstance(file, libsndfile.SequentialFile) and form.container not in WRITABLE_SUBTYPES:
        raise AudioError(
            f"{printable(path)} is a {form.container} file, which is not read here: "
            "convert it to .wav or .flac"
        )
    if not MIN_RATE <= file.samplerate <= MAX_RATE:
        raise AudioError(
            f"{printable(path)} has a sample rate of {file.samplerate} Hz; {MIN_RATE} to {MAX_RATE} Hz "
            "can be used: check its header or resample it"
        )
    if file.channels > max_channels:
        raise AudioError(
            f"{printable(path)} has {file.channels} channels; {max_channels} can be used: mix it down"
        )
    frames = None if file.frames == UNKNOWN_LENGTH else int(file.frames)
    tracks = file.tracks if isinstance(file, MediaFile) else 1
    return AudioInfo(int(file.samplerate), int(file.channels), frames, form, tracks)


def _check_duration(path: Path, info: AudioInfo, frames: int, min_seconds: float) -> None:
    if frames == 0:
        raise AudioError(f"{printable(path)} holds no samples: record or export it again")
    if frames < min_seconds * info.rate:
        raise AudioError(
            f"{printable(path)} lasts {frames / info.rate:.2g} s; {min_seconds:g} s are needed: "
            "give a longer recording"
        )


def _check_not_silent(path: Path, low: AudioArray, high: AudioArray) -> None:
    peak = float(max(-low.min(), high.max()))
    if peak < SILENCE_PEAK:
        level = f"{20 * np.log10(peak):.0f}" if peak > 0 else "-inf"
        raise AudioError(
            f"{printable(path)} is silent: its peak is {level} dB re full scale; "
            f"{20 * np.log10(SILENCE_PEAK):.0f} dB are needed: check the take"
        )
    if (low == high).all():
        raise AudioError(
            f"{printable(path)} is constant ({high[0]:.3g} throughout, an offset without sound): "
            "check the take"
        )
