"""Routes of sessions: open, look, change, search, forget; and the events that a page lives by."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from tonewood.errors import CallError, OutputError
from tonewood.serving.refusals import sending
from tonewood.settings import Settings
from tonewood.studio import bundle, intake
from tonewood.studio.desk import Desk
from tonewood.studio.shapes import JobShown, Listed, SessionShown, StateShown, showing
from tonewood.workflow.edit import Edit

routes = APIRouter()
_BODY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def desk_of(request: Request) -> Desk:
    """The desk that the application was made over."""
    desk: Desk = request.app.state.desk
    return desk


AtDesk = Annotated[Desk, Depends(desk_of)]


class Search(Settings, strict=True):
    """How a search is asked for."""

    steps: int | None = Field(None, ge=0, le=200)
    force: bool = False


class Choice(Settings, strict=True):
    """A model, by its name."""

    model: str


@routes.get("/models")
def models(desk: AtDesk) -> list[dict[str, Any]]:
    """Models to choose from."""
    return desk.models.shown()


@routes.get("/sessions", responses=showing(list[Listed]))
def listed(desk: AtDesk) -> list[dict[str, Any]]:
    """All sessions, the last touched first."""
    return [desk.listed(session) for session in desk.store.sessions()]


@routes.post(
    "/recordings",
    status_code=201,
    responses=showing(SessionShown, 201),
    openapi_extra={"requestBody": {"required": True, "content": _BODY}},
)
async def opened(
    request: Request, desk: AtDesk, name: Annotated[str, Query(max_length=1_000)] = "recording"
) -> dict[str, Any]:
    """Take a recording or a session file, the body of the request, and open it."""
    declared = int(request.headers.get("content-length", "0"))
    free = shutil.disk_usage(desk.store.folder).free
    if 2 * declared > free:
        raise OutputError(
            f"{declared / 2**20:.0f} MiB do not fit the {free / 2**20:.0f} MiB that are free on "
            "the disk: free some space"
        )
    title = intake.title_of(name)
    identity, folder = desk.store.place()
    try:
        upload = folder / f"upload{intake.suffix_of(name)}"
        if await intake.received(request.stream(), upload) == 0:
            raise CallError(f"{title} is empty: choose a recording")
        if bundle.is_session(upload):
            await asyncio.to_thread(bundle.reopened, desk, identity, folder, upload)
        else:
            model = desk.models.first
            await asyncio.to_thread(
                intake.opened, desk.store, identity, folder, upload, title, model
            )
        return desk.shown(identity)
    except BaseException:
        desk.store.discard(identity)
        raise


@routes.get("/sessions/{name}", responses=showing(SessionShown))
def looked_at(name: str, desk: AtDesk) -> dict[str, Any]:
    """A session with all that its page needs."""
    return desk.shown(name)


@routes.delete("/sessions/{name}")
def forgotten(name: str, desk: AtDesk) -> dict[str, bool]:
    """Forget a session and all that was made for it."""
    for job in desk.jobs.of(name):
        desk.jobs.cancel(job.id)
    desk.store.remove(name)
    return {"forgotten": True}


@routes.put("/sessions/{name}/model", responses=showing(SessionShown))
def chosen(name: str, choice: Choice, desk: AtDesk) -> dict[str, Any]:
    """Choose a session's model for what is searched from now on."""
    desk.models.get(choice.model)
    desk.store.session(name)
    desk.store.choose(name, choice.model)
    return desk.shown(name)


@routes.get("/sessions/{name}/state", responses=showing(StateShown))
def stands(name: str, desk: AtDesk) -> dict[str, Any]:
    """Where a session's history stands."""
    return desk.state_shown(desk.store.session(name), desk.store.state(name))


@routes.put("/sessions/{name}/edit", responses=showing(StateShown))
def changed(name: str, edit: Edit, desk: AtDesk) -> dict[str, Any]:
    """Change amount, notes or areas."""
    session = desk.store.session(name)
    found = desk.store.state(name).found
    return desk.state_shown(session, desk.store.change(name, edit, found))


@routes.post("/sessions/{name}/undo", responses=showing(StateShown))
def undone(name: str, desk: AtDesk) -> dict[str, Any]:
    """Take a step back."""
    return desk.state_shown(desk.store.session(name), desk.store.step(name, -1))


@routes.post("/sessions/{name}/redo", responses=showing(StateShown))
def redone(name: str, desk: AtDesk) -> dict[str, Any]:
    """Take a step forward again."""
    return desk.state_shown(desk.store.session(name), desk.store.step(name, 1))


@routes.post("/sessions/{name}/enhance", status_code=202, responses=showing(JobShown, 202))
def enhanced(name: str, search: Search, desk: AtDesk) -> dict[str, Any]:
    """Search a mask from nothing."""
    return desk.ask(name, "enhance", desk.settings(search.steps, search.force)).shown()


@routes.post("/sessions/{name}/again", status_code=202, responses=showing(JobShown, 202))
def again(name: str, search: Search, desk: AtDesk) -> dict[str, Any]:
    """Search anew around the pinned notes."""
    if desk.store.state(name).found is None:
        raise CallError("nothing was searched yet: enhance the recording first")
    return desk.ask(name, "again", desk.settings(search.steps, search.force)).shown()


@routes.post("/sessions/{name}/explain", status_code=202, responses=showing(JobShown, 202))
def explained(name: str, desk: AtDesk) -> dict[str, Any]:
    """Ask what the scorer heard."""
    return desk.ask(name, "explain").shown()


@routes.post("/sessions/{name}/whole", status_code=202)
def made(name: str, desk: AtDesk) -> dict[str, Any]:
    """Render the whole, unless it is there."""
    job = desk.whole(name)
    return job.shown() if job else {"state": "done"}


@routes.get("/jobs", responses=showing(list[JobShown]))
def jobs(desk: AtDesk) -> list[dict[str, Any]]:
    """Jobs that belong to no session: audits, trainings, batches."""
    live = {job.id: job for job in desk.jobs.live.values() if job.session is None}
    return [live.get(job.id, job).shown() for job in desk.store.jobs()]


@routes.get("/jobs/{job}", responses=showing(JobShown))
def told(job: str, desk: AtDesk) -> dict[str, Any]:
    """How a job stands."""
    return desk.jobs.get(job).shown()


@routes.delete("/jobs/{job}", responses=showing(JobShown))
def cancelled(job: str, desk: AtDesk) -> dict[str, Any]:
    """Cancel a job."""
    found = desk.jobs.get(job)
    desk.jobs.cancel(job)
    return found.shown()


@routes.get("/events", response_class=StreamingResponse, responses=sending("text/event-stream"))
async def events(desk: AtDesk, session: str | None = None) -> StreamingResponse:
    """Server-sent events: every change of a session's jobs, and of those that belong to none."""

    async def stream() -> AsyncIterator[bytes]:
        yield b": hello\n\n"
        async for job in desk.jobs.listen(session):
            if job is None:
                yield b": still here\n\n"
            else:
                yield b"event: job\ndata: " + json.dumps(_brief(job.shown())).encode() + b"\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


def _brief(job: dict[str, Any]) -> dict[str, Any]:
    """A job without the table of a folder, which a page asks for once and is told row by row."""
    told = {k: v for k, v in job["told"].items() if k != "rows"}
    return {**job, "told": told}
