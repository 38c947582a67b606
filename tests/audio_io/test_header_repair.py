"""Audio is read although its header is wrong about its size; what is not read is said."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tonewood.audio_io import headers
from tonewood.audio_io.reader import AudioReader, probe_audio, read_recording, write_recording
from tonewood.errors import AudioError

RATE = 16_000
PCM = np.random.default_rng(0).integers(-9000, 9000, RATE).astype("<i2").tobytes()


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body


def form(channels: int = 1, bits: int = 16, extension: bytes = b"") -> bytes:
    block = channels * bits // 8
    tag = 0xFFFE if extension else 1
    fields = struct.pack("<HHIIHH", tag, channels, RATE, RATE * block, block, bits)
    return chunk(b"fmt ", fields + (struct.pack("<H", len(extension)) + extension if extension else b""))


def riff(*chunks: bytes, size: int | None = None, magic: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


def written(folder: Path, content: bytes, name: str = "take.wav") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def warning_of(path: Path) -> str:
    reader = AudioReader(path)
    assert sum(block.shape[1] for block in reader.blocks()) > 0
    return " ".join(reader.warnings)


@pytest.mark.parametrize("excess", [8, 16, 36, 44])
def test_size_that_includes_the_header_is_read_with_a_warning(tmp_path: Path, excess: int) -> None:
    path = written(tmp_path, riff(form(), chunk(b"data", PCM, len(PCM) + excess)))
    assert read_recording(path).duration == 1.0
    assert f"promises {excess} bytes more" in warning_of(path)


def test_larger_missing_part_is_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path, riff(form(), chunk(b"data", PCM, len(PCM) + 4000)))
    with pytest.raises(AudioError, match="cut off"):
        read_recording(path)


@pytest.mark.parametrize("riff_size", [36 + len(PCM) // 2, None])
def test_stale_size_is_told(tmp_path: Path, riff_size: int | None) -> None:
    path = written(tmp_path, riff(form(), chunk(b"data", PCM, len(PCM) // 2), size=riff_size))
    assert "holds 0.50 s more than its header promises" in warning_of(path)


def test_second_data_chunk_is_told(tmp_path: Path) -> None:
    half = len(PCM) // 2
    path = written(tmp_path, riff(form(), chunk(b"data", PCM[:half]), chunk(b"data", PCM[half:])))
    assert "a second data chunk of 0.50 s" in warning_of(path)


@pytest.mark.parametrize("tail", [b"", bytes(20_000), b"TAG" + bytes(125), chunk(b"bext", bytes(6_000))])
def test_ordinary_end_has_no_warning(tmp_path: Path, tail: bytes) -> None:
    path = written(tmp_path, riff(form(), chunk(b"data", PCM)) + tail)
    assert warning_of(path) == ""


def test_wrapped_size_is_read_to_the_end(tmp_path: Path) -> None:
    total = 2**32 + 64_000
    path = written(tmp_path, riff(form(), chunk(b"data", PCM, total % 2**32), size=(36 + total) % 2**32))
    with path.open("r+b") as file:
        file.truncate(44 + total)  # sparse
    assert probe_audio(path).frames == total // 2


def test_long_container_is_read_under_both_names(tmp_path: Path) -> None:
    sizes = chunk(b"ds64", struct.pack("<QQQI", len(PCM) + 72, len(PCM), len(PCM) // 2, 0))
    for magic in (b"RF64", b"BW64"):
        path = written(
            tmp_path, riff(sizes, form(), chunk(b"data", PCM, 2**32 - 1), size=2**32 - 1, magic=magic)
        )
        assert read_recording(path).duration == 1.0


def test_odd_chunk_without_padding_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, riff(form(), chunk(b"LIST", b"INFOISFT\x05\0\0\0Rec1\0"), chunk(b"data", PCM)))
    assert read_recording(path).duration == 1.0


def test_walk_stops_where_no_chunk_begins(tmp_path: Path) -> None:
    path = written(tmp_path, riff(form(), chunk(b"data", PCM)) + bytes(4_000))
    with path.open("rb") as stream:
        names = [c.name for c in headers.iter_container_chunks(stream, b"RIFF", 2**40, past_audio=True)]
    assert names == [b"fmt ", b"data"]


@pytest.mark.parametrize("suffix", [".aiff", ".au", ".caf"])
def test_unfinished_header_of_other_containers_is_read(tmp_path: Path, suffix: str) -> None:
    samples = np.frombuffer(PCM, "<i2").astype(np.float32)[None] / 32_768
    path = tmp_path / f"take{suffix}"
    soundfile.write(path, samples.T, RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    if suffix == ".aiff":
        start = content.index(b"SSND") + 4
        content[start : start + 4] = bytes(4)
    elif suffix == ".au":
        content[8:12] = bytes(4)
    else:
        start = content.index(b"data") + 4
        content[start : start + 8] = bytes(8)
    path.write_bytes(content)
    assert abs(read_recording(path).duration - 1.0) < 0.01


@pytest.mark.parametrize(
    "tail", [b"TAG".ljust(128, b"\0"), b"APETAGEX" + bytes(24), bytes(512), b"\0", b"\xff\xf8" * 40]
)
def test_flac_is_read_to_its_length(tmp_path: Path, tail: bytes) -> None:
    samples = np.frombuffer(PCM, "<i2").astype(np.float32) / 32_768
    soundfile.write(tmp_path / "a.flac", samples, RATE)
    path = written(tmp_path, (tmp_path / "a.flac").read_bytes() + tail, "b.flac")
    assert np.array_equal(read_recording(path).samples, read_recording(tmp_path / "a.flac").samples)


def test_mp3_is_read_beside_a_resource_fork(tmp_path: Path) -> None:
    samples = np.frombuffer(PCM, "<i2").astype(np.float32) / 32_768
    path = tmp_path / "take.mp3"
    soundfile.write(path, samples, RATE, format="MP3")
    assert not path.read_bytes().startswith(b"ID3")
    (tmp_path / "._take.mp3").write_bytes(b"")
    assert read_recording(path).duration > 0.9


@pytest.mark.parametrize(("valid_bits", "mask", "channels"), [(20, 4, 1), (24, 0x60F, 6), (24, 0, 4)])
def test_format_extension_is_kept(tmp_path: Path, valid_bits: int, mask: int, channels: int) -> None:
    extension = struct.pack("<HI", valid_bits, mask) + bytes.fromhex("0100000000001000800000aa00389b71")
    samples = np.random.default_rng(0).integers(-(2**19), 2**19, (channels, RATE)) << 12
    packed = np.ascontiguousarray(samples.T >> 8).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    source = written(tmp_path, riff(form(channels, 24, extension), chunk(b"data", packed)), "in.wav")
    recording = read_recording(source)
    write_recording(tmp_path / "out.wav", recording.samples * 0.7, RATE, recording.format)
    assert headers.read_format_extension(tmp_path / "out.wav") == extension
    output = soundfile.read(tmp_path / "out.wav", dtype="int32")[0]
    assert not np.any(output % 2 ** (32 - valid_bits))


def test_cancelling_channels_are_refused_or_told(tmp_path: Path) -> None:
    samples = np.frombuffer(PCM, "<i2").astype(np.float32) / 32_768
    soundfile.write(tmp_path / "anti.wav", np.stack([samples, -samples], 1), RATE)
    with pytest.raises(AudioError, match="cancel when they are mixed to one"):
        read_recording(tmp_path / "anti.wav")
    soundfile.write(tmp_path / "nearly.wav", np.stack([samples, -0.95 * samples], 1), RATE)
    assert "nearly cancel (-32 dB)" in warning_of(tmp_path / "nearly.wav")
