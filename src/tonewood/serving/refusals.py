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

Declared = dict[int | str, dict[str, Any]]
"""Answers by status, as FastAPI takes them."""


class Refusal(Settings):
    """Why something was not done, in one line."""

    error: str


def refusing(*statuses: int) -> Declared:
    """Declare refusals of these statuses, beside those of the guard and of misspelt requests."""
    guards = (400, 401, 403, 408, 413, 421)
    return {
        status: {"model": Refusal, "description": HTTPStatus(status).phrase}
        for status in sorted({*guards, 422, *statuses})
    }


def sending(*kinds: str, parts: bool = False) -> Declared:
    """Declare an answer of these media types; in ranges too, if it is sent in `parts`."""
    content: dict[str, Any] = {kind: {} for kind in kinds}
    told: Declared = {200: {"description": "OK", "content": content}}
    if parts:
        told[206] = {"description": "Partial Content", "content": content}
        told[416] = {"description": "Range Not Satisfiable"}
    return told


def refused(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """Answer that says why not."""
    content = json.dumps({"error": reason})
    return Response(content, status, headers, media_type="application/json")


def refuse_alike(app: FastAPI) -> None:
    """Let an application refuse in that shape what FastAPI refuses for it."""
    app.add_exception_handler(RequestValidationError, _misspelt)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)


def _misspelt(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return refused(422, "the request is no JSON")
    where = ".".join(str(part) for part in first["loc"][1:])
    told = first["msg"].lower()
    return refused(422, f"{where}: {told}" if where else told)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refused(error.status_code, str(error.detail).lower(), error.headers)


def _gone(request: Request, error: Exception) -> Response:
    """An answer that nobody waits for: the client broke the connection."""
    return refused(400, "the request was broken off")
