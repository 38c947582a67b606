"""Routes of what is seen and heard: tiles, waveform, average EQ, sound."""

import gzip
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response
from numpy.typing import NDArray

from tonewood.errors import CallError
from tonewood.masking.mask import Mask
from tonewood.serving.refusals import sending
from tonewood.signal.bands import centres_hz
from tonewood.studio import sound, tiles
from tonewood.studio.entries import SAMPLES, MissingError, mapped
from tonewood.studio.sessions import AtDesk
from tonewood.studio.tiles import Axis

routes = APIRouter()

Level = Annotated[int, InPath(ge=0, lt=tiles.LEVELS)]
Number = Annotated[int, InPath(ge=0, le=1_000_000)]
Amount = Annotated[float | None, Query(ge=0, le=1)]
EditNumber = Annotated[int | None, Query(ge=0, le=2**53)]
_MOST_S = 30.0
_OCTETS: dict[str, Any] = {
    "response_class": Response, "responses": sending("application/octet-stream"),
}  # fmt: skip
_FOREVER = "private, max-age=31536000, immutable"


@routes.get("/sessions/{name}/tiles/input/{axis}/{level}/{number}", **_OCTETS)
def input_tile(
    request: Request, name: str, axis: Axis, level: Level, number: Number, desk: AtDesk
) -> Response:
    """Spectrogram of the recording."""
    session = desk.store.session(name)
    tile = _spectrogram(
        session.folder / SAMPLES,
        session.sound.channels,
        tiles.Place(axis, session.sound.rate, level, number),
    )
    return _tile(request, tile, _FOREVER)


@routes.get("/sessions/{name}/tiles/output/{axis}/{level}/{number}", **_OCTETS)
def output_tile(
    request: Request, name: str, axis: Axis, level: Level, number: Number, key: str, desk: AtDesk
) -> Response:
    """Spectrogram of the whole rendering."""
    session, state = desk.at(name, None, None)
    path = session.folder / f"whole-{sound.key_of(state, state.edit)}.npy"
    if not path.exists():
        raise MissingError("the output is not rendered yet: wait a moment")
    kept = _FOREVER if path.stem == f"whole-{key}" else "no-store"
    tile = _spectrogram(path, None, tiles.Place(axis, session.sound.rate, level, number))
    return _tile(request, tile, kept)


@routes.get("/sessions/{name}/tiles/mask/{axis}/{level}/{number}", **_OCTETS)
def mask_tile(
    request: Request,
    name: str,
    axis: Axis,
    level: Level,
    number: Number,
    desk: AtDesk,
    edit: EditNumber = None,
    key: str = "",
) -> Response:
    """Mask at full amount, in quarter-decibels around 128; the page scales it by the amount."""
    session, state = desk.at(name, edit, None)
    at_s = tiles.columns_s(level, number)
    mask, start_s = sound.mask_between(
        session, state, desk.model_of(session, state), float(at_s[0]), float(at_s[-1])
    )
    place = tiles.Place(axis, session.sound.rate, level, number)
    tile = tiles.gains(mask, start_s, session.sound.seconds, place)
    kept = _FOREVER if key == sound.key_of(state, state.edit) else "no-store"
    return _tile(request, tile, kept)


@routes.get("/sessions/{name}/tiles/saliency/{axis}/{level}/{number}", **_OCTETS)
def saliency_tile(
    request: Request, name: str, axis: Axis, level: Level, number: Number, desk: AtDesk
) -> Response:
    """What speaks for the reference (above 128) and for the source (below)."""
    session = desk.store.session(name)
    told = desk.saliency(session)
    if told is None:
        raise MissingError("nothing was explained yet: ask what the scorer heard")
    model = desk.models.get(desk.chosen(session))
    evidence = np.load(session.folder / f"saliency-{told['digest']}.npy", mmap_mode="r")
    spectrum = model.settings.spectrum
    hz = centres_hz(model.settings.scorer.bands, spectrum)
    hop = spectrum.hop / spectrum.rate
    at_s = tiles.columns_s(level, number)
    first = int(np.clip(at_s[0] / hop - 1, 0, evidence.shape[1] - 1))
    last = int(np.clip(at_s[-1] / hop + 2, first + 1, evidence.shape[1]))
    # One unit of evidence at full colour is drawn as 31 dB are.
    scaled = np.array(evidence[:, first:last]) * np.float32(31.0 / told["reach"])
    mask = Mask(scaled, hz, hop, spectrum.rate / 2)
    place = tiles.Place(axis, session.sound.rate, level, number)
    tile = tiles.gains(mask, first * hop, session.sound.seconds, place)
    return _tile(request, tile, "no-store")


@routes.get("/sessions/{name}/waveform")
def waveform(name: str, desk: AtDesk) -> dict[str, Any]:
    """Peaks of the whole recording."""
    session = desk.store.session(name)
    return {"peaks": np.round(_peaks(session.folder / SAMPLES, session.sound.channels), 4).tolist()}


@routes.get("/sessions/{name}/curve")
def curve(name: str, axis: Axis, desk: AtDesk) -> dict[str, Any]:
    """Average EQ at full amount."""
    session, state = desk.at(name, None, None)
    model = desk.model_of(session, state)
    mask, _ = sound.mask_between(session, state, model, 0, session.sound.seconds)
    return tiles.average(mask, axis, session.sound.rate)._asdict()


@routes.get("/sessions/{name}/sound/{which}", **_OCTETS)
def heard(
    name: str,
    which: Literal["input", "output"],
    start: Annotated[int, Query(ge=0)],
    stop: Annotated[int, Query(ge=1)],
    desk: AtDesk,
    edit: EditNumber = None,
    amount: Amount = None,
) -> Response:
    """Samples [start, stop) as float32, little-endian, channel after channel.

    `X-Levels` says by which gains input, output and difference are heard equally loud.
    """
    session, state = desk.at(name, edit, amount)
    stop = min(stop, session.sound.samples)
    if stop <= start or stop - start > _MOST_S * session.sound.rate:
        raise CallError(
            f"samples {start} to {stop} were asked for; up to {_MOST_S:g} s within the recording "
            "can be had at once"
        )
    model = desk.model_of(session, state)
    made = sound.samples_of(session, state, model, which, start, stop)
    levels = sound.levels(session, state, model)
    headers = {"X-Levels": levels.model_dump_json(), "X-Channels": str(made.shape[0])}
    return Response(
        np.ascontiguousarray(made, dtype="<f4").tobytes(), 200, headers, "application/octet-stream"
    )


def _tile(request: Request, tile: NDArray[np.uint8], kept: str) -> Response:
    content, headers = tile.tobytes(), {"Cache-Control": kept}
    if "gzip" in request.headers.get("accept-encoding", ""):
        content = gzip.compress(content, 1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(content, 200, headers, "application/octet-stream")


@lru_cache(maxsize=256)
def _spectrogram(path: Path, channels: int | None, place: tiles.Place) -> NDArray[np.uint8]:
    """Tile of a session's samples, or of a whole rendering, whose file knows its channels."""
    samples = np.load(path, mmap_mode="r") if channels is None else mapped(path, channels)
    return tiles.spectrogram(samples, place)


@lru_cache(maxsize=64)
def _peaks(path: Path, channels: int) -> list[float]:
    return tiles.peaks(mapped(path, channels))
