"""Render corpora for `quality.py` from soundfonts, beyond the development corpora.

    python benchmarks/beds.py -o FOLDER [BED…]

Each is laid out as train|val|test/{good,cheap}; training takes do not correspond, val and test are
pairs. Melodies and rooms are drawn by a seed, so everybody gets the same.

sampled_cello
    another pair of sampled cellos, 12 minutes a side
violin_headsets
    violins, and the same through one of two phone-like responses, 12 minutes a side
violin_performances
    violins that differ in instrument, room and microphone from one performance to the next, and
    the same through one fixed response; 4.7 minutes a side
violin_recitals
    fewer and more different performances, and a milder response: the folders differ less than
    their own takes do
cello_mit
    the paper's controlled experiment, for anybody: one performer, no room, two cellos whose
    soundfonts are both under the MIT licence; 12 minutes a side. `make corpus` renders it

Needs FluidSynth, mido and soundfonts; on Debian or Ubuntu: apt install fluidsynth
fluid-soundfont-gm musescore-general-soundfont-lossless, and timgm6mb-soundfont for the others
"""

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np
import pyloudnorm
import soundfile
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from scipy.signal import fftconvolve

RATE = 24_000
SOUNDFONTS = Path("/usr/share/sounds/sf2")
FLUID, GENERAL, TIM = "FluidR3_GM.sf2", "MuseScore_General_Full.sf2", "TimGM6mb.sf2"
PACKAGES = {
    FLUID: "fluid-soundfont-gm",
    GENERAL: "musescore-general-soundfont-lossless",
    TIM: "timgm6mb-soundfont",
}
VIOLIN, VIOLA, CELLO = 40, 41, 42
RANGES = {VIOLIN: (55, 88), VIOLA: (48, 76), CELLO: (36, 72)}

Wave = NDArray[np.float64]


class Player(NamedTuple):
    soundfont: str
    program: int


def melody(program: int, seconds: float, rng: Generator) -> mido.MidiFile:
    """Draw phrases with steps and leaps, dynamics and slight vibrato."""
    low, high = RANGES[program]
    track = mido.MidiTrack([mido.Message("program_change", program=program)])
    scale = np.array([0, 2, 4, 5, 7, 9, 11]) + rng.integers(12)
    pitches = [p for p in range(low, high + 1) if (p - scale[0]) % 12 in (scale - scale[0]) % 12]
    place, now, wait = int(rng.integers(len(pitches))), 0.0, 0
    pulse = rng.uniform(0.22, 0.4)
    while now < seconds:
        length = pulse * float(rng.choice([1, 1, 2, 2, 3, 4]))
        step = int(rng.choice([-3, -2, -1, -1, 1, 1, 2, 3, 5, -5]))
        place = min(max(place + step, 0), len(pitches) - 1)
        loud = int(np.clip(rng.normal(82, 14), 30, 120))
        swell = int(np.clip(rng.normal(100, 14), 50, 127))
        ticks = round(960 * length)  # 960 a second
        track.append(mido.Message("control_change", control=11, value=swell, time=wait))
        track.append(mido.Message("control_change", control=1, value=int(rng.integers(0, 50))))
        track.append(mido.Message("note_on", note=pitches[place], velocity=loud))
        track.append(mido.Message("note_off", note=pitches[place], time=ticks))
        rests = rng.random() < 0.08
        wait = round(960 * pulse) if rests else 0
        now += length + pulse * rests
    return mido.MidiFile(ticks_per_beat=480, tracks=[track])  # 120 beats a minute by default


def played(player: Player, seconds: float, rng: Generator) -> Wave:
    """Render a melody with a soundfont, dry and mono [sample]."""
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "melody.mid"), Path(folder, "melody.wav")
        melody(player.program, seconds, rng).save(midi)
        subprocess.run(
            ["fluidsynth", "-n", "-i", "-q", "-R", "0", "-C", "0", "-g", "0.5", "-r", str(RATE),
             "-T", "wav", "-O", "float", "-F", str(wav), str(SOUNDFONTS / player.soundfont),
             str(midi)],
            check=True, capture_output=True,
        )  # fmt: skip
        wave, _ = soundfile.read(wav, dtype="float64", always_2d=True)
    whole = np.zeros(round(seconds * RATE))
    mono = wave.mean(axis=1)[: len(whole)]
    whole[: len(mono)] = mono
    return whole


def smooth_gain(spread_db: float, points: int, rng: Generator) -> Callable[[Wave], Wave]:
    """Draw a gain in dB over frequency, with independent points on a mel-like axis."""
    knots = rng.normal(0, spread_db, points)

    def gain_db(hz: Wave) -> Wave:
        return np.interp(np.log1p(hz / 700), np.linspace(0, np.log1p(12_000 / 700), points), knots)

    return gain_db


def headset(rng: Generator) -> Wave:
    """Draw a response [tap] like a telephone headset's: band limits, resonances and ripple."""
    low, high = rng.uniform(150, 400), rng.uniform(3_400, 6_500)
    ripple = smooth_gain(4.0, 14, rng)

    def gain_db(hz: Wave) -> Wave:
        under = -18 * np.log2(np.maximum(low / np.maximum(hz, 10), 1))
        above = -24 * np.log2(np.maximum(hz / high, 1))
        bump = rng_bump * np.exp(-((np.log2(np.maximum(hz, 10) / rng_centre) / 0.5) ** 2))
        return np.maximum(under + above, -45) + bump + ripple(hz)

    rng_bump, rng_centre = rng.uniform(3, 9), rng.uniform(1_500, 3_500)
    return fir(gain_db)


def fir(gain_db: Callable[[Wave], Wave], taps: int = 1_024) -> Wave:
    """Design a minimum-phase filter [tap] from a gain in dB over Hz, by the folded cepstrum."""
    fft = 4 * taps
    half = gain_db(np.arange(fft // 2 + 1) * RATE / fft) * np.log(10) / 20
    cepstrum = np.fft.irfft(half)
    cepstrum[1 : fft // 2] *= 2
    cepstrum[fft // 2 + 1 :] = 0
    return np.fft.irfft(np.exp(np.fft.rfft(cepstrum)))[:taps]


def colour(rng: Generator) -> Wave:
    """Draw a response [tap] with ripple of a few dB and no band limits."""
    return fir(smooth_gain(4.0, 12, rng))


def room(rng: Generator, spread_db: float = 2.5) -> Wave:
    """Draw a response [tap] of a room and a microphone: coloured reverberation, smooth EQ."""
    seconds, wet = rng.uniform(0.2, 1.0), 10 ** (rng.uniform(-24, -10) / 20)
    time = np.arange(round(seconds * RATE)) / RATE
    tail = rng.normal(size=len(time)) * 10 ** (-3 * time / seconds)
    tail = fftconvolve(tail, fir(lambda hz: -3 * np.log2(np.maximum(hz, 500) / 500)))[: len(time)]
    tail *= wet / np.sqrt((tail**2).sum())
    tail[0] += 1
    return fftconvolve(tail, fir(smooth_gain(spread_db, 8, rng)))


def finish(wave: Wave, seconds: float, rng: Generator, floor_dbfs: float = -80.0) -> Wave:
    """Trim, normalise to -23 LUFS, and add a faint noise floor."""
    wave = wave[: round(seconds * RATE)]
    loudness = pyloudnorm.Meter(RATE).integrated_loudness(wave)
    wave = wave * 10 ** ((-23 - loudness) / 20)
    wave += 10 ** (floor_dbfs / 20) * rng.normal(size=len(wave))
    return wave / max(1.0, np.abs(wave).max() / 0.99)


class Performance(NamedTuple):
    """One recording as reference and as source."""

    good: Callable[[int], Wave]  # of a melody's seed
    cheap: Callable[[int], Wave]


def two_cellos(good: str, cheap: str, rng: Generator, seconds: float) -> Performance:
    def by(soundfont: str) -> Callable[[int], Wave]:
        return lambda seed: played(Player(soundfont, CELLO), seconds, default_rng(seed))

    return Performance(by(good), by(cheap))


def headsets(rng: Generator, seconds: float) -> Performance:
    response = headset(default_rng(500 + int(rng.integers(2))))
    player = Player(FLUID, VIOLIN)
    return Performance(
        lambda seed: played(player, seconds, default_rng(seed)),
        lambda seed: fftconvolve(played(player, seconds, default_rng(seed)), response),
    )


def performances(rng: Generator, seconds: float) -> Performance:
    player = Player(str(rng.choice([FLUID, GENERAL, TIM])), int(rng.choice([VIOLIN, VIOLA])))
    return filtered(player, seconds, room(rng), headset(default_rng(600)))


def recitals(rng: Generator, seconds: float) -> Performance:
    player = Player(str(rng.choice([FLUID, GENERAL, TIM])), int(rng.choice([VIOLIN, VIOLA])))
    return filtered(player, seconds, room(rng, spread_db=5.0), colour(default_rng(700)))


def filtered(player: Player, seconds: float, own: Wave, response: Wave) -> Performance:
    """Render a player in a random room, and the same through a fixed response."""

    def direct(seed: int) -> Wave:
        return fftconvolve(played(player, seconds, default_rng(seed)), own)

    return Performance(direct, lambda seed: fftconvolve(direct(seed), response))


class Bed(NamedTuple):
    perform: Callable[[Generator, float], Performance]
    takes: int  # of training, a side
    seconds: float  # each


BEDS = {
    "sampled_cello": Bed(partial(two_cellos, GENERAL, TIM), 24, 30.0),
    "violin_headsets": Bed(headsets, 24, 30.0),
    "violin_performances": Bed(performances, 10, 28.0),
    "violin_recitals": Bed(recitals, 6, 47.0),
    "cello_mit": Bed(partial(two_cellos, FLUID, GENERAL), 24, 30.0),
}
PAIRS = {"val": 4, "test": 12}
PAIR_SECONDS = 10.0


def lacking(name: str) -> str | None:
    """List what a corpus needs and this machine lacks, and how to get it."""
    if shutil.which("fluidsynth") is None:
        return "fluidsynth is not installed: apt install fluidsynth"
    soundfonts = (FLUID, GENERAL) if name == "cello_mit" else (FLUID, GENERAL, TIM)
    for soundfont in soundfonts:
        if not (SOUNDFONTS / soundfont).exists():
            return f"{SOUNDFONTS / soundfont} is missing: apt install {PACKAGES[soundfont]}"
    return None


def render(name: str, bed: Bed, out: Path, draw: int) -> None:
    """Write a corpus below `out`; `draw` is the seed of melodies, rooms and players."""
    number = 1_000_000 * draw + 100_000 * (1 + list(BEDS).index(name))
    for side in ("good", "cheap"):
        for take in range(bed.takes):
            number += 1
            rng = default_rng(number)
            wave = getattr(bed.perform(rng, bed.seconds), side)(number)
            write(out / "train" / side / f"{take:03}.flac", finish(wave, bed.seconds, rng))
    for part, count in PAIRS.items():
        for piece in range(count):
            number += 1
            for side in ("good", "cheap"):
                rng = default_rng(number)
                wave = getattr(bed.perform(rng, PAIR_SECONDS), side)(number)
                write(out / part / side / f"{piece:02}.flac", finish(wave, PAIR_SECONDS, rng))


def write(path: Path, wave: Wave) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE, "PCM_16")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bed", nargs="*", help=f"of {', '.join(BEDS)}; default all")
    parser.add_argument("--draw", type=int, default=0, help="seed of melodies, rooms and players")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    for name in options.bed or BEDS:
        if name not in BEDS:
            parser.error(f"{name!r} is no bed: choose of {', '.join(BEDS)}")
        if reason := lacking(name):
            parser.exit(1, f"{reason}\n")
        render(name, BEDS[name], options.output / name, options.draw)
        print(options.output / name)


if __name__ == "__main__":
    main()
