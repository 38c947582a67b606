"""The studio's web application: routes, error responses, the page and its static files."""

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
from tonewood.studio.database import ConflictError, NotFoundError
from tonewood.studio.job_queue import INTERNAL_ERROR
from tonewood.studio.routes_downloads import download_routes
from tonewood.studio.routes_folders import folder_routes
from tonewood.studio.routes_media import media_routes
from tonewood.studio.routes_sessions import session_routes
from tonewood.studio.state import StudioState
from tonewood.web import CONTENT_SECURITY_POLICY, RequestLimits, accepted_hostnames, is_loopback, secure
from tonewood.web.errors import declare_errors, error_response, install_error_handlers

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

# A link of 10 Mbit/s carries 2 GiB in half an hour.
DEFAULT_UPLOAD_LIMITS = RequestLimits(body_bytes=2 * 2**30, seconds=1_800.0)
STATIC_FOLDER = Path(str(resources.files("tonewood.studio"))) / "static"


def create_studio_app(studio: StudioState, upload: RequestLimits = DEFAULT_UPLOAD_LIMITS) -> FastAPI:
    """Return the application without access control; the page shows the limit of `upload`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        studio.jobs.start()
        try:
            yield
        finally:
            studio.close()

    # FastAPI's documentation pages load scripts from another host, which the page's policy forbids.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.studio, app.state.upload_bytes = studio, upload.body_bytes
    for routes in (session_routes, media_routes, download_routes, folder_routes):
        app.include_router(routes, prefix="/api", responses=declare_errors(404, 501, 507))
    install_error_handlers(app)
    app.add_exception_handler(TonewoodError, _respond_to_tonewood_error)
    # Starlette raises RuntimeError for a file that disappears before it is sent.
    for missing in (FileNotFoundError, RuntimeError):
        app.add_exception_handler(missing, _respond_to_missing_file)
    app.add_exception_handler(Exception, _respond_to_internal_error)
    for path in ("/", "//"):  # the second is a frequent slip
        app.add_api_route(path, _serve_index_page, methods=["GET"], response_class=HTMLResponse)
    # Routes match in this order, so the folder that answers every path comes last.
    app.mount("/assets", _ImmutableAssets(directory=STATIC_FOLDER / "assets", check_dir=False))
    app.mount("/", StaticFiles(directory=STATIC_FOLDER, check_dir=False))
    return app


def create_secure_studio_app(
    studio: StudioState,
    *,
    host: str = "127.0.0.1",
    token: str | None = None,
    upload: RequestLimits = DEFAULT_UPLOAD_LIMITS,
) -> "ASGIApp":
    """Return the application with access control; hosts other than this machine require a token."""
    assert is_loopback(host) or token
    return secure(
        create_studio_app(studio, upload),
        token=token,
        hosts=accepted_hostnames(host),
        limits_by_path={"/api/recordings": upload},
    )


class _ImmutableAssets(StaticFiles):
    """Built files: a browser may cache them for ever, because their names contain a content hash."""

    async def get_response(self, path: str, scope: "Scope") -> Response:
        """Return the file with a header that permits caching."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def _serve_index_page() -> HTMLResponse:
    """Return the page; a nonce permits the style element that wavesurfer inserts."""
    nonce = secrets.token_urlsafe(16)  # new for each response, as the policy requires
    content = (STATIC_FOLDER / "index.html").read_text(encoding="utf-8").replace("__NONCE__", nonce)
    policy = CONTENT_SECURITY_POLICY.replace("style-src 'self'", f"style-src 'self' 'nonce-{nonce}'")
    return HTMLResponse(content, headers={"Content-Security-Policy": policy})


def _respond_to_tonewood_error(request: Request, error: Exception) -> Response:
    status = 400
    if isinstance(error, NotFoundError):
        status = 404
    elif isinstance(error, ConflictError):
        status = 412  # Precondition Failed
    elif isinstance(error, MissingExtraError):
        status = 501
    elif isinstance(error, OutputError):
        status = 507  # Insufficient Storage: a full disk is the usual reason
    return error_response(status, str(error))


def _respond_to_missing_file(request: Request, error: Exception) -> Response:
    """Return 404 if the file is missing because its session was deleted during the request."""
    name = request.path_params.get("name")
    if name is not None:
        try:
            request.app.state.studio.database.get_session(name)
        except NotFoundError as deleted:
            return _respond_to_tonewood_error(request, deleted)
    raise error  # a file of an existing session is missing, which is an error of ours


def _respond_to_internal_error(request: Request, error: Exception) -> Response:
    return error_response(500, INTERNAL_ERROR.format(error))
