"""Read and write recordings.

Every fault of a file raises :class:`AudioError` or :class:`OutputError` with one line, and never an
exception of libsndfile.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from tonewood.audio_io import headers, libsndfile
from tonewood.audio_io.ffmpeg import MediaFile
from tonewood.audio_io.headers import UNKNOWN_LENGTH
from tonewood.audio_io.libsndfile import WRITABLE_SUBTYPES, AudioFormat, why_unsupported
from tonewood.audio_io.recording import AudioInfo, MixMeter, Recording, full_scale, is_clipped
from tonewood.audio_io.tags import copy_tags
from tonewood.errors import AudioError, CallError, OutputError, printable
from tonewood.utils.arrays import Samples
from tonewood.utils.files import atomic_path, disk_full_error, temporary_file

MAX_CHANNELS = 8  # 7.1 surround
MIN_RECORDING_SECONDS = 0.25
MIN_RATE, MAX_RATE = 4_000, 768_000  # outside, a damaged header is more likely than audio
SILENCE_PEAK = 1e-5  # -100 dB re full scale: below the last bit of 16


def probe_audio(path: str | os.PathLike[str], *, max_channels: int = MAX_CHANNELS) -> AudioInfo:
    """Read a recording's header, without decoding it.

    Raises
    ------
    AudioError
        The file is missing, empty, unreadable or not audio, or its rate or number of channels is out of
        range. Faults that only decoding shows (silence, a cut-off end) are not detected.
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
    """Read a whole recording; see `AudioReader` and its `blocks` for parameters and errors."""
    reader = AudioReader(path, max_channels=max_channels, min_seconds=min_seconds)
    blocks = deque(reader.blocks())
    samples = np.empty((reader.channels, sum(block.shape[1] for block in blocks)), np.float32)
    start = 0
    while blocks:  # each block is freed once copied: half the peak memory of a concatenation
        block = blocks.popleft()
        samples[:, start : start + block.shape[1]] = block
        start += block.shape[1]
    return Recording(samples, reader.rate, reader.format, reader.path)


class AudioReader:
    """Recording in a file, decoded block by block.

    Parameters
    ----------
    path : path
        File in a format of :data:`tonewood.audio_io.libsndfile.WRITABLE_SUBTYPES`, or in one that
        :mod:`tonewood.audio_io.ffmpeg` reads.
    max_channels, min_seconds
        Largest number of channels and shortest duration that are accepted.

    Attributes
    ----------
    rate : int
        Samples per second.
    tracks : int
        Audio tracks in the file; only the first is read.
    clipped : bool
        True if a channel stays at full scale in the samples decoded so far; see `is_clipped`.

    Raises
    ------
    AudioError
        The same as for `probe_audio`.
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
        self.clipped, self._mix = False, MixMeter()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Faults of the file that do not prevent reading; complete once it was decoded."""
        tracks = f"the input has {self.tracks} audio tracks; the first was used" if self.tracks > 1 else None
        return tuple(filter(None, (self._info.warning, tracks, self._mix.warning)))

    @property
    def declared_seconds(self) -> float | None:
        """Duration that the header declares, in seconds; None if it declares none."""
        return self._info.duration

    def blocks(self) -> Iterator[Samples]:
        """Decode from the start; yield blocks (channels, samples).

        Raises
        ------
        AudioError
            At the first sample that is not a finite number. At the end, if the file has no samples or
            fewer than its header declares, is shorter than `min_seconds`, silent (peak below -100 dB re
            full scale) or constant, or its channels cancel each other. A .wav or .flac that was written to
            a pipe declares no length.
        """
        # Running extremes per channel detect silence and offsets without a second pass.
        low = np.full(self.channels, np.inf, np.float32)
        high, total = -low, 0
        tail, top, mix = np.zeros((self.channels, 0), np.float32), full_scale(self.format), MixMeter()
        with libsndfile.open_audio(self.path) as file:
            for block in libsndfile.decode_file(self.path, file):
                # The extremes are NaN or infinite if and only if some sample is.
                block_low, block_high = block.min(axis=1), block.max(axis=1)
                if not (np.isfinite(block_low).all() and np.isfinite(block_high).all()):
                    first = total + int(np.argmin(np.isfinite(block).all(axis=0)))
                    raise AudioError(
                        f"{printable(self.path)} has samples that are not finite numbers, the first at "
                        f"{first / self.rate:.2f} s: export it again"
                    )
                low, high = np.minimum(low, block_low), np.maximum(high, block_high)
                # Clipping takes three samples, which may lie on both sides of a block's border.
                if not self.clipped and max(block_high.max(), -block_low.min()) >= top:
                    self.clipped = is_clipped(np.concatenate([tail, block], axis=1), self.format)
                tail = np.concatenate([tail, block[:, -2:]], axis=1)[:, -2:]
                mix.push(block)
                total += block.shape[1]
                yield block
        check_duration(self.path, self._info, total, self._min_seconds)
        _check_not_silent(self.path, low, high)
        if mix.is_cancelled:
            raise AudioError(
                f"the channels of {printable(self.path)} cancel when they are mixed to one, which is what "
                "Tonewood analyses: invert the polarity of one channel"
            )
        self._mix = mix


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

    Integers are rounded to the nearest (ties to even) and clipped to full scale, without dither, so that
    samples from such a file are written back bit for bit. Floats are stored unchanged. Lossy codecs use
    their best quality.

    Parameters
    ----------
    path : path
        Output; its suffix does not matter (see :meth:`AudioFormat.for_path`).
    samples : ndarray, (channels, samples)
        Full scale is ±1.
    tags_from : Path, optional
        Recording whose tags, cover and cue points are copied.

    Raises
    ------
    OutputError
        The format cannot store such audio, a sample is not finite, or an error of
        :func:`tonewood.utils.files.atomic_path`.
    CallError
        `samples` is not two-dimensional, or empty.
    """
    if samples.ndim != 2 or samples.size == 0:
        raise CallError(
            f"samples have the shape {samples.shape}; it must be (channels, samples), both above 0: "
            "reshape them"
        )
    write_recording_blocks(
        path, [samples], samples.shape, rate, format, overwrite=overwrite, tags_from=tags_from
    )


def storable_format(
    path: str | os.PathLike[str], audio_format: AudioFormat, frames: int, channels: int, rate: int
) -> AudioFormat:
    """Return the format in which audio of this shape is stored; OutputError if the format has none."""
    storable = audio_format.for_size(frames, channels)
    if reason := why_unsupported(storable, frames, channels, rate):
        raise OutputError(f"{printable(path)} {reason}: name an output in .w64, .wav or .flac")
    return storable


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
    """Write a recording of a known shape (channels, samples) from blocks; see `write_recording`.

    `before_publish` is called with the temporary file once it is complete, before it gets its final name.
    """
    channels, frames = shape
    format = storable_format(path, format, frames, channels, rate)
    with atomic_path(path, overwrite) as temporary:
        # Encode; a full disk is the usual reason for an error of libsndfile here.
        try:
            libsndfile.encode_blocks(temporary, _check_finite_blocks(path, blocks), channels, rate, format)
        except (soundfile.SoundFileError, AssertionError) as error:
            # soundfile asserts that everything was written; 2 is libsndfile's 'system error'.
            if getattr(error, "code", 2) == 2:
                raise disk_full_error(path) from error
            raise OutputError(
                f"{printable(path)} cannot be written: {format.container} {format.subtype} refuses "
                f"{channels} channels at {rate} Hz: name an output in .w64, .wav or .flac"
            ) from error
        if tags_from is not None:
            _add_tags(tags_from, temporary, (channels, frames), rate, format)
        # Decode the file once, because libsndfile does not report every failed write.
        try:
            written = libsndfile.count_samples(temporary)
        except soundfile.SoundFileError as error:
            raise disk_full_error(path) from error
        if written != frames:
            raise disk_full_error(path)
        before_publish(temporary)


def _add_tags(tags_from: Path, output: Path, shape: tuple[int, int], rate: int, format: AudioFormat) -> None:
    """Copy the tags of a recording into an output, unless they make it unreadable."""
    info = probe_audio(tags_from)
    keep_cue_points = (info.rate, info.frames) == (rate, shape[1])
    second = np.zeros((shape[0], rate), np.float32)
    # One second of silence gets the tags first, because reading back hours of output takes long.
    with temporary_file(output.parent, output.suffix) as trial:
        try:
            libsndfile.encode_blocks(trial, [second], shape[0], rate, format)
            _copy_tags_or_raise(tags_from, trial, keep_cue_points)
            readable = libsndfile.count_samples(trial) == rate
        except (soundfile.SoundFileError, AssertionError):  # as in `write_recording_blocks`
            readable = False
    if readable:
        _copy_tags_or_raise(tags_from, output, keep_cue_points)


def _copy_tags_or_raise(tags_from: Path, output: Path, keep_cue_points: bool) -> None:
    try:
        copy_tags(tags_from, output, keep_cue_points=keep_cue_points)
    except OSError as error:
        if error.filename == str(tags_from):  # the source was removed meanwhile: not an output error
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
    extension = headers.read_format_extension(path).hex() if file.format in ("WAVEX", "RF64") else ""
    audio_format = AudioFormat(file.format, file.subtype, file.endian, extension)
    if isinstance(file, libsndfile.SequentialFile) and audio_format.container not in WRITABLE_SUBTYPES:
        raise AudioError(
            f"{printable(path)} is a {audio_format.container} file, which Tonewood does not read: "
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
    return AudioInfo(int(file.samplerate), int(file.channels), frames, audio_format, tracks, file.warning)


def check_duration(
    path: Path, info: AudioInfo, frames: int, min_seconds: float = MIN_RECORDING_SECONDS
) -> None:
    """Raise AudioError if a recording has too few samples."""
    if frames == 0:
        raise AudioError(f"{printable(path)} contains no samples: record or export it again")
    if frames < min_seconds * info.rate:
        raise AudioError(
            f"{printable(path)} lasts {frames / info.rate:.2g} s; {min_seconds:g} s are needed: "
            "give a longer recording"
        )


def _check_not_silent(path: Path, low: Samples, high: Samples) -> None:
    peak = float(max(-low.min(), high.max()))
    if peak < SILENCE_PEAK:
        level = f"{20 * np.log10(peak):.0f}" if peak > 0 else "-inf"
        raise AudioError(
            f"{printable(path)} is silent: its peak is {level} dB re full scale; "
            f"{20 * np.log10(SILENCE_PEAK):.0f} dB are needed: check the recording"
        )
    if (low == high).all():
        raise AudioError(
            f"{printable(path)} is constant ({high[0]:.3g} throughout, an offset without sound): check the "
            "recording"
        )
