"""Masks of a session: found by a search or being searched, with edits, and as the page filters with them.

A found mask is stored as the recipe that `tonewood enhance` would write. Until a search ends, the part that
it has found is stored. The page composes the mask of an edit as this module does. It needs the found mask,
chunk by chunk, and the filter that renders it.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import LazyTimeSeries
from tonewood.dsp.features import center_frequencies
from tonewood.dsp.stft import filter_fft_length, scale_to_rate
from tonewood.enhancement.editing import (
    EDIT_EDGE_HZ,
    EDIT_EDGE_SECONDS,
    compose_mask,
    refine_rows,
    shape_for_edit,
)
from tonewood.enhancement.recipe import RECIPE_SUFFIX, Recipe, load_recipe
from tonewood.mask.components import curve_rows, mean_gain_db
from tonewood.mask.mask import QUANTIZATION_STEP_DB, Mask, resample_mask
from tonewood.model.model import Model
from tonewood.setting_types import ChannelLink, Settings
from tonewood.settings import EnhanceSettings
from tonewood.studio.database import PART_PREFIX, EditState, NotFoundError, StudioSession
from tonewood.utils.arrays import FloatArray, Levels

CHUNK_FRAMES = 512
"""Mask frames in a chunk: 5.12 s at the default hop."""


def mask_path(folder: Path, number: int) -> Path:
    """Return the path of a mask, stored as the recipe that `tonewood enhance` would write."""
    return folder / f"found-{number}{RECIPE_SUFFIX}"


def partial_mask_path(folder: Path, number: int) -> Path:
    """Return the path of the part of a mask that its search has found: int16 [frame, row]."""
    return folder / f"{PART_PREFIX}{number}.i16"


def has_mask(session: StudioSession, number: int) -> bool:
    """Return whether a mask exists, or a part of it."""
    return mask_path(session.folder, number).exists() or partial_mask_path(session.folder, number).exists()


def _is_being_searched(session: StudioSession, number: int) -> bool:
    """Return whether only a part of a mask exists. A mask that is lost is an error where it is read."""
    part = partial_mask_path(session.folder, number)
    return part.exists() and not mask_path(session.folder, number).exists()


# The modification time is an argument so that a changed file is read again.
@lru_cache(maxsize=16)
def _read_recipe_and_masks(path: Path, modified_ns: int) -> tuple[Recipe, tuple[Mask, ...]]:
    recipe = load_recipe(path)
    return recipe, tuple(mask.load() for mask in recipe.to_masks())


def _load_recipe_and_masks(session: StudioSession, number: int) -> tuple[Recipe, tuple[Mask, ...]]:
    path = mask_path(session.folder, number)
    return _read_recipe_and_masks(path, path.stat().st_mtime_ns)


def load_found_recipe(session: StudioSession, state: EditState) -> Recipe | None:
    """Return the recipe of the mask that an edit changes; None before the first search is finished."""
    if state.mask_number is None or _is_being_searched(session, state.mask_number):
        return None
    return _load_recipe_and_masks(session, state.mask_number)[0]


def found_link(session: StudioSession, state: EditState) -> ChannelLink:
    """Return what has a mask of its own; "all" is one mask for all channels."""
    recipe = load_found_recipe(session, state)
    return recipe.settings.render.link if recipe is not None and recipe.others else "all"


def component_names(session: StudioSession, state: EditState) -> tuple[str, ...]:
    """Return the names of the components that have masks of their own; none of linked channels.

    They are `mid` and `side`, or the numbers of the channels from 0.
    """
    link = found_link(session, state)
    if link == "all":
        return ()
    return ("mid", "side") if link == "mid-side" else tuple(map(str, range(session.recording.channels)))


def gain_limit_db(session: StudioSession, state: EditState) -> float:
    """Return the gain limit that the mask was searched with, the default before the first search."""
    recipe = load_found_recipe(session, state)
    return (recipe.settings if recipe else EnhanceSettings()).render.max_gain_db


def load_found_masks(session: StudioSession, state: EditState, model: Model) -> tuple[Mask, ...]:
    """Return the mask of each component that an edit changes.

    Of a running search, it is the part that was found, and then the mask before. Before the first search,
    all gains are 0 dB.
    """
    number = state.mask_number
    if number is not None and not _is_being_searched(session, number):
        return _load_recipe_and_masks(session, number)[1]
    spectrum = model.settings.spectrum
    hop = spectrum.hop / spectrum.rate
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    frames = int(session.recording.seconds / hop) + 1
    if number is not None:
        base = None if state.base_number is None else _load_recipe_and_masks(session, state.base_number)[1][0]
        path = partial_mask_path(session.folder, number)
        return (partial_mask(path, hz, frames, hop, spectrum.rate / 2, base),)
    return (Mask(np.zeros((len(hz), frames), np.float32), hz, hop, spectrum.rate / 2),)


def compose_edited_masks(session: StudioSession, state: EditState, model: Model) -> list[Mask]:
    """Return the mask of each component with its edits, at full amount."""
    limit_db = gain_limit_db(session, state)
    shaped = shaped_masks(session, state, model)
    return [compose_mask(mask, state.edit, limit_db) for mask in shaped]


def shaped_masks(session: StudioSession, state: EditState, model: Model) -> list[Mask]:
    """Return the mask of each component that an edit changes, with the edit's shape."""
    return [shape_for_edit(mask, state.edit) for mask in load_found_masks(session, state, model)]


def compose_mask_window(
    session: StudioSession, state: EditState, model: Model, component: int, start_s: float, stop_s: float
) -> tuple[Mask, float]:
    """Return a component's edited mask around [start_s, stop_s] at full amount, and the time of its start."""
    mask = shape_for_edit(load_found_masks(session, state, model)[component], state.edit)
    frames = frames_around(start_s, stop_s, mask.hop_seconds, mask.frames)
    first_s = frames.start * mask.hop_seconds
    window = mask.slice_frames(frames.start, frames.stop)
    return compose_mask(window, state.edit, gain_limit_db(session, state), first_s), first_s


def frames_around(start_s: float, stop_s: float, hop_s: float, total: int) -> range:
    """Return the frames that [start_s, stop_s] needs, at least one of `total`."""
    # Values are interpolated between frames, hence one frame more on each side.
    first = int(np.clip(start_s / hop_s - 1, 0, total - 1))
    return range(first, int(np.clip(stop_s / hop_s + 2, first + 1, total)))


# --- A mask that is being searched


class PartialMaskWriter:
    """Stores the mask of a search, part by part, until the recipe is written.

    Gains are limited to ±`max_gain_db`.
    """

    def __init__(self, path: Path, max_gain_db: float) -> None:
        self.path, self.max_gain_db = path, max_gain_db
        self.path.write_bytes(b"")
        self.frames = 0

    def append(self, gain_db: Levels) -> None:
        """Append gains [row, frame]."""
        limited = np.clip(gain_db, -self.max_gain_db, self.max_gain_db)
        steps = np.rint(limited.T / QUANTIZATION_STEP_DB).astype("<i2")
        with self.path.open("ab") as file:
            file.write(steps.tobytes())
        self.frames += len(steps)

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def count_partial_frames(path: Path, rows: int) -> int:
    """Return the number of frames that a search has found; 0 without a file."""
    return path.stat().st_size // (2 * rows) if path.exists() else 0


def partial_mask(
    path: Path, hz: FloatArray, frames: int, hop_seconds: float, top_hz: float, base: Mask | None
) -> Mask:
    """Return what a search has found of a mask, and `base` or 0 dB after it; read when it is used."""
    searched = min(count_partial_frames(path, len(hz)), frames)
    steps: NDArray[np.int16] = np.zeros((0, len(hz)), np.int16)
    if searched:
        steps = np.memmap(path, "<i2", "r", shape=(searched, len(hz)))

    after = None if base is None else resample_mask(base, hz, hop_seconds, frames)

    def read(start: int, stop: int) -> Levels:
        gain_db: Levels = np.zeros((len(hz), max(0, min(stop, frames) - start)), np.float32)
        if after is not None and gain_db.size:
            gain_db[:] = after.read(start, stop)
        part = steps[start : min(stop, searched)]
        gain_db[:, : len(part)] = part.T * np.float32(QUANTIZATION_STEP_DB)
        return gain_db

    return Mask(LazyTimeSeries(frames, read), hz, hop_seconds, top_hz)


# --- What the page filters with


class PlaybackFilter(Settings):
    """Grid of found masks, and the filter that renders them, in samples of the recording."""

    found: int | None  # number of the mask; None before the first search, when all gains are 0 dB
    # Rows of the found mask, and those of a mask with notes or areas
    row_hz: tuple[float, ...]
    fine_hz: tuple[float, ...]
    # The same, with a curve
    curve_hz: tuple[float, ...]
    fine_curve_hz: tuple[float, ...]
    link: ChannelLink  # what has a mask of its own
    # Mean over time of each row of each component's mask, which a curve may replace
    mean_db: tuple[tuple[float, ...], ...]
    top_hz: float
    hop_s: float
    frames: int
    chunk_frames: int
    step_db: float
    max_gain_db: float
    # Longest ramps at the edges of notes and areas
    edge_hz: float
    edge_s: float
    window: int
    hop: int
    fft: int


def describe_playback_filter(session: StudioSession, state: EditState, model: Model) -> PlaybackFilter:
    """Return the grid of the mask that an edit changes, and its filter."""
    masks = load_found_masks(session, state, model)
    mask = masks[0]
    window, hop, _ = scale_to_rate(model.settings.spectrum, session.recording.rate)
    return PlaybackFilter(
        found=state.mask_number,
        row_hz=tuple(mask.hz.tolist()),
        fine_hz=tuple(refine_rows(mask.hz).tolist()),
        curve_hz=tuple(curve_rows(mask.hz).tolist()),
        fine_curve_hz=tuple(curve_rows(refine_rows(mask.hz)).tolist()),
        link=found_link(session, state),
        mean_db=tuple(tuple(mean_gain_db(each).tolist()) for each in masks),
        top_hz=mask.top_hz,
        hop_s=mask.hop_seconds,
        frames=mask.frames,
        chunk_frames=CHUNK_FRAMES,
        step_db=QUANTIZATION_STEP_DB,
        max_gain_db=gain_limit_db(session, state),
        edge_hz=EDIT_EDGE_HZ,
        edge_s=EDIT_EDGE_SECONDS,
        window=window,
        hop=hop,
        fft=filter_fft_length(window),
    )


def read_mask_chunk(
    session: StudioSession, state: EditState, model: Model, component: int, number: int
) -> NDArray[np.int16]:
    """Return a chunk [frame, row] of a component's mask in steps of `QUANTIZATION_STEP_DB`: no bit is lost.

    NotFoundError if the component does not exist, or the chunk begins after the end of the mask.
    """
    masks = load_found_masks(session, state, model)
    if component >= len(masks):
        raise NotFoundError(f"this mask has {len(masks)} components, from 0: ask for one of them")
    mask = masks[component]
    start = number * CHUNK_FRAMES
    if start >= mask.frames:
        raise NotFoundError(f"chunk {number} begins after the end of the mask: ask for an earlier one")
    gain_db = mask.gains.read(start, min(start + CHUNK_FRAMES, mask.frames))
    steps: NDArray[np.int16] = np.rint(gain_db.T / QUANTIZATION_STEP_DB).astype(np.int16)
    return steps
