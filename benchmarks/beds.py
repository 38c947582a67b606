"""Render corpora for `quality.py` from soundfonts and a speech synthesiser.

    python benchmarks/beds.py -o FOLDER [BED…]

Each is laid out as train|val|test/{good,cheap}; training takes do not correspond, val and test are
pairs. Melodies, sentences and rooms are drawn by a seed, so everybody gets the same.

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
trumpets
    two sampled trumpets, 12 minutes a side
music_old_disc
    small bands of melody, chords, bass and sometimes drums, and the same from one old disc: band
    limits, resonances and compression, with surface noise whose level differs by take; 10 minutes a side
speech_room
    synthetic voices, dry, and the same in one of three rooms, band-limited and through Opus at about
    12 kbit/s; 10 minutes a side

Needs FluidSynth, mido and soundfonts; on Debian or Ubuntu: apt install fluidsynth
fluid-soundfont-gm musescore-general-soundfont-lossless timgm6mb-soundfont. `cello_mit` does without
the last, and speech_room needs espeak-ng instead of all these
"""

import argparse
import io
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
from scipy.signal import fftconvolve, lfilter, resample_poly

RATE = 24_000
SOUNDFONTS = Path("/usr/share/sounds/sf2")
FLUID, GENERAL, TIM = "FluidR3_GM.sf2", "MuseScore_General_Full.sf2", "TimGM6mb.sf2"
PACKAGES = {
    FLUID: "fluid-soundfont-gm",
    GENERAL: "musescore-general-soundfont-lossless",
    TIM: "timgm6mb-soundfont",
}
VIOLIN, VIOLA, CELLO, TRUMPET = 40, 41, 42, 56
RANGES = {VIOLIN: (55, 88), VIOLA: (48, 76), CELLO: (36, 72), TRUMPET: (54, 82)}

# General MIDI programs of a band, counted from 0: violin, trumpet, alto saxophone, oboe, clarinet,
# flute; piano, organ, nylon and steel guitar, harp, strings; acoustic and fingered bass, double bass, tuba.
LEADS, CHORDS, BASSES = (40, 56, 65, 68, 71, 73), (0, 16, 24, 25, 46, 48), (32, 33, 43, 58)
LEAD, CHORD, BASS, DRUMS = 0, 1, 2, 9  # channels; General MIDI fixes that of the drums
KICK, SNARE, HAT = 36, 38, 42
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)

VOICES = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")
VARIANTS = ("m1", "m2", "m3", "m4", "m7", "f1", "f2", "f3", "f4", "f5")
WHEN = (
    "before sunrise", "after the storm", "on market day", "late in the evening", "without a word",
    "in the first week of June", "as the bells rang", "while the kettle boiled", "once again",
    "to everyone's surprise", "just in time", "for a few coins",
)  # fmt: skip
WHO = (
    "the young baker", "my neighbour's daughter", "an old ferryman", "the choir", "two quiet brothers",
    "a judge from the valley", "the clockmaker", "her youngest cousin", "our teacher", "half the village",
    "a stranger with a red scarf", "the gardener",
)  # fmt: skip
ACTIONS = (
    "carried a basket of pears", "sang the chorus twice", "measured the oak table", "lost a silver key",
    "painted five wooden boats", "wrote down every name", "saw the missing page", "shared bread and cheese",
    "repaired the broken wheel", "counted thirty-eight geese", "told a strange joke", "watched the ships",
)  # fmt: skip
WHERE = (
    "across the frozen bridge", "beside the harbour wall", "under the chestnut trees", "in the large hall",
    "at the edge of the field", "in a narrow kitchen", "near the church of Saint Giles", "behind the theatre",
    "by the open gate", "on the road to Exeter", "between two haystacks", "at the top of the stairs",
)  # fmt: skip

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


class Note(NamedTuple):
    start: float  # s
    length: float  # s
    channel: int
    pitch: int
    velocity: float


def score(notes: list[Note], programs: dict[int, int]) -> mido.MidiFile:
    """Write notes of several channels, each with its program, as one track."""
    events = []
    for start, length, channel, pitch, velocity in notes:
        loud = int(np.clip(velocity, 20, 120))
        key = {"channel": channel, "note": pitch}
        events.append((round(960 * max(start, 0)), mido.Message("note_on", velocity=loud, **key)))
        events.append((round(960 * max(start + length, 0)), mido.Message("note_off", **key)))
    # At one tick, a note that ends goes before one that starts: they can be of one pitch.
    events.sort(key=lambda event: (event[0], event[1].type))
    track = mido.MidiTrack(
        mido.Message("program_change", channel=channel, program=program)
        for channel, program in programs.items()
    )
    now = 0
    for tick, message in events:
        track.append(message.copy(time=tick - now))
        now = tick
    return mido.MidiFile(ticks_per_beat=480, tracks=[track])


def ensemble(seconds: float, rng: Generator) -> mido.MidiFile:
    """Draw a band, and what it plays over four chords: melody, accompaniment, bass, perhaps drums."""
    beat, beats = rng.uniform(0.33, 0.6), int(rng.choice([3, 4]))
    scale, tonic = (MINOR if rng.random() < 0.4 else MAJOR), int(rng.integers(-5, 7))
    roots = [0, *rng.choice([0, 1, 3, 4, 5], 3).tolist()]
    players = {LEAD: LEADS, CHORD: CHORDS, BASS: BASSES}
    programs = {channel: int(rng.choice(choices)) for channel, choices in players.items()}
    drums, style = rng.random() < 0.5, str(rng.choice(["held", "struck", "broken"]))
    notes: list[Note] = []
    place = 7  # of the melody, in steps of the scale

    def add(channel: int, when: float, length: float, pitch: int, velocity: float) -> None:
        start = beat * when + rng.normal(0, 0.006)  # nobody plays exactly on the beat
        notes.append(Note(start, 0.95 * beat * length, channel, pitch, velocity + rng.normal(0, 6)))

    def pitch(step: int, octave: int) -> int:
        return 12 * (octave + step // 7) + tonic + scale[step % 7]

    for bar in range(int(np.ceil(seconds / (beat * beats)))):
        first, root = bar * beats, roots[bar % 4]
        triad = [pitch(root + third, 4) for third in (0, 2, 4)]
        # Melody: chord notes on the first beat, steps and leaps after.
        passed = 0.0
        while passed < beats:
            length = min(float(rng.choice([0.5, 0.5, 1, 1, 1.5, 2])), beats - passed)
            place = int(np.clip(place + rng.choice([-3, -2, -1, -1, 1, 1, 2, 3]), 0, 13))
            while passed == 0 and (place - root) % 7 not in (0, 2, 4):
                place += 1
            if rng.random() > 0.1:
                add(LEAD, first + passed, length, pitch(place, 5), 96)
            passed += length
        # Accompaniment
        if style == "broken":
            for half in range(2 * beats):
                add(CHORD, first + half / 2, 1, triad[half % 3] + 12 * (half % 4 == 3), 66)
        else:
            for count in range(beats if style == "struck" else 1):
                for tone in triad:
                    add(CHORD, first + count, 1 if style == "struck" else beats, tone, 62)
        add(BASS, first, 2, pitch(root, 3), 84)
        add(BASS, first + 2, beats - 2, pitch(root + int(rng.choice([0, 4])), 3), 78)
        for half in range(2 * beats if drums else 0):
            add(DRUMS, first + half / 2, 0.5, HAT, 56)
            if half % 2 == 0:
                add(DRUMS, first + half / 2, 0.5, SNARE if half // 2 % 2 else KICK, 76)
    return score(notes, programs)


def fitted(wave: Wave, seconds: float) -> Wave:
    """Cut or pad with silence."""
    whole = np.zeros(round(seconds * RATE))
    whole[: len(wave)] = wave[: len(whole)]
    return whole


def synthesised(midi: mido.MidiFile, soundfont: str, seconds: float) -> Wave:
    """Render notes with a soundfont, dry and mono [sample]."""
    with tempfile.TemporaryDirectory() as folder:
        notes, wav = Path(folder, "notes.mid"), Path(folder, "notes.wav")
        midi.save(notes)
        subprocess.run(
            ["fluidsynth", "-n", "-i", "-q", "-R", "0", "-C", "0", "-g", "0.5", "-r", str(RATE),
             "-T", "wav", "-O", "float", "-F", str(wav), str(SOUNDFONTS / soundfont), str(notes)],
            check=True, capture_output=True,
        )  # fmt: skip
        wave, _ = soundfile.read(wav, dtype="float64", always_2d=True)
    return fitted(wave.mean(axis=1), seconds)


def played(player: Player, seconds: float, rng: Generator) -> Wave:
    """Render a melody with a soundfont, dry and mono [sample]."""
    return synthesised(melody(player.program, seconds, rng), player.soundfont, seconds)


def spoken(seconds: float, rng: Generator) -> Wave:
    """Draw a voice and sentences, and render them dry [sample]."""
    voice = f"{rng.choice(VOICES)}+{rng.choice(VARIANTS)}"
    pace, pitch = int(rng.integers(130, 190)), int(rng.integers(30, 71))  # words a minute; of 0 to 99
    sentences = []
    for _ in range(int(np.ceil(seconds / 2.5))):  # each lasts 3 s or more
        when, who, action, where = (str(rng.choice(parts)) for parts in (WHEN, WHO, ACTIONS, WHERE))
        sentence = (
            f"{when}, {who} {action} {where}" if rng.random() < 0.5 else f"{who} {action} {where}, {when}"
        )
        sentences.append(sentence.capitalize() + str(rng.choice([".", ".", ".", "?", "!"])))
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "speech.wav")
        options = ["-v", voice, "-s", str(pace), "-p", str(pitch), "-w", str(wav)]
        subprocess.run(["espeak-ng", *options, " ".join(sentences)], check=True, capture_output=True)
        wave, rate = soundfile.read(wav, dtype="float64")
    return fitted(resample_poly(wave, RATE, rate), seconds)


def smooth_gain(spread_db: float, points: int, rng: Generator) -> Callable[[Wave], Wave]:
    """Draw a gain in dB over frequency, with independent points on a mel-like axis."""
    knots = rng.normal(0, spread_db, points)

    def gain_db(hz: Wave) -> Wave:
        return np.interp(np.log1p(hz / 700), np.linspace(0, np.log1p(12_000 / 700), points), knots)

    return gain_db


def band_db(hz: Wave, low: float, high: float) -> Wave:
    """Return the gain in dB of band limits with 18 dB an octave below and 24 above."""
    under = -18 * np.log2(np.maximum(low / np.maximum(hz, 10), 1))
    above = -24 * np.log2(np.maximum(hz / high, 1))
    return np.maximum(under + above, -45)


def headset(rng: Generator) -> Wave:
    """Draw a response [tap] like a telephone headset's: band limits, resonances and ripple."""
    low, high = rng.uniform(150, 400), rng.uniform(3_400, 6_500)
    ripple = smooth_gain(4.0, 14, rng)

    def gain_db(hz: Wave) -> Wave:
        bump = rng_bump * np.exp(-((np.log2(np.maximum(hz, 10) / rng_centre) / 0.5) ** 2))
        return band_db(hz, low, high) + bump + ripple(hz)

    rng_bump, rng_centre = rng.uniform(3, 9), rng.uniform(1_500, 3_500)
    return fir(gain_db)


def horn(rng: Generator) -> Wave:
    """Draw a response [tap] like an acoustic recorder's: band limits and narrow resonances."""
    peaks_db, centres = rng.uniform(4, 9, 5), rng.uniform(np.log2(250), np.log2(3_500), 5)

    def gain_db(hz: Wave) -> Wave:
        octaves = np.log2(np.maximum(hz, 10))[:, None] - centres
        return band_db(hz, 150, 4_500) + (peaks_db * np.exp(-((octaves / 0.15) ** 2))).sum(axis=1)

    return fir(gain_db)


def compressed(wave: Wave, threshold_db: float, ratio: float = 2.0, seconds: float = 0.05) -> Wave:
    """Compress what is louder than a threshold relative to the take's mean power."""
    step = 1 - np.exp(-1 / (seconds * RATE))
    power = lfilter([step], [1, step - 1], wave**2) / (wave**2).mean()
    over = np.maximum(10 * np.log10(power + 1e-9) - threshold_db, 0)
    return wave * 10 ** (over * (1 / ratio - 1) / 20)


def surface(seconds: float, rng: Generator) -> Wave:
    """Draw the noise of a 78 rpm disc [sample], about one click a second included; its RMS is about 1."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = rng.normal(size=len(time)) * (1 + 0.3 * np.sin(2 * np.pi * (78 / 60) * time))
    clicks = (rng.random(len(time)) < 1 / RATE) * rng.normal(0, 60, len(time))
    coloured = fftconvolve(noise + clicks, fir(lambda hz: -3 * np.log2(np.maximum(hz, 200) / 200)))
    coloured = fftconvolve(coloured, fir(lambda hz: band_db(hz, 100, 7_000)))[: len(time)]
    return coloured / np.sqrt(np.median(coloured**2) / 0.455)  # the median of a squared normal variable


def opus(wave: Wave) -> Wave:
    """Encode with Opus at about 12 kbit/s, and decode."""
    file = io.BytesIO()
    soundfile.write(
        file, wave / np.abs(wave).max() / 2, RATE, format="OGG", subtype="OPUS", compression_level=0.98
    )
    file.seek(0)
    return soundfile.read(file, dtype="float64")[0]


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


def room(rng: Generator, spread_db: float = 2.5, wet_db: tuple[float, float] = (-24, -10)) -> Wave:
    """Draw a response [tap] of a room and a microphone: coloured reverberation, smooth EQ."""
    seconds, wet = rng.uniform(0.2, 1.0), 10 ** (rng.uniform(*wet_db) / 20)
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


def two_soundfonts(program: int, good: str, cheap: str, rng: Generator, seconds: float) -> Performance:
    def by(soundfont: str) -> Callable[[int], Wave]:
        return lambda seed: played(Player(soundfont, program), seconds, default_rng(seed))

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


def old_discs(rng: Generator, seconds: float) -> Performance:
    soundfont, own = str(rng.choice([FLUID, GENERAL, TIM])), room(rng, spread_db=1.5)
    response, threshold_db = horn(default_rng(800)), rng.uniform(-6, 3)
    noise = surface(seconds, rng) * 10 ** (rng.uniform(-40, -26) / 20)

    def direct(seed: int) -> Wave:
        dry = synthesised(ensemble(seconds, default_rng(seed)), soundfont, seconds)
        return fftconvolve(dry, own)[: len(noise)]

    def from_disc(seed: int) -> Wave:
        cut = compressed(fftconvolve(direct(seed), response)[: len(noise)], threshold_db)
        return cut / np.sqrt((cut**2).mean()) + noise

    return Performance(direct, from_disc)


def speech_rooms(rng: Generator, seconds: float) -> Performance:
    own = room(default_rng(900 + int(rng.integers(3))), wet_db=(-8, 0))
    limits = fir(lambda hz: band_db(hz, 120, 5_500))

    def direct(seed: int) -> Wave:
        return spoken(seconds, default_rng(seed))

    return Performance(direct, lambda seed: opus(fftconvolve(fftconvolve(direct(seed), own), limits)))


class Bed(NamedTuple):
    perform: Callable[[Generator, float], Performance]
    takes: int  # of training, a side
    seconds: float  # each
    soundfonts: tuple[str, ...] = (FLUID, GENERAL, TIM)  # empty: speech


BEDS = {
    "sampled_cello": Bed(partial(two_soundfonts, CELLO, GENERAL, TIM), 24, 30.0, (GENERAL, TIM)),
    "violin_headsets": Bed(headsets, 24, 30.0, (FLUID,)),
    "violin_performances": Bed(performances, 10, 28.0),
    "violin_recitals": Bed(recitals, 6, 47.0),
    "cello_mit": Bed(partial(two_soundfonts, CELLO, FLUID, GENERAL), 24, 30.0, (FLUID, GENERAL)),
    "trumpets": Bed(partial(two_soundfonts, TRUMPET, GENERAL, TIM), 24, 30.0, (GENERAL, TIM)),
    "music_old_disc": Bed(old_discs, 24, 25.0),
    "speech_room": Bed(speech_rooms, 24, 25.0, ()),
}
PAIRS = {"val": 4, "test": 12}
PAIR_SECONDS = 10.0


def lacking(name: str) -> str | None:
    """List what a corpus needs and this machine lacks, and how to get it."""
    soundfonts = BEDS[name].soundfonts
    program = "fluidsynth" if soundfonts else "espeak-ng"
    if shutil.which(program) is None:
        return f"{program} is not installed: apt install {program}"
    for soundfont in soundfonts:
        if not (SOUNDFONTS / soundfont).exists():
            return f"{SOUNDFONTS / soundfont} is missing: apt install {PACKAGES[soundfont]}"
    return None


def render(name: str, bed: Bed, out: Path, draw: int) -> None:
    """Write a corpus below `out`; `draw` is the seed of melodies, sentences, rooms and players."""
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
    parser.add_argument("--draw", type=int, default=0, help="seed of melodies, sentences, rooms and players")
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
