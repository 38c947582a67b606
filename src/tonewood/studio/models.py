"""Models that the studio offers: the bundled ones, and its own."""

import re
import threading
from itertools import count
from pathlib import Path
from typing import Any

from tonewood.errors import CallError, ModelError, printable
from tonewood.files.container import MODEL_SUFFIX, bundled_models
from tonewood.files.modelfile import Model, load_model
from tonewood.files.output import atomic_path
from tonewood.studio.store import SessionDatabase


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
        return [*sorted(path.stem for path in self.database.models_folder.glob(f"*{MODEL_SUFFIX}")), *bundled_models()]

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
