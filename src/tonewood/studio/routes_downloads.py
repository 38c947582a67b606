"""Routes of what is taken away: sound in any format, recipe, picture, certificate, session."""

import asyncio
import math
import mimetypes
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES, AudioFormat
from tonewood.audio_io.reader import write_recording
from tonewood.dsp.equalizer import Phase
from tonewood.enhancement import editing, plotting
from tonewood.enhancement import recipe as recipes
from tonewood.enhancement.analysis import ArraySource, analyse_source
from tonewood.enhancement.pipeline import StreamedEnhancement
from tonewood.errors import CallError, TonewoodError
from tonewood.export import export
from tonewood.export.export import Correction
from tonewood.mask.render import LoudnessMatch
from tonewood.studio import session_archive, session_audio
from tonewood.studio.database import EditState, NotFoundError, StudioSession
from tonewood.studio.job_functions import build_edited_recipe
from tonewood.studio.routes_sessions import StudioDependency
from tonewood.studio.state import StudioState
from tonewood.utils.atomic_write import write_bytes, write_text
from tonewood.web.errors import declare_media

routes = APIRouter()

# What browsers play: for these, the file itself; others become flac.
BROWSER_AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus"})


_OCTET_STREAM = "application/octet-stream"


def _file_route(*kinds: str) -> dict[str, Any]:
    """How a route is declared that sends a file."""
    return {"response_class": FileResponse, "responses": declare_media(*kinds, ranges=True)}


class EqualizerExport(NamedTuple):
    """A way to take the correction into another program: what it is, and what writes it."""

    title: str
    suffix: str
    write: Callable[[Correction, Path], object]


def _write_impulse_response(correction: Correction, out: Path, phase: Phase) -> object:
    return export.export_impulse_response(export.AverageCurve(correction), phase, out, overwrite=True)


def _write_parametric_eq(correction: Correction, out: Path, form: str) -> object:
    return export.export_parametric_eq(
        export.AverageCurve(correction), _PARAMETRIC_BANDS, out, file_format=form, overwrite=True
    )


def _write_automation(correction: Correction, out: Path, form: str) -> object:
    return export.export_automation(correction, out, file_format=form, overwrite=True)


_PARAMETRIC_BANDS = 10
EQUALIZER_EXPORTS: dict[str, EqualizerExport] = {
    "impulse-linear": EqualizerExport(
        "impulse response, linear phase", ".wav", partial(_write_impulse_response, phase="linear")
    ),
    "impulse-minimum": EqualizerExport(
        "impulse response, minimum phase", ".wav", partial(_write_impulse_response, phase="minimum")
    ),
    "apo": EqualizerExport("bands for Equalizer APO", ".txt", partial(_write_parametric_eq, form="apo")),
    "autoeq": EqualizerExport(
        "bands as AutoEq writes them", ".txt", partial(_write_parametric_eq, form="autoeq")
    ),
    "rew": EqualizerExport("bands for REW", ".txt", partial(_write_parametric_eq, form="rew")),
    "camilladsp": EqualizerExport(
        "bands for CamillaDSP", ".yml", partial(_write_parametric_eq, form="camilladsp")
    ),
    "automation": EqualizerExport("automation as a table", ".csv", partial(_write_automation, form="csv")),
    "reaper": EqualizerExport("automation for Reaper", ".jsfx", partial(_write_automation, form="jsfx")),
}
"""By name: the page offers every one of them."""


@routes.get("/formats")
def list_formats(request: Request) -> dict[str, Any]:
    """What can be brought and taken away: bytes, suffixes of sound files, equalisers."""
    return {
        "upload_bytes": request.app.state.upload_bytes,
        "sounds": sorted(WRITABLE_SUFFIXES),
        "equalisers": [{"name": name, "title": it.title} for name, it in EQUALIZER_EXPORTS.items()],
    }


@routes.get("/sessions/{name}/take/equaliser/{kind}", **_file_route("text/*", "audio/*", "application/*"))
async def download_equalizer(name: str, kind: str, desk: StudioDependency) -> FileResponse:
    """The correction for another program."""
    wanted = EQUALIZER_EXPORTS.get(kind)
    if wanted is None:
        raise NotFoundError(f"there is no such equaliser: choose one of {', '.join(EQUALIZER_EXPORTS)}")
    session, state, whole = await _wait_for_render(desk, name)
    path = _download_path(session, whole.key, wanted.suffix)

    def make() -> None:
        recipe = build_edited_recipe(session, state, desk.model_for_edit(session, state), whole)
        wanted.write(export.correction_of_recipe(_title_stem(session), recipe), path)

    await asyncio.to_thread(make)
    return _temporary_file_response(path, f"{_title_stem(session)}-{kind}{wanted.suffix}")


@routes.get("/sessions/{name}/take/audio", **_file_route("audio/*", _OCTET_STREAM))
async def download_audio(
    name: str,
    desk: StudioDependency,
    format: Annotated[str, Query(pattern=r"^\.?[a-z0-9]{1,5}$")] = "",
) -> FileResponse:
    """The output in a format, by default the recording's own; waits until it is rendered."""
    session, state, whole = await _wait_for_render(desk, name)
    suffix = f".{format.lstrip('.')}" if format else Path(session.recording.upload).suffix or ".wav"
    path = _download_path(session, whole.key, suffix)
    await asyncio.to_thread(_write_download_audio, session, state, whole, path)
    return _temporary_file_response(path, f"{_title_stem(session)}-enhanced{suffix}")


@routes.get("/sessions/{name}/take/recipe", **_file_route("application/json"))
async def download_recipe(name: str, desk: StudioDependency) -> FileResponse:
    """Recipe of the output: mask, settings, model, certificate."""
    session, state, whole = await _wait_for_render(desk, name)
    path = _download_path(session, whole.key, recipes.RECIPE_SUFFIX)

    def make() -> None:
        model = desk.model_for_edit(session, state)
        build_edited_recipe(session, state, model, whole).save(path, overwrite=True)

    await asyncio.to_thread(make)
    return _temporary_file_response(path, f"{_title_stem(session)}-enhanced{recipes.RECIPE_SUFFIX}")


@routes.get("/sessions/{name}/take/picture", **_file_route("image/png"))
async def download_picture(name: str, desk: StudioDependency) -> FileResponse:
    """Before, mask and after, as `enhance --plot` draws them."""
    plotting.check_matplotlib("a picture")
    session, state, whole = await _wait_for_render(desk, name)
    path = _download_path(session, whole.key, ".png")
    await asyncio.to_thread(_draw_session_picture, desk, session, state, whole, path)
    return _temporary_file_response(path, f"{_title_stem(session)}-enhanced.png")


@routes.get("/sessions/{name}/take/certificate", **_file_route("application/json"))
async def download_certificate(name: str, desk: StudioDependency) -> FileResponse:
    """Certificate of the output, as JSON."""
    session, _, whole = await _wait_for_render(desk, name)
    if whole.certificate is None:
        raise CallError("a certificate questions what a search found: enhance the recording first")
    path = _download_path(session, whole.key, ".certificate.json")
    write_text(path, whole.certificate.model_dump_json(indent=1) + "\n", overwrite=True)
    return _temporary_file_response(path, f"{_title_stem(session)}-certificate.json")


@routes.get("/sessions/{name}/take/session", **_file_route(_OCTET_STREAM))
async def download_session(name: str, desk: StudioDependency) -> FileResponse:
    """The session as a file that reopens exactly."""
    session = desk.database.get_session(name)
    path = _download_path(session, "session", session_archive.SESSION_SUFFIX)
    await asyncio.to_thread(session_archive.write_session_archive, desk, session, path)
    return _temporary_file_response(path, f"{_title_stem(session)}{session_archive.SESSION_SUFFIX}")


@routes.get("/sessions/{name}/audio/{which}", **_file_route("audio/*"))
async def play_session_audio(
    name: str, which: session_audio.PlaybackSource, desk: StudioDependency
) -> FileResponse:
    """Recording or output as a file that browsers play, in ranges if they ask for one."""
    session = desk.database.get_session(name)
    if which == "input" and session.upload_path.suffix in BROWSER_AUDIO_SUFFIXES:
        return FileResponse(session.upload_path)
    session, state, whole = await _wait_for_render(desk, name)
    path = session.folder / f"played-{which}-{whole.key}.flac"
    if which == "output":
        await asyncio.to_thread(_write_download_audio, session, state, whole, path)
    elif not path.exists():
        form = AudioFormat("FLAC", "PCM_24")
        await asyncio.to_thread(write_recording, path, session.open_samples(), session.recording.rate, form)
    return FileResponse(path)


async def _wait_for_render(
    desk: StudioState, name: str
) -> tuple[StudioSession, EditState, session_audio.FullRender]:
    """A session with its edit rendered whole, for which it waits."""
    for _ in range(20):  # the edit may change while it is rendered
        job = desk.submit_full_render(name)
        if job is not None:
            await desk.jobs.wait_until_finished(job)
            if job.state == "failed":
                raise TonewoodError(job.progress["error"])
        session, state = desk.database.get_session(name), desk.database.get_state(name)
        whole = session_audio.get_full_render(session, state)
        if whole is not None:
            return session, state, whole
    raise CallError("the edit changes faster than it can be rendered: let it rest for a moment")


def _open_rendered_samples(session: StudioSession, whole: session_audio.FullRender) -> Any:  # noqa: ANN401 - a mapped array
    return np.load(session.folder / f"whole-{whole.key}.npy", mmap_mode="r")


def _write_download_audio(
    session: StudioSession, state: EditState, whole: session_audio.FullRender, path: Path
) -> None:
    like = AudioFormat(*session.recording.encoding)
    try:
        form = AudioFormat.for_path(path, like)
        if state.edit.amount == 0 and form == like:
            # The file itself: exact even where a float32 is not, as in 32-bit integers and mp3.
            write_bytes(path, session.upload_path.read_bytes(), overwrite=True)
            return
        samples, rate = _open_rendered_samples(session, whole), session.recording.rate
        write_recording(path, samples, rate, form, overwrite=True, tags_from=session.upload_path)
    except TonewoodError as error:
        raise CallError(str(error).replace(str(path), f"{_title_stem(session)}{path.suffix}")) from None


def _draw_session_picture(
    desk: StudioState,
    session: StudioSession,
    state: EditState,
    whole: session_audio.FullRender,
    path: Path,
) -> None:
    model = desk.model_for_edit(session, state)
    recipe = build_edited_recipe(session, state, model, whole)
    assert whole.certificate is not None
    mask = editing.compose_mask(
        session_audio.load_found_mask(session, state, model),
        state.edit,
        session_audio.gain_limit_db(session, state),
    )
    rate, loudness = session.recording.rate, (whole.loudness_before, whole.loudness_after)
    before, after = (-math.inf if it is None else it for it in loudness)
    # The rendering on disk has its gain already.
    level = LoudnessMatch(0.0, before, after, whole.levels.held)
    made = analyse_source(ArraySource(_open_rendered_samples(session, whole), rate), model)
    reshaped = StreamedEnhancement(
        input_analysis=analyse_source(ArraySource(session.open_samples(), rate), model),
        output_analysis=made,
        mask=mask,
        prior=recipe.prior,
        steps=recipe.steps,
        certificate=whole.certificate,
        loudness_match=level,
        peak=made.peak,
        settings=recipe.settings,
        spectrum=recipe.spectrum,
        _source=ArraySource(session.open_samples(), rate),
        _samples=None,
    )
    plotting.plot_enhancement(path, reshaped, model, title=session.title, overwrite=True)


def _title_stem(session: StudioSession) -> str:
    return Path(session.title).stem or "recording"


def _download_path(session: StudioSession, key: str, suffix: str) -> Path:
    """Where a file lies until it is sent; a name of its own, for another may be under way."""
    return session.folder / f"taken-{key}-{secrets.token_hex(4)}{suffix}"


def _temporary_file_response(path: Path, name: str) -> FileResponse:
    """A file under a name for people, gone from here once it is sent."""
    kind = mimetypes.guess_type(path.name)[0] or _OCTET_STREAM
    return FileResponse(
        path, filename=name, media_type=kind, headers={"Cache-Control": "no-store"},
        background=BackgroundTask(path.unlink, missing_ok=True),
    )  # fmt: skip
