"""A recording comes in: streamed to disk under a name of our own, then decoded once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import AudioError, OutputError, TonewoodError, shown
from tonewood.files.audio import Stream, sha256
from tonewood.files.formats import SUFFIXES
from tonewood.files.output import FULL, atomic_path, no_space
from tonewood.studio.entries import SAMPLES, Session, Sound
from tonewood.studio.store import Store

MAX_HOURS = 3.0
_TITLE = 120  # characters
_FLUSH = 1 << 22


async def received(stream: AsyncIterator[bytes], path: Path) -> int:
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
                if waiting >= _FLUSH:
                    await asyncio.to_thread(_write, file, pieces)
                    waiting, pieces = 0, []
            await asyncio.to_thread(_write, file, pieces)
    except OSError as error:
        if error.errno in FULL:
            raise no_space("the recording") from None
        raise
    return total


def _write(file: BinaryIO, pieces: list[bytes]) -> None:
    for piece in pieces:
        file.write(piece)


def suffix_of(name: str) -> str:
    """Suffix of a known audio format that a name claims, else none: all that is taken of a name."""
    last = Path(name.replace("\\", "/")).suffix.lower()
    return last if last in SUFFIXES else ""


def title_of(name: str) -> str:
    """A name as a title: its last part, printable, of bearable length."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1].strip()
    return shown(last)[:_TITLE] or "recording"


def opened(store: Store, name: str, folder: Path, upload: Path, title: str, model: str) -> Session:
    """Decode what came, and enter it as a session.

    Raises
    ------
    AudioError
        It cannot be used; the reason calls it by its title.
    """
    try:
        sound = decoded(upload, folder, title)
    except TonewoodError as error:
        raise AudioError(str(error).replace(shown(upload), title)) from None
    return store.add(name, title, sound, model)


def decoded(upload: Path, folder: Path, title: str) -> Sound:
    """Decode a recording into its session's folder, block by block; what is known of it.

    Raises
    ------
    AudioError
        It cannot be used, or lasts too long.
    OutputError
        The disk is full.
    """
    stream = Stream(upload)
    total, most = 0, MAX_HOURS * 3600 * stream.rate
    try:
        with (folder / SAMPLES).open("wb") as file:
            for block in stream.blocks():
                total += block.shape[1]
                if total > most:
                    raise AudioError(
                        f"{title} lasts longer than {MAX_HOURS:g} h, the most that the studio "
                        "takes: enhance it with `tonewood enhance`, or cut it"
                    )
                np.ascontiguousarray(block.T, dtype="<f4").tofile(file)
    except OSError as error:
        if error.errno in FULL:
            raise no_space("the recording") from None
        raise
    form = stream.format
    return Sound(
        name=title,
        upload=upload.name,
        encoding=(form.container, form.subtype, form.endian),
        sha256=sha256(upload),
        rate=stream.rate,
        channels=stream.channels,
        samples=total,
        clipped=stream.clipped,
    )


def save_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array to a .npy file, whole or not at all; OutputError if the disk is full."""
    try:
        with atomic_path(path, overwrite=True) as temporary, temporary.open("wb") as file:
            np.save(file, array)
    except OutputError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL:
            raise no_space("the recording") from None
        raise
