"""Load both sides of the training data, named by folders, weighted folders or a manifest."""

import math
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tonewood.data.dataset import (
    AuditFeatures,
    TrainingRecording,
    WeightedFolder,
    check_disjoint,
    check_training_data,
    load_dataset,
    merge_folders,
    survey_dataset,
)
from tonewood.data.feature_cache import NO_CACHE, FeatureCache
from tonewood.data.manifest import BadRecordings, FolderOrManifest, ManifestSide, read_manifest
from tonewood.data.normalization import fit_normalization
from tonewood.errors import CallError, FolderError, printable
from tonewood.settings import ModelSettings, Normalization
from tonewood.utils.files import real_path

DatasetSide = Literal["reference", "source"]
SideInput = FolderOrManifest | Sequence[WeightedFolder]
"""Folder, manifest, or several weighted folders with the recordings of one side."""


class RecordingProgress(NamedTuple):
    """Progress of `survey_sides` or `load_sides`: one more recording of a folder was read."""

    stage: Literal["survey", "load"]
    side: DatasetSide
    number: int
    total: int
    path: Path


def parse_training_inputs(
    references: Sequence[str], source: Path | None, manifest: Path | None
) -> tuple[SideInput | None, FolderOrManifest | None]:
    """Return reference and source from the command line; None for a side that is not given.

    CallError if folders and a manifest are given, or a weight is invalid. FolderError if the manifest cannot
    be used.
    """
    if manifest is not None:
        if references or source is not None:
            raise CallError("--manifest names both sides: omit --reference and --source")
        return read_manifest(manifest)
    if not references:
        return None, source
    folders = [parse_weighted_folder(text) for text in references]
    check_folder_weights(folders)
    # Weights are relative, so that of a single folder has no effect.
    return folders[0].folder if len(folders) == 1 else folders, source


def load_sides(
    reference: SideInput,
    source: FolderOrManifest,
    settings: ModelSettings,
    *,
    normalization: Normalization | None = None,
    cache: FeatureCache = NO_CACHE,
    bad: BadRecordings | None = None,
) -> Generator[RecordingProgress, None, dict[DatasetSide, list[TrainingRecording]]]:
    """Read both sides; yield the progress, and return the takes of each side.

    `normalization` and `cache` are those of `load_dataset`; `bad` decides whether bad recordings are left
    out.

    FolderError or AudioError if a folder or a recording cannot be used for training; the message names it.
    """
    bad = bad or BadRecordings()
    takes: list[list[TrainingRecording]] = []
    for side, folder in _list_sides(_datasets_of_side(reference), source):
        takes.append([])
        for number, total, take in load_dataset(
            folder, settings, normalization=normalization, cache=cache, bad=bad
        ):
            takes[-1].append(take)
            yield RecordingProgress("load", side, number, total, take.path)

    bad.check()

    # Weights apply only among several folders of the reference.
    *reference_takes, source_takes = takes
    merged = reference_takes[0]
    if not isinstance(reference, Path | ManifestSide) and len(reference) > 1:
        merged = merge_folders(reference_takes, reference)
    names = [side if isinstance(side, Path) else side_display_name(side) for side in (reference, source)]
    check_training_data(merged, source_takes, (names[0], names[1]))
    return {"reference": merged, "source": source_takes}


def plan_side_normalization(
    reference: SideInput, source: FolderOrManifest, settings: ModelSettings, bad: BadRecordings | None = None
) -> Generator[RecordingProgress, None, Normalization | None]:
    """Measure both sides and return the normalization of `training.fix`; None if that is empty."""
    if not settings.training.fix:
        return None
    # Of the unchanged recordings: the normalization is computed from their quality.
    features = yield from survey_sides(_datasets_of_side(reference), source, settings, bad)
    reference_quality = [recording.traces for recording in features["reference"]]
    source_quality = [recording.traces for recording in features["source"]]
    return fit_normalization(settings.training.fix, reference_quality, source_quality)


def parse_weighted_folder(text: str) -> WeightedFolder:
    """Return the folder and weight of a text such as `studio:2`; the default weight is 1.

    Names may contain colons, so a text that is an existing path is a folder as a whole.
    """
    folder, colon, weight = text.rpartition(":")
    if not colon or Path(text).exists():
        return WeightedFolder(Path(text))
    try:
        return WeightedFolder(Path(folder), float(weight))
    except ValueError:  # no number follows the colon, which then belongs to the name
        return WeightedFolder(Path(text))


def check_folder_weights(folders: Sequence[WeightedFolder]) -> None:
    """Raise CallError if there is no folder, or a weight is not above 0."""
    if not folders:
        raise CallError("no reference is given: name a folder")
    for folder, weight in folders:
        if not (math.isfinite(weight) and weight > 0):
            raise CallError(f"{printable(folder)} has weight {weight:g}; give one above 0")


def side_display_name(side: SideInput) -> str:
    """Return a display name: that of a folder or a manifest, or several folders with their weights."""
    if isinstance(side, Path):
        return real_path(side).name
    if isinstance(side, ManifestSide):
        return side.name
    return " + ".join(f"{real_path(folder).name}:{weight:g}" for folder, weight in side)


def list_folders(side: SideInput | None) -> list[Path]:
    """Return the folders of a side; none for a manifest, which names each recording."""
    return [] if side is None else [item for item in _datasets_of_side(side) if isinstance(item, Path)]


def _datasets_of_side(side: SideInput) -> list[FolderOrManifest]:
    return [side] if isinstance(side, Path | ManifestSide) else [weighted.folder for weighted in side]


def survey_sides(
    references: Sequence[FolderOrManifest],
    source: FolderOrManifest,
    settings: ModelSettings,
    bad: BadRecordings | None = None,
) -> Generator[RecordingProgress, None, dict[DatasetSide, list[AuditFeatures]]]:
    """Read both sides for an audit; yield the progress, and return the features of each side."""
    bad = bad or BadRecordings()
    features: dict[DatasetSide, list[AuditFeatures]] = {"reference": [], "source": []}
    for side, folder in _list_sides(references, source):
        for number, total, recording in survey_dataset(folder, settings, bad):
            features[side].append(recording)
            yield RecordingProgress("survey", side, number, total, recording.path)
    bad.check()
    for dataset_side, usable in features.items():
        if not usable:
            raise FolderError(
                f"every recording of the {dataset_side} was left out: add some that can be used"
            )
    check_disjoint(features["reference"], features["source"])
    return features


def _list_sides(
    references: Sequence[FolderOrManifest], source: FolderOrManifest
) -> list[tuple[DatasetSide, FolderOrManifest]]:
    """Return all folders with their sides, the source last; CallError if two are the same."""
    check_distinct_folders(*references, source)
    sides: list[tuple[DatasetSide, FolderOrManifest]] = [("reference", folder) for folder in references]
    return [*sides, ("source", source)]


def check_distinct_folders(*sides: FolderOrManifest) -> None:
    """Raise CallError if two of the folders are the same; the last is the source."""
    folders = [side for side in sides if isinstance(side, Path)]
    if len(folders) < len(sides):
        return  # both sides of a manifest, which are distinct by their labels
    *references, source = (real_path(folder) for folder in folders)
    # `folders` has the source as one item more, and keeps the paths as given, for messages.
    for number, (folder, reference) in enumerate(zip(folders, references, strict=False)):
        if reference == source:
            raise CallError(f"{printable(folder)} is given as both folders: name two different ones")
        if reference in references[:number]:
            raise CallError(f"{printable(folder)} is given twice as a reference: give it one weight")
