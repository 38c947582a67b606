"""Give a model a predictor: the masks of the whole method, learnt by a network of one pass."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tonewood.data import dataset
from tonewood.data.dataset import TrainingRecording, select_training_excerpts
from tonewood.data.feature_cache import open_recording
from tonewood.data.loading import DatasetSide
from tonewood.dsp.filterbank import center_frequencies
from tonewood.dsp.stft import scale_to_rate
from tonewood.enhancement.analysis import AudioSource, TruncatedSource, analyse_source
from tonewood.enhancement.mask_search import find_mask
from tonewood.enhancement.prior_mask import iter_features
from tonewood.mask.mask import Mask
from tonewood.model.card import PredictorCard
from tonewood.model.model import Model
from tonewood.priors.fitting import blended_prior, cycle_distance
from tonewood.priors.nearest_neighbours import back_translate
from tonewood.priors.predictor import (
    DistillationExample,
    Predictor,
    prediction_error_db,
    train_predictor,
)
from tonewood.settings import EnhanceSettings, PredictorSettings

MAX_LEARNING_SECONDS = 1800.0
"""What priors, guide and predictor learn from of each side; longer folders are drawn from."""


class LabelProgress(NamedTuple):
    """What the whole method makes of a recording is known; it is one of so many."""

    number: int
    total: int
    path: Path


def distill_predictor(
    model: Model, takes: Mapping[DatasetSide, list[TrainingRecording]], settings: PredictorSettings
) -> Iterator[LabelProgress | Model]:
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
    row_hz = center_frequencies(model.settings.scorer.bands, spectrum)
    split = dataset.split_takes(takes["source"], settings.held_out, seed)
    lessons: list[list[DistillationExample]] = []
    number = 0
    parts = _limit_duration(split.train, seed), _limit_duration(split.held_out, seed)
    total = len(parts[0]) + len(parts[1])
    for part in parts:
        lessons.append([])
        for take in part:
            sound = TruncatedSource(open_recording(take.item, model.card.fix), MAX_LEARNING_SECONDS)
            lessons[-1].append(_distillation_example(sound, model, settings.search_steps))
            number += 1
            yield LabelProgress(number, total, take.path)
    predictor = train_predictor(
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
        missed_db=prediction_error_db(predictor, lessons[1]),
        spread_db=float((heard - model.priors.static_db[:, None]).square().mean().sqrt()),
        cycle_db=_cycle_distances(model, predictor, takes["reference"]),
    )
    yield replace(
        model,
        settings=model.settings.model_copy(
            update={"predictor": settings.model_copy(update={"taught": True})}
        ),
        predictor=predictor,
        card=model.card.model_copy(update={"predictor": card}),
    )


def _limit_duration(takes: Sequence[TrainingRecording], seed: int) -> list[TrainingRecording]:
    """Takes that are searched: all, or as many as last long enough, drawn by the seed."""
    order = torch.randperm(len(takes), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen: list[int] = []
    seconds = 0.0
    for k in order:
        if chosen and seconds + takes[k].seconds > MAX_LEARNING_SECONDS:
            break
        chosen.append(k)
        seconds += takes[k].seconds
    return [takes[k] for k in sorted(chosen)]


def _distillation_example(source: AudioSource, model: Model, steps: int) -> DistillationExample:
    """A recording's rows at its own rate, and what prior and search make of it."""
    spectrum = model.settings.spectrum
    heard = analyse_source(source, model)
    wanted = EnhanceSettings().replace(search=dict(steps=steps))
    taken = list(find_mask(heard, model, wanted))
    first, last = (
        torch.cat([it.mask_db for it in taken if it.number == number], dim=1) for number in (0, steps)
    )
    found = last, last - first
    if source.rate < spectrum.rate:
        return DistillationExample(heard.rows_db.read(0, heard.rows_db.frames), *found)
    rows = torch.cat(list(iter_features(source, model)), dim=1)
    _, hop, _ = scale_to_rate(spectrum, source.rate)
    seconds = np.arange(rows.shape[1]) * (hop / source.rate)
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    grids = (Mask(it.numpy(), hz, spectrum.hop / spectrum.rate, spectrum.rate / 2) for it in found)
    return DistillationExample(rows, *(torch.from_numpy(it.gain_at(hz, seconds)) for it in grids))


def _cycle_distances(
    model: Model, predictor: Predictor, reference: list[TrainingRecording]
) -> tuple[float, float, float]:
    """Cycle distance of nothing done, of the prior and of the predictor, dB, on takes held out."""
    priors = model.priors
    settings = model.settings
    held = dataset.split_takes(reference, settings.priors.held_out, settings.training.seed).held_out
    found = []
    for features in select_training_excerpts(held, MAX_LEARNING_SECONDS, settings.training.seed)[0]:
        take = priors.reference.prior_features(features)
        pseudo = back_translate(take, priors.reference, priors.source, priors.hop_ms)
        masks = (
            torch.zeros_like(pseudo.rows_db),
            blended_prior(priors, pseudo),
            predictor.predict(pseudo.rows_db).mask_db,
        )
        found.append([cycle_distance(pseudo.rows_db + mask, take) for mask in masks])
    before, prior, predicted = np.mean(found, axis=0).tolist()
    return before, prior, predicted
