"""A found mask and what a musician changed of it → the mask that sounds.

An edited mask → its sound and certificate; and a new search around what was pinned.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from tonewood.dsp.chunking import TensorTimeSeries, split_segments
from tonewood.dsp.filterbank import center_frequencies, hz_to_mel, mel_to_hz
from tonewood.dsp.stft import filter_recording
from tonewood.enhancement.analysis import ArraySource, analyse_source
from tonewood.enhancement.certification import InputMeasurements, RenderedMask, certify_rendering
from tonewood.enhancement.mask_search import MaskSearch, mask_grid
from tonewood.enhancement.pipeline import (
    Enhancement,
    settings_for_preference_model,
)
from tonewood.enhancement.prior_mask import PriorMask, find_prior_mask
from tonewood.mask import search
from tonewood.mask.certificate import Certificate
from tonewood.mask.mask import Mask, moving_average
from tonewood.mask.render import RenderResult, render_through_mask
from tonewood.mask.search import SearchStep, StickyNotes
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, NoteSettings, Settings
from tonewood.utils.arrays import FloatArray

_ROW_REFINEMENT = 4  # rows of an edited mask for each of a found one
_MAX_EDIT_HZ = 20_000.0
_NOTE_DEFAULTS = NoteSettings()


class Note(Settings, strict=True):
    """One sticky note that a musician laid: a block of gain, in the middle of `parse_time` and `hz`.

    A pinned one is kept when the mask is searched again, a muted one is not heard.
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
    """How much of the found mask is heard between two moments and two frequencies."""

    id: str = Field(pattern=r"^[a-z0-9]{1,32}$")
    start_s: float = Field(0.0, ge=0, le=86_400)
    end_s: float = Field(86_400.0, gt=0, le=86_400)
    low_hz: float = Field(0.0, ge=0, le=_MAX_EDIT_HZ)
    high_hz: float = Field(_MAX_EDIT_HZ, gt=0, le=_MAX_EDIT_HZ)
    amount: float = Field(1.0, ge=0, le=2)


class Edit(Settings, strict=True):
    """All that a musician decides about a found mask; the amount scales everything, in dB."""

    amount: float = Field(1.0, ge=0, le=1)
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
    """Mask of an edit at full amount: the found one, its areas scaled, the notes added.

    Without notes and areas it is the found mask itself. Otherwise it lives on rows four times as
    fine, between which the found mask is what it was, and up to 20 kHz. Every cell depends on its
    own place alone, so a stretch of a mask is composed as the whole is.

    Parameters
    ----------
    start_s : float
        Time of the first frame, for a stretch of a mask.
    """
    if not edit.audible_notes and not edit.areas:
        return found_mask
    hz = refine_rows(found_mask.hz)
    frame_s = np.arange(found_mask.frames) * found_mask.hop_seconds
    gain = torch.from_numpy(found_mask.gain_at(hz, frame_s))
    row_hz = torch.from_numpy(hz).float()
    at_s = torch.from_numpy(frame_s + start_s).float()
    for area in edit.areas:
        gain = gain * (1 + (area.amount - 1) * note_coverage([_region_as_note(area)], row_hz, at_s))
    if edit.audible_notes:
        gain = gain + notes_mask(edit.audible_notes, row_hz, at_s)
    mask = Mask(gain.numpy(), hz, found_mask.hop_seconds, max(found_mask.top_hz, float(hz[-1])))
    return mask.clip(max_gain_db).quantize()


def refine_rows(hz: FloatArray) -> FloatArray:
    """Rows (row,) in Hz with three between every two, and on in the same steps up to 20 kHz."""
    mel = hz_to_mel(hz)
    place = np.arange(_ROW_REFINEMENT * (len(mel) - 1) + 1) / _ROW_REFINEMENT
    between = np.interp(place, np.arange(len(mel)), mel)
    step = between[-1] - between[-2]
    above = np.arange(between[-1] + step, float(hz_to_mel(np.array(_MAX_EDIT_HZ))), step)
    return mel_to_hz(np.concatenate([between, above]))


def notes_mask(notes: tuple[Note, ...], row_hz: Tensor, frame_s: Tensor) -> Tensor:
    """Mask [row, frame] in dB of notes alone, as `masking.notes` renders them."""
    rows, frames = _note_profiles(list(notes), row_hz, frame_s)
    return search.render_sticky_notes(torch.tensor([note.gain_db for note in notes]), rows, frames)


def render_range(
    samples: NDArray[np.float32], rate: int, mask: Mask, model: Model, start: int, stop: int
) -> NDArray[np.float32]:
    """Samples [start, stop) of a recording (channels, samples) under a mask, its gain unmatched.

    As `rendered` makes them of the whole: a margin is filtered too, its frames on the same
    samples, and dropped.

    Parameters
    ----------
    mask : Mask
        Of the whole recording, or a stretch of it given by `compose_mask_range` for the same piece.
    """
    spectrum = model.settings.spectrum
    begin, end, first_s = _range_margins(samples.shape[1], rate, model, start, stop)
    made = filter_recording(
        np.ascontiguousarray(samples[:, begin:end]),
        rate,
        lambda hz, seconds: mask.gain_at(hz, seconds + (begin / rate - first_s)),
        spectrum,
    )
    return made[:, start - begin : stop - begin]


def compose_mask_range(
    found_mask: Mask,
    edit: Edit,
    max_gain_db: float,
    length: int,
    rate: int,
    model: Model,
    span: range,
) -> Mask:
    """Compose the part of a mask that `piece` needs for the samples of `span`."""
    _, end, first_s = _range_margins(length, rate, model, span.start, span.stop)
    hop = found_mask.hop_seconds
    first = round(first_s / hop)
    last = min(math.ceil(end / rate / hop) + 2, found_mask.frames)
    first = min(first, last - 1)
    part = found_mask.slice_frames(first, last)
    return compose_mask(part, edit, max_gain_db, first * hop).scale(edit.amount)


def _range_margins(length: int, rate: int, model: Model, start: int, stop: int) -> tuple[int, int, float]:
    """First and last sample to filter, and the time of the first mask frame that they need."""
    spectrum = model.settings.spectrum
    hop = round(spectrum.hop * rate / spectrum.rate)
    window = round(spectrum.window * rate / spectrum.rate)
    margin = 8 * window // hop + 8  # frames; the filter reaches four windows, see `filtered`
    begin = max(0, start // hop - margin) * hop
    end = min(length, (stop // hop + 1 + margin) * hop)
    step = spectrum.hop / spectrum.rate
    return begin, end, max(0, math.floor(begin / rate / step) - 1) * step


def _region_as_note(region: EditRegion) -> Note:
    """An area as a note: the same shape and the same smooth edges."""
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


def note_coverage(notes: list[Note], row_hz: Tensor, frame_s: Tensor) -> Tensor:
    """Share [row, frame] of each cell that some note covers."""
    if not notes:
        return torch.zeros(len(row_hz), len(frame_s))
    rows, frames = _note_profiles(notes, row_hz, frame_s)
    cover = torch.zeros(len(row_hz), len(frame_s))
    for row, frame in zip(rows, frames, strict=True):
        cover = torch.maximum(cover, row[:, None] * frame[None, :])
    return cover


def _note_profiles(notes: list[Note], row_hz: Tensor, frame_s: Tensor) -> tuple[Tensor, Tensor]:
    """Profiles [note, row] and [note, frame]; small notes have edges as much sharper."""
    pairs = []
    for note in notes:
        one = StickyNotes(*(torch.tensor([v]) for v in (
            note.seconds, note.hz, note.width_s, note.height_hz, note.gain_db
        )))  # fmt: skip
        smooth_hz = min(_NOTE_DEFAULTS.smooth_hz, note.height_hz / 2)
        smooth_s = min(_NOTE_DEFAULTS.smooth_ms / 1000, note.width_s / 2)
        pairs.append(one.profiles(row_hz, frame_s, smooth_hz, smooth_s))
    return torch.cat([rows for rows, _ in pairs]), torch.cat([frames for _, frames in pairs])


@dataclass(frozen=True, eq=False)
class EditResult:
    """An edit as sound, and what is to be said of it."""

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
    """Render an edit of a recording (channels, samples) whole, and question it anew.

    Parameters
    ----------
    mask : Mask
        As `compose_mask`.
    found_certificate : Certificate
        Of the found mask: what it says of the input, and its control, hold for every edit.
    """
    render = settings.render.model_copy(update={"amount": edit.amount})
    made = render_through_mask(samples, rate, mask, render, model.settings.spectrum)
    rows = analyse_source(ArraySource(samples, rate), model).rows_db
    frames = np.arange(rows.frames) * mask.hop_seconds
    hz = center_frequencies(model.settings.scorer.bands, model.settings.spectrum)
    rendered = RenderedMask(
        mask_db=TensorTimeSeries(torch.from_numpy(mask.gain_at(hz, frames)) * edit.amount),
        roughness_db=mask.roughness_db * edit.amount,
        input_db=rows,
        output_db=analyse_source(ArraySource(made.samples, rate), model).rows_db,
    )
    before = InputMeasurements.of_certificate(found_certificate)
    certificate = certify_rendering(rendered, before, model, settings.certificate)
    return EditResult(mask, made, certificate)


class _PinnedMask:
    """Where pinned notes lie the mask stays; all else turns, smoothly from one to the other."""

    def __init__(self, start_db: Tensor, cover: Tensor, pinned_db: Tensor, smooth: int) -> None:
        self.start, self.cover, self.pinned_db = start_db, cover, pinned_db
        self.smooth = smooth
        self.values = torch.zeros_like(start_db, requires_grad=True)

    def mask(self) -> Tensor:
        """Held where covered, else start plus the smoothed change."""
        free = self.start + moving_average(self.values, self.smooth)
        return free + self.cover * (self.pinned_db - free)


def search_around_pins(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    found_mask: Mask,
    pinned: tuple[Note, ...],
    settings: EnhanceSettings,
    certificate: Certificate,
) -> Iterator[SearchStep | Enhancement]:
    """Search a new mask around pinned notes, which the search hears and leaves alone.

    Under a pinned note the mask stays what it was. Yields every `Step` and, last, the
    `Enhancement`, whose mask is the found one without the notes, to be composed with them; its
    sound and certificate are those of both.
    """
    settings = settings_for_preference_model(settings, model)
    recording = analyse_source(ArraySource(samples, rate), model)
    grid = mask_grid(recording, model, settings.method)
    frame_s = torch.arange(recording.rows_db.frames) * found_mask.hop_seconds
    row_hz = torch.from_numpy(grid.hz).float()
    audible = tuple(note for note in pinned if not note.muted)
    notes = notes_mask(audible, row_hz, frame_s) if audible else torch.zeros(len(row_hz), len(frame_s))
    cover = note_coverage(list(pinned), row_hz, frame_s)
    pinned_db = torch.from_numpy(found_mask.gain_at(grid.hz, frame_s.double().numpy())) + notes
    prior = find_prior_mask(settings.prior.kind, recording, grid.hz, model)
    prior_db = prior.mask_db.read(0, len(frame_s))

    # Under the pins the mask stays, so its distance from the prior must not count there.
    centre_db = TensorTimeSeries(prior_db + cover * (pinned_db - prior_db))
    search_settings = settings.replace(search=dict(stop_at_reference=False))
    mask_search = MaskSearch(model, search_settings, recording, grid, PriorMask(centre_db, prior.level_db))
    (segment,) = split_segments(len(frame_s), len(frame_s))
    smooth_frames = model.settings.spectrum.to_frames(settings.search.smooth_ms / 1000)
    steps = mask_search.steps(segment, _PinnedMask(prior_db, cover, pinned_db, smooth_frames))
    step: SearchStep | None = None
    for step in steps:
        yield step
    assert step is not None
    gain = (step.mask_db - notes).detach().numpy().astype(np.float32)
    mask = Mask(gain, grid.hz, found_mask.hop_seconds, model.settings.spectrum.rate / 2)
    mask = mask.clip(settings.render.max_gain_db).quantize()
    edit = Edit(amount=settings.render.amount, notes=pinned)
    whole = compose_mask(mask, edit, settings.render.max_gain_db)
    done = render_edit(samples, rate, model, whole, edit, settings, certificate)
    yield Enhancement(
        samples=done.rendered.samples,
        rate=rate,
        mask=mask,
        prior=settings.prior.kind,
        steps=step.number,
        certificate=done.certificate,
        rendered=done.rendered,
        settings=settings,
        spectrum=model.settings.spectrum,
    )
