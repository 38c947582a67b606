"""Recordings in memory, resampling, and the audio files of a folder."""

import errno
import hashlib
import io
import os
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pytest

from tests.audio_io.conftest import WAV16, WAV_FLOAT, Tone
from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import read_recording, write_recording
from tonewood.audio_io.recording import Recording, file_sha256, find_audio_files, resample
from tonewood.errors import AudioError, FolderError
from tonewood.utils.arrays import to_mono


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
