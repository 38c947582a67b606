"""An edited mask → its sound and certificate; and a new search around what was pinned."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.files.modelfile import Model
from tonewood.masking.certify import Certificate, Change, certify
from tonewood.masking.mask import Mask, moving_average
from tonewood.masking.optimise import SearchStep, search_mask
from tonewood.masking.render import RenderResult, render_through_mask
from tonewood.settings import EnhanceSettings
from tonewood.signal.bands import center_frequencies
from tonewood.signal.tracks import TensorTimeSeries
from tonewood.workflow.edit import Edit, Note, notes_mask, compose_mask, note_coverage
from tonewood.workflow.enhance import Enhancement, mean_score
from tonewood.workflow.hearing import ArraySource, analyse_source
from tonewood.workflow.mask import find_prior_mask, mask_grid
from tonewood.workflow.opinions import settings_for_preference_model, listener_caveats
from tonewood.workflow.partsearch import render_feedback


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
    after = analyse_source(ArraySource(made.samples, rate), model).rows_db
    judge = None
    if model.judge is not None and found_certificate.judge is not None:
        judge = Change(before=found_certificate.judge.before, after=mean_score(model.judge, after))
    frames = np.arange(rows.frames) * mask.hop_seconds
    bands = center_frequencies(model.settings.scorer.bands, model.settings.spectrum)
    certificate = certify(
        scorer=Change(before=found_certificate.scorer.before, after=mean_score(model.scorer, after)),
        judge=judge,
        judge_rows=partial(mean_score, model.judge) if model.judge is not None else None,
        judge_fooled=found_certificate.judge_fooled,
        rows_db=rows,
        mask_db=TensorTimeSeries(torch.from_numpy(mask.gain_at(bands, frames)) * edit.amount),
        roughness_db=mask.roughness_db * edit.amount,
        unlikeness=found_certificate.unlikeness,
        unlike_reference=Change(
            before=found_certificate.unlike_reference.before,
            after=model.reference_likeness.distance(after),
        ),
        settings=settings.certificate,
        caveats=listener_caveats(model),
    )
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
    levels_db = grid.levels_db.read(0, grid.levels_db.frames)
    wave = recording.wave.read(0, recording.wave.frames)
    frame_s = torch.arange(levels_db.shape[1]) * found_mask.hop_seconds
    row_hz = torch.from_numpy(grid.hz).float()
    heard = tuple(note for note in pinned if not note.muted)
    notes = notes_mask(heard, row_hz, frame_s) if heard else torch.zeros_like(levels_db)
    cover = note_coverage(list(pinned), row_hz, frame_s)
    held = torch.from_numpy(found_mask.gain_at(grid.hz, frame_s.double().numpy())) + notes
    anchored = find_prior_mask(settings.prior.kind, recording, grid, model)
    prior = anchored.mask_db.read(0, len(frame_s))
    searching = settings.search
    if searching.guide is None:
        searching = searching.model_copy(update={"guide": model.guide_weight})
    hears = searching.listen and searching.steps > 0
    steps = search_mask(
        grid.scale.score,
        levels_db,
        _PinnedMask(prior, cover, held, model.settings.spectrum.to_frames(searching.smooth_ms / 1000)),
        prior + cover * (held - prior),
        searching,
        window_frames=model.scorer.crop_frames,
        max_gain_db=settings.render.max_gain_db,
        generator=torch.Generator().manual_seed(settings.seed),
        guide_energy=partial(model.guide.energy, level_db=anchored.level_db) if searching.guide else None,
        render_feedback=render_feedback(wave, grid.scale, model.settings.spectrum) if hears else None,
        loudest_db=recording.levels.loudest_db,
    )
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
