"""A host's endpoint: what HARP, a sample editor for audio workstations, asks a model of.

HARP (github.com/TEAMuP-dev/HARP) sends a recording and takes one back. It speaks Gradio's calls:
upload a file; post to an endpoint, `controls`, `process` or `cancel`, which gives an event; read
that event's stream until `complete` or `error`; fetch the files that it names. What it is to show
is described as PyHARP's README and data classes do (version 0.3.1). Gradio itself is not used.
"""

import asyncio
import json
import secrets
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from pydantic import Field, TypeAdapter, ValidationError
from starlette.datastructures import UploadFile

from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES
from tonewood.batch import enhance_file
from tonewood.enhancement import output_files
from tonewood.errors import AudioError, CallError, TonewoodError, printable
from tonewood.model import card_text
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, Settings
from tonewood.web import RequestLimits
from tonewood.web.errors import declare_errors, declare_media, install_error_handlers

if TYPE_CHECKING:
    from starlette.types import ASGIApp

UPLOAD_LIMITS = {"/gradio_api/upload": RequestLimits(2 * 2**30, 3600.0)}
"""Uploads may be larger than what else is asked."""
MAX_KEPT_FILES = 16
"""Files of either kind that wait to be fetched; the oldest goes first."""
HEARTBEAT_S = 5.0
_LOSSLESS_SUFFIXES = frozenset({".wav", ".flac", ".aif", ".aiff"})
CallName = Literal["controls", "process", "cancel"]


class CallBody(Settings):
    """Body of a call: the inputs, in the order of `controls`."""

    data: list[Any] = Field(max_length=8)


class _ProcessInputs(NamedTuple):
    """Inputs of `process`."""

    recording: dict[str, Any]
    amount: Annotated[float, Field(ge=0, le=1)]
    force: bool


class _CallCancelledError(TonewoodError):
    """The host does not want it any more."""


def create_harp_app(model: Model, folder: Path) -> "ASGIApp":
    """The application; to be served `secure`, at this machine's own address alone.

    Parameters
    ----------
    model : Model
    folder : Path
        For what is uploaded and made; goes when the server goes.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # A server that is told to end never comes back to where the folder was made.
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    made = FastAPI(
        docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan,
        responses=declare_errors(),
    )  # fmt: skip
    host = HarpEndpoint(model, folder)

    @made.get("/", response_class=PlainTextResponse)
    def page() -> PlainTextResponse:
        return PlainTextResponse(f"{host.title}. Give this address to HARP as a custom path.\n")

    @made.post("/gradio_api/upload")
    async def upload(request: Request) -> list[str]:
        form = await request.form(max_files=1, max_fields=8)
        try:
            sent = [it for it in form.values() if isinstance(it, UploadFile)]
            if len(sent) != 1:
                raise HTTPException(422, "one file is wanted")
            return [await asyncio.to_thread(host.store_upload, sent[0])]
        finally:
            await form.close()

    @made.post("/gradio_api/call/{name}")
    async def call(name: CallName, asked: CallBody) -> dict[str, str]:
        return {"event_id": host.start_call(name, asked.data)}

    @made.get(
        "/gradio_api/call/{name}/{event}",
        response_class=StreamingResponse,
        responses=declare_errors(404) | declare_media("text/event-stream"),
    )
    async def follow(name: CallName, event: str, request: Request) -> StreamingResponse:
        task = host.tasks.get(event)
        if task is None:
            raise HTTPException(404, "no such event")
        base = str(request.base_url)
        return StreamingResponse(host.event_stream(event, task, base), media_type="text/event-stream")

    @made.get(
        "/gradio_api/file={name}",
        response_class=FileResponse,
        responses=declare_errors(404) | declare_media("audio/*", "text/plain", ranges=True),
    )
    def file(name: str) -> FileResponse:
        if name not in host.files:
            raise HTTPException(404, "no such file")
        return FileResponse(host.files[name])

    install_error_handlers(made)
    return made


class HarpEndpoint:
    """What one endpoint holds: uploads, outputs, calls at work."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.files: dict[str, Path] = {}
        self.tasks: dict[str, asyncio.Task[list[dict[str, Any]]]] = {}
        self.title = f"Tonewood: {model.name}"
        self._process_lock = asyncio.Lock()
        self._cancel_event = threading.Event()

    def store_upload(self, upload: UploadFile) -> str:
        """Write an upload under a name of our own, and return that name."""
        suffix = Path((upload.filename or "").replace("\\", "/")).suffix.lower()
        name = f"{secrets.token_hex(16)}{suffix if suffix in WRITABLE_SUFFIXES else ''}"
        path = self.folder / name
        with path.open("wb") as file:
            shutil.copyfileobj(upload.file, file, 1 << 20)
        self._register_file(name, path)
        return name

    def start_call(self, name: CallName, data: list[Any]) -> str:
        """Begin a call; returns its event."""
        work = {
            "controls": self._run_controls,
            "process": self._run_process,
            "cancel": self._run_cancel,
        }
        event = secrets.token_hex(16)
        for old in list(self.tasks)[: -MAX_KEPT_FILES + 1]:
            del self.tasks[old]
        self.tasks[event] = asyncio.create_task(work[name](data))
        return event

    async def event_stream(
        self, event: str, task: "asyncio.Task[list[dict[str, Any]]]", base: str
    ) -> AsyncIterator[str]:
        """The stream of an event: heartbeats while it lasts, then how it ended."""
        while not (await asyncio.wait({task}, timeout=HEARTBEAT_S))[0]:
            yield "event: heartbeat\ndata: null\n\n"
        self.tasks.pop(event, None)
        try:
            data = task.result()
        except TonewoodError as error:
            yield f"event: error\ndata: {json.dumps({'error': str(error)})}\n\n"
            return
        for it in data:
            if "path" in it:
                it["url"] = f"{base}gradio_api/file={it['path']}"
        yield f"event: complete\ndata: {json.dumps(data)}\n\n"

    async def _run_controls(self, _: list[Any]) -> list[dict[str, Any]]:
        return [describe_endpoint(self.model)]

    async def _run_cancel(self, _: list[Any]) -> list[dict[str, Any]]:
        self._cancel_event.set()
        return []

    async def _run_process(self, data: list[Any]) -> list[dict[str, Any]]:
        try:
            wanted = TypeAdapter(_ProcessInputs).validate_python(data)
        except ValidationError:
            raise CallError("a recording, an amount from 0 to 1 and a yes or no are wanted") from None
        name = wanted.recording.get("path")
        if name not in self.files:
            raise AudioError("the recording is not here any more: send it again")
        self._cancel_event.set()  # a host asks for one thing at a time: what it asked before is done with
        async with self._process_lock:
            self._cancel_event.clear()
            done = await asyncio.to_thread(self._enhance_upload, self.files[name], wanted)
        made = Path(done.output)
        self._register_file(made.name, made)
        size = made.stat().st_size
        meta = {"_type": "gradio.FileData"}
        return [
            {"path": made.name, "orig_name": made.name, "size": size, "meta": meta},
            {
                "meta": {"_type": "pyharp.LabelList"},
                "labels": [_verdict_label(done.certificate.line)],
            },
        ]

    def _enhance_upload(self, path: Path, inputs: _ProcessInputs) -> enhance_file.FileEnhanced:
        """Enhance an upload, unless it is cancelled between two steps."""
        suffix = path.suffix if path.suffix in _LOSSLESS_SUFFIXES else ".wav"
        output = self.folder / f"{secrets.token_hex(16)}{suffix}"
        settings = EnhanceSettings().replace(render=dict(amount=inputs.amount), force=inputs.force)
        for event in enhance_file.enhance_files([output_files.FileJob(path, output)], self.model, settings):
            if isinstance(event, output_files.FileFailure):
                raise type(event.error)(str(event.error).replace(printable(path), "the recording"))
            if isinstance(event, enhance_file.FileEnhanced):
                Path(event.recipe).unlink()
                return event
            if self._cancel_event.is_set():
                raise _CallCancelledError("cancelled")
        raise AssertionError("a file is enhanced or fails")

    def _register_file(self, name: str, path: Path) -> None:
        self.files[name] = path
        for old in list(self.files)[:-MAX_KEPT_FILES]:
            self.files.pop(old).unlink(missing_ok=True)


def describe_endpoint(model: Model) -> dict[str, Any]:
    """What a host shows: the model's card, its inputs and outputs in order."""
    learnt = model.card.domain or f"domain {card_text.NOT_STATED}"
    tags = ["category:effects", "subcategory:timbre-transfer", "input:audio", "output:audio"]
    return {
        "card": {
            "name": f"Tonewood: {model.name}",
            "description": "Moves a recording toward a sound learnt from two folders "
            f"({learnt}). It filters; it generates nothing.",
            "author": "the Tonewood authors",
            "tags": [*tags, "output:labels", "equaliser"],
        },
        "inputs": [
            {"type": "audio_track", "label": "Recording", "info": "", "required": True},
            {
                "type": "slider",
                "label": "Amount",
                "info": "0 leaves the recording, 1 is all of it.",
                "minimum": 0.0,
                "maximum": 1.0,
                "step": 0.05,
                "value": 1.0,
            },
            {
                "type": "toggle",
                "label": "Even if unlike the source folder",
                "info": "Otherwise such a recording gets a static EQ at most.",
                "value": False,
            },
        ],
        "outputs": [
            {"type": "audio_track", "label": "Enhanced", "info": "", "required": True},
            {"type": "json", "label": "Verdict", "info": "Whether to believe the change."},
        ],
    }


def _verdict_label(line: str) -> dict[str, Any]:
    """A verdict, as a label at the beginning of the track."""
    return {
        "label_type": "AudioLabel",
        "t": 0.0,
        "duration": 0.0,
        "label": line.partition(":")[0],
        "description": line,
        "color": 0,
        "link": None,
        "amplitude": None,
    }
