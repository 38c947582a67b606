"""Files: atomic output, locks, names and paths, and reading of regular files only.

An output appears complete or not at all, and replaces another only on request.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path

from tonewood.errors import CallError, OutputError, failure_reason, may_pass, printable

HAS_FILE_LOCKS = sys.platform != "win32"
if HAS_FILE_LOCKS:
    import fcntl

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TEMPORARY_PREFIX = ".tonewood-"
_TEMPORARY_NAME = re.compile(r"\.tonewood-[0-9a-f]{16}(\..*)?")


@contextmanager
def atomic_path(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` when the block succeeds.

    The temporary file is empty and hidden in the same folder (a rename is atomic only within one
    file system). It has the same suffix, by which writers choose their format, and is removed on
    any failure, an interrupt included. It is synchronised to the disk before the rename, so that a
    power cut leaves either the old or the complete new file. A symbolic link stays; its target is
    replaced.

    Parameters
    ----------
    overwrite : bool
        False never replaces a file, not even one that appears while the block runs.

    Raises
    ------
    OutputError
        `path` exists and may not be replaced, is a folder, or is not in a writable folder; or the
        disk is full.
    """
    final = Path(os.path.realpath(path))
    _check_writable(path, final, overwrite)
    _remove_stale_once(final.parent)
    with _write_errors(path):
        # Mode 0666 leaves the permissions to the user's umask, as for any new file; the tempfile
        # module would create an output that only its owner can read.
        temporary, lock = _create_locked(final.parent, final.suffix[:16])
    try:
        yield temporary
        with _write_errors(path):
            _fsync(temporary)
            _publish(path, temporary, final, overwrite)
    except OSError as error:
        # Other errors of the block are not about this output: it may read files too.
        if error.errno in DISK_FULL_ERRNOS:
            raise _write_error(path, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
        _release_lock(lock)


@contextmanager
def temporary_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Yield an empty hidden file that is removed when the block ends."""
    path, lock = _create_locked(folder, suffix)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        _release_lock(lock)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty hidden folder that is removed when the block ends, unless it was renamed."""
    _remove_stale_once(parent)
    path, lock = _create_locked(parent, folder=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _release_lock(lock)


@contextmanager
def exclusive_lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the only right to write a file during long work; OutputError if another process has it.

    With `wait`, another process or thread is waited for.
    """
    if not HAS_FILE_LOCKS:
        yield
        return
    # A hash, because the file's own name may already have the 255 bytes allowed.
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    lock_path = path.parent / f"{_TEMPORARY_PREFIX}{name}.sole"
    while True:
        with _write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(lock_path, os.O_CREAT | os.O_WRONLY, 0o666)
        if wait:
            with contextlib.suppress(OSError):  # the file system does not support locks
                fcntl.flock(lock, fcntl.LOCK_EX)
        is_free = try_lock(lock)
        if os.fstat(lock).st_nlink:
            break
        os.close(lock)  # its last owner has just removed it
    try:
        if is_free is False:
            raise OutputError(
                f"{printable(path)} is being written by another process: wait for it, or name another output"
            )
        try:
            yield
        finally:
            lock_path.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _create_locked(parent: Path, suffix: str = "", *, folder: bool = False) -> tuple[Path, int | None]:
    """Create a hidden file or folder and lock it."""
    # Another process may remove the file as stale before it is locked here. That process holds the
    # lock meanwhile: the lock is not free, or the file has no name, and a new one is created.
    while True:
        # Not derived from the final name, which may already have the 255 bytes allowed.
        path = parent / f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}{suffix}"
        if folder:
            path.mkdir()
        else:
            lock = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        if not HAS_FILE_LOCKS:
            if not folder:
                os.close(lock)  # Windows does not rename open files
            return path, None
        if folder:
            try:
                lock = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
        if try_lock(lock) is not False and os.fstat(lock).st_nlink > 0:
            return path, lock
        os.close(lock)


def _release_lock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)  # closing the file releases its lock


@lru_cache(maxsize=1_024)
def _remove_stale_once(folder: Path) -> None:
    """Remove stale files of a folder once per process."""
    remove_stale_temporaries([folder])


def remove_stale_temporaries(folders: Iterable[Path]) -> None:
    """Remove the hidden files and folders of writers that were killed.

    A writer holds a lock on its file until its process ends, so files in use by other processes,
    or by other machines on a shared file system, are recognised and kept.
    """
    if not HAS_FILE_LOCKS:
        return
    for folder in folders:
        with contextlib.suppress(OSError):  # the folder does not exist yet, or is not readable
            for path in [entry for entry in folder.iterdir() if _TEMPORARY_NAME.fullmatch(entry.name)]:
                with contextlib.suppress(OSError):  # another user's, or already removed
                    _remove_if_stale(path)


def _remove_if_stale(path: Path) -> None:
    is_folder = path.is_dir()
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        if try_lock(descriptor):
            shutil.rmtree(path) if is_folder else path.unlink()
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file until it is closed.

    Returns False if another process holds the lock, and None where locks are not supported.
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
    """Take a shared lock on an open file, which excludes `try_lock`."""
    with contextlib.suppress(OSError):  # the file system does not support locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def make_private(path: Path) -> None:
    """Let nobody else on this machine read a file, or enter a folder; file systems without modes stay."""
    with contextlib.suppress(OSError):
        path.chmod(0o700 if path.is_dir() else 0o600)


def write_bytes(path: str | os.PathLike[str], content: bytes, *, overwrite: bool = False) -> None:
    """Write bytes to `path` atomically; raises as `atomic_path`."""
    with atomic_path(path, overwrite) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str, *, overwrite: bool = False) -> None:
    """Write text as UTF-8 to `path` atomically; raises as `atomic_path`."""
    write_bytes(path, content.encode("utf-8"), overwrite=overwrite)


def disk_full_error(path: str | os.PathLike[str]) -> OutputError:
    """Return the error for an output that does not fit on the disk."""
    return OutputError(
        f"{printable(path)} was not written: the disk is full: free some space or name another folder"
    ).as_temporary()


def check_suffix(
    path: str | os.PathLike[str], suffixes: Collection[str], kind: str, option: str = "--output"
) -> None:
    """Raise CallError if the name of an output ends in the suffix of another kind of file.

    Parameters
    ----------
    suffixes : collection of str
        That the name may end in; "" allows a name without one.
    kind : str
        Kind of the output with its article, as in `an HTML file`.
    option : str
        Option that the name was typed with.
    """
    if Path(path).suffix.lower() not in suffixes:
        *others, last = filter(None, suffixes)
        endings = f"{', '.join(others)} or {last}" if others else last
        raise CallError(f"{option} {printable(path)} is not {kind}: end the name in {endings}")


def check_not_existing(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise OutputError for the first path that exists and may not be replaced."""
    for path in paths:
        if path.exists() and not overwrite:
            raise _exists_error(path)


def check_parent(path: Path) -> None:
    """Raise OutputError if a file cannot be written to its folder, which is made if it does not exist."""
    folder = existing_parent(path)
    reason = "" if folder.is_dir() else f"{printable(folder)} is a file"
    if not reason and not os.access(folder, os.W_OK | os.X_OK):
        reason = "permission denied"
    if reason:
        raise OutputError(f"{printable(path)} cannot be written ({reason}): name another output folder")


def existing_parent(path: Path) -> Path:
    """Return the nearest folder above a path that exists."""
    return next(folder for folder in path.absolute().parents if folder.exists())


def check_report_folder(out: Path, names: Sequence[str], overwrite: bool) -> None:
    """Check before the work that a report can be written; its first file makes its folder.

    OutputError if `out` is a file, cannot be written, or contains one of `names`, which may not be replaced.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{printable(out)} is a file; a report needs a folder: name another path")
    check_not_existing((out / name for name in names), overwrite)
    check_parent(out / names[0])


def _check_writable(path: str | os.PathLike[str], final: Path, overwrite: bool) -> None:
    if final.is_dir():
        raise OutputError(f"{printable(path)} is a folder, not a file: name a file in it")
    if final.exists() and not final.is_file():
        # Renaming a file over /dev/null would remove the device from the machine.
        raise OutputError(f"{printable(path)} is not a regular file: name another output")
    if not overwrite and final.exists():
        raise _exists_error(path)
    with _write_errors(path):
        final.parent.mkdir(parents=True, exist_ok=True)


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
        # FAT and some network file systems have no links: only a check is possible.
        if final.exists():
            raise _exists_error(path) from None
        temporary.replace(final)


def _fsync(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _exists_error(path: str | os.PathLike[str]) -> OutputError:
    return OutputError(f"{printable(path)} exists: name another output or pass --overwrite")


@contextmanager
def _write_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise OutputError for an OSError of the block."""
    try:
        yield
    except OSError as error:
        raise _write_error(path, error) from error


def _write_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    if error.errno in DISK_FULL_ERRNOS:
        return disk_full_error(path)
    reason = failure_reason(error)
    output_error = OutputError(f"{printable(path)} cannot be written ({reason}): name another output folder")
    return output_error.as_temporary() if may_pass(error) else output_error


# --- Names and paths, and regular files

MAX_NAME_BYTES = 255  # of every usual file system


def name_key(name: str) -> str:
    """Return a name for comparisons: one text for all ways to encode its accents.

    macOS decomposes accents (NFD), other systems do not (NFC), and both look the same.
    """
    return unicodedata.normalize("NFC", name)


def listed_path(folder: Path, text: str) -> Path:
    """Return the file that a list names, relative to a folder.

    A name with other accents (see `name_key`), or with the backslashes of Windows, is taken if there is no
    file of the name itself. A list names unprintable characters as `printable` does.
    """
    path = folder / text
    if os.path.lexists(path):
        return path
    for candidate in dict.fromkeys((text, re.sub(r"[\\/]+", "/", text))):
        match = _find_by_key(folder, candidate)
        if match is not None:
            return match
    return path


def _find_by_key(folder: Path, text: str) -> Path | None:
    path = Path(folder.anchor) if Path(text).is_absolute() else folder
    for part in Path(text).parts:
        step = path / part
        if not os.path.lexists(step):
            try:
                names = sorted(entry.name for entry in path.iterdir())
            except (OSError, ValueError):
                return None
            key = name_key(part)
            match = next((name for name in names if key in (name_key(name), name_key(printable(name)))), None)
            if match is None:
                return None
            step = path / match
        path = step
    return path


def real_path(path: Path) -> Path:
    """Return a path without symbolic links; links in a loop stay, and opening the path reports them."""
    # Until Python 3.13, `Path.resolve` raises a RuntimeError for a loop.
    return Path(os.path.realpath(path))


def is_inside(path: Path, root: Path) -> bool:
    """Return True if a path, with all links followed, is below a root; a file that is missing counts too."""
    return real_path(path).is_relative_to(real_path(root))


def append_to_name(path: Path, suffix: str) -> Path:
    """Return a path with a suffix behind its name, which is shortened if it would become too long.

    A shortened name ends in a hash of the whole one, so that different files keep different names.
    """
    return path.with_name(fit_name(path.name, suffix))


def fit_name(name: str, suffix: str = "") -> str:
    """Return name and suffix, with the name shortened to the bytes that file systems allow."""
    whole = name + suffix
    if len(os.fsencode(whole)) <= MAX_NAME_BYTES:
        return whole
    stem, extension = Path(name).stem, Path(name).suffix
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    end = f"~{digest}{extension if len(os.fsencode(extension)) <= 16 else ''}{suffix}"
    room = MAX_NAME_BYTES - len(os.fsencode(end))
    # A character that is cut in the middle is left out.
    return os.fsencode(stem)[:room].decode("utf-8", "ignore") + end


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; OSError if it cannot be read, or is a pipe or a device."""
    # Without O_NONBLOCK, opening a pipe waits for its writer; for a file the flag has no effect.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_regular(path: Path) -> bytes:
    """Return the content of a file; OSError as for `open_regular`."""
    with open_regular(path) as stream:
        return stream.read()
