"""`tonewood live`, as scripts and people call it, with a sound card of our own."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tonewood.enhancement import realtime

Run = Callable[..., Any]

# What the command uses of sounddevice: two devices, and a stream that hears a hum, then Ctrl-C.
FAKE = """
import numpy as np
class PortAudioError(Exception): pass
def device(index, name, ins, outs, rate):
    return {"index": index, "name": name, "max_input_channels": ins, "max_output_channels": outs,
            "default_samplerate": rate}
DEVICES = [device(0, "Desk\\x1b", 2, 0, 48000.0), device(1, "Box", 0, 8, 44100.0)]
opened = []
blocks = 40
def query_devices(device=None, kind=None):
    if kind is None:
        return DEVICES
    if device is None:
        return DEVICES[kind == "output"]
    found = [d for d in DEVICES if device in (d["index"], d["name"])]
    if not found:
        raise ValueError(f"No {kind} device matching {device!r}")
    return found[0]
class Stream:
    latency = (0.005, 0.006)
    def __init__(self, samplerate, blocksize, device, channels, dtype, latency):
        if samplerate == 12345:
            raise PortAudioError("Invalid sample rate\\n[PaErrorCode -9997]")
        self.samplerate, self.channels = float(samplerate), (channels, channels)
        self.device = device
        self.count, self.played = 0, []
        opened.append(self)
    def __enter__(self):
        return self
    def __exit__(self, *_):
        self.closed = True
    def read(self, frames):
        self.count += 1
        if self.count > blocks:
            raise KeyboardInterrupt
        time = np.arange(frames) + self.count * frames
        hum = np.sin(time / 20)[:, None].astype("float32") / 4
        return np.repeat(hum, self.channels[0], 1), self.count == 2
    def write(self, data):
        assert data.dtype == np.float32 and data.flags.c_contiguous
        self.played.append(data)
        return False
"""


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "sounddevice.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path / "fake"))
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    import sounddevice

    yield sounddevice
    sys.modules.pop("sounddevice")


@pytest.fixture
def take(tmp_path: Path, play: Callable[..., Any]) -> Path:
    path = tmp_path / "take.flac"
    soundfile.write(path, play(1.2, 48_000, 2).T, 48_000, subtype="PCM_24")
    return path


def test_live_runs_until_control_c(run: Run, card: Any, predicting_file: Path) -> None:
    ran = run("live", "-m", predicting_file, "--block", 480)
    assert ran.code == 0, ran.err
    assert ran.err.startswith("48000 Hz, 2 channels; 61 ms in all. b: bypass")
    assert ran.out.startswith("played   0.4 s; load ")
    assert ran.out.endswith("dropouts 1\n")
    [stream] = card.opened
    assert stream.closed
    assert stream.device == (0, 1)
    assert len(stream.played) == 40
    assert np.concatenate(stream.played)[4_000:].any()


def test_live_json_has_one_object_per_event(run: Run, card: Any, predicting_file: Path) -> None:
    card.blocks = 320
    ran = run("live", "-m", predicting_file, "--block", 480, "--json", "--amount", "0.5")
    assert ran.err == ""
    begun, *levels, ended = ran.objects
    assert begun == {"event": "begun", "rate": 48_000, "channels": 2, "latency_ms": 39.98}
    assert [item["seconds"] for item in levels] == [1.0, 2.0, 3.0]
    assert levels[0]["input_db"] == pytest.approx(-12.04, abs=0.1)
    assert levels[0]["amount"] == 0.5
    assert ended["seconds"] == 3.2
    assert ended["dropouts"] == 1


def test_devices_are_listed_and_selected(run: Run, card: Any, predicting_file: Path) -> None:
    ran = run("live", "--list-devices")
    assert ran.code == 0
    assert ran.out == "  0  Desk\\x1b  (2 in, 0 out, 48000 Hz)\n  1  Box  (0 in, 8 out, 44100 Hz)\n"
    ran = run("live", "--list-devices", "--json")
    assert ran.objects[1] == {"number": 1, "name": "Box", "inputs": 0, "outputs": 8, "rate": 44_100}
    ran = run("live", "-m", predicting_file, "--output", "Box", "--input", "0", "--rate", 44_100)
    assert ran.code == 0
    assert card.opened[0].samplerate == 44_100


def test_missing_sound_card_is_named(run: Run, card: Any, predicting_file: Path) -> None:
    card.DEVICES.clear()
    ran = run("live", "--list-devices")
    assert (ran.code, ran.out, ran.err) == (0, "", "tonewood: there is no sound card\n")
    ran = run("live", "-m", predicting_file)
    assert ran.code == 1
    assert ran.err.startswith("tonewood: there is no sound card: connect one, or play a rec")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input", "Bag"), "the sound card cannot be used (No input device matching 'Bag'): name a"),
        (("--rate", "12345"), "the sound card cannot be used (Invalid sample rate [PaErrorCode -9997])"),
    ],
)
def test_sound_card_error_is_one_line(
    run: Run, card: Any, predicting_file: Path, arguments: tuple[str, ...], message: str
) -> None:
    ran = run("live", "-m", predicting_file, *arguments)
    assert ran.code == 1
    assert ran.err.startswith(f"tonewood: {message}")
    assert ran.err.count("\n") == 1


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal here")
def test_signal_switches_bypass(run: Run, card: Any, predicting_file: Path) -> None:
    card.blocks = 220
    real = card.Stream.read

    def read(stream: Any, frames: int) -> Any:
        if stream.count == 50:
            os.kill(os.getpid(), signal.SIGUSR1)
        return real(stream, frames)

    card.Stream.read = read
    ran = run("live", "-m", predicting_file, "--block", 480, "--json")
    assert [item["bypassed"] for item in ran.objects[1:-1]] == [True, True]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ("ImportError", "live needs sounddevice, which is not installed: pip install '.[li"),
        ("OSError", "live needs PortAudio, which is not installed: apt install libportaudio2, dnf"),
    ],
)
def test_what_is_not_installed_is_one_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    predicting_file: Path,
    raised: str,
    message: str,
) -> None:
    (tmp_path / "sounddevice.py").write_text(f"raise {raised}('PortAudio library not found')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    ran = run("live", "-m", predicting_file)
    assert ran.code == 1
    assert ran.err.startswith(f"tonewood: {message}")
    assert ran.err.count("\n") == 1


def test_recording_replaces_the_sound_card(
    run: Run, take: Path, tmp_path: Path, predicting_file: Path
) -> None:
    for amount in ("0", "1"):
        out = tmp_path / f"{amount}.flac"
        ran = run("live", "-m", predicting_file, "--from", take, "-o", out, "--amount", amount)
        assert ran.code == 0, ran.err
        assert ran.out.startswith("played   1.2 s; load ")
        assert ran.out.endswith(f"sound    {out}\n")
    samples, untouched, output = (
        soundfile.read(path)[0] for path in (take, tmp_path / "0.flac", tmp_path / "1.flac")
    )
    assert np.array_equal(samples, untouched)
    assert output.shape == samples.shape
    assert np.abs(output - samples).max() > 1e-3
    assert soundfile.info(tmp_path / "1.flac").subtype == "PCM_24"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--from", "{take}"), 2, "--from and -o go together: name a recording and a file"),
        (("-o", "a.wav"), 2, "--from and -o go together"),
        (("--amount", "2.5"), 2, "--amount is 2.5: give a number from -1 to 2"),
        (("--amount", "nan"), 2, "--amount is nan: give a number from -1 to 2"),
        (("--smooth-seconds", "1"), 2, "--smooth-seconds needs later audio"),
        (
            ("--from", "{take}", "-o", "{gone}.wav", "--low", "24e3"),
            2,
            "--low is 24000; a stream at 48000 Hz has frequencies up to 24000 Hz: give a lower limit",
        ),
        (("--low", "900", "--high", "90"), 2, "--low and --high: limits from 900 Hz to 90 Hz are empty"),
        (("--from", "{take}", "-o", "{take}"), 1, "exists: name another output"),
        (("--from", "{take}", "-o", "{gone}.xyz"), 2, "ends in '.xyz'"),
        (("--from", "{take}", "-o", "{gone}.wav", "--rate", "48000"), 2, "--rate is for devices"),
        (("--from", "{take}", "-o", "{gone}.wav", "--input", "0"), 2, "--input is for devices"),
        (("--from", "{gone}", "-o", "{gone}.wav"), 1, "gone"),
        (("--from", "{low}", "-o", "{low}.wav"), 2, "the stream's rate is 8000 Hz; it goes from 16000 to"),
    ],
)
def test_wrong_calls_are_one_line(
    run: Run,
    take: Path,
    tmp_path: Path,
    predicting_file: Path,
    play: Callable[..., Any],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    low = tmp_path / "low.wav"
    soundfile.write(low, play(1, 8_000).T, 8_000)
    named = {"take": take, "gone": tmp_path / "gone", "low": low}
    ran = run("live", "-m", predicting_file, *(argument.format(**named) for argument in arguments))
    assert ran.code == code
    assert message in ran.err
    assert ran.err.count("\n") == 1


def test_interrupted_recording_is_told_from_a_whole_one(
    run: Run, take: Path, tmp_path: Path, predicting_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = realtime.FileDevice.read

    def read_until_control_c(device: realtime.FileDevice) -> Any:
        if device.position >= 24_000:
            raise KeyboardInterrupt
        return read(device)

    monkeypatch.setattr(realtime.FileDevice, "read", read_until_control_c)
    out = tmp_path / "part.wav"
    ran = run("live", "-m", predicting_file, "--from", take, "-o", out, "--block", 1_000)
    assert ran.code == 130
    assert ran.err == f"tonewood: interrupted; {out} has the first 0.5 s\n"
    samples, rate = soundfile.read(out)
    assert len(samples) / rate == pytest.approx(0.5)


def test_recording_interrupted_at_once_writes_nothing(
    run: Run, take: Path, tmp_path: Path, predicting_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(realtime.FileDevice, "read", interrupt)
    ran = run("live", "-m", predicting_file, "--from", take, "-o", tmp_path / "none.wav")
    assert (ran.code, ran.err) == (130, "tonewood: interrupted\n")
    assert not (tmp_path / "none.wav").exists()


def test_a_model_without_a_predictor_says_so(run: Run, take: Path, tmp_path: Path, model_file: Path) -> None:
    ran = run("live", "-m", model_file, "--from", take, "-o", tmp_path / "a.wav")
    assert ran.code == 1
    assert ran.err.startswith("tonewood: tiny has no predictor: add one with train --predictor")
    assert not (tmp_path / "a.wav").exists()
