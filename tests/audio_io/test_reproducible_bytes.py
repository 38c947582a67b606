import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import read_recording, write_recording
from tonewood.audio_io.tags import make_deterministic

FORMS = [
    ("WAV", "FLOAT", "FILE", ".wav"),
    ("WAV", "DOUBLE", "BIG", ".wav"),
    ("WAVEX", "FLOAT", "FILE", ".wav"),
    ("AIFF", "FLOAT", "FILE", ".aiff"),
    ("RF64", "FLOAT", "FILE", ".rf64"),
    ("CAF", "FLOAT", "FILE", ".caf"),
    ("FLAC", "PCM_24", "FILE", ".flac"),
    ("OGG", "VORBIS", "FILE", ".ogg"),
    ("OGG", "OPUS", "FILE", ".opus"),
    ("MP3", "MPEG_LAYER_III", "FILE", ".mp3"),
]


def soft(seconds: float = 1.0) -> np.ndarray:
    wave = 0.1 * np.random.default_rng(3).standard_normal((2, round(24_000 * seconds)))
    return wave.astype(np.float32)


@pytest.mark.parametrize(("container", "subtype", "endian", "suffix"), FORMS)
def test_same_samples_give_the_same_bytes(
    tmp_path: Path, container: str, subtype: str, endian: str, suffix: str
) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        write_recording(path, soft(), 24_000, AudioFormat(container, subtype, endian))
    first = paths[0].read_bytes()
    assert first == paths[1].read_bytes()
    place = first.find(b"PEAK")
    if place >= 0:  # two files of one second would be the same by themselves
        assert first[place + 12 : place + 16] == bytes(4)


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
def test_deterministic_ogg_decodes_to_the_same_samples(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    kind = {".ogg": "VORBIS", ".opus": "OPUS"}[suffix]
    soundfile.write(path, soft(3.0).T, 24_000, kind, format="OGG")
    before, content = read_recording(path).samples, path.read_bytes()
    make_deterministic(path)
    assert np.array_equal(read_recording(path).samples, before)
    assert len(path.read_bytes()) == len(content)
    once = path.read_bytes()
    make_deterministic(path)
    assert path.read_bytes() == once


def plain_checksum(page: bytes) -> int:
    """Compute the checksum of RFC 3533 bit by bit."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
            value &= 0xFFFFFFFF
    return value


def test_every_ogg_page_has_the_checksum_of_rfc_3533(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    write_recording(path, soft(), 24_000, AudioFormat("OGG", "VORBIS"))
    content, place, pages = path.read_bytes(), 0, 0
    while place < len(content):
        head = content[place : place + 27]
        lacing = content[place + 27 : place + 27 + head[26]]
        end = place + 27 + head[26] + sum(lacing)
        page = content[place:end]
        stated = int.from_bytes(page[22:26], "little")
        assert plain_checksum(page[:22] + bytes(4) + page[26:]) == stated
        place, pages = end, pages + 1
    assert pages > 2


@pytest.mark.parametrize("content", [b"", b"Ogg", b"OggS", b"RIFF", b"fLaC", b"RIFF1234WAVE"])
def test_fragments_are_unchanged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    make_deterministic(path)
    assert path.read_bytes() == content


def test_noise_after_a_magic_number_terminates(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for seed in range(20):
        noise = random.Random(seed).randbytes(300)
        for magic in (b"OggS", b"RIFF", b"FORM"):
            path.write_bytes(magic + noise)
            make_deterministic(path)
            assert path.stat().st_size == 304
