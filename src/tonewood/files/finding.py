"""Recordings are found below a folder, and named by their content."""

import hashlib
import os
from pathlib import Path

from tonewood.errors import FolderError, printable
from tonewood.files import codec, media
from tonewood.files.formats import WRITABLE_SUFFIXES, readable_suffixes


def find_audio_files(folder: str | os.PathLike[str]) -> list[Path]:
    """List every audio file below a folder, sorted by path, by suffix only.

    What needs PyAV is listed where that is installed.

    Hidden files and folders are skipped. Symbolic links are followed, but a folder or file that
    has been met is not listed again: links may form loops, and a take listed twice could fall
    into both halves of a split.

    Raises
    ------
    FolderError
        If there is no such folder, it (or one below it) cannot be read, or no audio is in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise FolderError(f"{printable(folder)} {kind}; a folder of recordings is needed: name one")
    met = {os.path.realpath(folder)}
    found: list[Path] = []
    needing: list[str] = []
    known = readable_suffixes()

    def refuse(error: OSError) -> None:
        raise FolderError(
            f"{printable(error.filename)} cannot be read; every folder below {printable(folder)} is "
            "needed: change its permissions or move it away"
        ) from error

    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [n for n in sorted(folders) if n[0] != "." and _is_new_path(root, n, met)]
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            if name.startswith(".") or suffix not in WRITABLE_SUFFIXES | media.FFMPEG_SUFFIXES:
                continue
            if suffix not in known:
                needing.append(name)
            elif _is_new_path(root, name, met):
                found.append(Path(root) / name)
    if not found and needing:
        raise FolderError(
            f"{printable(folder)} holds only recordings such as {printable(min(needing))}, which need PyAV "
            "to be read: pip install 'tonewood[media]'"
        )
    if not found:
        kinds = " ".join(sorted(known))
        raise FolderError(f"no audio file below {printable(folder)}; {kinds} are looked for: add some")
    return sorted(found)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in pieces; AudioError if unreadable."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise codec.read_error(Path(path), error) from error


def _is_new_path(root: str, name: str, seen: set[str]) -> bool:
    real = os.path.realpath(Path(root) / name)
    if real in seen:
        return False
    seen.add(real)
    return True
