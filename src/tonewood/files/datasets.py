"""Recordings of public data sets, as mirdata knows them: where they lie, and what is said of them.

Nothing is fetched: a data set is to lie in its folder as mirdata's own `download` leaves it.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tonewood.errors import FolderError, MissingExtraError, printable


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
        raise MissingExtraError(f"{name} needs mirdata: pip install 'tonewood[datasets]'") from None
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
