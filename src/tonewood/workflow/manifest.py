"""A data set or shards → a list that `train --manifest` takes."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, TypeVar

from tonewood.errors import CallError, FolderError, OutputError, shown
from tonewood.files import datasets, manifest, shards
from tonewood.files.datasets import DATASETS, Track
from tonewood.files.manifest import Row
from tonewood.files.output import temporary_folder

_T = TypeVar("_T")
_SHOWN = 8  # values of a field, in a message


class Condition(NamedTuple):
    """A field and a pattern that its value is to match, case aside, as file names are matched."""

    field: str
    pattern: str

    @classmethod
    def of(cls, text: str) -> "Condition":
        """Read FIELD=PATTERN; CallError otherwise."""
        field, equals, pattern = text.partition("=")
        if not (field.strip() and equals and pattern.strip()):
            raise CallError(f"{text!r} is no condition; give FIELD=PATTERN, as in instrument=cello")
        return cls(field.strip(), pattern.strip())

    def holds(self, track: Track) -> bool:
        """Whether a track is meant."""
        value = track.fields.get(self.field)
        return value is not None and fnmatchcase(value.lower(), self.pattern.lower())


class Listed(NamedTuple):
    """A list that was written: recordings of each side, those not there, what is to be known."""

    output: Path
    reference: int
    source: int
    missing: int
    note: str


class Sides(NamedTuple):
    """What a track is to fulfil, all of it: on either side, and on both."""

    reference: tuple[Condition, ...]
    source: tuple[Condition, ...]
    both: tuple[Condition, ...] = ()


def of_dataset(
    name: str, home: Path | None, sides: Sides, output: Path, *, overwrite: bool = False
) -> Listed:
    """List a data set's recordings.

    Raises
    ------
    CallError, FolderError, OutputError, MissingExtraError
        The data set is unknown, not there or not readable; a side is empty, or a track on both.
    """
    if name not in DATASETS:
        raise CallError(f"{name!r} is no data set known here: {', '.join(DATASETS)}, or .tar files")
    if home is None:
        raise CallError(f"{name} lies somewhere: say where with --data-home")
    _check(sides, output, overwrite)
    there = datasets.found(name, home)
    chosen = _chosen(there.tracks, lambda track: track, sides, name)
    rows = [Row(it.path, side, it.session) for side, found in chosen.items() for it in found]
    manifest.write(output, rows, overwrite=overwrite)
    reference, source = map(len, chosen.values())
    return Listed(output, reference, source, there.missing, DATASETS[name].note)


def of_shards(
    archives: Sequence[Path], sides: Sides, output: Path, *, overwrite: bool = False
) -> Listed:
    """List recordings of WebDataset shards, unpacked beside the list; raises as `of_dataset`."""
    _check(sides, output, overwrite)
    paths = [it for path in archives for it in (sorted(path.glob("*.tar")) or [path])]
    chosen = _chosen(shards.samples(paths), lambda it: it.track, sides, shown(archives[0]))
    folder = output.with_name(f"{output.stem}-audio")
    if folder.exists() and not overwrite:
        raise OutputError(f"{shown(folder)} exists: name another list or pass --overwrite")
    with ExitStack() as stack:
        made = stack.enter_context(temporary_folder(output.parent))
        labels = {(it.shard, it.member): side for side, found in chosen.items() for it in found}
        rows = [
            Row(folder / path.name, labels[sample.shard, sample.member], sample.track.session)
            for sample, path in shards.unpack([it for both in chosen.values() for it in both], made)
        ]
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
        manifest.write(output, rows, overwrite=overwrite)
    reference, source = map(len, chosen.values())
    return Listed(output, reference, source, 0, f"the recordings are in {shown(folder)}")


def _check(sides: Sides, output: Path, overwrite: bool) -> None:
    if not (sides.reference and sides.source):
        raise CallError("a list has two sides: give --reference FIELD=PATTERN and --source")
    manifest.check(output, overwrite)


def _chosen(
    found: Iterable[_T], track_of: Callable[[_T], Track], sides: Sides, what: str
) -> dict[str, list[_T]]:
    """What belongs on each side."""
    everything = list(found)
    chosen: dict[str, list[_T]] = {"reference": [], "source": []}
    for it in everything:
        track = track_of(it)
        wanted = [
            side
            for side, conditions in zip(chosen, sides[:2], strict=True)
            if all(condition.holds(track) for condition in (*conditions, *sides.both))
        ]
        if len(wanted) == 2:
            raise CallError(f"{shown(track.path)} is on both sides: state narrower conditions")
        for side in wanted:
            chosen[side].append(it)
    for side, conditions in zip(chosen, sides[:2], strict=True):
        if not chosen[side]:
            tracks = [track_of(it) for it in everything]
            raise FolderError(_nothing(side, (*conditions, *sides.both), tracks, what))
    return chosen


def _nothing(side: str, conditions: Sequence[Condition], tracks: Sequence[Track], what: str) -> str:
    """Why a side is empty, by the first condition that nothing meets."""
    if not tracks:
        return f"{what} holds no recording that is there: name the folder that it was fetched to"
    for field, pattern in conditions:
        values = sorted({it.fields[field] for it in tracks if field in it.fields})
        if not values:
            known = ", ".join(sorted({name for it in tracks for name in it.fields}))
            return f"{what} has no field {field}: it has {known}"
        if not any(fnmatchcase(value.lower(), pattern.lower()) for value in values):
            some = ", ".join(map(shown, values[:_SHOWN])) + (", …" if values[_SHOWN:] else "")
            return f"no {field} of {what} is {shown(pattern)}: there are {some}"
    return f"nothing of {what} meets all conditions of {side}: leave one out"
