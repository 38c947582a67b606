"""Recordings are written without loss, whole or not at all."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.audio_io.conftest import INTEGERS, LOSSY, WAV16, Samples, Tone, format_label
from tonewood.audio_io import libsndfile
from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import probe_audio, read_recording, write_recording
from tonewood.errors import CallError, OutputError


def integers(rng: np.random.Generator, bits: int, channels: int, frames: int) -> Samples:
    """Random integer samples, both ends of the range included, as float32."""
    full = 2 ** (bits - 1)
    whole = rng.integers(-full, full, (channels, frames))
    whole[:, 0], whole[:, 1] = full - 1, -full
    samples: Samples = (whole / full).astype(np.float32)
    return samples


# --- Round trips


@pytest.mark.parametrize("form", INTEGERS, ids=format_label)
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_integer_samples_are_written_back_bit_for_bit(
    tmp_path: Path, rng: np.random.Generator, form: AudioFormat, channels: int
) -> None:
    assert form.integer_bits is not None
    first, second = tmp_path / "first", tmp_path / "second"
    samples = integers(rng, form.integer_bits, channels, 40_000)
    write_recording(first, samples, 48_000, form)
    read_back = read_recording(first)
    # Some containers state valid bits and channel mask besides.
    assert replace(read_back.format, extension="") == form
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
    # Some containers state valid bits and channel mask besides.
    assert replace(read_back.format, extension="") == form


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


@pytest.mark.parametrize("form", [*LOSSY, AudioFormat("FLAC", "PCM_16"), WAV16], ids=format_label)
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


@pytest.mark.parametrize("form", [WAV16, AudioFormat("FLAC", "PCM_16"), *LOSSY], ids=format_label)
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
    ids=format_label,
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
