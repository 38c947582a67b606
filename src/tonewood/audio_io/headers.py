"""Read what libsndfile does not report from the headers of audio files, and copy their tag chunks.

libsndfile reports no error for a cut-off .wav, .aiff, .au, .caf or Ogg, reads a streamed .wav of data
size 0 as empty, and guesses the end of an .mp3 without a length header. These functions read just enough
to detect that. Sources: the specifications of RIFF, RF64 (EBU Tech 3306), bext (EBU Tech 3285), Sony
Wave64, AIFF-C, CAF and Ogg (RFC 3533).
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

# Writers to a pipe cannot know the length, and declare a maximum: 0xFFFFFFFF (ffmpeg), 0x7FFFF000
# (sox) or 0x80000000 (arecord), less about a header's length.
_PLACEHOLDER_SIZES = (range(0x7FFF0000, 0x80000001), range(0xFFFF0000, 0x100000000))
_MAX_SHORT_HEADER = 64  # bytes of a header without other chunks
_MAX_CHUNKS = 65_536  # more are damage: a file of empty chunks would take minutes
UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's length of a .flac that was written to a pipe
W64_GUID_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
# Tables of ISO/IEC 11172-3 (MPEG-1, key 3), 13818-3 (MPEG-2, key 2) and MPEG-2.5 (key 0), layer III.
_MP3_KBPS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


class ContainerChunk(NamedTuple):
    """Chunk of a container: its name, the offset of its content, and its size in bytes."""

    name: bytes
    start: int
    size: int


class Mp3Length(NamedTuple):
    """Length of an .mp3: True if a header declares it; if not, the samples counted frame by frame."""

    declared: bool
    samples: int


def is_supported_container(path: Path) -> bool:
    """Return True if a file starts like a container that libsndfile reads."""
    with path.open("rb") as stream:
        start = stream.read(12)
    return start[:4] in (
        b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b"caff", b".snd", b"dns.", b"fLaC",
        b"OggS",
    ) or start[:3] == b"ID3"  # fmt: skip


def declared_to_actual_ratio(path: Path) -> float:
    """Return declared bytes of audio per actual byte; above 1 the file is cut off.

    1 if the file is complete or declares no size (streams; .flac and .mp3, which only decoding can judge).
    Infinity if the last page of an Ogg or the packet table of a .caf is incomplete.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        magic = stream.read(4)
        if magic == b"OggS":
            return 1.0 if _is_last_page_complete(stream, size) else float("inf")
        for chunk in iter_container_chunks(stream, magic, size):
            missing = chunk.start + chunk.size - size
            if missing > 0 and not is_placeholder_size(magic, chunk):
                if chunk.name not in (b"data", b"SSND"):
                    return float("inf")
                if counts_header_as_audio(chunk, size):
                    return 1.0
                return chunk.size / max(size - chunk.start, 1)
    return 1.0


def counts_header_as_audio(audio: ContainerChunk, size: int) -> bool:
    """Return True if a header promises more than a file of `size` bytes holds by the length of a header."""
    missing = audio.start + audio.size - size
    return 0 < missing <= _MAX_SHORT_HEADER or missing in (audio.start, audio.start - 8)


def scan_mp3_length(path: Path) -> Mp3Length:
    """Count the samples of an .mp3 without a Xing or VBRI header, whose length libmpg123 guesses.

    Layers I and II count as 0 samples: their bitrate is constant, so the guess is correct.
    """
    data = path.read_bytes()
    offset = 0
    while data[offset : offset + 3] == b"ID3" and len(data) >= offset + 10:
        b = data[offset + 6 : offset + 10]  # ID3v2 sizes have 7 bits per byte
        offset += 10 + (b[0] << 21 | b[1] << 14 | b[2] << 7 | b[3])
    total, declared = 0, False
    while (offset := data.find(b"\xff", offset)) >= 0:
        frame = _parse_mp3_frame(data[offset : offset + 4])
        # The bytes of a sync word also occur by chance, so the first frame must be followed by another.
        if frame is None or (total == 0 and _parse_mp3_frame(data[offset + frame[0] :][:4]) is None):
            offset += 1
            continue
        length, samples = frame
        if total == 0:
            first = data[offset : offset + 64]
            declared = any(tag in first for tag in (b"Xing", b"Info", b"VBRI"))
            if declared:
                break
        total += samples
        offset += length
    return Mp3Length(declared, total)


def _parse_mp3_frame(head: bytes) -> tuple[int, int] | None:
    """Return bytes and samples of a layer III frame by its 4-byte header; None if it is not one."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, bitrate, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return None
    kbps = _MP3_KBPS[3 if version == 3 else 2][bitrate]
    samples = 1152 if version == 3 else 576
    # Bytes = samples / rate · bitrate / 8, plus a padding byte (ISO/IEC 11172-3, 2.4.3.1).
    return samples // 8 * kbps * 1000 // _MP3_HZ[version][rate] + (head[2] >> 1 & 1), samples


def is_placeholder_size(magic: bytes, chunk: ContainerChunk) -> bool:
    """Return True if a size stands for an unknown one."""
    if magic == b"caff":
        return chunk.size == 2**64 - 1
    return magic != b"riff" and any(chunk.size in r for r in _PLACEHOLDER_SIZES)


def _is_last_page_complete(stream: BinaryIO, size: int) -> bool:
    # A page takes at most 27 + 255 + 255 · 255 = 65,307 bytes, so two of them contain a whole one.
    stream.seek(max(0, size - 2 * 65307))
    tail = stream.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return 27 + page[26] + sum(page[27 : 27 + page[26]]) <= len(page)


def is_chunk_name(name: bytes) -> bool:
    """Return True if bytes can be the name of a chunk: ASCII, or the GUID of a Wave64 chunk."""
    return all(32 <= byte < 127 for byte in name[:4])


def iter_container_chunks(
    stream: BinaryIO, magic: bytes, size: int, *, past_audio: bool = False
) -> Iterator[ContainerChunk]:
    """Yield the chunks of a container up to its audio; all of a .caf, whose packet table may be last.

    `magic` is the file's first four bytes. With `past_audio`, the chunks after the audio follow.
    """
    if magic in (b".snd", b"dns."):  # .au has no chunks, only the offset and size of its data
        stream.seek(4)
        order = ">" if magic == b".snd" else "<"
        head = stream.read(8)
        if len(head) == 8:
            yield ContainerChunk(b"data", *struct.unpack(order + "II", head))
        return
    layouts = {  # offset of the first chunk, name and size, alignment
        b"RIFF": (12, "<4sI", 2), b"RIFX": (12, ">4sI", 2), b"RF64": (12, "<4sI", 2),
        b"BW64": (12, "<4sI", 2), b"FORM": (12, ">4sI", 2), b"caff": (8, ">4sQ", 1),
        b"riff": (40, "<16sQ", 8),
    }  # fmt: skip
    if magic not in layouts:
        return
    offset, layout, alignment = layouts[magic]
    width = struct.calcsize(layout)
    long_size, is_odd = None, False
    for _ in range(_MAX_CHUNKS):
        if offset + width > size:
            return
        stream.seek(offset)
        name, length = struct.unpack(layout, stream.read(width))
        if is_odd and not is_chunk_name(name):  # some writers omit the padding of an odd chunk
            stream.seek(offset - 1)
            name, length = struct.unpack(layout, stream.read(width))
            offset -= 1
        if not is_chunk_name(name):
            return
        if magic == b"riff":  # Wave64 names chunks by GUIDs, and their sizes include the header
            name, length = name[:4] if name[4:] == W64_GUID_TAIL else name, max(length - width, 0)
        # RF64 keeps 64-bit sizes in ds64, and 0xFFFFFFFF in the chunk itself (EBU Tech 3306).
        if name == b"ds64" and len(sizes := stream.read(16)) == 16:
            long_size = struct.unpack("<8xQ", sizes)[0]
        if name == b"data" and length == 0xFFFFFFFF and long_size:
            length = long_size
        yield ContainerChunk(name, offset + width, length)
        if name in (b"data", b"SSND") and magic != b"caff" and not past_audio:
            return
        offset += width + length
        is_odd = alignment == 2 and offset % 2 == 1
        offset += -offset % alignment


# --- The extension of WAVEFORMATEXTENSIBLE: valid bits, channel mask, and GUID of the encoding

_EXTENSIBLE_TAG, _EXTENSION_OFFSET, _EXTENSION_BYTES = 0xFFFE, 18, 22


def read_format_extension(path: Path) -> bytes:
    """Return the extension of a .wav's format chunk; empty if it has none."""
    if (start := _extension_offset(path)) is None:
        return b""
    with path.open("rb") as stream:
        stream.seek(start)
        return stream.read(_EXTENSION_BYTES)


def write_format_extension(path: Path, extension: bytes) -> None:
    """Replace the extension of a .wav's format chunk, if it has one."""
    if (start := _extension_offset(path)) is not None:
        replace_bytes(path, start, start + _EXTENSION_BYTES, extension)


def _extension_offset(path: Path) -> int | None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        magic = stream.read(4)
        if magic not in (b"RIFF", b"RF64", b"BW64"):
            return None
        for chunk in iter_container_chunks(stream, magic, size):
            if chunk.name == b"fmt " and chunk.size >= _EXTENSION_OFFSET + _EXTENSION_BYTES:
                stream.seek(chunk.start)
                is_extensible = stream.read(2) == struct.pack("<H", _EXTENSIBLE_TAG)
                return chunk.start + _EXTENSION_OFFSET if is_extensible else None
    return None


# --- Chunks with tags and cue points

MAX_CHUNK_BYTES = 16 * 2**20  # a cover is smaller
_CONTAINER_FAMILIES = {
    b"RIFF": "wav", b"RF64": "wav", b"BW64": "wav", b"riff": "wav", b"RIFX": "rifx",
    b"FORM": "aiff",
}  # fmt: skip
_TAG_CHUNKS = (
    b"bext", b"iXML", b"axml", b"chna", b"_PMX", b"cart", b"id3 ", b"ID3 ", b"NAME", b"AUTH", b"(c) ",
    b"ANNO",
)  # fmt: skip
_CUE_CHUNKS = (b"cue ", b"plst", b"smpl", b"inst", b"MARK", b"INST", b"COMT")
_INFO_NAME_OF = {
    b"TITLE": b"INAM", b"ARTIST": b"IART", b"ALBUM": b"IPRD", b"DATE": b"ICRD", b"GENRE": b"IGNR",
    b"COMMENT": b"ICMT", b"DESCRIPTION": b"ICMT", b"COPYRIGHT": b"ICOP", b"TRACKNUMBER": b"ITRK",
}  # fmt: skip


class TagChunk(NamedTuple):
    """Chunk that holds tags or cue points."""

    name: bytes
    content: bytes


def container_family(path: Path) -> str | None:
    """Return a key that files which can exchange chunks share; None for other containers."""
    with path.open("rb") as stream:
        return _CONTAINER_FAMILIES.get(stream.read(4))


def read_tag_chunks(path: Path, keep_cue_points: bool) -> list[TagChunk]:
    """Read the chunks with tags, in file order, and those with cue points, loops and labels."""
    tag_chunks, size = [], path.stat().st_size
    names = (*_TAG_CHUNKS, b"LIST", *(_CUE_CHUNKS if keep_cue_points else ()))
    # A LIST is either INFO (texts) or adtl (names of cue points).
    lists = (b"INFO", b"adtl") if keep_cue_points else (b"INFO",)
    with path.open("rb") as stream:
        for chunk in iter_container_chunks(stream, stream.read(4), size, past_audio=True):
            if chunk.name in names and chunk.size <= MAX_CHUNK_BYTES and chunk.start + chunk.size <= size:
                stream.seek(chunk.start)
                content = stream.read(chunk.size)
                if chunk.name != b"LIST" or content[:4] in lists:
                    tag_chunks.append(TagChunk(chunk.name, content))
    return tag_chunks


def info_list_chunks(comments: Iterable[bytes]) -> list[TagChunk]:
    """Return comments ``KEY=value`` as an INFO list; an empty list if RIFF has no name for any of them."""
    texts: dict[bytes, bytes] = {}
    for comment in comments:
        key, _, value = comment.partition(b"=")
        if name := _INFO_NAME_OF.get(key.upper()):
            texts.setdefault(name, value + b"\0")
    content = b"INFO" + b"".join(
        name + struct.pack("<I", len(text)) + text + bytes(len(text) % 2) for name, text in texts.items()
    )
    return [TagChunk(b"LIST", content)] if texts else []


def append_chunks(path: Path, new_chunks: Iterable[TagChunk]) -> None:
    """Insert chunks after a file's audio, and add their size to its header.

    In a Wave64 they are inserted before the audio, because libsndfile reads audio to the end of the file.
    """
    # Find the position, and lay out the chunks with their alignment.
    with path.open("rb") as file:
        magic = file.read(4)
        size = path.stat().st_size
        chunks = iter_container_chunks(file, magic, size, past_audio=True)
        audio_start = next((chunk.start for chunk in chunks if chunk.name == b"data"), None)
    layout, alignment = {
        b"riff": ("<16sQ", 8), b"RIFX": (">4sI", 2), b"FORM": (">4sI", 2),
    }.get(magic, ("<4sI", 2))  # fmt: skip
    head = struct.calcsize(layout)
    offset = audio_start - head if magic == b"riff" and audio_start else size
    content = bytes(-offset % alignment)
    for name, body in new_chunks:
        fields = (name + W64_GUID_TAIL, head + len(body)) if magic == b"riff" else (name, len(body))
        content += struct.pack(layout, *fields) + body + bytes(-len(body) % alignment)
    size += len(content)

    # The container's total size; RIFF and AIFF exclude the 8 bytes of their first header.
    size_offset, size_layout, total = 4, layout[0] + "I", size - 8
    if magic in (b"RF64", b"BW64"):
        size_offset, size_layout = 20, "<Q"  # in the chunk ds64, which comes first
    elif magic == b"riff":
        size_offset, size_layout, total = 16, "<Q", size
    elif size >= 2**32:
        return  # 32 bits cannot hold the size: the audio is more important than tags
    replace_bytes(path, offset, offset, content)
    end = size_offset + struct.calcsize(size_layout)
    replace_bytes(path, size_offset, end, struct.pack(size_layout, total))


def replace_bytes(path: Path, start: int, stop: int, content: bytes) -> None:
    """Replace the bytes of a file from `start` up to `stop`, in place."""
    step, shift = 2**20, len(content) - (stop - start)
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        offsets = range(stop, size, step)
        # A longer content moves the rest from its end, so that no byte is overwritten unread.
        for offset in reversed(offsets) if shift > 0 else offsets:
            file.seek(offset)
            block = file.read(min(step, size - offset))
            file.seek(offset + shift)
            file.write(block)
        file.seek(start)
        file.write(content)
        file.truncate(size + shift)
