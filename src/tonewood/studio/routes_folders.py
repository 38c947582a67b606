"""Routes of folders on the server: choose folders, audit, train, enhance a whole folder."""

import json
import shutil
import threading
import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from pydantic import Field

from tonewood.audio_io.reader import read_recording, write_recording
from tonewood.data.loading import check_distinct_folders
from tonewood.enhancement.editing import Edit
from tonewood.enhancement.mask_search import settings_for_model
from tonewood.enhancement.output_files import sidecar_path
from tonewood.enhancement.recipe import load_recipe
from tonewood.errors import CallError, OutputError, RecipeError, printable
from tonewood.setting_types import Settings
from tonewood.settings import EnhanceSettings
from tonewood.studio.database import NotFoundError
from tonewood.studio.registries import FolderRegistry
from tonewood.studio.routes_downloads import BROWSER_AUDIO_SUFFIXES, PLAYBACK_FORMAT
from tonewood.studio.routes_sessions import JobResponse, SessionResponse, StudioDependency, responds_with
from tonewood.studio.session_archive import validate_session_mask
from tonewood.studio.session_masks import mask_path
from tonewood.studio.state import StudioState
from tonewood.studio.uploads import audio_suffix, decode_to_session, title_from_filename
from tonewood.web.errors import declare_media

_CONVERSION_LOCK = threading.Lock()
folder_routes = APIRouter()


class ChosenFolders(Settings, strict=True):
    """Ids of the reference and the source folder."""

    reference: str
    source: str


class TrainingRequest(ChosenFolders):
    """Folders and name of a new model."""

    name: str = Field(min_length=1, max_length=80)
    domain: str = Field("", max_length=200)
    # FastAPI validates parsed JSON, whose arrays are lists; a strict tuple would refuse them.
    fix: tuple[str, ...] = Field((), max_length=3, strict=False)


class BatchRequest(Settings, strict=True):
    """Ids of an input and an output folder; `into` names a new folder in the output folder."""

    input: str
    output: str
    into: str = Field("", max_length=80)
    model: str
    amount: float = Field(1.0, ge=0, le=1)
    overwrite: bool = False


def require_folders(studio: StudioState) -> FolderRegistry:
    """Return the folders that may be chosen; raise CallError if the server permits none."""
    if studio.folders is None:
        raise CallError("this server does not permit the choice of folders: start it with --root DIR")
    return studio.folders


@folder_routes.get("/places")
def browse_folder(
    studio: StudioDependency, at: Annotated[str | None, Query(max_length=64)] = None
) -> dict[str, Any]:
    """Return a folder and its content."""
    return require_folders(studio).folder_view(at)


@folder_routes.post("/audits", status_code=202, responses=responds_with(JobResponse, 202))
def start_audit(sides: ChosenFolders, studio: StudioDependency) -> dict[str, Any]:
    """Start a confound audit of two folders."""
    return studio.jobs.submit("audit", _resolve_sides(studio, sides)).to_json()


@folder_routes.post("/trainings", status_code=202, responses=responds_with(JobResponse, 202))
def start_training(training: TrainingRequest, studio: StudioDependency) -> dict[str, Any]:
    """Start to train a model from two folders."""
    target = studio.models.new_model_path(training.name)
    # The last assignment wins: the server's own options override those of the page.
    request = {
        **_resolve_sides(studio, training),
        "target": str(target),
        "domain": training.domain,
        "settings": [f"training.fix={json.dumps(training.fix)}", *studio.training_options],
    }
    return studio.jobs.submit("train", request).to_json()


@folder_routes.post("/batches", status_code=202, responses=responds_with(JobResponse, 202))
def start_batch(folder: BatchRequest, studio: StudioDependency) -> dict[str, Any]:
    """Start to enhance all recordings of a folder into another folder."""
    folders = require_folders(studio)
    inputs, output = folders.resolve(folder.input), folders.resolve(folder.output)
    if folder.into:
        # A page may write only below folders that it was shown, so the name must not lead elsewhere.
        is_plain_name = folder.into.isprintable() and Path(folder.into).name == folder.into
        if not is_plain_name or folder.into.startswith("."):
            raise CallError(
                f"{printable(folder.into)} is not a plain folder name: choose one without separators"
            )
        output = output / folder.into
    if output == inputs:
        raise OutputError("the outputs would replace the recordings: choose another folder")
    model = studio.models.get(folder.model)  # a damaged model is reported now, not by the job
    settings = settings_for_model(EnhanceSettings().replace(render=dict(amount=folder.amount)), model)
    request = {
        "input": str(inputs),
        "output": str(output),
        "model": studio.models.resolve_source(folder.model),
        "settings": settings.model_dump(mode="json"),
        "overwrite": folder.overwrite,
        "root": str(folders.root),
    }
    return studio.jobs.submit("batch", request).to_json()


@folder_routes.get(
    "/jobs/{job}/files/{row}/{which}",
    response_class=FileResponse,
    responses=declare_media("audio/*", ranges=True),
)
def get_batch_audio(
    job: str, row: Annotated[int, InPath(ge=0)], which: str, studio: StudioDependency
) -> FileResponse:
    """Return an input or output of a batch as a file that browsers play."""
    # A row has an output once its recording is done.
    rows = studio.jobs.get(job).progress.get("rows", [])
    if row >= len(rows) or which not in ("input", "output") or which not in rows[row]:
        raise NotFoundError("this file does not exist yet: wait until the batch is done")
    path = Path(rows[row][which])
    if not path.is_file() or not require_folders(studio).contains(path):
        raise NotFoundError("this file does not exist any more: start the batch again")
    if path.suffix.lower() in BROWSER_AUDIO_SUFFIXES:
        return FileResponse(path)
    cache = studio.database.folder / "played"
    cache.mkdir(exist_ok=True)
    target = cache / f"{job}-{row}-{which}.flac"
    with _CONVERSION_LOCK:  # a page asks for a file in several parts at once
        if not target.exists():
            recording = read_recording(path)
            write_recording(target, np.asarray(recording.samples), recording.rate, PLAYBACK_FORMAT)
    return FileResponse(target)


@folder_routes.post(
    "/jobs/{job}/rows/{row}/session", status_code=201, responses=responds_with(SessionResponse, 201)
)
def open_batch_row(job: str, row: Annotated[int, InPath(ge=0)], studio: StudioDependency) -> dict[str, Any]:
    """Create a session from a recording of a batch, with the mask that the batch found."""
    rows = studio.jobs.get(job).progress.get("rows", [])
    if row >= len(rows) or "output" not in rows[row]:
        raise NotFoundError("this recording is not enhanced yet: wait until the batch is done")
    source, recipe_path = Path(rows[row]["input"]), sidecar_path(Path(rows[row]["output"]))
    if not source.is_file() or not recipe_path.is_file():
        raise NotFoundError("this recording or its recipe does not exist any more: start the batch again")
    identity, folder = studio.database.create_session_folder()
    try:
        upload = folder / f"upload{audio_suffix(source.name)}"
        shutil.copyfile(source, upload)
        recording = decode_to_session(upload, folder, title_from_filename(source.name))
        recipe = load_recipe(recipe_path)
        validate_session_mask(recipe, recording)
        recipe.save(mask_path(folder, 0))
        model = studio.models.find_by_digest(recipe.model.digest) or studio.models.default
        studio.database.add_session(identity, recording.name, recording, model)
        is_there = recipe.certificate.verdict == "unneeded"
        amount = 0.0 if is_there else recipe.settings.render.amount
        studio.database.append_edit(identity, Edit(amount=amount), 0)
    except (zipfile.BadZipFile, RecipeError) as error:
        studio.database.discard_session(identity)
        raise CallError(
            f"the recipe of {recording.name} is damaged or of another recording: start the batch again"
        ) from error
    except BaseException:
        studio.database.discard_session(identity)
        raise
    return studio.session_view(identity)


def _resolve_sides(studio: StudioState, sides: ChosenFolders) -> dict[str, Any]:
    folders = require_folders(studio)
    reference, source = folders.resolve(sides.reference), folders.resolve(sides.source)
    check_distinct_folders(reference, source)
    return {"reference": str(reference), "source": str(source), "root": str(folders.root)}
