"""The same sound, the same bytes: what libsndfile adds by the clock and by chance is taken out.

It states the time in the PEAK chunk of float wav and aiff files, and draws the serial number of an
Ogg stream (RFC 3533), which every page repeats and includes in its checksum.
"""

import zlib
from pathlib import Path
from typing import BinaryIO

_BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_OGG_SERIAL = b"wood"


def make_deterministic(path: Path) -> None:
    """Rewrite in place what is not of the sound; files of other kinds are left alone."""
    with path.open("r+b") as file:
        magic = file.read(4)
        if magic == b"OggS":
            _renumber_ogg_pages(file)
        elif magic in (b"RIFF", b"RIFX", b"FORM"):
            _clear_peak_time(file, "little" if magic == b"RIFF" else "big")


def _clear_peak_time(file: BinaryIO, order: str) -> None:
    """Set the time of a PEAK chunk, which stands before the samples, to 0."""
    place = 12
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or head[:4] in (b"data", b"SSND"):
            return
        if head[:4] == b"PEAK":
            file.seek(place + 12)  # identifier, size and version come first
            file.write(bytes(4))
            return
        size = int.from_bytes(head[4:], order)  # type: ignore[arg-type]
        place += 8 + size + size % 2


def _renumber_ogg_pages(file: BinaryIO) -> None:
    """Give every page the same serial number, its place in the row, and its checksum."""
    place = number = 0
    while True:
        file.seek(place)
        head = file.read(27)
        if len(head) < 27:
            return
        lacing = file.read(head[26])
        page = head[:14] + _OGG_SERIAL + number.to_bytes(4, "little") + bytes(4) + head[26:] + lacing
        page += file.read(sum(lacing))
        file.seek(place)
        file.write(page[:22] + _ogg_checksum(page).to_bytes(4, "little") + page[26:])
        place, number = place + len(page), number + 1


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 of polynomial 04c11db7, bits unreversed, from 0: zlib's, seen in a mirror."""
    mirrored = zlib.crc32(page.translate(_BIT_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
