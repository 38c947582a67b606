"""Routes of sessions: upload, edit, search and delete; job status and server-sent events."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from tonewood.enhancement.editing import MAX_CURVE_POINTS, Edit
from tonewood.enhancement.mask_search import check_link
from tonewood.errors import CallError, OutputError
from tonewood.export.formats import MAX_CURVE_BYTES, parse_curve_file, thin_curve
from tonewood.setting_types import ChannelLink, Settings
from tonewood.settings import CurveSettings, EnhanceSettings
from tonewood.studio.database import ConflictError
from tonewood.studio.session_archive import is_session_archive, open_session_archive
from tonewood.studio.session_audio import PlaybackLevels, edit_key
from tonewood.studio.state import KeptNotes, StudioState
from tonewood.studio.uploads import (
    audio_suffix,
    clean_title,
    decode_to_session,
    save_upload,
    title_from_filename,
)
from tonewood.web.errors import ResponseSpecs, declare_errors, declare_media

session_routes = APIRouter()
_BINARY_BODY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


# Some fields are older than the Python names, such as `told`; pages and scripts use them.
class JobResponse(Settings):
    """A background job and its progress."""

    id: str
    session: str | None
    kind: Literal["enhance", "again", "explain", "whole", "audit", "train", "batch"]
    state: Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
    progress: dict[str, Any] = Field(alias="told")
    created: float
    ahead: int = Field(ge=0)
    running_s: float | None
    expected_s: float | None


class SessionSummary(Settings):
    """An entry of the list of sessions."""

    id: str
    title: str
    changed: float
    seconds: float = Field(gt=0)
    model: str


class StateResponse(Settings):
    """The current edit of a session."""

    number: int = Field(ge=0)
    mask_number: int | None = Field(ge=0, alias="found")
    link: ChannelLink
    components: tuple[str, ...]
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
    """Everything that the page of a session needs."""

    sound: dict[str, Any]
    axes: dict[str, Any]
    state: StateResponse
    saliency: dict[str, Any] | None
    jobs: list[JobResponse]


class SearchRequest(Settings, strict=True):
    """Options of a search."""

    steps: int | None = Field(None, ge=0, le=200)
    force: bool = False
    link: ChannelLink = "all"

    def enhance_settings(self) -> EnhanceSettings:
        """Return the settings of the search."""
        settings = EnhanceSettings().replace(force=self.force, render=dict(link=self.link))
        return settings if self.steps is None else settings.replace(search=dict(steps=self.steps))


class RestartRequest(SearchRequest, strict=True):
    """Options of a search that keeps notes."""

    keep: KeptNotes = "pinned"


class NewTitle(Settings, strict=True):
    """New name of a session."""

    title: str = Field(min_length=1, max_length=1_000)


class ModelChoice(Settings, strict=True):
    """Name of a model."""

    model: str


def responds_with(model: type[Any], status: int = 200) -> ResponseSpecs:
    """Declare the shape of a response in the OpenAPI document; responses are not validated."""
    return {status: {"model": model}}


def get_studio_state(request: Request) -> StudioState:
    """Return the state that the application was created with."""
    studio: StudioState = request.app.state.studio
    return studio


StudioDependency = Annotated[StudioState, Depends(get_studio_state)]


@session_routes.get("/models")
def list_models(studio: StudioDependency) -> list[dict[str, Any]]:
    """List the models."""
    return studio.models.model_summaries()


@session_routes.get("/sessions", responses=responds_with(list[SessionSummary]))
def list_sessions(studio: StudioDependency) -> list[dict[str, Any]]:
    """List all sessions, the last changed first."""
    return [studio.session_summary(session) for session in studio.database.list_sessions()]


@session_routes.post(
    "/recordings",
    status_code=201,
    responses=responds_with(SessionResponse, 201),
    openapi_extra={"requestBody": {"required": True, "content": _BINARY_BODY}},
)
async def upload_recording(
    request: Request, studio: StudioDependency, name: Annotated[str, Query(max_length=1_000)] = "recording"
) -> dict[str, Any]:
    """Create a session from a recording or a session file, the body of the request."""
    # The decoded samples usually take more space than the file; twice its size is a first check.
    declared = int(request.headers.get("content-length", "0"))
    free = shutil.disk_usage(studio.database.folder).free
    if 2 * declared > free:
        raise OutputError(
            f"the recording has {declared / 2**20:.0f} MiB; only {free / 2**20:.0f} MiB of the disk are "
            "free: free some space"
        )

    title = title_from_filename(name)
    identity, folder = studio.database.create_session_folder()
    upload = folder / f"upload{audio_suffix(name)}"

    def create_session() -> None:
        if is_session_archive(upload):
            open_session_archive(studio, identity, folder, upload)
        else:
            recording = decode_to_session(upload, folder, title)
            studio.database.add_session(identity, title, recording, studio.models.default)

    try:
        # A raw body, not a form: it is written to the disk while it arrives.
        if await save_upload(request.stream(), upload) == 0:
            raise CallError(f"{title} is empty: choose a recording")
        await asyncio.to_thread(create_session)
        return studio.session_view(identity)
    except BaseException:  # a client that disconnects cancels the request: its files go, too
        studio.database.discard_session(identity)
        raise


@session_routes.post(
    "/curves",
    responses=responds_with(CurveSettings),
    openapi_extra={"requestBody": {"required": True, "content": _BINARY_BODY}},
)
async def read_curve_file(
    request: Request, name: Annotated[str, Query(max_length=1_000)] = "curve"
) -> dict[str, Any]:
    """Return the curve of an edit from a file of frequencies and gains, the body of the request."""
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_CURVE_BYTES:
            break
    points = thin_curve(parse_curve_file(content, title_from_filename(name)), MAX_CURVE_POINTS)
    return EnhanceSettings().replace(render=dict(curve=dict(points=points))).render.curve.model_dump()


@session_routes.get("/sessions/{name}", responses=responds_with(SessionResponse))
def get_session(name: str, studio: StudioDependency) -> dict[str, Any]:
    """Return everything that the page of a session needs."""
    return studio.session_view(name)


@session_routes.delete("/sessions/{name}")
def delete_session(name: str, studio: StudioDependency) -> dict[str, bool]:
    """Delete a session, its jobs and its files."""
    for job in studio.jobs.active_for(name):  # they would write into the deleted folder
        studio.jobs.cancel(job.id)
    studio.database.delete_session(name)
    return {"forgotten": True}


@session_routes.put("/sessions/{name}/model", responses=responds_with(SessionResponse))
def choose_session_model(name: str, choice: ModelChoice, studio: StudioDependency) -> dict[str, Any]:
    """Choose the model of a session's next search."""
    studio.models.get(choice.model)  # an unknown name would silently become the default model
    studio.database.set_session_model(name, choice.model)
    return studio.session_view(name)


@session_routes.put("/sessions/{name}/title", responses=responds_with(SessionResponse))
def rename_session(name: str, new: NewTitle, studio: StudioDependency) -> dict[str, Any]:
    """Rename a session."""
    studio.database.set_session_title(name, clean_title(new.title.strip()))
    return studio.session_view(name)


@session_routes.get("/sessions/{name}/state", responses=responds_with(StateResponse))
def get_session_state(name: str, studio: StudioDependency) -> dict[str, Any]:
    """Return the current edit of a session."""
    return studio.state_view(studio.database.get_session(name), studio.database.get_state(name))


@session_routes.put(
    "/sessions/{name}/edit", responses={**responds_with(StateResponse), **declare_errors(412)}
)
def update_edit(
    name: str,
    edit: Edit,
    studio: StudioDependency,
    if_match: Annotated[str | None, Header(max_length=100)] = None,
) -> dict[str, Any]:
    """Change amount, notes or regions.

    With `If-Match`, the key of the edit that was changed, an edit of another page is not replaced.
    """
    session = studio.database.get_session(name)
    with studio.database.lock:
        state = studio.database.get_state(name)
        if if_match is not None and if_match != edit_key(state):
            raise ConflictError("another page changed this recording: join both edits and send them again")
        state = studio.database.append_edit(name, edit, state.mask_number)
    return studio.state_view(session, state)


@session_routes.post("/sessions/{name}/undo", responses=responds_with(StateResponse))
def undo_edit(name: str, studio: StudioDependency) -> dict[str, Any]:
    """Undo the last edit."""
    return studio.state_view(studio.database.get_session(name), studio.database.step_history(name, -1))


@session_routes.post("/sessions/{name}/redo", responses=responds_with(StateResponse))
def redo_edit(name: str, studio: StudioDependency) -> dict[str, Any]:
    """Redo the edit that was undone last."""
    return studio.state_view(studio.database.get_session(name), studio.database.step_history(name, 1))


@session_routes.post("/sessions/{name}/enhance", status_code=202, responses=responds_with(JobResponse, 202))
def start_search(name: str, search: SearchRequest, studio: StudioDependency) -> dict[str, Any]:
    """Start a search for a new mask, or for one of each component."""
    check_link(studio.database.get_session(name).recording.channels, search.link)
    return studio.submit_job(name, "enhance", search.enhance_settings()).to_json()


@session_routes.post("/sessions/{name}/again", status_code=202, responses=responds_with(JobResponse, 202))
def restart_search(name: str, search: RestartRequest, studio: StudioDependency) -> dict[str, Any]:
    """Start a new search that keeps all notes, the pinned ones (the default), or none."""
    # The job would fail with the same messages, but only after its wait in the queue.
    check_link(studio.database.get_session(name).recording.channels, search.link)
    if studio.database.get_state(name).mask_number is None:
        raise CallError("this session has no mask yet: enhance the recording first")
    return studio.submit_job(name, "again", search.enhance_settings(), search.keep).to_json()


@session_routes.post("/sessions/{name}/explain", status_code=202, responses=responds_with(JobResponse, 202))
def start_explanation(name: str, studio: StudioDependency) -> dict[str, Any]:
    """Start to compute the scorer's saliency."""
    return studio.submit_job(name, "explain").to_json()


@session_routes.post("/sessions/{name}/whole", status_code=202)
def start_full_render(name: str, studio: StudioDependency) -> dict[str, Any]:
    """Start the full rendering of the current edit, unless it exists."""
    job = studio.submit_full_render(name)
    return job.to_json() if job else {"state": "done"}


@session_routes.get("/jobs", responses=responds_with(list[JobResponse]))
def list_folder_jobs(studio: StudioDependency) -> list[dict[str, Any]]:
    """List the jobs on folders: audits, trainings and batches."""
    # The database has only the start and the end of a job; its progress is in memory.
    return [studio.jobs.active.get(job.id, job).to_json() for job in studio.database.list_folder_jobs()]


@session_routes.get("/jobs/{job}", responses=responds_with(JobResponse))
def get_job(job: str, studio: StudioDependency) -> dict[str, Any]:
    """Return a job and its progress."""
    return studio.jobs.get(job).to_json()


@session_routes.delete("/jobs/{job}", responses=responds_with(JobResponse))
def cancel_job(job: str, studio: StudioDependency) -> dict[str, Any]:
    """Cancel a job."""
    cancelled = studio.jobs.get(job)
    studio.jobs.cancel(job)
    return cancelled.to_json()


@session_routes.get("/events", response_class=StreamingResponse, responses=declare_media("text/event-stream"))
async def stream_events(studio: StudioDependency, session: str | None = None) -> StreamingResponse:
    """Send every change of a session's jobs, and of the jobs on folders, as server-sent events."""

    async def stream() -> AsyncIterator[bytes]:
        yield b": hello\n\n"
        async for job in studio.jobs.subscribe(session):
            if job is None:  # a comment keeps the connection open
                yield b": still here\n\n"
            else:
                yield b"event: job\ndata: " + json.dumps(_without_rows(job.to_json())).encode() + b"\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


def _without_rows(job: dict[str, Any]) -> dict[str, Any]:
    """Return a job without the table of a batch: pages fetch it once and then receive single rows."""
    return {**job, "told": {key: value for key, value in job["told"].items() if key != "rows"}}
