"""Every file appears whole or not at all, and nothing is replaced unasked."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from tonewood.errors import OutputError, printable

HAS_FILE_LOCKS = sys.platform != "win32"
if HAS_FILE_LOCKS:
    import fcntl

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TEMPORARY_PREFIX = ".tonewood-"
_TEMPORARY_NAME = re.compile(r"\.tonewood-[0-9a-f]{16}(\..*)?")


@contextmanager
def atomic_path(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path that takes the name `path` when the block ends well.

    The temporary file lies hidden in the same folder (a rename is atomic only within one file
    system), is empty, has the same suffix (writers choose their format by it) and is removed
    on any failure, an interrupt included. It is synchronised to the disk before it is renamed,
    so that a power cut leaves either the old file or the whole new one. A symbolic link is
    written through: what it points to is replaced, not the link.

    Parameters
    ----------
    path : path
        The final name.
    overwrite : bool
        Whether an existing file may be replaced. Without it one is never replaced, not even
        one that appears while the block runs.

    Raises
    ------
    OutputError
        If `path` exists and may not be replaced, is a folder, or lies in no writable folder,
        or if the disk is full.
    """
    final = Path(os.path.realpath(path))
    _check_writable(path, final, overwrite)
    _remove_stale_once(final.parent)
    try:
        # Mode 0666 leaves the permissions to the user's umask, as for any new file;
        # the tempfile module would make an output that nobody else can read.
        temporary, held = _create_locked(final.parent, final.suffix[:16])
    except OSError as error:
        raise _write_error(path, error) from error
    try:
        yield temporary
        try:
            _fsync(temporary)
            _publish(path, temporary, final, overwrite)
        except OSError as error:
            raise _write_error(path, error) from error
    except OSError as error:
        # Other errors of the block are not about this output (it may well read files).
        if error.errno in DISK_FULL_ERRNOS:
            raise _write_error(path, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
        _release_lock(held)


@contextmanager
def temporary_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Yield an empty hidden file, gone when the block ends, or with the next sweep."""
    path, held = _create_locked(folder, suffix)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        _release_lock(held)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty hidden folder, gone when the block ends, or with the next sweep.

    Renamed, it stays. OSError where it cannot be made.
    """
    _remove_stale_once(parent)
    path, held = _create_locked(parent, folder=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _release_lock(held)


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Let nobody else make a file at the same time; to be asked before long work.

    Raises
    ------
    OutputError
        Another process makes it.
    """
    if not HAS_FILE_LOCKS:
        yield
        return
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    place = path.parent / f"{_TEMPORARY_PREFIX}{name}.sole"
    while True:
        try:
            held = os.open(place, os.O_CREAT | os.O_WRONLY, 0o666)
        except OSError as error:
            raise _write_error(path, error) from error
        free = try_lock(held)
        if os.fstat(held).st_nlink:
            break
        os.close(held)  # whoever held it has just removed it
    try:
        if free is False:
            raise OutputError(
                f"{printable(path)} is being made by another process right now: wait for it, or name "
                "another output"
            )
        try:
            yield
        finally:
            place.unlink(missing_ok=True)
    finally:
        os.close(held)


def _create_locked(parent: Path, suffix: str = "", *, folder: bool = False) -> tuple[Path, int | None]:
    """Make a hidden file or folder, and hold it by a lock.

    Between the two a sweep may take it for one that was left. It does so under the lock, so that
    this shows: the lock is taken, or what it holds has no name any more. Then another is made.
    """
    while True:
        # A short name of its own: the final name may already use all 255 bytes allowed.
        path = parent / f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}{suffix}"
        if folder:
            path.mkdir()
        else:
            held = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        if not HAS_FILE_LOCKS:
            if not folder:
                os.close(held)  # what is open cannot be renamed there
            return path, None
        if folder:
            try:
                held = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
        if try_lock(held) is not False and os.fstat(held).st_nlink > 0:
            return path, held
        os.close(held)


def _release_lock(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


@lru_cache(maxsize=1_024)
def _remove_stale_once(folder: Path) -> None:
    """Sweep a folder that this process is about to write into for the first time."""
    remove_stale_temporaries([folder])


def remove_stale_temporaries(folders: Iterable[Path]) -> None:
    """Remove what writers that were killed left in some folders: their hidden files and folders.

    Who writes holds a lock on it until the end, whatever that end is, so that what other
    processes, and on a shared file system other machines, work on is told from what is left.
    """
    if not HAS_FILE_LOCKS:
        return
    for folder in folders:
        with contextlib.suppress(OSError):  # no folder yet, or none of ours
            for path in [it for it in folder.iterdir() if _TEMPORARY_NAME.fullmatch(it.name)]:
                with contextlib.suppress(OSError):  # another's, or gone meanwhile
                    _remove_if_stale(path)


def _remove_if_stale(path: Path) -> None:
    is_folder = path.is_dir()
    there = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        if try_lock(there):
            shutil.rmtree(path) if is_folder else path.unlink()
    finally:
        os.close(there)


def try_lock(descriptor: int) -> bool | None:
    """Hold what is open for oneself until it is closed.

    False if another holds it, None on a system or a file system that knows no locks.
    """
    if not HAS_FILE_LOCKS:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def lock_shared(descriptor: int) -> None:
    """Share what is open with others who do so, and let nobody `lock` it."""
    with contextlib.suppress(OSError):  # a file system that knows no locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def write_bytes(path: str | os.PathLike[str], content: bytes, *, overwrite: bool = False) -> None:
    """Write `read_url_bytes` to `path`, whole or not at all; raises as :func:`atomic_path`."""
    with atomic_path(path, overwrite) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str, *, overwrite: bool = False) -> None:
    """Write `read_url_bytes` as UTF-8 to `path`, whole or not at all; raises as :func:`atomic_path`."""
    write_bytes(path, content.encode("utf-8"), overwrite=overwrite)


def disk_full_error(path: str | os.PathLike[str]) -> OutputError:
    """Build the error for an output that the disk could not hold."""
    return OutputError(
        f"{printable(path)} was not written: the disk is full: free some space or name another folder"
    )


def check_not_existing(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise OutputError for the first of some paths that exists and may not be replaced."""
    for path in paths:
        if path.exists() and not overwrite:
            raise _exists_error(path)


def prepare_report_folder(out: Path, names: Iterable[str], overwrite: bool) -> None:
    """Make a report's folder, or refuse before minutes of work what would be refused after it.

    Raises
    ------
    OutputError
        It is a file, cannot be made, or holds one of the names, which may not be replaced.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{printable(out)} is a file; a report needs a folder: name another")
    check_not_existing((out / name for name in names), overwrite)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise OutputError(f"{printable(out)} cannot be made ({why}): name another folder") from None


def _check_writable(path: str | os.PathLike[str], final: Path, overwrite: bool) -> None:
    if final.is_dir():
        raise OutputError(f"{printable(path)} is a folder, not a file: name a file in it")
    if not overwrite and final.exists():
        raise _exists_error(path)
    if not final.parent.is_dir():
        raise OutputError(f"{printable(path)} has no folder to lie in: make {printable(final.parent)} first")


def _publish(path: str | os.PathLike[str], temporary: Path, final: Path, overwrite: bool) -> None:
    if overwrite:
        temporary.replace(final)
        return
    try:
        # Unlike a rename, a link fails if the name is taken: no race with another writer.
        os.link(temporary, final)
    except FileExistsError:
        raise _exists_error(path) from None
    except OSError:
        # FAT and some network file systems know no links; there the check has to do.
        if final.exists():
            raise _exists_error(path) from None
        temporary.replace(final)


def _fsync(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _exists_error(path: str | os.PathLike[str]) -> OutputError:
    return OutputError(f"{printable(path)} exists: name another output or pass --overwrite")


def _write_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    if error.errno in DISK_FULL_ERRNOS:
        return disk_full_error(path)
    why = (error.strerror or str(error)).lower()
    return OutputError(f"{printable(path)} cannot be written ({why}): name another output folder")
