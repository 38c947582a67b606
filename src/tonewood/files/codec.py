"""libsndfile, tamed: open, decode and encode with its silences and messages put right."""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from tonewood.errors import AudioError, printable
from tonewood.files import headers
from tonewood.files.formats import AudioFormat
from tonewood.files.headers import UNKNOWN_LENGTH
from tonewood.files.media import MediaFile, detect_container
from tonewood.files.steady import make_deterministic

# Frames at a time. libsndfile's Vorbis encoder keeps a whole write on the stack, so that a long
# one crashes; and a header may promise terabytes, so memory grows only by what was decoded.
ENCODE_BLOCK_FRAMES = 16_384
_DECODE_BLOCK_FRAMES = 131_072  # frames at a time where only we keep them
# An mp3's frame count may or may not include the frame that states it.
_MP3_SLACK = 1_152


class SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # has no stubs
    """A sound file that is only ever run through.

    soundfile seeks to where it is after every block; at the end of a flac of unstated length
    that fails, and the last block is lost.
    """

    def seekable(self) -> bool:
        """Claim that it cannot be sought, so that soundfile does not."""
        return False


@contextmanager
def open_audio(path: Path) -> Iterator[SequentialFile | MediaFile]:
    """Open a recording for reading; AudioError if that is not possible.

    MissingExtraError for what only FFmpeg reads, where PyAV is not installed.
    """
    if path.is_dir():
        raise AudioError(f"{printable(path)} is a folder; a recording is needed: name a file in it")
    if not path.exists():
        raise AudioError(f"{printable(path)} does not exist: check its name")
    if not path.is_file():
        raise AudioError(f"{printable(path)} is no ordinary file: save the audio to one first")
    try:
        file = _open_by_content(path)
    except OSError as error:
        raise read_error(path, error) from error
    with file:
        yield file


def read_error(path: Path, error: OSError) -> AudioError:
    """Build the error for a file that the operating system does not let us read."""
    if isinstance(error, FileNotFoundError):
        return AudioError(f"{printable(path)} does not exist: check its name")
    why = (error.strerror or str(error)).lower()
    return AudioError(f"{printable(path)} cannot be read ({why}): check the file and its permissions")


def _open_by_content(path: Path) -> SequentialFile | MediaFile:
    if path.stat().st_size == 0:
        raise AudioError(f"{printable(path)} is empty (0 bytes): record or copy it again")
    with path.open("rb") as stream:  # a refusal shows here, with the system's own reason
        stream.read(1)
    if media := detect_container(path):
        return MediaFile(path, media)
    known = headers.is_supported_container(path)
    try:
        return SequentialFile(_soundfile_source(path))
    except TypeError:  # soundfile takes the suffix .raw for headerless samples
        known = False
    except soundfile.SoundFileError:
        pass
    if known:
        raise AudioError(f"{printable(path)} has a damaged header: copy or export it again")
    raise AudioError(
        f"{printable(path)} is not audio in a format that can be read: convert it to .wav or .flac"
    )


def _soundfile_source(path: Path) -> str | bytes | io.BytesIO:
    """Give soundfile what to open: the path, or a streamed wav with its size field mended."""
    at = headers.missing_data_size_offset(path)
    if at is not None:
        data = bytearray(path.read_bytes())
        data[at : at + 4] = b"\xff\xff\xff\xff"
        return io.BytesIO(data)
    return _soundfile_name(path)


def _soundfile_name(path: Path) -> str | bytes:
    # soundfile encodes a str strictly, and so refuses names whose bytes are no UTF-8.
    return str(path) if os.name == "nt" else os.fsencode(path)


def decode_blocks(file: soundfile.SoundFile) -> Iterator[npt.NDArray[np.float32]]:
    """Decode to the end, ``(samples, channels)`` at a time."""
    while True:
        block = file.read(out=np.empty((_DECODE_BLOCK_FRAMES, file.channels), np.float32))
        if len(block) == 0:
            return
        yield block


def count_samples(path: Path) -> int:
    """Decode a file and count its samples in each channel."""
    with SequentialFile(_soundfile_source(path)) as file:
        return sum(len(block) for block in decode_blocks(file))


def decode_file(path: Path, file: SequentialFile | MediaFile) -> Iterator[npt.NDArray[np.float32]]:
    """Decode a whole file, ``(channels, samples)`` at a time.

    AudioError at the end if less came than it promises.
    """
    if isinstance(file, MediaFile):
        yield from file.decode()
        return
    failed, total = False, 0
    try:
        for block in decode_blocks(file):
            total += len(block)
            yield np.ascontiguousarray(block.T)
    except soundfile.SoundFileError:
        failed = True
    try:
        _check_complete(path, file, total, failed)
    except OSError as error:  # it has vanished meanwhile
        raise read_error(path, error) from error


def _check_complete(path: Path, file: SequentialFile, total: int, failed: bool) -> None:
    promised: float | None = None if file.frames == UNKNOWN_LENGTH else file.frames
    least = promised or 0.0
    if file.format == "MP3" and file.subtype == "MPEG_LAYER_III":
        length = headers.scan_mp3_length(path)
        if not length.declared:
            if length.samples > total + 2 * _MP3_SLACK:
                raise AudioError(
                    f"{printable(path)} is an mp3 of varying bitrate without a length header, of which "
                    f"only {total / file.samplerate:.2f} s of "
                    f"{length.samples / file.samplerate:.2f} s can be read: convert it to .wav"
                )
            promised = None
        least = (promised or 0) - _MP3_SLACK
    share = headers.declared_to_actual_ratio(path)
    if not failed and total >= least and share <= 1:
        return
    if share > 1:
        promised = file.frames * share if np.isfinite(share) else None
    promise = "more" if promised is None else f"{promised / file.samplerate:.2f} s"
    there = f"{total / file.samplerate:.2f} s"
    if promised is not None and promise == there:
        promise, there = f"{promised:.0f} samples", f"{total}"
    raise AudioError(
        f"{printable(path)} is cut off or damaged: its header promises {promise}, "
        f"{there} could be read: copy or export it again"
    )


def encode_blocks(
    path: Path,
    blocks: Iterable[npt.NDArray[np.floating[Any]]],
    channels: int,
    rate: int,
    audio_format: AudioFormat,
) -> None:
    """Encode blocks ``(channels, samples)`` into a file; raises what soundfile raises.

    The same samples are the same bytes at any time.
    """
    settings: dict[str, Any] = {}
    if audio_format.container in ("OGG", "MP3"):
        settings["compression_level"] = 0.0  # least compression: best quality
    if audio_format.container == "MP3":
        settings["bitrate_mode"] = "CONSTANT"  # 320 kbit/s, or the most the rate allows
    with SequentialFile(
        _soundfile_name(path),
        "w",
        samplerate=rate,
        channels=channels,
        format=audio_format.container,
        subtype=audio_format.subtype,
        endian=audio_format.endian,
        **settings,
    ) as file:
        for block in blocks:
            for start in range(0, block.shape[1], ENCODE_BLOCK_FRAMES):
                file.write(_quantize_samples(block[:, start : start + ENCODE_BLOCK_FRAMES].T, audio_format))
    make_deterministic(path)


def _quantize_samples(block: npt.NDArray[np.floating[Any]], audio_format: AudioFormat) -> npt.NDArray[Any]:
    """Round and clip a block ourselves: libsndfile rounds down in wav, to nearest in flac."""
    bits = audio_format.integer_bits
    if bits is not None:
        # A float32 times a power of two is exact, and holds integers of up to 24 bits.
        wide = np.float32 if block.dtype == np.float32 and bits <= 24 else np.float64
        full = wide(2.0 ** (bits - 1))
        whole = np.clip(np.rint(block * full), -full, full - 1)
        # libsndfile takes the top bits of an int32, which are then exact.
        return np.ascontiguousarray(whole.astype(np.int32) << (32 - bits))
    if audio_format.subtype in ("ULAW", "ALAW"):
        block = np.clip(block, -1.0, 1.0)  # beyond, their tables would be overrun
    return np.ascontiguousarray(block, dtype=np.float64 if audio_format.subtype == "DOUBLE" else np.float32)
