"""Chunks of wav and aiff files that belong to the sound and go along with it.

Sources: RIFF, EBU Tech 3285 (bext) and 3306 (RF64), Sony Wave64, AIFF-C.
"""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tonewood.files.headers import W64_TAIL, chunks

MAX_BYTES = 16 * 2**20  # of one chunk: a cover is smaller
_FAMILIES = {
    b"RIFF": "wav", b"RF64": "wav", b"BW64": "wav", b"riff": "wav", b"RIFX": "rifx",
    b"FORM": "aiff",
}  # fmt: skip
_KEPT = (
    b"bext", b"iXML", b"axml", b"_PMX", b"cart", b"id3 ", b"ID3 ", b"NAME", b"AUTH", b"(c) ",
    b"ANNO",
)  # fmt: skip
_PLACED = (b"cue ", b"plst", b"smpl", b"inst", b"MARK", b"INST", b"COMT")
_INFO = {
    b"TITLE": b"INAM", b"ARTIST": b"IART", b"ALBUM": b"IPRD", b"DATE": b"ICRD", b"GENRE": b"IGNR",
    b"COMMENT": b"ICMT", b"DESCRIPTION": b"ICMT", b"COPYRIGHT": b"ICOP", b"TRACKNUMBER": b"ITRK",
}  # fmt: skip


class Carried(NamedTuple):
    """A chunk: its name and its content."""

    name: bytes
    content: bytes


def family(path: Path) -> str | None:
    """What files can exchange chunks; None for other containers."""
    with path.open("rb") as stream:
        return _FAMILIES.get(stream.read(4))


def kept(path: Path, placed: bool) -> list[Carried]:
    """Chunks to go along, in their order.

    Parameters
    ----------
    placed : bool
        Whether those that count samples (cue points, loops, labels) still hold.
    """
    found, size = [], path.stat().st_size
    with path.open("rb") as stream:
        for chunk in chunks(stream, stream.read(4), size, beyond=True):
            if chunk.size > MAX_BYTES or chunk.start + chunk.size > size:
                continue
            if chunk.name in _KEPT or chunk.name == b"LIST" or (placed and chunk.name in _PLACED):
                stream.seek(chunk.start)
                content = stream.read(chunk.size)
                # Of lists, INFO holds texts and adtl the names of cue points.
                wanted = (b"INFO", b"adtl") if placed else (b"INFO",)
                if chunk.name != b"LIST" or content[:4] in wanted:
                    found.append(Carried(chunk.name, content))
    return found


def info(comments: Iterable[bytes]) -> list[Carried]:
    """The list INFO of comments ``KEY=value``; none where it would hold nothing."""
    texts: dict[bytes, bytes] = {}
    for comment in comments:
        key, _, value = comment.partition(b"=")
        if name := _INFO.get(key.upper()):
            texts.setdefault(name, value)
    return [Carried(b"LIST", b"INFO" + _entries(texts))] if texts else []


def _entries(texts: Mapping[bytes, bytes]) -> bytes:
    made = b""
    for name, value in texts.items():
        text = value + b"\0"
        made += name + struct.pack("<I", len(text)) + text + bytes(len(text) % 2)
    return made


def append(path: Path, added: Iterable[Carried]) -> None:
    """Put chunks into a file after its samples, and count them in its header.

    Before them in a Wave64, whose samples libsndfile takes to go on to the end of the file.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        size = path.stat().st_size
        parts = chunks(file, magic, size, beyond=True)
        start = next((it.start for it in parts if it.name == b"data"), None)
    layout, multiple = {
        b"riff": ("<16sQ", 8), b"RIFX": (">4sI", 2), b"FORM": (">4sI", 2),
    }.get(magic, ("<4sI", 2))  # fmt: skip
    head = struct.calcsize(layout)
    at = start - head if magic == b"riff" and start else size
    content = bytes(-at % multiple)
    for name, body in added:
        whole = (name + W64_TAIL, head + len(body)) if magic == b"riff" else (name, len(body))
        content += struct.pack(layout, *whole) + body + bytes(-len(body) % multiple)
    size += len(content)
    place, field, counted = 4, layout[0] + "I", size - 8
    if magic in (b"RF64", b"BW64"):
        place, field = 20, "<Q"  # in the chunk ds64, which comes first
    elif magic == b"riff":
        place, field, counted = 16, "<Q", size
    elif size >= 2**32:
        return  # full: the sound comes first
    splice(path, at, at, content)
    splice(path, place, place + struct.calcsize(field), struct.pack(field, counted))


def splice(path: Path, first: int, last: int, content: bytes) -> None:
    """Put content in the place of a file's bytes from `first` up to `last`."""
    step, moved = 2**20, len(content) - (last - first)
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        places = list(range(last, size, step))
        for place in reversed(places) if moved > 0 else places:
            file.seek(place)
            piece = file.read(min(step, size - place))
            file.seek(place + moved)
            file.write(piece)
        file.seek(first)
        file.write(content)
        file.truncate(size + moved)
