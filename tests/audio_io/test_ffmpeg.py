"""Containers of phones, browsers and cameras, written by FFmpeg and read back sample by sample."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tonewood.audio_io import ffmpeg
from tonewood.audio_io.libsndfile import AudioFormat, default_output_name
from tonewood.audio_io.reader import AudioReader, probe_audio, read_recording
from tonewood.audio_io.recording import find_audio_files
from tonewood.enhancement.output_files import plan_jobs
from tonewood.errors import AudioError, CallError, FolderError, MissingExtraError

Samples = npt.NDArray[np.float32]
Play = Callable[..., Samples]
FRAMES = 50_123  # neither a whole number of any codec's frames nor of milliseconds


class Kind(NamedTuple):
    """A container, a codec, and the expected format."""

    suffix: str
    codec: str
    rate: int
    found: AudioFormat
    exact: bool  # samples, and not only their number
    spare: int = 0  # samples at the end that the container cannot tell from sound


KINDS = [
    Kind(".m4a", "aac", 44_100, AudioFormat("MP4", "AAC"), False),
    Kind(".mp4", "aac", 48_000, AudioFormat("MP4", "AAC"), False),
    Kind(".mov", "aac", 22_050, AudioFormat("MP4", "AAC"), False),
    Kind(".m4a", "alac", 44_100, AudioFormat("MP4", "ALAC_16"), True),
    Kind(".mov", "pcm_s16le", 44_100, AudioFormat("MP4", "PCM_16"), True),
    Kind(".mov", "pcm_s24le", 44_100, AudioFormat("MP4", "PCM_24"), True),
    Kind(".mov", "pcm_f32le", 44_100, AudioFormat("MP4", "FLOAT"), True),
    Kind(".webm", "libopus", 48_000, AudioFormat("MATROSKA", "OPUS"), False),
    Kind(".mka", "flac", 44_100, AudioFormat("MATROSKA", "PCM_16"), True),
    Kind(".mkv", "libmp3lame", 44_100, AudioFormat("MATROSKA", "MP3"), False),
    # A whole frame of AAC lasts 1,024 samples; FFmpeg tells Matroska nothing of the last one.
    Kind(".mkv", "aac", 44_100, AudioFormat("MATROSKA", "AAC"), False, 1_023),
]


def encode(
    path: Path,
    samples: Samples,
    rate: int,
    codec: str,
    tracks: int = 1,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a file of some tracks, each half as loud as the one before."""
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(str(path), "w", options=options or {}) as container:
        streams: list[Any] = [container.add_stream(codec, rate=rate, layout=layout) for _ in range(tracks)]
        for track, stream in enumerate(streams):
            stream.codec_context.bit_rate = 192_000
            if codec == "alac":
                stream.codec_context.format = "s16p"
            kind = stream.codec_context.format or stream.codec_context.codec.audio_formats[0]
            values = samples / 2**track
            if "s16" in kind.name:
                values = np.rint(values * 2**15).astype(np.int16)
            elif "s32" in kind.name:
                values = np.rint(values * 2**31).astype(np.int32)
            if not kind.is_planar:
                values = np.ascontiguousarray(values.T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(values, format=kind.name, layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            container.start_encoding()
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def stereo(play: Play) -> Samples:
    """Stereo samples, rounded to 16 bits."""
    wave = play(FRAMES / 44_100 + 0.01, 44_100, 2, seed=4)[:, :FRAMES]
    output: Samples = (np.rint(wave * 2**15) / 2**15).astype(np.float32)
    return output


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.codec}{kind.suffix}")
def test_decoded_samples_are_aligned(tmp_path: Path, stereo: Samples, kind: Kind) -> None:
    path = encode(tmp_path / f"a{kind.suffix}", stereo, kind.rate, kind.codec)
    recording = read_recording(path)
    assert (recording.rate, recording.channels, recording.format) == (kind.rate, 2, kind.found)
    assert recording.samples.flags.c_contiguous
    assert 0 <= recording.samples.shape[1] - FRAMES <= kind.spare
    got = recording.samples[:, :FRAMES]
    if kind.exact:
        np.testing.assert_array_equal(got, stereo)
    middle = slice(4_000, -4_000)
    error = np.sqrt(np.mean((got - stereo)[:, middle] ** 2))
    shifted = np.sqrt(np.mean((got - np.roll(stereo, 1, axis=1))[:, middle] ** 2))
    assert error < 0.1 * np.sqrt(np.mean(stereo**2))
    assert error < 0.5 * shifted


def test_wma_and_bare_aac_are_read(tmp_path: Path, stereo: Samples) -> None:
    for suffix, codec, container in ((".wma", "wmav2", "ASF"), (".aac", "aac", "ADTS")):
        recording = read_recording(encode(tmp_path / f"a{suffix}", stereo, 44_100, codec))
        assert recording.format.container == container
        assert abs(recording.samples.shape[1] - FRAMES) <= 2_048  # neither says how long it is


def test_container_is_detected_by_content(tmp_path: Path, stereo: Samples) -> None:
    path = encode(tmp_path / "a.m4a", stereo, 44_100, "aac")
    renamed = path.rename(tmp_path / "a.wav")
    assert read_recording(renamed).format.container == "MP4"


def test_itunes_length_cuts_the_padding(tmp_path: Path, stereo: Samples) -> None:
    note = f" 00000000 00000400 00000100 {FRAMES - 300:016X} 00000000"
    path = tmp_path / "a.m4a"
    encode(path, stereo, 44_100, "aac", options={"movflags": "use_metadata_tags"})
    with av.open(str(path)) as existing, av.open(str(tmp_path / "b.m4a"), "w") as output:
        track = output.add_stream_from_template(existing.streams.audio[0])
        output.metadata["iTunSMPB"] = note
        for packet in existing.demux(existing.streams.audio[0]):
            if packet.size:
                packet.stream = track
                output.mux(packet)
    file = ffmpeg.MediaFile(tmp_path / "b.m4a", "mov")
    with file:
        file._container = _Noted(file._container, note)
        assert sum(block.shape[1] for block in file.decode()) == FRAMES - 300


@pytest.mark.parametrize(("stated", "kept"), [(300, 300), (20, 0)])
def test_edit_list_cuts_padding_but_not_rounding(
    tmp_path: Path, stereo: Samples, stated: int, kept: int
) -> None:
    path = encode(tmp_path / "a.mov", stereo, 44_100, "pcm_s16le")
    with ffmpeg.MediaFile(path, "mov") as file:
        file.frames = FRAMES - stated  # as the list would have it
        assert sum(block.shape[1] for block in file.decode()) == FRAMES - kept


class _Noted:
    """Container with Apple's tag iTunSMPB, which FFmpeg reads but does not write."""

    def __init__(self, container: Any, note: str) -> None:
        self._container, self.metadata = container, {"iTunSMPB": note}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)


def test_a_long_recording_is_decoded_in_small_blocks(tmp_path: Path, stereo: Samples) -> None:
    path = encode(tmp_path / "a.m4a", np.tile(stereo, (1, 20)), 44_100, "alac")
    sizes = [block.shape[1] for block in AudioReader(path).blocks()]
    assert sum(sizes) == 20 * FRAMES
    assert max(sizes) <= 3 * 16_384


def test_first_track_is_read_and_tracks_are_counted(tmp_path: Path, stereo: Samples) -> None:
    path = encode(tmp_path / "a.mov", stereo, 44_100, "pcm_s16le", tracks=3)
    stream = AudioReader(path)
    assert stream.tracks == 3
    np.testing.assert_array_equal(np.concatenate(list(stream.blocks()), axis=1), stereo)


def test_video_without_audio_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=24)
        stream.width = stream.height = 16
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match="has no audio track: name a file that has one"):
        read_recording(tmp_path / "a.mp4")


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}], ids=["end", "start"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_cut_off_file_is_refused(
    tmp_path: Path, stereo: Samples, share: float, options: dict[str, str]
) -> None:
    for suffix, codec in ((".m4a", "aac"), (".m4a", "alac"), (".mov", "pcm_s16le")):
        data = encode(tmp_path / f"a{suffix}", stereo, 44_100, codec, 1, options).read_bytes()
        (tmp_path / f"cut{suffix}").write_bytes(data[: round(share * len(data))])
        with pytest.raises(AudioError, match=r"damaged|cut off") as caught:
            read_recording(tmp_path / f"cut{suffix}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_cut_off_webm_is_refused(tmp_path: Path, stereo: Samples, share: float) -> None:
    data = encode(tmp_path / "a.webm", stereo, 48_000, "libopus").read_bytes()
    (tmp_path / "cut.webm").write_bytes(data[: round(share * len(data))])
    with pytest.raises(AudioError, match=r"promises 1\.0\d s, 0\.\d+ s could be read|damaged"):
        read_recording(tmp_path / "cut.webm")


def test_header_that_declares_hours_takes_no_memory(tmp_path: Path, stereo: Samples) -> None:
    path = encode(tmp_path / "a.mov", stereo, 44_100, "pcm_s16le")
    data = path.read_bytes()
    at = data.index(b"stsz") + 12  # version and size of each sample come before the count
    assert int.from_bytes(data[at : at + 4]) == FRAMES
    many = (2**31 - 1).to_bytes(4)
    data = data[:at] + many + data[at + 4 :]
    data = data.replace(FRAMES.to_bytes(4), many)
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"damaged|cut off"):
        read_recording(path)


@pytest.mark.parametrize("seed", range(16))
def test_noise_in_a_file_gives_audio_or_one_error(tmp_path: Path, stereo: Samples, seed: int) -> None:
    rng = np.random.default_rng(seed)
    suffix, codec, rate = [(".m4a", "aac", 44_100), (".webm", "libopus", 48_000)][seed % 2]
    data = bytearray(encode(tmp_path / f"a{suffix}", stereo, rate, codec).read_bytes())
    for at in rng.integers(16, len(data), 20):
        data[at] = rng.integers(256)
    (tmp_path / f"b{suffix}").write_bytes(data)
    try:
        assert np.isfinite(read_recording(tmp_path / f"b{suffix}").samples).all()
    except AudioError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "start", [b"\0\0\0\x20ftypM4A ", b"\x1a\x45\xdf\xa3", ffmpeg._ASF_MAGIC, b"\xff\xf1"]
)
def test_magic_number_alone_is_refused(tmp_path: Path, start: bytes) -> None:
    for rest in (b"", bytes(4_000), np.random.default_rng(1).bytes(4_000)):
        (tmp_path / "a.m4a").write_bytes(start + rest)
        with pytest.raises(AudioError) as caught:
            read_recording(tmp_path / "a.m4a")
        assert "\n" not in str(caught.value)


def test_playlist_opens_no_other_file(tmp_path: Path, stereo: Samples) -> None:
    encode(tmp_path / "secret.m4a", stereo, 44_100, "aac")
    for name, text in (
        ("a.m4a", f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:{tmp_path}/secret.m4a\n"),
        ("b.m4a", f"ffconcat version 1.0\nfile {tmp_path}/secret.m4a\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(AudioError, match="is not audio in a format that can be read"):
            read_recording(tmp_path / name)


def test_media_file_names_may_be_any_bytes(tmp_path: Path, stereo: Samples) -> None:
    path = encode(tmp_path / "a.m4a", stereo, 44_100, "alac")
    odd = tmp_path / "\udcff\n.m4a"
    path.rename(odd)
    assert probe_audio(odd).frames == FRAMES


# --- What becomes of them


def test_outputs_are_flac_unless_named(tmp_path: Path, stereo: Samples) -> None:
    path = encode(tmp_path / "in.mp4", stereo, 44_100, "aac")
    (job,) = plan_jobs([path], tmp_path / "out")
    assert job == (path, tmp_path / "out" / "in.flac")
    assert AudioFormat.for_path("a.flac", probe_audio(path).format).subtype == "PCM_16"
    assert AudioFormat.for_path("a.wav", AudioFormat("MP4", "ALAC_24")).subtype == "PCM_24"
    assert default_output_name(Path("take.MOV")) == Path("take.flac")
    assert default_output_name(Path("take.wav")) == Path("take.wav")
    with pytest.raises(CallError, match=r"a\.m4a ends in '\.m4a', which is not an .* \.flac"):
        AudioFormat.for_path("a.m4a", probe_audio(path).format)
    with pytest.raises(CallError, match=r"can be written \(.*\.flac .*\.wav"):
        plan_jobs([path], tmp_path / "a.m4a")


def test_video_is_enhanced_to_flac(
    tmp_path: Path, play: Play, model_file: Path, run: Callable[..., Any]
) -> None:
    wave = play(1.5, 22_050, 2, seed=2)
    path = encode(tmp_path / "in.mov", wave, 22_050, "pcm_s16le", tracks=2)
    result = run("enhance", path, "-m", model_file, "-o", tmp_path / "out", "--steps", "2", "--json")
    assert result.code == 0, result.err
    assert any("2 audio tracks; the first was used" in item for item in result.objects[0]["warnings"])
    out = tmp_path / "out" / "in.flac"
    info = soundfile.info(out)
    assert (info.frames, info.samplerate, info.channels) == (wave.shape[1], 22_050, 2)
    recipe = tmp_path / "out" / "in.flac.recipe.json"
    (tmp_path / "again").mkdir()
    again = run("render", recipe, path, "-o", tmp_path / "again", "--json")
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "in.flac").read_bytes() == out.read_bytes()


def test_missing_pyav_names_the_extra(
    tmp_path: Path, stereo: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.m4a", stereo, 44_100, "aac")
    monkeypatch.setattr(ffmpeg, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[media\]'"):
        read_recording(path)
    with pytest.raises(FolderError, match=r"only recordings such as a\.m4a, .*\[media\]"):
        find_audio_files(tmp_path)
    soundfile.write(tmp_path / "b.wav", stereo.T, 44_100)
    assert [item.name for item in find_audio_files(tmp_path)] == ["b.wav"]
    monkeypatch.undo()
    assert [item.name for item in find_audio_files(tmp_path)] == ["a.m4a", "b.wav"]
