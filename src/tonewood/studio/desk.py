"""What all routes share: sessions, models, jobs and folders, and what happens between them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tonewood.errors import TonewoodError
from tonewood.files.modelfile import Model
from tonewood.settings import EnhanceSettings, changed
from tonewood.studio import sound, tiles
from tonewood.studio.entries import Job, MissingError, Session, State
from tonewood.studio.jobs import Jobs
from tonewood.studio.models import Models
from tonewood.studio.places import Places
from tonewood.studio.store import Store
from tonewood.studio.words import statements, verdict
from tonewood.workflow.edit import Edit


class Desk:
    """The studio behind its routes.

    Parameters
    ----------
    folder : Path
        Where sessions live.
    model : str
        First choice: a file, or the name of a bundled model.
    root : Path or None
        Folder below which folders may be chosen; None where nobody may.
    training : sequence of str
        Settings of every training, such as `training.steps=100`.
    """

    def __init__(
        self, folder: Path, model: str, root: Path | None, training: Sequence[str] = ()
    ) -> None:
        self.training = list(training)
        self.store = Store(folder)
        try:
            self.models = Models(self.store, model)
        except TonewoodError:
            self.store.close()
            raise
        self.jobs = Jobs(self.store, self._finished)
        self.places = Places(root) if root is not None else None

    def close(self) -> None:
        """End all work and let go of the database."""
        self.jobs.stop()
        self.store.close()

    # --- what a page is told

    def shown(self, name: str) -> dict[str, Any]:
        """A session with all that its page needs."""
        session = self.store.session(name)
        state = self.store.state(name)
        it = session.sound
        low, high = tiles.axes(it.rate)
        return {
            **self.listed(session),
            "sound": {
                "rate": it.rate, "channels": it.channels, "samples": it.samples,
                "clipped": it.clipped, "format": " ".join(it.encoding[:2]),
                "suffix": Path(it.upload).suffix,
            },
            "axes": {
                "low_hz": low, "high_hz": high, "rows": tiles.ROWS, "columns": tiles.COLUMNS,
                "finest_s": tiles.FINEST_S, "levels": tiles.LEVELS,
            },
            "state": self.state_shown(session, state),
            "saliency": self.saliency(session),
            "jobs": [job.shown() for job in self.jobs.of(name)],
        }  # fmt: skip

    def listed(self, session: Session) -> dict[str, Any]:
        """A session in a list."""
        return {
            "id": session.id,
            "title": session.title,
            "changed": session.changed,
            "seconds": session.sound.seconds,
            "model": self.chosen(session),
        }

    def state_shown(self, session: Session, state: State) -> dict[str, Any]:
        """An edit, how loud it is, and what its certificate says."""
        recipe = sound.found(session, state)
        whole = sound.whole_of(session, state)
        certificate = whole.certificate if whole else None
        told = certificate or (recipe.certificate if recipe else None)
        return {
            "number": state.number,
            "found": state.found,
            "edit": state.edit.model_dump(mode="json"),
            "undo": state.undo,
            "redo": state.redo,
            "key": sound.key_of(state, state.edit),
            "whole": whole is not None,
            "levels": sound.levels(session, state, self.model_of(session, state)).model_dump(),
            "certificate": told and {
                "current": certificate is not None,
                "verdict": told.verdict,
                "heading": verdict(told)._asdict(),
                "statements": [it._asdict() for it in statements(told)],
                "scorer": told.scorer.model_dump(),
                "judge": told.judge and told.judge.model_dump(),
                "reasons": list(told.reasons),
            },
            "model": recipe.model.name if recipe else None,
            "lost": recipe is not None and self.models.by_digest(recipe.model.digest) is None,
        }  # fmt: skip

    def saliency(self, session: Session) -> dict[str, Any] | None:
        """What is told of a session's saliency by its model; None before it was asked for."""
        path = session.folder / "saliency.json"
        if not path.exists():
            return None
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        digest = self.models.get(self.chosen(session)).digest[:16]
        return told if told["digest"] == digest else None

    # --- what a session is heard with

    def model_of(self, session: Session, state: State) -> Model:
        """The model that an edit's mask was found with; before the first, the one chosen."""
        return self.models.get(self._name_of(session, state))

    def at(self, name: str, number: int | None, amount: float | None) -> tuple[Session, State]:
        """A session and an edit of it, at another amount if one is given."""
        session, state = self.store.session(name), self.store.state(name, number)
        if amount is not None and amount != state.edit.amount:
            state = replace(state, edit=Edit(**{**dict(state.edit), "amount": amount}))
        return session, state

    # --- jobs

    def ask(self, name: str, kind: str, settings: EnhanceSettings | None = None) -> Job:
        """Queue a job on a session as it is now."""
        session, state = self.store.session(name), self.store.state(name)
        searched = kind in ("enhance", "explain") or state.found is None
        model = self.chosen(session) if searched else self._name_of(session, state)
        asked: dict[str, Any] = {
            "folder": str(session.folder),
            "sound": session.sound.model_dump(mode="json"),
            "model": self.models.source(model),
            "digest": self.models.get(model).digest[:16],
            "found": state.found,
            "edit": state.edit.model_dump(mode="json"),
        }
        if settings is not None:
            asked["settings"] = settings.model_dump(mode="json")
            asked["number"] = self._next_found(session)
        return self.jobs.add(kind, asked, name)

    def whole(self, name: str) -> Job | None:
        """Queue the whole rendering of a session's edit; None if it lies there already."""
        session, state = self.store.session(name), self.store.state(name)
        if sound.whole_of(session, state) is not None:
            return None
        body = state.edit.model_dump(mode="json")
        for job in self.jobs.of(name):
            if job.kind == "whole" and (job.asked["edit"], job.asked["found"]) == (
                body, state.found
            ):  # fmt: skip
                return job
        return self.ask(name, "whole")

    def settings(self, steps: int | None, force: bool) -> EnhanceSettings:
        """Settings of a search."""
        wanted = [f"force={json.dumps(force)}"]
        if steps is not None:
            wanted.append(f"search.steps={steps}")
        return changed(EnhanceSettings(), wanted)

    def _name_of(self, session: Session, state: State) -> str:
        recipe = sound.found(session, state)
        found = self.models.by_digest(recipe.model.digest) if recipe else None
        return found or self.chosen(session)

    def chosen(self, session: Session) -> str:
        """The model chosen for a session, or the first choice where that is gone."""
        return session.model if session.model in self.models.names() else self.models.first

    def _next_found(self, session: Session) -> int:
        taken = [int(path.name.split("-")[1].split(".")[0])
                 for path in session.folder.glob("found-*")]  # fmt: skip
        return max(taken, default=-1) + 1

    def _finished(self, job: Job) -> None:
        """Enter what a search found into its session's history."""
        if job.session is None or job.kind not in ("enhance", "again"):
            return
        try:
            now = self.store.state(job.session)
        except MissingError:
            return
        edit = now.edit
        if job.kind == "again":  # notes that were laid meanwhile stay
            asked = Edit.model_validate(job.asked["edit"])
            gone = {note.id for note in asked.notes if not note.pinned}
            notes = tuple(note for note in edit.notes if note.id not in gone or note.pinned)
            edit = edit.model_copy(update={"notes": notes})
        self.store.change(job.session, edit, job.told["found"])
