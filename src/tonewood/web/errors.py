"""Error answers of one shape, `{"error": reason}`, and declarations of answers for FastAPI."""

import json
import sqlite3
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tonewood.setting_types import Settings
from tonewood.utils.files import DISK_FULL_ERRNOS

ResponseSpecs = dict[int | str, dict[str, Any]]
"""Answers by status, as FastAPI's `responses` takes them."""
_SECURITY_STATUSES = (400, 401, 403, 408, 413, 421)


class ErrorResponse(Settings):
    """Body of an error answer: the reason in one line."""

    error: str


def declare_errors(*statuses: int) -> ResponseSpecs:
    """Declare error answers of these statuses, besides those of `secure` and of invalid requests."""
    return {
        status: {"model": ErrorResponse, "description": HTTPStatus(status).phrase}
        for status in sorted({*_SECURITY_STATUSES, 422, *statuses})
    }


def declare_media(*media_types: str, ranges: bool = False) -> ResponseSpecs:
    """Declare an answer of these media types, with `ranges` also in parts."""
    content: dict[str, Any] = {media_type: {} for media_type in media_types}
    specs: ResponseSpecs = {200: {"description": "OK", "content": content}}
    if ranges:
        specs[206] = {"description": "Partial Content", "content": content}
        specs[416] = {"description": "Range Not Satisfiable"}
    return specs


def error_response(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error answer."""
    # ASCII: reasons quote the request, which need not be valid Unicode.
    content = json.dumps({"error": reason})
    return Response(content, status, headers, media_type="application/json")


def install_error_handlers(app: FastAPI) -> None:
    """Give FastAPI's own errors the same shape."""
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(HTTPException, _handle_http_error)
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)
    app.add_exception_handler(OSError, _handle_system_error)
    app.add_exception_handler(sqlite3.OperationalError, _handle_system_error)


def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(422, "the request is not valid JSON")
    field = ".".join(str(key) for key in first["loc"][1:])
    reason = first["msg"].lower()
    return error_response(422, f"{field}: {reason}" if field else reason)


def _handle_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, str(error.detail).lower(), error.headers)


def _handle_system_error(request: Request, error: Exception) -> Response:
    """Return 507 for a full disk, 503 for anything else that the system refuses; without a path."""
    is_full = getattr(error, "errno", None) in DISK_FULL_ERRNOS or "disk is full" in str(error)
    if is_full:
        return error_response(507, "the disk of the server is full: free some space")
    reason = getattr(error, "strerror", None) or str(error)
    return error_response(503, f"the server cannot use its disk now ({reason.lower()}): try again later")


def _handle_disconnect(request: Request, error: Exception) -> Response:
    # Nobody receives this answer, but FastAPI would log an error without one.
    return error_response(400, "the client closed the connection")
