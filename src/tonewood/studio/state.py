"""State that all routes of the studio share, and the JSON views that its pages receive."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tonewood.enhancement.editing import Edit
from tonewood.enhancement.mask_search import settings_for_model
from tonewood.errors import TonewoodError
from tonewood.mask.certificate import Certificate
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings
from tonewood.studio import session_audio, session_masks, tiles
from tonewood.studio.certificate_view import certificate_view, treatment
from tonewood.studio.database import (
    EditState,
    MaskGoneError,
    NotFoundError,
    SessionDatabase,
    StudioJob,
    StudioSession,
)
from tonewood.studio.job_queue import JobQueue
from tonewood.studio.registries import FolderRegistry, ModelRegistry

KeptNotes = Literal["all", "pinned", "none"]


class StudioState:
    """Sessions, models, jobs and folders of one studio server.

    Parameters
    ----------
    folder : Path
        Folder of sessions and models.
    model : str
        Default model: a file, or the name of a bundled model.
    root : Path or None
        Pages may choose folders below it; None forbids the choice of folders.
    training : sequence of str
        Settings of every training, such as `training.steps=100`.
    """

    def __init__(self, folder: Path, model: str, root: Path | None, training: Sequence[str] = ()) -> None:
        self.training_options = list(training)
        self.database = SessionDatabase(folder)
        # The default model may be missing or damaged; then nothing may keep the folder locked.
        try:
            self.models = ModelRegistry(self.database, model)
        except TonewoodError:
            self.database.close()
            raise
        self.jobs = JobQueue(self.database, self._record_search_result)
        self.folders = FolderRegistry(root) if root is not None else None

    def close(self) -> None:
        """Stop all jobs and close the database."""
        self.jobs.stop()
        self.database.close()

    # --- views

    def session_view(self, name: str) -> dict[str, Any]:
        """Return everything that the page of a session needs."""
        session = self.database.get_session(name)
        state = self.database.get_state(name)
        recording = session.recording
        low, high = tiles.axis_limits(recording.rate)
        return {
            **self.session_summary(session),
            "sound": {
                "rate": recording.rate, "channels": recording.channels, "samples": recording.samples,
                "clipped": recording.clipped, "format": " ".join(recording.encoding[:2]),
                "suffix": Path(recording.upload).suffix,
            },
            "axes": {
                "low_hz": low,
                "high_hz": high,
                "rows": tiles.TILE_ROWS,
                "columns": tiles.TILE_COLUMNS,
                "finest_s": tiles.FINEST_COLUMN_S, "levels": tiles.ZOOM_LEVELS,
            },
            "state": self.state_view(session, state),
            "saliency": self.saliency_view(session),
            "jobs": [job.to_json() for job in self.jobs.active_for(name)],
        }  # fmt: skip

    def session_summary(self, session: StudioSession) -> dict[str, Any]:
        """Return an entry of the list of sessions."""
        return {
            "id": session.id,
            "title": session.title,
            "changed": session.changed,
            "seconds": session.recording.seconds,
            "model": self.current_model(session),
        }

    def state_view(self, session: StudioSession, state: EditState) -> dict[str, Any]:
        """Return an edit, its playback levels and its certificate."""
        recipe = session_masks.load_found_recipe(session, state)
        render = session_audio.get_full_render(session, state)
        levels = session_audio.get_playback_levels(session, state, self.model_for_edit(session, state))
        # Until an edit is rendered, the page shows the certificate of the search.
        current = render is not None and render.certificate is not None
        certificate = (render and render.certificate) or (recipe and recipe.certificate)
        return {
            "number": state.number,
            "found": state.mask_number,
            "link": session_masks.found_link(session, state),
            "components": session_masks.component_names(session, state),
            "edit": state.edit.model_dump(mode="json"),
            "undo": state.can_undo,
            "redo": state.can_redo,
            "key": session_audio.edit_key(state),
            "whole": render is not None,
            "levels": levels.model_dump(),
            "certificate": certificate and certificate_view(certificate, current=current),
            "model": recipe.model.name if recipe else None,
            "lost": recipe is not None and self.models.find_by_digest(recipe.model.digest) is None,
        }

    def saliency_view(self, session: StudioSession) -> dict[str, Any] | None:
        """Return the saliency summary of a session; None unless its current model computed it."""
        path = session.folder / session_audio.SALIENCY_FILE
        if not path.exists():
            return None
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # The saliency of another model would be shown in this one's name.
        digest = self.models.get(self.current_model(session)).digest[:16]
        return summary if summary["digest"] == digest else None

    # --- models and edits

    def model_for_edit(self, session: StudioSession, state: EditState) -> Model:
        """Return the model that found the mask of an edit; before the first search, the current model."""
        return self.models.get(self._model_name_for_edit(session, state))

    def session_and_state(
        self, name: str, number: int | None = None, amount: float | None = None, found: int | None = None
    ) -> tuple[StudioSession, EditState]:
        """Return a session and one of its edits, with another amount or another mask if one is given."""
        session, state = self.database.get_session(name), self.database.get_state(name, number)
        if amount is not None and amount != state.edit.amount:
            state = replace(state, edit=state.edit.model_copy(update={"amount": amount}))
        if found is not None and found != state.mask_number:
            if not session_masks.has_mask(session, found):
                raise MaskGoneError(f"this recording has no mask {found}: search again")
            state = replace(state, mask_number=found, base_number=state.mask_number)
        return session, state

    def current_model(self, session: StudioSession) -> str:
        """Return the model chosen for a session, or the default if it does not exist any more."""
        return session.model if session.model in self.models.names() else self.models.default

    def _model_name_for_edit(self, session: StudioSession, state: EditState) -> str:
        recipe = session_masks.load_found_recipe(session, state)
        name = self.models.find_by_digest(recipe.model.digest) if recipe else None
        return name or self.current_model(session)

    # --- jobs

    def submit_job(
        self, name: str, kind: str, settings: EnhanceSettings | None = None, keep: KeptNotes = "pinned"
    ) -> StudioJob:
        """Queue a job on the current edit of a session.

        `keep` names the notes that a job of kind `again` keeps.
        """
        session, state = self.database.get_session(name), self.database.get_state(name)
        # A new mask comes from the chosen model; an edit of a mask stays with the model that found it.
        if kind in ("enhance", "explain"):
            model = self.current_model(session)
        else:
            model = self._model_name_for_edit(session, state)
        request: dict[str, Any] = {
            "folder": str(session.folder),
            "sound": session.recording.model_dump(mode="json"),
            "model": self.models.resolve_source(model),
            "digest": self.models.get(model).digest[:16],
            "found": state.mask_number,
            "edit": state.edit.model_dump(mode="json"),
        }
        if kind == "again":
            request["edit"] = _pin_kept_notes(state.edit, keep).model_dump(mode="json")
        if settings is not None:
            used = settings_for_model(settings, self.models.get(model))
            request["settings"] = used.model_dump(mode="json")
            request["number"] = _next_mask_number(session)
            requested = Edit.model_validate(request["edit"])
            request["pinned"] = [note.id for note in state.edit.pinned_notes]
            request["dropped"] = (
                [note.id for note in requested.notes if not note.pinned] if kind == "again" else []
            )
        return self.jobs.submit(kind, request, name)

    def submit_full_render(self, name: str) -> StudioJob | None:
        """Queue the full rendering of a session's edit; return None if it exists already."""
        session, state = self.database.get_session(name), self.database.get_state(name)
        if session_audio.get_full_render(session, state) is not None:
            return None
        edit = state.edit.model_dump(mode="json")
        # A new job would replace one that renders the same edit already, and start over.
        for job in self.jobs.active_for(name):
            if job.kind == "whole" and (job.request["edit"], job.request["found"]) == (
                edit, state.mask_number
            ):  # fmt: skip
                return job
        return self.submit_job(name, "whole")

    def _record_search_result(self, job: StudioJob) -> None:
        """Append the mask that a search found to the history of its session."""
        if job.session is None or job.kind not in ("enhance", "again"):
            return
        try:
            state = self.database.get_state(job.session)
        except NotFoundError:  # the session was deleted during the search
            return
        edit = state.edit
        # The search kept some notes. Notes that were added or pinned while it ran stay.
        dropped, pinned = set(job.request["dropped"]), set(job.request["pinned"])
        notes = tuple(
            note for note in edit.notes if note.id not in dropped or (note.pinned and note.id not in pinned)
        )
        edit = edit.model_copy(update={"notes": notes})
        # A recording that was left unchanged starts at 0 %, any other where the search put it.
        certificate = Certificate.model_validate(job.progress["certificate"])
        if treatment(certificate) == "unchanged" and not job.request["settings"]["force"]:
            edit = edit.model_copy(update={"amount": 0.0})
        elif edit.amount == 0 or (state.mask_number is None and edit.amount == 1):
            edit = edit.model_copy(update={"amount": job.progress.get("amount", 1.0)})
        self.database.append_edit(job.session, edit, job.progress["found"])


def _pin_kept_notes(edit: Edit, keep: KeptNotes) -> Edit:
    """Return an edit in which exactly the notes are pinned that a search keeps."""
    if keep == "pinned":
        return edit
    notes = tuple(note.model_copy(update={"pinned": keep == "all"}) for note in edit.notes)
    return edit.model_copy(update={"notes": notes})


def _next_mask_number(session: StudioSession) -> int:
    # Undo returns to older masks, so their numbers are not used again.
    used = [int(path.name.split("-")[1].split(".")[0]) for path in session.folder.glob("found-*")]
    return max(used, default=-1) + 1
