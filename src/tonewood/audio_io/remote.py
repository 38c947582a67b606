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
    printable,
)
from tonewood.utils.atomic_write import DISK_FULL_ERRNOS

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Location = Path | str
"""A path on this machine, or a URL."""

# What is put into these appears whole or not at all; elsewhere a name is taken at the end.
_ATOMIC_SCHEMES = ("s3", "s3a", "gs", "gcs", "abfs", "az", "memory")
_EXTRA_OF_SCHEME = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def parse_location(text: str) -> Location:
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


def url_name(url: str) -> str:
    """Last part of a URL.

    Examples
    --------
    >>> name_of("s3://takes/day/a.wav")
    'a.wav'
    """
    return PurePosixPath(url).name


def join_location(folder: Location, relative: str) -> Location:
    """Place of a name below a folder."""
    return folder / relative if isinstance(folder, Path) else f"{folder}/{relative}"


def append_suffix(location: Location, suffix: str) -> Location:
    """Place that is named like another, and a suffix."""
    return location.with_name(location.name + suffix) if isinstance(location, Path) else location + suffix


def url_exists(url: str) -> bool:
    """Whether a file or folder is there."""
    with _remote_errors(url, AudioError):
        system, path = _filesystem_of(url)
        return bool(system.exists(path))


def is_url_folder(url: str) -> bool:
    """Whether something lies below a URL; AudioError if nothing is there at all."""
    with _remote_errors(url, AudioError):
        system, path = _filesystem_of(url)
        if system.isdir(path):
            return True
        if not system.exists(path):
            raise AudioError(f"{printable(url)} does not exist: check its name")
        return False


def list_url_files(url: str) -> list[str]:
    """URLs of all files below a URL, sorted; what is hidden is left out."""
    with _remote_errors(url, AudioError):
        system, path = _filesystem_of(url)
        root = system._strip_protocol(path).rstrip("/")
        inside = [found.removeprefix(root).lstrip("/") for found in system.find(root)]
    seen = (it for it in inside if not any(part[:1] == "." for part in it.split("/")))
    return [f"{url}/{it}" for it in sorted(seen)]


def read_url_bytes(url: str) -> bytes | None:
    """Bytes of a small file; None if it is not there."""
    with _remote_errors(url, AudioError):
        system, path = _filesystem_of(url)
        return bytes(system.cat_file(path)) if system.exists(path) else None


@contextmanager
def local_copy(location: Location) -> Iterator[Path]:
    """A file's path on this machine: its own, or that of a copy that goes when the block ends.

    Raises
    ------
    AudioError
        It cannot be had.
    OutputError
        There is no room for a copy.
    """
    if isinstance(location, Path):
        yield location
        return
    with tempfile.TemporaryDirectory(prefix="tonewood-") as folder:
        copy = Path(folder) / url_name(location)
        with _remote_errors(location, AudioError):
            system, path = _filesystem_of(location)
            if not system.exists(path):
                raise AudioError(f"{printable(location)} does not exist: check its name")
            system.get_file(path, str(copy))
        yield copy


def upload_file(local: Path, url: str, *, overwrite: bool = False) -> None:
    """Put a file at a URL, whole or not at all; OutputError if it exists or cannot be."""
    with _remote_errors(url, OutputError):
        system, path = _filesystem_of(url)
        if not overwrite and system.exists(path):
            raise OutputError(f"{printable(url)} exists: name another output or pass --overwrite")
        if url.partition("://")[0] in _ATOMIC_SCHEMES:
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


def remove_url(url: str) -> None:
    """Remove a file."""
    with _remote_errors(url, OutputError):
        system, path = _filesystem_of(url)
        system.rm_file(path)


def check_url(url: str) -> None:
    """Raise CallError or MissingExtraError if nothing here reaches such URLs."""
    _filesystem_of(url)


def is_shared_url(url: str) -> bool:
    """Whether other processes see the same place."""
    return not url.startswith("memory://")


@contextmanager
def _remote_errors(url: str, error_type: type[TonewoodError]) -> Iterator[None]:
    """Turn whatever a far file system raises into one line."""
    try:
        yield
    except TonewoodError:
        raise
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            free = shutil.disk_usage(tempfile.gettempdir()).free >> 20
            raise OutputError(
                f"no room for a copy of {printable(url)} ({free} MB free): free some or set TMPDIR"
            ) from error
        raise error_type(
            f"{printable(url)} cannot be had ({_first_error_line(error)}): check name and access"
        ) from error
    except Exception as error:
        raise error_type(
            f"{printable(url)} cannot be had ({_first_error_line(error)}): check name and access"
        ) from error


def _first_error_line(error: Exception) -> str:
    """First line of what a far file system says."""
    lines = str(error).splitlines()
    return printable(lines[0]) if lines else type(error).__name__


def _filesystem_of(url: str) -> "tuple[AbstractFileSystem, str]":
    scheme = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        # What others put there meanwhile is to be seen.
        options: dict[str, Any] = {} if scheme == "memory" else {"use_listings_cache": False}
        system, path = url_to_fs(url, **options)
    except ImportError:
        extra = _EXTRA_OF_SCHEME.get(scheme)
        hint = f"pip install '.[{extra}]'" if extra else "install fsspec's package for it"
        raise MissingExtraError(f"{scheme}:// needs more than is installed: {hint}") from None
    except ValueError as error:
        raise CallError(
            f"{printable(url)} cannot be reached ({_first_error_line(error)}): name another"
        ) from None
    return system, str(path)
