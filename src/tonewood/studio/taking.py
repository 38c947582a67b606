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

from tonewood.errors import CallError, TonewoodError
from tonewood.files import recipe as recipes
from tonewood.files.audio import write
from tonewood.files.formats import SUFFIXES, AudioFormat
from tonewood.files.output import write_bytes, write_text
from tonewood.masking.mask import LongMask
from tonewood.masking.render import Matching
from tonewood.serving.refusals import sending
from tonewood.signal.impulse import Phase
from tonewood.studio import bundle, sound
from tonewood.studio.desk import Desk
from tonewood.studio.entries import MissingError, Session, State
from tonewood.studio.sessions import AtDesk
from tonewood.studio.work import recipe_edited
from tonewood.workflow import corrections, edit, export, picture
from tonewood.workflow.corrections import Correction
from tonewood.workflow.enhance import Reshaped
from tonewood.workflow.hearing import InMemory, listen

routes = APIRouter()

# What browsers play: for these, the file itself; others become flac.
PLAYED = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus"})


_OCTETS = "application/octet-stream"


def _file(*kinds: str) -> dict[str, Any]:
    """How a route is declared that sends a file."""
    return {"response_class": FileResponse, "responses": sending(*kinds, parts=True)}


class Equaliser(NamedTuple):
    """A way to take the correction into another program: what it is, and what writes it."""

    title: str
    suffix: str
    write: Callable[[Correction, Path], object]


def _response(correction: Correction, out: Path, phase: Phase) -> object:
    return export.impulse(export.Average(correction), phase, out, overwrite=True)


def _bands(correction: Correction, out: Path, form: str) -> object:
    return export.parametric(export.Average(correction), _BANDS, out, form=form, overwrite=True)


def _moving(correction: Correction, out: Path, form: str) -> object:
    return export.moving(correction, out, form=form, overwrite=True)


_BANDS = 10
EQUALISERS: dict[str, Equaliser] = {
    "impulse-linear": Equaliser(
        "impulse response, linear phase", ".wav", partial(_response, phase="linear")
    ),
    "impulse-minimum": Equaliser(
        "impulse response, minimum phase", ".wav", partial(_response, phase="minimum")
    ),
    "apo": Equaliser("bands for Equalizer APO", ".txt", partial(_bands, form="apo")),
    "autoeq": Equaliser("bands as AutoEq writes them", ".txt", partial(_bands, form="autoeq")),
    "rew": Equaliser("bands for REW", ".txt", partial(_bands, form="rew")),
    "camilladsp": Equaliser("bands for CamillaDSP", ".yml", partial(_bands, form="camilladsp")),
    "automation": Equaliser("automation as a table", ".csv", partial(_moving, form="csv")),
    "reaper": Equaliser("automation for Reaper", ".jsfx", partial(_moving, form="jsfx")),
}
"""By name: the page offers every one of them."""


@routes.get("/formats")
def formats(request: Request) -> dict[str, Any]:
    """What can be brought and taken away: bytes, suffixes of sound files, equalisers."""
    return {
        "upload_bytes": request.app.state.upload_bytes,
        "sounds": sorted(SUFFIXES),
        "equalisers": [{"name": name, "title": it.title} for name, it in EQUALISERS.items()],
    }


@routes.get("/sessions/{name}/take/equaliser/{kind}", **_file("text/*", "audio/*", "application/*"))
async def equaliser(name: str, kind: str, desk: AtDesk) -> FileResponse:
    """The correction for another program."""
    wanted = EQUALISERS.get(kind)
    if wanted is None:
        raise MissingError(f"there is no such equaliser: choose one of {', '.join(EQUALISERS)}")
    session, state, whole = await _whole(desk, name)
    path = _taken(session, whole.key, wanted.suffix)

    def make() -> None:
        recipe = recipe_edited(session, state, desk.model_of(session, state), whole)
        wanted.write(corrections.of_recipe(_stem(session), recipe), path)

    await asyncio.to_thread(make)
    return _sent(path, f"{_stem(session)}-{kind}{wanted.suffix}")


@routes.get("/sessions/{name}/take/audio", **_file("audio/*", _OCTETS))
async def audio(
    name: str, desk: AtDesk, format: Annotated[str, Query(pattern=r"^\.?[a-z0-9]{1,5}$")] = ""
) -> FileResponse:
    """The output in a format, by default the recording's own; waits until it is rendered."""
    session, state, whole = await _whole(desk, name)
    suffix = f".{format.lstrip('.')}" if format else Path(session.sound.upload).suffix or ".wav"
    path = _taken(session, whole.key, suffix)
    await asyncio.to_thread(_write_audio, session, state, whole, path)
    return _sent(path, f"{_stem(session)}-enhanced{suffix}")


@routes.get("/sessions/{name}/take/recipe", **_file("application/json"))
async def recipe(name: str, desk: AtDesk) -> FileResponse:
    """Recipe of the output: mask, settings, model, certificate."""
    session, state, whole = await _whole(desk, name)
    path = _taken(session, whole.key, recipes.SUFFIX)

    def make() -> None:
        model = desk.model_of(session, state)
        recipe_edited(session, state, model, whole).save(path, overwrite=True)

    await asyncio.to_thread(make)
    return _sent(path, f"{_stem(session)}-enhanced{recipes.SUFFIX}")


@routes.get("/sessions/{name}/take/picture", **_file("image/png"))
async def drawn(name: str, desk: AtDesk) -> FileResponse:
    """Before, mask and after, as `enhance --plot` draws them."""
    picture.check("a picture")
    session, state, whole = await _whole(desk, name)
    path = _taken(session, whole.key, ".png")
    await asyncio.to_thread(_draw, desk, session, state, whole, path)
    return _sent(path, f"{_stem(session)}-enhanced.png")


@routes.get("/sessions/{name}/take/certificate", **_file("application/json"))
async def certified(name: str, desk: AtDesk) -> FileResponse:
    """Certificate of the output, as JSON."""
    session, _, whole = await _whole(desk, name)
    if whole.certificate is None:
        raise CallError("a certificate questions what a search found: enhance the recording first")
    path = _taken(session, whole.key, ".certificate.json")
    write_text(path, whole.certificate.model_dump_json(indent=1) + "\n", overwrite=True)
    return _sent(path, f"{_stem(session)}-certificate.json")


@routes.get("/sessions/{name}/take/session", **_file(_OCTETS))
async def session_file(name: str, desk: AtDesk) -> FileResponse:
    """The session as a file that reopens exactly."""
    session = desk.store.session(name)
    path = _taken(session, "session", bundle.SUFFIX)
    await asyncio.to_thread(bundle.written, desk, session, path)
    return _sent(path, f"{_stem(session)}{bundle.SUFFIX}")


@routes.get("/sessions/{name}/audio/{which}", **_file("audio/*"))
async def played(name: str, which: sound.Which, desk: AtDesk) -> FileResponse:
    """Recording or output as a file that browsers play, in ranges if they ask for one."""
    session = desk.store.session(name)
    if which == "input" and session.upload.suffix in PLAYED:
        return FileResponse(session.upload)
    session, state, whole = await _whole(desk, name)
    path = session.folder / f"played-{which}-{whole.key}.flac"
    if which == "output":
        await asyncio.to_thread(_write_audio, session, state, whole, path)
    elif not path.exists():
        form = AudioFormat("FLAC", "PCM_24")
        await asyncio.to_thread(write, path, session.samples(), session.sound.rate, form)
    return FileResponse(path)


async def _whole(desk: Desk, name: str) -> tuple[Session, State, sound.Whole]:
    """A session with its edit rendered whole, for which it waits."""
    for _ in range(20):  # the edit may change while it is rendered
        job = desk.whole(name)
        if job is not None:
            await desk.jobs.ended(job)
            if job.state == "failed":
                raise TonewoodError(job.told["error"])
        session, state = desk.store.session(name), desk.store.state(name)
        whole = sound.whole_of(session, state)
        if whole is not None:
            return session, state, whole
    raise CallError("the edit changes faster than it can be rendered: let it rest for a moment")


def _samples(session: Session, whole: sound.Whole) -> Any:  # noqa: ANN401 - a mapped array
    return np.load(session.folder / f"whole-{whole.key}.npy", mmap_mode="r")


def _write_audio(session: Session, state: State, whole: sound.Whole, path: Path) -> None:
    like = AudioFormat(*session.sound.encoding)
    try:
        form = AudioFormat.for_path(path, like)
        if state.edit.amount == 0 and form == like:
            # The file itself: exact even where a float32 is not, as in 32-bit integers and mp3.
            write_bytes(path, session.upload.read_bytes(), overwrite=True)
            return
        samples, rate = _samples(session, whole), session.sound.rate
        write(path, samples, rate, form, overwrite=True, like=session.upload)
    except TonewoodError as error:
        raise CallError(str(error).replace(str(path), f"{_stem(session)}{path.suffix}")) from None


def _draw(desk: Desk, session: Session, state: State, whole: sound.Whole, path: Path) -> None:
    model = desk.model_of(session, state)
    recipe = recipe_edited(session, state, model, whole)
    assert whole.certificate is not None
    mask = edit.composed(
        sound.found_mask(session, state, model), state.edit, sound.max_gain_db(session, state)
    )
    rate, loudness = session.sound.rate, (whole.loudness_before, whole.loudness_after)
    before, after = (-math.inf if it is None else it for it in loudness)
    # The rendering on disk has its gain already.
    level = Matching(0.0, before, after, whole.levels.held)
    made = listen(InMemory(_samples(session, whole), rate), model)
    reshaped = Reshaped(
        before=listen(InMemory(session.samples(), rate), model),
        after=made,
        mask=LongMask.of(mask),
        prior=recipe.prior,
        steps=recipe.steps,
        certificate=whole.certificate,
        matching=level,
        peak=made.peak,
        settings=recipe.settings,
        spectrum=recipe.spectrum,
        _sound=InMemory(session.samples(), rate),
        _made=None,
    )
    picture.draw(path, reshaped, model, title=session.title, overwrite=True)


def _stem(session: Session) -> str:
    return Path(session.title).stem or "recording"


def _taken(session: Session, key: str, suffix: str) -> Path:
    """Where a file lies until it is sent; a name of its own, for another may be under way."""
    return session.folder / f"taken-{key}-{secrets.token_hex(4)}{suffix}"


def _sent(path: Path, name: str) -> FileResponse:
    """A file under a name for people, gone from here once it is sent."""
    kind = mimetypes.guess_type(path.name)[0] or _OCTETS
    return FileResponse(
        path, filename=name, media_type=kind, headers={"Cache-Control": "no-store"},
        background=BackgroundTask(path.unlink, missing_ok=True),
    )  # fmt: skip
