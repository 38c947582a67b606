"""What a file's header promises, where libsndfile does not say.

libsndfile silently shortens a cut-off wav, aiff, au, caf or Ogg to what is there, takes a
streamed wav of data size 0 for empty, and stops an mp3 that has no length header at a guess of
its length. These functions read just enough of the containers to notice. Sources: the
RIFF/RF64 (EBU Tech 3306), Sony Wave64, AIFF-C, CAF and Ogg (RFC 3533) specifications.

Chunks of wav and aiff files that belong to the sound and go along with it.

Sources: RIFF, EBU Tech 3285 (bext) and 3306 (RF64), Sony Wave64, AIFF-C.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

# Writers to a pipe cannot know the length and leave the field at 'as much as can be':
# 0xFFFFFFFF (ffmpeg), 0x7FFFF000 (sox), 0x80000000 (arecord), less a header's length or so.
_PLACEHOLDER_SIZES = (range(0x7FFF0000, 0x80000001), range(0xFFFF0000, 0x100000000))
UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's length of a flac that was piped
W64_GUID_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_MP3_KBPS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


class ContainerChunk(NamedTuple):
    """A part of a container: its name, where its content starts, and its size in bytes."""

    name: bytes
    start: int
    size: int


class Mp3Length(NamedTuple):
    """Length of an mp3: whether a header states it, and samples counted frame by frame."""

    declared: bool
    samples: int


def is_supported_container(path: Path) -> bool:
    """Whether the file starts like one of the containers that Tonewood reads."""
    with path.open("rb") as stream:
        start = stream.read(12)
    return start[:4] in (
        b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b"caff", b".snd", b"dns.", b"fLaC",
        b"OggS",
    ) or start[:3] == b"ID3"  # fmt: skip


def declared_to_actual_ratio(path: Path) -> float:
    """Promised bytes of audio for each byte that is there; above 1 the file is cut off.

    1 where nothing is amiss or nothing is promised (streams of unstated length, flac and mp3,
    which only decoding can judge). Infinity if it is not known by how much: an Ogg
    whose last page, or a caf whose packet table, is incomplete.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        magic = stream.read(4)
        if magic == b"OggS":
            return 1.0 if _is_last_page_complete(stream, size) else float("inf")
        for chunk in iter_container_chunks(stream, magic, size):
            if chunk.start + chunk.size > size and not _is_placeholder_size(magic, chunk):
                if chunk.name not in (b"data", b"SSND"):
                    return float("inf")
                return chunk.size / max(size - chunk.start, 1)
    return 1.0


def missing_data_size_offset(path: Path) -> int | None:
    """Offset of the size field to be mended in a streamed wav whose data size was left at 0.

    A wav whose recorder died, or wrote to a pipe, says 'no data' though data follow; its RIFF
    size then doesn't cover them either, unlike that of a truly empty wav with trailing chunks.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8)
        if len(head) < 8 or head[:4] != b"RIFF":
            return None
        riff_end = 8 + struct.unpack("<I", head[4:])[0]
        for chunk in iter_container_chunks(stream, b"RIFF", size):
            if chunk.name == b"data":
                covered = chunk.start < riff_end < 0xFFFF0000
                empty = chunk.size == 0 and size > chunk.start and not covered
                return chunk.start - 4 if empty else None
    return None


def scan_mp3_length(path: Path) -> Mp3Length:
    """Walk an mp3's frames: libmpg123 only guesses the length where no Xing/VBRI header has it.

    Layers I and II count as 0 samples: they have a constant bitrate, and the guess holds.
    """
    data = path.read_bytes()
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        b = data[at + 6 : at + 10]
        at += 10 + (b[0] << 21 | b[1] << 14 | b[2] << 7 | b[3])
    counted, stated = 0, False
    while (at := data.find(b"\xff", at)) >= 0:
        frame = _parse_mp3_frame(data[at : at + 4])
        if frame is None or (counted == 0 and _parse_mp3_frame(data[at + frame[0] :][:4]) is None):
            at += 1
            continue
        length, samples = frame
        if counted == 0:
            first = data[at : at + 64]
            stated = any(tag in first for tag in (b"Xing", b"Info", b"VBRI"))
            if stated:
                break
        counted += samples
        at += length
    return Mp3Length(stated, counted)


def _parse_mp3_frame(head: bytes) -> tuple[int, int] | None:
    """Bytes and samples of the layer III frame with this 4-byte header; None if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, bitrate, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return None
    kbps = _MP3_KBPS[3 if version == 3 else 2][bitrate]
    samples = 1152 if version == 3 else 576
    return samples // 8 * kbps * 1000 // _MP3_HZ[version][rate] + (head[2] >> 1 & 1), samples


def _is_placeholder_size(magic: bytes, chunk: ContainerChunk) -> bool:
    if magic == b"caff":
        return chunk.size == 2**64 - 1
    return magic != b"riff" and any(chunk.size in r for r in _PLACEHOLDER_SIZES)


def _is_last_page_complete(stream: BinaryIO, size: int) -> bool:
    # A page takes at most 27 + 255 + 255 · 255 = 65,307 bytes.
    stream.seek(max(0, size - 2 * 65307))
    tail = stream.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return 27 + page[26] + sum(page[27 : 27 + page[26]]) <= len(page)


def iter_container_chunks(
    stream: BinaryIO, magic: bytes, size: int, *, past_audio: bool = False
) -> Iterator[ContainerChunk]:
    """Parts of a container up to its audio, or beyond it.

    Of a caf: all, its packet table may come last.
    """
    if magic in (b".snd", b"dns."):
        stream.seek(4)
        order = ">" if magic == b".snd" else "<"
        head = stream.read(8)
        if len(head) == 8:
            yield ContainerChunk(b"data", *struct.unpack(order + "II", head))
        return
    layouts = {  # start of the first chunk, name and size, padding
        b"RIFF": (12, "<4sI", 2), b"RIFX": (12, ">4sI", 2), b"RF64": (12, "<4sI", 2),
        b"BW64": (12, "<4sI", 2), b"FORM": (12, ">4sI", 2), b"caff": (8, ">4sQ", 1),
        b"riff": (40, "<16sQ", 8),
    }  # fmt: skip
    if magic not in layouts:
        return
    at, layout, padding = layouts[magic]
    width = struct.calcsize(layout)
    long_size = None
    while at + width <= size:
        stream.seek(at)
        name, length = struct.unpack(layout, stream.read(width))
        if magic == b"riff":
            name, length = name[:4] if name[4:] == W64_GUID_TAIL else name, max(length - width, 0)
        if name == b"ds64" and len(sizes := stream.read(16)) == 16:
            long_size = struct.unpack("<8xQ", sizes)[0]
        if name == b"data" and length == 0xFFFFFFFF and long_size:
            length = long_size
        yield ContainerChunk(name, at + width, length)
        if name in (b"data", b"SSND") and magic != b"caff" and not past_audio:
            return
        at += width + length
        at += -at % padding


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
            if (
                chunk.name in _TAG_CHUNKS
                or chunk.name == b"LIST"
                or (keep_cue_points and chunk.name in _CUE_CHUNKS)
            ):
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
