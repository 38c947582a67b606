"""Copy tags, covers and cue points between recordings, and keep their bytes reproducible.

Between files of the same kind, tags are copied unchanged; otherwise as comments ``KEY=value`` and pictures,
as far as both kinds support them. Damaged tags are skipped. Sources: RFC 9639 (FLAC), RFC 3533 and 7845
(Ogg, Opus), the Vorbis I specification, ID3v2.

The same samples and the same input give the same bytes. libsndfile prevents that in two places: it writes
the time into the PEAK chunk of float .wav and .aiff files, and gives an Ogg stream a random serial number,
which every page repeats and includes in its checksum.
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
_OGG_SERIAL = b"wood"  # any fixed value: it distinguishes streams within one file only


def make_deterministic(path: Path) -> None:
    """Overwrite the time and the random serial number that libsndfile wrote into a file."""
    with path.open("r+b") as file:
        magic = file.read(4)
        if magic == b"OggS":
            _renumber_ogg_pages(file)
        elif magic in (b"RIFF", b"RIFX", b"FORM"):
            for chunk in headers.iter_container_chunks(file, magic, path.stat().st_size):
                if chunk.name == b"PEAK":
                    file.seek(chunk.start + 4)  # the time follows the version, each of 4 bytes
                    file.write(bytes(4))
                    return


def _renumber_ogg_pages(file: BinaryIO) -> None:
    """Set serial number, page number and checksum of every page."""
    offset = number = 0
    while True:
        file.seek(offset)
        head = file.read(27)
        if len(head) < 27:
            return
        lacing = file.read(head[26])
        page = head[:14] + _OGG_SERIAL + number.to_bytes(4, "little") + bytes(4) + head[26:] + lacing
        page += file.read(sum(lacing))
        file.seek(offset)
        file.write(page[:22] + _ogg_checksum(page).to_bytes(4, "little") + page[26:])
        offset, number = offset + len(page), number + 1


def _ogg_checksum(page: bytes) -> int:
    """Return the CRC-32 of RFC 3533: zlib's polynomial, but with bits not reversed, and starting at 0."""
    # zlib inverts its start value and its result; starting at all ones and inverting undoes both.
    mirrored = zlib.crc32(page.translate(_BIT_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


_MAX_FLAC_BLOCK_BYTES = 2**24 - 1  # the header counts in 24 bits
_PICTURE_KEY = b"METADATA_BLOCK_PICTURE="
_STREAMINFO, _APPLICATION, _SEEKTABLE, _COMMENT, _CUESHEET, _COVER = 0, 2, 3, 4, 5, 6
_TEXT_FIELDS = (
    "title", "artist", "album", "date", "genre", "comment", "copyright", "license", "tracknumber",
)  # fmt: skip
# By the start of the comment packet: number of header packets (Vorbis has a third one, with codebooks), and
# the comment packet's last bytes (Vorbis ends it with a framing bit).
_OGG_COMMENT_HEADERS = {b"\x03vorbis": (3, b"\x01"), b"OpusTags": (2, b"")}


@dataclass(frozen=True)
class Tags:
    """Tags of a recording."""

    comments: tuple[bytes, ...] = ()  # ``KEY=value``, UTF-8
    pictures: tuple[bytes, ...] = ()  # FLAC picture blocks
    flac_blocks: tuple[tuple[int, bytes], ...] = ()  # other FLAC metadata blocks, with their types


def copy_tags(source: Path, output: Path, *, keep_cue_points: bool) -> None:
    """Copy the tags of a recording into an output; cue points stay valid if rate and length are the same."""
    family = headers.container_family(output)
    if family and family == headers.container_family(source):
        if tag_chunks := headers.read_tag_chunks(source, keep_cue_points):
            headers.append_chunks(output, tag_chunks)
    elif _is_mp3(source) and _is_mp3(output):
        _copy_id3(source, output)
    else:
        try:
            tags = read_tags(source, keep_cue_points=keep_cue_points)
        except (ValueError, struct.error, IndexError):
            return
        write_tags(output, tags)


def read_tags(path: Path, *, keep_cue_points: bool = True) -> Tags:
    """Read the tags of a file; ValueError, IndexError or struct.error if they are damaged."""
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == b"fLaC":
            return _read_flac_tags(file, keep_cue_points)
        if magic == b"OggS":
            file.seek(0)
            return _read_ogg_tags(file)
    if container := ffmpeg.detect_container(path):
        with ffmpeg.MediaFile(path, container) as media:
            texts = tuple(f"{key}={text}".encode() for key, text in media.comments.items())
            cover = media.cover()
            return Tags(texts, (_flac_picture(*cover),) if cover else ())
    try:
        with path.open("rb") as file, soundfile.SoundFile(file) as sound:
            texts = sound.copy_metadata()
    except (soundfile.SoundFileError, TypeError, UnicodeError):
        return Tags()
    return Tags(tuple(f"{k.upper()}={texts[k]}".encode() for k in _TEXT_FIELDS if texts.get(k)))


def write_tags(path: Path, tags: Tags) -> None:
    """Replace the tags of a FLAC or Ogg, or add them to a .wav without tags; skip other files."""
    if tags == Tags():
        return
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"fLaC":
        _write_flac_tags(path, tags)
    elif magic == b"OggS":
        _write_ogg_tags(path, tags)
    elif headers.container_family(path) == "wav" and (info := headers.info_list_chunks(tags.comments)):
        headers.append_chunks(path, info)


# --- Comments of Vorbis, Opus and FLAC


def _parse_comments(content: bytes) -> tuple[bytes, ...]:
    (size,) = struct.unpack_from("<I", content)
    offset = 4 + size
    (count,) = struct.unpack_from("<I", content, offset)
    offset, comments = offset + 4, []
    if count * 4 > len(content):  # damaged: the count goes to four billion, each with 4 bytes of size
        raise ValueError
    for _ in range(count):
        (size,) = struct.unpack_from("<I", content, offset)
        if offset + 4 + size > len(content):
            raise ValueError
        comments.append(content[offset + 4 : offset + 4 + size])
        offset += 4 + size
    return tuple(comment for comment in comments if b"=" in comment)


def _format_comments(old_comments: bytes, comments: tuple[bytes, ...]) -> bytes:
    """Pack comments behind the vendor (the encoder's name) of the old comments."""
    (size,) = struct.unpack_from("<I", old_comments)
    packed = (struct.pack("<I", len(comment)) + comment for comment in comments)
    return old_comments[: 4 + size] + struct.pack("<I", len(comments)) + b"".join(packed)


# --- FLAC


def _read_flac_blocks(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the metadata blocks, up to the first frame of audio."""
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
        old = list(_read_flac_blocks(file))
        end = file.tell()
    comments = next((content for kind, content in old if kind == _COMMENT), struct.pack("<II", 0, 0))
    # STREAMINFO must come first (RFC 9639, section 8.1).
    new = [(kind, content) for kind, content in old if kind in (_STREAMINFO, _SEEKTABLE)]
    new.append((_COMMENT, _format_comments(comments, tags.comments)))
    new += [*((_COVER, picture) for picture in tags.pictures), *tags.flac_blocks]
    new = [(kind, content) for kind, content in new if len(content) <= _MAX_FLAC_BLOCK_BYTES]
    head = b""
    for number, (kind, content) in enumerate(new, start=1):
        last_flag = 0x80 if number == len(new) else 0
        head += bytes([last_flag | kind]) + len(content).to_bytes(3, "big") + content
    headers.replace_bytes(path, 4, end, head)


def _flac_picture(content: bytes, mime: str, width: int, height: int) -> bytes:
    """Return the FLAC picture block of a front cover."""
    name = mime.encode()
    # Type 3 is the front cover, 24 the bits per pixel, and 0 colours mean no palette (RFC 9639, 8.8).
    return (
        struct.pack(">II", 3, len(name)) + name
        + struct.pack(">IIIIII", 0, width, height, 24, 0, len(content)) + content
    )  # fmt: skip


# --- Ogg


def _read_ogg_packets(file: BinaryIO, count: int) -> Iterator[bytes]:
    """Yield the first packets of the first stream of an Ogg."""
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
        start = 0
        for lace in lacing:
            packet, start = packet + body[start : start + lace], start + lace
            if len(packet) > 2 * _MAX_FLAC_BLOCK_BYTES:  # base64 makes a cover of 16 MB a third larger
                raise ValueError
            if lace < 255 and count:  # a packet continues after a lace of 255
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
    pictures = tuple(_PICTURE_KEY + base64.b64encode(picture) for picture in tags.pictures)
    with path.open("rb") as file:
        _, before = _read_ogg_packets(file, 2)
        start = next(head for head in _OGG_COMMENT_HEADERS if before.startswith(head))
        count, end = _OGG_COMMENT_HEADERS[start]
        file.seek(0)
        first, _, *rest = _read_ogg_packets(file, count)
        # Both codecs require that the audio starts on a new page.
        audio_start = file.tell()
    comments = start + _format_comments(before[len(start) :], tags.comments + pictures) + end
    if len(comments) > _MAX_FLAC_BLOCK_BYTES:
        return
    headers.replace_bytes(path, 28 + len(first), audio_start, _paginate([comments, *rest]))
    make_deterministic(path)


def _paginate(packets: list[bytes]) -> bytes:
    """Return pages of packets; `make_deterministic` adds their numbers and checksums."""
    # A packet ends with a lace below 255 bytes, so one of a multiple of 255 gets an empty lace.
    laces: list[bytes] = []
    for packet in packets:
        laces += [packet[start : start + 255] for start in range(0, len(packet), 255)]
        laces += [b""] if len(packet) % 255 == 0 else []
    pages, continued = b"", False
    for start in range(0, len(laces), 255):
        page = laces[start : start + 255]
        # The granule position is -1 on a page where no packet ends (RFC 3533, section 6).
        packet_ends = any(len(lace) < 255 for lace in page)
        head = struct.pack("<4sBBq12xB", b"OggS", 0, continued, 0 if packet_ends else -1, len(page))
        pages += head + bytes(len(lace) for lace in page) + b"".join(page)
        continued = len(page[-1]) == 255
    return pages


# --- MP3


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
