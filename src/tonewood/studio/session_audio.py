"""What a session sounds like: its mask, any piece of it at once, and the whole when it is made."""

import hashlib
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.filterbank import center_frequencies
from tonewood.dsp.loudness import k_weighting_db
from tonewood.enhancement import recipe as recipes
from tonewood.enhancement.editing import Edit, compose_mask, compose_mask_range, render_range
from tonewood.enhancement.recipe import Recipe
from tonewood.mask.certificate import Certificate
from tonewood.mask.mask import Mask
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, Settings
from tonewood.studio.database import EditState, StudioSession
from tonewood.utils.arrays import FloatArray
from tonewood.utils.atomic_write import atomic_path, write_text

PlaybackSource = Literal["input", "output"]
_MAX_DIFFERENCE_GAIN_DB = 30.0  # what changed is lifted by this much at most
_MAX_KEPT_RENDERS = 4  # whole renderings kept for each session
_SILENCE_DB = -200.0  # loudness of what is not there
_MAX_ESTIMATE_BLOCKS = 4_096  # of a long recording are enough to estimate loudness by


class PlaybackLevels(Settings):
    """Gains in dB by which input, output and what changed are heard equally loud.

    Parameters
    ----------
    output_db : float
        What the file's own level was reached by; in the sound already.
    exact : bool
        Measured on the whole, and not estimated from its bands.
    """

    input_db: float
    difference_db: float
    output_db: float
    held: bool
    exact: bool


class FullRender(Settings):
    """A whole rendering that lies on disk, and what is to be said of it."""

    key: str
    levels: PlaybackLevels
    loudness_before: float | None
    loudness_after: float | None
    certificate: Certificate | None


class BandPower(NamedTuple):
    """Levels of a recording by rows, by which loudness is estimated.

    Parameters
    ----------
    power : float32 array (row, block)
        Means over blocks of a tenth of a second, K-weighted.
    hz : float64 array (row,)
    """

    power: NDArray[np.float32]
    hz: FloatArray


class LoudnessEstimate(NamedTuple):
    """Levels of a recording, and what an edit does to them: both (row, block).

    Parameters
    ----------
    power : float32 array
        As in `BandPower`, of every so many blocks of a long recording.
    gain_db : float32 array
        At full amount.
    """

    power: NDArray[np.float32]
    gain_db: NDArray[np.float32]


def edit_key(state: EditState, edit: Edit) -> str:
    """Name of the sound that an edit makes: the same edit of the same mask, the same name."""
    body = json.dumps([state.mask_number, edit.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()[:20]


def mask_path(folder: Path, number: int) -> Path:
    """Where a found mask lies, as the recipe that a plain enhancement would have written."""
    return folder / f"found-{number}{recipes.RECIPE_SUFFIX}"


@lru_cache(maxsize=16)
def _load_recipe_and_mask(path: Path, changed: int) -> tuple[Recipe, Mask]:
    recipe = recipes.load_recipe(path)
    return recipe, recipe.mask.to_mask().load()


def load_found_recipe(session: StudioSession, state: EditState) -> Recipe | None:
    """What the last search found; None before the first."""
    return None if state.mask_number is None else _load_found(session, state.mask_number)[0]


def load_found_mask(session: StudioSession, state: EditState, model: Model) -> Mask:
    """The found mask; no change at all before the first search."""
    if state.mask_number is not None:
        return _load_found(session, state.mask_number)[1]
    spectrum = model.settings.spectrum
    hop = spectrum.hop / spectrum.rate
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    frames = int(session.recording.seconds / hop) + 1
    return Mask(np.zeros((len(hz), frames), np.float32), hz, hop, spectrum.rate / 2)


def _load_found(session: StudioSession, number: int) -> tuple[Recipe, Mask]:
    path = mask_path(session.folder, number)
    return _load_recipe_and_mask(path, path.stat().st_mtime_ns)


def gain_limit_db(session: StudioSession, state: EditState) -> float:
    """Bound of every gain, as the mask was found under."""
    recipe = load_found_recipe(session, state)
    return (recipe.settings if recipe else EnhanceSettings()).render.max_gain_db


def compose_mask_window(
    session: StudioSession, state: EditState, model: Model, start_s: float, stop_s: float
) -> tuple[Mask, float]:
    """Composed mask from about one moment to another at full amount, and the time it starts."""
    whole = load_found_mask(session, state, model)
    hop, frames = whole.hop_seconds, whole.frames
    first = int(np.clip(start_s / hop - 1, 0, frames - 1))
    last = int(np.clip(stop_s / hop + 2, first + 1, frames))
    part = whole.slice_frames(first, last)
    limit = gain_limit_db(session, state)
    return compose_mask(part, state.edit, limit, first * hop), first * hop


def read_playback_samples(
    session: StudioSession,
    state: EditState,
    model: Model,
    which: PlaybackSource,
    start: int,
    stop: int,
) -> NDArray[np.float32]:
    """Samples [start, stop) of the input or of what an edit makes of it: (channels, samples).

    From the whole rendering where there is one; else rendered here and now, its level estimated.
    """
    source = session.open_samples()
    start, stop = max(0, start), min(stop, source.shape[1])
    if which == "input" or state.edit.amount == 0:
        return np.array(source[:, start:stop])
    whole = session.folder / f"whole-{edit_key(state, state.edit)}.npy"
    if whole.exists():
        return np.array(np.load(whole, mmap_mode="r")[:, start:stop])
    mask = compose_mask_range(
        load_found_mask(session, state, model),
        state.edit,
        gain_limit_db(session, state),
        source.shape[1],
        session.recording.rate,
        model,
        range(start, stop),
    )
    made = render_range(source, session.recording.rate, mask, model, start, stop)
    return made * np.float32(10 ** (get_playback_levels(session, state, model).output_db / 20))


def get_full_render(session: StudioSession, state: EditState) -> FullRender | None:
    """The whole rendering of an edit, if it was made."""
    path = session.folder / f"whole-{edit_key(state, state.edit)}.json"
    try:
        return FullRender.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def prune_renders(folder: Path, keep: str) -> None:
    """Remove all but the newest whole renderings of a session."""
    made = sorted(folder.glob("whole-*.npy"), key=lambda path: -path.stat().st_mtime)
    for path in made[_MAX_KEPT_RENDERS:]:
        if path.stem != f"whole-{keep}":
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)


def get_playback_levels(session: StudioSession, state: EditState, model: Model) -> PlaybackLevels:
    """Levels of an edit: as measured on the whole rendering, or estimated until there is one.

    The estimate is the change of loudness of the bands that the mask moves, corrected by how far
    such an estimate was off for the last whole rendering, in proportion to the amount.
    """
    whole = get_full_render(session, state)
    if whole is not None:
        return whole.levels
    if state.edit.amount == 0:
        return PlaybackLevels(input_db=0, difference_db=0, output_db=0, held=False, exact=True)
    path = session.folder / "anchor.json"
    return _estimate_levels(session, state, model, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=256)
def _estimate_levels(session: StudioSession, state: EditState, model: Model, changed: int) -> PlaybackLevels:
    moved, amount = _estimate_at_full_amount(session, state, model), state.edit.amount
    wanted = _matching_gain_db(moved, amount)
    anchor = _load_estimate_offset(session)
    off, peak = (anchor[0], anchor[1]) if anchor else (0.0, None)
    gain = wanted + off * amount
    if peak is not None:
        gain = min(gain, peak)
    return PlaybackLevels(
        input_db=min(0.0, gain - wanted),
        difference_db=_difference_gain_db(moved, amount, gain),
        output_db=gain,
        held=gain < wanted - 0.05,
        exact=False,
    )


def levels_from_loudness(
    loudness: tuple[float, float, float], gain_db: float, limited: bool
) -> PlaybackLevels:
    """Levels from the loudness of input, output and their difference, LUFS."""
    before, after, difference = loudness
    finite = np.isfinite(before) and np.isfinite(after)
    lift = after - difference if np.isfinite(after) and np.isfinite(difference) else 0.0
    return PlaybackLevels(
        input_db=round(after - before, 3) if finite else 0.0,
        difference_db=round(float(np.clip(lift, -_MAX_DIFFERENCE_GAIN_DB, _MAX_DIFFERENCE_GAIN_DB)), 3),
        output_db=gain_db,
        held=limited,
        exact=True,
    )


def save_band_power(folder: Path, rows_db: NDArray[np.float32], hz: FloatArray) -> None:
    """Keep what `levels` estimates from: rows [row, frame] in dB, ten frames a block."""
    frames = rows_db.shape[1] // 10 * 10 or rows_db.shape[1]
    power = 10 ** (rows_db[:, :frames] / 10)
    blocks = power.reshape(len(hz), -1, 10 if frames >= 10 else frames).mean(axis=2)
    weighted = blocks * 10 ** (k_weighting_db(hz) / 10)[:, None]
    with atomic_path(folder / "bands.npz", overwrite=True) as path, path.open("wb") as file:
        np.savez(file, power=weighted.astype(np.float32), hz=hz)


def _load_band_power(folder: Path) -> BandPower | None:
    path = folder / "bands.npz"
    return _read_band_power(path, path.stat().st_mtime_ns) if path.exists() else None


@lru_cache(maxsize=16)
def _read_band_power(path: Path, changed: int) -> BandPower:
    with np.load(path) as kept:
        return BandPower(kept["power"], kept["hz"])


def _estimate_at_full_amount(
    session: StudioSession, state: EditState, model: Model
) -> LoudnessEstimate | None:
    """What an edit moves at full amount: the same for every amount and every place in history."""
    edit = state.edit.model_copy(update={"amount": 1.0})
    state = EditState(0, state.mask_number, edit, can_undo=False, can_redo=False)
    return _compute_loudness_estimate(replace(session, changed=0.0), state, model)


@lru_cache(maxsize=16)
def _compute_loudness_estimate(
    session: StudioSession, state: EditState, model: Model
) -> LoudnessEstimate | None:
    """What an edit moves at full amount; None before the recording was listened to."""
    bands = _load_band_power(session.folder)
    if bands is None:
        return None
    blocks = np.arange(0, bands.power.shape[1], max(1, bands.power.shape[1] // _MAX_ESTIMATE_BLOCKS))
    whole = load_found_mask(session, state, model)
    thin = Mask(whole.gain_db[:, ::10], whole.hz, whole.hop_seconds * 10, whole.top_hz)
    mask = compose_mask(thin, state.edit, gain_limit_db(session, state))
    return LoudnessEstimate(bands.power[:, blocks], mask.gain_at(bands.hz, (blocks + 0.5) / 10))


def _matching_gain_db(estimate: LoudnessEstimate | None, amount: float) -> float:
    """Estimated gain in dB that makes an edit as loud as its input."""
    if estimate is None:
        return 0.0
    after = estimate.power * 10 ** (estimate.gain_db * np.float32(amount / 10))
    return _gated_loudness_db(estimate.power.sum(axis=0)) - _gated_loudness_db(after.sum(axis=0))


def _difference_gain_db(estimate: LoudnessEstimate | None, amount: float, gain_db: float) -> float:
    """Estimated gain in dB that makes what changed as loud as the output; phase is untouched."""
    if estimate is None:
        return 0.0
    after = 10 ** ((estimate.gain_db * np.float32(amount) + np.float32(gain_db)) / 20)
    output = _gated_loudness_db((estimate.power * after**2).sum(axis=0))
    change = _gated_loudness_db((estimate.power * (after - 1) ** 2).sum(axis=0))
    if change <= _SILENCE_DB:
        return 0.0
    return float(np.clip(output - change, -_MAX_DIFFERENCE_GAIN_DB, _MAX_DIFFERENCE_GAIN_DB))


def _gated_loudness_db(power: NDArray[np.float32]) -> float:
    """Loudness up to a constant, in dB, of blocks' power: relative gate of 10 LU."""
    kept = power[power >= power.mean() / 10]
    return max(10 * float(np.log10(max(float(kept.mean()), 1e-20))), _SILENCE_DB)


def _load_estimate_offset(session: StudioSession) -> tuple[float, float | None] | None:
    """How far the estimate was off at the last whole rendering, and the gain its peak allowed."""
    path = session.folder / "anchor.json"
    if not path.exists():
        return None
    off, peak = json.loads(path.read_text())
    return off, peak


def save_estimate_offset(
    session: StudioSession, state: EditState, model: Model, exact: PlaybackLevels
) -> None:
    """Remember how far the estimate of an edit's gain was off its measured one."""
    wanted = _matching_gain_db(_estimate_at_full_amount(session, state, model), state.edit.amount)
    amount = max(state.edit.amount, 0.05)
    off = 0.0 if exact.held else (exact.output_db - wanted) / amount
    peak = exact.output_db if exact.held else None
    write_text(session.folder / "anchor.json", json.dumps([off, peak]), overwrite=True)
