"""Read audio whose header is wrong about its size, without changing the file.

Recorders that were stopped leave sizes at 0 or at an early value, 32-bit sizes wrap round at 4 GiB, and
some writers count their header as audio. Where the file shows plainly what it holds, it is read through a
corrected header; otherwise a warning says what was not read. Sources: the specifications of RIFF, RF64
(EBU Tech 3306), BW64 (ITU-R BS.2088), AIFF, CAF and .au.
"""

import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from tonewood.audio_io.headers import (
    ContainerChunk,
    counts_header_as_audio,
    is_chunk_name,
    is_placeholder_size,
    iter_container_chunks,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_WRAP = 2**32  # sizes of RIFF have 32 bits
_MAX_HEADER_BYTES = 64 * 2**20  # a corrected header is in memory
_MIN_REPORTED_S = 0.05  # a shorter rest is padding
_PROBE_BYTES = 65_536
# What players write behind the last chunk: ID3v1, APE tags, ID3v2.
_TRAILING_TAGS = (b"TAG", b"APETAGEX", b"ID3")


class HeaderFinding(NamedTuple):
    """Result of the inspection of a header."""

    # Corrected header, which replaces the bytes before `start`; None if libsndfile reads the file as it is
    header: bytes | None = None
    start: int = 0
    stop: int = 0  # end of what is read
    warning: str | None = None  # what is wrong with the header


class SplicedFile(io.RawIOBase):
    """File whose first bytes are replaced; read only."""

    def __init__(self, path: Path, finding: HeaderFinding) -> None:
        super().__init__()
        assert finding.header is not None
        self._file, self._head = path.open("rb"), finding.header
        self._shift = finding.start - len(self._head)
        self._size, self._position = finding.stop - self._shift, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset from the start, the position or the end."""
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read up to the size of a buffer; return the number of bytes."""
        view = memoryview(buffer).cast("B")
        count = min(len(view), max(0, self._size - self._position))
        if self._position < len(self._head):
            part = self._head[self._position : self._position + count]
        else:
            self._file.seek(self._position + self._shift)
            part = self._file.read(count)
        view[: len(part)] = part
        self._position += len(part)
        return len(part)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def inspect_header(path: Path) -> HeaderFinding:
    """Compare a header with the size of its file."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8)
        magic = head[:4]
        chunks = []
        for chunk in iter_container_chunks(stream, magic, size):
            chunks.append(chunk)
            if chunk.name in (b"data", b"SSND"):
                break
        if not chunks or chunks[-1].name not in (b"data", b"SSND") or chunks[-1].start > _MAX_HEADER_BYTES:
            return HeaderFinding()
        audio = chunks[-1]
        if magic in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
            return _inspect_riff(stream, magic, chunks, size)
        if magic == b"FORM":
            return _inspect_aiff(stream, chunks, size)
        if magic in (b".snd", b"dns.", b"caff") and audio.size == 0 and size > audio.start + 16:
            order, width = (">Q", 8) if magic == b"caff" else (">I" if magic == b".snd" else "<I", 4)
            field = audio.start - 8 if magic == b"caff" else 8
            content = bytearray(_read(stream, 0, audio.start))
            content[field : field + width] = struct.pack(order, min(size - audio.start, 2 ** (8 * width) - 1))
            return HeaderFinding(bytes(content), audio.start, size)
        return HeaderFinding(warning=_excess_warning(audio, size))


def rebuild_header(path: Path) -> HeaderFinding | None:
    """Return a header with the format and the audio alone, for a .wav whose other chunks are malformed."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        magic = stream.read(4)
        if magic not in (b"RIFF", b"RIFX"):
            return None
        order = "<" if magic == b"RIFF" else ">"
        chunks = list(iter_container_chunks(stream, magic, size))
        form = next((chunk for chunk in chunks if chunk.name == b"fmt " and chunk.size <= 4096), None)
        if form is None or chunks[-1].name != b"data":
            return None
        audio = chunks[-1]
        stop = min(audio.start + audio.size, size)
        body = b"WAVE"
        for chunk in chunks:
            if chunk is form or (chunk.name == b"fact" and chunk.size <= 4096):
                content = _read(stream, chunk.start, chunk.size)
                body += (
                    chunk.name + struct.pack(order + "I", len(content)) + content + bytes(len(content) % 2)
                )
        body += b"data" + struct.pack(order + "I", stop - audio.start)
        total = min(len(body) + stop - audio.start, _WRAP - 1)
        warning = inspect_header(path).warning
    return HeaderFinding(magic + struct.pack(order + "I", total) + body, audio.start, stop, warning)


def _inspect_riff(stream: BinaryIO, magic: bytes, chunks: list[ContainerChunk], size: int) -> HeaderFinding:
    audio, order = chunks[-1], ">" if magic == b"RIFX" else "<"
    is_long = magic in (b"RF64", b"BW64")
    (riff_size,) = struct.unpack(order + "I", _read(stream, 4, 4))
    header = bytearray(_read(stream, 0, audio.start))
    bytes_per_second, block = _byte_rate(stream, chunks, order)
    available = size - audio.start
    streamed = audio.size == 0 and available > 0 and not (
        audio.start < 8 + riff_size and _is_chunk_sequence(stream, audio.start, size)
    )  # fmt: skip
    unknown = streamed or is_placeholder_size(magic, audio) or (is_long and audio.size == _WRAP - 1)
    if unknown and (is_long or available >= _WRAP) and magic != b"RIFX":
        return _long_riff(header, magic, audio, size, block)
    if streamed:
        header[audio.start - 4 :] = b"\xff\xff\xff\xff"  # the largest size: libsndfile reads to the end
        return HeaderFinding(bytes(header), audio.start, size)
    if magic == b"RIFF" and (stop := _wrapped_end(stream, audio, size)):
        return _long_riff(header, magic, audio, stop, block)
    end = audio.start + audio.size
    if magic == b"BW64":  # an RF64 by another name, which libsndfile does not know
        header[:4] = b"RF64"
        return HeaderFinding(bytes(header), audio.start, size, _excess_warning(audio, size))
    if end > size:
        return HeaderFinding(warning=_excess_warning(audio, size))
    return HeaderFinding(warning=_rest_warning(stream, end, size, bytes_per_second))


def _long_riff(
    header: bytearray, magic: bytes, audio: ContainerChunk, stop: int, block: int
) -> HeaderFinding:
    """Return the header of an RF64 with the chunks of another header before its audio."""
    data_size = stop - audio.start
    body = bytes(header[12 : audio.start - 8])
    if magic != b"RIFF" and body[:4] == b"ds64":  # replaced by the one below
        body = body[8 + struct.unpack_from("<I", body, 4)[0] :]
    total = 4 + 36 + len(body) + 8 + data_size
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, total, data_size, data_size // max(block, 1), 0)
    start = b"RF64\xff\xff\xff\xffWAVE" + ds64 + body + b"data\xff\xff\xff\xff"
    return HeaderFinding(start, audio.start, stop)


def _inspect_aiff(stream: BinaryIO, chunks: list[ContainerChunk], size: int) -> HeaderFinding:
    """Correct the sizes of an .aiff that was never finished."""
    audio = chunks[-1]
    common = next((chunk for chunk in chunks if chunk.name == b"COMM" and chunk.size >= 18), None)
    unfinished = audio.size <= 8 and size > audio.start + 16
    if not unfinished or common is None or _is_chunk_sequence(stream, audio.start + audio.size, size):
        end = audio.start + audio.size
        if end > size:
            return HeaderFinding(warning=_excess_warning(audio, size))
        return HeaderFinding(warning=_rest_warning(stream, end, size, _aiff_byte_rate(stream, common)))
    header = bytearray(_read(stream, 0, audio.start))
    channels, _, bits = struct.unpack(">HIH", _read(stream, common.start, 8))
    frames = (size - audio.start - 8) // max(channels * -(-bits // 8), 1)
    struct.pack_into(">I", header, 4, min(size - 8, _WRAP - 1))
    struct.pack_into(">I", header, common.start + 2, min(frames, _WRAP - 1))
    struct.pack_into(">I", header, audio.start - 4, min(size - audio.start, _WRAP - 1))
    return HeaderFinding(bytes(header), audio.start, size)


def _aiff_byte_rate(stream: BinaryIO, common: ContainerChunk | None) -> int:
    if common is None:
        return 0
    content = _read(stream, common.start, 18)
    channels, _, bits, exponent, mantissa = struct.unpack(">HIHHQ", content)
    # An 80-bit float with its exponent biased by 16383 and a mantissa of 63 fractional bits.
    rate = float(mantissa) * 2.0 ** min((exponent & 0x7FFF) - 16383 - 63, 0)
    return int(rate) * int(channels) * -(-int(bits) // 8)


def _wrapped_end(stream: BinaryIO, audio: ContainerChunk, size: int) -> int | None:
    """Return the end of audio whose size wrapped round, or None."""
    end = audio.start + audio.size + _WRAP
    while end <= size:
        # What follows the audio shows that the size is right modulo 4 GiB.
        if size - end <= 1 or _is_chunk_sequence(stream, end + end % 2, size):
            return end
        end += _WRAP
    return None


def _is_chunk_sequence(stream: BinaryIO, offset: int, size: int) -> bool:
    """Return True if a chunk starts at an offset and ends inside the file."""
    head = _read(stream, offset, 8)
    if len(head) < 8 or not is_chunk_name(head[:4]):
        return False
    lengths = struct.unpack("<I", head[4:]) + struct.unpack(">I", head[4:])
    return any(offset + 8 + length <= size for length in lengths)


def _excess_warning(audio: ContainerChunk, size: int) -> str | None:
    """Return a warning for a header that promises a little more than the file holds."""
    if not counts_header_as_audio(audio, size):
        return None
    missing = audio.start + audio.size - size
    return f"the header promises {missing} bytes more than the file holds; the whole file was read"


def _rest_warning(stream: BinaryIO, end: int, size: int, bytes_per_second: int) -> str | None:
    """Return a warning if bytes after the audio are neither chunks nor tags nor zeros."""
    offset = end + end % 2
    rest = size - offset
    if not bytes_per_second or rest < _MIN_REPORTED_S * bytes_per_second:
        return None
    start = _read(stream, offset, _PROBE_BYTES)
    if start.startswith(_TRAILING_TAGS) or _is_chunk_sequence(stream, offset, size):
        if start[:4] != b"data":
            return None
        return f"the file has a second data chunk of {rest / bytes_per_second:.2f} s, which was not read"
    middle, last = (
        _read(stream, offset + at, _PROBE_BYTES) for at in (rest // 2, max(0, rest - _PROBE_BYTES))
    )
    if not any(map(any, (start, middle, last))):
        return None
    return (
        f"the file holds {rest / bytes_per_second:.2f} s more than its header promises, which was not read: "
        "if that is audio, correct the header with ffmpeg -ignore_length 1 -i OLD.wav -c copy NEW.wav"
    )


def _byte_rate(stream: BinaryIO, chunks: list[ContainerChunk], order: str) -> tuple[int, int]:
    """Return bytes per second and bytes per frame of a .wav; zeros if it states none."""
    for chunk in chunks:
        if chunk.name == b"fmt " and chunk.size >= 16:
            _, _, _, rate, block, _ = struct.unpack(order + "HHIIHH", _read(stream, chunk.start, 16))
            return rate, block
    return 0, 0


def _read(stream: BinaryIO, offset: int, count: int) -> bytes:
    stream.seek(offset)
    return stream.read(count)
