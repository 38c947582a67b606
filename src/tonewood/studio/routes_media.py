"""Routes of images and audio: spectrogram and mask tiles, waveform, average EQ, samples."""

import gzip
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response
from numpy.typing import NDArray

from tonewood.dsp.features import center_frequencies
from tonewood.enhancement.editing import Edit
from tonewood.errors import CallError
from tonewood.mask.mask import Mask
from tonewood.settings import MAX_AMOUNT, MIN_AMOUNT
from tonewood.studio.database import (
    SAMPLES_FILE,
    EditState,
    MaskGoneError,
    NotFoundError,
    StudioSession,
    memory_map_samples,
)
from tonewood.studio.routes_sessions import StudioDependency, responds_with
from tonewood.studio.session_audio import (
    AmountLevels,
    PlaybackSource,
    edit_key,
    get_playback_levels,
    levels_by_amount,
    read_playback_samples,
    render_path,
    saliency_path,
)
from tonewood.studio.session_masks import (
    PlaybackFilter,
    component_names,
    compose_mask_window,
    describe_playback_filter,
    frames_around,
    load_found_recipe,
    read_mask_chunk,
)
from tonewood.studio.tiles import (
    ZOOM_LEVELS,
    FrequencyAxis,
    TileAddress,
    average_eq_curve,
    column_times,
    gain_tile,
    spectrogram_tile,
    waveform_peaks,
)
from tonewood.studio.uploads import MAX_RECORDING_HOURS
from tonewood.web.errors import declare_media

media_routes = APIRouter()

AmountQuery = Annotated[float | None, Query(ge=MIN_AMOUNT, le=MAX_AMOUNT)]
TimeQuery = Annotated[float, Query(ge=0, le=MAX_RECORDING_HOURS * 3600)]
# JavaScript counts exactly up to 2⁵³; a number of more than 64 bits would be an error in SQLite.
EditNumber = Annotated[int | None, Query(ge=0, le=2**53)]
# A component that has a mask of its own: mid, side, or the number of a channel. Without it, all channels.
ComponentQuery = Annotated[str, Query(pattern=r"^(mid|side|\d{1,3})?$")]
_MAX_SOUND_SECONDS = 30.0  # 10 MiB in stereo at 44.1 kHz
# The strongest saliency gets this gain's colour: a tile reaches 31.75 dB, 127 steps of 0.25 dB.
_SALIENCY_RANGE_DB = 31.0
_BINARY_ROUTE: dict[str, Any] = {
    "response_class": Response, "responses": declare_media("application/octet-stream"),
}  # fmt: skip
# Tiles of a recording never change; the addresses of other tiles contain the key of their edit.
_CACHE_FOREVER = "private, max-age=31536000, immutable"


def _get_tile_address(
    name: str,
    axis: FrequencyAxis,
    level: Annotated[int, InPath(ge=0, lt=ZOOM_LEVELS)],
    number: Annotated[int, InPath(ge=0, le=1_000_000)],
    studio: StudioDependency,
) -> TileAddress:
    return TileAddress(axis, studio.database.get_session(name).recording.rate, level, number)


AddressDependency = Annotated[TileAddress, Depends(_get_tile_address)]


@media_routes.get("/sessions/{name}/tiles/input/{axis}/{level}/{number}", **_BINARY_ROUTE)
def get_input_tile(
    request: Request,
    name: str,
    address: AddressDependency,
    studio: StudioDependency,
    component: ComponentQuery = "",
) -> Response:
    """Return a spectrogram tile of the recording, or of one component."""
    session = studio.database.get_session(name)
    channels = session.recording.channels
    tile = _cached_spectrogram_tile(session.folder / SAMPLES_FILE, channels, address, component)
    return _tile_response(request, tile, _CACHE_FOREVER)


@media_routes.get(
    "/sessions/{name}/tiles/output/{axis}/{level}/{number}",
    response_class=Response,
    responses={
        **declare_media("application/octet-stream"),
        204: {"description": "The edit is not rendered yet, or another one has replaced that of the key."},
    },
)
def get_output_tile(
    request: Request,
    name: str,
    address: AddressDependency,
    key: str,
    studio: StudioDependency,
    component: ComponentQuery = "",
) -> Response:
    """Return a spectrogram tile of the full rendering, or of one component."""
    session, state = studio.session_and_state(name)
    path = render_path(session, edit_key(state))
    if not path.exists():  # no error: the page asks before it hears of another page's edit, or of Undo
        return Response(status_code=204)
    tile = _cached_spectrogram_tile(path, None, address, component)
    return _tile_response(request, tile, _cache_control(key, state))


@media_routes.get(
    "/sessions/{name}/tiles/mask/{axis}/{level}/{number}",
    response_class=Response,
    responses={
        **declare_media("application/octet-stream"),
        204: {"description": "The mask or its component does not exist any more: replaced or cancelled."},
    },
)
def get_mask_tile(
    request: Request,
    name: str,
    address: AddressDependency,
    studio: StudioDependency,
    edit: EditNumber = None,
    key: str = "",
    found: EditNumber = None,
    component: ComponentQuery = "",
) -> Response:
    """Return a tile of a component's mask at full amount; the page scales it by the amount.

    With `found`, of the mask with that number, as far as a running search has found it.
    """
    # No error: the page asks before it hears of another page's edit, of Undo, or of a cancelled search.
    gone = Response(status_code=204)
    try:
        session, state = studio.session_and_state(name, edit, found=found)
    except MaskGoneError:
        return gone
    index = _component_index(session, state, component)
    if index is None:
        return gone
    times_s = column_times(address.level, address.number)
    model = studio.model_for_edit(session, state)
    mask, start_s = compose_mask_window(session, state, model, index, float(times_s[0]), float(times_s[-1]))
    tile = gain_tile(mask, start_s, session.recording.seconds, address)
    return _tile_response(request, tile, _cache_control(key, state))


@media_routes.get("/sessions/{name}/tiles/saliency/{axis}/{level}/{number}", **_BINARY_ROUTE)
def get_saliency_tile(
    request: Request, name: str, address: AddressDependency, studio: StudioDependency
) -> Response:
    """Return a saliency tile: above 128 evidence for the reference, below 128 for the source."""
    session = studio.database.get_session(name)
    summary = studio.saliency_view(session)
    if summary is None:
        raise NotFoundError("this session has no saliency yet: explain it first")
    model = studio.models.get(studio.current_model(session))
    evidence = np.load(saliency_path(session, summary["digest"]), mmap_mode="r")
    spectrum = model.settings.spectrum
    hop = spectrum.hop / spectrum.rate

    times_s = column_times(address.level, address.number)
    frames = frames_around(float(times_s[0]), float(times_s[-1]), hop, evidence.shape[1])
    scale = np.float32(_SALIENCY_RANGE_DB / summary["reach"])
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    scaled = np.array(evidence[:, frames.start : frames.stop]) * scale
    mask = Mask(scaled, hz, hop, spectrum.rate / 2)
    tile = gain_tile(mask, frames.start * hop, session.recording.seconds, address)
    return _tile_response(request, tile, "no-store")


@media_routes.get("/sessions/{name}/waveform")
def get_waveform(name: str, studio: StudioDependency) -> dict[str, Any]:
    """Return the peaks of the whole recording."""
    session = studio.database.get_session(name)
    peaks = _cached_waveform_peaks(session.folder / SAMPLES_FILE, session.recording.channels)
    # The drawing is 52 pixels high: four digits are more than enough.
    return {"peaks": np.round(peaks, 4).tolist()}


@media_routes.get("/sessions/{name}/curve")
def get_average_curve(
    name: str,
    axis: FrequencyAxis,
    studio: StudioDependency,
    start_s: TimeQuery = 0.0,
    end_s: TimeQuery = MAX_RECORDING_HOURS * 3600,
    component: ComponentQuery = "",
) -> dict[str, Any]:
    """Return a component's average EQ of a range at full amount, by default of the whole recording."""
    session, state = studio.session_and_state(name)
    model = studio.model_for_edit(session, state)
    end_s = min(end_s, session.recording.seconds)
    index = _component_index(session, state, component)
    if index is None:
        raise NotFoundError(f"this mask has no component {component}: ask without one")
    mask, _ = compose_mask_window(session, state, model, index, min(start_s, end_s), end_s)
    return average_eq_curve(mask, axis, session.recording.rate)._asdict()


@media_routes.get("/sessions/{name}/filter", responses=responds_with(PlaybackFilter))
def get_playback_filter(name: str, studio: StudioDependency, found: EditNumber = None) -> dict[str, Any]:
    """Return the grid of the found mask, and the filter that renders it."""
    session, state = studio.session_and_state(name, found=found)
    return describe_playback_filter(session, state, studio.model_for_edit(session, state)).model_dump()


@media_routes.get("/sessions/{name}/filter/{number}", **_BINARY_ROUTE)
def get_mask_chunk(
    request: Request,
    name: str,
    number: Annotated[int, InPath(ge=0, le=1_000_000)],
    studio: StudioDependency,
    found: EditNumber = None,
    mask: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """Return a chunk of a found mask as little-endian int16, frame after frame, in steps of 0.002 dB.

    `mask` is the number of its component, from 0.
    """
    session, state = studio.session_and_state(name, found=found)
    chunk = read_mask_chunk(session, state, studio.model_for_edit(session, state), mask, number)
    # Before the first search is finished, the mask grows, and the model may be another one.
    is_final = found is not None and load_found_recipe(session, state) is not None
    cache_control = _CACHE_FOREVER if is_final else "no-store"
    return _tile_response(request, chunk.astype("<i2"), cache_control)


@media_routes.post("/sessions/{name}/levels", responses=responds_with(AmountLevels))
def estimate_levels(
    name: str, edit: Edit, studio: StudioDependency, found: EditNumber = None
) -> dict[str, Any]:
    """Return the playback gains of an edit at all amounts; the edit is not stored."""
    session, state = studio.session_and_state(name, found=found)
    model = studio.model_for_edit(session, state)
    return levels_by_amount(session, state, model, edit).model_dump()


@media_routes.get("/sessions/{name}/sound/{which}", **_BINARY_ROUTE)
def get_samples(
    name: str,
    which: PlaybackSource,
    start: Annotated[int, Query(ge=0)],
    stop: Annotated[int, Query(ge=1)],
    studio: StudioDependency,
    edit: EditNumber = None,
    amount: AmountQuery = None,
) -> Response:
    """Return samples [start, stop) as little-endian float32, channel after channel.

    The header `X-Levels` has the gains at which input, output and difference are equally loud.
    """
    session, state = studio.session_and_state(name, edit, amount)
    stop = min(stop, session.recording.samples)
    if stop <= start or stop - start > _MAX_SOUND_SECONDS * session.recording.rate:
        raise CallError(
            f"samples {start} to {stop} are not a valid range: ask for up to {_MAX_SOUND_SECONDS:g} s "
            "within the recording"
        )
    model = studio.model_for_edit(session, state)
    samples = read_playback_samples(session, state, model, which, start, stop)
    levels = get_playback_levels(session, state, model)
    headers = {"X-Levels": levels.model_dump_json(), "X-Channels": str(samples.shape[0])}
    content = np.ascontiguousarray(samples, dtype="<f4").tobytes()
    return Response(content, 200, headers, "application/octet-stream")


def _component_index(session: StudioSession, state: EditState, component: str) -> int | None:
    """Return the index of a component's mask; None if the mask has no such component."""
    names = component_names(session, state)
    if not component:
        return 0
    return names.index(component) if component in names else None


def _channel_weights(component: str, channels: int) -> tuple[float, ...] | None:
    """Return the share of each channel in a component; None for their mean, which is the mid."""
    if component == "side":
        return (0.5, -0.5, *[0.0] * channels)[:channels]
    if not component.isdigit():
        return None
    return tuple(float(number == int(component)) for number in range(channels))


def _cache_control(key: str, state: EditState) -> str:
    """Permit caching only if the page asked for the edit that the response shows."""
    return _CACHE_FOREVER if key == edit_key(state) else "no-store"


def _tile_response(
    request: Request, tile: NDArray[np.uint8] | NDArray[np.int16], cache_control: str
) -> Response:
    content, headers = tile.tobytes(), {"Cache-Control": cache_control}
    if "gzip" in request.headers.get("accept-encoding", ""):
        # Level 1, because tiles are made on request; without a time, equal tiles have equal bytes.
        content = gzip.compress(content, 1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(content, 200, headers, "application/octet-stream")


# A tile has 160 KiB, so the cache takes at most 40 MiB.
@lru_cache(maxsize=256)
def _cached_spectrogram_tile(
    path: Path, channels: int | None, address: TileAddress, component: str = ""
) -> NDArray[np.uint8]:
    """Return a tile of a session's samples, or of a full rendering if `channels` is None."""
    samples = np.load(path, mmap_mode="r") if channels is None else memory_map_samples(path, channels)
    return spectrogram_tile(samples, address, _channel_weights(component, len(samples)))


@lru_cache(maxsize=64)
def _cached_waveform_peaks(path: Path, channels: int) -> list[float]:
    return waveform_peaks(memory_map_samples(path, channels))
