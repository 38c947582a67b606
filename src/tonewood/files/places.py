"""Places beyond this machine: URLs such as s3://bucket/take.wav, through fsspec.

What lies there is worked on in a local copy, and what was made is put there whole.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tonewood.errors import (
    AudioError,
    CallError,
    MissingExtraError,
    OutputError,
    TonewoodError,
    shown,
)
from tonewood.files.output import FULL

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Place = Path | str
"""A path on this machine, or a URL."""

# What is put into these appears whole or not at all; elsewhere a name is taken at the end.
_WHOLE = ("s3", "s3a", "gs", "gcs", "abfs", "az", "memory")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def place(text: str) -> Place:
    """Path or URL that a text names; file:///… is a path.

    Examples
    --------
    >>> place("s3://takes/a.wav")
    's3://takes/a.wav'
    >>> place("file:///takes/a%20b.wav").name
    'a b.wav'
    """
    scheme, colon, _ = text.partition("://")
    if not colon or not scheme.isalnum():
        return Path(text)
    return Path(unquote(urlsplit(text).path)) if scheme == "file" else text.rstrip("/")


def name_of(url: str) -> str:
    """Last part of a URL.

    Examples
    --------
    >>> name_of("s3://takes/day/a.wav")
    'a.wav'
    """
    return PurePosixPath(url).name


def below(folder: Place, relative: str) -> Place:
    """Place of a name below a folder."""
    return folder / relative if isinstance(folder, Path) else f"{folder}/{relative}"


def beside(place: Place, suffix: str) -> Place:
    """Place that is named like another, and a suffix."""
    return place.with_name(place.name + suffix) if isinstance(place, Path) else place + suffix


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    with _reaching(url, AudioError):
        system, path = _system(url)
        return bool(system.exists(path))


def is_folder(url: str) -> bool:
    """Whether something lies below a URL; AudioError if nothing is there at all."""
    with _reaching(url, AudioError):
        system, path = _system(url)
        if system.isdir(path):
            return True
        if not system.exists(path):
            raise AudioError(f"{shown(url)} does not exist: check its name")
        return False


def listing(url: str) -> list[str]:
    """URLs of all files below a URL, sorted; what is hidden is left out."""
    with _reaching(url, AudioError):
        system, path = _system(url)
        root = system._strip_protocol(path).rstrip("/")
        inside = [found.removeprefix(root).lstrip("/") for found in system.find(root)]
    seen = (it for it in inside if not any(part[:1] == "." for part in it.split("/")))
    return [f"{url}/{it}" for it in sorted(seen)]


def content(url: str) -> bytes | None:
    """Bytes of a small file; None if it is not there."""
    with _reaching(url, AudioError):
        system, path = _system(url)
        return bytes(system.cat_file(path)) if system.exists(path) else None


@contextmanager
def fetched(place: Place) -> Iterator[Path]:
    """A file's path on this machine: its own, or that of a copy that goes when the block ends.

    Raises
    ------
    AudioError
        It cannot be had.
    OutputError
        There is no room for a copy.
    """
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="tonewood-") as folder:
        copy = Path(folder) / name_of(place)
        with _reaching(place, AudioError):
            system, path = _system(place)
            if not system.exists(path):
                raise AudioError(f"{shown(place)} does not exist: check its name")
            system.get_file(path, str(copy))
        yield copy


def put(local: Path, url: str, *, overwrite: bool = False) -> None:
    """Put a file at a URL, whole or not at all; OutputError if it exists or cannot be."""
    with _reaching(url, OutputError):
        system, path = _system(url)
        if not overwrite and system.exists(path):
            raise OutputError(f"{shown(url)} exists: name another output or pass --overwrite")
        if url.partition("://")[0] in _WHOLE:
            system.put_file(str(local), path)
            return
        temporary = f"{path}.tonewood-part"
        system.makedirs(system._parent(path), exist_ok=True)
        try:
            system.put_file(str(local), temporary)
            system.mv(temporary, path)
        except BaseException:
            if system.exists(temporary):
                system.rm_file(temporary)
            raise


def remove(url: str) -> None:
    """Remove a file."""
    with _reaching(url, OutputError):
        system, path = _system(url)
        system.rm_file(path)


def check(url: str) -> None:
    """Raise CallError or MissingExtraError if nothing here reaches such URLs."""
    _system(url)


def shared(url: str) -> bool:
    """Whether other processes see the same place."""
    return not url.startswith("memory://")


@contextmanager
def _reaching(url: str, kind: type[TonewoodError]) -> Iterator[None]:
    """Turn whatever a far file system raises into one line."""
    try:
        yield
    except TonewoodError:
        raise
    except OSError as error:
        if error.errno in FULL:
            free = shutil.disk_usage(tempfile.gettempdir()).free >> 20
            raise OutputError(
                f"no room for a copy of {shown(url)} ({free} MB free): free some or set TMPDIR"
            ) from error
        raise kind(f"{shown(url)} cannot be had ({_told(error)}): check name and access") from error
    except Exception as error:
        raise kind(f"{shown(url)} cannot be had ({_told(error)}): check name and access") from error


def _told(error: Exception) -> str:
    """First line of what a far file system says."""
    lines = str(error).splitlines()
    return shown(lines[0]) if lines else type(error).__name__


def _system(url: str) -> "tuple[AbstractFileSystem, str]":
    scheme = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        # What others put there meanwhile is to be seen.
        options: dict[str, Any] = {} if scheme == "memory" else {"use_listings_cache": False}
        system, path = url_to_fs(url, **options)
    except ImportError:
        extra = _EXTRAS.get(scheme)
        hint = f"pip install 'tonewood[{extra}]'" if extra else "install fsspec's package for it"
        raise MissingExtraError(f"{scheme}:// needs more than is installed: {hint}") from None
    except ValueError as error:
        raise CallError(f"{shown(url)} cannot be reached ({_told(error)}): name another") from None
    return system, str(path)
