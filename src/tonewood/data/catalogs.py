"""Write manifests for `train --manifest` from public data sets and from WebDataset shards.

Data sets are those of mirdata, in the folder of mirdata's `download`; nothing is downloaded here. Shards
are tar files in which `take.flac`, `take.json` and `take.cls` are one sample. Only regular files in them
are read, and names in an archive never decide where a file is written.
"""

import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tonewood.audio_io.ffmpeg import FFMPEG_SUFFIXES
from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES
from tonewood.data.manifest import ManifestRow, check_manifest_output, write_manifest
from tonewood.errors import CallError, FolderError, MissingExtraError, OutputError, failure_reason, printable
from tonewood.utils.files import append_to_name, temporary_folder


class CatalogTrack(NamedTuple):
    """Recording of a catalog, with its session and its metadata by field."""

    path: Path
    session: str | None
    fields: Mapping[str, str]


class KnownDataset(NamedTuple):
    """Data set that Tonewood supports: a note on its labels and licence, and its description of a track.

    `describe` returns session and fields of a mirdata track.
    """

    note: str
    describe: Callable[[Any], tuple[object, dict[str, object]]]


class DatasetTracks(NamedTuple):
    """Tracks of a data set whose files exist, and the number of tracks whose files are missing."""

    tracks: tuple[CatalogTrack, ...]
    missing: int


def _describe_good_sounds(track: Any) -> tuple[object, dict[str, object]]:  # noqa: ANN401 - untyped
    sound, pack = track.sound_info, track.pack_info
    fields = ("instrument", "klass", "player", "location", "dynamics", "note", "octave")
    values = {name: sound.get(name) for name in fields}
    return pack.get("name"), {**values, "microphone": track.microphone, "pack": pack.get("name")}


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
    fields = {"instrument": track.instrument, "subset": track.subset, "song": track.song_id}
    return f"song {track.song_id}", fields


KNOWN_DATASETS = {
    "good_sounds": KnownDataset(
        "its labels (klass) rate how well a note was played, not the instrument or the recording: a model "
        "that is trained on them learns the playing; CC-BY-SA-4.0",
        _describe_good_sounds,
    ),
    "tinysol": KnownDataset(
        "one note per file, most instruments by one player in one room; files with resampled=True "
        "were made from a neighbouring note; CC-BY-4.0",
        _describe_tinysol,
    ),
    "medley_solos_db": KnownDataset(
        "clips of 3 s; training and test subset come from different recordings; CC-BY-4.0",
        _describe_medley_solos_db,
    ),
}


def find_dataset_tracks(name: str, home: Path) -> DatasetTracks:
    """Find the tracks of a data set below its folder.

    Raises
    ------
    MissingExtraError
        mirdata is not installed.
    FolderError
        The folder does not contain the data set as mirdata expects it.
    """
    try:
        import mirdata
    except ImportError:
        raise MissingExtraError(f"{name} needs mirdata: pip install '.[datasets]'") from None
    if not home.is_dir():
        raise FolderError(f"{printable(home)} is not a folder: name the one that contains {name}")
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
            session, described = known.describe(track)
        except FileNotFoundError as error:
            raise FolderError(
                f"{printable(home)} lacks {data.name}'s tables ({error}): download it with mirdata, "
                "or name another folder"
            ) from None
        # mirdata raises one of these for a track that is missing in the data set's tables.
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        fields = {key: str(value).strip() for key, value in described.items() if value is not None}
        yield CatalogTrack(path, None if session is None else str(session).strip(), fields)


# --- WebDataset shards

_MAX_LABEL_BYTES = 2**20  # a label has a few bytes; without a limit, an archive could fill the memory


class ShardSample(NamedTuple):
    """Recording in a shard: the shard, the name in the archive, and the metadata."""

    shard: Path
    member: str
    track: CatalogTrack


def read_shard_samples(shards: Sequence[Path]) -> list[ShardSample]:
    """Return the samples that have a recording; FolderError if a shard cannot be read.

    Fields are the plain values of the .json, `cls`, `key` and `shard`. The session is the .json's, or else
    the shard.
    """
    samples = []
    for shard in shards:
        metadata: dict[str, dict[str, str]] = {}
        audio: dict[str, str] = {}
        # Files of one sample may be in any order, so metadata and recordings meet after the last.
        with _open_shard(shard) as archive:
            for member in archive:
                key, suffix = _split_shard_name(member.name)
                if not member.isfile():
                    continue
                # Listed even if PyAV is missing now: training names it then, instead of leaving it out.
                if suffix in WRITABLE_SUFFIXES | FFMPEG_SUFFIXES:
                    audio.setdefault(key, member.name)
                elif suffix in (".json", ".cls") and member.size <= _MAX_LABEL_BYTES:
                    stream = archive.extractfile(member)
                    content = b"" if stream is None else stream.read()
                    values = _parse_shard_fields(shard, member.name, suffix, content)
                    metadata.setdefault(key, {}).update(values)
        for key, name in audio.items():
            fields = {"key": key, "shard": shard.name, **metadata.get(key, {})}
            track = CatalogTrack(Path(name), fields.get("session", shard.name), fields)
            samples.append(ShardSample(shard, name, track))
    return samples


def unpack_shard_samples(samples: Iterable[ShardSample], folder: Path) -> Iterator[tuple[ShardSample, Path]]:
    """Unpack recordings into a folder under safe names; yield each sample with its path."""
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
                # Of two members with one name the first counts, as in `read_shard_samples`.
                sample = members.pop(member.name)
                key, suffix = _split_shard_name(member.name)
                number += 1
                # Names in an archive may contain "..", be absolute or occur twice: files get new names.
                plain = re.sub(r"[^A-Za-z0-9-]+", "_", key)[-60:]
                path = folder / f"{number:06d}-{plain}{suffix}"
                with path.open("wb") as file:
                    shutil.copyfileobj(stream, file)
                yield sample, path


@contextmanager
def _open_shard(shard: Path) -> Iterator[tarfile.TarFile]:
    try:
        # "r|*" detects the compression, and reads as a stream: seeking in it would decompress again.
        with tarfile.open(shard, "r|*") as archive:
            yield archive
    except (tarfile.TarError, EOFError) as error:
        raise FolderError(
            f"{printable(shard)} is not a tar file, or is cut off: name a shard such as takes-000000.tar"
        ) from error
    except OSError as error:
        if error.filename != str(shard):  # an error of the file that a caller writes meanwhile
            raise
        reason = failure_reason(error)
        raise FolderError(f"{printable(shard)} cannot be read ({reason}): name a shard") from None


def _split_shard_name(name: str) -> tuple[str, str]:
    """Split a name into key and suffix at the first dot of its last part, as WebDataset does."""
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
            f"{printable(name)} in {printable(shard)} is not a {suffix[1:]} in UTF-8: correct the shard"
        ) from None
    return {key: str(value) for key, value in values.items() if isinstance(value, str | int | float)}


# --- Manifests

_T = TypeVar("_T")
_MAX_SHOWN_VALUES = 8  # of a field, in a message


class FieldCondition(NamedTuple):
    """Field and the pattern that its value must match: shell wildcards, case ignored."""

    field: str
    pattern: str

    @classmethod
    def parse(cls, text: str) -> "FieldCondition":
        """Parse FIELD=PATTERN; CallError if the text has another form."""
        field, equals, pattern = text.partition("=")
        if not (field.strip() and equals and pattern.strip()):
            raise CallError(f"{text!r} is not a condition; give FIELD=PATTERN, as in instrument=cello")
        return cls(field.strip(), pattern.strip())

    def matches(self, track: CatalogTrack) -> bool:
        """Return True if a track meets the condition."""
        value = track.fields.get(self.field)
        return value is not None and fnmatchcase(value.lower(), self.pattern.lower())


class ManifestSummary(NamedTuple):
    """Written manifest: numbers of recordings per side and of missing ones, and a remark."""

    output: Path
    reference: int
    source: int
    missing: int
    note: str


class SideConditions(NamedTuple):
    """Conditions per side, and those of both sides; a track must meet all of its side's."""

    reference: tuple[FieldCondition, ...]
    source: tuple[FieldCondition, ...]
    both: tuple[FieldCondition, ...] = ()


def write_dataset_manifest(
    name: str, home: Path | None, sides: SideConditions, output: Path, *, overwrite: bool = False
) -> ManifestSummary:
    """Write the manifest of a data set.

    CallError, FolderError, OutputError or MissingExtraError if the data set is unknown, missing or
    unreadable; a side is empty, or a track is on both sides.
    """
    if name not in KNOWN_DATASETS:
        raise CallError(f"{name!r} is not a known data set: give {', '.join(KNOWN_DATASETS)}, or .tar files")
    if home is None:
        raise CallError(f"{name} needs its folder: give it with --data-home")
    # Checked first, because reading a data set takes long.
    _check_side_conditions(sides, output, overwrite)
    tracks, missing = find_dataset_tracks(name, home)
    selected = _select_sides(tracks, lambda track: track, sides, name)
    rows = [ManifestRow(track.path, side, track.session) for side in selected for track in selected[side]]
    write_manifest(output, rows, overwrite=overwrite)
    reference, source = map(len, selected.values())
    return ManifestSummary(output, reference, source, missing, KNOWN_DATASETS[name].note)


def write_shards_manifest(
    archives: Sequence[Path], sides: SideConditions, output: Path, *, overwrite: bool = False
) -> ManifestSummary:
    """Unpack WebDataset shards and write their manifest; errors are those of `write_dataset_manifest`."""
    _check_side_conditions(sides, output, overwrite)
    paths = [shard for path in archives for shard in (sorted(path.glob("*.tar")) or [path])]
    samples = read_shard_samples(paths)
    selected = _select_sides(samples, lambda sample: sample.track, sides, printable(archives[0]))
    folder = append_to_name(output.with_name(output.stem), "-audio")
    if folder.exists() and not overwrite:
        raise OutputError(f"{printable(folder)} exists: name another manifest or pass --overwrite")
    labels = {(sample.shard, sample.member): side for side in selected for sample in selected[side]}
    with temporary_folder(output.parent) as temporary:
        # Both sides are unpacked together, so that each archive is read once.
        rows = [
            ManifestRow(folder / path.name, labels[sample.shard, sample.member], sample.track.session)
            for sample, path in unpack_shard_samples([*selected["reference"], *selected["source"]], temporary)
        ]
        # The old folder is removed last, after everything that can fail.
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        write_manifest(output, rows, overwrite=overwrite)
    reference, source = map(len, selected.values())
    return ManifestSummary(output, reference, source, 0, f"the recordings are in {printable(folder)}")


def _check_side_conditions(sides: SideConditions, output: Path, overwrite: bool) -> None:
    if not (sides.reference and sides.source):
        raise CallError("a manifest has two sides: give --reference FIELD=PATTERN and --source")
    check_manifest_output(output, overwrite)


def _select_sides(
    candidates: Iterable[_T], track_of: Callable[[_T], CatalogTrack], sides: SideConditions, name: str
) -> dict[str, list[_T]]:
    """Return the candidates of each side; CallError if one is on both, FolderError if a side is empty."""
    candidates = list(candidates)
    selected: dict[str, list[_T]] = {"reference": [], "source": []}
    for candidate in candidates:
        track = track_of(candidate)
        matching = [
            side
            for side, conditions in zip(selected, sides[:2], strict=True)
            if all(condition.matches(track) for condition in (*conditions, *sides.both))
        ]
        # On both sides, a recording would be labelled reference and source at once.
        if len(matching) == 2:
            raise CallError(f"{printable(track.path)} is on both sides: give narrower conditions")
        for side in matching:
            selected[side].append(candidate)
    for side, conditions in zip(selected, sides[:2], strict=True):
        if not selected[side]:
            tracks = [track_of(candidate) for candidate in candidates]
            raise FolderError(_empty_side_message(side, (*conditions, *sides.both), tracks, name))
    return selected


def _empty_side_message(
    side: str, conditions: Sequence[FieldCondition], tracks: Sequence[CatalogTrack], name: str
) -> str:
    """Explain why a side is empty, by the first condition that no track meets."""
    if not tracks:
        return f"{name} contains no recording: name the folder that it was downloaded to"
    # If each condition alone is met by some track, only their combination is at fault.
    for field, pattern in conditions:
        values = sorted({track.fields[field] for track in tracks if field in track.fields})
        if not values:
            fields = ", ".join(sorted({field for track in tracks for field in track.fields}))
            return f"{name} has no field {field}: it has {fields}"
        if not any(fnmatchcase(value.lower(), pattern.lower()) for value in values):
            examples = ", ".join(map(printable, values[:_MAX_SHOWN_VALUES]))
            more = ", …" if values[_MAX_SHOWN_VALUES:] else ""
            return f"no {field} of {name} is {printable(pattern)}: it has {examples}{more}"
    return f"no recording of {name} meets all conditions of {side}: omit a condition"
