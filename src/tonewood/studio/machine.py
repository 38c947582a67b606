"""Routes of folders on this machine: choose them, audit, train, enhance whole folders."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from pydantic import Field

from tonewood.errors import CallError, OutputError, shown
from tonewood.files.audio import read, write
from tonewood.files.formats import AudioFormat
from tonewood.serving.refusals import sending
from tonewood.settings import EnhanceSettings, Settings, changed
from tonewood.studio.desk import Desk
from tonewood.studio.entries import MissingError
from tonewood.studio.places import Places
from tonewood.studio.sessions import AtDesk
from tonewood.studio.shapes import JobShown, showing
from tonewood.studio.taking import PLAYED
from tonewood.workflow.audit import check_distinct

routes = APIRouter()


class Sides(Settings, strict=True):
    """Two folders, by their ids."""

    reference: str
    source: str


class Training(Sides):
    """A model to be trained."""

    name: str = Field(min_length=1, max_length=80)
    domain: str = Field("", max_length=200)
    fix: tuple[str, ...] = Field((), max_length=3, strict=False)


class Folder(Settings, strict=True):
    """A folder to be enhanced into another, by their ids; `into` is a new folder's name."""

    input: str
    output: str
    into: str = Field("", max_length=80)
    model: str
    amount: float = Field(1.0, ge=0, le=1)
    overwrite: bool = False


def places_of(desk: Desk) -> Places:
    """Folders, where they may be chosen."""
    if desk.places is None:
        raise CallError(
            "this server does not let folders be chosen: start it with --root to name one that may"
        )
    return desk.places


@routes.get("/places")
def places(desk: AtDesk, at: Annotated[str | None, Query(max_length=64)] = None) -> dict[str, Any]:
    """A folder and what is in it."""
    return places_of(desk).shown(at)


@routes.post("/audits", status_code=202, responses=showing(JobShown, 202))
def audited(sides: Sides, desk: AtDesk) -> dict[str, Any]:
    """Ask what tells two folders apart besides the instrument."""
    return desk.jobs.add("audit", _sides(desk, sides)).shown()


@routes.post("/trainings", status_code=202, responses=showing(JobShown, 202))
def trained(training: Training, desk: AtDesk) -> dict[str, Any]:
    """Learn a model from two folders."""
    target = desk.models.target(training.name)
    asked = {
        **_sides(desk, training),
        "target": str(target),
        "domain": training.domain,
        "settings": [f"training.fix={json.dumps(training.fix)}", *desk.training],
    }
    return desk.jobs.add("train", asked).shown()


@routes.post("/batches", status_code=202, responses=showing(JobShown, 202))
def enhanced(folder: Folder, desk: AtDesk) -> dict[str, Any]:
    """Enhance every recording below a folder into another."""
    places = places_of(desk)
    inputs, out = places.path(folder.input), places.path(folder.output)
    if folder.into:
        plain = folder.into.isprintable() and Path(folder.into).name == folder.into
        if not plain or folder.into.startswith("."):
            raise CallError(f"{shown(folder.into)} is no plain name: give the new folder another")
        out = out / folder.into
    if out == inputs:
        raise OutputError("the outputs would replace the recordings: choose another folder")
    desk.models.get(folder.model)
    settings = changed(EnhanceSettings(), [f"render.amount={folder.amount}"])
    asked = {
        "input": str(inputs),
        "output": str(out),
        "model": desk.models.source(folder.model),
        "settings": settings.model_dump(mode="json"),
        "overwrite": folder.overwrite,
    }
    return desk.jobs.add("batch", asked).shown()


@routes.get(
    "/jobs/{job}/files/{row}/{which}",
    response_class=FileResponse,
    responses=sending("audio/*", parts=True),
)
def played(job: str, row: Annotated[int, InPath(ge=0)], which: str, desk: AtDesk) -> FileResponse:
    """A recording of a batch, or what became of it, as a file that browsers play."""
    rows = desk.jobs.get(job).told.get("rows", [])
    if row >= len(rows) or which not in ("input", "output") or which not in rows[row]:
        raise MissingError("there is no such file yet: wait until it is done")
    path = Path(rows[row][which])
    if not path.is_file():
        raise MissingError("that file is not there any more")
    if path.suffix.lower() in PLAYED:
        return FileResponse(path)
    cache = desk.store.folder / "played"
    cache.mkdir(exist_ok=True)
    target = cache / f"{job}-{row}-{which}.flac"
    if not target.exists():
        recording = read(path)
        samples = np.asarray(recording.samples)
        write(target, samples, recording.rate, AudioFormat("FLAC", "PCM_24"))
    return FileResponse(target)


def _sides(desk: Desk, sides: Sides) -> dict[str, Any]:
    places = places_of(desk)
    reference, source = places.path(sides.reference), places.path(sides.source)
    check_distinct(reference, source)
    return {"reference": str(reference), "source": str(source)}
