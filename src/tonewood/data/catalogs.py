"""A data set or shards → a list that `train --manifest` takes.

Recordings of public data sets, as mirdata knows them: where they lie, and what is said of them.

Nothing is fetched: a data set is to lie in its folder as mirdata's own `download` leaves it.

WebDataset shards: tar files in which `take.flac`, `take.json`, `take.cls` are one sample.

Only ordinary files are looked at, and nothing is written where a name in an archive says.
"""

import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tonewood.audio_io.libsndfile import readable_suffixes
from tonewood.data import manifest
from tonewood.data.manifest import ManifestRow
from tonewood.errors import CallError, FolderError, MissingExtraError, OutputError, printable
from tonewood.utils.atomic_write import temporary_folder


class CatalogTrack(NamedTuple):
    """A recording, what it is kept together with, and what is said of it by field."""

    path: Path
    session: str | None
    fields: Mapping[str, str]


class KnownDataset(NamedTuple):
    """A data set that is known here.

    Parameters
    ----------
    note : str
        What its labels mean, and under which licence it may be used.
    describe : function
        A mirdata track → its session and fields.
    """

    note: str
    describe: Callable[[Any], tuple[object, dict[str, object]]]


class DatasetTracks(NamedTuple):
    """Tracks that are there, and how many of the index are not."""

    tracks: tuple[CatalogTrack, ...]
    missing: int


def _describe_good_sounds(track: Any) -> tuple[object, dict[str, object]]:  # noqa: ANN401 - untyped
    sound, pack = track.sound_info, track.pack_info
    fields = ("instrument", "klass", "player", "location", "dynamics", "note", "octave")
    told = {name: sound.get(name) for name in fields}
    return pack.get("name"), {**told, "microphone": track.microphone, "pack": pack.get("name")}


def _describe_tinysol(track: Any) -> tuple[object, dict[str, object]]:  # noqa: ANN401
    return f"fold {track.split}", {
        "instrument": track.instrument_full,
        "family": track.family,
        "technique": track.technique_full,
        "dynamics": track.dynamics,
        "pitch": track.pitch,
        "string": track.string_id,
        "fold": track.split,
        "resampled": track.is_resampled,
    }


def _describe_medley_solos_db(track: Any) -> tuple[object, dict[str, object]]:  # noqa: ANN401
    told = {"instrument": track.instrument, "subset": track.subset, "song": track.song_id}
    return f"song {track.song_id}", told


KNOWN_DATASETS = {
    "good_sounds": KnownDataset(
        "its labels (klass) say how well a note was played, not on what or how recorded: a model "
        "of them hears playing; CC-BY-SA-4.0",
        _describe_good_sounds,
    ),
    "tinysol": KnownDataset(
        "one note a file, most instruments by one player in one room; those with resampled=True "
        "were made from a neighbour; CC-BY-4.0",
        _describe_tinysol,
    ),
    "medley_solos_db": KnownDataset(
        "clips of 3 s, the training subset from other recordings than the test subset; CC-BY-4.0",
        _describe_medley_solos_db,
    ),
}


def find_dataset_tracks(name: str, home: Path) -> DatasetTracks:
    """All tracks of a data set that lie below its folder.

    Raises
    ------
    MissingExtraError
        mirdata is not installed.
    FolderError
        The folder does not hold the data set as mirdata expects it.
    """
    try:
        import mirdata
    except ImportError:
        raise MissingExtraError(f"{name} needs mirdata: pip install '.[datasets]'") from None
    if not home.is_dir():
        raise FolderError(f"{printable(home)} is no folder: name the one that holds {name}")
    data = mirdata.initialize(name, data_home=str(home))
    tracks = tuple(_iter_dataset_tracks(data, KNOWN_DATASETS[name], home))
    return DatasetTracks(tracks, len(data.track_ids) - len(tracks))


def _iter_dataset_tracks(data: Any, known: KnownDataset, home: Path) -> Iterator[CatalogTrack]:  # noqa: ANN401
    for number in data.track_ids:
        track = data.track(number)
        path = Path(track.audio_path)
        if not path.is_file():
            continue
        try:
            session, told = known.describe(track)
        except FileNotFoundError as error:
            raise FolderError(
                f"{printable(home)} lacks {data.name}'s tables ({error}): fetch it with mirdata, "
                "or name another folder"
            ) from None
        except (KeyError, TypeError, ValueError, AttributeError):
            continue  # the tables do not know it
        fields = {k: str(v).strip() for k, v in told.items() if v is not None}
        yield CatalogTrack(path, None if session is None else str(session).strip(), fields)


_MAX_LABEL_BYTES = 2**20


class ShardSample(NamedTuple):
    """A sample's recording: the shard, its name in it, and what is said of it."""

    shard: Path
    member: str
    track: CatalogTrack


def read_shard_samples(shards: Sequence[Path]) -> list[ShardSample]:
    """Samples with a recording in some shards; FolderError where one cannot be read.

    Fields are those of the .json (plain values), `cls` and `key`; a session that the .json names is
    one, else the shard is.
    """
    found, known = [], readable_suffixes()
    for shard in shards:
        said: dict[str, dict[str, str]] = {}
        audio: dict[str, str] = {}
        with _open_shard(shard) as archive:
            for member in archive:
                key, suffix = _split_shard_name(member.name)
                if not member.isfile():
                    continue
                if suffix in known:
                    audio.setdefault(key, member.name)
                elif suffix in (".json", ".cls") and member.size <= _MAX_LABEL_BYTES:
                    stream = archive.extractfile(member)
                    content = b"" if stream is None else stream.read()
                    said.setdefault(key, {}).update(_parse_shard_fields(shard, member.name, suffix, content))
        for key, name in audio.items():
            fields = {"key": key, "shard": shard.name, **said.get(key, {})}
            track = CatalogTrack(Path(name), fields.get("session", shard.name), fields)
            found.append(ShardSample(shard, name, track))
    return found


def unpack_shard_samples(samples: Iterable[ShardSample], folder: Path) -> Iterator[tuple[ShardSample, Path]]:
    """Write recordings of samples into a folder, by names of our own; what became of each."""
    by_shard: dict[Path, dict[str, ShardSample]] = {}
    for sample in samples:
        by_shard.setdefault(sample.shard, {})[sample.member] = sample
    number = 0
    for shard, members in by_shard.items():
        with _open_shard(shard) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is None or member.name not in members:
                    continue
                sample = members.pop(member.name)
                key, suffix = _split_shard_name(member.name)
                number += 1
                plain = re.sub(r"[^A-Za-z0-9-]+", "_", key)[-60:]
                path = folder / f"{number:06d}-{plain}{suffix}"
                with path.open("wb") as file:
                    shutil.copyfileobj(stream, file)
                yield sample, path


@contextmanager
def _open_shard(shard: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(shard, "r|*") as archive:
            yield archive
    except (tarfile.TarError, EOFError) as error:
        raise FolderError(
            f"{printable(shard)} is no tar file, or is cut off: name a shard such as takes-000000.tar"
        ) from error
    except OSError as error:
        if error.filename != str(shard):
            raise
        why = (error.strerror or str(error)).lower()
        raise FolderError(f"{printable(shard)} cannot be read ({why}): name a shard") from None


def _split_shard_name(name: str) -> tuple[str, str]:
    """Key and suffix, as WebDataset divides them: at the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    key, dot, suffix = last.partition(".")
    return folder + slash + key, (dot + suffix).lower()


def _parse_shard_fields(shard: Path, name: str, suffix: str, content: bytes) -> dict[str, str]:
    try:
        text = content.decode("utf-8").strip()
        if suffix == ".cls":
            return {"cls": text}
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise FolderError(
            f"{printable(name)} in {printable(shard)} is no {suffix[1:]} in UTF-8: mend the shard"
        ) from None
    return {key: str(it) for key, it in values.items() if isinstance(it, str | int | float)}


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
    there = find_dataset_tracks(name, home)
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
    chosen = _select_sides(read_shard_samples(paths), lambda it: it.track, sides, printable(archives[0]))
    folder = output.with_name(f"{output.stem}-audio")
    if folder.exists() and not overwrite:
        raise OutputError(f"{printable(folder)} exists: name another list or pass --overwrite")
    with ExitStack() as stack:
        made = stack.enter_context(temporary_folder(output.parent))
        labels = {(it.shard, it.member): side for side, found in chosen.items() for it in found}
        rows = [
            ManifestRow(folder / path.name, labels[sample.shard, sample.member], sample.track.session)
            for sample, path in unpack_shard_samples([it for both in chosen.values() for it in both], made)
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
    candidates: Iterable[_T],
    track_of: Callable[[_T], CatalogTrack],
    sides: SideConditions,
    what: str,
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


def _empty_side_message(
    side: str, conditions: Sequence[FieldCondition], tracks: Sequence[CatalogTrack], what: str
) -> str:
    """Why a side is empty, by the first condition that nothing meets."""
    if not tracks:
        return f"{what} holds no recording that is there: name the folder that it was fetched to"
    for field, pattern in conditions:
        values = sorted({it.fields[field] for it in tracks if field in it.fields})
        if not values:
            known = ", ".join(sorted({name for it in tracks for name in it.fields}))
            return f"{what} has no field {field}: it has {known}"
        if not any(fnmatchcase(value.lower(), pattern.lower()) for value in values):
            some = ", ".join(map(printable, values[:_MAX_SHOWN_VALUES])) + (
                ", …" if values[_MAX_SHOWN_VALUES:] else ""
            )
            return f"no {field} of {what} is {printable(pattern)}: there are {some}"
    return f"nothing of {what} meets all conditions of {side}: leave one out"
