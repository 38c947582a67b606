"""Routes of downloads: audio in any format, recipe, picture, certificate, equaliser settings, session."""

import asyncio
import mimetypes
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES, AudioFormat
from tonewood.audio_io.reader import write_recording
from tonewood.dsp.equalizer import Phase
from tonewood.enhancement.analysis import ArraySource, analyse_source
from tonewood.enhancement.plotting import check_matplotlib, enhancement_title, plot_enhancement
from tonewood.enhancement.recipe import RECIPE_SUFFIX
from tonewood.errors import CallError, TonewoodError
from tonewood.export.export import (
    AverageCurve,
    Correction,
    correction_of_recipe,
    export_automation,
    export_graphic_eq,
    export_impulse_response,
    export_parametric_eq,
)
from tonewood.mask.components import component_labels
from tonewood.mask.render import effective_mask
from tonewood.studio.database import DOWNLOAD_PREFIX, EditState, NotFoundError, StudioSession
from tonewood.studio.routes_sessions import StudioDependency
from tonewood.studio.session_archive import SESSION_SUFFIX, write_session_archive
from tonewood.studio.session_audio import (
    FullRender,
    PlaybackSource,
    build_edited_recipe,
    get_full_render,
    open_full_render,
)
from tonewood.studio.session_masks import compose_edited_masks
from tonewood.studio.state import StudioState
from tonewood.utils.files import write_bytes, write_text
from tonewood.web.errors import declare_media

download_routes = APIRouter()

BROWSER_AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus"})
"""Files that browsers play; others are converted to `PLAYBACK_FORMAT`."""
PLAYBACK_FORMAT = AudioFormat("FLAC", "PCM_24")  # 24 bits are the most that libsndfile writes to FLAC
_OCTET_STREAM = "application/octet-stream"
_PARAMETRIC_BANDS = 10
_MAX_RENDER_ATTEMPTS = 20


class EqualizerExport(NamedTuple):
    """An export of the correction for another program."""

    title: str
    suffix: str
    write: Callable[[Correction, Path], object]


def _impulse_response(title: str, phase: Phase) -> EqualizerExport:
    def write(correction: Correction, path: Path) -> object:
        return export_impulse_response(AverageCurve(correction), phase, path, overwrite=True)

    return EqualizerExport(title, ".wav", write)


def _parametric_eq(title: str, suffix: str, file_format: str) -> EqualizerExport:
    def write(correction: Correction, path: Path) -> object:
        # A preset that boosts would clip in a player.
        curve = AverageCurve(correction, headroom=True)
        return export_parametric_eq(curve, _PARAMETRIC_BANDS, path, file_format=file_format, overwrite=True)

    return EqualizerExport(title, suffix, write)


def _automation(title: str, suffix: str, file_format: str) -> EqualizerExport:
    def write(correction: Correction, path: Path) -> object:
        return export_automation(correction, path, file_format=file_format, overwrite=True)

    return EqualizerExport(title, suffix, write)


def _write_graphic_eq(correction: Correction, path: Path) -> object:
    return export_graphic_eq(AverageCurve(correction, headroom=True), path, overwrite=True)


EQUALIZER_EXPORTS: dict[str, EqualizerExport] = {
    "impulse-linear": _impulse_response("impulse response, linear phase", "linear"),
    "impulse-minimum": _impulse_response("impulse response, minimum phase", "minimum"),
    "apo": _parametric_eq("bands for Equalizer APO", ".txt", "apo"),
    "autoeq": _parametric_eq("bands as AutoEq writes them", ".txt", "autoeq"),
    "rew": _parametric_eq("bands for REW", ".txt", "rew"),
    "camilladsp": _parametric_eq("bands for CamillaDSP", ".yml", "camilladsp"),
    "graphic-eq": EqualizerExport("GraphicEQ line for players", ".txt", _write_graphic_eq),
    "automation": _automation("automation as a table", ".csv", "csv"),
    "reaper": _automation("automation for Reaper", ".jsfx", "jsfx"),
}
"""Exports by name; the page offers all of them."""


def _file_route(*media_types: str) -> dict[str, Any]:
    """Return the declaration of a route that sends a file."""
    return {"response_class": FileResponse, "responses": declare_media(*media_types, ranges=True)}


@download_routes.get("/formats")
def list_formats(request: Request) -> dict[str, Any]:
    """List the upload limit, the suffixes of audio files and the equaliser exports."""
    return {
        "upload_bytes": request.app.state.upload_bytes,
        "sounds": sorted(WRITABLE_SUFFIXES),
        "equalisers": [{"name": name, "title": form.title} for name, form in EQUALIZER_EXPORTS.items()],
    }


@download_routes.get(
    "/sessions/{name}/take/equaliser/{kind}", **_file_route("text/*", "audio/*", "application/*")
)
async def download_equalizer(name: str, kind: str, studio: StudioDependency) -> FileResponse:
    """Return the correction in the format of another program."""
    form = EQUALIZER_EXPORTS.get(kind)
    if form is None:
        names = ", ".join(EQUALIZER_EXPORTS)
        raise NotFoundError(f"this equaliser format does not exist: choose one of {names}")
    session, state, render = await _wait_for_render(studio, name)
    path = _download_path(session, render.key, form.suffix)

    def write() -> None:
        recipe = build_edited_recipe(session, state, studio.model_for_edit(session, state), render)
        form.write(correction_of_recipe(_title_stem(session), recipe), path)

    await asyncio.to_thread(write)  # the event loop answers other requests meanwhile
    return _temporary_file_response(path, f"{_title_stem(session)}-{kind}{form.suffix}")


@download_routes.get("/sessions/{name}/take/audio", **_file_route("audio/*", _OCTET_STREAM))
async def download_audio(
    name: str, studio: StudioDependency, format: Annotated[str, Query(pattern=r"^\.?[a-z0-9]{1,5}$")] = ""
) -> FileResponse:
    """Return the output, by default in the recording's own format."""
    session, state, render = await _wait_for_render(studio, name)
    # The pattern keeps separators out of the suffix, which becomes part of a path.
    suffix = f".{format.lstrip('.')}" if format else Path(session.recording.upload).suffix or ".wav"
    path = _download_path(session, render.key, suffix)
    await asyncio.to_thread(_write_download_audio, session, state, render, path)
    word = "original" if state.edit.amount == 0 else "enhanced"
    return _temporary_file_response(path, f"{_title_stem(session)}-{word}{suffix}")


@download_routes.get("/sessions/{name}/take/recipe", **_file_route("application/json"))
async def download_recipe(name: str, studio: StudioDependency) -> FileResponse:
    """Return the recipe of the output: mask, settings, model, certificate."""
    session, state, render = await _wait_for_render(studio, name)
    path = _download_path(session, render.key, RECIPE_SUFFIX)

    def write() -> None:
        model = studio.model_for_edit(session, state)
        build_edited_recipe(session, state, model, render).save(path, overwrite=True)

    await asyncio.to_thread(write)
    return _temporary_file_response(path, f"{_title_stem(session)}-enhanced{RECIPE_SUFFIX}")


@download_routes.get("/sessions/{name}/take/picture", **_file_route("image/png"))
async def download_picture(name: str, studio: StudioDependency) -> FileResponse:
    """Return a picture of input, mask and output, as `tonewood enhance --plot` draws it."""
    check_matplotlib("a picture")  # before the rendering, which may take long
    session, state, render = await _wait_for_render(studio, name)
    path = _download_path(session, render.key, ".png")
    await asyncio.to_thread(_draw_session_picture, studio, session, state, render, path)
    return _temporary_file_response(path, f"{_title_stem(session)}-enhanced.png")


@download_routes.get("/sessions/{name}/take/certificate", **_file_route("application/json"))
async def download_certificate(name: str, studio: StudioDependency) -> FileResponse:
    """Return the certificate of the output as JSON."""
    session, _, render = await _wait_for_render(studio, name)
    if render.certificate is None:
        raise CallError("this session has no certificate yet: enhance the recording first")
    path = _download_path(session, render.key, ".certificate.json")
    write_text(path, render.certificate.model_dump_json(indent=1) + "\n", overwrite=True)
    return _temporary_file_response(path, f"{_title_stem(session)}-certificate.json")


@download_routes.get("/sessions/{name}/take/session", **_file_route(_OCTET_STREAM))
async def download_session(name: str, studio: StudioDependency) -> FileResponse:
    """Return the session as a file that can be uploaded again."""
    session = studio.database.get_session(name)
    path = _download_path(session, "session", SESSION_SUFFIX)
    await asyncio.to_thread(write_session_archive, studio, session, path)
    return _temporary_file_response(path, f"{_title_stem(session)}{SESSION_SUFFIX}")


@download_routes.get("/sessions/{name}/audio/{which}", **_file_route("audio/*"))
async def play_session_audio(name: str, which: PlaybackSource, studio: StudioDependency) -> FileResponse:
    """Return the recording or the output as a file that browsers play; ranges are supported."""
    session = studio.database.get_session(name)
    # The original file needs no conversion if the browser can play it.
    if which == "input" and session.upload_path.suffix in BROWSER_AUDIO_SUFFIXES:
        return FileResponse(session.upload_path)
    session, state, render = await _wait_for_render(studio, name)
    path = session.folder / f"played-{which}-{render.key}.flac"
    if which == "output":
        await asyncio.to_thread(_write_download_audio, session, state, render, path)
    elif not path.exists():
        samples, rate = session.open_samples(), session.recording.rate
        await asyncio.to_thread(write_recording, path, samples, rate, PLAYBACK_FORMAT)
    return FileResponse(path)


async def _wait_for_render(studio: StudioState, name: str) -> tuple[StudioSession, EditState, FullRender]:
    """Render the current edit of a session and wait for the result."""
    for _ in range(_MAX_RENDER_ATTEMPTS):  # the edit may change during a rendering
        job = studio.submit_full_render(name)
        if job is not None:
            await studio.jobs.wait_until_finished(job)
            if job.state == "failed":
                raise TonewoodError(job.progress["error"])
        session, state = studio.database.get_session(name), studio.database.get_state(name)
        render = get_full_render(session, state)
        if render is not None:
            return session, state, render
    raise CallError("the edit changes faster than it can be rendered: stop changing it for a moment")


def _write_download_audio(session: StudioSession, state: EditState, render: FullRender, path: Path) -> None:
    source_format = AudioFormat(*session.recording.encoding)
    try:
        form = AudioFormat.for_path(path, source_format)
        if state.edit.amount == 0 and form == source_format:
            # A copy is exact; float32 samples of 32-bit integers or mp3 would not be.
            write_bytes(path, session.upload_path.read_bytes(), overwrite=True)
            return
        samples, rate = open_full_render(session, render.key), session.recording.rate
        write_recording(path, samples, rate, form, overwrite=True, tags_from=session.upload_path)
    except TonewoodError as error:  # the page does not receive paths of the server
        raise CallError(str(error).replace(str(path), f"{_title_stem(session)}{path.suffix}")) from None


def _draw_session_picture(
    studio: StudioState, session: StudioSession, state: EditState, render: FullRender, path: Path
) -> None:
    model = studio.model_for_edit(session, state)
    recipe = build_edited_recipe(session, state, model, render)
    assert render.certificate is not None
    rate = session.recording.rate
    before = analyse_source(ArraySource(session.open_samples(), rate), model)
    # The stored rendering contains its loudness gain already.
    after = analyse_source(ArraySource(open_full_render(session, render.key), rate), model)
    masks = compose_edited_masks(session, state, model)
    plot_enhancement(
        path,
        before.wave,
        after.wave,
        [effective_mask(mask, recipe.settings.render, recipe.spectrum) for mask in masks],
        recipe.spectrum,
        title=enhancement_title(session.title, model, render.certificate.scorer),
        labels=component_labels(session.recording.channels, recipe.settings.render.link),
        overwrite=True,
    )


def _title_stem(session: StudioSession) -> str:
    return Path(session.title).stem or "recording"


def _download_path(session: StudioSession, key: str, suffix: str) -> Path:
    """Return a unique path for a file that is sent and deleted; requests may run at the same time."""
    return session.folder / f"{DOWNLOAD_PREFIX}{key}-{secrets.token_hex(4)}{suffix}"


def _temporary_file_response(path: Path, name: str) -> FileResponse:
    """Return a response that sends a file as `name` and then deletes it."""
    # The same address gives another file after the next edit, hence no-store.
    media_type = mimetypes.guess_type(path.name)[0] or _OCTET_STREAM
    return FileResponse(
        path, filename=name, media_type=media_type, headers={"Cache-Control": "no-store"},
        background=BackgroundTask(path.unlink, missing_ok=True),
    )  # fmt: skip
