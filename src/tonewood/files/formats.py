"""Audio formats: what a file name asks for, and what each container can hold."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import soundfile

from tonewood.errors import CallError, printable
from tonewood.files import media

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
    return WRITABLE_SUFFIXES | media.FFMPEG_SUFFIXES if media.is_pyav_installed() else WRITABLE_SUFFIXES


def default_output_name(path: Path) -> Path:
    """What an output is called by itself: as its input, and ``.flac`` where that is only read."""
    return path.with_suffix(".flac") if path.suffix.lower() in media.FFMPEG_SUFFIXES else path


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
