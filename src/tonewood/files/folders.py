"""Training folders: recordings → takes → splits without leaks."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from tonewood.errors import FolderError, shown
from tonewood.files.audio import audio_files, read
from tonewood.settings import ModelSettings
from tonewood.signal.features import Features, analyse

MIN_SECONDS = 60.0


@dataclass(frozen=True)
class Take:
    """One recording of a training folder, analysed.

    Parameters
    ----------
    features : Features
        What the method looks at.
    group : str
        Takes of one group are never on both sides of a split.
    """

    path: Path
    group: str
    seconds: float
    digest: str  # of the samples: a copy in another container is the same recording
    features: Features


class Split(NamedTuple):
    """Takes to learn from and takes to check on."""

    train: list[Take]
    held_out: list[Take]


class Loading(NamedTuple):
    """Progress of `load`: this take is the number-th of so many."""

    number: int
    total: int
    take: Take


def load(folder: Path, settings: ModelSettings) -> Iterator[Loading]:
    """Read and analyse every recording below a folder, one at a time.

    A recording that is there twice counts once: its copies could fall on both sides of a split.

    Raises
    ------
    FolderError
        The folder is missing or holds no audio.
    AudioError
        One of its recordings cannot be used; it is named.
    """
    files = audio_files(folder)
    seen = set[str]()
    for number, path in enumerate(files, start=1):
        recording = read(path)
        digest = hashlib.sha256(recording.samples.tobytes()).hexdigest()
        if digest in seen:
            continue
        seen.add(digest)
        wave = torch.from_numpy(recording.at_rate(settings.spectrum.rate))
        features = analyse(wave, settings.scorer.bands, settings.spectrum)
        group = group_of(path.relative_to(folder), settings.training.group_by)
        take = Take(path, group, recording.duration, digest, features)
        yield Loading(number, len(files), take)


def group_of(path: Path, group_by: str) -> str:
    """Group of a recording at a path relative to its folder: itself, or its first sub-folder.

    Recordings in no sub-folder are a group of their own.
    """
    if group_by == "file":
        return str(path)
    return path.parts[0] if len(path.parts) > 1 else "."


def check(reference: Sequence[Take], source: Sequence[Take], folders: tuple[Path, Path]) -> None:
    """Refuse folders that cannot teach: too short, too few takes, or sharing a recording.

    Raises
    ------
    FolderError
        With what is wrong, the limit and the remedy.
    """
    for takes, folder in zip((reference, source), folders, strict=True):
        seconds = sum(take.seconds for take in takes)
        if seconds < MIN_SECONDS:
            raise FolderError(
                f"{shown(folder)} holds {seconds:.1f} s of audio; training needs "
                f"{MIN_SECONDS:.0f} s: add recordings"
            )
        groups = {take.group for take in takes}
        if len(groups) < 2:
            what = "recording" if len(takes) == 1 else "group"
            raise FolderError(
                f"{shown(folder)} holds 1 {what}; a check on unheard takes needs 2: "
                "split the recording into files or add another"
            )
    seen = {take.digest: take.path for take in reference}
    for take in source:
        if take.digest in seen:
            raise FolderError(
                f"{shown(take.path)} and {shown(seen[take.digest])} are the same recording; "
                "it cannot be both reference and source: remove one"
            )


def split(takes: Sequence[Take], held_out: float, seed: int) -> Split:
    """Hold out whole groups, about a share `held_out` of the audio, drawn by the seed."""
    groups: dict[str, list[Take]] = defaultdict(list)
    for take in takes:
        groups[take.group].append(take)
    names = sorted(groups)
    assert len(names) >= 2
    generator = torch.Generator().manual_seed(seed)
    order = [names[i] for i in torch.randperm(len(names), generator=generator).tolist()]
    wanted = held_out * sum(take.seconds for take in takes)
    held, seconds = set[str](), 0.0
    for name in order[:-1]:  # one group at least remains to learn from
        size = sum(take.seconds for take in groups[name])
        if held and seconds + size > wanted * 1.5:
            continue
        held.add(name)
        seconds += size
        if seconds >= wanted:
            break
    return Split(
        [take for take in takes if take.group not in held],
        [take for take in takes if take.group in held],
    )


def hours(takes: Sequence[Take]) -> float:
    """Hours of audio."""
    return math.fsum(take.seconds for take in takes) / 3600
