"""What the studio's answers look like, as its OpenAPI document declares them."""

from typing import Any, Literal

from pydantic import Field

from tonewood.serving.refusals import ResponseSpecs
from tonewood.settings import Settings
from tonewood.studio.sound import PlaybackLevels
from tonewood.workflow.edit import Edit


class JobResponse(Settings):
    """Work that takes a while."""

    id: str
    session: str | None
    kind: Literal["enhance", "again", "explain", "whole", "audit", "train", "batch"]
    state: Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
    told: dict[str, Any]
    created: float


class SessionSummary(Settings):
    """A session in a list."""

    id: str
    title: str
    changed: float
    seconds: float = Field(gt=0)
    model: str


class StateResponse(Settings):
    """Where a session's history stands."""

    number: int = Field(ge=0)
    found: int | None = Field(ge=0)
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
    """A session with all that its page needs."""

    sound: dict[str, Any]
    axes: dict[str, Any]
    state: StateResponse
    saliency: dict[str, Any] | None
    jobs: list[JobResponse]


def responds_with(model: type[Any], status: int = 200) -> ResponseSpecs:
    """Declare an answer of that shape; it is not checked when it is sent."""
    return {status: {"model": model}}
