"""A recording comes in: streamed to disk under a name of our own, then decoded once."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES
from tonewood.audio_io.reader import AudioReader, file_sha256
from tonewood.errors import AudioError, OutputError, TonewoodError, printable
from tonewood.studio.database import SAMPLES_FILE, RecordingInfo, SessionDatabase, StudioSession
from tonewood.utils.atomic_write import DISK_FULL_ERRNOS, atomic_path, disk_full_error

MAX_RECORDING_HOURS = 3.0
_MAX_TITLE_LENGTH = 120  # characters
_WRITE_BUFFER_BYTES = 1 << 22
_MAX_DECODED_BYTES = 4 * 2**30  # bytes: three hours in stereo at 44.1 kHz
_MAX_EXPANSION = 256  # or so many times the file's own: speech in Opus has no more
_MIN_FREE_BYTES = 2**26  # bytes on the disk


async def save_upload(stream: AsyncIterator[bytes], path: Path) -> int:
    """Write a stream to a file as it comes, and count its bytes; never more than a few in memory.

    Raises
    ------
    OutputError
        The disk is full.
    """
    total, waiting, pieces = 0, 0, []
    try:
        with path.open("wb") as file:
            async for piece in stream:
                pieces.append(piece)
                waiting += len(piece)
                total += len(piece)
                if waiting >= _WRITE_BUFFER_BYTES:
                    await asyncio.to_thread(_write_pieces, file, pieces)
                    waiting, pieces = 0, []
            await asyncio.to_thread(_write_pieces, file, pieces)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise disk_full_error("the recording") from None
        raise
    return total


def _write_pieces(file: BinaryIO, pieces: list[bytes]) -> None:
    for piece in pieces:
        file.write(piece)


def audio_suffix(name: str) -> str:
    """Suffix of a known audio format that a name claims, else none: all that is taken of a name."""
    last = Path(name.replace("\\", "/")).suffix.lower()
    return last if last in WRITABLE_SUFFIXES else ""


def title_from_filename(name: str) -> str:
    """A name as a title: its last part, printable, of bearable length."""
    return clean_title(name.replace("\\", "/").rsplit("/", 1)[-1].strip())


def clean_title(text: str) -> str:
    """A text as a title; one that is a title already stays what it is."""
    return printable(text)[:_MAX_TITLE_LENGTH] or "recording"


def create_session(
    database: SessionDatabase, name: str, folder: Path, upload: Path, title: str, model: str
) -> StudioSession:
    """Decode what came, and enter it as a session.

    Raises
    ------
    AudioError
        It cannot be used.
    """
    return database.add_session(name, title, decode_to_session(upload, folder, title), model)


def decode_to_session(upload: Path, folder: Path, title: str) -> RecordingInfo:
    """Decode a recording into its session's folder, block by block; what is known of it.

    Raises
    ------
    AudioError
        It cannot be used, lasts too long, or is too large decoded; the reason calls it by its
        title.
    OutputError
        The disk is full, or nearly.
    """
    try:
        stream = AudioReader(upload)
        total = _decode_samples(stream, folder, title)
    except TonewoodError as error:
        raise type(error)(str(error).replace(printable(upload), title)) from None
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise disk_full_error("the recording") from None
        raise
    form = stream.format
    return RecordingInfo(
        name=title,
        upload=upload.name,
        encoding=(form.container, form.subtype, form.endian),
        sha256=file_sha256(upload),
        rate=stream.rate,
        channels=stream.channels,
        samples=total,
        clipped=stream.clipped,
    )


def _decode_samples(stream: AudioReader, folder: Path, title: str) -> int:
    """Write all samples as they are decoded, and count them; a few bytes may stand for hours."""
    total, most = 0, MAX_RECORDING_HOURS * 3600 * stream.rate
    most_bytes = max(_MAX_DECODED_BYTES, _MAX_EXPANSION * stream.path.stat().st_size)
    with (folder / SAMPLES_FILE).open("wb") as file:
        for block in stream.blocks():
            total += block.shape[1]
            if total > most:
                raise AudioError(
                    f"{title} lasts longer than {MAX_RECORDING_HOURS:g} h, the most that the studio takes: "
                    "enhance it with `tonewood enhance`, or cut it"
                )
            if 4 * total * stream.channels > most_bytes:
                raise AudioError(
                    f"{title} takes more than {most_bytes / 2**30:.1f} GiB decoded, the most that "
                    "the studio takes: enhance it with `tonewood enhance`, or cut it"
                )
            if shutil.disk_usage(folder).free < _MIN_FREE_BYTES:
                raise disk_full_error("the recording")
            # numpy's own `tofile` does not say why it writes less than was asked.
            file.write(np.ascontiguousarray(block.T, dtype="<f4").data)
    return total


def save_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array to a .npy file, whole or not at all; OutputError if the disk is full."""
    try:
        with atomic_path(path, overwrite=True) as temporary, temporary.open("wb") as file:
            whole = np.ascontiguousarray(array)
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(whole))
            file.write(whole.data)  # as `np.save` would, but for saying why it cannot
    except OutputError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in DISK_FULL_ERRNOS:
            raise disk_full_error("the recording") from None
        raise
