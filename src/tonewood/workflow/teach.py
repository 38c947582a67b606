"""Give a model a predictor: the masks of the whole method, learnt by a network of one pass."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tonewood.files import folders
from tonewood.files.card import PredictorCard
from tonewood.files.folders import Take, lesson
from tonewood.files.modelfile import Model
from tonewood.files.study import opened
from tonewood.masking.distil import Lesson, distil, missed_db
from tonewood.masking.fitting import blended, cycle_distance
from tonewood.masking.mask import Mask
from tonewood.masking.neighbours import imitated
from tonewood.masking.predictor import Predictor
from tonewood.settings import EnhanceSettings, PredictorSettings, changed
from tonewood.signal.bands import centres_hz
from tonewood.signal.spectrum import scaled_to
from tonewood.workflow.audit import Side
from tonewood.workflow.hearing import Beginning, Sound, listen
from tonewood.workflow.mask import find_mask
from tonewood.workflow.predict import rows_along

MOST_SECONDS = 1800.0
"""What priors, guide and predictor learn from of each side; longer folders are drawn from."""


class Taught(NamedTuple):
    """What the whole method makes of a recording is known; it is one of so many."""

    number: int
    total: int
    path: Path


def teach(
    model: Model, takes: Mapping[Side, list[Take]], settings: PredictorSettings
) -> Iterator[Taught | Model]:
    """Give a model a predictor; yields its progress and, last, the model with it.

    What prior and search make of the source takes is what is taught. All else of the model stays
    as it is, to the bit.

    Parameters
    ----------
    takes : mapping
        Those that the model was trained on.

    Raises
    ------
    AudioError
        A recording cannot be read again; it is named.
    """
    seed, spectrum = model.settings.training.seed, model.settings.spectrum
    row_hz = centres_hz(model.settings.scorer.bands, spectrum)
    split = folders.split(takes["source"], settings.held_out, seed)
    lessons: list[list[Lesson]] = []
    number = 0
    parts = _enough(split.train, seed), _enough(split.held_out, seed)
    total = len(parts[0]) + len(parts[1])
    for part in parts:
        lessons.append([])
        for take in part:
            sound = Beginning(opened(take.item, model.card.fix), MOST_SECONDS)
            lessons[-1].append(_lesson(sound, model, settings.search_steps))
            number += 1
            yield Taught(number, total, take.path)
    predictor = distil(
        lessons[0],
        model.priors.static_db,
        model.guide.energy,
        row_hz,
        settings,
        spectrum.hop_ms,
        torch.Generator().manual_seed(seed),
    )
    # Through the stored precision, so that a model is the same before and after its file.
    predictor = Predictor.from_tensors(predictor.tensors(), settings, spectrum.hop_ms)
    heard = torch.cat([lesson.mask_db[:, lesson.audible] for lesson in lessons[1]], dim=1)
    card = PredictorCard(
        parameters=predictor.parameter_count,
        takes=len(lessons[1]),
        missed_db=missed_db(predictor, lessons[1]),
        spread_db=float((heard - model.priors.static_db[:, None]).square().mean().sqrt()),
        cycle_db=_cycle(model, predictor, takes["reference"]),
    )
    yield replace(
        model,
        settings=model.settings.model_copy(
            update={"predictor": settings.model_copy(update={"taught": True})}
        ),
        predictor=predictor,
        card=model.card.model_copy(update={"predictor": card}),
    )


def _enough(takes: Sequence[Take], seed: int) -> list[Take]:
    """Takes that are searched: all, or as many as last long enough, drawn by the seed."""
    order = torch.randperm(len(takes), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen: list[int] = []
    seconds = 0.0
    for k in order:
        if chosen and seconds + takes[k].seconds > MOST_SECONDS:
            break
        chosen.append(k)
        seconds += takes[k].seconds
    return [takes[k] for k in sorted(chosen)]


def _lesson(sound: Sound, model: Model, steps: int) -> Lesson:
    """A recording's rows at its own rate, and what prior and search make of it."""
    spectrum = model.settings.spectrum
    heard = listen(sound, model)
    wanted = changed(EnhanceSettings(), [f"search.steps={steps}"])
    taken = list(find_mask(heard, model, wanted))
    first, last = (
        torch.cat([it.mask_db for it in taken if it.number == number], dim=1)
        for number in (0, steps)
    )
    found = last, last - first
    if sound.rate < spectrum.rate:
        return Lesson(heard.rows_db.part(0, heard.rows_db.frames), *found)
    rows = torch.cat(list(rows_along(sound, model)), dim=1)
    _, hop, _ = scaled_to(spectrum, sound.rate)
    seconds = np.arange(rows.shape[1]) * (hop / sound.rate)
    hz = centres_hz(model.settings.scorer.bands, spectrum)
    grids = (Mask(it.numpy(), hz, spectrum.hop / spectrum.rate, spectrum.rate / 2) for it in found)
    return Lesson(rows, *(torch.from_numpy(it.at(hz, seconds)) for it in grids))


def _cycle(model: Model, predictor: Predictor, reference: list[Take]) -> tuple[float, float, float]:
    """Cycle distance of nothing done, of the prior and of the predictor, dB, on takes held out."""
    priors = model.priors
    settings = model.settings
    held = folders.split(reference, settings.priors.held_out, settings.training.seed).held_out
    found = []
    for features in lesson(held, MOST_SECONDS, settings.training.seed)[0]:
        take = priors.reference.take(features)
        pseudo = imitated(take, priors.reference, priors.source, priors.hop_ms)
        masks = (
            torch.zeros_like(pseudo.rows_db),
            blended(priors, pseudo),
            predictor.foresee(pseudo.rows_db).mask_db,
        )
        found.append([cycle_distance(pseudo.rows_db + mask, take) for mask in masks])
    before, prior, predicted = np.mean(found, axis=0).tolist()
    return before, prior, predicted
