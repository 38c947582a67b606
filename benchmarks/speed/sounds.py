"""Synthetic recordings of any length from a seed: bowed notes in a room, stereo."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 44_100
_NOTE_SECONDS = 0.5


def notes(seconds: float, seed: int, formant_hz: float) -> Iterator[NDArray[np.float32]]:
    """Yield blocks (samples, 2), one note each."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(_NOTE_SECONDS * RATE)) / RATE
    swell = np.minimum(1, np.minimum(time, _NOTE_SECONDS - time) / 0.05)
    for _ in range(round(seconds / _NOTE_SECONDS)):
        pitch = 110 * 2 ** (rng.integers(0, 30) / 12)
        phase = 2 * np.pi * pitch * time + 4 * np.sin(2 * np.pi * 5.5 * time)
        tone = np.zeros_like(time)
        for partial in range(1, 1 + int(min(40, 0.45 * RATE / pitch))):
            hz = partial * pitch
            colour = 1 / partial + 2 * np.exp(-0.5 * ((hz - formant_hz) / 400) ** 2) / partial**0.5
            tone += colour * np.sin(partial * phase + rng.uniform(0, 6))
        loudness = 0.05 * 10 ** (rng.uniform(-10, 4) / 20)
        sides = [tone + 0.05 * rng.standard_normal(len(time)) for _ in range(2)]
        yield (loudness * swell * np.array(sides)).T.astype(np.float32)


def record(path: Path, seconds: float, seed: int = 0, formant_hz: float = 2_500.0) -> Path:
    """Write a 16-bit wav unless it exists."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with soundfile.SoundFile(
            unfinished, "w", RATE, 2, format="W64" if seconds > 20_000 else "WAV", subtype="PCM_16"
        ) as out:
            for note in notes(seconds, seed, formant_hz):
                out.write(note)
        unfinished.rename(path)
    return path


def folders(root: Path, minutes: float, takes: int = 40) -> tuple[Path, Path]:
    """Write two folders that differ by a formant: (reference, source)."""
    roots = []
    for name, formant in (("reference", 900.0), ("source", 2_500.0)):
        for take in range(takes):
            seed = take + (1_000 if name == "source" else 0)
            record(root / name / f"{take:04d}.wav", 60 * minutes / takes, seed, formant)
        roots.append(root / name)
    return roots[0], roots[1]


def archives(root: Path, hours: float, minutes: float = 1.0) -> tuple[Path, Path]:
    """Write two such folders of many hours: recordings of some minutes, from few different notes."""
    roots = []
    for name, formant in (("reference", 900.0), ("source", 2_500.0)):
        rng = np.random.default_rng(int(formant))
        pool = list(notes(600 * _NOTE_SECONDS, int(formant), formant))
        (root / name).mkdir(parents=True, exist_ok=True)
        for take in range(round(60 * hours / minutes)):
            chosen = rng.integers(0, len(pool), round(60 * minutes / _NOTE_SECONDS))
            path = root / name / f"{take:05d}.wav"
            if not path.exists():
                unfinished = path.with_suffix(".part")
                with soundfile.SoundFile(unfinished, "w", RATE, 2, format="WAV", subtype="PCM_16") as out:
                    for k in chosen:
                        out.write(pool[k])
                unfinished.rename(path)
        roots.append(root / name)
    return roots[0], roots[1]
