"""Mask, filter and levels with which the page filters a recording while an edit changes.

The page composes the mask of an edit and filters with it as `session_audio` does. It needs the found
mask, chunk by chunk, and the gains that keep all amounts equally loud.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.stft import filter_fft_length, scale_to_rate
from tonewood.enhancement.editing import EDIT_EDGE_HZ, EDIT_EDGE_SECONDS, Edit, refine_rows
from tonewood.mask.components import curve_rows, mean_gain_db
from tonewood.mask.mask import QUANTIZATION_STEP_DB
from tonewood.model.model import Model
from tonewood.setting_types import ChannelLink, Settings
from tonewood.settings import MAX_AMOUNT, MIN_AMOUNT
from tonewood.studio.database import EditState, NotFoundError, StudioSession
from tonewood.studio.session_audio import (
    PlaybackLevels,
    found_link,
    gain_limit_db,
    get_playback_levels,
    load_found_masks,
)

CHUNK_FRAMES = 512
"""Mask frames in a chunk: 5.12 s at the default hop."""
_AMOUNT_STEP = 0.25  # the error of linear interpolation is below 0.1 dB


class PlaybackFilter(Settings):
    """Grid of found masks, and the filter that renders them, in samples of the recording.

    Parameters
    ----------
    found : int or None
        Number of the mask; None before the first search, when all gains are 0 dB.
    row_hz, fine_hz : tuple of float
        Rows of the found mask, and those of a mask with notes or areas.
    curve_hz, fine_curve_hz : tuple of float
        The same, with a curve.
    link : str
        What has a mask of its own.
    mean_db : tuple of tuple of float
        Mean over time of each row of each component's mask, which a curve may replace.
    edge_hz, edge_s : float
        Longest ramps at the edges of notes and areas.
    """

    found: int | None
    row_hz: tuple[float, ...]
    fine_hz: tuple[float, ...]
    curve_hz: tuple[float, ...]
    fine_curve_hz: tuple[float, ...]
    link: ChannelLink
    mean_db: tuple[tuple[float, ...], ...]
    top_hz: float
    hop_s: float
    frames: int
    chunk_frames: int
    step_db: float
    max_gain_db: float
    edge_hz: float
    edge_s: float
    window: int
    hop: int
    fft: int


class AmountLevels(Settings):
    """Playback gains of an edit at several amounts, rising."""

    amounts: tuple[float, ...]
    levels: tuple[PlaybackLevels, ...]


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

    Raises
    ------
    NotFoundError
        The component does not exist, or the chunk begins after the end of the mask.
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


def levels_by_amount(session: StudioSession, state: EditState, model: Model, edit: Edit) -> AmountLevels:
    """Return the playback gains of an edit that is not stored, at amounts from the least to the most."""
    count = round((MAX_AMOUNT - MIN_AMOUNT) / _AMOUNT_STEP) + 1
    amounts = np.linspace(MIN_AMOUNT, MAX_AMOUNT, count).tolist()
    edits = (edit.model_copy(update={"amount": amount}) for amount in amounts)
    levels = tuple(get_playback_levels(session, replace(state, edit=item), model) for item in edits)
    return AmountLevels(amounts=tuple(amounts), levels=levels)
