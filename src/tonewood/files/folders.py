"""Training folders: recordings → takes → splits without leaks."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.errors import FolderError, shown
from tonewood.files.cache import NOWHERE, Cache, Fresh, Studied
from tonewood.files.formats import AudioFormat
from tonewood.files.items import Item, Place, group_of, items, path_of, piece_of
from tonewood.files.study import studied, witnessed
from tonewood.scoring.course import rank, wait, world
from tonewood.settings import Fix, ModelSettings
from tonewood.signal.draws import Shares
from tonewood.signal.features import LONG_HOPS, Analysis, Features
from tonewood.signal.memory import release, unload
from tonewood.signal.spread import spread
from tonewood.signal.traces import Traces

MIN_SECONDS = 60.0
_PIECE_S = 30.0


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


@dataclass(frozen=True, eq=False)
class Take:
    """One recording of a training folder, analysed.

    Parameters
    ----------
    analysis : Analysis
        What the method looks at.
    evidence : Evidence
        What an audit asks.
    group : str
        Takes of one group are never on both sides of a split.
    item : Entry or Path
        Where it is read again.
    """

    path: Path
    group: str
    seconds: float
    digest: str  # of the samples: a copy in another container is the same recording
    analysis: Analysis
    evidence: Evidence
    item: Item
    share: float | None = None  # how much its moments count among several folders'

    @property
    def rows_db(self) -> Tensor:
        """Row levels [row, frame], dB."""
        return self.analysis.rows_db


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


def load(
    folder: Place, settings: ModelSettings, *, fix: Fix | None = None, cache: Cache = NOWHERE
) -> Iterator[Loading]:
    """Read and analyse every recording below a folder or on a list, as many at once as cores.

    A recording that is there twice counts once: its copies could fall on both sides of a split.

    Parameters
    ----------
    fix : Fix, optional
        Applied to each recording before anything else; the evidence is of the fixed recording.
    cache : Cache
        Where analyses are kept and found again; they are then mapped, and take little memory.

    Raises
    ------
    FolderError
        The folder is missing or holds no audio.
    AudioError
        One of its recordings cannot be used; it is named.
    """
    scorer = settings.scorer
    decides = (scorer.bands, settings.spectrum, fix or Fix())
    told = (*(it.model_dump_json() for it in decides), str(scorer.crop_seconds))

    def study(item: Item) -> Studied:
        return cache.studied(partial(piece_of, item), partial(studied, item, settings, fix), told)

    found = items(folder)
    if world() > 1 and cache.folder is not None:
        # Of several processes each analyses its share, and finds the others' in the cache.
        for _ in spread(study, found[rank() :: world()]):
            pass
        wait()
    seen = set[str]()
    for number, (item, it) in enumerate(zip(found, spread(study, found), strict=True), start=1):
        if it.digest in seen:
            continue
        seen.add(it.digest)
        take = Take(
            path=path_of(item),
            group=group_of(item, folder, settings.training.group_by),
            seconds=it.seconds,
            digest=it.digest,
            analysis=it.analysis,
            evidence=_evidence(item, folder, it),
            item=item,
        )
        release()
        unload(*it.analysis)
        yield Loading(number, len(found), take)


def survey(folder: Place, settings: ModelSettings) -> Iterator[Surveyed]:
    """Read every recording below a folder or on a list for its traces alone; raises as `load`."""
    found, seen = items(folder), set[str]()
    for number, item in enumerate(found, start=1):
        it = witnessed(item, settings)
        if it.digest in seen:
            continue
        seen.add(it.digest)
        yield Surveyed(number, len(found), _evidence(item, folder, it))


def _evidence(item: Item, place: Place, it: Fresh | Studied) -> Evidence:
    return Evidence(
        path=path_of(item),
        session=group_of(item, place, "folder"),
        digest=it.digest,
        format=it.format,
        traces=it.traces,
        spectra=it.spectra,
    )


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


def lesson(takes: Sequence[Take], seconds: float, seed: int) -> tuple[list[Features], Shares]:
    """Features of takes to learn from, and their shares: of all, or of pieces drawn by the seed.

    Pieces last half a minute and are drawn alike from all takes until they last `seconds`.
    """
    shares = shares_of(takes)
    if math.fsum(take.seconds for take in takes) <= seconds:
        return [take.analysis.features() for take in takes], shares
    pieces = []
    for number, take in enumerate(takes):
        frames = take.rows_db.shape[1]
        length = round(_PIECE_S * frames / take.seconds) // LONG_HOPS * LONG_HOPS
        # What is left over at the end is no piece, unless it is all there is.
        count = max(1, frames // length)
        pieces += [(number, k * length, min(length, frames)) for k in range(count)]
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed)).tolist()
    kept = sorted(pieces[k] for k in order[: max(2, round(seconds / _PIECE_S))])
    found = [takes[k].analysis.features(first, first + size) for k, first, size in kept]
    return found, None if shares is None else [shares[k] for k, _, _ in kept]


def shares_of(takes: Sequence[Take]) -> Shares:
    """Shares of some takes; None where they are of one folder."""
    counts = [take.share for take in takes if take.share is not None]
    return counts if len(counts) == len(takes) else None
