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
from tonewood.studio import routes_downloads, routes_folders, routes_media, routes_sessions
from tonewood.studio.database import NotFoundError
from tonewood.studio.state import StudioState
from tonewood.web import (
    CONTENT_SECURITY_POLICY,
    RequestLimits,
    accepted_hostnames,
    is_loopback,
    secure,
)
from tonewood.web.errors import declare_errors, error_response, install_error_handlers

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

DEFAULT_UPLOAD_LIMITS = RequestLimits(body_bytes=2 * 2**30, seconds=1_800.0)
STATIC_FOLDER = Path(str(resources.files("tonewood.studio"))) / "static"


def create_studio_app(desk: StudioState, upload: RequestLimits = DEFAULT_UPLOAD_LIMITS) -> FastAPI:
    """Routes over a desk, unguarded; of `upload_path` the page is told."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk.jobs.start()
        try:
            yield
        finally:
            desk.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.desk, app.state.upload_bytes = desk, upload.body_bytes
    for part in (routes_sessions, routes_media, routes_downloads, routes_folders):
        app.include_router(part.routes, prefix="/api", responses=declare_errors(404, 501, 507))
    install_error_handlers(app)
    app.add_exception_handler(TonewoodError, _respond_to_tonewood_error)
    # What Starlette raises for a file that is gone before it could be sent is a RuntimeError.
    for vanished in (FileNotFoundError, RuntimeError):
        app.add_exception_handler(vanished, _respond_to_missing_file)
    app.add_exception_handler(Exception, _respond_to_internal_error)
    app.add_api_route("/", _serve_index_page, methods=["GET"], response_class=HTMLResponse)
    app.mount("/assets", _ImmutableAssets(directory=STATIC_FOLDER / "assets", check_dir=False))
    app.mount("/", StaticFiles(directory=STATIC_FOLDER, check_dir=False))
    return app


def create_secure_studio_app(
    desk: StudioState,
    *,
    host: str = "127.0.0.1",
    token: str | None = None,
    upload: RequestLimits = DEFAULT_UPLOAD_LIMITS,
) -> "ASGIApp":
    """Guarded application; beyond this machine it needs a token."""
    assert is_loopback(host) or token
    return secure(
        create_studio_app(desk, upload),
        token=token,
        hosts=accepted_hostnames(host),
        limits_by_path={"/api/recordings": upload},
    )


class _ImmutableAssets(StaticFiles):
    """Built files, whose names change with what they hold: kept by the browser for ever."""

    async def get_response(self, path: str, scope: "Scope") -> Response:
        """Answer as usual, and say that it may be kept."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def _serve_index_page() -> HTMLResponse:
    """The page; what wavesurfer styles itself by is allowed by a nonce of its own."""
    nonce = secrets.token_urlsafe(16)
    content = (STATIC_FOLDER / "index.html").read_text(encoding="utf-8").replace("__NONCE__", nonce)
    policy = CONTENT_SECURITY_POLICY.replace("style-src 'self'", f"style-src 'self' 'nonce-{nonce}'")
    return HTMLResponse(content, headers={"Content-Security-Policy": policy})


def _respond_to_tonewood_error(request: Request, error: Exception) -> Response:
    status = 400
    if isinstance(error, NotFoundError):
        status = 404
    elif isinstance(error, MissingExtraError):
        status = 501
    elif isinstance(error, OutputError):
        status = 507
    return error_response(status, str(error))


def _respond_to_missing_file(request: Request, error: Exception) -> Response:
    """A file that is not there: no wonder where its session was forgotten meanwhile."""
    name = request.path_params.get("name")
    if name is not None:
        try:
            request.app.state.desk.store.session(name)
        except NotFoundError as missing:
            return _respond_to_tonewood_error(request, missing)
    raise error


def _respond_to_internal_error(request: Request, error: Exception) -> Response:
    return error_response(500, f"something went wrong in Tonewood itself: {error!r}")
