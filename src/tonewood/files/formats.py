"""Audio formats: what a file name asks for, and what each container can hold."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import soundfile

from tonewood.errors import CallError, shown
from tonewood.files import media

_FLOATS = ("FLOAT", "DOUBLE")
_RIFF = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", *_FLOATS, "ULAW", "ALAW")
_SIGNED = ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", *_FLOATS, "ULAW", "ALAW")

# What may be written. Left out on purpose: ADPCM and GSM, which pad the length to whole blocks;
# aiffs of one byte a sample, which libsndfile 1.2.2 lengthens to an even number of samples; and
# ALAC, whose encoder there crashes the process when the disk is full.
WRITABLE: dict[str, tuple[str, ...]] = {
    "WAV": _RIFF,
    "WAVEX": _RIFF,
    "RF64": _RIFF,
    "W64": _RIFF,
    "AIFF": ("PCM_16", "PCM_24", "PCM_32", *_FLOATS),
    "CAF": _SIGNED,
    "AU": _SIGNED,
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
SUFFIXES = frozenset(_CONTAINER_OF)

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
_MAX_CHANNELS = {"FLAC": 8, "MP3": 2}
# FLAC: 20 bits less a remainder, per its format. Vorbis: libvorbis crashes the process from
# somewhere above 192 kHz on, where it has no encoder set-up.
_MAX_RATE = {"FLAC": 655_350, "VORBIS": 192_000}


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
            known = " ".join(sorted(SUFFIXES))
            raise CallError(
                f"{shown(path)} ends in '{shown(suffix)}', which is no audio format that can be "
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


def readable() -> frozenset[str]:
    """Suffixes of what can be read as things are installed."""
    return SUFFIXES | media.SUFFIXES if media.available() else SUFFIXES


def output_name(path: Path) -> Path:
    """What an output is called by itself: as its input, and ``.flac`` where that is only read."""
    return path.with_suffix(".flac") if path.suffix.lower() in media.SUFFIXES else path


def _nearest_subtype(container: str, like: AudioFormat) -> str:
    offered = WRITABLE[container]
    if like.subtype in offered:
        return like.subtype
    depths = {AudioFormat(container, s).integer_bits or 0: s for s in offered if "PCM" in s}
    if not depths:
        return offered[0]
    wanted = like.integer_bits or (max(depths) if like.subtype in _FLOATS else 16)
    return depths[min((d for d in depths if d >= wanted), default=max(depths))]


def obstacle(form: AudioFormat, frames: int, channels: int, rate: int) -> str | None:
    """Say why audio of this shape does not fit a format, as 'value; limit'; None if it does.

    Parameters
    ----------
    form : AudioFormat
        The format to be written.
    frames, channels, rate : int
        Samples in each channel, number of channels, samples per second.
    """
    name = form.subtype if form.container == "OGG" else form.container
    label = name.lower()
    if form.subtype not in WRITABLE.get(form.container, ()):
        return f"would be {form.container} {form.subtype}, which cannot be written"
    if channels > _MAX_CHANNELS.get(name, channels):
        return f"has {channels} channels; {label} holds {_MAX_CHANNELS[name]}"
    if rate > _MAX_RATE.get(name, rate):
        return f"has {rate} Hz; {label} goes to {_MAX_RATE[name]} Hz"
    rates = {"MP3": _MP3_RATES, "OPUS": _OPUS_RATES}.get(name, (rate,))
    if rate not in rates:
        return f"has {rate} Hz; {label} knows only {', '.join(map(str, rates))} Hz"
    width = {"FLOAT": 4, "DOUBLE": 8}.get(form.subtype, (form.integer_bits or 8) // 8)
    # Their headers count bytes in 32 bits; libsndfile would let the count wrap.
    if form.container in ("WAV", "WAVEX", "AIFF", "AU"):
        size = frames * channels * width
        if size > 2**32 - 2**16:
            return f"takes {size / 2**30:.1f} GiB; {label} holds 4 GiB"
    return None
