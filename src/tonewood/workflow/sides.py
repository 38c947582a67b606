"""Both sides that a model is learnt from: what names them, and their recordings, read."""

import math
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

from tonewood.errors import CallError, shown
from tonewood.files import folders
from tonewood.files import manifest as manifests
from tonewood.files.cache import NOWHERE, Cache
from tonewood.files.folders import Loading, Take
from tonewood.files.items import Place
from tonewood.files.manifest import Listing
from tonewood.files.several import Weighted, of_several
from tonewood.settings import Fix, ModelSettings
from tonewood.signal import remedies
from tonewood.workflow.audit import Listened, Side, check_distinct, listen


class Loaded(NamedTuple):
    """A recording of one side was read and analysed."""

    side: Side
    loading: Loading


def sides(
    references: Sequence[str], source: Path | None, manifest: Path | None
) -> tuple[Place | list[Weighted] | None, Place | None]:
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
        return manifests.read(manifest)
    if not references:
        return None, source
    several = [weighted(text) for text in references]
    check_weights(several)
    # A single folder is itself, whatever its weight.
    return several[0].folder if len(several) == 1 else several, source


def load_sides(
    reference: Place | Sequence[Weighted],
    source: Place,
    settings: ModelSettings,
    *,
    fix: Fix | None = None,
    cache: Cache = NOWHERE,
) -> Generator[Loaded, None, dict[Side, list[Take]]]:
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
    places = _places(reference)
    check_distinct(*places, source)
    parts: list[list[Take]] = []
    sides: list[tuple[Side, Place]] = [("reference", place) for place in places]
    for side, folder in (*sides, ("source", source)):
        parts.append([])
        for loading in folders.load(folder, settings, fix=fix, cache=cache):
            parts[-1].append(loading.take)
            yield Loaded(side, loading)
    *references, sources = parts
    joined = references[0]
    if not isinstance(reference, Path | Listing) and len(reference) > 1:
        joined = of_several(references, reference)
    told = [it if isinstance(it, Path) else named(it) for it in (reference, source)]
    folders.check(joined, sources, (told[0], told[1]))
    return {"reference": joined, "source": sources}


def plan_fix(
    reference: Place | Sequence[Weighted], source: Place, settings: ModelSettings
) -> Generator[Listened, None, Fix | None]:
    """Listen to both folders for what makes them alike, if that is asked for; returns the fix."""
    if not settings.training.fix:
        return None
    heard = yield from listen(_places(reference), source, settings)
    return remedies.plan(
        settings.training.fix, *([it.traces for it in heard[side]] for side in heard)
    )


def weighted(text: str) -> Weighted:
    """Read a folder with its weight, such as `studio:2`; without one it is 1.

    A folder of that very name goes before: names may hold colons.
    """
    folder, colon, weight = text.rpartition(":")
    if not colon or Path(text).exists():
        return Weighted(Path(text))
    try:
        return Weighted(Path(folder), float(weight))
    except ValueError:
        return Weighted(Path(text))


def check_weights(several: Sequence[Weighted]) -> None:
    """Raise CallError if there is no folder, or a weight is not above 0."""
    if not several:
        raise CallError("no reference is given: name a folder")
    for it in several:
        if not (math.isfinite(it.weight) and it.weight > 0):
            raise CallError(f"{shown(it.folder)} has weight {it.weight:g}; give one above 0")


def named(side: Place | Sequence[Weighted]) -> str:
    """Name of a folder, a list, or of several folders with their weights, for people."""
    if isinstance(side, Path):
        return side.resolve().name
    if isinstance(side, Listing):
        return side.name
    return " + ".join(f"{it.folder.resolve().name}:{it.weight:g}" for it in side)


def _places(side: Place | Sequence[Weighted]) -> list[Place]:
    return [side] if isinstance(side, Path | Listing) else [it.folder for it in side]
