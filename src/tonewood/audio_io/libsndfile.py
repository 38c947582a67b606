"""Audio formats; decoding and encoding with libsndfile, with the errors that libsndfile omits."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from tonewood.audio_io import headers
from tonewood.audio_io.ffmpeg import FFMPEG_SUFFIXES, MediaFile, detect_container, is_pyav_installed
from tonewood.audio_io.header_repair import HeaderFinding, SplicedFile, inspect_header, rebuild_header
from tonewood.audio_io.headers import UNKNOWN_LENGTH
from tonewood.audio_io.tags import make_deterministic
from tonewood.errors import AudioError, CallError, failure_reason, may_pass, printable
from tonewood.utils.arrays import Samples
from tonewood.utils.files import fit_name

_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
_RIFF_SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", *_FLOAT_SUBTYPES, "ULAW", "ALAW")
_SIGNED_SUBTYPES = ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", *_FLOAT_SUBTYPES, "ULAW", "ALAW")

# Omitted: ADPCM and GSM, which pad the length to whole blocks; .aiff with one byte per sample, which
# libsndfile 1.2.2 pads to an even number; and ALAC, whose encoder crashes the process on a full disk.
WRITABLE_SUBTYPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("WAV", "WAVEX", "RF64", "W64"), _RIFF_SUBTYPES),
    "AIFF": ("PCM_16", "PCM_24", "PCM_32", *_FLOAT_SUBTYPES),
    "CAF": _SIGNED_SUBTYPES,
    "AU": _SIGNED_SUBTYPES,
    "FLAC": ("PCM_S8", "PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}

_CONTAINER_OF = {
    ".wav": "WAV", ".wave": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".oga": "OGG", ".opus": "OGG",
    ".mp3": "MP3", ".aif": "AIFF", ".aiff": "AIFF", ".aifc": "AIFF", ".caf": "CAF", ".w64": "W64",
    ".rf64": "RF64", ".au": "AU",
}  # fmt: skip
WRITABLE_SUFFIXES = frozenset(_CONTAINER_OF)

_SUFFIX_OF = {
    "WAV": ".wav", "WAVEX": ".wav", "RF64": ".rf64", "W64": ".w64", "AIFF": ".aiff", "CAF": ".caf",
    "AU": ".au", "FLAC": ".flac", "OGG": ".ogg", "MP3": ".mp3",
}  # fmt: skip

_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_MAX_CHANNELS_OF = {"FLAC": 8, "MP3": 2}
# FLAC: 16 bits in steps of 10 Hz (RFC 9639). Vorbis: libvorbis has no setup above 192 kHz, and crashes.
_MAX_RATE_OF = {"FLAC": 655_350, "VORBIS": 192_000}

MAX_32_BIT_SIZE = 2**32 - 2**16
"""Most bytes of audio in a file whose header counts them in 32 bits."""


@dataclass(frozen=True)
class AudioFormat:
    """Container and encoding of an audio file, in libsndfile's names."""

    container: str  # ``WAV``, ``FLAC``, ``OGG``, ``MP3``, ``AIFF`` …
    subtype: str  # ``PCM_16``, ``FLOAT``, ``VORBIS`` …
    endian: str = "FILE"  # ``FILE`` for the container's usual byte order, else ``LITTLE`` or ``BIG``
    # Valid bits, channel mask and encoding of a WAVEFORMATEXTENSIBLE, as hexadecimal digits
    extension: str = ""

    @property
    def suffix(self) -> str:
        """Usual suffix of a file in this format, with its dot."""
        return ".opus" if self.subtype == "OPUS" else _SUFFIX_OF[self.container]

    @property
    def integer_bits(self) -> int | None:
        """Bits of an integer sample; None for floating point and lossy encodings."""
        match = re.fullmatch(r"(?:PCM_[SU]?|ALAC_|DWVW_)(\d+)", self.subtype)
        return int(match[1]) if match else None

    @property
    def valid_bits(self) -> int | None:
        """Bits of an integer sample that are used, which may be fewer than are stored."""
        bits = self.integer_bits
        stated = int.from_bytes(bytes.fromhex(self.extension[:4]), "little")
        return stated if bits and 8 <= stated < bits else bits

    @classmethod
    def for_path(cls, path: str | os.PathLike[str], like: AudioFormat) -> AudioFormat:
        """Return the format of an output's suffix that is closest to `like`.

        The encoding is kept if the new container supports it (24-bit .wav → 24-bit .flac). Otherwise
        integers get the next larger depth, floats the largest integers (.flac: 24 bits), and lossy encodings
        16 bits, because decoding them yields no more. ``WAVEX`` and ``RF64`` remain what they are in a .wav.

        CallError if audio with this suffix cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in _CONTAINER_OF:
            raise CallError(
                f"{printable(path)} ends in '{printable(suffix)}', which is not an audio format that can be "
                f"written: use one of {' '.join(sorted(WRITABLE_SUFFIXES))}"
            )
        container = _CONTAINER_OF[suffix]
        if suffix == ".wav" and like.container in ("WAVEX", "RF64"):
            container = like.container
        subtype = "OPUS" if suffix == ".opus" else _nearest_subtype(container, like)
        endian = like.endian if (container, subtype) == (like.container, like.subtype) else "FILE"
        if not soundfile.check_format(container, subtype, endian):
            endian = "FILE"
        keeps_extension = (container, subtype) == (like.container, like.subtype)
        return cls(container, subtype, endian, like.extension if keeps_extension else "")

    def for_size(self, frames: int, channels: int) -> AudioFormat:
        """Return RF64 (EBU Tech 3306) in place of a WAV that is too long for its header, else itself."""
        is_wav = self.container in ("WAV", "WAVEX")
        return replace(self, container="RF64") if is_wav and _exceeds_header(self, frames, channels) else self


def _exceeds_header(audio_format: AudioFormat, frames: int, channels: int) -> bool:
    """Return True if a header that counts bytes in 32 bits is too small."""
    width = {"FLOAT": 4, "DOUBLE": 8}.get(audio_format.subtype, (audio_format.integer_bits or 8) // 8)
    return frames * channels * width > MAX_32_BIT_SIZE


def readable_suffixes() -> frozenset[str]:
    """Return the suffixes that can be read; some only if PyAV, which is optional, is installed."""
    return WRITABLE_SUFFIXES | FFMPEG_SUFFIXES if is_pyav_installed() else WRITABLE_SUFFIXES


def default_output_name(path: Path) -> Path:
    """Return the input's name, with .flac in place of a suffix that cannot be written."""
    return path.with_name(fit_name(f"{path.stem}.flac")) if path.suffix.lower() in FFMPEG_SUFFIXES else path


def _nearest_subtype(container: str, like: AudioFormat) -> str:
    """Return the container's encoding that is closest to `like`; see `AudioFormat.for_path`."""
    offered = WRITABLE_SUBTYPES[container]
    if like.subtype in offered:
        return like.subtype
    depths = {AudioFormat(container, name).integer_bits or 0: name for name in offered if "PCM" in name}
    if not depths:
        return offered[0]
    bits = like.integer_bits or (max(depths) if like.subtype in _FLOAT_SUBTYPES else 16)
    return depths[min((depth for depth in depths if depth >= bits), default=max(depths))]


def why_unsupported(audio_format: AudioFormat, frames: int, channels: int, rate: int) -> str | None:
    """Return why a format cannot store audio of this shape ('value; limit'), or None if it can."""
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
        return f"has {rate} Hz; {label} supports only {', '.join(map(str, rates))} Hz"
    # libsndfile lets the count of bytes overflow.
    is_short = audio_format.container in ("WAV", "WAVEX", "AIFF", "AU")
    if is_short and _exceeds_header(audio_format, frames, channels):
        return f"takes more than 4 GiB, which {label} cannot hold"
    return None


# --- Decoding and encoding

# libsndfile's Vorbis encoder puts a whole write on the stack, so that a long one crashes.
ENCODE_BLOCK_FRAMES = 16_384
# Fixed, because a header may declare terabytes: memory grows only with the decoded samples.
_DECODE_BLOCK_FRAMES = 131_072
_SMALL_BLOCK_FRAMES = 1_024
# The frame count of an .mp3 may or may not include the frame that contains it, of 1,152 samples.
_MP3_SLACK = 1_152


class SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # has no stubs
    """Sound file that is read or written from start to end.

    soundfile seeks to the current position after every block. At the end of a .flac of unknown length that
    fails, and the last block is lost. A file that reports itself as unseekable avoids this.
    """

    _stream: io.IOBase | None = None

    @classmethod
    def open(cls, path: Path) -> SequentialFile:
        """Open a file for reading; a wrong header is corrected."""
        finding = inspect_header(path)
        try:
            return cls._open_corrected(path, finding)
        except soundfile.SoundFileError:
            rebuilt = rebuild_header(path) if finding.header is None else None
            if rebuilt is None:
                raise
            return cls._open_corrected(path, rebuilt)

    @classmethod
    def _open_corrected(cls, path: Path, finding: HeaderFinding) -> SequentialFile:
        stream = path.open("rb") if finding.header is None else SplicedFile(path, finding)
        try:
            # By an open file: given a path, libsndfile also opens resource forks of macOS beside the file.
            # A descriptor is faster than a Python object; Windows has other descriptors for libsndfile.
            is_plain = finding.header is None and os.name != "nt"
            file = cls(stream.fileno(), closefd=False) if is_plain else cls(stream)
        except BaseException:
            stream.close()
            raise
        file._stream, file.warning = stream, finding.warning
        return file

    warning: str | None = None
    """What is wrong with the header, if the file can be read."""

    def close(self) -> None:
        """Close the file."""
        super().close()
        if self._stream is not None:
            self._stream.close()

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek."""
        return False


@contextmanager
def open_audio(path: Path) -> Iterator[SequentialFile | MediaFile]:
    """Open a recording for reading.

    AudioError if the file cannot be opened. MissingExtraError if the container needs PyAV, which is not
    installed.
    """
    try:
        check_regular_file(path)
        file = _open_by_content(path)
    except OSError as error:
        raise read_error(path, error) from error
    with file:
        yield file


def check_regular_file(path: Path) -> None:
    """Raise AudioError if a path is not a file: a pipe may never end; OSError if there is none."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise AudioError(f"{printable(path)} is a folder; a recording is needed: name a file in it")
    if not stat.S_ISREG(mode):
        raise AudioError(f"{printable(path)} is not a regular file: save the audio to one first")


def read_error(path: Path, error: OSError) -> AudioError:
    """Return the error for a file that the operating system cannot read."""
    if isinstance(error, FileNotFoundError):
        return AudioError(f"{printable(path)} does not exist: check its name")
    reason = failure_reason(error)
    text = f"{printable(path)} cannot be read ({reason}): check the file and its permissions"
    return AudioError(text).as_temporary() if may_pass(error) else AudioError(text)


def _open_by_content(path: Path) -> SequentialFile | MediaFile:
    if path.stat().st_size == 0:
        raise AudioError(f"{printable(path)} is empty (0 bytes): record or copy it again")
    # This opens the file before soundfile, which does not report the system's reason for an error.
    if container := detect_container(path):
        return MediaFile(path, container)
    supported = headers.is_supported_container(path)
    try:
        return SequentialFile.open(path)
    except soundfile.SoundFileError:
        pass
    if supported:
        raise AudioError(f"{printable(path)} has a damaged header: copy or export it again")
    raise AudioError(
        f"{printable(path)} is not audio in a format that can be read: convert it to .wav or .flac"
    )


def _soundfile_name(path: Path) -> str | bytes:
    # soundfile encodes a str strictly, and so refuses names whose bytes are not valid UTF-8.
    return str(path) if os.name == "nt" else os.fsencode(path)


def decode_blocks(
    file: soundfile.SoundFile, size: int = _DECODE_BLOCK_FRAMES, dtype: npt.DTypeLike = np.float32
) -> Iterator[npt.NDArray[Any]]:
    """Decode to the end; yield blocks (samples, channels) of at most `size` samples."""
    # At the end of a .flac, a decoder that is asked for more takes whatever follows for a damaged frame.
    remaining = file.frames if file.format == "FLAC" else UNKNOWN_LENGTH
    while remaining > 0:
        count = min(remaining, size)
        block = file.read(out=np.empty((count, file.channels), dtype))
        if len(block) == 0:
            return
        remaining -= len(block)
        yield block


def count_samples(path: Path) -> int:
    """Decode a file and count its samples per channel."""
    with SequentialFile.open(path) as file:
        return sum(len(block) for block in decode_blocks(file, dtype=np.int16))


def decode_file(path: Path, file: SequentialFile | MediaFile) -> Iterator[Samples]:
    """Decode a file; yield blocks (channels, samples); AudioError at the end if samples are missing."""
    if isinstance(file, MediaFile):
        yield from file.decode()
        return
    failed, total = False, 0
    # libsndfile converts one sample after the other, NumPy many at once.
    bits = AudioFormat(file.format, file.subtype).integer_bits
    dtype = np.int16 if bits is not None and bits <= 16 else np.float32
    try:
        for block in decode_blocks(file, dtype=dtype):
            total += len(block)
            yield _to_samples(block)
    except soundfile.SoundFileError:
        failed = True
    try:
        if failed:
            for block in _decode_before_damage(path, total):
                total += len(block)
                yield _to_samples(block)
        _check_complete(path, file, total, failed)
    except OSError as error:  # removed meanwhile
        raise read_error(path, error) from error


def _to_samples(block: npt.NDArray[Any]) -> Samples:
    """Return decoded values [sample, channel], float32 or int16, as samples (channels, samples)."""
    if block.dtype != np.int16:
        return np.ascontiguousarray(block.T)
    samples: Samples = np.multiply(block.T, np.float32(2.0**-15), order="C")
    return samples


def _decode_before_damage(path: Path, start: int) -> Iterator[Samples]:
    """Decode once more, and yield the samples from `start` to the first damaged place.

    A block with a damaged place is lost as a whole, so the blocks are small.
    """
    position = 0
    with suppress(soundfile.SoundFileError), SequentialFile.open(path) as file:
        for block in decode_blocks(file, _SMALL_BLOCK_FRAMES):
            position += len(block)
            if position > start:
                yield block[-(position - start) :]


def _check_complete(path: Path, file: SequentialFile, total: int, failed: bool) -> None:
    """Raise AudioError if fewer samples were decoded than the file declares."""
    declared: float | None = None if file.frames == UNKNOWN_LENGTH else file.frames
    least = declared or 0.0
    if file.format == "MP3" and file.subtype == "MPEG_LAYER_III":
        # Without a length header, libmpg123 guesses the length, and stops there.
        length = headers.scan_mp3_length(path)
        if not length.declared:
            if length.samples > total + 2 * _MP3_SLACK:
                raise AudioError(
                    f"{printable(path)} is an mp3 of varying bitrate without a length header, of which "
                    f"only {total / file.samplerate:.2f} s of "
                    f"{length.samples / file.samplerate:.2f} s can be read: convert it to .wav"
                )
            declared = None
        least = (declared or 0) - _MP3_SLACK

    # libsndfile reports the size that the file has; only the header itself shows the declared one.
    ratio = headers.declared_to_actual_ratio(path)
    if not failed and total >= least and ratio <= 1:
        return
    if ratio > 1:
        declared = file.frames * ratio if np.isfinite(ratio) else None
    promise = "more" if declared is None else f"{declared / file.samplerate:.2f} s"
    actual = f"{total / file.samplerate:.2f} s"
    # Durations that round alike would make a message that contradicts itself.
    if declared is not None and promise == actual:
        promise, actual = f"{declared:.0f} samples", f"{total}"
    raise AudioError(
        f"{printable(path)} is cut off or damaged: its header promises {promise}, "
        f"{actual} could be read: copy or export it again"
    )


def encode_blocks(
    path: Path,
    blocks: Iterable[npt.NDArray[np.floating[Any]]],
    channels: int,
    rate: int,
    audio_format: AudioFormat,
) -> None:
    """Encode blocks (channels, samples); the same samples give the same bytes. Raises soundfile's errors."""
    settings: dict[str, Any] = {}
    if audio_format.container in ("OGG", "MP3"):
        settings["compression_level"] = 0.0  # least compression: best quality
    if audio_format.container == "MP3":
        settings["bitrate_mode"] = "CONSTANT"  # 320 kbit/s, or the largest for the sample rate
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
    if audio_format.extension:
        # libsndfile writes its own guess of the channels' positions, and no valid bits.
        headers.write_format_extension(path, bytes.fromhex(audio_format.extension))


def _quantize_samples(block: npt.NDArray[np.floating[Any]], audio_format: AudioFormat) -> npt.NDArray[Any]:
    """Round to nearest and clip a block; libsndfile itself rounds down in .wav, to nearest in .flac."""
    bits = audio_format.valid_bits
    if bits is not None:
        # A float32 times a power of two is exact, and its 24 significant bits represent such integers.
        wide = np.float32 if block.dtype == np.float32 and bits <= 24 else np.float64
        full = wide(2.0 ** (bits - 1))
        whole = np.ascontiguousarray(block) * full
        np.rint(whole, out=whole)
        np.clip(whole, -full, full - 1, out=whole)
        # libsndfile takes the top bits of an integer, so the shifted ones arrive exactly.
        return whole.astype(np.int16) << (16 - bits) if bits <= 16 else whole.astype(np.int32) << (32 - bits)
    if audio_format.subtype in ("ULAW", "ALAW"):
        block = np.clip(block, -1.0, 1.0)  # larger values overrun their tables
    return np.ascontiguousarray(block, dtype=np.float64 if audio_format.subtype == "DOUBLE" else np.float32)
