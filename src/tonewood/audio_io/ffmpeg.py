"""Read audio from containers of phones, browsers and cameras with FFmpeg, through PyAV.

FFmpeg gets the container's name and an open file, so that no content can make it open a playlist, another
file or an address. Its decoders skip a codec's initial delay. The padding at the end is removed here, if
the container declares it.
"""

import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.headers import UNKNOWN_LENGTH
from tonewood.errors import AudioError, MissingExtraError, printable

FFMPEG_SUFFIXES = frozenset(
    {".3gp", ".aac", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp4", ".webm", ".wma"}
)
_CONTAINER_NAMES = {"mov": "MP4", "matroska": "MATROSKA", "asf": "ASF", "aac": "ADTS"}
_ASF_MAGIC = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_MP4_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
# Second byte of ADTS: MPEG version, layer 0 (MPEG audio has layers 1 to 3), checksum or none.
_ADTS_HEADERS = (b"\xf0", b"\xf1", b"\xf8", b"\xf9")
_MAX_PADDING = 16_384  # samples at the end that may be padding: no codec pads more
_TOLERANCE_S = 0.1  # declared durations are in milliseconds, and may include the initial delay
_COMMENT_OF_TAG = {
    "title": "TITLE", "artist": "ARTIST", "album": "ALBUM", "album_artist": "ALBUMARTIST",
    "composer": "COMPOSER", "date": "DATE", "genre": "GENRE", "track": "TRACKNUMBER",
    "comment": "COMMENT", "description": "DESCRIPTION", "copyright": "COPYRIGHT",
}  # fmt: skip
_INTEGER_SCALE = {"u8": 2.0**-7, "s16": 2.0**-15, "s32": 2.0**-31}


PYAV_REMEDY = "PyAV: pip install '.[media]'"


def is_pyav_installed() -> bool:
    """Return True if PyAV is installed."""
    return find_spec("av") is not None


def detect_container(path: Path) -> str | None:
    """Return FFmpeg's name for a file's container, from its first bytes; None if it is not supported."""
    with path.open("rb") as stream:
        start = stream.read(16)
    if start[4:8] in _MP4_ATOMS:
        return "mov"
    if start[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if start == _ASF_MAGIC:
        return "asf"
    return "aac" if start[:1] == b"\xff" and start[1:2] in _ADTS_HEADERS else None


class MediaFile:
    """First audio track of a file, which can be decoded once. Attributes are named as in soundfile.

    Attributes
    ----------
    frames : int
        Declared samples per channel, to within 0.1 s, or `UNKNOWN_LENGTH`.
    tracks : int
        Number of audio tracks.
    warning : None
        Wrong headers are errors.

    Raises
    ------
    MissingExtraError
        PyAV is not installed.
    AudioError
        The file is damaged, or contains no audio that can be decoded.
    """

    warning: str | None = None

    def __init__(self, path: Path, container: str) -> None:
        if not is_pyav_installed():
            raise MissingExtraError(f"{printable(path)} needs {PYAV_REMEDY}, or convert it to .wav or .flac")
        import av

        self._path, self._file = path, path.open("rb")
        try:
            # An empty whitelist forbids FFmpeg to open any address that the content names.
            options = {"protocol_whitelist": ""}
            self._container = cast(Any, av.open(self._file, format=container, options=options))
            streams = self._container.streams.audio
            if not streams:
                raise AudioError(f"{printable(path)} has no audio track: name a file that has one")
            self.tracks, self._stream = len(streams), streams[0]
            context = self._stream.codec_context
            # FFmpeg opens tracks of codecs that it cannot decode; they lack a rate or format.
            if context is None or not context.sample_rate or context.format is None:
                raise AudioError(
                    f"{printable(path)} contains audio that cannot be decoded: convert it to .wav or .flac"
                )
            self.format, self.endian = _CONTAINER_NAMES[container], "FILE"
            self.subtype = _codec_subtype(context)
            self.samplerate, self.channels = int(context.sample_rate), int(context.channels)
            self.frames = self._declared_frames()
        except av.FFmpegError:
            self.close()
            raise _damaged_media_error(path) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if container := getattr(self, "_container", None):
            container.close()
        self._file.close()

    def __enter__(self) -> "MediaFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def comments(self) -> dict[str, str]:
        """Metadata under the names of Vorbis comments; the file's override the track's."""
        metadata = {**self._stream.metadata, **self._container.metadata}
        texts = {key.lower(): str(value) for key, value in metadata.items()}
        return {name: texts[key] for key, name in _COMMENT_OF_TAG.items() if texts.get(key)}

    def cover(self) -> tuple[bytes, str, int, int] | None:
        """Return the cover, its media type, width and height; the audio cannot be decoded afterwards."""
        from av.stream import Disposition

        for stream in self._container.streams.video:
            if stream.disposition & Disposition.attached_pic:
                kind = {"mjpeg": "image/jpeg", "png": "image/png"}.get(stream.codec_context.name)
                packet = next(iter(self._container.demux(stream)), None)
                if kind and packet is not None and packet.size:
                    return bytes(packet), kind, stream.width, stream.height
        return None

    def decode(self) -> Iterator[NDArray[np.float32]]:
        """Decode to the end; yield blocks (channels, samples).

        Raises AudioError at a damaged packet, or at the end if there are fewer samples than declared.
        """
        # The last `_MAX_PADDING` samples are held back until the end shows how many are padding.
        held: deque[NDArray[np.float32]] = deque()
        waiting = decoded = 0
        for block in self._trimmed_blocks():
            held.append(block)
            waiting += block.shape[1]
            decoded += block.shape[1]
            while held and waiting - held[0].shape[1] >= _MAX_PADDING:
                waiting -= held[0].shape[1]
                yield held.popleft()
        rest = np.concatenate(held, axis=1) if held else np.zeros((self.channels, 0), np.float32)
        if padding := self._padding_samples(decoded):
            rest, decoded = rest[:, : rest.shape[1] - padding], decoded - padding
        if rest.shape[1]:
            yield rest
        if self.frames != UNKNOWN_LENGTH and decoded < self.frames - _TOLERANCE_S * self.samplerate:
            raise AudioError(
                f"{printable(self._path)} is cut off or damaged: its header promises "
                f"{self.frames / self.samplerate:.2f} s, {decoded / self.samplerate:.2f} s could be read: "
                "copy or export it again"
            )

    def _trimmed_blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the samples of each packet, cut to the packet's declared duration."""
        import av

        ticks = Fraction(self._stream.time_base) * self.samplerate  # samples per tick
        decoded = 0
        try:
            for packet in self._container.demux(self._stream):
                if packet.is_corrupt:
                    raise _damaged_media_error(self._path, decoded / self.samplerate)
                # In Matroska a tick is a millisecond, too coarse to cut at.
                exact = packet.duration and ticks >= 1 and ticks.denominator == 1
                for frame in packet.decode():
                    block = self._frame_samples(frame)
                    if exact and packet.size:
                        block = block[:, : int(packet.duration * ticks)]
                    decoded += block.shape[1]
                    yield block
        except av.FFmpegError:
            raise _damaged_media_error(self._path, decoded / self.samplerate) from None

    def _frame_samples(self, frame: Any) -> NDArray[np.float32]:  # noqa: ANN401 - av.AudioFrame
        channels = len(frame.layout.channels)
        if (frame.sample_rate, channels) != (self.samplerate, self.channels):
            raise AudioError(
                f"{printable(self._path)} changes from {self.samplerate} Hz and {self.channels} "
                f"channels to {frame.sample_rate} Hz and {channels} midway: convert it to .wav"
            )
        values = frame.to_ndarray()
        if not frame.format.is_planar:
            values = values.reshape(-1, channels).T
        scale = _INTEGER_SCALE.get(frame.format.name.removesuffix("p"))
        if scale is None:
            return np.ascontiguousarray(values, np.float32)
        zero = 128 if values.dtype == np.uint8 else 0  # 8-bit samples are unsigned
        return np.ascontiguousarray((values - np.float64(zero)) * scale, np.float32)

    def _declared_frames(self) -> int:
        stream, rate = self._stream, self.samplerate
        if self.format == "ADTS":  # FFmpeg only estimates it from the bitrate
            return UNKNOWN_LENGTH
        if stream.duration and stream.time_base:
            return round(float(stream.duration * stream.time_base) * rate)
        # Matroska stores a track's duration only as a tag HH:MM:SS.
        if match := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):
            seconds = sum(float(text) * 60.0**n for n, text in enumerate(reversed(match.groups())))
            return round(seconds * rate)
        # The file's duration is that of its longest track.
        alone = len(self._container.streams) == 1 and self._container.duration
        return round(self._container.duration / 1e6 * rate) if alone else UNKNOWN_LENGTH

    def _padding_samples(self, decoded: int) -> int:
        """Return the number of padding samples at the end; 0 if the container does not declare it."""
        # Apple's tag iTunSMPB has hexadecimal fields: a zero, initial delay, padding, length.
        with suppress(IndexError, ValueError):
            length = int(self._container.metadata.get("iTunSMPB", "").split()[3], 16)
            if 0 <= decoded - length < _MAX_PADDING:
                return decoded - length
        if self.format != "MP4" or self.frames == UNKNOWN_LENGTH:
            return 0
        # Edit lists of many writers count milliseconds: only a larger excess is padding.
        excess = decoded - self.frames
        return excess if self.samplerate / 1000 + 1 < excess < _MAX_PADDING else 0


def _codec_subtype(context: Any) -> str:  # noqa: ANN401 - av.CodecContext
    """Return the encoding as libsndfile names it: integers by their bits, codecs by their name."""
    name = str(context.name)
    sample_type = context.format.name.removesuffix("p")
    exact = name.startswith(("pcm_", "alac", "flac", "tta", "wavpack", "wmalossless"))
    if not exact or name in ("pcm_alaw", "pcm_mulaw"):
        return re.sub(r"[^A-Z0-9]", "", name.removeprefix("lib").removesuffix("float").upper())
    if sample_type in ("flt", "dbl"):
        return "FLOAT" if sample_type == "flt" else "DOUBLE"
    bits = {"u8": 8, "s16": 16}.get(sample_type, 24 if name != "pcm_s32le" else 32)
    return "PCM_U8" if sample_type == "u8" else f"{'ALAC' if name == 'alac' else 'PCM'}_{bits}"


def _damaged_media_error(path: Path, seconds: float | None = None) -> AudioError:
    fault = "has a damaged header or is cut off"
    if seconds is not None:
        fault = f"is damaged or cut off at {seconds:.2f} s"
    return AudioError(f"{printable(path)} {fault}: copy or export it again")
