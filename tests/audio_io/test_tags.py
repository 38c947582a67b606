"""Tags are copied to outputs; soundfile, PyAV and plain parsers read them back."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tonewood.audio_io import reader, tags
from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import probe_audio, read_recording, write_recording_blocks

Samples = npt.NDArray[np.float32]
RATE = 44_100
TEXTS = {"title": "Sarabande — 2", "artist": "A. Ñ.", "album": "Suites", "date": "2024"}
PIXEL = bytes.fromhex(  # one grey pixel
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63680000"
    "00820081dd436af40000000049454e44ae426082"
)


@pytest.fixture
def wave(tone: Callable[..., Samples]) -> Samples:
    """Stereo tone, rounded to 16 bits."""
    return (np.rint(tone(seconds=0.7, channels=2) * 2**15) / 2**15).astype(np.float32)


def write_like(source: Path, output: Path, wave: Samples, rate: int = RATE) -> None:
    """Write an output with the tags of a source, twice, and check that the bytes are equal."""
    form = AudioFormat.for_path(output, probe_audio(source).format)
    twin = output.with_name(f"twin-{output.name}")
    for path in (output, twin):
        write_recording_blocks(path, [wave], wave.shape, rate, form, tags_from=source)
    assert output.read_bytes() == twin.read_bytes()
    twin.unlink()


def read_texts(path: Path) -> dict[str, str]:
    """Return the texts that libsndfile reads."""
    with soundfile.SoundFile(path) as file:
        existing: dict[str, str] = file.copy_metadata()
    return {key: existing[key] for key in TEXTS if key in existing}


def write_tagged(path: Path, wave: Samples, form: str, subtype: str, rate: int = RATE) -> Path:
    """A file with texts, written by libsndfile."""
    with soundfile.SoundFile(path, "w", rate, len(wave), subtype, format=form) as file:
        for key, value in TEXTS.items():
            setattr(file, key, value)
        file.write(wave.T)
    return path


def read_with_ffmpeg(path: Path) -> tuple[dict[str, str], list[bytes]]:
    """Return the texts and pictures that FFmpeg reads."""
    with av.open(str(path)) as file:
        texts = {**file.metadata, **file.streams.audio[0].metadata}
        pictures = [bytes(next(iter(file.demux(video)))) for video in file.streams.video]
    return {key.lower(): value for key, value in texts.items()}, pictures


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def read_chunks(path: Path) -> dict[bytes, bytes]:
    """Return the chunks of a wav, and check that they end where the header declares."""
    data = path.read_bytes()
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    at, actual = 12, {}
    while at < len(data):
        name, size = struct.unpack("<4sI", data[at : at + 8])
        actual[name + (data[at + 8 : at + 12] if name == b"LIST" else b"")] = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    assert at == len(data)
    return actual


CUES = struct.pack("<I", 1) + struct.pack("<II4sIII", 1, 5_000, b"data", 0, 0, 5_000)
EXTRA = {
    b"bext": b"Description".ljust(256, b"\0") + bytes(346),
    b"cue ": CUES,
    b"smpl": struct.pack("<9I", 0, 0, 22_675, 60, 0, 0, 0, 0, 0),
    b"iXML": b"<BWFXML><NOTE>odd</NOTE></BWFXML>\n"[:33],
    b"LISTadtl": b"adtl" + chunk(b"labl", struct.pack("<I", 1) + b"verse\0"),
    b"LISTINFO": b"INFO" + chunk(b"INAM", b"Sarabande\0"),
}


def write_with_chunks(path: Path, wave: Samples, subtype: str = "PCM_16") -> Path:
    """A wav with chunks before and after its samples."""
    soundfile.write(path, wave.T, RATE, subtype)
    data = path.read_bytes()
    before, after = data[12:], b""
    for number, (name, content) in enumerate(EXTRA.items()):
        if number % 2:
            before = chunk(name[:4], content) + before
        else:
            after += chunk(name[:4], content)
    body = b"WAVE" + before + after + chunk(b"levl", b"peaks of the old sound")
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_wav_keeps_cue_points_and_notes(tmp_path: Path, wave: Samples, subtype: str) -> None:
    odd = wave[:1, :-1]  # an odd number of bytes at 24 bits
    source = write_with_chunks(tmp_path / "in.wav", odd, subtype)
    write_like(source, tmp_path / "out.wav", odd)
    actual = read_chunks(tmp_path / "out.wav")
    assert {name: actual.get(name) for name in EXTRA} == EXTRA
    assert b"levl" not in actual
    assert read_texts(tmp_path / "out.wav")["title"] == "Sarabande"
    np.testing.assert_array_equal(
        read_recording(tmp_path / "out.wav").samples, read_recording(source).samples
    )


def test_cue_points_of_another_length_or_rate_are_left_out(tmp_path: Path, wave: Samples) -> None:
    source = write_with_chunks(tmp_path / "in.wav", wave)
    write_like(source, tmp_path / "short.wav", wave[:, :-5_000])
    write_like(source, tmp_path / "slow.wav", wave, 22_050)
    for name in ("short.wav", "slow.wav"):
        actual = read_chunks(tmp_path / name)
        assert {b"bext", b"iXML", b"LISTINFO"} <= set(actual)
        assert not {b"cue ", b"smpl", b"LISTadtl"} & set(actual)


@pytest.mark.parametrize("suffix", [".rf64", ".w64"])
def test_rf64_and_w64_keep_cue_points(tmp_path: Path, wave: Samples, suffix: str) -> None:
    source = write_with_chunks(tmp_path / "in.wav", wave)
    existing, again = tmp_path / f"a{suffix}", tmp_path / "b.wav"
    write_like(source, existing, wave)
    data = existing.read_bytes()
    assert CUES in data
    if suffix == ".w64":
        assert struct.unpack("<Q", data[16:24])[0] == len(data)
        assert len(data) % 8 == 0
    else:
        assert data[:4] == b"RF64"
        assert struct.unpack("<Q", data[20:28])[0] == len(data) - 8
    np.testing.assert_array_equal(read_recording(existing).samples, read_recording(source).samples)
    named = AudioFormat("WAV", "PCM_16")
    write_recording_blocks(again, [wave], wave.shape, RATE, named, tags_from=existing)
    actual = read_chunks(again)
    assert {name: actual.get(name) for name in EXTRA} == EXTRA


def test_an_aiff_keeps_its_markers(tmp_path: Path, wave: Samples) -> None:
    source = write_tagged(tmp_path / "in.aiff", wave, "AIFF", "PCM_16")
    marker = struct.pack(">HHI", 1, 7, 5_000) + b"\x05verse"
    data = source.read_bytes() + b"MARK" + struct.pack(">I", len(marker)) + marker
    source.write_bytes(data[:4] + struct.pack(">I", len(data) - 8) + data[8:])
    write_like(source, tmp_path / "out.aiff", wave)
    output = (tmp_path / "out.aiff").read_bytes()
    assert marker in output
    assert struct.unpack(">I", output[4:8])[0] == len(output) - 8
    assert read_texts(tmp_path / "out.aiff")["title"] == TEXTS["title"]


@pytest.fixture
def flac(tmp_path: Path, wave: Samples) -> Path:
    """A flac with comments, a picture and an application block."""
    plain = write_tagged(tmp_path / "in.flac", wave, "FLAC", "PCM_16")
    existing = tags.read_tags(plain)
    cover = tags._flac_picture(PIXEL, "image/png", 1, 1)
    current = (tags._APPLICATION, b"wood" + bytes(9))
    tags.write_tags(plain, tags.Tags((*existing.comments, b"MOOD=grave"), (cover,), (current,)))
    return plain


def test_a_flac_keeps_comments_cover_and_blocks(tmp_path: Path, wave: Samples, flac: Path) -> None:
    out = tmp_path / "out.flac"
    write_like(flac, out, wave)
    assert read_texts(out) == TEXTS
    texts, pictures = read_with_ffmpeg(out)
    assert texts["mood"] == "grave"
    assert pictures == [PIXEL]
    assert tags.read_tags(out) == tags.read_tags(flac)
    np.testing.assert_array_equal(read_recording(out).samples, read_recording(flac).samples)


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
def test_an_ogg_keeps_comments_and_cover(
    tmp_path: Path, tone: Callable[..., Samples], flac: Path, suffix: str
) -> None:
    wave = tone(seconds=2, rate=48_000, channels=2)
    first, second, bare = (tmp_path / f"{name}{suffix}" for name in ("a", "b", "c"))
    # A cover that takes several pages, and ends on a whole lace.
    existing = tags.read_tags(flac)
    big = tags._flac_picture(PIXEL + bytes(100_000), "image/png", 1, 1)
    tags.write_tags(flac, tags.Tags(existing.comments, (big,)))
    write_like(flac, first, wave, 48_000)
    write_like(first, second, wave, 48_000)
    assert read_texts(second) == TEXTS
    texts, pictures = read_with_ffmpeg(second)
    assert texts["mood"] == "grave"
    assert [picture[: len(PIXEL)] for picture in pictures] == [PIXEL]
    form = probe_audio(second).format
    write_recording_blocks(bare, [wave], wave.shape, 48_000, form)
    np.testing.assert_array_equal(read_recording(second).samples, read_recording(bare).samples)
    assert tags.read_tags(second).pictures == (big,)


@pytest.mark.parametrize("length", [0, 200, 255, 510, 65_025, 65_026, 130_050])
def test_comments_of_any_length_fill_pages(tmp_path: Path, wave: Samples, length: int) -> None:
    path = tmp_path / "a.ogg"
    write_recording_blocks(path, [wave], wave.shape, RATE, AudioFormat("OGG", "VORBIS"))
    before = read_recording(path).samples
    tags.write_tags(path, tags.Tags((b"X=" + b"y" * length,)))
    assert read_with_ffmpeg(path)[0].get("x", "") == "y" * length
    np.testing.assert_array_equal(read_recording(path).samples, before)


def test_an_mp3_keeps_its_id3(tmp_path: Path, wave: Samples) -> None:
    source = write_tagged(tmp_path / "in.mp3", wave, "MP3", "MPEG_LAYER_III")
    frames = b""
    for name, body in ((b"TPE1", b"\0Casals"), (b"APIC", b"\0image/png\0\x03\0" + PIXEL)):
        frames += name + struct.pack(">IH", len(body), 0) + body
    size = bytes([0, 0, len(frames) >> 7, len(frames) & 127])
    tag, tail = b"ID3\x03\0\0" + size + frames, source.read_bytes()[-128:]
    assert tail.startswith(b"TAGSarabande")  # libsndfile's
    source.write_bytes(tag + source.read_bytes())
    out = tmp_path / "out.mp3"
    write_like(source, out, wave)
    texts, pictures = read_with_ffmpeg(out)
    assert texts["artist"] == "Casals"
    assert pictures == [PIXEL]
    assert out.read_bytes()[-128:] == tail
    assert read_recording(out).samples.shape == wave.shape


def test_comments_are_copied_between_formats(tmp_path: Path, wave: Samples) -> None:
    kinds = [("WAV", ".wav", "PCM_16"), ("FLAC", ".flac", "PCM_16"), ("AIFF", ".aiff", "PCM_16")]
    kinds += [("OGG", ".ogg", "VORBIS"), ("MP3", ".mp3", "MPEG_LAYER_III")]
    for form, suffix, subtype in kinds:
        source = write_tagged(tmp_path / f"in{suffix}", wave, form, subtype)
        for expected in (".wav", ".flac", ".ogg"):
            out = tmp_path / f"of{suffix}{expected}"
            write_like(source, out, wave)
            assert read_texts(out).items() >= {"title": TEXTS["title"], "artist": TEXTS["artist"]}.items()


def test_cover_of_an_m4a_is_copied_to_a_flac(tmp_path: Path, wave: Samples) -> None:
    source = tmp_path / "in.m4a"
    with av.open(str(source), "w", format="mp4") as file:
        file.metadata.update({"title": "Sarabande", "artist": "A. Ñ."})
        sound: Any = file.add_stream("aac", rate=RATE, layout="stereo")
        cover: Any = file.add_stream("png", rate=1)
        cover.width = cover.height = 1
        cover.pix_fmt = "gray"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
        frame.sample_rate = RATE
        file.start_encoding()
        picture = av.Packet(PIXEL)
        picture.stream, picture.pts, picture.time_base = cover, 0, cover.time_base
        file.mux(picture)
        file.mux(sound.encode(frame))
        file.mux(sound.encode(None))
    out = tmp_path / "out.flac"
    write_like(source, out, wave)
    texts, pictures = read_with_ffmpeg(out)
    assert (texts["title"], texts["artist"]) == ("Sarabande", "A. Ñ.")
    assert pictures == [PIXEL]


@pytest.mark.parametrize("seed", range(30))
def test_damaged_tags_are_skipped(
    tmp_path: Path, wave: Samples, flac: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    ogg = tmp_path / "in.ogg"
    write_like(flac, ogg, wave)
    source = (flac, ogg, write_with_chunks(tmp_path / "in.wav", wave))[seed % 3]
    data = bytearray(source.read_bytes())
    for at in rng.integers(4, 600, 12):
        data[at] = rng.integers(256)
    broken = tmp_path / f"broken{source.suffix}"
    broken.write_bytes(data)
    out = tmp_path / f"out{source.suffix}"
    form = probe_audio(source).format
    write_recording_blocks(out, [wave], wave.shape, RATE, form)
    bare = read_recording(out).samples
    monkeypatch.setattr(reader, "probe_audio", lambda path: probe_audio(source))
    write_recording_blocks(out, [wave], wave.shape, RATE, form, overwrite=True, tags_from=broken)
    monkeypatch.undo()
    np.testing.assert_array_equal(read_recording(out).samples, bare)
