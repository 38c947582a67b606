"""Routes of sessions: open, look, change, search, forget; and the events that a page lives by.

What the studio's answers look like, as its OpenAPI document declares them.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from tonewood.enhancement.editing import Edit
from tonewood.errors import CallError, OutputError
from tonewood.settings import Settings
from tonewood.studio import session_archive, uploads
from tonewood.studio.session_audio import PlaybackLevels
from tonewood.studio.state import StudioState
from tonewood.web.errors import ResponseSpecs, declare_media


class JobResponse(Settings):
    """Work that takes a while."""

    id: str
    session: str | None
    kind: Literal["enhance", "again", "explain", "whole", "audit", "train", "batch"]
    state: Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
    told: dict[str, Any]
    created: float


class SessionSummary(Settings):
    """A session in a list."""

    id: str
    title: str
    changed: float
    seconds: float = Field(gt=0)
    model: str


class StateResponse(Settings):
    """Where a session's history stands."""

    number: int = Field(ge=0)
    found: int | None = Field(ge=0)
    edit: Edit
    undo: bool
    redo: bool
    key: str
    whole: bool
    levels: PlaybackLevels
    certificate: dict[str, Any] | None
    model: str | None
    lost: bool


class SessionResponse(SessionSummary):
    """A session with all that its page needs."""

    sound: dict[str, Any]
    axes: dict[str, Any]
    state: StateResponse
    saliency: dict[str, Any] | None
    jobs: list[JobResponse]


def responds_with(model: type[Any], status: int = 200) -> ResponseSpecs:
    """Declare an answer of that shape; it is not checked when it is sent."""
    return {status: {"model": model}}


routes = APIRouter()
_BINARY_BODY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def get_studio_state(request: Request) -> StudioState:
    """The desk that the application was made over."""
    desk: StudioState = request.app.state.desk
    return desk


StudioDependency = Annotated[StudioState, Depends(get_studio_state)]


class SearchRequest(Settings, strict=True):
    """How a search is asked for."""

    steps: int | None = Field(None, ge=0, le=200)
    force: bool = False


class ModelChoice(Settings, strict=True):
    """A model, by its name."""

    model: str


@routes.get("/models")
def list_models(desk: StudioDependency) -> list[dict[str, Any]]:
    """Models to choose from."""
    return desk.models.model_summaries()


@routes.get("/sessions", responses=responds_with(list[SessionSummary]))
def list_sessions(desk: StudioDependency) -> list[dict[str, Any]]:
    """All sessions, the last touched first."""
    return [desk.session_summary(session) for session in desk.database.list_sessions()]


@routes.post(
    "/recordings",
    status_code=201,
    responses=responds_with(SessionResponse, 201),
    openapi_extra={"requestBody": {"required": True, "content": _BINARY_BODY}},
)
async def upload_recording(
    request: Request,
    desk: StudioDependency,
    name: Annotated[str, Query(max_length=1_000)] = "recording",
) -> dict[str, Any]:
    """Take a recording or a session file, the body of the request, and open it."""
    declared = int(request.headers.get("content-length", "0"))
    free = shutil.disk_usage(desk.database.folder).free
    if 2 * declared > free:
        raise OutputError(
            f"{declared / 2**20:.0f} MiB do not fit the {free / 2**20:.0f} MiB that are free on "
            "the disk: free some space"
        )
    title = uploads.title_from_filename(name)
    identity, folder = desk.database.create_session_folder()
    try:
        upload = folder / f"upload{uploads.audio_suffix(name)}"
        if await uploads.save_upload(request.stream(), upload) == 0:
            raise CallError(f"{title} is empty: choose a recording")
        if session_archive.is_session_archive(upload):
            await asyncio.to_thread(session_archive.open_session_archive, desk, identity, folder, upload)
        else:
            model = desk.models.default
            await asyncio.to_thread(
                uploads.create_session, desk.database, identity, folder, upload, title, model
            )
        return desk.session_view(identity)
    except BaseException:
        desk.database.discard_session(identity)
        raise


@routes.get("/sessions/{name}", responses=responds_with(SessionResponse))
def get_session(name: str, desk: StudioDependency) -> dict[str, Any]:
    """A session with all that its page needs."""
    return desk.session_view(name)


@routes.delete("/sessions/{name}")
def delete_session(name: str, desk: StudioDependency) -> dict[str, bool]:
    """Forget a session and all that was made for it."""
    for job in desk.jobs.active_for(name):
        desk.jobs.cancel(job.id)
    desk.database.delete_session(name)
    return {"forgotten": True}


@routes.put("/sessions/{name}/model", responses=responds_with(SessionResponse))
def choose_session_model(name: str, choice: ModelChoice, desk: StudioDependency) -> dict[str, Any]:
    """Choose a session's model for what is searched from now on."""
    desk.models.get(choice.model)
    desk.database.get_session(name)
    desk.database.set_session_model(name, choice.model)
    return desk.session_view(name)


@routes.get("/sessions/{name}/state", responses=responds_with(StateResponse))
def get_session_state(name: str, desk: StudioDependency) -> dict[str, Any]:
    """Where a session's history stands."""
    return desk.state_view(desk.database.get_session(name), desk.database.get_state(name))


@routes.put("/sessions/{name}/edit", responses=responds_with(StateResponse))
def update_edit(name: str, edit: Edit, desk: StudioDependency) -> dict[str, Any]:
    """Change amount, notes or areas."""
    session = desk.database.get_session(name)
    found = desk.database.get_state(name).mask_number
    return desk.state_view(session, desk.database.append_edit(name, edit, found))


@routes.post("/sessions/{name}/undo", responses=responds_with(StateResponse))
def undo_edit(name: str, desk: StudioDependency) -> dict[str, Any]:
    """Take a step back."""
    return desk.state_view(desk.database.get_session(name), desk.database.step_history(name, -1))


@routes.post("/sessions/{name}/redo", responses=responds_with(StateResponse))
def redo_edit(name: str, desk: StudioDependency) -> dict[str, Any]:
    """Take a step forward again."""
    return desk.state_view(desk.database.get_session(name), desk.database.step_history(name, 1))


@routes.post("/sessions/{name}/enhance", status_code=202, responses=responds_with(JobResponse, 202))
def start_search(name: str, search: SearchRequest, desk: StudioDependency) -> dict[str, Any]:
    """Search a mask from nothing."""
    return desk.submit_job(name, "enhance", desk.search_settings(search.steps, search.force)).to_json()


@routes.post("/sessions/{name}/again", status_code=202, responses=responds_with(JobResponse, 202))
def restart_search(name: str, search: SearchRequest, desk: StudioDependency) -> dict[str, Any]:
    """Search anew around the pinned notes."""
    if desk.database.get_state(name).mask_number is None:
        raise CallError("nothing was searched yet: enhance the recording first")
    return desk.submit_job(name, "again", desk.search_settings(search.steps, search.force)).to_json()


@routes.post("/sessions/{name}/explain", status_code=202, responses=responds_with(JobResponse, 202))
def start_explanation(name: str, desk: StudioDependency) -> dict[str, Any]:
    """Ask what the scorer heard."""
    return desk.submit_job(name, "explain").to_json()


@routes.post("/sessions/{name}/whole", status_code=202)
def start_full_render(name: str, desk: StudioDependency) -> dict[str, Any]:
    """Render the whole, unless it is there."""
    job = desk.submit_full_render(name)
    return job.to_json() if job else {"state": "done"}


@routes.get("/jobs", responses=responds_with(list[JobResponse]))
def list_folder_jobs(desk: StudioDependency) -> list[dict[str, Any]]:
    """Jobs that belong to no session: audits, trainings, batches."""
    live = {job.id: job for job in desk.jobs.active.values() if job.session is None}
    return [live.get(job.id, job).to_json() for job in desk.database.list_jobs()]


@routes.get("/jobs/{job}", responses=responds_with(JobResponse))
def get_job(job: str, desk: StudioDependency) -> dict[str, Any]:
    """How a job stands."""
    return desk.jobs.get(job).to_json()


@routes.delete("/jobs/{job}", responses=responds_with(JobResponse))
def cancel_job(job: str, desk: StudioDependency) -> dict[str, Any]:
    """Cancel a job."""
    found = desk.jobs.get(job)
    desk.jobs.cancel(job)
    return found.to_json()


@routes.get("/events", response_class=StreamingResponse, responses=declare_media("text/event-stream"))
async def stream_events(desk: StudioDependency, session: str | None = None) -> StreamingResponse:
    """Server-sent events: every change of a session's jobs, and of those that belong to none."""

    async def stream() -> AsyncIterator[bytes]:
        yield b": hello\n\n"
        async for job in desk.jobs.subscribe(session):
            if job is None:
                yield b": still here\n\n"
            else:
                yield (b"event: job\ndata: " + json.dumps(_without_rows(job.to_json())).encode() + b"\n\n")

    return StreamingResponse(stream(), media_type="text/event-stream")


def _without_rows(job: dict[str, Any]) -> dict[str, Any]:
    """A job without the table of a folder, which a page asks for once and is told row by row."""
    told = {k: v for k, v in job["told"].items() if k != "rows"}
    return {**job, "told": told}
