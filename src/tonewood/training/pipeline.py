"""Train a model from two folders of recordings, from the answers of listeners, or from both."""

import platform
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from math import fsum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tonewood.audit.pipeline import analyse_confounds
from tonewood.data.dataset import TrainingExcerpts, TrainingRecording, select_training_excerpts, split_takes
from tonewood.data.feature_cache import NO_CACHE, FeatureCache
from tonewood.data.loading import (
    DatasetSide,
    RecordingProgress,
    SideInput,
    load_sides,
    plan_side_normalization,
    side_display_name,
)
from tonewood.data.manifest import BadRecordings, FolderOrManifest
from tonewood.errors import CallError, ModelError, printable
from tonewood.mask.certificate import OutOfDomainDetector, fit_detector
from tonewood.model.card import (
    ConfoundAudit,
    FolderCard,
    ListenerCard,
    ModelCard,
    PriorCard,
    Quartiles,
    ScorerCard,
)
from tonewood.model.model import Model, load_model
from tonewood.priors.blend_selection import MOSTLY_STATIC
from tonewood.priors.fitting import PriorFit, Ways, fit_priors
from tonewood.priors.priors import Priors
from tonewood.scorer.graded_crops import WayPair
from tonewood.scorer.guide import Guide
from tonewood.scorer.guide_training import select_guide_weight, train_guide, train_way_guide, validation_gains
from tonewood.scorer.training import TrainedScorer
from tonewood.scorer.training_loop import process_rank
from tonewood.settings import ModelSettings, Normalization, PredictorSettings
from tonewood.training.networks import (
    MAX_LEARNING_SECONDS,
    CheckEvent,
    Checkpoint,
    LabelProgress,
    NetworkName,
    TakeWay,
    distill_predictor,
    fit_scorers,
    networks_to_train,
    open_checkpoint,
)
from tonewood.training.preferences import (
    ListenerAnswers,
    ListenerAudioProgress,
    hold_out_listener_groups,
    load_listener_answers,
    measure_listener_agreement,
)
from tonewood.utils.arrays import TakeWeights, split_generator
from tonewood.utils.parallel import check_device, page_out, parallel_starmap, trim_malloc

TrainingProgress = RecordingProgress | ListenerAudioProgress | CheckEvent | LabelProgress
TrainingEvent = TrainingProgress | Model


class Provenance(NamedTuple):
    """Description, licence and notice of the recordings, for the model card."""

    domain: str = ""
    licence: str = ""
    notice: str = ""


class _TrainingData(NamedTuple):
    """Takes of both sides, answers of listeners, and the normalization of the takes; None if not given."""

    takes: dict[DatasetSide, list[TrainingRecording]] | None
    answers: ListenerAnswers | None
    normalization: Normalization | None


class _DataSummary(NamedTuple):
    """Facts about the training data that the model keeps."""

    cards: tuple[FolderCard, FolderCard]
    detectors: tuple[OutOfDomainDetector, OutOfDomainDetector]
    audit: ConfoundAudit | None = None
    normalization: Normalization | None = None


class _PriorExcerpts(NamedTuple):
    """Excerpts that the priors learn from."""

    reference: TrainingExcerpts
    held_out: TrainingExcerpts
    source: TrainingExcerpts

    def ways(self, ways: Ways) -> list[TakeWay]:
        """Return the ways of all excerpts, with the side and group of each."""
        sides: tuple[tuple[DatasetSide, TrainingExcerpts, Sequence[WayPair]], ...] = (
            ("source", self.source, ways.source),
            ("reference", self.reference, ways.reference),
            ("reference", self.held_out, ways.held_out),
        )
        return [
            TakeWay(side, group, way)
            for side, excerpts, pairs in sides
            for group, way in zip(excerpts.groups, pairs, strict=True)
        ]


class _Correction(NamedTuple):
    """Priors and guides, which are trained from folders only."""

    fit: PriorFit
    guide: Guide
    way_guide: Guide | None
    card: PriorCard


def train_model(
    reference: SideInput | None,
    source: FolderOrManifest | None,
    settings: ModelSettings,
    *,
    preferences: Path | None = None,
    ratings: Path | None = None,
    name: str = "model",
    device: str = "cpu",
    provenance: Provenance | None = None,
    cache: FeatureCache = NO_CACHE,
    checkpoint: Checkpoint | None = None,
    bad: BadRecordings | None = None,
) -> Iterator[TrainingEvent]:
    """Train a model; yield the progress and, last, the `Model`.

    If several processes train together, only the first yields a `Model`. A model trained from
    listeners alone has no priors and no guide: its mask search starts from zero and follows the
    scorer.

    Parameters
    ----------
    reference : Path, ManifestSide or sequence of WeightedFolder, optional
        The weights of several folders apply to everything that is learned from them.
    source : Path or ManifestSide, optional
        Its recordings need not correspond to those of the reference.
    preferences, ratings : Path, optional
        Tables of answers; listeners then teach the scorer and the judge, beside the folders if
        both are given.
    checkpoint : Checkpoint, optional
        Keeps the unfinished scorer and judge, for `--resume`.
    bad : BadRecordings, optional
        Decides whether bad recordings are left out; by default they raise an error that names all.

    Raises
    ------
    CallError
        The inputs are incomplete or contradict the settings.
    FolderError, AudioError
        A folder, a table or a recording cannot be used; the message names it.
    DeviceError
        The device does not exist.
    """
    started = time.perf_counter()
    _check_inputs(reference, source, preferences, ratings, settings)
    check_device(device)
    takes, answers, normalization = yield from _load_data(
        reference, source, preferences, ratings, settings, cache, bad or BadRecordings()
    )

    # First, so that the checkpoint of another training is refused before the work.
    listener_data = answers.data if answers else None
    checkpoint = open_checkpoint(checkpoint, takes, listener_data, settings)

    # Everything that reads whole recordings runs before the long training, so that their memory
    # can be returned to the system first. Priors and guide need two folders; listeners alone do not
    # show a correction.
    correction, ways = None, list[TakeWay]()
    if takes is not None:
        names = [side_display_name(side) for side in (reference, source) if side is not None]
        summary = _summarize_folders(takes, names, normalization, settings)
        excerpts = _select_prior_excerpts(takes, settings)
        correction = _fit_correction(excerpts, settings)
        ways = excerpts.ways(correction.fit.ways)
        _free_memory(takes)
    else:
        assert answers is not None
        summary = _summarize_answers(answers, settings)

    # The slow part: scorer and judge, which --resume can continue.
    fits = yield from fit_scorers(takes, listener_data, settings, device, checkpoint, ways)
    if takes is not None:
        _free_memory(takes)
    if process_rank():
        return  # the other processes trained the scorer with the first, which continues alone
    if not settings.predictor.taught:
        takes = None  # of long folders, only the excerpts are still needed

    agreement = _measure_agreement(fits["scorer"], answers, settings) if answers else None
    seconds = round(time.perf_counter() - started, 1)
    card = _model_card(settings, summary, fits, correction, agreement, provenance or Provenance(), seconds)
    model = _assemble_model(name, settings, summary, fits, correction, card)
    if settings.predictor.taught:
        assert takes is not None
        yield from distill_predictor(model, takes, settings.predictor)
    else:
        yield model


def load_finished_model(output: Path, checkpoint: Checkpoint) -> Model | None:
    """Load the model of a training that was killed after saving it, before removing its checkpoint."""
    digest = checkpoint.recorded_digest()
    if digest is None or not output.is_file():
        return None
    try:
        model = load_model(output)
    except ModelError:
        return None
    # Another file of the same name is not the result of this training.
    return model if model.digest == digest else None


def add_predictor(
    model: Model,
    reference: SideInput,
    source: FolderOrManifest,
    settings: PredictorSettings,
    cache: FeatureCache = NO_CACHE,
    bad: BadRecordings | None = None,
) -> Iterator[TrainingEvent]:
    """Add a predictor to a trained model and change nothing else; yield the same events as `train_model`.

    Reference and source are the recordings that the model was trained on.

    Raises
    ------
    FolderError, AudioError
        A folder or a recording cannot be used; the message names it.
    ModelError
        The model was trained from listeners alone and has no prior.
    """
    if model.learnt_priors is None:
        raise ModelError(
            f"{printable(model.name)} was trained from listeners alone; a predictor is trained from the "
            "prior and the search: train a model with --reference and --source"
        )
    takes = yield from load_sides(
        reference, source, model.settings, normalization=model.card.fix, cache=cache, bad=bad
    )
    yield from distill_predictor(model, takes, settings)


def _check_inputs(
    reference: SideInput | None,
    source: FolderOrManifest | None,
    preferences: Path | None,
    ratings: Path | None,
    settings: ModelSettings,
) -> None:
    if (reference is None) != (source is None):
        missing = "--reference" if reference is None else "--source"
        raise CallError(f"{missing} is missing: give both folders, --reference and --source")
    if reference is not None:
        return
    if preferences is None and ratings is None:
        raise CallError(
            "there is nothing to train from: give --reference and --source, a --manifest, "
            "--preferences or --ratings"
        )
    if settings.training.fix:
        raise CallError("--fix makes two folders alike: give --reference and --source too")
    if settings.predictor.taught:
        raise CallError("a predictor is trained from folders: give --reference and --source too")


def _load_data(
    reference: SideInput | None,
    source: FolderOrManifest | None,
    preferences: Path | None,
    ratings: Path | None,
    settings: ModelSettings,
    cache: FeatureCache,
    bad: BadRecordings,
) -> Generator[TrainingProgress, None, _TrainingData]:
    """Load the recordings of both sides and the answers of listeners, as far as they are given."""
    normalization = takes = answers = None
    if reference is not None and source is not None:
        normalization = yield from plan_side_normalization(reference, source, settings, bad)
        takes = yield from load_sides(
            reference, source, settings, normalization=normalization, cache=cache, bad=bad
        )
    if preferences is not None or ratings is not None:
        answers = yield from load_listener_answers(preferences, ratings, settings, bad)
    return _TrainingData(takes, answers, normalization)


def _summarize_folders(
    takes: Mapping[DatasetSide, list[TrainingRecording]],
    names: Sequence[str],
    normalization: Normalization | None,
    settings: ModelSettings,
) -> _DataSummary:
    reference, source = takes["reference"], takes["source"]
    # The model card carries the audit, so that a confounded model says so itself.
    audit = analyse_confounds(
        [take.audit_features for take in reference],
        [take.audit_features for take in source],
        np.random.default_rng(settings.training.seed),
    )
    window = settings.spectrum.to_frames(settings.scorer.crop_seconds)
    detectors = tuple(fit_detector([take.rows_db for take in side], window) for side in (reference, source))
    cards = tuple(
        _folder_card(name, [take.seconds for take in side])
        for name, side in zip(names, (reference, source), strict=True)
    )
    _free_memory(takes)  # audit and detectors have read every row once
    return _DataSummary((cards[0], cards[1]), (detectors[0], detectors[1]), audit, normalization)


def _summarize_answers(answers: ListenerAnswers, settings: ModelSettings) -> _DataSummary:
    """Summarize recordings by the half that listeners preferred, in place of two folders."""
    window = settings.spectrum.to_frames(settings.scorer.crop_seconds)
    halves: dict[bool, list[float]] = {True: [], False: []}
    for seconds, preferred in zip(answers.seconds, answers.data.in_better_half.tolist(), strict=True):
        halves[preferred].append(seconds)
    return _DataSummary(
        (
            _folder_card("the better half of what was heard", halves[True]),
            _folder_card("the worse half of what was heard", halves[False]),
        ),
        (
            fit_detector(answers.data.split_by_preference().reference, window),
            # Inputs of either half are in domain, so the source is everything that was heard.
            fit_detector(answers.data.rows, window),
        ),
    )


def _folder_card(name: str, seconds: Sequence[float]) -> FolderCard:
    # An exact sum does not depend on the order of the recordings.
    return FolderCard(name=name, takes=len(seconds), hours=round(fsum(seconds) / 3600, 4))


def _select_prior_excerpts(
    takes: Mapping[DatasetSide, list[TrainingRecording]], settings: ModelSettings
) -> _PriorExcerpts:
    seed = settings.training.seed
    split = split_takes(takes["reference"], settings.priors.held_out, seed)
    return _PriorExcerpts(
        select_training_excerpts(split.train, MAX_LEARNING_SECONDS, seed),
        select_training_excerpts(split.held_out, MAX_LEARNING_SECONDS, seed),
        select_training_excerpts(takes["source"], MAX_LEARNING_SECONDS, seed),
    )


def _fit_correction(excerpts: _PriorExcerpts, settings: ModelSettings) -> _Correction:
    # One generator for priors and guide, so that the model depends on the seed alone.
    generator = torch.Generator().manual_seed(settings.training.seed)
    fit = fit_priors(
        excerpts.reference.features,
        excerpts.source.features,
        excerpts.held_out.features,
        settings.priors,
        settings.spectrum.hop_ms,
        generator,
        (excerpts.reference.weights, excerpts.held_out.weights),
    )
    guide, way_guide = _train_guides(fit, excerpts.reference.weights, settings, generator)
    gains = validation_gains(guide, fit.corrected_held_out)
    weight = select_guide_weight(gains) * _guide_trust(fit.priors)
    card = PriorCard(
        weights=fit.priors.weights,
        beliefs=fit.priors.shrinkage,
        cycle_db=tuple((score.weights, score.cycle_db) for score in fit.scores),
        energy_db=tuple(score.energy_db for score in fit.scores),
        guide_weight=weight,
        guide_gains=gains,
    )
    return _Correction(fit, guide, way_guide, card)


def _guide_trust(priors: Priors) -> float:
    """Return a factor in [0, 1] for the guide's weight: how far the adaptive masks are trusted.

    The guide acts frame by frame and learned from the same kind of pairs as they did.
    """
    if priors.weights.static >= MOSTLY_STATIC.static:
        return 0.0
    return priors.shrinkage.networks.per_frame * (1 - priors.weights.static)


def _train_guides(
    fit: PriorFit, weights: TakeWeights, settings: ModelSettings, generator: torch.Generator
) -> tuple[Guide, Guide | None]:
    """Train the guide and, for graded targets, the whole-way guide; the weights are of reference takes."""
    trainings = [partial(train_guide, fit.corrected, settings.guide, take_weights=weights)]
    # Scores of labels are the paper's loss, which then leads the paper's search.
    if settings.training.targets == "graded":
        both = weights if weights is None else [1.0] * len(fit.ways.source) + list(weights)
        trainings.append(partial(train_way_guide, fit.whole_ways, settings.guide, take_weights=both))
    generators = split_generator(generator, len(trainings))
    guide, *way_guide = parallel_starmap(
        lambda train, own: train(generator=own), zip(trainings, generators, strict=True)
    )
    return guide, way_guide[0] if way_guide else None


def _free_memory(takes: Mapping[DatasetSide, list[TrainingRecording]]) -> None:
    """Return the memory of a finished stage to the system; recordings stay memory-mapped."""
    for side in takes.values():
        for take in side:
            page_out(*take.features)
    trim_malloc()


def _measure_agreement(
    scorer: TrainedScorer, answers: ListenerAnswers, settings: ModelSettings
) -> ListenerCard:
    # The scorer's own split, so that the agreement is measured on groups it did not learn from.
    split = hold_out_listener_groups(answers.data, settings.training.held_out, settings.training.seed)
    return measure_listener_agreement(scorer.scorer, answers.data, split)


def _assemble_model(
    name: str,
    settings: ModelSettings,
    summary: _DataSummary,
    fits: Mapping[NetworkName, TrainedScorer],
    correction: _Correction | None,
    card: ModelCard,
) -> Model:
    judge = fits.get("judge")
    return Model(
        name=name,
        settings=settings,
        scorer=fits["scorer"].scorer,
        judge=judge.scorer if judge else None,
        learnt_priors=correction.fit.priors if correction else None,
        learnt_guide=correction.guide if correction else None,
        guide_weight=correction.card.guide_weight if correction else 0.0,
        reference_likeness=summary.detectors[0],
        source_likeness=summary.detectors[1],
        card=card,
        way_guide=correction.way_guide if correction else None,
    )


def _model_card(
    settings: ModelSettings,
    summary: _DataSummary,
    fits: Mapping[NetworkName, TrainedScorer],
    correction: _Correction | None,
    agreement: ListenerCard | None,
    provenance: Provenance,
    seconds: float,
) -> ModelCard:
    judge, seeds = fits.get("judge"), dict(networks_to_train(settings))
    return ModelCard(
        reference=summary.cards[0],
        source=summary.cards[1],
        scorer=_scorer_card(fits["scorer"], seeds["scorer"]),
        judge=_scorer_card(judge, seeds["judge"]) if judge else None,
        prior=correction.card if correction else None,
        seconds=seconds,
        seed=settings.training.seed,
        versions={
            "tonewood": version("tonewood"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
        **provenance._asdict(),
        audit=summary.audit,
        fix=summary.normalization,
        ears=agreement,
    )


def _scorer_card(fit: TrainedScorer, seed: int) -> ScorerCard:
    return ScorerCard(
        accuracy=fit.accuracy,
        accuracy_interval=fit.interval,
        takes=fit.takes,
        windows=fit.windows,
        calibration_error=fit.calibration.error,
        reference_scores=Quartiles.of(fit.reference_scores),
        source_scores=Quartiles.of(fit.source_scores),
        parameters=fit.scorer.parameter_count,
        steps=fit.steps,
        seed=seed,
    )
