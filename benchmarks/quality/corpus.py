"""Corpora on disk: train|val|test/{good,cheap}; pieces of val and test are pairs by name."""

import math
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import find_audio_files, resample
from tonewood.dsp.features import band_levels, power_of_db
from tonewood.settings import ModelSettings
from tonewood.utils.arrays import Levels, Samples

RATE = ModelSettings().spectrum.rate
_RANGE_DB = 70.0  # heard below a take's level


@dataclass(frozen=True, eq=False)
class Piece:
    """A recording to be improved, and the same piece as it should have sounded.

    Parameters
    ----------
    samples : float32 array (channels, samples)
        At `rate`, the file's own.
    before, target : float32 array [sample]
        Recording and reference take, mono, at the analysis rate, of one length.
    path : Path
        Of the recording.
    """

    name: str
    path: Path
    samples: NDArray[np.float32]
    rate: int
    before: Samples
    target: Samples
    target_path: Path


@dataclass(frozen=True)
class Corpus:
    name: str
    reference: Path  # training folders
    source: Path
    val: list[Piece]  # may be empty
    test: list[Piece]


@contextmanager
def opened(folder: Path, *, pieces: int | None = None, seconds: float = math.inf):
    """Corpus in a folder; with fewer test pieces or seconds of training a side, where given."""
    with tempfile.TemporaryDirectory(prefix="quality-") as scratch:
        train = {}
        for side in ("good", "cheap"):
            train[side] = folder / "train" / side
            if seconds < math.inf:  # training reads folders, so fewer takes are a folder of links
                chosen, total = Path(scratch) / side, 0.0
                chosen.mkdir()
                for number, path in enumerate(find_audio_files(train[side])):
                    if number >= 2 and total >= seconds:
                        break
                    (chosen / f"{number:05}{path.suffix}").symlink_to(path.resolve())
                    total += read_recording(path).duration
                train[side] = chosen
        yield Corpus(
            folder.resolve().name,
            train["good"],
            train["cheap"],
            paired(folder / "val") if (folder / "val").is_dir() else [],
            paired(folder / "test")[:pieces],
        )


def paired(folder: Path) -> list[Piece]:
    """Pairs of one name below good/ and cheap/."""
    pieces = []
    for path in find_audio_files(folder / "cheap"):
        target_path = folder / "good" / path.relative_to(folder / "cheap")
        recording = read_recording(path)
        before, target = mono(recording.samples, recording.rate), take(target_path)
        length = min(len(before), len(target))
        if length < 0.98 * max(len(before), len(target)):
            raise SystemExit(f"{path} and {target_path} differ in length: align them first")
        pieces.append(
            Piece(
                path.stem,
                path,
                recording.samples,
                recording.rate,
                before[:length],
                target[:length],
                target_path,
            )
        )
    return pieces


def take(path: Path) -> Samples:
    """A recording [sample], mono, at the analysis rate."""
    recording = read_recording(path)
    return mono(recording.samples, recording.rate)


def mono(samples: Samples, rate: int) -> Samples:
    """Mean of the channels [sample] at the analysis rate."""
    return resample(samples.mean(axis=0), rate, RATE)


def mel_rows(wave: Samples) -> Levels:
    """Levels [row, frame] on Tonewood's own rows, dB relative to the take's level."""
    settings = ModelSettings()
    rows = band_levels(wave, RATE, settings.scorer.bands, settings.spectrum)
    level = 10 * np.log10(power_of_db(rows).sum(axis=0).mean())
    return (rows - level).clip(-_RANGE_DB)
