"""Models and folders that the studio's pages can choose."""

import hashlib
import hmac
import re
import secrets
import threading
from itertools import count
from pathlib import Path
from typing import Any

from tonewood.audio_io.libsndfile import readable_suffixes
from tonewood.errors import CallError, FolderError, ModelError, failure_reason, printable
from tonewood.model.model import Model, load_model
from tonewood.model.model_file import MODEL_SUFFIX, bundled_models
from tonewood.studio.database import NotFoundError, SessionDatabase
from tonewood.utils.files import atomic_path, is_inside, real_path

# Names become file names, so separators and a leading dot are excluded.
_SAFE_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,80}")
_MAX_FOLDERS_LISTED = 500  # each listed folder is read, too, to count its recordings


class ModelRegistry:
    """Bundled, trained and imported models by name; each is loaded once.

    The model file that the studio is started with is copied into the studio's folder: sessions made
    with it stay usable without the original file.
    """

    def __init__(self, database: SessionDatabase, default: str) -> None:
        self.database = database
        self.cache: dict[str, tuple[int, Model]] = {}
        self.lock = threading.Lock()
        self.default = default
        if default not in bundled_models():
            path, digest = Path(default), load_model(default).digest  # fails before the page opens
            self.default = self.import_model(path.read_bytes(), path.stem, digest)

    def names(self) -> list[str]:
        """Return the names of all models, the default first."""
        return list(dict.fromkeys([self.default, *self._available_names()]))

    def _available_names(self) -> list[str]:
        stored = sorted(path.stem for path in self.database.models_folder.glob(f"*{MODEL_SUFFIX}"))
        return [*stored, *bundled_models()]

    def find_by_digest(self, digest: str) -> str | None:
        """Return the name of the model with a digest, or None if it is not available."""
        for name in self._available_names():
            try:
                if self.get(name).digest == digest:
                    return name
            except ModelError:  # `model_summaries` reports damaged models
                continue
        return None

    def resolve_source(self, name: str) -> str:
        """Return what `load_model` accepts for a name; raise ModelError if the model does not exist."""
        path = self._path(name)
        if _SAFE_MODEL_NAME.fullmatch(name) and path.is_file():
            return str(path)
        if name in bundled_models():
            return name
        raise ModelError("this model does not exist any more: choose another")

    def get(self, name: str) -> Model:
        """Return a model by name; a file that changed is loaded again."""
        source = self.resolve_source(name)
        with self.lock:  # requests run in threads; one of them loads, the others wait
            path = Path(source)
            stamp = path.stat().st_mtime_ns if path.is_file() else 0
            cached = self.cache.get(name)
            if cached is None or cached[0] != stamp:
                cached = self.cache[name] = (stamp, load_model(source))
        return cached[1]

    def model_summaries(self) -> list[dict[str, Any]]:
        """Return name, training data and accuracy of each model; damaged models have an error."""
        summaries: list[dict[str, Any]] = []
        for name in self.names():
            try:
                card = self.get(name).card
            except ModelError as error:
                summaries.append({"name": name, "error": str(error)})
                continue
            summaries.append({
                "name": name,
                "domain": card.domain,
                "reference": card.reference.name,
                "source": card.source.name,
                "hours": round(card.reference.hours + card.source.hours, 2),
                "accuracy": card.scorer.accuracy,
                "interval": list(card.scorer.accuracy_interval),
                "verdict": card.audit.verdict if card.audit else None,
                "licence": card.licence,
            })  # fmt: skip
        return summaries

    def new_model_path(self, title: str) -> Path:
        """Return the file for a new model; raise CallError if the title is unusable or in use."""
        name = _to_model_name(title)
        if not name:
            raise CallError(f"{title!r} contains no letter or digit: give the model another name")
        if name in self.names():
            raise CallError(f"a model named {name} exists already: choose another name")
        return self._path(name)

    def import_model(self, content: bytes, name: str, digest: str) -> str:
        """Store a model unless it is available already; return its name here.

        ModelError if the content is not a model, or its digest is not `digest`.
        """
        known = self.find_by_digest(digest)
        if known is not None:
            return known
        # The name comes from the file, so it may be taken by another model, or contain anything.
        base, used = _to_model_name(name) or "model", set(self._available_names())
        candidates = (base if number == 1 else f"{base}-{number}" for number in count(1))
        unused = next(candidate for candidate in candidates if candidate not in used)
        # The file is checked under its temporary name, so a wrong model is never listed.
        with atomic_path(self._path(unused)) as temporary:
            temporary.write_bytes(content)
            try:
                actual = load_model(temporary).digest
            except ModelError as error:
                message = str(error).replace(printable(temporary), "the session file's model")
                raise ModelError(message) from None
            if actual != digest:
                raise ModelError("the session file contains another model than the one it names")
        return unused

    def _path(self, name: str) -> Path:
        return self.database.models_folder / f"{name}{MODEL_SUFFIX}"


def _to_model_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40]


class FolderRegistry:
    """Folders below a root, which pages identify by ids instead of paths.

    An id is a keyed hash of a path, so a page can only name folders that it was sent.
    """

    def __init__(self, root: Path) -> None:
        self.root = real_path(root)
        self.key = secrets.token_bytes(16)
        self.paths_by_id: dict[str, Path] = {}

    def register(self, path: Path) -> str:
        """Return the id of a folder, valid until the server stops."""
        name = hmac.new(self.key, bytes(path), hashlib.sha256).hexdigest()[:24]
        self.paths_by_id[name] = path
        return name

    def resolve(self, name: str) -> Path:
        """Return the folder of an id; raise NotFoundError for an unknown id or a deleted folder."""
        path = self.paths_by_id.get(name)
        # A folder may have become a link that leads out of the root since the page was shown it.
        if path is None or not path.is_dir() or not self.contains(path):
            raise NotFoundError("this folder does not exist any more: choose again")
        return path

    def contains(self, path: Path) -> bool:
        """Return True if a path, with its links followed, is below the root."""
        return is_inside(path, self.root)

    def folder_view(self, name: str | None) -> dict[str, Any]:
        """Return a folder's name, ancestors, subfolders and number of recordings; the root for None.

        FolderError if the folder cannot be read.
        """
        folder = self.resolve(name) if name else self.root
        ancestors = [p for p in (*reversed(folder.parents), folder) if p.is_relative_to(self.root)]
        subfolders, recordings, suffixes = [], 0, readable_suffixes()
        try:
            for entry in sorted(folder.iterdir(), key=lambda path: path.name.lower()):
                if entry.name.startswith("."):
                    continue
                # A link that leads out of the root is not listed.
                if not self.contains(entry):
                    continue
                if entry.is_dir():
                    subfolders.append(entry)
                elif entry.suffix.lower() in suffixes:
                    recordings += 1
        except OSError as error:
            reason = failure_reason(error)
            raise FolderError(f"this folder cannot be read ({reason}): choose another") from None
        return {
            "id": self.register(folder),
            "name": folder.name or str(folder),
            "trail": [{"id": self.register(p), "name": p.name or str(p)} for p in ancestors],
            "folders": [
                {"id": self.register(p), "name": p.name, "sounds": _count_recordings(p, self.root)}
                for p in subfolders[:_MAX_FOLDERS_LISTED]
            ],
            "sounds": recordings,
            "more": max(0, len(subfolders) - _MAX_FOLDERS_LISTED),
        }


def _count_recordings(folder: Path, root: Path) -> int:
    """Count the recordings directly in a folder; 0 if it cannot be read."""
    try:
        suffixes = readable_suffixes()
        return sum(entry.suffix.lower() in suffixes and is_inside(entry, root) for entry in folder.iterdir())
    except OSError:
        return 0
