"""Web endpoint for HARP, a sample editor for audio workstations (github.com/TEAMuP-dev/HARP).

HARP uses the protocol of Gradio: upload a file, post to `controls`, `process` or `cancel`, read the stream
of the returned event until `complete` or `error`, and fetch the files that it names. The description of
inputs and outputs follows the README and data classes of PyHARP 0.3.1. Gradio itself is not needed.
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
from tonewood.batch.enhance_file import FileEnhanced, enhance_file
from tonewood.errors import AudioError, CallError, TonewoodError, printable
from tonewood.model import card_text
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings
from tonewood.settings_base import Settings
from tonewood.web import RequestLimits
from tonewood.web.errors import declare_errors, declare_media, install_error_handlers

if TYPE_CHECKING:
    from starlette.types import ASGIApp

UPLOAD_LIMITS = {"/gradio_api/upload": RequestLimits(2 * 2**30, 3600.0)}
"""Uploads may be larger than other requests."""
MAX_KEPT_FILES = 16
"""Uploads and outputs that are kept; the oldest is removed first."""
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
    """The host cancelled the call."""


def create_harp_app(model: Model, folder: Path) -> "ASGIApp":
    """Return the application; serve it with `secure`, at a loopback address only.

    Parameters
    ----------
    model : Model
    folder : Path
        For uploads and outputs; removed when the server stops.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # A server that is stopped by a signal does not return to the caller, so the folder is removed here.
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    app = FastAPI(
        docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan,
        responses=declare_errors(),
    )  # fmt: skip
    host = HarpEndpoint(model, folder)

    @app.get("/", response_class=PlainTextResponse)
    def page() -> PlainTextResponse:
        return PlainTextResponse(f"{host.title}. Enter this address in HARP as a custom path.\n")

    @app.post("/gradio_api/upload")
    async def upload(request: Request) -> list[str]:
        form = await request.form(max_files=1, max_fields=8)
        try:
            uploads = [value for value in form.values() if isinstance(value, UploadFile)]
            if len(uploads) != 1:
                raise HTTPException(422, "the request needs exactly one file")
            return [await asyncio.to_thread(host.store_upload, uploads[0])]
        finally:
            await form.close()

    @app.post("/gradio_api/call/{name}")
    async def call(name: CallName, body: CallBody) -> dict[str, str]:
        return {"event_id": host.start_call(name, body.data)}

    @app.get(
        "/gradio_api/call/{name}/{event}",
        response_class=StreamingResponse,
        responses=declare_errors(404) | declare_media("text/event-stream"),
    )
    async def follow(name: CallName, event: str, request: Request) -> StreamingResponse:
        task = host.tasks.get(event)
        if task is None:
            raise HTTPException(404, "this event does not exist")
        base = str(request.base_url)
        return StreamingResponse(host.event_stream(event, task, base), media_type="text/event-stream")

    @app.get(
        "/gradio_api/file={name}",
        response_class=FileResponse,
        responses=declare_errors(404) | declare_media("audio/*", "text/plain", ranges=True),
    )
    def file(name: str) -> FileResponse:
        if name not in host.files:
            raise HTTPException(404, "this file does not exist")
        return FileResponse(host.files[name])

    install_error_handlers(app)
    return app


class HarpEndpoint:
    """State of the endpoint: uploads, outputs and running calls."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.files: dict[str, Path] = {}
        self.tasks: dict[str, asyncio.Task[list[dict[str, Any]]]] = {}
        self.title = f"Tonewood: {model.name}"
        self._process_lock = asyncio.Lock()
        self._cancel_event = threading.Event()

    def store_upload(self, upload: UploadFile) -> str:
        """Write an upload under a random name, and return that name."""
        # The host's name must not become a path here; it may be a whole path of Windows.
        suffix = Path((upload.filename or "").replace("\\", "/")).suffix.lower()
        name = f"{secrets.token_hex(16)}{suffix if suffix in WRITABLE_SUFFIXES else ''}"
        path = self.folder / name
        with path.open("wb") as file:
            shutil.copyfileobj(upload.file, file, 1 << 20)
        self._register_file(name, path)
        return name

    def start_call(self, name: CallName, data: list[Any]) -> str:
        """Start a call, and return its event."""
        functions = {
            "controls": self._run_controls,
            "process": self._run_process,
            "cancel": self._run_cancel,
        }
        event = secrets.token_hex(16)
        for old in list(self.tasks)[: -MAX_KEPT_FILES + 1]:
            del self.tasks[old]
        self.tasks[event] = asyncio.create_task(functions[name](data))
        return event

    async def event_stream(
        self, event: str, task: "asyncio.Task[list[dict[str, Any]]]", base: str
    ) -> AsyncIterator[str]:
        """Yield heartbeats while a call runs, then its result or error."""
        while not (await asyncio.wait({task}, timeout=HEARTBEAT_S))[0]:
            yield "event: heartbeat\ndata: null\n\n"
        self.tasks.pop(event, None)
        try:
            data = task.result()
        except TonewoodError as error:
            yield f"event: error\ndata: {json.dumps({'error': str(error)})}\n\n"
            return
        for output in data:
            if "path" in output:
                output["url"] = f"{base}gradio_api/file={output['path']}"
        yield f"event: complete\ndata: {json.dumps(data)}\n\n"

    async def _run_controls(self, _: list[Any]) -> list[dict[str, Any]]:
        return [describe_endpoint(self.model)]

    async def _run_cancel(self, _: list[Any]) -> list[dict[str, Any]]:
        self._cancel_event.set()
        return []

    async def _run_process(self, data: list[Any]) -> list[dict[str, Any]]:
        try:
            inputs = TypeAdapter(_ProcessInputs).validate_python(data)
        except ValidationError:
            raise CallError(
                "the inputs are wrong: give a recording, an amount from 0 to 1, and true or false"
            ) from None
        name = inputs.recording.get("path")
        if name not in self.files:
            raise AudioError("the recording is no longer stored: send it again")
        self._cancel_event.set()  # a host runs one call at a time, so an earlier one is obsolete
        async with self._process_lock:
            # Cleared inside the lock: the earlier call has ended by now and cannot miss the event.
            self._cancel_event.clear()
            result = await asyncio.to_thread(self._enhance_upload, self.files[name], inputs)
        output = Path(result.output)
        self._register_file(output.name, output)
        size = output.stat().st_size
        meta = {"_type": "gradio.FileData"}
        return [
            {"path": output.name, "orig_name": output.name, "size": size, "meta": meta},
            {
                "meta": {"_type": "pyharp.LabelList"},
                "labels": [_verdict_label(result.certificate.line)],
            },
        ]

    def _enhance_upload(self, path: Path, inputs: _ProcessInputs) -> FileEnhanced:
        """Enhance an upload; a cancellation takes effect between two steps."""
        suffix = path.suffix if path.suffix in _LOSSLESS_SUFFIXES else ".wav"
        output = self.folder / f"{secrets.token_hex(16)}{suffix}"
        settings = EnhanceSettings().replace(render=dict(amount=inputs.amount), force=inputs.force)
        try:
            for event in enhance_file(path, output, self.model, settings):
                if isinstance(event, FileEnhanced):
                    Path(event.recipe).unlink()  # a host fetches the audio only
                    return event
                if self._cancel_event.is_set():
                    raise _CallCancelledError("cancelled")
        except TonewoodError as error:
            raise type(error)(str(error).replace(printable(path), "the recording")) from error
        raise AssertionError("a file is enhanced or fails")

    def _register_file(self, name: str, path: Path) -> None:
        self.files[name] = path
        for old in list(self.files)[:-MAX_KEPT_FILES]:
            self.files.pop(old).unlink(missing_ok=True)


def describe_endpoint(model: Model) -> dict[str, Any]:
    """Return what a host shows: the card of the model, and its inputs and outputs in order."""
    domain = model.card.domain or f"domain {card_text.NOT_STATED}"
    tags = ["category:effects", "subcategory:timbre-transfer", "input:audio", "output:audio"]
    return {
        "card": {
            "name": f"Tonewood: {model.name}",
            "description": "Changes a recording toward a sound that is learnt from two folders "
            f"({domain}). It only filters and generates nothing.",
            "author": "the Tonewood authors",
            "tags": [*tags, "output:labels", "equaliser"],
        },
        "inputs": [
            {"type": "audio_track", "label": "Recording", "info": "", "required": True},
            {
                "type": "slider",
                "label": "Amount",
                "info": "Strength of the change, from 0 (none) to 1.",
                "minimum": 0.0,
                "maximum": 1.0,
                "step": 0.05,
                "value": 1.0,
            },
            {
                "type": "toggle",
                "label": "Even if unlike both folders",
                "info": "Otherwise such a recording gets at most a static EQ.",
                "value": False,
            },
        ],
        "outputs": [
            {"type": "audio_track", "label": "Enhanced", "info": "", "required": True},
            {"type": "json", "label": "Verdict", "info": "Verdict on the change."},
        ],
    }


def _verdict_label(line: str) -> dict[str, Any]:
    """Return a verdict as a label at the start of the track."""
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
