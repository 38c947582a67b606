"""Train a predictor: a network that imitates, in one pass, the masks of prior and search.

This is knowledge distillation (Hinton, Vinyals & Dean 2015) of a slow method into a fast network.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tonewood.data.dataset import TrainingRecording, select_training_excerpts, split_takes
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
from tonewood.priors.predictor import DistillationExample, Predictor, prediction_error_db, train_predictor
from tonewood.settings import EnhanceSettings, PredictorSettings

# Recordings of each side that priors, guide and predictor learn from; longer folders are sampled.
MAX_LEARNING_SECONDS = 1800.0


class LabelProgress(NamedTuple):
    """Progress of `distill_predictor`: one more recording has its mask."""

    number: int
    total: int
    path: Path


def distill_predictor(
    model: Model, takes: Mapping[DatasetSide, list[TrainingRecording]], settings: PredictorSettings
) -> Iterator[LabelProgress | Model]:
    """Add a predictor to a model; yield the progress and, last, the model with its predictor.

    The predictor learns the masks that prior and search find for the source recordings. Everything
    else in the model stays the same to the bit.

    `takes` are the recordings that the model was trained on; AudioError if one cannot be read again.
    """
    seed, spectrum = model.settings.training.seed, model.settings.spectrum

    # Find the mask of every recording with prior and search: the labels.
    split = split_takes(takes["source"], settings.held_out, seed)
    train, held_out = _limit_duration(split.train, seed), _limit_duration(split.held_out, seed)
    examples: list[DistillationExample] = []
    for number, take in enumerate((*train, *held_out), start=1):
        source = TruncatedSource(open_recording(take.item, model.card.fix), MAX_LEARNING_SECONDS)
        examples.append(_distillation_example(source, model, settings.search_steps))
        yield LabelProgress(number, len(train) + len(held_out), take.path)
    train_examples, held_out_examples = examples[: len(train)], examples[len(train) :]

    predictor = train_predictor(
        train_examples,
        model.priors.static_db,
        model.guide.energy,
        center_frequencies(model.settings.scorer.bands, spectrum),
        settings,
        spectrum.hop_ms,
        torch.Generator().manual_seed(seed),
    )
    # A model file stores half precision: rounding now makes the model equal to its file.
    predictor = Predictor.from_tensors(predictor.tensors(), settings, spectrum.hop_ms)

    # Measure it on the recordings held out.
    audible_db = torch.cat([example.mask_db[:, example.audible] for example in held_out_examples], dim=1)
    card = PredictorCard(
        parameters=predictor.parameter_count,
        takes=len(held_out_examples),
        missed_db=prediction_error_db(predictor, held_out_examples),
        spread_db=float((audible_db - model.priors.static_db[:, None]).square().mean().sqrt()),
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
    """Return all takes, or a random choice of them that lasts `MAX_LEARNING_SECONDS`."""
    # A random order, so that a long folder is not represented by its first files.
    order = torch.randperm(len(takes), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen: list[int] = []
    seconds = 0.0
    for k in order:
        if chosen and seconds + takes[k].seconds > MAX_LEARNING_SECONDS:
            break
        chosen.append(k)
        seconds += takes[k].seconds
    return [takes[k] for k in sorted(chosen)]  # in folder order, as progress shows it


def _distillation_example(source: AudioSource, model: Model, steps: int) -> DistillationExample:
    """Return the row levels of a recording, the mask found for it, and the search's share of it."""
    spectrum = model.settings.spectrum
    analysis = analyse_source(source, model)
    settings = EnhanceSettings().replace(search=dict(steps=steps))
    # Step 0 is the prior alone; the last step includes the search.
    events = list(find_mask(analysis, model, settings))
    prior_db, mask_db = (
        torch.cat([event.mask_db for event in events if event.number == number], dim=1)
        for number in (0, steps)
    )
    labels = mask_db, mask_db - prior_db
    if source.rate < spectrum.rate:
        return DistillationExample(analysis.rows_db.read(0, analysis.rows_db.frames), *labels)

    # Streaming analyses a recording at its own rate: bring the labels to that frame grid.
    rows = torch.cat(list(iter_features(source, model)), dim=1)
    _, hop, _ = scale_to_rate(spectrum, source.rate)
    seconds = np.arange(rows.shape[1]) * (hop / source.rate)
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    masks = (Mask(label.numpy(), hz, spectrum.hop / spectrum.rate, spectrum.rate / 2) for label in labels)
    return DistillationExample(rows, *(torch.from_numpy(mask.gain_at(hz, seconds)) for mask in masks))


def _cycle_distances(
    model: Model, predictor: Predictor, reference: list[TrainingRecording]
) -> tuple[float, float, float]:
    """Return the cycle distance in dB without a mask, with the prior's and with the predictor's."""
    priors, settings = model.priors, model.settings
    held_out = split_takes(reference, settings.priors.held_out, settings.training.seed).held_out
    # Each reference recording held out is translated to the source, so that its true mask is known:
    # the one that leads back to it.
    distances = []
    for features in select_training_excerpts(held_out, MAX_LEARNING_SECONDS, settings.training.seed)[0]:
        take = priors.reference.prior_features(features)
        pseudo = back_translate(take, priors.reference, priors.source, priors.hop_ms)
        masks = (
            torch.zeros_like(pseudo.rows_db),
            blended_prior(priors, pseudo),
            predictor.predict(pseudo.rows_db).mask_db,
        )
        distances.append([cycle_distance(pseudo.rows_db + mask, take) for mask in masks])
    before, prior, predicted = np.mean(distances, axis=0).tolist()
    return before, prior, predicted
