"""Search a mask again around pinned notes, which keep the mask below them."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import LazyTimeSeries, Segment
from tonewood.enhancement.analysis import Analysis, ArraySource, analyse_source
from tonewood.enhancement.editing import (
    Edit,
    Note,
    compose_mask,
    note_coverage,
    notes_mask,
    render_edit,
    shape_for_edit,
)
from tonewood.enhancement.mask_search import (
    MaskGrid,
    MaskSearch,
    check_link,
    mask_grid,
    mask_scale,
    search_segments,
    settings_for_model,
)
from tonewood.enhancement.pipeline import Enhancement
from tonewood.enhancement.prior_mask import PriorMask, find_prior_mask
from tonewood.mask.certificate import Certificate
from tonewood.mask.components import count_components, split_components
from tonewood.mask.mask import Mask, moving_average, moving_average_gradient
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings
from tonewood.utils.arrays import FloatArray, Levels
from tonewood.utils.parallel import parallel_iterate


def search_around_pins(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    found_masks: Sequence[Mask],
    pinned: tuple[Note, ...],
    settings: EnhanceSettings,
    certificate: Certificate,
) -> Iterator[SearchStep | Enhancement]:
    """Search new masks around pinned notes; yields every search step and, last, the result.

    Under a pinned note the mask stays as it is, and the search takes it into account. The result's masks are
    without the notes, to be composed with them; its audio and certificate are with them. `found_masks` has
    one for each component; with another link than that of the settings, the first is of all.
    """
    settings = settings_for_model(settings, model)
    link, limit_db = settings.render.link, settings.render.max_gain_db
    check_link(len(samples), link)
    count = count_components(len(samples), link)
    parts = [samples] if count == 1 else [part[None] for part in split_components(samples, link)]
    kept_masks = found_masks if len(found_masks) == count else [found_masks[0]] * count
    masks, n_steps = [], 0
    for part, found_mask in zip(parts, kept_masks, strict=True):
        mask, steps = yield from _search_component(part, rate, model, found_mask, pinned, settings)
        masks.append(mask)
        n_steps = max(n_steps, steps)
    # The result is rendered with the notes, but its masks are stored without: the user can still move them.
    edit = Edit(amount=settings.render.amount, notes=pinned)
    composed = [compose_mask(shape_for_edit(mask, edit), edit, limit_db) for mask in masks]
    result = render_edit(samples, rate, model, composed, edit, settings, certificate)
    yield Enhancement(
        mask=masks[0],
        prior=settings.prior.kind,
        steps=n_steps,
        certificate=result.certificate,
        settings=settings,
        spectrum=model.settings.spectrum,
        others=tuple(masks[1:]),
        rate=rate,
        rendered=result.rendered,
    )


class _SearchedMask(NamedTuple):
    mask: Mask
    steps: int


def _search_component(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    found_mask: Mask,
    pinned: tuple[Note, ...],
    settings: EnhanceSettings,
) -> Generator[SearchStep, None, _SearchedMask]:
    """Search the mask of one component (channels, samples) around pinned notes."""
    if not samples.any():  # such as the side of a mono recording in stereo
        hz = mask_scale(model.scorer, model.settings.spectrum, settings.method).hz
        flat_db = np.zeros((len(hz), found_mask.frames), np.float32)
        return _SearchedMask(found_mask.with_gains(flat_db, hz, model.settings.spectrum.rate / 2), 0)
    recording = analyse_source(ArraySource(samples, rate), model)
    grid = mask_grid(recording, model, settings.method)
    pins = _place_pins(found_mask, pinned, grid.hz, recording.rows_db.frames)
    gains: dict[int, Levels] = {}  # by the first frame of each segment
    n_steps = 0
    for step in _search_free_cells(recording, grid, model, pins, settings):
        gains[step.offset] = step.mask_db
        n_steps = max(n_steps, step.number)
        yield step
    mask = Mask(
        np.concatenate([*gains.values()], axis=1),
        grid.hz,
        found_mask.hop_seconds,
        model.settings.spectrum.rate / 2,
    )
    return _SearchedMask(mask.clip(settings.render.max_gain_db).quantize(), n_steps)


class _Pins(NamedTuple):
    """Pinned notes on the grid of a search, each [row, frame]."""

    coverage: Levels  # 0 outside of the notes, 1 inside
    notes_db: Levels  # mask of the notes that are not muted
    mask_db: Levels  # found mask and notes together: what stays under the pins

    def read(self, start: int, stop: int) -> "_Pins":
        """Return the frames [start, stop)."""
        return _Pins(*(values[:, start:stop] for values in self))


def _place_pins(found_mask: Mask, pinned: tuple[Note, ...], hz: FloatArray, frames: int) -> _Pins:
    frame_s = np.arange(frames, dtype=np.float32) * np.float32(found_mask.hop_seconds)
    row_hz = hz.astype(np.float32)
    audible = tuple(note for note in pinned if not note.muted)
    notes_db = np.zeros((len(row_hz), frames), dtype=np.float32)
    if audible:
        notes_db = notes_mask(audible, row_hz, frame_s)
    found_db = found_mask.gain_at(hz, frame_s.astype(np.float64))
    return _Pins(note_coverage(pinned, row_hz, frame_s), notes_db, found_db + notes_db)


class _PinnedMask:
    """Mask parametrisation that is fixed under pinned notes and free elsewhere."""

    def __init__(self, start_db: Levels, pins: _Pins, smooth_frames: int) -> None:
        self.start_db, self.pins = start_db, pins
        self.smooth_frames = smooth_frames
        self.values: Levels = np.zeros_like(start_db)

    def mask(self) -> Levels:
        """Return the mask [row, frame]: pinned where covered, else start plus the smoothed change."""
        # Blended, so that the edges of a pinned note are as smooth as those of the note itself.
        free = self.start_db + moving_average(self.values, self.smooth_frames)
        return free + self.pins.coverage * (self.pins.mask_db - free)

    def gradient(self, mask_gradient: Levels) -> Levels:
        """Return the gradient of the change before its smoothing; none where pins cover the mask."""
        return moving_average_gradient((1 - self.pins.coverage) * mask_gradient, self.smooth_frames)


def _search_free_cells(
    recording: Analysis, grid: MaskGrid, model: Model, pins: _Pins, settings: EnhanceSettings
) -> Iterator[SearchStep]:
    """Search the mask of a recording, segment by segment, except where pinned notes cover it.

    The masks of the steps are without the notes.
    """
    frames = recording.rows_db.frames
    prior = find_prior_mask(settings.prior.kind, recording, grid.hz, model, fade=not settings.force)

    def read_centre(start: int, stop: int) -> Levels:
        # Under the pins the mask stays, so its distance from the prior must not count there.
        prior_db, part = prior.mask_db.read(start, stop), pins.read(start, stop)
        return prior_db + part.coverage * (part.mask_db - prior_db)

    centre = PriorMask(LazyTimeSeries(frames, read_centre), prior.level_db)
    search_settings = settings.replace(search=dict(stop_at_reference=False))
    mask_search = MaskSearch(model, search_settings, recording, grid, centre)
    smooth_frames = model.settings.spectrum.to_frames(settings.search.smooth_ms / 1000)

    def steps(segment: Segment) -> Iterator[SearchStep]:
        start, stop = segment.padded_start, segment.padded_stop
        # Starts from the prior, as a first search does; the found mask is only kept under the pins.
        pinned = _PinnedMask(prior.mask_db.read(start, stop), pins.read(start, stop), smooth_frames)
        for step in mask_search.steps(segment, pinned):
            notes_db = pins.notes_db[:, step.offset : step.offset + step.mask_db.shape[1]]
            yield replace(step, mask_db=step.mask_db - notes_db)

    undivided = settings.search.beta > 0  # the penalty is on the variance of the whole
    for part in parallel_iterate(steps, search_segments(frames, undivided, model, settings.search)):
        yield from part
