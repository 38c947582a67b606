"""Audio formats that are tested, and a 16-bit recording."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import write_recording

Samples = npt.NDArray[np.float32]
Tone = Callable[..., Samples]

WAV16 = AudioFormat("WAV", "PCM_16")
WAV_FLOAT = AudioFormat("WAV", "FLOAT")
INTEGERS = [
    AudioFormat(container, subtype)
    for container, subtypes in {
        "WAV": ("PCM_U8", "PCM_16", "PCM_24"),
        "WAVEX": ("PCM_16", "PCM_24"),
        "RF64": ("PCM_16", "PCM_24"),
        "W64": ("PCM_16", "PCM_24"),
        "AIFF": ("PCM_16", "PCM_24"),
        "CAF": ("PCM_S8", "PCM_16", "PCM_24"),
        "AU": ("PCM_S8", "PCM_16", "PCM_24"),
        "FLAC": ("PCM_S8", "PCM_16", "PCM_24"),
    }.items()
    for subtype in subtypes
]
LOSSY = [
    AudioFormat("OGG", "VORBIS"),
    AudioFormat("OGG", "OPUS"),
    AudioFormat("MP3", "MPEG_LAYER_III"),
]


def format_label(form: object) -> str:
    return f"{form.container}-{form.subtype}" if isinstance(form, AudioFormat) else str(form)


@pytest.fixture
def wav(tmp_path: Path, tone: Tone) -> Path:
    """One second, 16 bits, mono: 44 bytes of header and 88,200 of audio."""
    path = tmp_path / "take.wav"
    write_recording(path, tone(seconds=1), 44_100, WAV16)
    return path
