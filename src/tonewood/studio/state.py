"""State that all routes of the studio share, and the JSON views that its pages receive."""

import json
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from tonewood.enhancement.editing import Edit
from tonewood.errors import TonewoodError
from tonewood.mask.certificate import Certificate, is_improvement
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings
from tonewood.studio import session_audio, tiles
from tonewood.studio.database import EditState, NotFoundError, SessionDatabase, StudioJob, StudioSession
from tonewood.studio.job_queue import JobQueue
from tonewood.studio.registries import FolderRegistry, ModelRegistry


class CertificateLine(NamedTuple):
    """One statement of a certificate; `kind` is good, caution, plain or refused."""

    kind: str
    title: str
    text: str


def verdict_line(certificate: Certificate) -> CertificateLine:
    """Return the verdict as a heading and an explanation."""
    if certificate.verdict == "good":
        return CertificateLine(
            "good",
            "A reliable change",
            "Scorer and judge agree, and the change is as smooth as an equaliser's. Listen before you "
            "decide.",
        )
    if certificate.verdict == "limited":
        return CertificateLine(
            "caution",
            "A change with reservations",
            "At least one test below speaks against this result. Listen closely, or reduce the amount.",
        )
    if certificate.verdict == "unneeded":
        return CertificateLine(
            "plain",
            "Already there",
            "The recording sounds like the reference already, so it stays as it is.",
        )
    return CertificateLine(
        "refused",
        "Not a recording that this model knows",
        "The recording differs from those that the model was trained on, so it received a constant "
        "equaliser at most. Choose a model of this instrument, or press “Enhance anyway” and "
        "judge the result by ear.",
    )


def certificate_lines(certificate: Certificate) -> list[CertificateLine]:
    """Return every measurement of a certificate as a sentence."""
    lines: list[CertificateLine] = []

    def add(title: str, text: str, good: bool | None = None) -> None:
        kind = "plain" if good is None else "good" if good else "caution"
        lines.append(CertificateLine(kind, title, text))

    # Scores: below 0.5 a recording is closer to the reference than to the source.
    scorer, judge = certificate.scorer, certificate.judge
    before, after = _describe_score(scorer.before).capitalize(), _describe_score(scorer.after)
    scores = f"{scorer.before:.2f} → {scorer.after:.2f}; 0 is the reference"
    add("Scorer", f"{before} before, {after} after ({scores}).", is_improvement(scorer.before, scorer.after))
    agrees = judge is not None and is_improvement(judge.before, judge.after)
    if judge is None:
        add("Judge", "This model has no judge, so the result was not checked independently.", False)
    else:
        verb, scores = "agrees" if agrees else "does not agree", f"{judge.before:.2f} → {judge.after:.2f}"
        add("Judge", f"A second network, which the search did not use, {verb} ({scores}).", agrees)
    # A judge that does not agree leaves no effect that smoothing could remove.
    if judge is not None and agrees and certificate.judge_smoothed is not None:
        survives = is_improvement(judge.before, certificate.judge_smoothed)
        if survives:
            text = "The effect remains when the mask is smoothed further: it acts as an equaliser."
        else:
            text = "The effect disappears when the mask is smoothed: it may improve the score, not the sound."
        add("Smoothness", text, survives)
    if certificate.static_share is not None:
        share = round(100 * min(max(certificate.static_share, 0), 1))
        text = f"A constant equaliser alone reaches {share} % of the effect; the rest follows the music."
        add("Constant or moving", text)

    # Distances: 1 is the largest that recordings of the folder itself have.
    output, reference = certificate.unlike_reference.after, certificate.unlike_reference.before
    # A recording that sounds like the reference already may be unlike the source folder.
    folder, recording = min(("source", certificate.unlikeness), ("reference", reference), key=itemgetter(1))
    if certificate.verdict == "refused" and recording <= 1:
        # A model of an earlier version, which refuses all that is unlike the source folder.
        folder, recording = "source", certificate.unlikeness
    place = f"{'outside' if output > 1 else 'within'} the range of the reference folder's recordings"
    add("Distance to the reference", f"The output lies {place} ({output:.2f} of the limit).", not output > 1)
    likeness = f"{'unlike' if recording > 1 else 'like'} the {folder} folder ({recording:.2f} of the limit)"
    add("Known kind of recording", f"The recording is {likeness}.", not recording > 1)

    size = f"{certificate.rms_db:.1f} dB on average and {certificate.largest_db:.1f} dB at most"
    add("Size of the change", f"{size}; it changes by {certificate.roughness_db:.2f} dB every 10 ms.")
    return lines


def _describe_score(score: float) -> str:
    if score < 0.2:
        return "like the reference"
    if score < 0.5:
        return "closer to the reference"
    return "closer to the source" if score < 0.8 else "like the source"


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
        recipe = session_audio.load_found_recipe(session, state)
        render = session_audio.get_full_render(session, state)
        levels = session_audio.get_playback_levels(session, state, self.model_for_edit(session, state))
        # Until an edit is rendered, the page shows the certificate of the search.
        current = render is not None and render.certificate is not None
        certificate = (render and render.certificate) or (recipe and recipe.certificate)
        return {
            "number": state.number,
            "found": state.mask_number,
            "edit": state.edit.model_dump(mode="json"),
            "undo": state.can_undo,
            "redo": state.can_redo,
            "key": session_audio.edit_key(state),
            "whole": render is not None,
            "levels": levels.model_dump(),
            "certificate": certificate and {
                "current": current,
                "verdict": certificate.verdict,
                "heading": verdict_line(certificate)._asdict(),
                "statements": [line._asdict() for line in certificate_lines(certificate)],
                "scorer": certificate.scorer.model_dump(),
                "judge": certificate.judge and certificate.judge.model_dump(),
                "reasons": list(certificate.reasons),
            },
            "model": recipe.model.name if recipe else None,
            "lost": recipe is not None and self.models.find_by_digest(recipe.model.digest) is None,
        }  # fmt: skip

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
        self, name: str, number: int | None = None, amount: float | None = None
    ) -> tuple[StudioSession, EditState]:
        """Return a session and one of its edits, with another amount if one is given."""
        session, state = self.database.get_session(name), self.database.get_state(name, number)
        if amount is not None and amount != state.edit.amount:
            state = replace(state, edit=state.edit.model_copy(update={"amount": amount}))
        return session, state

    def current_model(self, session: StudioSession) -> str:
        """Return the model chosen for a session, or the default if it does not exist any more."""
        return session.model if session.model in self.models.names() else self.models.default

    def _model_name_for_edit(self, session: StudioSession, state: EditState) -> str:
        recipe = session_audio.load_found_recipe(session, state)
        name = self.models.find_by_digest(recipe.model.digest) if recipe else None
        return name or self.current_model(session)

    # --- jobs

    def submit_job(self, name: str, kind: str, settings: EnhanceSettings | None = None) -> StudioJob:
        """Queue a job on the current edit of a session."""
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
        if settings is not None:
            request["settings"] = settings.model_dump(mode="json")
            request["number"] = _next_mask_number(session)
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
            edit = self.database.get_state(job.session).edit
        except NotFoundError:  # the session was deleted during the search
            return
        if job.kind == "again":
            # The search kept pinned notes only. Notes that were added or pinned while it ran stay.
            requested = Edit.model_validate(job.request["edit"])
            dropped = {note.id for note in requested.notes if not note.pinned}
            notes = tuple(note for note in edit.notes if note.id not in dropped or note.pinned)
            edit = edit.model_copy(update={"notes": notes})
        self.database.append_edit(job.session, edit, job.progress["found"])


def _next_mask_number(session: StudioSession) -> int:
    # Undo returns to older masks, so their numbers are not used again.
    used = [int(path.name.split("-")[1].split(".")[0]) for path in session.folder.glob("found-*")]
    return max(used, default=-1) + 1
