"""Edit a mask with notes and regions, and render the edit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from tonewood.dsp.chunking import ArrayTimeSeries, LazyTimeSeries, mean_series
from tonewood.dsp.features import center_frequencies, hz_to_mel, mel_to_hz
from tonewood.dsp.stft import filter_recording
from tonewood.enhancement.analysis import ArraySource, analyse_source
from tonewood.enhancement.certification import InputMeasurements, RenderedMask, certify_share
from tonewood.mask.certificate import Certificate, share_text
from tonewood.mask.components import add_curve, curve_rows, filter_components, scored_masks, shape_mask
from tonewood.mask.mask import Mask
from tonewood.mask.render import RenderResult, render_through_masks
from tonewood.mask.search import StickyNotes, render_sticky_notes
from tonewood.model.model import Model
from tonewood.setting_types import ChannelLink, Settings
from tonewood.settings import (
    MAX_AMOUNT,
    MIN_AMOUNT,
    CurveSettings,
    EnhanceSettings,
    NoteSettings,
    ShapeSettings,
)
from tonewood.utils.arrays import FloatArray, Levels, Samples

_ROW_REFINEMENT = 4  # rows of an edited mask for each row of the found mask
_MAX_EDIT_HZ = 20_000.0  # of hearing; the found mask ends at half the analysis rate, 8 kHz by default
EDIT_EDGE_HZ, EDIT_EDGE_SECONDS = NoteSettings().smooth_hz, NoteSettings().smooth_ms / 1000
"""Longest ramps at the edges of notes and regions."""
MAX_CURVE_POINTS = 500
"""Points of an edit's curve: a history of as many edits stays small."""


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

    The curve joins the static part of the found mask, and the shape applies to both; notes keep theirs.
    """

    amount: float = Field(1.0, ge=MIN_AMOUNT, le=MAX_AMOUNT)
    shape: ShapeSettings = Field(ShapeSettings(), exclude_if=lambda shape: shape == ShapeSettings())
    curve: CurveSettings = Field(CurveSettings(), exclude_if=lambda curve: curve == CurveSettings())
    notes: tuple[Note, ...] = Field((), max_length=200, strict=False)
    areas: tuple[EditRegion, ...] = Field((), max_length=50, strict=False)

    @field_validator("curve")
    @classmethod
    def _check_curve(cls, curve: CurveSettings) -> CurveSettings:
        if len(curve.points) > MAX_CURVE_POINTS:
            raise ValueError(
                f"the curve has {len(curve.points)} points; {MAX_CURVE_POINTS} are possible: use fewer"
            )
        return curve

    @property
    def has_blocks(self) -> bool:
        """True if notes or regions change the mask."""
        return bool(self.audible_notes or self.areas)

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

    Without notes and regions it is the found mask itself. Every cell depends on its own position only, so
    a range of a mask can be composed alone.

    Parameters
    ----------
    found_mask : Mask
        As `shape_for_edit` returns it.
    start_s : float
        Time of the first frame, if `found_mask` is a range of a mask.
    """
    if not edit.has_blocks:
        # What is computed is quantized, as it is stored.
        is_found = edit.shape == ShapeSettings() and not edit.curve.points
        return found_mask if is_found else found_mask.quantize()
    gain = found_mask.gain_db
    frame_s = np.arange(found_mask.frames) * found_mask.hop_seconds
    row_hz, at_s = found_mask.hz.astype(np.float32), (frame_s + start_s).astype(np.float32)
    for region in edit.areas:
        coverage = note_coverage([_region_as_note(region)], row_hz, at_s)
        gain = gain * (
            1 + np.float32(region.amount - 1) * coverage
        )  # 1 outside the region, its amount inside
    if edit.audible_notes:
        gain = gain + notes_mask(edit.audible_notes, row_hz, at_s)
    return found_mask.with_gains(gain).clip(max_gain_db).quantize()


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
    samples: NDArray[np.float32],
    rate: int,
    masks: Sequence[Mask],
    model: Model,
    start: int,
    stop: int,
    link: ChannelLink = "all",
) -> NDArray[np.float32]:
    """Render samples [start, stop) of a recording (channels, samples), without loudness matching.

    The result equals that range of the whole rendering: a margin on the same frame grid is filtered too, and
    dropped. `masks` are those of each component, of the whole recording, or of this range as
    `compose_mask_range` returns it.
    """
    spectrum = model.settings.spectrum
    begin, end, first_s = _range_margins(samples.shape[1], rate, model, start, stop)

    def filter_part(part: Samples, mask: Mask) -> Samples:
        return filter_recording(
            part, rate, lambda hz, seconds: mask.gain_at(hz, seconds + (begin / rate - first_s)), spectrum
        )

    output = filter_components(np.ascontiguousarray(samples[:, begin:end]), masks, link, filter_part)
    return output[:, start - begin : stop - begin]


def compose_mask_range(
    found_mask: Mask, edit: Edit, max_gain_db: float, length: int, rate: int, model: Model, span: range
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
    """Return the found mask with the curve and in the shape of an edit, computed when it is read.

    With notes or regions it has rows four times as fine, up to 20 kHz, interpolated between its own.
    """
    shaped = shape_mask(add_curve(found_mask, edit.curve), edit.shape, edit.amount)
    if not edit.has_blocks:
        return shaped
    hz = refine_rows(found_mask.hz)
    if edit.curve.points:
        hz = curve_rows(hz)

    def read(start: int, stop: int) -> Levels:
        part = shaped.slice_frames(start, min(stop, shaped.frames))
        return part.gain_at(hz, np.arange(part.frames) * shaped.hop_seconds)

    # Up to the highest row, because notes may lie above the rows of the found mask.
    return shaped.with_gains(LazyTimeSeries(shaped.frames, read), hz, max(shaped.top_hz, float(hz[-1])))


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

    rendered: RenderResult
    certificate: Certificate


def render_edit(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    masks: Sequence[Mask],
    edit: Edit,
    settings: EnhanceSettings,
    found_certificate: Certificate,
) -> EditResult:
    """Render an edit of a whole recording (channels, samples) and certify it.

    Parameters
    ----------
    masks : sequence of Mask
        Of each component, as `compose_mask` returns it.
    found_certificate : Certificate
        Of the found mask; what it says about the input holds for every edit.
    """
    render = settings.render.replace(amount=edit.amount)
    output = render_through_masks(samples, rate, masks, render, model.settings.spectrum)
    scored = scored_masks(masks, render.link)
    rows = analyse_source(ArraySource(samples, rate), model, with_pitch=False).rows_db
    frames = np.arange(rows.frames) * masks[0].hop_seconds
    hz = center_frequencies(model.settings.scorer.bands, model.settings.spectrum)

    def measure(amount: float, sound: NDArray[np.float32]) -> RenderedMask:
        return RenderedMask(
            mask_db=mean_series(
                [ArrayTimeSeries(mask.gain_at(hz, frames) * np.float32(amount)) for mask in scored]
            ),
            roughness_db=max(mask.roughness_db for mask in scored) * abs(amount),
            input_db=rows,
            output_db=analyse_source(ArraySource(sound, rate), model, with_pitch=False).rows_db,
        )

    applied = measure(edit.amount, output.samples)
    whole = None
    if edit.amount < 1:
        in_full = render_through_masks(
            samples, rate, masks, render.replace(amount=1.0, match=False), model.settings.spectrum
        )
        whole = measure(1.0, in_full.samples)
    before = InputMeasurements.of_certificate(found_certificate)
    share = share_text(render.model_copy(update={"shape": edit.shape}))
    change = np.abs(output.samples / output.factor - samples).max() / (np.abs(samples).max() or 1.0)
    certificate = certify_share(applied, whole, share, float(change), before, model, settings.certificate)
    return EditResult(output, certificate)
