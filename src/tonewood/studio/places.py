"""Folders of this machine, to choose from: a page names them by ids, never by paths."""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Any

from tonewood.errors import FolderError
from tonewood.files.formats import readable_suffixes
from tonewood.studio.entries import NotFoundError

_MAX_FOLDERS_LISTED = 500  # entries told of one folder


class FolderRegistry:
    """Folders below one root, which a page cannot leave.

    An id is a keyed hash of a path that was shown; what was never shown has none.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.key = secrets.token_bytes(16)
        self.paths_by_id: dict[str, Path] = {}

    def register(self, path: Path) -> str:
        """Id of a folder, which is good until the server stops."""
        name = hmac.new(self.key, bytes(path), hashlib.sha256).hexdigest()[:24]
        self.paths_by_id[name] = path
        return name

    def resolve(self, name: str) -> Path:
        """Folder of an id; MissingError for an id that was never given."""
        path = self.paths_by_id.get(name)
        if path is None or not path.is_dir():
            raise NotFoundError("that folder is not here any more: choose again")
        return path

    def folder_view(self, name: str | None) -> dict[str, Any]:
        """A folder: its name, its ancestors up to the root, folders in it, recordings in it.

        Raises
        ------
        FolderError
            It cannot be read.
        """
        folder = self.resolve(name) if name else self.root
        above = [p for p in (*reversed(folder.parents), folder) if p.is_relative_to(self.root)]
        inside, sounds, known = [], 0, readable_suffixes()
        try:
            for entry in sorted(folder.iterdir(), key=lambda path: path.name.lower()):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir() and entry.resolve().is_relative_to(self.root):
                    inside.append(entry)
                elif entry.suffix.lower() in known:
                    sounds += 1
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise FolderError(f"that folder cannot be read ({why}): choose another") from None
        return {
            "id": self.register(folder),
            "name": folder.name or str(folder),
            "trail": [{"id": self.register(p), "name": p.name or str(p)} for p in above],
            "folders": [
                {"id": self.register(p), "name": p.name, "sounds": _count_recordings(p)} for p in inside[:_MAX_FOLDERS_LISTED]
            ],
            "sounds": sounds,
            "more": max(0, len(inside) - _MAX_FOLDERS_LISTED),
        }


def _count_recordings(folder: Path) -> int:
    """Recordings right in a folder; 0 if it cannot be read."""
    try:
        known = readable_suffixes()
        return sum(entry.suffix.lower() in known for entry in folder.iterdir())
    except OSError:
        return 0
