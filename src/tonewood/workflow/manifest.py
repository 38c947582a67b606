"""A data set or shards → a list that `train --manifest` takes."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, TypeVar

from tonewood.errors import CallError, FolderError, OutputError, printable
from tonewood.files import datasets, manifest, shards
from tonewood.files.datasets import KNOWN_DATASETS, CatalogTrack
from tonewood.files.manifest import ManifestRow
from tonewood.files.output import temporary_folder

_T = TypeVar("_T")
_MAX_SHOWN_VALUES = 8  # values of a field, in a message


class FieldCondition(NamedTuple):
    """A field and a pattern that its value is to match, case aside, as file names are matched."""

    field: str
    pattern: str

    @classmethod
    def parse(cls, text: str) -> "FieldCondition":
        """Read FIELD=PATTERN; CallError otherwise."""
        field, equals, pattern = text.partition("=")
        if not (field.strip() and equals and pattern.strip()):
            raise CallError(f"{text!r} is no condition; give FIELD=PATTERN, as in instrument=cello")
        return cls(field.strip(), pattern.strip())

    def matches(self, track: CatalogTrack) -> bool:
        """Whether a track is meant."""
        value = track.fields.get(self.field)
        return value is not None and fnmatchcase(value.lower(), self.pattern.lower())


class ManifestSummary(NamedTuple):
    """A list that was written: recordings of each side, those not there, what is to be known."""

    output: Path
    reference: int
    source: int
    missing: int
    note: str


class SideConditions(NamedTuple):
    """What a track is to fulfil, all of it: on either side, and on both."""

    reference: tuple[FieldCondition, ...]
    source: tuple[FieldCondition, ...]
    both: tuple[FieldCondition, ...] = ()


def write_dataset_manifest(
    name: str, home: Path | None, sides: SideConditions, output: Path, *, overwrite: bool = False
) -> ManifestSummary:
    """List a data set's recordings.

    Raises
    ------
    CallError, FolderError, OutputError, MissingExtraError
        The data set is unknown, not there or not readable; a side is empty, or a track on both.
    """
    if name not in KNOWN_DATASETS:
        raise CallError(f"{name!r} is no data set known here: {', '.join(KNOWN_DATASETS)}, or .tar files")
    if home is None:
        raise CallError(f"{name} lies somewhere: say where with --data-home")
    _check_side_conditions(sides, output, overwrite)
    there = datasets.find_dataset_tracks(name, home)
    chosen = _select_sides(there.tracks, lambda track: track, sides, name)
    rows = [ManifestRow(it.path, side, it.session) for side, found in chosen.items() for it in found]
    manifest.write_manifest(output, rows, overwrite=overwrite)
    reference, source = map(len, chosen.values())
    return ManifestSummary(output, reference, source, there.missing, KNOWN_DATASETS[name].note)


def write_shards_manifest(
    archives: Sequence[Path], sides: SideConditions, output: Path, *, overwrite: bool = False
) -> ManifestSummary:
    """List recordings of WebDataset shards, unpacked beside the list; raises as `write_dataset_manifest`."""
    _check_side_conditions(sides, output, overwrite)
    paths = [it for path in archives for it in (sorted(path.glob("*.tar")) or [path])]
    chosen = _select_sides(shards.read_shard_samples(paths), lambda it: it.track, sides, printable(archives[0]))
    folder = output.with_name(f"{output.stem}-audio")
    if folder.exists() and not overwrite:
        raise OutputError(f"{printable(folder)} exists: name another list or pass --overwrite")
    with ExitStack() as stack:
        made = stack.enter_context(temporary_folder(output.parent))
        labels = {(it.shard, it.member): side for side, found in chosen.items() for it in found}
        rows = [
            ManifestRow(folder / path.name, labels[sample.shard, sample.member], sample.track.session)
            for sample, path in shards.unpack_shard_samples([it for both in chosen.values() for it in both], made)
        ]
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
        manifest.write_manifest(output, rows, overwrite=overwrite)
    reference, source = map(len, chosen.values())
    return ManifestSummary(output, reference, source, 0, f"the recordings are in {printable(folder)}")


def _check_side_conditions(sides: SideConditions, output: Path, overwrite: bool) -> None:
    if not (sides.reference and sides.source):
        raise CallError("a list has two sides: give --reference FIELD=PATTERN and --source")
    manifest.check_manifest_output(output, overwrite)


def _select_sides(
    candidates: Iterable[_T], track_of: Callable[[_T], CatalogTrack], sides: SideConditions, what: str
) -> dict[str, list[_T]]:
    """What belongs on each side."""
    everything = list(candidates)
    chosen: dict[str, list[_T]] = {"reference": [], "source": []}
    for it in everything:
        track = track_of(it)
        wanted = [
            side
            for side, conditions in zip(chosen, sides[:2], strict=True)
            if all(condition.matches(track) for condition in (*conditions, *sides.both))
        ]
        if len(wanted) == 2:
            raise CallError(f"{printable(track.path)} is on both sides: state narrower conditions")
        for side in wanted:
            chosen[side].append(it)
    for side, conditions in zip(chosen, sides[:2], strict=True):
        if not chosen[side]:
            tracks = [track_of(it) for it in everything]
            raise FolderError(_empty_side_message(side, (*conditions, *sides.both), tracks, what))
    return chosen


def _empty_side_message(side: str, conditions: Sequence[FieldCondition], tracks: Sequence[CatalogTrack], what: str) -> str:
    """Why a side is empty, by the first condition that nothing meets."""
    if not tracks:
        return f"{what} holds no recording that is there: name the folder that it was fetched to"
    for field, pattern in conditions:
        values = sorted({it.fields[field] for it in tracks if field in it.fields})
        if not values:
            known = ", ".join(sorted({name for it in tracks for name in it.fields}))
            return f"{what} has no field {field}: it has {known}"
        if not any(fnmatchcase(value.lower(), pattern.lower()) for value in values):
            some = ", ".join(map(printable, values[:_MAX_SHOWN_VALUES])) + (", …" if values[_MAX_SHOWN_VALUES:] else "")
            return f"no {field} of {what} is {printable(pattern)}: there are {some}"
    return f"nothing of {what} meets all conditions of {side}: leave one out"
