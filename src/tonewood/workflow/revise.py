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
from tonewood.masking.mask import Mask, smoothed
from tonewood.masking.optimise import Step, search
from tonewood.masking.render import Rendered, rendered
from tonewood.settings import EnhanceSettings
from tonewood.signal.bands import centres_hz
from tonewood.signal.tracks import Held
from tonewood.workflow.edit import Edit, Note, added, composed, covered
from tonewood.workflow.enhance import Enhancement, mean_score
from tonewood.workflow.hearing import InMemory, listen
from tonewood.workflow.mask import anchor, grid_of
from tonewood.workflow.opinions import adapted, doubts
from tonewood.workflow.partsearch import listener


@dataclass(frozen=True, eq=False)
class Edited:
    """An edit as sound, and what is to be said of it."""

    mask: Mask
    rendered: Rendered
    certificate: Certificate


def edited(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    mask: Mask,
    edit: Edit,
    settings: EnhanceSettings,
    found: Certificate,
) -> Edited:
    """Render an edit of a recording (channels, samples) whole, and question it anew.

    Parameters
    ----------
    mask : Mask
        As `composed`.
    found : Certificate
        Of the found mask: what it says of the input, and its control, hold for every edit.
    """
    render = settings.render.model_copy(update={"amount": edit.amount})
    made = rendered(samples, rate, mask, render, model.settings.spectrum)
    rows = listen(InMemory(samples, rate), model).rows_db
    after = listen(InMemory(made.samples, rate), model).rows_db
    judge = None
    if model.judge is not None and found.judge is not None:
        judge = Change(before=found.judge.before, after=mean_score(model.judge, after))
    frames = np.arange(rows.frames) * mask.hop_seconds
    bands = centres_hz(model.settings.scorer.bands, model.settings.spectrum)
    certificate = certify(
        scorer=Change(before=found.scorer.before, after=mean_score(model.scorer, after)),
        judge=judge,
        judge_rows=partial(mean_score, model.judge) if model.judge is not None else None,
        judge_fooled=found.judge_fooled,
        rows_db=rows,
        mask_db=Held(torch.from_numpy(mask.at(bands, frames)) * edit.amount),
        roughness_db=mask.roughness_db * edit.amount,
        unlikeness=found.unlikeness,
        unlike_reference=Change(
            before=found.unlike_reference.before,
            after=model.reference_likeness.unlikeness(after),
        ),
        settings=settings.certificate,
        doubts=doubts(model),
    )
    return Edited(mask, made, certificate)


class _Pinned:
    """Where pinned notes lie the mask stays; all else turns, smoothly from one to the other."""

    def __init__(self, start_db: Tensor, cover: Tensor, held_db: Tensor, smooth: int) -> None:
        self.start, self.cover, self.held = start_db, cover, held_db
        self.smooth = smooth
        self.values = torch.zeros_like(start_db, requires_grad=True)

    def mask(self) -> Tensor:
        """Held where covered, else start plus the smoothed change."""
        free = self.start + smoothed(self.values, self.smooth)
        return free + self.cover * (self.held - free)


def again(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    found: Mask,
    pinned: tuple[Note, ...],
    settings: EnhanceSettings,
    certificate: Certificate,
) -> Iterator[Step | Enhancement]:
    """Search a new mask around pinned notes, which the search hears and leaves alone.

    Under a pinned note the mask stays what it was. Yields every `Step` and, last, the
    `Enhancement`, whose mask is the found one without the notes, to be composed with them; its
    sound and certificate are those of both.
    """
    settings = adapted(settings, model)
    recording = listen(InMemory(samples, rate), model)
    grid = grid_of(recording, model, settings.method)
    levels_db = grid.levels_db.part(0, grid.levels_db.frames)
    wave = recording.wave.part(0, recording.wave.frames)
    frame_s = torch.arange(levels_db.shape[1]) * found.hop_seconds
    row_hz = torch.from_numpy(grid.hz).float()
    heard = tuple(note for note in pinned if not note.muted)
    notes = added(heard, row_hz, frame_s) if heard else torch.zeros_like(levels_db)
    cover = covered(list(pinned), row_hz, frame_s)
    held = torch.from_numpy(found.at(grid.hz, frame_s.double().numpy())) + notes
    anchored = anchor(settings.prior.kind, recording, grid, model)
    prior = anchored.mask_db.part(0, len(frame_s))
    searching = settings.search
    if searching.guide is None:
        searching = searching.model_copy(update={"guide": model.guide_weight})
    hears = searching.listen and searching.steps > 0
    steps = search(
        grid.scale.score,
        levels_db,
        _Pinned(prior, cover, held, model.settings.spectrum.frames(searching.smooth_ms / 1000)),
        prior + cover * (held - prior),
        searching,
        window_frames=model.scorer.crop_frames,
        max_gain_db=settings.render.max_gain_db,
        generator=torch.Generator().manual_seed(settings.seed),
        energy=partial(model.guide.energy, level_db=anchored.level_db) if searching.guide else None,
        listen=listener(wave, grid.scale, model.settings.spectrum) if hears else None,
        loudest_db=recording.levels.loudest_db,
    )
    step: Step | None = None
    for step in steps:
        yield step
    assert step is not None
    gain = (step.mask_db - notes).detach().numpy().astype(np.float32)
    mask = Mask(gain, grid.hz, found.hop_seconds, model.settings.spectrum.rate / 2)
    mask = mask.bounded(settings.render.max_gain_db).rounded()
    edit = Edit(amount=settings.render.amount, notes=pinned)
    whole = composed(mask, edit, settings.render.max_gain_db)
    done = edited(samples, rate, model, whole, edit, settings, certificate)
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
