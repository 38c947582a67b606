"""What all routes share: sessions, models, jobs and folders, and what happens between them.

The certificate in plain words: what was found, what it means, what to do.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tonewood.enhancement.editing import Edit
from tonewood.errors import TonewoodError
from tonewood.mask.certificate import Certificate
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings
from tonewood.studio import session_audio, tiles
from tonewood.studio.database import (
    EditState,
    NotFoundError,
    SessionDatabase,
    StudioJob,
    StudioSession,
)
from tonewood.studio.job_queue import JobQueue
from tonewood.studio.registries import FolderRegistry, ModelRegistry


class CertificateLine(NamedTuple):
    """One thing that a certificate says; `kind` is good, caution or plain."""

    kind: str
    title: str
    text: str


def verdict_line(certificate: Certificate) -> CertificateLine:
    """The verdict as a heading and a sentence."""
    if certificate.verdict == "good":
        return CertificateLine(
            "good",
            "A change to be believed",
            "Scorer and judge agree, and the change is as smooth as an equaliser's. Your ears have "
            "the last word.",
        )
    if certificate.verdict == "limited":
        return CertificateLine(
            "caution",
            "A change with reservations",
            "Something speaks against taking this at its word; it is named below. Listen closely, "
            "or turn the amount down.",
        )
    return CertificateLine(
        "refused",
        "Not a recording that this model knows",
        "The recording is unlike those that the model was taught to improve, so it was given a "
        "steady equaliser at most. Choose a model of this instrument, or press “Enhance "
        "anyway” and trust your ears alone.",
    )


def certificate_lines(certificate: Certificate) -> list[CertificateLine]:
    """Everything a certificate holds, as sentences."""
    scorer, judge = certificate.scorer, certificate.judge
    told = [
        CertificateLine(
            "good" if scorer.after < 0.5 else "caution",
            "Scorer",
            f"{_describe_score(scorer.before).capitalize()} before, {_describe_score(scorer.after)} after "
            f"({scorer.before:.2f} → {scorer.after:.2f}; 0 is the reference).",
        )
    ]
    if judge is None:
        told.append(CertificateLine("caution", "Judge", "This model has none, so nobody checked."))
    else:
        told.append(CertificateLine(
            "good" if judge.after < 0.5 else "caution",
            "Judge",
            f"A second network, which the search never saw, "
            f"{'agrees' if judge.after < 0.5 else 'does not agree'} "
            f"({judge.before:.2f} → {judge.after:.2f}).",
        ))  # fmt: skip
    # Where the judge did not follow at all, there is nothing that could survive.
    if judge is not None and judge.after < 0.5 and certificate.judge_smoothed is not None:
        survives = certificate.judge_smoothed < 0.5
        told.append(CertificateLine(
            "good" if survives else "caution",
            "Smoothness",
            "The effect survives when the mask is made smoother still: it is an equaliser, not a "
            "trick." if survives else
            "The effect is gone when the mask is made smoother: it may please the scorer more "
            "than your ears.",
        ))  # fmt: skip
    if certificate.static_share is not None:
        share = round(100 * min(max(certificate.static_share, 0), 1))
        told.append(CertificateLine(
            "plain",
            "Fixed or moving",
            f"A fixed equaliser alone would have had {share} % of the effect; the rest follows "
            "the music.",
        ))  # fmt: skip
    far = certificate.unlike_reference.after > 1
    told.append(CertificateLine(
        "caution" if far else "good",
        "Near the reference",
        f"The output lies {'beyond' if far else 'within'} what recordings of the reference folder "
        f"differ by ({certificate.unlike_reference.after:.2f} of the limit).",
    ))  # fmt: skip
    strange = certificate.unlikeness > 1
    told.append(CertificateLine(
        "caution" if strange else "good",
        "A recording it knows",
        f"The recording is {'unlike' if strange else 'like'} the source folder "
        f"({certificate.unlikeness:.2f} of the limit).",
    ))  # fmt: skip
    told.append(CertificateLine(
        "plain",
        "Size of the change",
        f"{certificate.rms_db:.1f} dB on average, {certificate.largest_db:.1f} dB at most, moving "
        f"by {certificate.roughness_db:.2f} dB every hundredth of a second.",
    ))  # fmt: skip
    return told


def _describe_score(score: float) -> str:
    if score < 0.2:
        return "like the reference"
    if score < 0.5:
        return "nearer the reference"
    if score < 0.8:
        return "nearer the source"
    return "like the source"


class StudioState:
    """The studio behind its routes.

    Parameters
    ----------
    folder : Path
        Where sessions live.
    model : str
        First choice: a file, or the name of a bundled model.
    root : Path or None
        Folder below which folders may be chosen; None where nobody may.
    training_options : sequence of str
        Settings of every training, such as `training.steps=100`.
    """

    def __init__(self, folder: Path, model: str, root: Path | None, training: Sequence[str] = ()) -> None:
        self.training_options = list(training)
        self.database = SessionDatabase(folder)
        try:
            self.models = ModelRegistry(self.database, model)
        except TonewoodError:
            self.database.close()
            raise
        self.jobs = JobQueue(self.database, self._record_search_result)
        self.folders = FolderRegistry(root) if root is not None else None

    def close(self) -> None:
        """End all work and let go of the database."""
        self.jobs.stop()
        self.database.close()

    # --- what a page is told

    def session_view(self, name: str) -> dict[str, Any]:
        """A session with all that its page needs."""
        session = self.database.get_session(name)
        state = self.database.get_state(name)
        it = session.recording
        low, high = tiles.axis_limits(it.rate)
        return {
            **self.session_summary(session),
            "sound": {
                "rate": it.rate, "channels": it.channels, "samples": it.samples,
                "clipped": it.clipped, "format": " ".join(it.encoding[:2]),
                "suffix": Path(it.upload).suffix,
            },
            "axes": {
                "low_hz": low, "high_hz": high, "rows": tiles.TILE_ROWS, "columns": tiles.TILE_COLUMNS,
                "finest_s": tiles.FINEST_COLUMN_S, "levels": tiles.ZOOM_LEVELS,
            },
            "state": self.state_view(session, state),
            "saliency": self.saliency_view(session),
            "jobs": [job.to_json() for job in self.jobs.active_for(name)],
        }  # fmt: skip

    def session_summary(self, session: StudioSession) -> dict[str, Any]:
        """A session in a list."""
        return {
            "id": session.id,
            "title": session.title,
            "changed": session.changed,
            "seconds": session.recording.seconds,
            "model": self.current_model(session),
        }

    def state_view(self, session: StudioSession, state: EditState) -> dict[str, Any]:
        """An edit, how loud it is, and what its certificate says."""
        recipe = session_audio.load_found_recipe(session, state)
        whole = session_audio.get_full_render(session, state)
        certificate = whole.certificate if whole else None
        told = certificate or (recipe.certificate if recipe else None)
        return {
            "number": state.number,
            "found": state.mask_number,
            "edit": state.edit.model_dump(mode="json"),
            "undo": state.can_undo,
            "redo": state.can_redo,
            "key": session_audio.edit_key(state, state.edit),
            "whole": whole is not None,
            "levels": session_audio.get_playback_levels(session, state, self.model_for_edit(session, state)).model_dump(),
            "certificate": told and {
                "current": certificate is not None,
                "verdict": told.verdict,
                "heading": verdict_line(told)._asdict(),
                "statements": [it._asdict() for it in certificate_lines(told)],
                "scorer": told.scorer.model_dump(),
                "judge": told.judge and told.judge.model_dump(),
                "reasons": list(told.reasons),
            },
            "model": recipe.model.name if recipe else None,
            "lost": recipe is not None and self.models.find_by_digest(recipe.model.digest) is None,
        }  # fmt: skip

    def saliency_view(self, session: StudioSession) -> dict[str, Any] | None:
        """What is told of a session's saliency by its model; None before it was asked for."""
        path = session.folder / "saliency.json"
        if not path.exists():
            return None
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        digest = self.models.get(self.current_model(session)).digest[:16]
        return told if told["digest"] == digest else None

    # --- what a session is heard with

    def model_for_edit(self, session: StudioSession, state: EditState) -> Model:
        """The model that an edit's mask was found with; before the first, the one chosen."""
        return self.models.get(self._model_name_for_edit(session, state))

    def session_and_state(
        self, name: str, number: int | None, amount: float | None
    ) -> tuple[StudioSession, EditState]:
        """A session and an edit of it, at another amount if one is given."""
        session, state = self.database.get_session(name), self.database.get_state(name, number)
        if amount is not None and amount != state.edit.amount:
            state = replace(state, edit=Edit(**{**dict(state.edit), "amount": amount}))
        return session, state

    # --- jobs

    def submit_job(self, name: str, kind: str, settings: EnhanceSettings | None = None) -> StudioJob:
        """Queue a job on a session as it is now."""
        session, state = self.database.get_session(name), self.database.get_state(name)
        searched = kind in ("enhance", "explain") or state.mask_number is None
        model = self.current_model(session) if searched else self._model_name_for_edit(session, state)
        asked: dict[str, Any] = {
            "folder": str(session.folder),
            "sound": session.recording.model_dump(mode="json"),
            "model": self.models.resolve_source(model),
            "digest": self.models.get(model).digest[:16],
            "found": state.mask_number,
            "edit": state.edit.model_dump(mode="json"),
        }
        if settings is not None:
            asked["settings"] = settings.model_dump(mode="json")
            asked["number"] = self._next_mask_number(session)
        return self.jobs.submit(kind, asked, name)

    def submit_full_render(self, name: str) -> StudioJob | None:
        """Queue the whole rendering of a session's edit; None if it lies there already."""
        session, state = self.database.get_session(name), self.database.get_state(name)
        if session_audio.get_full_render(session, state) is not None:
            return None
        body = state.edit.model_dump(mode="json")
        for job in self.jobs.active_for(name):
            if job.kind == "whole" and (job.request["edit"], job.request["found"]) == (
                body, state.mask_number
            ):  # fmt: skip
                return job
        return self.submit_job(name, "whole")

    def search_settings(self, steps: int | None, force: bool) -> EnhanceSettings:
        """Settings of a search."""
        settings = EnhanceSettings().replace(force=force)
        return settings if steps is None else settings.replace(search=dict(steps=steps))

    def _model_name_for_edit(self, session: StudioSession, state: EditState) -> str:
        recipe = session_audio.load_found_recipe(session, state)
        found = self.models.find_by_digest(recipe.model.digest) if recipe else None
        return found or self.current_model(session)

    def current_model(self, session: StudioSession) -> str:
        """The model chosen for a session, or the first choice where that is gone."""
        return session.model if session.model in self.models.names() else self.models.default

    def _next_mask_number(self, session: StudioSession) -> int:
        taken = [int(path.name.split("-")[1].split(".")[0])
                 for path in session.folder.glob("found-*")]  # fmt: skip
        return max(taken, default=-1) + 1

    def _record_search_result(self, job: StudioJob) -> None:
        """Enter what a search found into its session's history."""
        if job.session is None or job.kind not in ("enhance", "again"):
            return
        try:
            now = self.database.get_state(job.session)
        except NotFoundError:
            return
        edit = now.edit
        if job.kind == "again":  # notes that were laid meanwhile stay
            asked = Edit.model_validate(job.request["edit"])
            gone = {note.id for note in asked.notes if not note.pinned}
            notes = tuple(note for note in edit.notes if note.id not in gone or note.pinned)
            edit = edit.model_copy(update={"notes": notes})
        self.database.append_edit(job.session, edit, job.progress["found"])
