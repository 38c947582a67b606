"""Uploads: save a request's body to disk in pieces, then decode it once into its session's folder."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES
from tonewood.audio_io.reader import AudioReader
from tonewood.audio_io.recording import file_sha256
from tonewood.errors import AudioError, OutputError, TonewoodError, printable
from tonewood.studio.database import SAMPLES_FILE, RecordingInfo
from tonewood.utils.files import DISK_FULL_ERRNOS, atomic_path, disk_full_error

MAX_RECORDING_HOURS = 3.0
_MAX_TITLE_LENGTH = 120  # characters
_WRITE_BUFFER_BYTES = 1 << 22
_MAX_DECODED_BYTES = 4 * 2**30  # three hours in stereo at 44.1 kHz
_MAX_EXPANSION = 256  # decoded size over file size; speech in Opus stays below
_MIN_FREE_BYTES = 2**26  # on the disk


async def save_upload(stream: AsyncIterator[bytes], path: Path) -> int:
    """Write a stream to a file and return its size; at most one buffer is kept in memory.

    OutputError if the disk is full.
    """
    total, buffered, buffer = 0, 0, list[bytes]()
    try:
        with path.open("wb") as file:
            async for piece in stream:
                buffer.append(piece)
                buffered += len(piece)
                total += len(piece)
                if buffered >= _WRITE_BUFFER_BYTES:
                    await asyncio.to_thread(file.writelines, buffer)
                    buffered, buffer = 0, []
            await asyncio.to_thread(file.writelines, buffer)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise disk_full_error("the recording") from None
        raise
    return total


def audio_suffix(name: str) -> str:
    """Return the suffix of a client's file name if it is a known audio format, else an empty string."""
    suffix = Path(name.replace("\\", "/")).suffix.lower()
    return suffix if suffix in WRITABLE_SUFFIXES else ""


def title_from_filename(name: str) -> str:
    """Return the last part of a file name as a title."""
    return clean_title(name.replace("\\", "/").rsplit("/", 1)[-1].strip())


def clean_title(text: str) -> str:
    """Return a text as a printable title of limited length; a clean title stays unchanged."""
    return printable(text)[:_MAX_TITLE_LENGTH] or "recording"


def decode_to_session(upload: Path, folder: Path, title: str) -> RecordingInfo:
    """Decode an upload into its session's folder, block by block.

    Raises
    ------
    AudioError
        The file cannot be decoded, or the recording is too long or too large. The message names the
        title, not the path.
    OutputError
        The disk is full or nearly full.
    """
    try:
        reader = AudioReader(upload)
        samples = _decode_samples(reader, folder, title)
    except TonewoodError as error:
        raise type(error)(str(error).replace(printable(upload), title)) from None
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise disk_full_error("the recording") from None
        raise
    encoding = reader.format
    return RecordingInfo(
        name=title,
        upload=upload.name,
        encoding=(encoding.container, encoding.subtype, encoding.endian),
        sha256=file_sha256(upload),
        rate=reader.rate,
        channels=reader.channels,
        samples=samples,
        clipped=reader.clipped,
    )


def _decode_samples(reader: AudioReader, folder: Path, title: str) -> int:
    """Write the samples while they are decoded, and count them.

    The limits are checked for each block: a small file may decode to many hours.
    """
    total, max_samples = 0, MAX_RECORDING_HOURS * 3600 * reader.rate
    max_bytes = max(_MAX_DECODED_BYTES, _MAX_EXPANSION * reader.path.stat().st_size)
    with (folder / SAMPLES_FILE).open("wb") as file:
        for block in reader.blocks():
            total += block.shape[1]
            if total > max_samples:
                raise AudioError(
                    f"{title} lasts longer than {MAX_RECORDING_HOURS:g} h, the limit of the studio: "
                    "use `tonewood enhance`, or cut the recording"
                )
            if 4 * total * reader.channels > max_bytes:
                raise AudioError(
                    f"{title} decodes to more than {max_bytes / 2**30:.1f} GiB, the limit of the "
                    "studio: use `tonewood enhance`, or cut the recording"
                )
            if shutil.disk_usage(folder).free < _MIN_FREE_BYTES:
                raise disk_full_error("the recording")
            # `ndarray.tofile` does not report why a write failed.
            file.write(np.ascontiguousarray(block.T, dtype="<f4").data)
    return total


def save_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array to a .npy file, all or nothing; raise OutputError if the disk is full."""
    try:
        with atomic_path(path, overwrite=True) as temporary, temporary.open("wb") as file:
            contiguous = np.ascontiguousarray(array)
            header = np.lib.format.header_data_from_array_1_0(contiguous)
            np.lib.format.write_array_header_1_0(file, header)
            file.write(contiguous.data)  # `np.save` does not report why a write failed
    except OutputError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in DISK_FULL_ERRNOS:
            raise disk_full_error("the recording") from None
        raise
