"""Both sides that a model is learnt from: what names them, and their recordings, read."""

import math
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tonewood.data import dataset
from tonewood.data import manifest as manifests
from tonewood.data import normalization as remedies
from tonewood.data.dataset import (
    AuditFeatures,
    LoadProgress,
    SurveyProgress,
    TrainingRecording,
    WeightedFolder,
    merge_folders,
)
from tonewood.data.feature_cache import NO_CACHE, FeatureCache
from tonewood.data.manifest import FolderOrManifest, ManifestSide
from tonewood.errors import CallError, printable
from tonewood.settings import ModelSettings, Normalization

DatasetSide = Literal["reference", "source"]


class AuditProgress(NamedTuple):
    """A recording of one side was read for its traces."""

    side: DatasetSide
    progress: SurveyProgress


class SideLoadProgress(NamedTuple):
    """A recording of one side was read and analysed."""

    side: DatasetSide
    progress: LoadProgress


def parse_training_inputs(
    references: Sequence[str], source: Path | None, manifest: Path | None
) -> tuple[FolderOrManifest | list[WeightedFolder] | None, FolderOrManifest | None]:
    """Where the recordings of each side that is named are: folders, weighted, or a list.

    Raises
    ------
    CallError
        Both folders and a list are named, or a weight is wrong.
    FolderError
        The list cannot be used.
    """
    if manifest is not None:
        if references or source is not None:
            raise CallError("a --manifest names both sides: leave --reference and --source out")
        return manifests.read_manifest(manifest)
    if not references:
        return None, source
    several = [parse_weighted_folder(text) for text in references]
    check_folder_weights(several)
    # A single folder is itself, whatever its weight.
    return several[0].folder if len(several) == 1 else several, source


def load_sides(
    reference: FolderOrManifest | Sequence[WeightedFolder],
    source: FolderOrManifest,
    settings: ModelSettings,
    *,
    normalization: Normalization | None = None,
    cache: FeatureCache = NO_CACHE,
) -> Generator[SideLoadProgress, None, dict[DatasetSide, list[TrainingRecording]]]:
    """Read both folders, yielding every recording; returns their takes.

    Parameters
    ----------
    fix, cache
        As of `folders.load`.

    Raises
    ------
    FolderError, AudioError
        A folder or a recording in it cannot teach; it is named.
    """
    places = _datasets_of_side(reference)
    check_distinct_folders(*places, source)
    parts: list[list[TrainingRecording]] = []
    sides: list[tuple[DatasetSide, FolderOrManifest]] = [("reference", place) for place in places]
    for side, folder in (*sides, ("source", source)):
        parts.append([])
        for loading in dataset.load_dataset(folder, settings, normalization=normalization, cache=cache):
            parts[-1].append(loading.take)
            yield SideLoadProgress(side, loading)
    *references, sources = parts
    joined = references[0]
    if not isinstance(reference, Path | ManifestSide) and len(reference) > 1:
        joined = merge_folders(references, reference)
    told = [it if isinstance(it, Path) else side_display_name(it) for it in (reference, source)]
    dataset.check_training_data(joined, sources, (told[0], told[1]))
    return {"reference": joined, "source": sources}


def plan_side_normalization(
    reference: FolderOrManifest | Sequence[WeightedFolder],
    source: FolderOrManifest,
    settings: ModelSettings,
) -> Generator[AuditProgress, None, Normalization | None]:
    """Listen to both folders for what makes them alike, if that is asked for; returns the fix."""
    if not settings.training.fix:
        return None
    heard = yield from survey_sides(_datasets_of_side(reference), source, settings)
    return remedies.fit_normalization(
        settings.training.fix, *([it.traces for it in heard[side]] for side in heard)
    )


def parse_weighted_folder(text: str) -> WeightedFolder:
    """Read a folder with its weight, such as `studio:2`; without one it is 1.

    A folder of that very name goes before: names may hold colons.
    """
    folder, colon, weight = text.rpartition(":")
    if not colon or Path(text).exists():
        return WeightedFolder(Path(text))
    try:
        return WeightedFolder(Path(folder), float(weight))
    except ValueError:
        return WeightedFolder(Path(text))


def check_folder_weights(folders: Sequence[WeightedFolder]) -> None:
    """Raise CallError if there is no folder, or a weight is not above 0."""
    if not folders:
        raise CallError("no reference is given: name a folder")
    for it in folders:
        if not (math.isfinite(it.weight) and it.weight > 0):
            raise CallError(f"{printable(it.folder)} has weight {it.weight:g}; give one above 0")


def side_display_name(side: FolderOrManifest | Sequence[WeightedFolder]) -> str:
    """Name of a folder, a list, or of several folders with their weights, for people."""
    if isinstance(side, Path):
        return side.resolve().name
    if isinstance(side, ManifestSide):
        return side.name
    return " + ".join(f"{it.folder.resolve().name}:{it.weight:g}" for it in side)


def _datasets_of_side(side: FolderOrManifest | Sequence[WeightedFolder]) -> list[FolderOrManifest]:
    return [side] if isinstance(side, Path | ManifestSide) else [it.folder for it in side]


def survey_sides(
    references: Sequence[FolderOrManifest], source: FolderOrManifest, settings: ModelSettings
) -> Generator[AuditProgress, None, dict[DatasetSide, list[AuditFeatures]]]:
    """Read both sides' folders for their traces, yielding every recording; returns the evidence."""
    check_distinct_folders(*references, source)
    heard: dict[DatasetSide, list[AuditFeatures]] = {"reference": [], "source": []}
    sides: list[tuple[DatasetSide, FolderOrManifest]] = [("reference", folder) for folder in references]
    for side, folder in (*sides, ("source", source)):
        for surveyed in dataset.survey_dataset(folder, settings):
            heard[side].append(surveyed.audit_features)
            yield AuditProgress(side, surveyed)
    dataset.check_disjoint(heard["reference"], heard["source"])
    return heard


def check_distinct_folders(*sides: FolderOrManifest) -> None:
    """Raise CallError if two of the folders are one; the last is the source."""
    given_folders = [side for side in sides if isinstance(side, Path)]
    if len(given_folders) < len(sides):
        return  # of one list, which tells its sides apart
    *references, source = (side.resolve() for side in given_folders)
    for number, (given, reference) in enumerate(zip(given_folders, references, strict=False)):
        if reference == source:
            raise CallError(f"{printable(given)} is given as both folders: name two different ones")
        if reference in references[:number]:
            raise CallError(f"{printable(given)} is given twice as a reference: give it one weight")
