"""Audio of a session: masks, renderings and the gains at which the page plays them.

A short range of an edit is rendered on request. The full rendering of an edit is made by a job and
stored; until then, its loudness is estimated from band levels.
"""

import hashlib
import json
import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.features import center_frequencies
from tonewood.dsp.loudness import k_weighting_db
from tonewood.enhancement.editing import compose_mask, compose_mask_range, render_range, shape_for_edit
from tonewood.enhancement.recipe import RECIPE_SUFFIX, MaskRecord, Recipe, load_recipe
from tonewood.errors import CallError
from tonewood.mask.certificate import Certificate, Change
from tonewood.mask.components import scored_masks
from tonewood.mask.mask import Mask
from tonewood.model.model import Model
from tonewood.setting_types import ChannelLink, Settings
from tonewood.settings import EnhanceSettings
from tonewood.studio.database import EditState, StudioSession
from tonewood.studio.search_progress import count_partial_frames, partial_mask, partial_mask_path
from tonewood.utils.arrays import FloatArray
from tonewood.utils.atomic_write import atomic_path, write_text

PlaybackSource = Literal["input", "output"]
BANDS_FILE, OFFSET_FILE, SALIENCY_FILE = "bands.npz", "anchor.json", "saliency.json"
_MAX_DIFFERENCE_GAIN_DB = 30.0  # limits the amplification of an almost silent difference
_MAX_KEPT_RENDERS = 4  # full renderings stored for each session
_SILENCE_DB = -200.0  # loudness of digital silence
_MAX_ESTIMATE_BLOCKS = 4_096  # of a long recording; enough to estimate its loudness
_BLOCK_FRAMES = 10  # analysis frames of 10 ms in a block of 0.1 s


class PlaybackLevels(Settings):
    """Gains in dB at which input, output and difference have the same loudness.

    Parameters
    ----------
    output_db : float
        Gain that matches the output's loudness to the input's; contained in the output's samples.
    held : bool
        True if the true-peak limit reduced that gain.
    exact : bool
        True if measured on the full rendering, False if estimated from band levels.
    """

    input_db: float
    difference_db: float
    output_db: float
    held: bool
    exact: bool


class FullRender(Settings):
    """Measurements of a stored full rendering."""

    key: str
    levels: PlaybackLevels
    loudness_before: float | None
    loudness_after: float | None
    certificate: Certificate | None


class LoudnessEstimate(NamedTuple):
    """Band levels of a recording and the gains of an edit, both float32 [row, block].

    Parameters
    ----------
    power : array
        K-weighted mean power over blocks of 0.1 s.
    gain_db : array
        At full amount.
    """

    power: NDArray[np.float32]
    gain_db: NDArray[np.float32]


def edit_key(state: EditState) -> str:
    """Return a name that is equal for equal edits of the same mask."""
    # Stored renderings carry this name: keys must not depend on the order of fields.
    body = json.dumps([state.mask_number, state.edit.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()[:20]


def render_path(session: StudioSession, key: str) -> Path:
    """Return the path of the full rendering with a key."""
    return session.folder / f"whole-{key}.npy"


def saliency_path(session: StudioSession, digest: str) -> Path:
    """Return the path of the saliency that the model with a digest computed."""
    return session.folder / f"saliency-{digest}.npy"


def open_full_render(session: StudioSession, key: str) -> NDArray[np.float32]:
    """Return the samples (channels, samples) of a full rendering as a memory map."""
    samples: NDArray[np.float32] = np.load(render_path(session, key), mmap_mode="r")
    return samples


def mask_path(folder: Path, number: int) -> Path:
    """Return the path of a mask, stored as the recipe that `tonewood enhance` would write."""
    return folder / f"found-{number}{RECIPE_SUFFIX}"


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


def _is_being_searched(session: StudioSession, number: int) -> bool:
    """Return whether only a part of a mask exists. A mask that is lost is an error where it is read."""
    part = partial_mask_path(session.folder, number)
    return part.exists() and not mask_path(session.folder, number).exists()


def has_mask(session: StudioSession, number: int) -> bool:
    """Return whether a mask exists, or a part of it."""
    return mask_path(session.folder, number).exists() or partial_mask_path(session.folder, number).exists()


def gain_limit_db(session: StudioSession, state: EditState) -> float:
    """Return the gain limit that the mask was searched with, the default before the first search."""
    recipe = load_found_recipe(session, state)
    return (recipe.settings if recipe else EnhanceSettings()).render.max_gain_db


def compose_edited_masks(session: StudioSession, state: EditState, model: Model) -> list[Mask]:
    """Return the mask of each component with its edits, at full amount."""
    limit_db = gain_limit_db(session, state)
    shaped = _shaped_masks(session, state, model)
    return [compose_mask(mask, state.edit, limit_db) for mask in shaped]


def _shaped_masks(session: StudioSession, state: EditState, model: Model) -> list[Mask]:
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


def read_playback_samples(
    session: StudioSession,
    state: EditState,
    model: Model,
    which: PlaybackSource,
    start: int,
    stop: int,
) -> NDArray[np.float32]:
    """Return samples [start, stop) of the input or the output, as (channels, samples).

    The output is read from the full rendering if it exists. Otherwise the range is rendered now,
    with an estimated loudness gain.
    """
    source, rate = session.open_samples(), session.recording.rate
    start, stop = max(0, start), min(stop, source.shape[1])
    if which == "input" or state.edit.amount == 0:
        return np.array(source[:, start:stop])
    key = edit_key(state)
    if render_path(session, key).exists():
        return np.array(open_full_render(session, key)[:, start:stop])
    limit_db, span = gain_limit_db(session, state), range(start, stop)
    masks = [
        compose_mask_range(mask, state.edit, limit_db, source.shape[1], rate, model, span)
        for mask in _shaped_masks(session, state, model)
    ]
    samples = render_range(source, rate, masks, model, start, stop, found_link(session, state))
    # A full rendering contains its gain; here the estimate is applied.
    return samples * np.float32(10 ** (get_playback_levels(session, state, model).output_db / 20))


def get_full_render(session: StudioSession, state: EditState) -> FullRender | None:
    """Return the measurements of an edit's full rendering; None if it is not rendered."""
    path = render_path(session, edit_key(state)).with_suffix(".json")
    try:
        return FullRender.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def build_edited_recipe(
    session: StudioSession, state: EditState, model: Model, full_render: FullRender
) -> Recipe:
    """Return the recipe of an edit; its mask contains the notes.

    Raises
    ------
    CallError
        The session has no mask yet.
    """
    recipe = load_found_recipe(session, state)
    if recipe is None or full_render.certificate is None:
        raise CallError("this session has no mask yet: enhance the recording first")
    loudness = None
    if full_render.loudness_before is not None and full_render.loudness_after is not None:
        loudness = Change(before=full_render.loudness_before, after=full_render.loudness_after)
    masks = compose_edited_masks(session, state, model)
    return recipe.model_copy(
        update={
            "settings": recipe.settings.replace(render=dict(amount=state.edit.amount)),
            "gain_db": full_render.levels.output_db,
            "certificate": full_render.certificate,
            "loudness_lufs": loudness,
            "mask": MaskRecord.from_mask(masks[0]),
            "others": tuple(map(MaskRecord.from_mask, masks[1:])),
        }
    )


def prune_renders(session: StudioSession, keep: str) -> None:
    """Remove all but the newest full renderings of a session, and the one with key `keep`."""
    paths = sorted(session.folder.glob("whole-*.npy"), key=lambda path: -path.stat().st_mtime)
    for path in paths[_MAX_KEPT_RENDERS:]:
        if path.stem != f"whole-{keep}":
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)


def get_playback_levels(session: StudioSession, state: EditState, model: Model) -> PlaybackLevels:
    """Return the playback gains of an edit, measured on the full rendering or estimated before.

    The estimate is the change of loudness computed from band levels. It is corrected by the error of
    that estimate for the last full rendering, in proportion to the amount.
    """
    render = get_full_render(session, state)
    if render is not None:
        return render.levels
    if state.edit.amount == 0:
        return PlaybackLevels(input_db=0, difference_db=0, output_db=0, held=False, exact=True)
    known = _count_known_frames(session, state, model)
    return _estimate_levels(session, state, model, _modified_ns(session.folder / OFFSET_FILE), known)


def _count_known_frames(session: StudioSession, state: EditState, model: Model) -> int | None:
    """Return the number of frames that a running search has found of a mask; None of any other mask."""
    if state.mask_number is None or load_found_recipe(session, state) is not None:
        return None
    rows = len(center_frequencies(model.settings.scorer.bands, model.settings.spectrum))
    return count_partial_frames(partial_mask_path(session.folder, state.mask_number), rows)


def _modified_ns(path: Path) -> int:
    """Return a file's modification time, for the key of a cache; 0 if it does not exist."""
    return path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(maxsize=256)
def _estimate_levels(
    session: StudioSession, state: EditState, model: Model, offset_modified_ns: int, known: int | None
) -> PlaybackLevels:
    estimate, amount = _estimate_at_full_amount(session, state, model, known), state.edit.amount
    offset_db, peak_limit_db = 0.0, None
    if offset_modified_ns:
        offset_db, peak_limit_db = json.loads((session.folder / OFFSET_FILE).read_text())
    matching_db = _matching_gain_db(estimate, amount)
    gain_db = matching_db + offset_db * amount
    if peak_limit_db is not None:
        gain_db = min(gain_db, peak_limit_db)
    # If the peak limit leaves the output quieter than the input, the input is played quieter, too.
    return PlaybackLevels(
        input_db=min(0.0, gain_db - matching_db),
        difference_db=_difference_gain_db(estimate, amount, gain_db),
        output_db=gain_db,
        held=gain_db < matching_db - 0.05,
        exact=False,
    )


def levels_from_loudness(
    before: float, after: float, difference: float, gain_db: float, *, limited: bool
) -> PlaybackLevels:
    """Return the playback gains for the loudness of input, output and their difference in LUFS."""
    # The loudness of silence is minus infinity.
    finite = np.isfinite(before) and np.isfinite(after)
    difference_db = after - difference if np.isfinite(after) and np.isfinite(difference) else 0.0
    return PlaybackLevels(
        input_db=round(after - before, 3) if finite else 0.0,
        difference_db=round(_clip_difference_gain(difference_db), 3),
        output_db=gain_db,
        held=limited,
        exact=True,
    )


def save_band_power(folder: Path, rows_db: NDArray[np.float32], hz: FloatArray) -> None:
    """Store the K-weighted band power that `get_playback_levels` estimates loudness from.

    Parameters
    ----------
    rows_db : float32 array [row, frame]
        Band levels of the recording.
    """
    # Whole blocks only; a recording shorter than a block is one block.
    frames = rows_db.shape[1] // _BLOCK_FRAMES * _BLOCK_FRAMES or rows_db.shape[1]
    power = 10 ** (rows_db[:, :frames] / 10)
    blocks = power.reshape(len(hz), -1, min(frames, _BLOCK_FRAMES)).mean(axis=2)
    weighted = blocks * 10 ** (k_weighting_db(hz) / 10)[:, None]
    with atomic_path(folder / BANDS_FILE, overwrite=True) as path, path.open("wb") as file:
        np.savez(file, power=weighted.astype(np.float32), hz=hz)


@lru_cache(maxsize=16)
def _read_band_power(path: Path, modified_ns: int) -> tuple[NDArray[np.float32], FloatArray]:
    """Return K-weighted power [row, block] and the frequency [row] of each row."""
    with np.load(path) as archive:
        return archive["power"], archive["hz"]


def _estimate_at_full_amount(
    session: StudioSession, state: EditState, model: Model, known: int | None = None
) -> LoudnessEstimate | None:
    """Return the estimate at full amount; None before the recording was analysed.

    The arguments of the cached function are normalised first, so that all amounts and all places in
    the history share one entry.
    """
    # Cuts and boosts depend on the sign of the amount.
    edit = state.edit.model_copy(update={"amount": math.copysign(1.0, state.edit.amount)})
    state = replace(state, number=0, edit=edit, can_undo=False, can_redo=False)
    return _compute_loudness_estimate(replace(session, changed=0.0), state, model, known)


@lru_cache(maxsize=16)
def _compute_loudness_estimate(
    session: StudioSession, state: EditState, model: Model, known: int | None
) -> LoudnessEstimate | None:
    """Return the estimate; for the first `known` frames of a mask whose first search is running."""
    path = session.folder / BANDS_FILE
    if not path.exists():
        return None
    power, hz = _read_band_power(path, _modified_ns(path))
    if known is not None and state.base_number is None:
        power = power[:, : max(1, known // _BLOCK_FRAMES)]
    blocks = np.arange(0, power.shape[1], max(1, power.shape[1] // _MAX_ESTIMATE_BLOCKS))
    masks = scored_masks(load_found_masks(session, state, model), found_link(session, state))
    # Blocks last 0.1 s; the gain is taken at their centres.
    gains = [_thin_gain_db(mask, session, state, hz, (blocks + 0.5) / 10) for mask in masks]
    return LoudnessEstimate(power[:, blocks], np.mean(gains, axis=0, dtype=np.float32))


def _thin_gain_db(
    mask: Mask, session: StudioSession, state: EditState, hz: FloatArray, seconds: FloatArray
) -> NDArray[np.float32]:
    """Return the gains of an edit [row, time], from one mask frame for each block of power."""
    thin = Mask(mask.gain_db[:, ::_BLOCK_FRAMES], mask.hz, mask.hop_seconds * _BLOCK_FRAMES, mask.top_hz)
    edited = compose_mask(shape_for_edit(thin, state.edit), state.edit, gain_limit_db(session, state))
    return edited.gain_at(hz, seconds)


def _matching_gain_db(estimate: LoudnessEstimate | None, amount: float) -> float:
    """Return the estimated gain that makes an edit as loud as its input."""
    if estimate is None:
        return 0.0
    output = estimate.power * 10 ** (estimate.gain_db * np.float32(amount / 10))
    return _gated_loudness_db(estimate.power.sum(axis=0)) - _gated_loudness_db(output.sum(axis=0))


def _difference_gain_db(estimate: LoudnessEstimate | None, amount: float, gain_db: float) -> float:
    """Return the estimated gain that makes the difference as loud as the output.

    The mask is zero-phase, so amplitudes of input and output subtract directly.
    """
    if estimate is None:
        return 0.0
    factor = 10 ** ((estimate.gain_db * np.float32(amount) + np.float32(gain_db)) / 20)
    output_db = _gated_loudness_db((estimate.power * factor**2).sum(axis=0))
    difference_db = _gated_loudness_db((estimate.power * (factor - 1) ** 2).sum(axis=0))
    return 0.0 if difference_db <= _SILENCE_DB else _clip_difference_gain(output_db - difference_db)


def _clip_difference_gain(gain_db: float) -> float:
    return float(np.clip(gain_db, -_MAX_DIFFERENCE_GAIN_DB, _MAX_DIFFERENCE_GAIN_DB))


def _gated_loudness_db(power: NDArray[np.float32]) -> float:
    """Return loudness up to a constant, with the relative gate of ITU-R BS.1770 (10 LU)."""
    loud = power[power >= power.mean() / 10]
    return max(10 * float(np.log10(max(float(loud.mean()), 1e-20))), _SILENCE_DB)


def save_estimate_offset(
    session: StudioSession, state: EditState, model: Model, exact: PlaybackLevels
) -> None:
    """Store the error of an edit's estimated gain, and the gain that its true peak allowed."""
    estimated_db = _matching_gain_db(_estimate_at_full_amount(session, state, model), state.edit.amount)
    # The error is stored for full amount; near amount 0 it would be divided by nothing.
    amount = state.edit.amount if abs(state.edit.amount) > 0.05 else 0.05
    # A gain that the peak limit reduced says nothing about the estimate.
    offset_db = 0.0 if exact.held else (exact.output_db - estimated_db) / amount
    peak_limit_db = exact.output_db if exact.held else None
    write_text(session.folder / OFFSET_FILE, json.dumps([offset_db, peak_limit_db]), overwrite=True)
