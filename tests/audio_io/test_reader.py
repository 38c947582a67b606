import errno
import hashlib
import io
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tonewood.audio_io import libsndfile
from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import probe_audio, read_recording, write_recording
from tonewood.audio_io.recording import Recording, file_sha256, find_audio_files, resample
from tonewood.errors import AudioError, CallError, FolderError, OutputError
from tonewood.utils.arrays import to_mono

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


def label(form: object) -> str:
    return f"{form.container}-{form.subtype}" if isinstance(form, AudioFormat) else str(form)


def integers(rng: np.random.Generator, bits: int, channels: int, frames: int) -> Samples:
    """Random integer samples, both ends of the range included, as float32."""
    full = 2 ** (bits - 1)
    whole = rng.integers(-full, full, (channels, frames))
    whole[:, 0], whole[:, 1] = full - 1, -full
    samples: Samples = (whole / full).astype(np.float32)
    return samples


# --- Round trips


@pytest.mark.parametrize("form", INTEGERS, ids=label)
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_integer_samples_are_written_back_bit_for_bit(
    tmp_path: Path, rng: np.random.Generator, form: AudioFormat, channels: int
) -> None:
    assert form.integer_bits is not None
    first, second = tmp_path / "first", tmp_path / "second"
    samples = integers(rng, form.integer_bits, channels, 40_000)
    write_recording(first, samples, 48_000, form)
    read_back = read_recording(first)
    assert read_back.format == form
    assert (read_back.rate, read_back.channels) == (48_000, channels)
    np.testing.assert_array_equal(read_back.samples, samples)
    write_recording(second, read_back.samples, read_back.rate, read_back.format)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("bits", [16, 24])
def test_samples_of_other_programs_are_written_back_bit_for_bit(
    tmp_path: Path, rng: np.random.Generator, bits: int
) -> None:
    # As 32-bit integers, so that no float of ours or libsndfile's is between.
    whole = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (30_000, 2)) << (32 - bits)
    theirs, ours = tmp_path / "theirs.wav", tmp_path / "ours.flac"
    soundfile.write(theirs, whole.astype(np.int32), 44_100, subtype=f"PCM_{bits}")
    read_back = read_recording(theirs)
    write_recording(ours, read_back.samples, read_back.rate, AudioFormat.for_path(ours, read_back.format))
    back, _ = soundfile.read(ours, dtype="int32")
    np.testing.assert_array_equal(back, whole)


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "CAF", "AU"])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_beyond_full_scale_are_unchanged(
    tmp_path: Path, rng: np.random.Generator, container: str, subtype: str
) -> None:
    samples = (3 * rng.standard_normal((2, 40_000))).astype(np.float32)
    form = AudioFormat(container, subtype)
    write_recording(tmp_path / "a", samples, 96_000, form)
    read_back = read_recording(tmp_path / "a")
    np.testing.assert_array_equal(read_back.samples, samples)
    assert read_back.format == form


def test_32_bit_integers_keep_the_precision_of_a_float32(tmp_path: Path, rng: np.random.Generator) -> None:
    samples = rng.uniform(-1, 1, (1, 20_000)).astype(np.float32)
    write_recording(tmp_path / "a.wav", samples, 48_000, AudioFormat("WAV", "PCM_32"))
    # 2⁻³² is half a step of the file: it is all that tiny values may lose.
    np.testing.assert_allclose(read_recording(tmp_path / "a.wav").samples, samples, rtol=0, atol=2.0**-32)


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW"])
def test_companded_samples_are_stable_and_clipped(
    tmp_path: Path, rng: np.random.Generator, subtype: str
) -> None:
    form = AudioFormat("WAV", subtype)
    samples = rng.standard_normal((1, 20_000)).astype(np.float32)
    write_recording(tmp_path / "a", samples, 8000, form)
    first = read_recording(tmp_path / "a").samples
    # Steps are a sixteenth of the octave they lie in: 1/32 at the top, of which half is lost.
    np.testing.assert_allclose(first, np.clip(samples, -1, 1), rtol=0, atol=0.032)
    write_recording(tmp_path / "b", first, 8000, form)
    np.testing.assert_array_equal(read_recording(tmp_path / "b").samples, first)


@pytest.mark.parametrize("form", [*LOSSY, AudioFormat("FLAC", "PCM_16"), WAV16], ids=label)
@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_length_rate_and_time_zero_are_unchanged(
    tmp_path: Path, tone: Tone, form: AudioFormat, rate: int
) -> None:
    if rate == 96_000 and form.container == "MP3":
        rate = 32_000
    if form.subtype == "OPUS":
        rate = {44_100: 16_000, 48_000: 48_000, 96_000: 24_000}[rate]
    # Neither a whole number of blocks of ours nor of any codec's frames.
    samples = tone(rate=rate, seconds=1, channels=2, frequency=1000.0)[:, :-7]
    write_recording(tmp_path / "a", samples, rate, form)
    read_back = read_recording(tmp_path / "a")
    assert read_back.samples.shape == samples.shape
    assert read_back.rate == rate
    assert probe_audio(tmp_path / "a").frames == samples.shape[1]
    middle = slice(rate // 10, -rate // 10)  # codecs smear the ends
    error = read_back.samples[:, middle] - samples[:, middle]
    # A shift by a single sample would make an error of 0.10 or more at these tones and rates.
    assert np.sqrt(np.mean(error**2)) < 0.05 * np.sqrt(np.mean(samples**2))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 300)),
        elements=st.floats(-4, 4, width=32),
    ),
    form=st.sampled_from(INTEGERS),
)
def test_rounding_is_to_the_nearest_and_never_wraps(
    tmp_path: Path, samples: Samples, form: AudioFormat
) -> None:
    assert form.integer_bits is not None
    path = tmp_path / "a"
    write_recording(path, samples, 44_100, form, overwrite=True)
    back, _ = soundfile.read(path, dtype="float64", always_2d=True)
    step = 2.0 ** (1 - form.integer_bits)
    expected = np.clip(samples.astype(np.float64), -1, 1 - step)
    assert np.abs(back.T - expected).max() <= step / 2


@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_keep_their_order(tmp_path: Path, tone: Tone, channels: int) -> None:
    samples = tone(channels=channels)
    write_recording(tmp_path / "a.flac", samples, 44_100, AudioFormat("FLAC", "PCM_24"))
    read_back = read_recording(tmp_path / "a.flac").samples
    np.testing.assert_allclose(read_back, samples, atol=2.0**-24)


def test_a_long_vorbis_does_not_crash_its_encoder(tmp_path: Path, rng: np.random.Generator) -> None:
    samples = rng.uniform(-0.5, 0.5, (2, 3_000_000)).astype(np.float32)
    write_recording(tmp_path / "a.ogg", samples, 48_000, AudioFormat("OGG", "VORBIS"))
    assert probe_audio(tmp_path / "a.ogg").frames == 3_000_000


# --- Recording


def recording(samples: npt.ArrayLike, form: AudioFormat = WAV16, rate: int = 44_100) -> Recording:
    return Recording(np.atleast_2d(np.asarray(samples, np.float32)), rate, form, Path("x.wav"))


@pytest.mark.parametrize(
    ("samples", "form", "clipped"),
    [
        ([0, 1, 1, 1, 0], WAV_FLOAT, True),
        ([0, -1, -1, -1, 0], WAV16, True),
        ([[0, 0, 0, 0], [0, 1, 1, 1]], WAV_FLOAT, True),
        ([0, 1, 1, 0, 1, 1], WAV_FLOAT, False),
        ([1, -1, 1, -1, 1], WAV_FLOAT, False),
        ([[1, 1, 0], [0, 0, 1]], WAV_FLOAT, False),
        ([0.99] * 10, WAV16, False),
        ([32767 / 32768] * 3, WAV16, True),
        ([-32767 / 32768] * 3, WAV16, True),
        ([32767 / 32768] * 3, AudioFormat("WAV", "PCM_24"), False),
        ([1 - 2.0**-23] * 3, AudioFormat("WAV", "PCM_24"), True),
        ([1] * 3, AudioFormat("WAV", "PCM_32"), True),
        ([1, 1], WAV_FLOAT, False),
    ],
)
def test_clipping_is_a_run_of_three_at_full_scale(
    samples: list[float], form: AudioFormat, clipped: bool
) -> None:
    assert recording(samples, form).clipped is clipped


def test_clipping_survives_writing_and_reading(tmp_path: Path, tone: Tone) -> None:
    write_recording(tmp_path / "a.wav", tone(amplitude=1.5), 44_100, WAV16)
    write_recording(tmp_path / "b.wav", tone(amplitude=1.0), 44_100, WAV16)
    assert read_recording(tmp_path / "a.wav").clipped
    assert not read_recording(tmp_path / "b.wav").clipped


def test_mono_is_the_mean_of_the_channels() -> None:
    stereo = recording([[0.5, 1.0, 0.0], [0.5, -1.0, 0.25]])
    np.testing.assert_array_equal(to_mono(stereo.samples), [0.5, 0.0, 0.125])
    assert to_mono(stereo.samples).dtype == np.float32
    assert stereo.duration == 3 / 44_100


@pytest.mark.parametrize("rate", [16_000, 22_050, 48_000])
def test_resampled_sine_keeps_frequency_level_and_time(tone: Tone, rate: int) -> None:
    turned = recording(tone(seconds=1, frequency=1000)).at_rate(rate)
    assert turned.dtype == np.float32
    expected = tone(seconds=1, frequency=1000, rate=rate)[0]
    assert turned.shape == expected.shape
    inner = slice(rate // 10, -rate // 10)
    np.testing.assert_allclose(turned[inner], expected[inner], atol=1e-4)


def test_resampling_suppresses_aliases(tone: Tone) -> None:
    above = tone(seconds=1, frequency=9000)  # would fold to 7 kHz at 16 kHz
    assert np.abs(resample(above, 44_100, 16_000)[:, 2000:-2000]).max() < 1e-6


def test_resampling_channels_equals_resampling_each(tone: Tone) -> None:
    stereo = tone(channels=2)
    turned = resample(stereo, 44_100, 16_000)
    assert turned.shape == (2, 8000)
    for channel in range(2):
        np.testing.assert_allclose(turned[channel], resample(stereo[channel], 44_100, 16_000), atol=1e-7)
    same = resample(stereo, 44_100, 44_100)
    np.testing.assert_array_equal(same, stereo)
    assert same is not stereo


# --- Files that cannot be used


@pytest.fixture
def wav(tmp_path: Path, tone: Tone) -> Path:
    """One second, 16 bits, mono: 44 bytes of header and 88,200 of audio."""
    path = tmp_path / "take.wav"
    write_recording(path, tone(seconds=1), 44_100, WAV16)
    return path


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


@pytest.mark.parametrize("form", [*INTEGERS, WAV_FLOAT, *LOSSY], ids=label)
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
    wav.write_bytes(data[:-2])
    refused(wav, "promises 44100 samples, 44099 could be read")


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


# --- Writing that fails


def test_existing_output_is_not_replaced(wav: Path, tone: Tone) -> None:
    before = wav.read_bytes()
    with pytest.raises(OutputError, match=r"take\.wav exists"):
        write_recording(wav, tone(), 44_100, WAV16)
    assert wav.read_bytes() == before
    write_recording(wav, tone(), 44_100, WAV16, overwrite=True)
    assert wav.read_bytes() != before


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError])
def test_interrupted_encoder_leaves_no_file(
    tmp_path: Path, tone: Tone, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    calls = 0
    real = libsndfile.SequentialFile.write

    def once(self: libsndfile.SequentialFile, data: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise failure
        real(self, data)

    monkeypatch.setattr(libsndfile.SequentialFile, "write", once)
    with pytest.raises(failure):
        write_recording(tmp_path / "a.wav", tone(seconds=1), 44_100, WAV16)
    assert calls == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "failure", [soundfile.LibsndfileError(2), AssertionError(), OSError(errno.ENOSPC, "full")]
)
def test_full_disk_reported_by_libsndfile_is_an_error(
    tmp_path: Path, tone: Tone, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise failure

    monkeypatch.setattr(libsndfile.SequentialFile, "write", refuse)
    with pytest.raises(OutputError, match=r"a\.wav was not written: the disk is full: free some"):
        write_recording(tmp_path / "a.wav", tone(), 44_100, WAV16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", [WAV16, AudioFormat("FLAC", "PCM_16"), *LOSSY], ids=label)
def test_full_disk_not_reported_by_libsndfile_is_an_error(
    tmp_path: Path, tone: Tone, monkeypatch: pytest.MonkeyPatch, form: AudioFormat
) -> None:
    real = libsndfile.encode_blocks

    def short(path: Path, *rest: Any) -> None:
        real(path, *rest)
        os.truncate(path, path.stat().st_size * 2 // 3)

    monkeypatch.setattr(libsndfile, "encode_blocks", short)
    with pytest.raises(OutputError, match="disk is full"):
        write_recording(tmp_path / "a", tone(seconds=2, rate=48_000), 48_000, form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("form", "channels", "rate", "match"),
    [
        (AudioFormat("MP3", "MPEG_LAYER_III"), 1, 96_000, r"96000 Hz; mp3 supports only .*\.wav"),
        (AudioFormat("FLAC", "PCM_16"), 9, 44_100, r"9 channels; flac holds 8: .*\.wav"),
    ],
    ids=label,
)
def test_audio_that_a_format_cannot_store_is_refused(
    tmp_path: Path, tone: Tone, form: AudioFormat, channels: int, rate: int, match: str
) -> None:
    with pytest.raises(OutputError, match=match):
        write_recording(tmp_path / "a", tone(channels=channels, rate=rate, frequency=20), rate, form)
    assert list(tmp_path.iterdir()) == []


def test_refusal_by_the_encoder_is_one_line(
    tmp_path: Path, tone: Tone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tonewood.audio_io.reader.why_unsupported", lambda *_: None)
    with pytest.raises(OutputError, match="MP3 MPEG_LAYER_III refuses 1 channels at 96000 Hz"):
        write_recording(tmp_path / "a", tone(rate=96_000), 96_000, LOSSY[2])


def test_invalid_samples_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not finite"):
        write_recording(tmp_path / "a.wav", np.full((1, 9), np.nan, np.float32), 44_100, WAV16)
    for shape in ((9,), (0, 9), (2, 0)):
        with pytest.raises(CallError, match="have the shape"):
            write_recording(tmp_path / "a.wav", np.zeros(shape, np.float32), 44_100, WAV16)
    assert list(tmp_path.iterdir()) == []


# --- Folders and sums


def test_audio_files_are_found_below_a_folder_and_sorted(tmp_path: Path) -> None:
    expected = ["B/2.Flac", "a/1.wav", "a/b/3.OPUS", "z.mp3"]
    for name in [*expected, "a/.hidden.wav", ".git/x.wav", "a/notes.txt", "._z.mp3", "wav"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    actual = find_audio_files(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in actual] == expected


def test_links_neither_loop_nor_list_twice(tmp_path: Path) -> None:
    takes = tmp_path / "takes"
    other = tmp_path / "other"
    takes.mkdir()
    other.mkdir()
    (takes / "a.wav").touch()
    (other / "b.wav").touch()
    (takes / "loop").symlink_to(takes)
    (takes / "linked").symlink_to(other)
    (takes / "linked too").symlink_to(other)
    (takes / "same.wav").symlink_to(takes / "a.wav")
    assert find_audio_files(takes) == [takes / "a.wav", takes / "linked" / "b.wav"]


def test_unusable_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FolderError, match=r"no audio file below .*: add some"):
        find_audio_files(tmp_path)
    with pytest.raises(FolderError, match="does not exist"):
        find_audio_files(tmp_path / "none")
    (tmp_path / "a.wav").touch()
    with pytest.raises(FolderError, match="is a file; a folder"):
        find_audio_files(tmp_path / "a.wav")

    def refuse(path: str) -> NoReturn:
        raise PermissionError(errno.EACCES, "no", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FolderError, match="cannot be read; every folder"):
        find_audio_files(tmp_path)


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    content = io.BytesIO(bytes(range(256)) * 9999).getvalue()
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    with pytest.raises(AudioError, match="does not exist: check its name"):
        file_sha256(tmp_path / "none")
