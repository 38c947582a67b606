"""Training data: analysed recordings of a folder or manifest, and splits that do not leak."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    BadRecordings,
    FolderOrManifest,
    RecordingRef,
    content_key,
    group_key,
    list_recordings,
    recording_path,
)
from tonewood.dsp.features import PITCH_HOP_RATIO, CompactFeatures, Features
from tonewood.dsp.recording_quality import RecordingQuality
from tonewood.errors import AudioError, FolderError, printable
from tonewood.settings import ModelSettings, Normalization
from tonewood.utils.arrays import Levels, TakeWeights
from tonewood.utils.parallel import page_out, parallel_map, trim_malloc

MIN_FOLDER_SECONDS = 60.0
_TRAINING_EXCERPT_SECONDS = 30.0  # long enough for whole phrases, short enough that many takes contribute


@dataclass(frozen=True, eq=False)
class AuditFeatures:
    """Features of one recording for the confound audit."""

    path: Path
    session: str  # first sub-folder of its path, or "."
    digest: str  # of the samples; see `TrainingRecording`
    format: AudioFormat
    traces: RecordingQuality
    # [window, row]: long-term spectra without their level, dB; see `long_term_spectra`
    spectra: NDArray[np.float64]

    @property
    def bits(self) -> float:
        """Bits per sample: those of integers, 32 for floats, 16 for lossy formats."""
        return float(self.format.integer_bits or (16 if self.lossy else 32))

    @property
    def lossy(self) -> bool:
        """True if the file has a lossy format."""
        return self.format.integer_bits is None and self.format.subtype not in ("FLOAT", "DOUBLE")


@dataclass(frozen=True, eq=False)
class TrainingRecording:
    """Analysed recording of a training folder."""

    path: Path
    group: str  # recordings of one group are never on both sides of a split
    seconds: float
    digest: str  # of the samples, so that a copy in another container counts as the same recording
    features: CompactFeatures
    audit_features: AuditFeatures
    item: RecordingRef  # reads the recording again
    weight: float | None = None  # weight of its frames, if the side has several folders

    @property
    def rows_db(self) -> Levels:
        """Row levels [row, frame], dB."""
        return self.features.rows_db


class TakeSplit(NamedTuple):
    """Takes for training, and held-out takes."""

    train: list[TrainingRecording]
    held_out: list[TrainingRecording]


class LoadProgress(NamedTuple):
    """Progress of `load_dataset`."""

    number: int
    total: int
    take: TrainingRecording


class SurveyProgress(NamedTuple):
    """Progress of `survey_dataset`."""

    number: int
    total: int
    audit_features: AuditFeatures


def load_dataset(
    folder: FolderOrManifest,
    settings: ModelSettings,
    *,
    normalization: Normalization | None = None,
    cache: FeatureCache = NO_CACHE,
    bad: BadRecordings | None = None,
) -> Iterator[LoadProgress]:
    """Read and analyse every recording of a folder or manifest, in parallel.

    A recording that occurs twice is used once, because its copies could be on both sides of a split.

    Parameters
    ----------
    normalization : Normalization, optional
        Applied to each recording first; the audit features describe the normalized recording.
    cache : FeatureCache
        Cached features are memory-mapped, and so need little memory.
    bad : BadRecordings, optional
        Collects the recordings that cannot be used, which raise an error otherwise.

    Raises
    ------
    FolderError
        The folder does not exist or contains no audio.
    AudioError
        A recording cannot be used; the message names it.
    """
    from tonewood.scorer.training_loop import barrier, process_rank, world_size  # loads torch

    # Settings that change the features, and hence belong to the key of the cache.
    scorer = settings.scorer
    analysis_settings = (scorer.bands, settings.spectrum, normalization or Normalization())
    key_parts = (*(group.model_dump_json() for group in analysis_settings), str(scorer.crop_seconds))

    def extract(item: RecordingRef) -> CachedFeatures | AudioError:
        try:
            return cache.get_or_extract(
                partial(content_key, item),
                partial(extract_features, item, settings, normalization),
                key_parts,
            )
        except AudioError as error:
            if bad is None:
                raise
            return error

    items = list_recordings(folder)
    if world_size() > 1 and cache.folder is not None:
        # Each process analyses its share, and later reads the others' features from the cache.
        for _ in parallel_map(extract, items[process_rank() :: world_size()]):
            pass
        barrier()

    # Features come in the order of the items, so that "the first copy" is the same in every run.
    seen = set[str]()
    for number, (item, cached) in enumerate(zip(items, parallel_map(extract, items), strict=True), start=1):
        if isinstance(cached, AudioError):
            assert bad is not None
            bad.add(recording_path(item), cached)
            continue
        if cached.digest in seen:
            continue
        seen.add(cached.digest)
        take = TrainingRecording(
            path=recording_path(item),
            group=group_key(item, folder, settings.training.group_by),
            seconds=cached.seconds,
            digest=cached.digest,
            features=cached.features,
            audit_features=_audit_features_of(item, folder, cached),
            item=item,
        )
        # The next recordings need the memory, and pages of a mapped file can be read again.
        trim_malloc()
        page_out(*cached.features)
        yield LoadProgress(number, len(items), take)


def survey_dataset(
    folder: FolderOrManifest, settings: ModelSettings, bad: BadRecordings | None = None
) -> Iterator[SurveyProgress]:
    """Read the audit features of every recording; inputs and errors are those of `load_dataset`."""
    items, seen = list_recordings(folder), set[str]()
    for number, item in enumerate(items, start=1):
        try:
            extracted = extract_audit_features(item, settings)
        except AudioError as error:
            if bad is None:
                raise
            bad.add(recording_path(item), error)
            continue
        if extracted.digest in seen:
            continue
        seen.add(extracted.digest)
        yield SurveyProgress(number, len(items), _audit_features_of(item, folder, extracted))


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
    """Raise FolderError if a side is too short or has one group, or if the sides share a recording."""
    for takes, folder in zip((reference, source), folders, strict=True):
        seconds = sum(take.seconds for take in takes)
        if seconds < MIN_FOLDER_SECONDS:
            raise FolderError(
                f"{printable(folder)} contains {seconds:.1f} s of audio; training needs "
                f"{MIN_FOLDER_SECONDS:.0f} s: add recordings"
            )
        groups = {take.group for take in takes}
        if len(groups) < 2:
            unit = "recording" if len(takes) == 1 else "group"
            raise FolderError(
                f"{printable(folder)} contains 1 {unit}; validation on held-out takes needs 2: "
                "split the recording into files or add another"
            )
    check_disjoint(reference, source)


def check_disjoint(
    reference: Sequence[TrainingRecording | AuditFeatures],
    source: Sequence[TrainingRecording | AuditFeatures],
) -> None:
    """Raise FolderError if a recording is on both sides."""
    # By the digest of the samples: a copy with another name or container is the same recording.
    seen = {take.digest: take.path for take in reference}
    for take in source:
        if take.digest in seen:
            raise FolderError(
                f"{printable(take.path)} and {printable(seen[take.digest])} are the same recording; "
                "it cannot be both reference and source: remove one"
            )


def split_takes(takes: Sequence[TrainingRecording], held_out: float, seed: int) -> TakeSplit:
    """Hold out random whole groups that contain about a share `held_out` of the audio."""
    # Recordings of one group share room, instrument or piece, so a split within a group would leak.
    groups: dict[str, list[TrainingRecording]] = defaultdict(list)
    for take in takes:
        groups[take.group].append(take)
    names = sorted(groups)
    assert len(names) >= 2
    order = [names[i] for i in _random_order(len(names), seed)]
    target = held_out * sum(take.seconds for take in takes)
    held, seconds = set[str](), 0.0
    for name in order[:-1]:  # at least one group remains for training
        size = sum(take.seconds for take in groups[name])
        # A long group would hold out too much, so a later, shorter one is preferred.
        if held and seconds + size > target * 1.5:
            continue
        held.add(name)
        seconds += size
        if seconds >= target:
            break
    return TakeSplit(
        [take for take in takes if take.group not in held], [take for take in takes if take.group in held]
    )


class TrainingExcerpts(NamedTuple):
    """Features of takes or of parts of them, the weight of each, and the group of its take."""

    features: list[Features]
    weights: TakeWeights
    groups: list[str]


def select_training_excerpts(
    takes: Sequence[TrainingRecording], seconds: float, seed: int
) -> TrainingExcerpts:
    """Return features for training: of all takes, or of random excerpts.

    If the takes last more than `seconds`, excerpts of half a minute are drawn until they last `seconds`.
    Every excerpt has the same probability.
    """
    weights = take_weights(takes)
    if math.fsum(take.seconds for take in takes) <= seconds:
        return TrainingExcerpts(
            [take.features.expand() for take in takes], weights, [take.group for take in takes]
        )
    excerpts: list[tuple[int, int, int]] = []
    for number, take in enumerate(takes):
        frames = take.rows_db.shape[1]
        # Whole long frames, so that fine structure and row levels stay aligned.
        length = round(_TRAINING_EXCERPT_SECONDS * frames / take.seconds) // PITCH_HOP_RATIO * PITCH_HOP_RATIO
        # The remainder at the end is unused, unless the take is shorter than one excerpt.
        count = max(1, frames // length)
        excerpts += [(number, k * length, min(length, frames)) for k in range(count)]
    order = _random_order(len(excerpts), seed)
    count = max(2, round(seconds / _TRAINING_EXCERPT_SECONDS))
    chosen = sorted(excerpts[k] for k in order[:count])
    features = [takes[k].features.expand(start, start + size) for k, start, size in chosen]
    return TrainingExcerpts(
        features,
        None if weights is None else [weights[k] for k, _, _ in chosen],
        [takes[k].group for k, _, _ in chosen],
    )


def _random_order(count: int, seed: int) -> list[int]:
    """Return the numbers below `count` in random order."""
    import torch  # only in training: it takes seconds to load

    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


def take_weights(takes: Sequence[TrainingRecording]) -> TakeWeights:
    """Return the weights of takes; None if they come from one folder."""
    weights = [take.weight for take in takes if take.weight is not None]
    return weights if len(weights) == len(takes) else None


class WeightedFolder(NamedTuple):
    """One of several folders of a side; its weight is that of the whole folder, however long."""

    folder: Path
    weight: float = 1.0


def merge_folders(
    takes: Sequence[Sequence[TrainingRecording]], folders: Sequence[WeightedFolder]
) -> list[TrainingRecording]:
    """Merge the takes of several weighted folders into one side.

    Groups and sessions of different folders stay distinct. A recording in two folders counts once, for the
    first of them.
    """
    # Remove copies before the weights are computed, because these depend on the folders' durations.
    seen = set[str]()
    distinct: list[list[TrainingRecording]] = []
    for of_folder in takes:
        distinct.append([take for take in of_folder if take.digest not in seen])
        seen.update(take.digest for take in of_folder)
    seconds = [math.fsum(take.seconds for take in of_folder) for of_folder in distinct]
    total_weight = math.fsum(folder.weight for folder, length in zip(folders, seconds, strict=True) if length)
    merged = []
    for number, (of_folder, folder, length) in enumerate(zip(distinct, folders, seconds, strict=True), 1):
        for take in of_folder:
            name = f"{number} {folder.folder.name}"
            features = replace(take.audit_features, session=f"{name}/{take.audit_features.session}")
            # Weights average to 1 over all frames of all folders.
            weight = folder.weight / total_weight * math.fsum(seconds) / length
            group = f"{name}/{take.group}"
            merged.append(replace(take, group=group, audit_features=features, weight=weight))
    return merged
