"""Audio of a session: renderings, and the gains at which the page plays them.

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
from tonewood.enhancement.editing import Edit, compose_mask, compose_mask_range, render_range, shape_for_edit
from tonewood.enhancement.recipe import MaskRecord, Recipe
from tonewood.errors import CallError
from tonewood.mask.certificate import Certificate, Change
from tonewood.mask.components import scored_masks
from tonewood.mask.mask import Mask
from tonewood.model.model import Model
from tonewood.setting_types import Settings
from tonewood.settings import MAX_AMOUNT, MIN_AMOUNT
from tonewood.studio.database import EditState, StudioSession
from tonewood.studio.session_masks import (
    compose_edited_masks,
    count_partial_frames,
    found_link,
    gain_limit_db,
    load_found_masks,
    load_found_recipe,
    partial_mask_path,
    shaped_masks,
)
from tonewood.utils.arrays import FloatArray
from tonewood.utils.files import atomic_path, write_text

PlaybackSource = Literal["input", "output"]
BANDS_FILE, OFFSET_FILE, SALIENCY_FILE = "bands.npz", "anchor.json", "saliency.json"
_MAX_DIFFERENCE_GAIN_DB = 30.0  # limits the amplification of an almost silent difference
_MAX_KEPT_RENDERS = 4  # full renderings stored for each session
_SILENCE_DB = -200.0  # loudness of digital silence
_MAX_ESTIMATE_BLOCKS = 4_096  # of a long recording; enough to estimate its loudness
_AMOUNT_STEP = 0.25  # the error of linear interpolation is below 0.1 dB
_BLOCK_FRAMES = 10  # analysis frames of 10 ms in a block of 0.1 s


class PlaybackLevels(Settings):
    """Gains in dB at which input, output and difference have the same loudness."""

    input_db: float
    difference_db: float
    # Gain that matches the output's loudness to the input's; contained in the output's samples
    output_db: float
    held: bool  # True if the true-peak limit reduced that gain
    exact: bool  # True if measured on the full rendering, False if estimated from band levels


class AmountLevels(Settings):
    """Playback gains of an edit at several amounts, rising."""

    amounts: tuple[float, ...]
    levels: tuple[PlaybackLevels, ...]


class FullRender(Settings):
    """Measurements of a stored full rendering."""

    key: str
    levels: PlaybackLevels
    loudness_before: float | None
    loudness_after: float | None
    certificate: Certificate | None


class LoudnessEstimate(NamedTuple):
    """Band levels of a recording and the gains of an edit, both float32 [row, block]."""

    power: NDArray[np.float32]  # K-weighted mean power over blocks of 0.1 s
    gain_db: NDArray[np.float32]  # at full amount


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


def read_playback_samples(
    session: StudioSession, state: EditState, model: Model, which: PlaybackSource, start: int, stop: int
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
        for mask in shaped_masks(session, state, model)
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
    """Return the recipe of an edit; its mask contains the notes; CallError if the session has no mask yet."""
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


def levels_by_amount(session: StudioSession, state: EditState, model: Model, edit: Edit) -> AmountLevels:
    """Return the playback gains of an edit that is not stored, at amounts from the least to the most."""
    count = round((MAX_AMOUNT - MIN_AMOUNT) / _AMOUNT_STEP) + 1
    amounts = np.linspace(MIN_AMOUNT, MAX_AMOUNT, count).tolist()
    edits = (edit.model_copy(update={"amount": amount}) for amount in amounts)
    levels = tuple(get_playback_levels(session, replace(state, edit=item), model) for item in edits)
    return AmountLevels(amounts=tuple(amounts), levels=levels)


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

    The band levels of the recording are `rows_db` [row, frame].
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
