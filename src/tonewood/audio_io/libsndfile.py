"""libsndfile, tamed: open, decode and encode with its silences and messages put right.

Audio formats: what a file name asks for, and what each container can hold.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from tonewood.audio_io import ffmpeg, headers
from tonewood.audio_io.ffmpeg import MediaFile, detect_container
from tonewood.audio_io.headers import UNKNOWN_LENGTH
from tonewood.audio_io.tags import make_deterministic
from tonewood.errors import AudioError, CallError, printable

_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
_RIFF_SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", *_FLOAT_SUBTYPES, "ULAW", "ALAW")
_SIGNED_SUBTYPES = ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", *_FLOAT_SUBTYPES, "ULAW", "ALAW")

# What may be written. Left out on purpose: ADPCM and GSM, which pad the length to whole blocks;
# aiffs of one byte a sample, which libsndfile 1.2.2 lengthens to an even number of samples; and
# ALAC, whose encoder there crashes the process when the disk is full.
WRITABLE_SUBTYPES: dict[str, tuple[str, ...]] = {
    "WAV": _RIFF_SUBTYPES,
    "WAVEX": _RIFF_SUBTYPES,
    "RF64": _RIFF_SUBTYPES,
    "W64": _RIFF_SUBTYPES,
    "AIFF": ("PCM_16", "PCM_24", "PCM_32", *_FLOAT_SUBTYPES),
    "CAF": _SIGNED_SUBTYPES,
    "AU": _SIGNED_SUBTYPES,
    "FLAC": ("PCM_S8", "PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}

_CONTAINER_OF = {
    ".wav": "WAV",
    ".wave": "WAV",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
    ".aif": "AIFF",
    ".aiff": "AIFF",
    ".aifc": "AIFF",
    ".caf": "CAF",
    ".w64": "W64",
    ".rf64": "RF64",
    ".au": "AU",
}
WRITABLE_SUFFIXES = frozenset(_CONTAINER_OF)

_SUFFIX_OF = {
    "WAV": ".wav",
    "WAVEX": ".wav",
    "RF64": ".rf64",
    "W64": ".w64",
    "AIFF": ".aiff",
    "CAF": ".caf",
    "AU": ".au",
    "FLAC": ".flac",
    "OGG": ".ogg",
    "MP3": ".mp3",
}

_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_MAX_CHANNELS_OF = {"FLAC": 8, "MP3": 2}
# FLAC: 20 bits less a remainder, per its format. Vorbis: libvorbis crashes the process from
# somewhere above 192 kHz on, where it has no encoder set-up.
_MAX_RATE_OF = {"FLAC": 655_350, "VORBIS": 192_000}


@dataclass(frozen=True)
class AudioFormat:
    """How a file keeps its samples.

    Parameters
    ----------
    container : str
        libsndfile's name of the file format: ``WAV``, ``FLAC``, ``OGG``, ``MP3``, ``AIFF`` …
    subtype : str
        libsndfile's name of the encoding: ``PCM_16``, ``FLOAT``, ``VORBIS`` …
    endian : str
        ``FILE`` for the container's usual byte order, else ``LITTLE`` or ``BIG``.
    """

    container: str
    subtype: str
    endian: str = "FILE"

    @property
    def suffix(self) -> str:
        """Usual ending of a file in this format, with its dot."""
        return ".opus" if self.subtype == "OPUS" else _SUFFIX_OF[self.container]

    @property
    def integer_bits(self) -> int | None:
        """Bits of an integer sample; None for floating point and lossy encodings."""
        found = re.fullmatch(r"(?:PCM_[SU]?|ALAC_|DWVW_)(\d+)", self.subtype)
        return int(found[1]) if found else None

    @classmethod
    def for_path(cls, path: str | os.PathLike[str], like: AudioFormat) -> AudioFormat:
        """Choose the format that an output's suffix asks for, as near to `like` as it can be.

        The encoding is kept where the new container has it (24-bit wav → 24-bit flac; float
        wav → float aiff). Otherwise an integer depth becomes the next deeper one there is,
        floats become the deepest integers (flac: 24 bits), and what was lossy becomes 16 bits:
        a decoded mp3, ogg or telephone codec carries no more than that. A suffix of the
        same family keeps the container (``WAVEX`` and ``RF64`` are also spelt ``.wav``).

        Raises
        ------
        CallError
            If the suffix is none that can be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in _CONTAINER_OF:
            known = " ".join(sorted(WRITABLE_SUFFIXES))
            raise CallError(
                f"{printable(path)} ends in '{printable(suffix)}', which is no audio format that can be "
                f"written: use one of {known}"
            )
        container = _CONTAINER_OF[suffix]
        if suffix == ".wav" and like.container in ("WAVEX", "RF64"):
            container = like.container
        subtype = "OPUS" if suffix == ".opus" else _nearest_subtype(container, like)
        endian = like.endian if (container, subtype) == (like.container, like.subtype) else "FILE"
        if not soundfile.check_format(container, subtype, endian):
            endian = "FILE"
        return cls(container, subtype, endian)


def readable_suffixes() -> frozenset[str]:
    """Suffixes of what can be read as things are installed."""
    return WRITABLE_SUFFIXES | ffmpeg.FFMPEG_SUFFIXES if ffmpeg.is_pyav_installed() else WRITABLE_SUFFIXES


def default_output_name(path: Path) -> Path:
    """What an output is called by itself: as its input, and ``.flac`` where that is only read."""
    return path.with_suffix(".flac") if path.suffix.lower() in ffmpeg.FFMPEG_SUFFIXES else path


def _nearest_subtype(container: str, like: AudioFormat) -> str:
    offered = WRITABLE_SUBTYPES[container]
    if like.subtype in offered:
        return like.subtype
    depths = {AudioFormat(container, s).integer_bits or 0: s for s in offered if "PCM" in s}
    if not depths:
        return offered[0]
    wanted = like.integer_bits or (max(depths) if like.subtype in _FLOAT_SUBTYPES else 16)
    return depths[min((d for d in depths if d >= wanted), default=max(depths))]


def why_unsupported(audio_format: AudioFormat, frames: int, channels: int, rate: int) -> str | None:
    """Say why audio of this shape does not fit a format, as 'value; limit'; None if it does.

    Parameters
    ----------
    audio_format : AudioFormat
        The format to be written.
    frames, channels, rate : int
        Samples in each channel, number of channels, samples per second.
    """
    name = audio_format.subtype if audio_format.container == "OGG" else audio_format.container
    label = name.lower()
    if audio_format.subtype not in WRITABLE_SUBTYPES.get(audio_format.container, ()):
        return f"would be {audio_format.container} {audio_format.subtype}, which cannot be written"
    if channels > _MAX_CHANNELS_OF.get(name, channels):
        return f"has {channels} channels; {label} holds {_MAX_CHANNELS_OF[name]}"
    if rate > _MAX_RATE_OF.get(name, rate):
        return f"has {rate} Hz; {label} goes to {_MAX_RATE_OF[name]} Hz"
    rates = {"MP3": _MP3_RATES, "OPUS": _OPUS_RATES}.get(name, (rate,))
    if rate not in rates:
        return f"has {rate} Hz; {label} knows only {', '.join(map(str, rates))} Hz"
    width = {"FLOAT": 4, "DOUBLE": 8}.get(audio_format.subtype, (audio_format.integer_bits or 8) // 8)
    # Their headers count bytes in 32 bits; libsndfile would let the count wrap.
    if audio_format.container in ("WAV", "WAVEX", "AIFF", "AU"):
        size = frames * channels * width
        if size > 2**32 - 2**16:
            return f"takes {size / 2**30:.1f} GiB; {label} holds 4 GiB"
    return None


# Frames at a time. libsndfile's Vorbis encoder keeps a whole write on the stack, so that a long
# one crashes; and a header may promise terabytes, so memory grows only by what was decoded.
ENCODE_BLOCK_FRAMES = 16_384
_DECODE_BLOCK_FRAMES = 131_072  # frames at a time where only we keep them
# An mp3's frame count may or may not include the frame that states it.
_MP3_SLACK = 1_152


class SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # has no stubs
    """A sound file that is only ever run through.

    soundfile seeks to where it is after every block; at the end of a flac of unstated length
    that fails, and the last block is lost.
    """

    def seekable(self) -> bool:
        """Claim that it cannot be sought, so that soundfile does not."""
        return False


@contextmanager
def open_audio(path: Path) -> Iterator[SequentialFile | MediaFile]:
    """Open a recording for reading; AudioError if that is not possible.

    MissingExtraError for what only FFmpeg reads, where PyAV is not installed.
    """
    if path.is_dir():
        raise AudioError(f"{printable(path)} is a folder; a recording is needed: name a file in it")
    if not path.exists():
        raise AudioError(f"{printable(path)} does not exist: check its name")
    if not path.is_file():
        raise AudioError(f"{printable(path)} is no ordinary file: save the audio to one first")
    try:
        file = _open_by_content(path)
    except OSError as error:
        raise read_error(path, error) from error
    with file:
        yield file


def read_error(path: Path, error: OSError) -> AudioError:
    """Build the error for a file that the operating system does not let us read."""
    if isinstance(error, FileNotFoundError):
        return AudioError(f"{printable(path)} does not exist: check its name")
    why = (error.strerror or str(error)).lower()
    return AudioError(f"{printable(path)} cannot be read ({why}): check the file and its permissions")


def _open_by_content(path: Path) -> SequentialFile | MediaFile:
    if path.stat().st_size == 0:
        raise AudioError(f"{printable(path)} is empty (0 bytes): record or copy it again")
    with path.open("rb") as stream:  # a refusal shows here, with the system's own reason
        stream.read(1)
    if media := detect_container(path):
        return MediaFile(path, media)
    known = headers.is_supported_container(path)
    try:
        return SequentialFile(_soundfile_source(path))
    except TypeError:  # soundfile takes the suffix .raw for headerless samples
        known = False
    except soundfile.SoundFileError:
        pass
    if known:
        raise AudioError(f"{printable(path)} has a damaged header: copy or export it again")
    raise AudioError(
        f"{printable(path)} is not audio in a format that can be read: convert it to .wav or .flac"
    )


def _soundfile_source(path: Path) -> str | bytes | io.BytesIO:
    """Give soundfile what to open: the path, or a streamed wav with its size field mended."""
    at = headers.missing_data_size_offset(path)
    if at is not None:
        data = bytearray(path.read_bytes())
        data[at : at + 4] = b"\xff\xff\xff\xff"
        return io.BytesIO(data)
    return _soundfile_name(path)


def _soundfile_name(path: Path) -> str | bytes:
    # soundfile encodes a str strictly, and so refuses names whose bytes are no UTF-8.
    return str(path) if os.name == "nt" else os.fsencode(path)


def decode_blocks(file: soundfile.SoundFile) -> Iterator[npt.NDArray[np.float32]]:
    """Decode to the end, ``(samples, channels)`` at a time."""
    while True:
        block = file.read(out=np.empty((_DECODE_BLOCK_FRAMES, file.channels), np.float32))
        if len(block) == 0:
            return
        yield block


def count_samples(path: Path) -> int:
    """Decode a file and count its samples in each channel."""
    with SequentialFile(_soundfile_source(path)) as file:
        return sum(len(block) for block in decode_blocks(file))


def decode_file(path: Path, file: SequentialFile | MediaFile) -> Iterator[npt.NDArray[np.float32]]:
    """Decode a whole file, ``(channels, samples)`` at a time.

    AudioError at the end if less came than it promises.
    """
    if isinstance(file, MediaFile):
        yield from file.decode()
        return
    failed, total = False, 0
    try:
        for block in decode_blocks(file):
            total += len(block)
            yield np.ascontiguousarray(block.T)
    except soundfile.SoundFileError:
        failed = True
    try:
        _check_complete(path, file, total, failed)
    except OSError as error:  # it has vanished meanwhile
        raise read_error(path, error) from error


def _check_complete(path: Path, file: SequentialFile, total: int, failed: bool) -> None:
    promised: float | None = None if file.frames == UNKNOWN_LENGTH else file.frames
    least = promised or 0.0
    if file.format == "MP3" and file.subtype == "MPEG_LAYER_III":
        length = headers.scan_mp3_length(path)
        if not length.declared:
            if length.samples > total + 2 * _MP3_SLACK:
                raise AudioError(
                    f"{printable(path)} is an mp3 of varying bitrate without a length header, of which "
                    f"only {total / file.samplerate:.2f} s of "
                    f"{length.samples / file.samplerate:.2f} s can be read: convert it to .wav"
                )
            promised = None
        least = (promised or 0) - _MP3_SLACK
    share = headers.declared_to_actual_ratio(path)
    if not failed and total >= least and share <= 1:
        return
    if share > 1:
        promised = file.frames * share if np.isfinite(share) else None
    promise = "more" if promised is None else f"{promised / file.samplerate:.2f} s"
    there = f"{total / file.samplerate:.2f} s"
    if promised is not None and promise == there:
        promise, there = f"{promised:.0f} samples", f"{total}"
    raise AudioError(
        f"{printable(path)} is cut off or damaged: its header promises {promise}, "
        f"{there} could be read: copy or export it again"
    )


def encode_blocks(
    path: Path,
    blocks: Iterable[npt.NDArray[np.floating[Any]]],
    channels: int,
    rate: int,
    audio_format: AudioFormat,
) -> None:
    """Encode blocks ``(channels, samples)`` into a file; raises what soundfile raises.

    The same samples are the same bytes at any time.
    """
    settings: dict[str, Any] = {}
    if audio_format.container in ("OGG", "MP3"):
        settings["compression_level"] = 0.0  # least compression: best quality
    if audio_format.container == "MP3":
        settings["bitrate_mode"] = "CONSTANT"  # 320 kbit/s, or the most the rate allows
    with SequentialFile(
        _soundfile_name(path),
        "w",
        samplerate=rate,
        channels=channels,
        format=audio_format.container,
        subtype=audio_format.subtype,
        endian=audio_format.endian,
        **settings,
    ) as file:
        for block in blocks:
            for start in range(0, block.shape[1], ENCODE_BLOCK_FRAMES):
                file.write(_quantize_samples(block[:, start : start + ENCODE_BLOCK_FRAMES].T, audio_format))
    make_deterministic(path)


def _quantize_samples(block: npt.NDArray[np.floating[Any]], audio_format: AudioFormat) -> npt.NDArray[Any]:
    """Round and clip a block ourselves: libsndfile rounds down in wav, to nearest in flac."""
    bits = audio_format.integer_bits
    if bits is not None:
        # A float32 times a power of two is exact, and holds integers of up to 24 bits.
        wide = np.float32 if block.dtype == np.float32 and bits <= 24 else np.float64
        full = wide(2.0 ** (bits - 1))
        whole = np.clip(np.rint(block * full), -full, full - 1)
        # libsndfile takes the top bits of an int32, which are then exact.
        return np.ascontiguousarray(whole.astype(np.int32) << (32 - bits))
    if audio_format.subtype in ("ULAW", "ALAW"):
        block = np.clip(block, -1.0, 1.0)  # beyond, their tables would be overrun
    return np.ascontiguousarray(block, dtype=np.float64 if audio_format.subtype == "DOUBLE" else np.float32)
