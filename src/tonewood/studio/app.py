"""The studio as a web application: request → workflow → answer."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from tonewood.errors import MissingExtraError, OutputError, TonewoodError
from tonewood.serving import POLICY, Limits, guarded, is_local, names_of
from tonewood.serving.refusals import refuse_alike, refused, refusing
from tonewood.studio import hearing, machine, sessions, taking
from tonewood.studio.desk import Desk
from tonewood.studio.entries import MissingError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

UPLOAD = Limits(body_bytes=2 * 2**30, seconds=1_800.0)
STATIC = Path(str(resources.files("tonewood.studio"))) / "static"


def application(desk: Desk, upload: Limits = UPLOAD) -> FastAPI:
    """Routes over a desk, unguarded; of `upload` the page is told."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk.jobs.start()
        try:
            yield
        finally:
            desk.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.desk, app.state.upload_bytes = desk, upload.body_bytes
    for part in (sessions, hearing, taking, machine):
        app.include_router(part.routes, prefix="/api", responses=refusing(404, 501, 507))
    refuse_alike(app)
    app.add_exception_handler(TonewoodError, _refused)
    # What Starlette raises for a file that is gone before it could be sent is a RuntimeError.
    for vanished in (FileNotFoundError, RuntimeError):
        app.add_exception_handler(vanished, _vanished)
    app.add_exception_handler(Exception, _broken)
    app.add_api_route("/", _page, methods=["GET"], response_class=HTMLResponse)
    app.mount("/assets", _Assets(directory=STATIC / "assets", check_dir=False))
    app.mount("/", StaticFiles(directory=STATIC, check_dir=False))
    return app


def studio(
    desk: Desk, *, host: str = "127.0.0.1", token: str | None = None, upload: Limits = UPLOAD
) -> "ASGIApp":
    """Guarded application; beyond this machine it needs a token."""
    assert is_local(host) or token
    return guarded(
        application(desk, upload),
        token=token,
        hosts=names_of(host),
        larger={"/api/recordings": upload},
    )


class _Assets(StaticFiles):
    """Built files, whose names change with what they hold: kept by the browser for ever."""

    async def get_response(self, path: str, scope: "Scope") -> Response:
        """Answer as usual, and say that it may be kept."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def _page() -> HTMLResponse:
    """The page; what wavesurfer styles itself by is allowed by a nonce of its own."""
    nonce = secrets.token_urlsafe(16)
    content = (STATIC / "index.html").read_text(encoding="utf-8").replace("__NONCE__", nonce)
    policy = POLICY.replace("style-src 'self'", f"style-src 'self' 'nonce-{nonce}'")
    return HTMLResponse(content, headers={"Content-Security-Policy": policy})


def _refused(request: Request, error: Exception) -> Response:
    status = 400
    if isinstance(error, MissingError):
        status = 404
    elif isinstance(error, MissingExtraError):
        status = 501
    elif isinstance(error, OutputError):
        status = 507
    return refused(status, str(error))


def _vanished(request: Request, error: Exception) -> Response:
    """A file that is not there: no wonder where its session was forgotten meanwhile."""
    name = request.path_params.get("name")
    if name is not None:
        try:
            request.app.state.desk.store.session(name)
        except MissingError as missing:
            return _refused(request, missing)
    raise error


def _broken(request: Request, error: Exception) -> Response:
    return refused(500, f"something went wrong in Tonewood itself: {error!r}")
