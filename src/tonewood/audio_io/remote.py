"""Files at URLs such as s3://bucket/take.wav, through fsspec.

Inputs are copied to this machine, and outputs are uploaded whole.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tonewood.errors import AudioError, CallError, MissingExtraError, OutputError, TonewoodError, printable
from tonewood.utils.files import DISK_FULL_ERRNOS

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Location = Path | str
"""Path on this machine, or a URL."""

# Object stores publish an upload whole or not at all; elsewhere it gets its name at the end.
_ATOMIC_SCHEMES = ("s3", "s3a", "gs", "gcs", "abfs", "az", "memory")
_EXTRA_OF_SCHEME = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def parse_location(text: str) -> Location:
    """Return the path or URL that a text names; file:///… becomes a path.

    Examples
    --------
    >>> parse_location("s3://takes/a.wav")
    's3://takes/a.wav'
    >>> parse_location("file:///takes/a%20b.wav").name
    'a b.wav'
    """
    # A scheme is one word: any other text before :// is a part of a path.
    scheme, colon, _ = text.partition("://")
    if not colon or not scheme.isalnum():
        return Path(text)
    return Path(unquote(urlsplit(text).path)) if scheme == "file" else text.rstrip("/")


def url_name(url: str) -> str:
    """Return the last part of a URL, as `a.wav` of s3://takes/day/a.wav."""
    return PurePosixPath(url).name


def join_location(folder: Location, relative: str) -> Location:
    """Return the location of a relative name below a folder."""
    return folder / relative if isinstance(folder, Path) else f"{folder}/{relative}"


def url_exists(url: str) -> bool:
    """Return True if a file or folder exists at a URL."""
    with _remote_errors(url, AudioError):
        system, path = _filesystem_of(url)
        return bool(system.exists(path))


def is_url_folder(url: str) -> bool:
    """Return True for a folder, False for a file; AudioError if neither exists."""
    with _remote_errors(url, AudioError):
        system, path = _filesystem_of(url)
        if system.isdir(path):
            return True
        if not system.exists(path):
            raise AudioError(f"{printable(url)} does not exist: check its name")
        return False


def list_url_files(url: str) -> list[str]:
    """List the URLs of all files below a URL, sorted, without hidden ones."""
    with _remote_errors(url, AudioError):
        system, path = _filesystem_of(url)
        # `find` returns paths without the scheme, but with bucket or root, depending on the system.
        root = system._strip_protocol(path).rstrip("/")
        names = [file.removeprefix(root).lstrip("/") for file in system.find(root)]
    visible = (name for name in names if not any(part[:1] == "." for part in name.split("/")))
    return [f"{url}/{name}" for name in sorted(visible)]


def read_url_bytes(url: str) -> bytes | None:
    """Return the bytes of a small file; None if it does not exist."""
    with _remote_errors(url, AudioError):
        system, path = _filesystem_of(url)
        return bytes(system.cat_file(path)) if system.exists(path) else None


@contextmanager
def local_copy(location: Location) -> Iterator[Path]:
    """Yield the path of a file on this machine; a file at a URL is copied temporarily.

    AudioError if the file cannot be copied. OutputError if the disk has no space for a copy.
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
    """Upload a file, whole or not at all; OutputError if the upload fails or the URL exists."""
    with _remote_errors(url, OutputError):
        system, path = _filesystem_of(url)
        if not overwrite and system.exists(path):
            raise OutputError(f"{printable(url)} exists: name another output or pass --overwrite")
        if url.partition("://")[0] in _ATOMIC_SCHEMES:
            system.put_file(str(local), path)
            return
        # Other systems have folders, which must exist before the upload.
        temporary = f"{path}.tonewood-part"
        system.makedirs(system._parent(path), exist_ok=True)
        try:
            system.put_file(str(local), temporary)
            system.mv(temporary, path)
        except BaseException:  # an interrupt must not leave half a file either
            if system.exists(temporary):
                system.rm_file(temporary)
            raise


def remove_url(url: str) -> None:
    """Remove a file."""
    with _remote_errors(url, OutputError):
        system, path = _filesystem_of(url)
        system.rm_file(path)


def check_url(url: str) -> None:
    """Raise CallError or MissingExtraError if no installed package reads such URLs."""
    _filesystem_of(url)


def is_shared_url(url: str) -> bool:
    """Return True if other processes see the same files at a URL."""
    # fsspec keeps memory:// in a dictionary of this process.
    return not url.startswith("memory://")


@contextmanager
def _remote_errors(url: str, error_type: type[TonewoodError]) -> Iterator[None]:
    """Turn every exception of a remote file system into an error of one line."""
    try:
        yield
    except TonewoodError:
        raise
    # Each package behind fsspec raises exceptions of its own, which share no base class.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
            free = shutil.disk_usage(tempfile.gettempdir()).free >> 20
            raise OutputError(
                f"no space for a copy of {printable(url)} ({free} MB free): free some or set TMPDIR"
            ).as_temporary() from error
        unreachable = error_type(
            f"{printable(url)} cannot be reached ({_first_error_line(error)}): check its name and your access"
        )
        # Only an error that names a lasting cause is not tried again: networks fail in many ways.
        if not isinstance(error, FileNotFoundError | PermissionError):
            unreachable.as_temporary()
        raise unreachable from error


def _first_error_line(error: Exception) -> str:
    """Return the first line of a remote file system's message."""
    lines = str(error).splitlines()
    return printable(lines[0]) if lines else type(error).__name__


def _filesystem_of(url: str) -> "tuple[AbstractFileSystem, str]":
    scheme = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        # A cache of listings would hide files that others upload during a run.
        options: dict[str, Any] = {} if scheme == "memory" else {"use_listings_cache": False}
        system, path = url_to_fs(url, **options)
    except ImportError:
        extra = _EXTRA_OF_SCHEME.get(scheme)
        hint = f"pip install '.[{extra}]'" if extra else "install fsspec's package for it"
        raise MissingExtraError(f"{scheme}:// needs a package that is not installed: {hint}") from None
    except ValueError as error:
        raise CallError(
            f"{printable(url)} cannot be reached ({_first_error_line(error)}): name another"
        ) from None
    return system, str(path)
