"""Damaged, unsupported and unusable recordings are refused with one line; streams are read to their end."""

import errno
import os
import shutil
import struct
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import soundfile

from tests.audio_io.conftest import INTEGERS, LOSSY, WAV16, WAV_FLOAT, Samples, Tone, format_label
from tonewood.audio_io import libsndfile
from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import AudioReader, probe_audio, read_recording, write_recording
from tonewood.audio_io.recording import file_sha256
from tonewood.errors import AudioError


def patched(path: Path, *changes: tuple[int, bytes]) -> Path:
    data = bytearray(path.read_bytes())
    for at, content in changes:
        data[at : at + len(content)] = content
    path.write_bytes(data)
    return path


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def refused(path: Path, match: str) -> None:
    with pytest.raises(AudioError, match=match) as caught:
        read_recording(path)
    text = str(caught.value)
    assert "\n" not in text
    assert ": " in text  # a remedy follows
    for word in ("libsndfile", "Error", "psf", "Traceback"):
        assert word not in text


def test_path_that_is_not_a_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.wav", r"none\.wav does not exist")
    refused(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "pipe.wav")
    refused(tmp_path / "pipe.wav", "is not a regular file")


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.raw"])
def test_file_that_is_not_audio_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    refused(path, r"is empty \(0 bytes\)")
    path.write_text("Dear diary, " * 1000)
    refused(path, "is not audio in a format that can be read: convert it")


def test_unsupported_container_is_named(tmp_path: Path, tone: Tone) -> None:
    soundfile.write(tmp_path / "a.voc", tone()[0], 44_100, format="VOC", subtype="PCM_16")
    refused(tmp_path / "a.voc", "is a VOC file, which Tonewood does not read")


def test_file_without_permission_is_refused(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(os, "open", refuse)
    refused(wav, r"take\.wav cannot be read \(permission denied\)")
    with pytest.raises(AudioError, match="cannot be read"):
        file_sha256(wav)


def test_short_recording_is_refused(tmp_path: Path, tone: Tone) -> None:
    path = tmp_path / "take.wav"
    write_recording(path, tone(seconds=0.04), 44_100, WAV16)
    refused(path, r"lasts 0\.04 s; 0\.25 s are needed: give a longer recording")
    assert read_recording(path, min_seconds=0.04).duration == pytest.approx(0.04)


def test_recording_without_samples_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 44_100)
    refused(tmp_path / "a.wav", "contains no samples")


@pytest.mark.parametrize(("peak", "level"), [(0.0, "-inf"), (0.9e-5, "-101")])
def test_silent_recording_is_refused(tmp_path: Path, tone: Tone, peak: float, level: str) -> None:
    write_recording(tmp_path / "a.wav", tone(amplitude=peak), 44_100, WAV_FLOAT)
    refused(tmp_path / "a.wav", f"is silent: its peak is {level} dB .*-100 dB are needed")


def test_quiet_or_partly_silent_recording_is_accepted(tmp_path: Path, tone: Tone) -> None:
    write_recording(tmp_path / "a.wav", tone(amplitude=1.1e-5), 44_100, WAV_FLOAT)
    assert read_recording(tmp_path / "a.wav").channels == 1
    half = tone(channels=2)
    half[:, 1000:] = 0
    half[1] = 0
    write_recording(tmp_path / "b.wav", half, 44_100, WAV_FLOAT)
    np.testing.assert_array_equal(read_recording(tmp_path / "b.wav").samples, half)


def test_constant_recording_is_refused(tmp_path: Path) -> None:
    offset = np.full((2, 20_000), 0.25, np.float32)
    offset[1] = -0.5
    write_recording(tmp_path / "a.wav", offset, 44_100, WAV_FLOAT)
    refused(tmp_path / "a.wav", r"is constant \(0\.25 throughout")
    offset[1, 7] = 0  # one sample is sound enough
    write_recording(tmp_path / "b.wav", offset, 44_100, WAV_FLOAT)
    assert read_recording(tmp_path / "b.wav").channels == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path: Path, tone: Tone, bad: float) -> None:
    samples = tone(seconds=1, channels=2)
    samples[1, 22_050] = bad
    soundfile.write(tmp_path / "a.wav", samples.T, 44_100, subtype="FLOAT")
    refused(tmp_path / "a.wav", r"not finite numbers, the first at 0\.50 s")


def test_too_many_channels_are_refused(tmp_path: Path, tone: Tone) -> None:
    write_recording(tmp_path / "a.wav", tone(channels=9, frequency=20), 44_100, WAV16)
    refused(tmp_path / "a.wav", "has 9 channels; 8 can be used")
    assert read_recording(tmp_path / "a.wav", max_channels=9).channels == 9
    with pytest.raises(AudioError, match="has 9 channels; 2 can"):
        probe_audio(tmp_path / "a.wav", max_channels=2)


@pytest.mark.parametrize("rate", [1, 3999, 768_001, 10_000_000])
def test_absurd_rates_are_refused_before_decoding(
    wav: Path, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    monkeypatch.delattr(libsndfile, "decode_file")
    patched(wav, (24, u32(rate)))
    refused(wav, f"sample rate of {rate} Hz; 4000 to 768000 Hz")


@pytest.mark.parametrize("change", [(24, u32(0)), (22, b"\0\0"), (12, b"junk")])
def test_damaged_header_is_refused(wav: Path, change: tuple[int, bytes]) -> None:
    refused(patched(wav, change), "has a damaged header: copy or export it again")


# --- Lengths that lie


@pytest.mark.parametrize("form", [*INTEGERS, WAV_FLOAT, *LOSSY], ids=format_label)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_cut_off_file_is_refused(
    tmp_path: Path, rng: np.random.Generator, form: AudioFormat, share: float
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write_recording(whole, rng.uniform(-0.5, 0.5, (1, 96_000)).astype(np.float32), 48_000, form)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(share * len(data))])
    # A caf that lies so much about a chunk is refused by libsndfile when it opens it.
    refused(cut, "is cut off or damaged: its header promises (2.00 s|more)|has a damaged header")


def test_cut_off_file_names_both_durations(wav: Path) -> None:
    data = wav.read_bytes()
    wav.write_bytes(data[:22_094])
    refused(wav, r"promises 1\.00 s, 0\.25 s could be read: copy or export it again")
    wav.write_bytes(data[:-100])
    refused(wav, "promises 44100 samples, 44050 could be read")


def test_damaged_flac_is_read_up_to_its_first_damaged_frame(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.flac"
    samples = rng.uniform(-0.5, 0.5, (1, 144_000)).astype(np.float32)
    write_recording(path, samples, 48_000, AudioFormat("FLAC", "PCM_16"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(100) + data[len(data) // 2 + 100 :])
    read: list[Samples] = []
    with pytest.raises(AudioError, match=r"promises 3\.00 s, 1\.[45]\d s could be read") as caught:
        read.extend(AudioReader(path).blocks())
    whole = np.concatenate(read, axis=1)
    assert f", {whole.shape[1] / 48_000:.2f} s could be read" in str(caught.value)
    np.testing.assert_allclose(whole, samples[:, : whole.shape[1]], atol=2.0**-15)


@pytest.mark.parametrize("offset", [100, 3000])
def test_flipped_bits_in_a_flac_are_noticed(tmp_path: Path, tone: Tone, offset: int) -> None:
    path = tmp_path / "a.flac"
    write_recording(path, tone(seconds=1), 44_100, AudioFormat("FLAC", "PCM_16"))
    at = len(path.read_bytes()) - offset
    patched(path, (at, bytes([path.read_bytes()[at] ^ 0xFF])))
    refused(path, "cut off or damaged")


@pytest.mark.parametrize("data_size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000])
@pytest.mark.parametrize("riff_size", [0, 36, 0xFFFFFFFF])
def test_streamed_wavs_are_read_to_their_end(wav: Path, data_size: int, riff_size: int) -> None:
    whole = read_recording(wav).samples
    patched(wav, (4, u32(riff_size)), (40, u32(data_size)))
    np.testing.assert_array_equal(read_recording(wav).samples, whole)
    assert probe_audio(wav).frames == 44_100


def test_an_empty_wav_with_a_trailing_chunk_is_not_taken_for_a_stream(wav: Path) -> None:
    head = wav.read_bytes()[:44]
    wav.write_bytes(head + b"LIST" + u32(50_000) + bytes(50_000))
    patched(wav, (4, u32(44 + 50_000)), (40, u32(0)))
    refused(wav, "contains no samples")


def flac_with_length(path: Path, tone: Tone, frames: int) -> Samples:
    samples = tone(seconds=1)
    write_recording(path, samples, 44_100, AudioFormat("FLAC", "PCM_24"))
    head = path.read_bytes()[21]
    patched(path, (21, bytes([head & 0xF0 | frames >> 32]) + struct.pack(">I", frames % 2**32)))
    return samples


def test_streamed_flac_is_read_to_its_end(tmp_path: Path, tone: Tone) -> None:
    samples = flac_with_length(tmp_path / "a.flac", tone, 0)
    np.testing.assert_allclose(read_recording(tmp_path / "a.flac").samples, samples, atol=2.0**-24)
    info = probe_audio(tmp_path / "a.flac")
    assert (info.frames, info.duration) == (None, None)


def test_cut_off_streamed_flac_is_refused(tmp_path: Path, tone: Tone) -> None:
    path = tmp_path / "a.flac"
    flac_with_length(path, tone, 0)
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, r"cut off or damaged: its header promises more, 0\.\d\d s could be read")


def test_an_absurd_length_takes_no_memory(tmp_path: Path, tone: Tone) -> None:
    frames = 2**36 - 1  # 256 GiB as float32
    flac_with_length(tmp_path / "a.flac", tone, frames)
    assert probe_audio(tmp_path / "a.flac").frames == frames
    refused(tmp_path / "a.flac", r"promises 1558264\.\d+ s, 1\.00 s could be read")


def headerless_mp3(path: Path, rng: np.random.Generator, loud_first: bool) -> Path:
    """Ten seconds of varying bitrate, without the frame that states the length."""
    samples = 0.3 * rng.standard_normal(441_000)
    samples[slice(220_500, None) if loud_first else slice(220_500)] = 0
    with soundfile.SoundFile(
        path,
        "w",
        samplerate=44_100,
        channels=1,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=0.0,
        bitrate_mode="VARIABLE",
    ) as file:
        file.write(samples.astype(np.float32))
    data = path.read_bytes()
    path.write_bytes(data[data.index(data[:2], 10) :])
    return path


def test_mp3_without_length_header_is_read_to_its_end(tmp_path: Path, rng: np.random.Generator) -> None:
    path = headerless_mp3(tmp_path / "a.mp3", rng, loud_first=False)
    # 384 frames of 1152: all of it, with the encoder's own delay.
    assert read_recording(path).samples.shape == (1, 384 * 1152)


def test_mp3_whose_end_the_decoder_drops_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    path = headerless_mp3(tmp_path / "a.mp3", rng, loud_first=True)
    refused(path, r"varying bitrate without a length header, .* of 10\.03 s can be read: convert")


def test_mp3_frame_inside_a_tag_is_ignored(tmp_path: Path, tone: Tone, rng: np.random.Generator) -> None:
    path = headerless_mp3(tmp_path / "a.mp3", rng, loud_first=True)
    write_recording(tmp_path / "b.mp3", tone(seconds=1), 44_100, LOSSY[2])
    inside = (tmp_path / "b.mp3").read_bytes()[:8000]  # states a length, of another recording
    size = bytes([0, 0, len(inside) >> 7, len(inside) & 0x7F])
    path.write_bytes(b"ID3\x04\0\0" + size + inside + path.read_bytes())
    refused(path, "varying bitrate without a length header")


def test_mp3_with_tags_is_read(tmp_path: Path, tone: Tone) -> None:
    path = tmp_path / "a.mp3"
    write_recording(path, tone(seconds=1), 44_100, AudioFormat("MP3", "MPEG_LAYER_III"))
    front = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)
    path.write_bytes(front + path.read_bytes() + b"TAG" + bytes(125))
    assert read_recording(path).samples.shape == (1, 44_100)


def test_file_names_may_be_any_bytes(wav: Path) -> None:
    odd = wav.parent / os.fsdecode(b"caf\xe9\n.wav")
    shutil.copy(wav, odd)
    assert read_recording(odd).duration == 1
    write_recording(odd, read_recording(wav).samples, 44_100, WAV16, overwrite=True)
    refused(Path(str(odd) + "x"), r"caf\\udce9\\n\.wavx does not exist")
