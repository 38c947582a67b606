"""Training folders: recordings → takes → splits without leaks.

Several folders as one side, each counting by its weight.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.data.feature_cache import (
    NO_CACHE,
    CachedFeatures,
    ExtractedFeatures,
    FeatureCache,
    extract_audit_features,
    extract_features,
)
from tonewood.data.manifest import (
    FolderOrManifest,
    RecordingRef,
    content_key,
    group_key,
    list_recordings,
    recording_path,
)
from tonewood.dsp.features import PITCH_HOP_RATIO, CompactFeatures, Features
from tonewood.dsp.recording_quality import RecordingQuality
from tonewood.errors import FolderError, printable
from tonewood.scorer.training_loop import barrier, process_rank, world_size
from tonewood.settings import ModelSettings, Normalization
from tonewood.stats.sampling import TakeWeights
from tonewood.utils.parallel import page_out, parallel_map, trim_malloc

MIN_FOLDER_SECONDS = 60.0
_TRAINING_EXCERPT_SECONDS = 30.0


@dataclass(frozen=True, eq=False)
class AuditFeatures:
    """What an audit asks of one recording.

    Parameters
    ----------
    session : str
        First sub-folder that holds it, or ".".
    traces : RecordingQuality
    spectra : array [window, row]
        Long-term spectra, level removed, dB; see `scoring.audit.long_term`.
    """

    path: Path
    session: str
    digest: str  # of the samples, as a take's
    format: AudioFormat
    traces: RecordingQuality
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
class TrainingRecording:
    """One recording of a training folder, analysed.

    Parameters
    ----------
    features : CompactFeatures
        What the method looks at.
    audit_features : AuditFeatures
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
    features: CompactFeatures
    audit_features: AuditFeatures
    item: RecordingRef
    weight: float | None = None  # how much its moments count among several folders'

    @property
    def rows_db(self) -> Tensor:
        """Row levels [row, frame], dB."""
        return self.features.rows_db


class TakeSplit(NamedTuple):
    """Takes to learn from and takes to check on."""

    train: list[TrainingRecording]
    held_out: list[TrainingRecording]


class LoadProgress(NamedTuple):
    """Progress of `load`: this take is the number-th of so many."""

    number: int
    total: int
    take: TrainingRecording


class SurveyProgress(NamedTuple):
    """Progress of `survey_dataset`: the number-th recording of so many."""

    number: int
    total: int
    audit_features: AuditFeatures


def load_dataset(
    folder: FolderOrManifest,
    settings: ModelSettings,
    *,
    normalization: Normalization | None = None,
    cache: FeatureCache = NO_CACHE,
) -> Iterator[LoadProgress]:
    """Read and analyse every recording below a folder or on a list, as many at once as cores.

    A recording that is there twice counts once: its copies could fall on both sides of a split.

    Parameters
    ----------
    normalization : Normalization, optional
        Applied to each recording before anything else; the evidence is of the fixed recording.
    cache : FeatureCache
        Where analyses are kept and found again; they are then mapped, and take little memory.

    Raises
    ------
    FolderError
        The folder is missing or holds no audio.
    AudioError
        One of its recordings cannot be used; it is named.
    """
    scorer = settings.scorer
    decides = (scorer.bands, settings.spectrum, normalization or Normalization())
    told = (*(it.model_dump_json() for it in decides), str(scorer.crop_seconds))

    def study(item: RecordingRef) -> CachedFeatures:
        return cache.get_or_extract(
            partial(content_key, item),
            partial(extract_features, item, settings, normalization),
            told,
        )

    found = list_recordings(folder)
    if world_size() > 1 and cache.folder is not None:
        # Of several processes each analyses its share, and finds the others' in the cache.
        for _ in parallel_map(study, found[process_rank() :: world_size()]):
            pass
        barrier()
    seen = set[str]()
    for number, (item, it) in enumerate(zip(found, parallel_map(study, found), strict=True), start=1):
        if it.digest in seen:
            continue
        seen.add(it.digest)
        take = TrainingRecording(
            path=recording_path(item),
            group=group_key(item, folder, settings.training.group_by),
            seconds=it.seconds,
            digest=it.digest,
            features=it.features,
            audit_features=_audit_features_of(item, folder, it),
            item=item,
        )
        trim_malloc()
        page_out(*it.features)
        yield LoadProgress(number, len(found), take)


def survey_dataset(folder: FolderOrManifest, settings: ModelSettings) -> Iterator[SurveyProgress]:
    """Read every recording below a folder or on a list for its traces alone; raises as `load`."""
    found, seen = list_recordings(folder), set[str]()
    for number, item in enumerate(found, start=1):
        it = extract_audit_features(item, settings)
        if it.digest in seen:
            continue
        seen.add(it.digest)
        yield SurveyProgress(number, len(found), _audit_features_of(item, folder, it))


def _audit_features_of(
    item: RecordingRef, dataset: FolderOrManifest, extracted: ExtractedFeatures | CachedFeatures
) -> AuditFeatures:
    return AuditFeatures(
        path=recording_path(item),
        session=group_key(item, dataset, "folder"),
        digest=extracted.digest,
        format=extracted.format,
        traces=extracted.traces,
        spectra=extracted.spectra,
    )


def check_training_data(
    reference: Sequence[TrainingRecording],
    source: Sequence[TrainingRecording],
    folders: tuple[str | Path, str | Path],
) -> None:
    """Refuse folders that cannot teach: too short, too few takes, or sharing a recording.

    Raises
    ------
    FolderError
        With what is wrong, the limit and the remedy.
    """
    for takes, folder in zip((reference, source), folders, strict=True):
        seconds = sum(take.seconds for take in takes)
        if seconds < MIN_FOLDER_SECONDS:
            raise FolderError(
                f"{printable(folder)} holds {seconds:.1f} s of audio; training needs "
                f"{MIN_FOLDER_SECONDS:.0f} s: add recordings"
            )
        groups = {take.group for take in takes}
        if len(groups) < 2:
            what = "recording" if len(takes) == 1 else "group"
            raise FolderError(
                f"{printable(folder)} holds 1 {what}; a check on unheard takes needs 2: "
                "split the recording into files or add another"
            )
    check_disjoint(reference, source)


def check_disjoint(
    reference: Sequence[TrainingRecording | AuditFeatures],
    source: Sequence[TrainingRecording | AuditFeatures],
) -> None:
    """Refuse a recording that is on both sides; raises FolderError."""
    seen = {take.digest: take.path for take in reference}
    for take in source:
        if take.digest in seen:
            raise FolderError(
                f"{printable(take.path)} and {printable(seen[take.digest])} are the same recording; "
                "it cannot be both reference and source: remove one"
            )


def split_takes(takes: Sequence[TrainingRecording], held_out: float, seed: int) -> TakeSplit:
    """Hold out whole groups, about a share `held_out` of the audio, drawn by the seed."""
    groups: dict[str, list[TrainingRecording]] = defaultdict(list)
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
    return TakeSplit(
        [take for take in takes if take.group not in held],
        [take for take in takes if take.group in held],
    )


def total_hours(takes: Sequence[TrainingRecording]) -> float:
    """Hours of audio."""
    return math.fsum(take.seconds for take in takes) / 3600


def select_training_excerpts(
    takes: Sequence[TrainingRecording], seconds: float, seed: int
) -> tuple[list[Features], TakeWeights]:
    """Features of takes to learn from, and their shares: of all, or of pieces drawn by the seed.

    Pieces last half a minute and are drawn alike from all takes until they last `parse_time`.
    """
    shares = take_weights(takes)
    if math.fsum(take.seconds for take in takes) <= seconds:
        return [take.features.expand() for take in takes], shares
    pieces = []
    for number, take in enumerate(takes):
        frames = take.rows_db.shape[1]
        length = round(_TRAINING_EXCERPT_SECONDS * frames / take.seconds) // PITCH_HOP_RATIO * PITCH_HOP_RATIO
        # What is left over at the end is no piece, unless it is all there is.
        count = max(1, frames // length)
        pieces += [(number, k * length, min(length, frames)) for k in range(count)]
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed)).tolist()
    kept = sorted(pieces[k] for k in order[: max(2, round(seconds / _TRAINING_EXCERPT_SECONDS))])
    found = [takes[k].features.expand(first, first + size) for k, first, size in kept]
    return found, None if shares is None else [shares[k] for k, _, _ in kept]


def take_weights(takes: Sequence[TrainingRecording]) -> TakeWeights:
    """Shares of some takes; None where they are of one folder."""
    counts = [take.weight for take in takes if take.weight is not None]
    return counts if len(counts) == len(takes) else None


class WeightedFolder(NamedTuple):
    """One of several folders, and how much it counts as a whole, however long it is."""

    folder: Path
    weight: float = 1.0


def merge_folders(
    takes: Sequence[Sequence[TrainingRecording]], folders: Sequence[WeightedFolder]
) -> list[TrainingRecording]:
    """Join the takes of several folders into one side, each counting by its folder's weight.

    Their groups, and the sessions of their evidence, are told apart by folder. A recording that
    two of the folders hold counts once, for the folder named first.
    """
    met = set[str]()
    joined = []
    parts = [[take for take in part if not _seen_before(take.digest, met)] for part in takes]
    seconds = [math.fsum(take.seconds for take in part) for part in parts]
    weights = math.fsum(it.weight for it, length in zip(folders, seconds, strict=True) if length)
    for number, (part, it, length) in enumerate(zip(parts, folders, seconds, strict=True), 1):
        for take in part:
            name = f"{number} {it.folder.name}"
            evidence = replace(take.audit_features, session=f"{name}/{take.audit_features.session}")
            # 1 on average over all moments of all the folders.
            share = it.weight / weights * math.fsum(seconds) / length
            group = f"{name}/{take.group}"
            joined.append(replace(take, group=group, audit_features=evidence, weight=share))
    return joined


def _seen_before(digest: str, seen: set[str]) -> bool:
    known = digest in seen
    seen.add(digest)
    return known
