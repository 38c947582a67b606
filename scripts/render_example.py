"""Render the example recording that Tonewood ships.

The melody below is Tonewood's own. It is written as a MIDI file, played by FluidSynth on the
cello (program 42) of MuseScore_General_Full.sf2 without reverb or chorus, made mono, brought to
-23 LUFS and stored as 16-bit FLAC. The same FluidSynth and the same soundfont give the same
samples on every run.

Needs FluidSynth and the soundfont; on Debian or Ubuntu::

    apt install fluidsynth musescore-general-soundfont-lossless
    python scripts/render_example.py
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyloudnorm
import soundfile

ROOT = Path(__file__).resolve().parent.parent
SOUNDFONT = Path("/usr/share/sounds/sf2/MuseScore_General_Full.sf2")
OUTPUT = ROOT / "src" / "tonewood" / "bundled" / "example.flac"

RATE_HZ = 44_100
LENGTH_S = 10.0
LOUDNESS_LUFS = -23.0
FADE_S = 0.08
CELLO = 42  # General MIDI program, counted from 0
LEGATO_MS = 25  # a note sounds this long into the next one
DITHER_SEED = 20


class Note(NamedTuple):
    """One note of the melody."""

    pitch: int  # MIDI number, 60 = C4
    length_ms: int
    velocity: int  # 1..127


# C major, from the open C string up to D5 and home again.
MELODY = (
    Note(36, 900, 70),  # C2
    Note(43, 350, 66),  # G2
    Note(52, 350, 70),  # E3
    Note(60, 700, 78),  # C4
    Note(59, 300, 70),  # B3
    Note(62, 350, 76),  # D4
    Note(67, 900, 86),  # G4
    Note(69, 400, 88),  # A4
    Note(72, 400, 94),  # C5
    Note(74, 1050, 104),  # D5
    Note(71, 350, 90),  # B4
    Note(67, 350, 82),  # G4
    Note(64, 650, 78),  # E4
    Note(62, 300, 70),  # D4
    Note(53, 350, 64),  # F3
    Note(55, 450, 62),  # G3
    Note(48, 1400, 58),  # C3
)

# Bow pressure and vibrato over the phrase: (ms, value of the MIDI controller).
EXPRESSION = (
    (0, 70),
    (250, 96),
    (1250, 84),
    (2300, 98),
    (3850, 116),
    (4750, 118),
    (5100, 127),
    (5900, 112),
    (7300, 92),
    (8150, 84),
    (8500, 80),
    (9550, 34),
)
VIBRATO = ((0, 0), (400, 24), (900, 8), (3000, 10), (3700, 40), (4700, 24), (5500, 44), (9500, 8))
EXPRESSION_CONTROLLER, VIBRATO_CONTROLLER = 11, 1
CONTROL_STEP_MS = 20


def variable_length(value: int) -> bytes:
    """Encode a non-negative integer as a MIDI variable-length quantity."""
    encoded = [value & 0x7F]
    while value := value >> 7:
        encoded.append(0x80 | (value & 0x7F))
    return bytes(reversed(encoded))


def controller(number: int, curve: tuple[tuple[int, int], ...]) -> list[tuple[int, bytes]]:
    """Sample a piecewise linear curve as control changes on channel 1."""
    times, values = zip(*curve, strict=True)
    steps = range(0, times[-1] + 1, CONTROL_STEP_MS)
    sampled = np.rint(np.interp(steps, times, values)).astype(int)
    return [(ms, bytes([0xB0, number, int(value)])) for ms, value in zip(steps, sampled, strict=True)]


def midi_file() -> bytes:
    """Write the melody as a format 0 MIDI file whose tick is one millisecond."""
    events = [(0, bytes([0xC0, CELLO]))]
    events += controller(EXPRESSION_CONTROLLER, EXPRESSION)
    events += controller(VIBRATO_CONTROLLER, VIBRATO)
    start_ms = 0
    for note in MELODY:
        end_ms = start_ms + note.length_ms
        events.append((start_ms, bytes([0x90, note.pitch, note.velocity])))
        events.append((end_ms + LEGATO_MS, bytes([0x80, note.pitch, 0])))
        start_ms = end_ms
    events.sort(key=lambda event: event[0])  # stable, so the order above settles ties

    # 1,000,000 µs a quarter note at 1,000 ticks a quarter note: one tick is 1 ms.
    track = b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big")
    now_ms = 0
    for ms, message in events:
        track += variable_length(ms - now_ms) + message
        now_ms = ms
    track += variable_length(round(LENGTH_S * 1000) - now_ms) + b"\xff\x2f\x00"

    header = b"".join(value.to_bytes(2, "big") for value in (0, 1, 1000))
    chunks = ((b"MThd", header), (b"MTrk", track))
    return b"".join(name + len(data).to_bytes(4, "big") + data for name, data in chunks)


def synthesise(soundfont: Path) -> npt.NDArray[np.float64]:
    """Play the melody with FluidSynth and return it in mono.

    Returns
    -------
    numpy.ndarray
        `[sample]`, at `RATE_HZ`, `LENGTH_S` long.
    """
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "melody.mid"), Path(folder, "melody.wav")
        midi.write_bytes(midi_file())
        subprocess.run(
            [
                *("fluidsynth", "-n", "-i", "-q", "-R", "0", "-C", "0", "-g", "0.5"),
                *("-r", str(RATE_HZ), "-o", "synth.cpu-cores=1", "-T", "wav", "-O", "float"),
                *("-F", str(wav), str(soundfont), str(midi)),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        stereo, rate_hz = soundfile.read(wav, dtype="float64", always_2d=True)
    assert rate_hz == RATE_HZ
    length = round(LENGTH_S * RATE_HZ)
    mono = np.zeros(length)
    rendered = stereo.mean(axis=1)[:length]
    mono[: rendered.size] = rendered
    return mono


def finish(mono: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
    """Fade the last moment out, set the loudness and dither to 16 bits.

    Parameters
    ----------
    mono
        `[sample]`, full scale ±1.
    """
    fade = round(FADE_S * RATE_HZ)
    mono = mono.copy()
    mono[-fade:] *= np.cos(np.linspace(0, np.pi / 2, fade)) ** 2
    loudness = pyloudnorm.Meter(RATE_HZ).integrated_loudness(mono)
    mono *= 10 ** ((LOUDNESS_LUFS - loudness) / 20)
    # The difference of two uniform variables is triangular and two steps wide: it makes the
    # rounding error independent of the signal.
    noise = np.random.default_rng(DITHER_SEED).random((2, mono.size))
    steps: npt.NDArray[np.float64] = np.rint(mono * 2**15 + noise[0] - noise[1])
    assert np.abs(steps).max() < 2**15
    return steps.astype(np.int16)


def main() -> int:
    """Render the example; return the exit code."""
    parser = argparse.ArgumentParser(description="Render Tonewood's example recording.")
    parser.add_argument("--soundfont", type=Path, default=SOUNDFONT)
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    if shutil.which("fluidsynth") is None:
        print("fluidsynth is not installed: apt install fluidsynth", file=sys.stderr)
        return 1
    if not arguments.soundfont.is_file():
        print(
            f"{arguments.soundfont} is missing: apt install musescore-general-soundfont-lossless, "
            "or give --soundfont",
            file=sys.stderr,
        )
        return 1
    soundfile.write(arguments.output, finish(synthesise(arguments.soundfont)), RATE_HZ, "PCM_16")
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
