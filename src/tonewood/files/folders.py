"""Training folders: recordings → takes → splits without leaks."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.errors import AudioError, FolderError, shown
from tonewood.files.audio import MIN_SECONDS as MIN_PIECE
from tonewood.files.audio import AudioFormat, Recording, audio_files, read
from tonewood.files.manifest import Entry, Listing
from tonewood.scoring.audit import long_term
from tonewood.settings import Fix, ModelSettings
from tonewood.signal.bands import band_levels
from tonewood.signal.features import Features, analyse
from tonewood.signal.remedies import fixed
from tonewood.signal.traces import Traces, traces

MIN_SECONDS = 60.0

Place = Path | Listing
"""Where one side's recordings are: below a folder, or on a list."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an audit asks of one recording.

    Parameters
    ----------
    session : str
        First sub-folder that holds it, or ".".
    traces : Traces
    spectra : array [window, row]
        Long-term spectra, level removed, dB; see `scoring.audit.long_term`.
    """

    path: Path
    session: str
    digest: str  # of the samples, as a take's
    format: AudioFormat
    traces: Traces
    spectra: NDArray[np.float64]

    @property
    def bits(self) -> float:
        """Bits of an integer sample; 32 for floats, 16 for what was lossy."""
        return float(self.format.integer_bits or (16 if self.lossy else 32))

    @property
    def lossy(self) -> bool:
        """Whether the file itself is of a lossy kind."""
        return self.format.integer_bits is None and self.format.subtype not in ("FLOAT", "DOUBLE")


@dataclass(frozen=True)
class Take:
    """One recording of a training folder, analysed.

    Parameters
    ----------
    features : Features
        What the method looks at.
    evidence : Evidence or None
        What an audit asks; None if nobody asked.
    group : str
        Takes of one group are never on both sides of a split.
    """

    path: Path
    group: str
    seconds: float
    digest: str  # of the samples: a copy in another container is the same recording
    features: Features
    evidence: Evidence | None = None
    share: float | None = None  # how much its moments count among several folders'


class Split(NamedTuple):
    """Takes to learn from and takes to check on."""

    train: list[Take]
    held_out: list[Take]


class Loading(NamedTuple):
    """Progress of `load`: this take is the number-th of so many."""

    number: int
    total: int
    take: Take


class Surveyed(NamedTuple):
    """Progress of `survey`: the number-th recording of so many."""

    number: int
    total: int
    evidence: Evidence


class _Heard(NamedTuple):
    """A recording read for the first time."""

    number: int
    total: int
    digest: str
    recording: Recording
    relative: Path | None
    session: str | None  # as a list says

    def group(self, group_by: str) -> str:
        """What it is kept together with, and what the audit calls a session."""
        if self.relative is not None:
            return group_of(self.relative, group_by)
        return self.session or ("." if group_by == "folder" else str(self.recording.path))


def load(
    folder: Place, settings: ModelSettings, *, audited: bool = False, fix: Fix | None = None
) -> Iterator[Loading]:
    """Read and analyse every recording below a folder or on a list, one at a time.

    A recording that is there twice counts once: its copies could fall on both sides of a split.

    Parameters
    ----------
    audited : bool
        Whether takes get their evidence for an audit.
    fix : Fix, optional
        Applied to each recording before anything else; the evidence is of the fixed recording.

    Raises
    ------
    FolderError
        The folder is missing or holds no audio.
    AudioError
        One of its recordings cannot be used; it is named.
    """
    group_by = settings.training.group_by
    for heard in _recordings(folder):
        recording, digest = heard.recording, heard.digest
        if fix is not None:
            recording = _fixed(recording, digest, fix)
        wave = torch.from_numpy(recording.at_rate(settings.spectrum.rate))
        features = analyse(wave, settings.scorer.bands, settings.spectrum)
        evidence = _evidence(heard, recording, features.rows_db, settings) if audited else None
        take = Take(
            path=recording.path,
            # A session that a list states is one whatever takes are otherwise grouped by.
            group=heard.group(group_by),
            seconds=recording.duration,
            digest=digest,
            features=features,
            evidence=evidence,
        )
        yield Loading(heard.number, heard.total, take)


def survey(folder: Place, settings: ModelSettings) -> Iterator[Surveyed]:
    """Read every recording below a folder or on a list for its traces alone; raises as `load`."""
    for heard in _recordings(folder):
        recording = heard.recording
        wave = torch.from_numpy(recording.at_rate(settings.spectrum.rate))
        rows = band_levels(wave, settings.spectrum.rate, settings.scorer.bands, settings.spectrum)
        evidence = _evidence(heard, recording, rows, settings)
        yield Surveyed(heard.number, heard.total, evidence)


def _recordings(place: Place) -> Iterator[_Heard]:
    files: list[Entry | Path] = []
    files += place.entries if isinstance(place, Listing) else audio_files(place)
    seen = set[str]()
    for number, item in enumerate(files, start=1):
        recording = _piece(item) if isinstance(item, Entry) else read(item)
        digest = hashlib.sha256(recording.samples.tobytes()).hexdigest()
        if digest not in seen:
            seen.add(digest)
            relative = None if isinstance(place, Listing) else recording.path.relative_to(place)
            session = item.session if isinstance(item, Entry) else None
            yield _Heard(number, len(files), digest, recording, relative, session)


def _piece(entry: Entry) -> Recording:
    """A recording from its start to its end, as a list says."""
    recording = read(entry.path)
    if entry.start is None and entry.end is None:
        return recording
    first = round((entry.start or 0.0) * recording.rate)
    last = None if entry.end is None else round(entry.end * recording.rate)
    samples = recording.samples[:, first:last]
    if samples.shape[1] < MIN_PIECE * recording.rate:
        raise AudioError(
            f"{shown(entry.path)} lasts {recording.duration:.2f} s; line {entry.line} of the list "
            f"leaves {samples.shape[1] / recording.rate:.2f} s of it and {MIN_PIECE:g} s are needed"
        )
    if np.ptp(samples) == 0:
        raise AudioError(
            f"{shown(entry.path)} is silent where line {entry.line} of the list looks: "
            "name another piece"
        )
    return replace(recording, samples=np.ascontiguousarray(samples))


def _fixed(recording: Recording, digest: str, fix: Fix) -> Recording:
    # Drawn by the recording itself: its noise depends neither on its neighbours nor on its side.
    rng = np.random.default_rng(int(digest[:16], 16))
    samples, rate = recording.samples, recording.rate
    made = fixed(samples, rate, traces(samples, rate), fix, rng)
    return replace(recording, samples=made)


def _evidence(
    heard: _Heard, recording: Recording, rows_db: Tensor, settings: ModelSettings
) -> Evidence:
    return Evidence(
        path=recording.path,
        session=heard.group("folder"),
        digest=heard.digest,
        format=recording.format,
        traces=traces(recording.samples, recording.rate),
        spectra=long_term(rows_db, settings.spectrum.frames(settings.scorer.crop_seconds)),
    )


def group_of(path: Path, group_by: str) -> str:
    """Group of a recording at a path relative to its folder: itself, or its first sub-folder.

    Recordings in no sub-folder are a group of their own.
    """
    if group_by == "file":
        return str(path)
    return path.parts[0] if len(path.parts) > 1 else "."


def check(
    reference: Sequence[Take], source: Sequence[Take], folders: tuple[str | Path, str | Path]
) -> None:
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
    check_apart(reference, source)


def check_apart(reference: Sequence[Take | Evidence], source: Sequence[Take | Evidence]) -> None:
    """Refuse a recording that is on both sides; raises FolderError."""
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
