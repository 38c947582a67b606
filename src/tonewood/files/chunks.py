"""Chunks of wav and aiff files that belong to the sound and go along with it.

Sources: RIFF, EBU Tech 3285 (bext) and 3306 (RF64), Sony Wave64, AIFF-C.
"""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tonewood.files.headers import W64_GUID_TAIL, iter_container_chunks

MAX_CHUNK_BYTES = 16 * 2**20  # of one chunk: a cover is smaller
_CONTAINER_FAMILIES = {
    b"RIFF": "wav", b"RF64": "wav", b"BW64": "wav", b"riff": "wav", b"RIFX": "rifx",
    b"FORM": "aiff",
}  # fmt: skip
_TAG_CHUNKS = (
    b"bext", b"iXML", b"axml", b"_PMX", b"cart", b"id3 ", b"ID3 ", b"NAME", b"AUTH", b"(c) ",
    b"ANNO",
)  # fmt: skip
_CUE_CHUNKS = (b"cue ", b"plst", b"smpl", b"inst", b"MARK", b"INST", b"COMT")
_INFO_NAME_OF = {
    b"TITLE": b"INAM", b"ARTIST": b"IART", b"ALBUM": b"IPRD", b"DATE": b"ICRD", b"GENRE": b"IGNR",
    b"COMMENT": b"ICMT", b"DESCRIPTION": b"ICMT", b"COPYRIGHT": b"ICOP", b"TRACKNUMBER": b"ITRK",
}  # fmt: skip


class TagChunk(NamedTuple):
    """A chunk: its name and its content."""

    name: bytes
    content: bytes


def container_family(path: Path) -> str | None:
    """What files can exchange chunks; None for other containers."""
    with path.open("rb") as stream:
        return _CONTAINER_FAMILIES.get(stream.read(4))


def read_tag_chunks(path: Path, keep_cue_points: bool) -> list[TagChunk]:
    """Chunks to go along, in their order.

    Parameters
    ----------
    keep_cue_points : bool
        Whether those that count samples (cue points, loops, labels) still hold.
    """
    found, size = [], path.stat().st_size
    with path.open("rb") as stream:
        for chunk in iter_container_chunks(stream, stream.read(4), size, past_audio=True):
            if chunk.size > MAX_CHUNK_BYTES or chunk.start + chunk.size > size:
                continue
            if chunk.name in _TAG_CHUNKS or chunk.name == b"LIST" or (keep_cue_points and chunk.name in _CUE_CHUNKS):
                stream.seek(chunk.start)
                content = stream.read(chunk.size)
                # Of lists, INFO holds texts and adtl the names of cue points.
                wanted = (b"INFO", b"adtl") if keep_cue_points else (b"INFO",)
                if chunk.name != b"LIST" or content[:4] in wanted:
                    found.append(TagChunk(chunk.name, content))
    return found


def info_list_chunks(comments: Iterable[bytes]) -> list[TagChunk]:
    """The list INFO of comments ``KEY=value``; none where it would hold nothing."""
    texts: dict[bytes, bytes] = {}
    for comment in comments:
        key, _, value = comment.partition(b"=")
        if name := _INFO_NAME_OF.get(key.upper()):
            texts.setdefault(name, value)
    return [TagChunk(b"LIST", b"INFO" + _pack_info_entries(texts))] if texts else []


def _pack_info_entries(texts: Mapping[bytes, bytes]) -> bytes:
    made = b""
    for name, value in texts.items():
        text = value + b"\0"
        made += name + struct.pack("<I", len(text)) + text + bytes(len(text) % 2)
    return made


def append_chunks(path: Path, new_chunks: Iterable[TagChunk]) -> None:
    """Put chunks into a file after its samples, and count them in its header.

    Before them in a Wave64, whose samples libsndfile takes to go on to the end of the file.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        size = path.stat().st_size
        parts = iter_container_chunks(file, magic, size, past_audio=True)
        start = next((it.start for it in parts if it.name == b"data"), None)
    layout, multiple = {
        b"riff": ("<16sQ", 8), b"RIFX": (">4sI", 2), b"FORM": (">4sI", 2),
    }.get(magic, ("<4sI", 2))  # fmt: skip
    head = struct.calcsize(layout)
    at = start - head if magic == b"riff" and start else size
    content = bytes(-at % multiple)
    for name, body in new_chunks:
        whole = (name + W64_GUID_TAIL, head + len(body)) if magic == b"riff" else (name, len(body))
        content += struct.pack(layout, *whole) + body + bytes(-len(body) % multiple)
    size += len(content)
    place, field, counted = 4, layout[0] + "I", size - 8
    if magic in (b"RF64", b"BW64"):
        place, field = 20, "<Q"  # in the chunk ds64, which comes first
    elif magic == b"riff":
        place, field, counted = 16, "<Q", size
    elif size >= 2**32:
        return  # full: the sound comes first
    replace_bytes(path, at, at, content)
    replace_bytes(path, place, place + struct.calcsize(field), struct.pack(field, counted))


def replace_bytes(path: Path, start: int, stop: int, content: bytes) -> None:
    """Put content in the place of a file's bytes from `start` up to `stop`."""
    step, moved = 2**20, len(content) - (stop - start)
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        places = list(range(stop, size, step))
        for place in reversed(places) if moved > 0 else places:
            file.seek(place)
            piece = file.read(min(step, size - place))
            file.seek(place + moved)
            file.write(piece)
        file.seek(start)
        file.write(content)
        file.truncate(size + moved)
