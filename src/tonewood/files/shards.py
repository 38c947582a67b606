"""WebDataset shards: tar files in which `take.flac`, `take.json`, `take.cls` are one sample.

Only ordinary files are looked at, and nothing is written where a name in an archive says.
"""

import json
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tonewood.errors import FolderError, printable
from tonewood.files.datasets import CatalogTrack
from tonewood.files.formats import readable_suffixes

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
