"""Models that the studio offers: the bundled ones, and its own.

Folders of this machine, to choose from: a page names them by ids, never by paths.
"""

import hashlib
import hmac
import re
import secrets
import threading
from itertools import count
from pathlib import Path
from typing import Any

from tonewood.audio_io.libsndfile import readable_suffixes
from tonewood.errors import CallError, FolderError, ModelError, printable
from tonewood.model.model import Model, load_model
from tonewood.model.model_file import MODEL_SUFFIX, bundled_models
from tonewood.studio.database import NotFoundError, SessionDatabase
from tonewood.utils.atomic_write import atomic_path


class ModelRegistry:
    """Models by name; each is loaded once.

    A model file that the studio is started with is copied, so that what was made with it can be
    opened again without it.
    """

    def __init__(self, database: SessionDatabase, default: str) -> None:
        self.database = database
        self.cache: dict[str, tuple[str, Model]] = {}
        self.lock = threading.Lock()
        self.default = default
        if default not in bundled_models():
            digest = load_model(default).digest  # a wrong name is told before the page opens
            self.default = self.import_model(Path(default).read_bytes(), Path(default).stem, digest)

    def names(self) -> list[str]:
        """All that can be chosen, the first choice first."""
        return list(dict.fromkeys([self.default, *self._available_names()]))

    def _available_names(self) -> list[str]:
        return [
            *sorted(path.stem for path in self.database.models_folder.glob(f"*{MODEL_SUFFIX}")),
            *bundled_models(),
        ]

    def find_by_digest(self, digest: str) -> str | None:
        """Name of the model with a digest, if it is here."""
        for name in self._available_names():
            try:
                if self.get(name).digest == digest:
                    return name
            except ModelError:  # a damaged one is told of where models are listed
                continue
        return None

    def resolve_source(self, name: str) -> str:
        """What `load` takes for a name; ModelError if there is none."""
        path = self.database.models_folder / f"{name}{MODEL_SUFFIX}"
        if _SAFE_MODEL_NAME.fullmatch(name) and path.is_file():
            return str(path)
        if name in bundled_models():
            return name
        raise ModelError("that model is not here any more: choose another")

    def get(self, name: str) -> Model:
        """A model by name."""
        source = self.resolve_source(name)
        with self.lock:
            path = Path(source)
            stamp = str(path.stat().st_mtime_ns) if path.is_file() else ""
            kept = self.cache.get(name)
            if kept is None or kept[0] != stamp:
                kept = self.cache[name] = (stamp, load_model(source))
        return kept[1]

    def model_summaries(self) -> list[dict[str, Any]]:
        """Names, with what people should know of each."""
        told: list[dict[str, Any]] = []
        for name in self.names():
            try:
                card = self.get(name).card
            except ModelError as error:
                told.append({"name": name, "error": str(error)})
                continue
            low, high = card.scorer.accuracy_interval
            told.append({
                "name": name,
                "domain": card.domain,
                "reference": card.reference.name,
                "source": card.source.name,
                "hours": round(card.reference.hours + card.source.hours, 2),
                "accuracy": card.scorer.accuracy,
                "interval": [low, high],
                "verdict": card.audit.verdict if card.audit else None,
                "licence": card.licence,
            })  # fmt: skip
        return told

    def new_model_path(self, title: str) -> Path:
        """File for a new model of that title; CallError if there is one."""
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40]
        if not name:
            raise CallError(f"{title!r} holds no letter or digit: give the model another name")
        if name in self.names():
            raise CallError(f"there is a model {name} already: give this one another name")
        return self.database.models_folder / f"{name}{MODEL_SUFFIX}"

    def import_model(self, content: bytes, name: str, digest: str) -> str:
        """Keep a model that is brought along, unless it is here; the name it goes by.

        Raises
        ------
        ModelError
            It is no model, or not the one that the session names.
        """
        known = self.find_by_digest(digest)
        if known is not None:
            return known
        safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "model"
        taken = set(self._available_names())
        free = next(it for n in count(1) if (it := safe if n == 1 else f"{safe}-{n}") not in taken)
        path = self.database.models_folder / f"{free}{MODEL_SUFFIX}"
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
            try:
                found = load_model(temporary).digest
            except ModelError as error:
                told = str(error).replace(printable(temporary), "the session file's model")
                raise ModelError(told) from None
            if found != digest:
                raise ModelError("the model is not the one that the session was made with")
        return free


_SAFE_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,80}")


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
                {"id": self.register(p), "name": p.name, "sounds": _count_recordings(p)}
                for p in inside[:_MAX_FOLDERS_LISTED]
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
