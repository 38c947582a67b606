"""Edit a mask with notes and regions, render the edit, and search again around pinned notes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tonewood.dsp.chunking import ArrayTimeSeries, split_segments
from tonewood.dsp.features import center_frequencies, hz_to_mel, mel_to_hz
from tonewood.dsp.stft import filter_recording
from tonewood.enhancement.analysis import Analysis, ArraySource, analyse_source
from tonewood.enhancement.certification import InputMeasurements, RenderedMask, certify_share
from tonewood.enhancement.mask_search import MaskGrid, MaskSearch, mask_grid, settings_for_model
from tonewood.enhancement.pipeline import Enhancement
from tonewood.enhancement.prior_mask import PriorMask, find_prior_mask
from tonewood.mask.certificate import Certificate, share_text
from tonewood.mask.components import shape_mask
from tonewood.mask.mask import Mask, moving_average, moving_average_gradient
from tonewood.mask.render import RenderResult, render_through_mask
from tonewood.mask.search import SearchStep, StickyNotes, render_sticky_notes
from tonewood.model.model import Model
from tonewood.setting_types import Settings
from tonewood.settings import MAX_AMOUNT, MIN_AMOUNT, EnhanceSettings, NoteSettings, ShapeSettings
from tonewood.utils.arrays import FloatArray, Levels

_ROW_REFINEMENT = 4  # rows of an edited mask for each row of the found mask
_MAX_EDIT_HZ = 20_000.0  # of hearing; the found mask ends at half the analysis rate, 8 kHz by default
EDIT_EDGE_HZ, EDIT_EDGE_SECONDS = NoteSettings().smooth_hz, NoteSettings().smooth_ms / 1000
"""Longest ramps at the edges of notes and regions."""


class Note(Settings, strict=True):
    """Block of gain that a user placed on the mask, centred at `seconds` and `hz`.

    A pinned note is kept when the mask is searched again; a muted note has no effect.
    """

    id: str = Field(pattern=r"^[a-z0-9]{1,32}$")
    seconds: float = Field(ge=0, le=86_400)
    hz: float = Field(gt=0, le=_MAX_EDIT_HZ)
    width_s: float = Field(ge=0.02, le=86_400)
    height_hz: float = Field(ge=20, le=_MAX_EDIT_HZ)
    gain_db: float = Field(ge=-30, le=30)
    pinned: bool = False
    muted: bool = False


class EditRegion(Settings, strict=True):
    """Amount of the found mask between two times and two frequencies."""

    id: str = Field(pattern=r"^[a-z0-9]{1,32}$")
    start_s: float = Field(0.0, ge=0, le=86_400)
    end_s: float = Field(86_400.0, gt=0, le=86_400)
    low_hz: float = Field(0.0, ge=0, le=_MAX_EDIT_HZ)
    high_hz: float = Field(_MAX_EDIT_HZ, gt=0, le=_MAX_EDIT_HZ)
    amount: float = Field(1.0, ge=0, le=2)


class Edit(Settings, strict=True):
    """All edits of a found mask; the amount scales everything, in dB.

    The shape applies to the found mask; notes keep theirs.
    """

    amount: float = Field(1.0, ge=MIN_AMOUNT, le=MAX_AMOUNT)
    shape: ShapeSettings = Field(ShapeSettings(), exclude_if=lambda shape: shape == ShapeSettings())
    notes: tuple[Note, ...] = Field((), max_length=200, strict=False)
    areas: tuple[EditRegion, ...] = Field((), max_length=50, strict=False)

    @property
    def audible_notes(self) -> tuple[Note, ...]:
        """Notes that are not muted."""
        return tuple(note for note in self.notes if not note.muted)

    @property
    def pinned_notes(self) -> tuple[Note, ...]:
        """Notes that a new search keeps."""
        return tuple(note for note in self.notes if note.pinned)


def compose_mask(found_mask: Mask, edit: Edit, max_gain_db: float, start_s: float = 0.0) -> Mask:
    """Return the mask of an edit at full amount: regions scaled, notes added.

    Without notes and regions it is the found mask itself. Otherwise it has rows four times as fine, up
    to 20 kHz; the found mask is interpolated between its rows. Every cell depends on its own position
    only, so a range of a mask can be composed alone.

    Parameters
    ----------
    found_mask : Mask
        In the shape of the edit, as `shape_for_edit` returns it.
    start_s : float
        Time of the first frame, if `found_mask` is a range of a mask.
    """
    if not edit.audible_notes and not edit.areas:
        # A shaped mask is quantized, as it is stored.
        return found_mask if edit.shape == ShapeSettings() else found_mask.quantize()
    hz = refine_rows(found_mask.hz)
    frame_s = np.arange(found_mask.frames) * found_mask.hop_seconds
    gain = found_mask.gain_at(hz, frame_s)
    row_hz, at_s = hz.astype(np.float32), (frame_s + start_s).astype(np.float32)
    for region in edit.areas:
        coverage = note_coverage([_region_as_note(region)], row_hz, at_s)
        gain = gain * (
            1 + np.float32(region.amount - 1) * coverage
        )  # 1 outside the region, its amount inside
    if edit.audible_notes:
        gain = gain + notes_mask(edit.audible_notes, row_hz, at_s)
    # Up to the highest row, because notes may lie above the rows of the found mask.
    mask = Mask(gain, hz, found_mask.hop_seconds, max(found_mask.top_hz, float(hz[-1])))
    return mask.clip(max_gain_db).quantize()


def refine_rows(hz: FloatArray) -> FloatArray:
    """Insert three rows between every two, equally spaced in mel, and continue up to 20 kHz."""
    mel = hz_to_mel(hz)
    position = np.arange(_ROW_REFINEMENT * (len(mel) - 1) + 1) / _ROW_REFINEMENT
    fine = np.interp(position, np.arange(len(mel)), mel)
    step = fine[-1] - fine[-2]  # the found mask ends at half the analysis rate
    above = np.arange(fine[-1] + step, float(hz_to_mel(np.array(_MAX_EDIT_HZ))), step)
    return mel_to_hz(np.concatenate([fine, above]))


def notes_mask(notes: Sequence[Note], row_hz: FloatArray, frame_s: FloatArray) -> Levels:
    """Return the mask [row, frame] in dB of notes alone."""
    rows, frames = _note_profiles(notes, row_hz, frame_s)
    return render_sticky_notes(np.array([note.gain_db for note in notes], dtype=np.float32), rows, frames)


def render_range(
    samples: NDArray[np.float32], rate: int, mask: Mask, model: Model, start: int, stop: int
) -> NDArray[np.float32]:
    """Render samples [start, stop) of a recording (channels, samples), without loudness matching.

    The result equals that range of the whole rendering: a margin on the same frame grid is filtered
    too, and dropped.

    Parameters
    ----------
    mask : Mask
        Of the whole recording, or of this range as `compose_mask_range` returns it.
    """
    spectrum = model.settings.spectrum
    begin, end, first_s = _range_margins(samples.shape[1], rate, model, start, stop)
    output = filter_recording(
        np.ascontiguousarray(samples[:, begin:end]),
        rate,
        lambda hz, seconds: mask.gain_at(hz, seconds + (begin / rate - first_s)),
        spectrum,
    )
    return output[:, start - begin : stop - begin]


def compose_mask_range(
    found_mask: Mask,
    edit: Edit,
    max_gain_db: float,
    length: int,
    rate: int,
    model: Model,
    span: range,
) -> Mask:
    """Return the frames of an edit's mask that `render_range` needs for the samples of `span`."""
    _, end, first_s = _range_margins(length, rate, model, span.start, span.stop)
    hop = found_mask.hop_seconds
    first = round(first_s / hop)
    # One frame beyond the end, because gains are interpolated between frames; `last` is exclusive.
    last = min(math.ceil(end / rate / hop) + 2, found_mask.frames)
    first = min(first, last - 1)
    part = found_mask.slice_frames(first, last)
    return compose_mask(part, edit, max_gain_db, first * hop).scale(edit.amount)


def shape_for_edit(found_mask: Mask, edit: Edit) -> Mask:
    """Return the found mask in the shape of an edit: what `compose_mask` composes with its notes."""
    return shape_mask(found_mask, edit.shape, edit.amount)


def _range_margins(length: int, rate: int, model: Model, start: int, stop: int) -> tuple[int, int, float]:
    """Return first and last sample to filter, and the time of the first mask frame they need."""
    spectrum = model.settings.spectrum
    hop = round(spectrum.hop * rate / spectrum.rate)
    window = round(spectrum.window * rate / spectrum.rate)
    margin = 8 * window // hop + 8  # frames; the filter reaches four windows to each side
    begin = max(0, start // hop - margin) * hop
    end = min(length, (stop // hop + 1 + margin) * hop)
    # Mask frames are those of the analysis rate; the frame before `begin` is needed to interpolate.
    step = spectrum.hop / spectrum.rate
    return begin, end, max(0, math.floor(begin / rate / step) - 1) * step


def _region_as_note(region: EditRegion) -> Note:
    """Return a note with the shape and the smooth edges of a region."""
    # The two ends may come in either order.
    low, high = min(region.low_hz, region.high_hz), max(region.low_hz, region.high_hz)
    start, end = min(region.start_s, region.end_s), max(region.start_s, region.end_s)
    return Note.model_construct(
        id=region.id,
        seconds=(start + end) / 2,
        hz=(low + high) / 2,
        width_s=max(end - start, 0.02),
        height_hz=max(high - low, 20.0),
        gain_db=0.0,
    )


def note_coverage(notes: Sequence[Note], row_hz: FloatArray, frame_s: FloatArray) -> Levels:
    """Return the coverage [row, frame] of each cell by notes, 0 to 1."""
    coverage = np.zeros((len(row_hz), len(frame_s)), dtype=np.float32)
    if not notes:
        return coverage
    rows, frames = _note_profiles(notes, row_hz, frame_s)
    # Maximum, not sum: overlapping notes cover a cell once.
    for row, frame in zip(rows, frames, strict=True):
        coverage = np.maximum(coverage, row[:, None] * frame[None, :])
    return coverage


def _note_profiles(notes: Sequence[Note], row_hz: FloatArray, frame_s: FloatArray) -> tuple[Levels, Levels]:
    """Return profiles [note, row] and [note, frame]; edges are at most half as wide as the note."""
    pairs = []
    for note in notes:
        single = StickyNotes(*(np.array([value], dtype=np.float32) for value in (
            note.seconds, note.hz, note.width_s, note.height_hz, note.gain_db
        )))  # fmt: skip
        # A ramp longer than the note would leave no part of it at full gain.
        smooth_hz = min(EDIT_EDGE_HZ, note.height_hz / 2)
        smooth_s = min(EDIT_EDGE_SECONDS, note.width_s / 2)
        pairs.append(single.profiles(row_hz, frame_s, smooth_hz, smooth_s))
    return np.concatenate([rows for rows, _ in pairs]), np.concatenate([frames for _, frames in pairs])


@dataclass(frozen=True, eq=False)
class EditResult:
    """Rendered edit and its certificate."""

    mask: Mask
    rendered: RenderResult
    certificate: Certificate


def render_edit(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    mask: Mask,
    edit: Edit,
    settings: EnhanceSettings,
    found_certificate: Certificate,
) -> EditResult:
    """Render an edit of a whole recording (channels, samples) and certify it.

    Parameters
    ----------
    mask : Mask
        As `compose_mask` returns it.
    found_certificate : Certificate
        Of the found mask; what it says about the input holds for every edit.
    """
    render = settings.render.replace(amount=edit.amount)
    output = render_through_mask(samples, rate, mask, render, model.settings.spectrum)
    rows = analyse_source(ArraySource(samples, rate), model, with_pitch=False).rows_db
    frames = np.arange(rows.frames) * mask.hop_seconds
    hz = center_frequencies(model.settings.scorer.bands, model.settings.spectrum)

    def measure(amount: float, sound: NDArray[np.float32]) -> RenderedMask:
        return RenderedMask(
            mask_db=ArrayTimeSeries(mask.gain_at(hz, frames) * np.float32(amount)),
            roughness_db=mask.roughness_db * abs(amount),
            input_db=rows,
            output_db=analyse_source(ArraySource(sound, rate), model, with_pitch=False).rows_db,
        )

    applied = measure(edit.amount, output.samples)
    whole = None
    if edit.amount < 1:
        in_full = render_through_mask(
            samples, rate, mask, render.replace(amount=1.0, match=False), model.settings.spectrum
        )
        whole = measure(1.0, in_full.samples)
    before = InputMeasurements.of_certificate(found_certificate)
    share = share_text(render.model_copy(update={"shape": edit.shape}))
    change = np.abs(output.samples / output.factor - samples).max() / (np.abs(samples).max() or 1.0)
    certificate = certify_share(applied, whole, share, float(change), before, model, settings.certificate)
    return EditResult(mask, output, certificate)


class _Pins(NamedTuple):
    """Pinned notes on the grid of a search, each [row, frame].

    Attributes
    ----------
    coverage : array
        0 outside of the notes, 1 inside.
    notes_db : array
        Mask of the notes that are not muted.
    mask_db : array
        Found mask and notes together: what stays under the pins.
    """

    coverage: Levels
    notes_db: Levels
    mask_db: Levels


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
    """Search the mask of a whole recording, except where pinned notes cover it."""
    frames = recording.rows_db.frames
    prior = find_prior_mask(settings.prior.kind, recording, grid.hz, model, fade=not settings.force)
    prior_db = prior.mask_db.read(0, frames)
    # Under the pins the mask stays, so its distance from the prior must not count there.
    centre_db = ArrayTimeSeries(prior_db + pins.coverage * (pins.mask_db - prior_db))
    search_settings = settings.replace(search=dict(stop_at_reference=False))
    mask_search = MaskSearch(model, search_settings, recording, grid, PriorMask(centre_db, prior.level_db))
    (segment,) = split_segments(frames, frames)
    smooth_frames = model.settings.spectrum.to_frames(settings.search.smooth_ms / 1000)
    # Starts from the prior, as a first search does; the found mask is only kept under the pins.
    return mask_search.steps(segment, _PinnedMask(prior_db, pins, smooth_frames))


def search_around_pins(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    found_mask: Mask,
    pinned: tuple[Note, ...],
    settings: EnhanceSettings,
    certificate: Certificate,
) -> Iterator[SearchStep | Enhancement]:
    """Search a new mask around pinned notes; yields every search step and, last, the result.

    Under a pinned note the mask stays as it is, and the search takes it into account. The result's
    mask is without the notes, to be composed with them; its audio and certificate are with them.
    """
    settings = settings_for_model(settings, model)
    recording = analyse_source(ArraySource(samples, rate), model)
    grid = mask_grid(recording, model, settings.method)
    pins = _place_pins(found_mask, pinned, grid.hz, recording.rows_db.frames)
    step: SearchStep | None = None
    for step in _search_free_cells(recording, grid, model, pins, settings):
        yield step
    assert step is not None
    gain = step.mask_db - pins.notes_db
    mask = Mask(gain, grid.hz, found_mask.hop_seconds, model.settings.spectrum.rate / 2)
    mask = mask.clip(settings.render.max_gain_db).quantize()
    # The result is rendered with the notes, but its mask is stored without: the user can still move them.
    edit = Edit(amount=settings.render.amount, notes=pinned)
    composed = compose_mask(mask, edit, settings.render.max_gain_db)
    result = render_edit(samples, rate, model, composed, edit, settings, certificate)
    yield Enhancement(
        mask=mask,
        prior=settings.prior.kind,
        steps=step.number,
        certificate=result.certificate,
        settings=settings,
        spectrum=model.settings.spectrum,
        rate=rate,
        rendered=result.rendered,
    )
