"""Title, artist, cover, cue points: what is said of a sound goes along with it.

Between files of one kind it goes as it is; between kinds, as comments ``KEY=value`` and pictures,
as far as both know them. All of it comes from the input, so that the same input and the same
samples are the same bytes. What is damaged is left out. Sources: RFC 9639 (FLAC), RFC 3533 and
7845 (Ogg, Opus), the Vorbis I specification, ID3v2.

The same sound, the same bytes: what libsndfile adds by the clock and by chance is taken out.

It states the time in the PEAK chunk of float wav and aiff files, and draws the serial number of an
Ogg stream (RFC 3533), which every page repeats and includes in its checksum.
"""

import base64
import binascii
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import soundfile

from tonewood.audio_io import ffmpeg, headers

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


_MAX_FLAC_BLOCK_BYTES = 2**24 - 1  # bytes of a flac block
_PICTURE_KEY = b"METADATA_BLOCK_PICTURE="
_STREAMINFO, _APPLICATION, _SEEKTABLE, _COMMENT, _CUESHEET, _COVER = 0, 2, 3, 4, 5, 6
_TEXT_FIELDS = (
    "title", "artist", "album", "date", "genre", "comment", "copyright", "license", "tracknumber",
)  # fmt: skip
_OGG_COMMENT_HEADERS = {
    b"\x03vorbis": (3, b"\x01"),
    b"OpusTags": (2, b""),
}  # header packets, end of comments


@dataclass(frozen=True)
class Tags:
    """What is said of a sound.

    Parameters
    ----------
    comments : tuple of bytes
        ``KEY=value``, UTF-8.
    pictures : tuple of bytes
        Flac's picture blocks.
    flac_blocks : tuple of (int, bytes)
        Other blocks of a flac, by type.
    """

    comments: tuple[bytes, ...] = ()
    pictures: tuple[bytes, ...] = ()
    flac_blocks: tuple[tuple[int, bytes], ...] = ()


def copy_tags(source: Path, output: Path, *, keep_cue_points: bool) -> None:
    """Put into an output what its source says of the sound.

    Parameters
    ----------
    keep_cue_points : bool
        Whether rate and length are the source's, so that cue points stay where they are.
    """
    kinds = headers.container_family(source), headers.container_family(output)
    if kinds[1] and kinds[0] == kinds[1]:
        if found := headers.read_tag_chunks(source, keep_cue_points):
            headers.append_chunks(output, found)
    elif _is_mp3(source) and _is_mp3(output):
        _copy_id3(source, output)
    else:
        try:
            tags = read_tags(source, keep_cue_points=keep_cue_points)
        except (ValueError, struct.error, IndexError):
            return
        write_tags(output, tags)


def read_tags(path: Path, *, keep_cue_points: bool = True) -> Tags:
    """Tags of a file; ValueError, IndexError or struct.error where they are damaged."""
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == b"fLaC":
            return _read_flac_tags(file, keep_cue_points)
        if magic == b"OggS":
            file.seek(0)
            return _read_ogg_tags(file)
    if kind := ffmpeg.detect_container(path):
        with ffmpeg.MediaFile(path, kind) as it:
            texts = tuple(f"{key}={text}".encode() for key, text in it.comments.items())
            cover = it.cover()
            return Tags(texts, (_flac_picture(*cover),) if cover else ())
    try:
        with soundfile.SoundFile(path) as sound:
            texts = sound.copy_metadata()
    except (soundfile.SoundFileError, TypeError, UnicodeError):
        return Tags()
    return Tags(tuple(f"{k.upper()}={texts[k]}".encode() for k in _TEXT_FIELDS if texts.get(k)))


def write_tags(path: Path, tags: Tags) -> None:
    """Put tags into a flac or Ogg in place of its own, or into a wav that has none; no others."""
    if tags == Tags():
        return
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"fLaC":
        _write_flac_tags(path, tags)
    elif magic == b"OggS":
        _write_ogg_tags(path, tags)
    elif headers.container_family(path) == "wav" and (made := headers.info_list_chunks(tags.comments)):
        headers.append_chunks(path, made)


# --- Comments, as Vorbis, Opus and flac write them


def _parse_comments(content: bytes) -> tuple[bytes, ...]:
    (size,) = struct.unpack_from("<I", content)
    at = 4 + size
    (count,) = struct.unpack_from("<I", content, at)
    at, found = at + 4, []
    if count * 4 > len(content):
        raise ValueError
    for _ in range(count):
        (size,) = struct.unpack_from("<I", content, at)
        if at + 4 + size > len(content):
            raise ValueError
        found.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return tuple(it for it in found if b"=" in it)


def _format_comments(old_comments: bytes, comments: tuple[bytes, ...]) -> bytes:
    """Comments, with the vendor (who encoded the file) of those that were there before."""
    (size,) = struct.unpack_from("<I", old_comments)
    packed = (struct.pack("<I", len(it)) + it for it in comments)
    return old_comments[: 4 + size] + struct.pack("<I", len(comments)) + b"".join(packed)


# --- Flac


def _read_flac_blocks(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Metadata blocks from where a file stands, up to its first frame."""
    last = False
    while not last:
        head = file.read(4)
        size = int.from_bytes(head[1:], "big")
        content = file.read(size)
        if len(head) < 4 or len(content) < size:
            raise ValueError
        last = bool(head[0] & 0x80)
        yield head[0] & 0x7F, content


def _read_flac_tags(file: BinaryIO, keep_cue_points: bool) -> Tags:
    comments: tuple[bytes, ...] = ()
    pictures, others = [], []
    for kind, content in _read_flac_blocks(file):
        if kind == _COMMENT:
            comments += _parse_comments(content)
        elif kind == _COVER:
            pictures.append(content)
        elif kind == _APPLICATION or (kind == _CUESHEET and keep_cue_points):
            others.append((kind, content))
    return Tags(comments, tuple(pictures), tuple(others))


def _write_flac_tags(path: Path, tags: Tags) -> None:
    with path.open("rb") as file:
        file.seek(4)
        there = list(_read_flac_blocks(file))
        end = file.tell()
    vendor = next((it for kind, it in there if kind == _COMMENT), struct.pack("<II", 0, 0))
    made = [(kind, it) for kind, it in there if kind in (_STREAMINFO, _SEEKTABLE)]
    made.append((_COMMENT, _format_comments(vendor, tags.comments)))
    made += [*((_COVER, it) for it in tags.pictures), *tags.flac_blocks]
    made = [(kind, it) for kind, it in made if len(it) <= _MAX_FLAC_BLOCK_BYTES]
    head = b""
    for number, (kind, content) in enumerate(made, start=1):
        flag = 0x80 if number == len(made) else 0
        head += bytes([flag | kind]) + len(content).to_bytes(3, "big") + content
    headers.replace_bytes(path, 4, end, head)


def _flac_picture(content: bytes, mime: str, width: int, height: int) -> bytes:
    """Flac's picture block of a front cover."""
    name = mime.encode()
    return (
        struct.pack(">II", 3, len(name)) + name
        + struct.pack(">IIIIII", 0, width, height, 24, 0, len(content)) + content
    )  # fmt: skip


# --- Ogg


def _read_ogg_packets(file: BinaryIO, count: int) -> Iterator[bytes]:
    """The first packets of an Ogg's first stream."""
    packet, serial = b"", None
    while count:
        head = file.read(27)
        if len(head) < 27 or head[:4] != b"OggS":
            raise ValueError
        lacing = file.read(head[26])
        body = file.read(sum(lacing))
        serial = serial or head[14:18]
        if head[14:18] != serial:
            continue
        at = 0
        for lace in lacing:
            packet, at = packet + body[at : at + lace], at + lace
            if len(packet) > 2 * _MAX_FLAC_BLOCK_BYTES:
                raise ValueError
            if lace < 255 and count:
                yield packet
                packet, count = b"", count - 1


def _read_ogg_tags(file: BinaryIO) -> Tags:
    _, packet = _read_ogg_packets(file, 2)
    start = next((head for head in _OGG_COMMENT_HEADERS if packet.startswith(head)), None)
    if start is None:
        return Tags()
    comments, pictures = [], []
    for comment in _parse_comments(packet[len(start) :]):
        if comment.upper().startswith(_PICTURE_KEY):
            try:
                pictures.append(base64.b64decode(comment[len(_PICTURE_KEY) :], validate=True))
            except binascii.Error:
                continue
        else:
            comments.append(comment)
    return Tags(tuple(comments), tuple(pictures))


def _write_ogg_tags(path: Path, tags: Tags) -> None:
    pictures = tuple(_PICTURE_KEY + base64.b64encode(it) for it in tags.pictures)
    with path.open("rb") as file:
        _, before = _read_ogg_packets(file, 2)
        start = next(head for head in _OGG_COMMENT_HEADERS if before.startswith(head))
        count, end = _OGG_COMMENT_HEADERS[start]
        file.seek(0)
        first, _, *rest = _read_ogg_packets(file, count)
        # Sound begins on a page of its own, as both codecs demand.
        sound = file.tell()
    comments = start + _format_comments(before[len(start) :], tags.comments + pictures) + end
    if len(comments) > _MAX_FLAC_BLOCK_BYTES:
        return
    headers.replace_bytes(path, 28 + len(first), sound, _paginate([comments, *rest]))
    make_deterministic(path)


def _paginate(packets: list[bytes]) -> bytes:
    """Pages of packets; `make_deterministic` numbers them and adds their checksums."""
    laces: list[bytes] = []
    for packet in packets:
        laces += [packet[at : at + 255] for at in range(0, len(packet), 255)]
        laces += [b""] if len(packet) % 255 == 0 else []
    pages, goes_on = b"", False
    for at in range(0, len(laces), 255):
        page = laces[at : at + 255]
        ends = any(len(it) < 255 for it in page)
        head = struct.pack("<4sBBq12xB", b"OggS", 0, goes_on, 0 if ends else -1, len(page))
        pages += head + bytes(len(it) for it in page) + b"".join(page)
        goes_on = len(page[-1]) == 255
    return pages


# --- Mp3


def _is_mp3(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(3)
    return start == b"ID3" or (start[:1] == b"\xff" and start[1:2] >= b"\xe2")


def _copy_id3(source: Path, output: Path) -> None:
    with source.open("rb") as file:
        head = file.read(10)
        tag, tail = b"", b""
        if head[:3] == b"ID3" and len(head) == 10:
            size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
            body = file.read(min(size, headers.MAX_CHUNK_BYTES))
            tag = head + body if len(body) == size else b""
        if source.stat().st_size > 128:
            file.seek(-128, 2)
            tail = file.read()
    if tail[:3] == b"TAG":
        with output.open("ab") as end:
            end.write(tail)
    if tag:
        headers.replace_bytes(output, 0, 0, tag)
