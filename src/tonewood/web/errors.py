"""Answers as they are declared; refusals, in one shape.

A refusal is `{"error": reason}`, in characters that any text may be sent in: reasons quote what
came, and that need not be valid Unicode, nor a number that JSON knows.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tonewood.settings import Settings

ResponseSpecs = dict[int | str, dict[str, Any]]
"""Answers by status, as FastAPI takes them."""


class ErrorResponse(Settings):
    """Why something was not done, in one line."""

    error: str


def declare_errors(*statuses: int) -> ResponseSpecs:
    """Declare refusals of these statuses, beside those of the guard and of misspelt requests."""
    guards = (400, 401, 403, 408, 413, 421)
    return {
        status: {"model": ErrorResponse, "description": HTTPStatus(status).phrase}
        for status in sorted({*guards, 422, *statuses})
    }


def declare_media(*media_types: str, ranges: bool = False) -> ResponseSpecs:
    """Declare an answer of these media types; in ranges too, if it is sent in `ranges`."""
    content: dict[str, Any] = {kind: {} for kind in media_types}
    told: ResponseSpecs = {200: {"description": "OK", "content": content}}
    if ranges:
        told[206] = {"description": "Partial Content", "content": content}
        told[416] = {"description": "Range Not Satisfiable"}
    return told


def error_response(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """Answer that says why not."""
    content = json.dumps({"error": reason})
    return Response(content, status, headers, media_type="application/json")


def install_error_handlers(app: FastAPI) -> None:
    """Let an application refuse in that shape what FastAPI refuses for it."""
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(HTTPException, _handle_http_error)
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)


def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(422, "the request is no JSON")
    where = ".".join(str(part) for part in first["loc"][1:])
    told = first["msg"].lower()
    return error_response(422, f"{where}: {told}" if where else told)


def _handle_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, str(error.detail).lower(), error.headers)


def _handle_disconnect(request: Request, error: Exception) -> Response:
    """An answer that nobody waits for: the client broke the connection."""
    return error_response(400, "the request was broken off")
