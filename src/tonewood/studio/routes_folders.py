"""Routes of folders on this machine: choose them, audit, train, enhance whole folders."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from pydantic import Field

from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import read_recording, write_recording
from tonewood.data.loading import check_distinct_folders
from tonewood.errors import CallError, OutputError, printable
from tonewood.settings import EnhanceSettings, Settings
from tonewood.studio.database import NotFoundError
from tonewood.studio.registries import FolderRegistry
from tonewood.studio.routes_downloads import BROWSER_AUDIO_SUFFIXES
from tonewood.studio.routes_sessions import JobResponse, StudioDependency, responds_with
from tonewood.studio.state import StudioState
from tonewood.web.errors import declare_media

routes = APIRouter()


class ChosenFolders(Settings, strict=True):
    """Two folders, by their ids."""

    reference: str
    source: str


class TrainingRequest(ChosenFolders):
    """A model to be trained."""

    name: str = Field(min_length=1, max_length=80)
    domain: str = Field("", max_length=200)
    fix: tuple[str, ...] = Field((), max_length=3, strict=False)


class BatchRequest(Settings, strict=True):
    """A folder to be enhanced into another, by their ids; `into` is a new folder's name."""

    input: str
    output: str
    into: str = Field("", max_length=80)
    model: str
    amount: float = Field(1.0, ge=0, le=1)
    overwrite: bool = False


def require_folders(desk: StudioState) -> FolderRegistry:
    """Folders, where they may be chosen."""
    if desk.folders is None:
        raise CallError(
            "this server does not let folders be chosen: start it with --root to name one that may"
        )
    return desk.folders


@routes.get("/places")
def browse_folder(
    desk: StudioDependency, at: Annotated[str | None, Query(max_length=64)] = None
) -> dict[str, Any]:
    """A folder and what is in it."""
    return require_folders(desk).folder_view(at)


@routes.post("/audits", status_code=202, responses=responds_with(JobResponse, 202))
def start_audit(sides: ChosenFolders, desk: StudioDependency) -> dict[str, Any]:
    """Ask what tells two folders apart besides the instrument."""
    return desk.jobs.submit("audit", _resolve_sides(desk, sides)).to_json()


@routes.post("/trainings", status_code=202, responses=responds_with(JobResponse, 202))
def start_training(training: TrainingRequest, desk: StudioDependency) -> dict[str, Any]:
    """Learn a model from two folders."""
    target = desk.models.new_model_path(training.name)
    asked = {
        **_resolve_sides(desk, training),
        "target": str(target),
        "domain": training.domain,
        "settings": [f"training.fix={json.dumps(training.fix)}", *desk.training_options],
    }
    return desk.jobs.submit("train", asked).to_json()


@routes.post("/batches", status_code=202, responses=responds_with(JobResponse, 202))
def start_batch(folder: BatchRequest, desk: StudioDependency) -> dict[str, Any]:
    """Enhance every recording below a folder into another."""
    places = require_folders(desk)
    inputs, out = places.resolve(folder.input), places.resolve(folder.output)
    if folder.into:
        plain = folder.into.isprintable() and Path(folder.into).name == folder.into
        if not plain or folder.into.startswith("."):
            raise CallError(f"{printable(folder.into)} is no plain name: give the new folder another")
        out = out / folder.into
    if out == inputs:
        raise OutputError("the outputs would replace the recordings: choose another folder")
    desk.models.get(folder.model)
    settings = EnhanceSettings().replace(render=dict(amount=folder.amount))
    asked = {
        "input": str(inputs),
        "output": str(out),
        "model": desk.models.resolve_source(folder.model),
        "settings": settings.model_dump(mode="json"),
        "overwrite": folder.overwrite,
    }
    return desk.jobs.submit("batch", asked).to_json()


@routes.get(
    "/jobs/{job}/files/{row}/{which}",
    response_class=FileResponse,
    responses=declare_media("audio/*", ranges=True),
)
def get_batch_audio(
    job: str, row: Annotated[int, InPath(ge=0)], which: str, desk: StudioDependency
) -> FileResponse:
    """A recording of a batch, or what became of it, as a file that browsers play."""
    rows = desk.jobs.get(job).progress.get("rows", [])
    if row >= len(rows) or which not in ("input", "output") or which not in rows[row]:
        raise NotFoundError("there is no such file yet: wait until it is done")
    path = Path(rows[row][which])
    if not path.is_file():
        raise NotFoundError("that file is not there any more")
    if path.suffix.lower() in BROWSER_AUDIO_SUFFIXES:
        return FileResponse(path)
    cache = desk.database.folder / "played"
    cache.mkdir(exist_ok=True)
    target = cache / f"{job}-{row}-{which}.flac"
    if not target.exists():
        recording = read_recording(path)
        samples = np.asarray(recording.samples)
        write_recording(target, samples, recording.rate, AudioFormat("FLAC", "PCM_24"))
    return FileResponse(target)


def _resolve_sides(desk: StudioState, sides: ChosenFolders) -> dict[str, Any]:
    places = require_folders(desk)
    reference, source = places.resolve(sides.reference), places.resolve(sides.source)
    check_distinct_folders(reference, source)
    return {"reference": str(reference), "source": str(source)}
