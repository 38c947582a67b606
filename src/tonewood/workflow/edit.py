"""A found mask and what a musician changed of it → the mask that sounds."""

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from tonewood.files.modelfile import Model
from tonewood.masking import notes as sticky
from tonewood.masking.mask import Mask
from tonewood.masking.notes import StickyNotes
from tonewood.settings import NoteSettings, Settings
from tonewood.signal.bands import hz_to_mel, mel_to_hz
from tonewood.signal.spectrum import FloatArray, filter_recording

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
    frame_s = np.arange(found_mask.gain_db.shape[1]) * found_mask.hop_seconds
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
    return sticky.render_sticky_notes(torch.tensor([note.gain_db for note in notes]), rows, frames)


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
    found_mask: Mask, edit: Edit, max_gain_db: float, length: int, rate: int, model: Model, span: range
) -> Mask:
    """Compose the part of a mask that `piece` needs for the samples of `span`."""
    _, end, first_s = _range_margins(length, rate, model, span.start, span.stop)
    hop = found_mask.hop_seconds
    first = round(first_s / hop)
    last = min(math.ceil(end / rate / hop) + 2, found_mask.gain_db.shape[1])
    first = min(first, last - 1)
    part = replace(found_mask, gain_db=found_mask.gain_db[:, first:last])
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
