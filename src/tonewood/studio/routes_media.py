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

from tonewood.dsp.filterbank import center_frequencies
from tonewood.errors import CallError
from tonewood.mask.mask import Mask
from tonewood.studio import session_audio, tiles
from tonewood.studio.database import SAMPLES_FILE, NotFoundError, memory_map_samples
from tonewood.studio.routes_sessions import StudioDependency
from tonewood.studio.tiles import FrequencyAxis
from tonewood.web.errors import declare_media

routes = APIRouter()

ZoomLevel = Annotated[int, InPath(ge=0, lt=tiles.ZOOM_LEVELS)]
TileNumber = Annotated[int, InPath(ge=0, le=1_000_000)]
AmountQuery = Annotated[float | None, Query(ge=0, le=1)]
EditNumber = Annotated[int | None, Query(ge=0, le=2**53)]
_MAX_SOUND_SECONDS = 30.0
_BINARY_ROUTE: dict[str, Any] = {
    "response_class": Response, "responses": declare_media("application/octet-stream"),
}  # fmt: skip
_CACHE_FOREVER = "private, max-age=31536000, immutable"


@routes.get("/sessions/{name}/tiles/input/{axis}/{level}/{number}", **_BINARY_ROUTE)
def get_input_tile(
    request: Request,
    name: str,
    axis: FrequencyAxis,
    level: ZoomLevel,
    number: TileNumber,
    desk: StudioDependency,
) -> Response:
    """Spectrogram of the recording."""
    session = desk.database.get_session(name)
    tile = _cached_spectrogram_tile(
        session.folder / SAMPLES_FILE,
        session.recording.channels,
        tiles.TileAddress(axis, session.recording.rate, level, number),
    )
    return _tile_response(request, tile, _CACHE_FOREVER)


@routes.get("/sessions/{name}/tiles/output/{axis}/{level}/{number}", **_BINARY_ROUTE)
def get_output_tile(
    request: Request,
    name: str,
    axis: FrequencyAxis,
    level: ZoomLevel,
    number: TileNumber,
    key: str,
    desk: StudioDependency,
) -> Response:
    """Spectrogram of the whole rendering."""
    session, state = desk.session_and_state(name, None, None)
    path = session.folder / f"whole-{session_audio.edit_key(state, state.edit)}.npy"
    if not path.exists():
        raise NotFoundError("the output is not rendered yet: wait a moment")
    kept = _CACHE_FOREVER if path.stem == f"whole-{key}" else "no-store"
    tile = _cached_spectrogram_tile(
        path, None, tiles.TileAddress(axis, session.recording.rate, level, number)
    )
    return _tile_response(request, tile, kept)


@routes.get("/sessions/{name}/tiles/mask/{axis}/{level}/{number}", **_BINARY_ROUTE)
def get_mask_tile(
    request: Request,
    name: str,
    axis: FrequencyAxis,
    level: ZoomLevel,
    number: TileNumber,
    desk: StudioDependency,
    edit: EditNumber = None,
    key: str = "",
) -> Response:
    """Mask at full amount, in quarter-decibels around 128; the page scales it by the amount."""
    session, state = desk.session_and_state(name, edit, None)
    at_s = tiles.column_times(level, number)
    mask, start_s = session_audio.compose_mask_window(
        session, state, desk.model_for_edit(session, state), float(at_s[0]), float(at_s[-1])
    )
    place = tiles.TileAddress(axis, session.recording.rate, level, number)
    tile = tiles.gain_tile(mask, start_s, session.recording.seconds, place)
    kept = _CACHE_FOREVER if key == session_audio.edit_key(state, state.edit) else "no-store"
    return _tile_response(request, tile, kept)


@routes.get("/sessions/{name}/tiles/saliency/{axis}/{level}/{number}", **_BINARY_ROUTE)
def get_saliency_tile(
    request: Request,
    name: str,
    axis: FrequencyAxis,
    level: ZoomLevel,
    number: TileNumber,
    desk: StudioDependency,
) -> Response:
    """What speaks for the reference (above 128) and for the source (below)."""
    session = desk.database.get_session(name)
    told = desk.saliency_view(session)
    if told is None:
        raise NotFoundError("nothing was explained yet: ask what the scorer heard")
    model = desk.models.get(desk.current_model(session))
    evidence = np.load(session.folder / f"saliency-{told['digest']}.npy", mmap_mode="r")
    spectrum = model.settings.spectrum
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    hop = spectrum.hop / spectrum.rate
    at_s = tiles.column_times(level, number)
    first = int(np.clip(at_s[0] / hop - 1, 0, evidence.shape[1] - 1))
    last = int(np.clip(at_s[-1] / hop + 2, first + 1, evidence.shape[1]))
    # One unit of evidence at full colour is drawn as 31 dB are.
    scaled = np.array(evidence[:, first:last]) * np.float32(31.0 / told["reach"])
    mask = Mask(scaled, hz, hop, spectrum.rate / 2)
    place = tiles.TileAddress(axis, session.recording.rate, level, number)
    tile = tiles.gain_tile(mask, first * hop, session.recording.seconds, place)
    return _tile_response(request, tile, "no-store")


@routes.get("/sessions/{name}/waveform")
def get_waveform(name: str, desk: StudioDependency) -> dict[str, Any]:
    """Peaks of the whole recording."""
    session = desk.database.get_session(name)
    return {
        "peaks": np.round(
            _cached_waveform_peaks(session.folder / SAMPLES_FILE, session.recording.channels), 4
        ).tolist()
    }


@routes.get("/sessions/{name}/curve")
def get_average_curve(name: str, axis: FrequencyAxis, desk: StudioDependency) -> dict[str, Any]:
    """Average EQ at full amount."""
    session, state = desk.session_and_state(name, None, None)
    model = desk.model_for_edit(session, state)
    mask, _ = session_audio.compose_mask_window(session, state, model, 0, session.recording.seconds)
    return tiles.average_eq_curve(mask, axis, session.recording.rate)._asdict()


@routes.get("/sessions/{name}/sound/{which}", **_BINARY_ROUTE)
def get_samples(
    name: str,
    which: Literal["input", "output"],
    start: Annotated[int, Query(ge=0)],
    stop: Annotated[int, Query(ge=1)],
    desk: StudioDependency,
    edit: EditNumber = None,
    amount: AmountQuery = None,
) -> Response:
    """Samples [start, stop) as float32, little-endian, channel after channel.

    `X-Levels` says by which gains input, output and difference are heard equally loud.
    """
    session, state = desk.session_and_state(name, edit, amount)
    stop = min(stop, session.recording.samples)
    if stop <= start or stop - start > _MAX_SOUND_SECONDS * session.recording.rate:
        raise CallError(
            f"samples {start} to {stop} were asked for; up to {_MAX_SOUND_SECONDS:g} s within the recording "
            "can be had at once"
        )
    model = desk.model_for_edit(session, state)
    made = session_audio.read_playback_samples(session, state, model, which, start, stop)
    levels = session_audio.get_playback_levels(session, state, model)
    headers = {"X-Levels": levels.model_dump_json(), "X-Channels": str(made.shape[0])}
    return Response(
        np.ascontiguousarray(made, dtype="<f4").tobytes(), 200, headers, "application/octet-stream"
    )


def _tile_response(request: Request, tile: NDArray[np.uint8], cache_control: str) -> Response:
    content, headers = tile.tobytes(), {"Cache-Control": cache_control}
    if "gzip" in request.headers.get("accept-encoding", ""):
        content = gzip.compress(content, 1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(content, 200, headers, "application/octet-stream")


@lru_cache(maxsize=256)
def _cached_spectrogram_tile(path: Path, channels: int | None, place: tiles.TileAddress) -> NDArray[np.uint8]:
    """Tile of a session's samples, or of a whole rendering, whose file knows its channels."""
    samples = np.load(path, mmap_mode="r") if channels is None else memory_map_samples(path, channels)
    return tiles.spectrogram_tile(samples, place)


@lru_cache(maxsize=64)
def _cached_waveform_peaks(path: Path, channels: int) -> list[float]:
    return tiles.waveform_peaks(memory_map_samples(path, channels))
