"""Paths of files: compare and shorten names, find listed files, and open regular files only."""

import errno
import hashlib
import os
import re
import stat
import unicodedata
from io import BufferedReader
from pathlib import Path

from tonewood.errors import printable

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
        found = _find_by_key(folder, candidate)
        if found is not None:
            return found
    return path


def _find_by_key(folder: Path, text: str) -> Path | None:
    found = Path(folder.anchor) if Path(text).is_absolute() else folder
    for part in Path(text).parts:
        step = found / part
        if not os.path.lexists(step):
            try:
                names = sorted(entry.name for entry in found.iterdir())
            except (OSError, ValueError):
                return None
            key = name_key(part)
            match = next((name for name in names if key in (name_key(name), name_key(printable(name)))), None)
            if match is None:
                return None
            step = found / match
        found = step
    return found


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
