"""Two folders → a model.

What listeners said, alone → a model: scorer and judge, and nothing that folders would teach.
"""

import platform
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tonewood.audit.pipeline import analyse_confounds
from tonewood.data import dataset
from tonewood.data.dataset import TrainingRecording, WeightedFolder, select_training_excerpts
from tonewood.data.feature_cache import NO_CACHE, FeatureCache
from tonewood.data.loading import (
    AuditProgress,
    SideLoadProgress,
    load_sides,
    plan_side_normalization,
    side_display_name,
)
from tonewood.data.manifest import FolderOrManifest
from tonewood.errors import CallError, DeviceError, ModelError, printable
from tonewood.mask import certificate
from tonewood.model.card import (
    FolderCard,
    ListenerCard,
    ModelCard,
    PriorCard,
    Quartiles,
    ScorerCard,
)
from tonewood.model.model import Model, load_model
from tonewood.priors import fitting
from tonewood.scorer.guide import select_guide_weight, train_guide, validation_gains
from tonewood.scorer.network import Scorer
from tonewood.scorer.preference_training import ListenerData
from tonewood.scorer.training import TrainedScorer
from tonewood.scorer.training_loop import process_rank
from tonewood.settings import ModelSettings, PredictorSettings
from tonewood.training import preferences
from tonewood.training.distillation import MAX_LEARNING_SECONDS, LabelProgress, distill_predictor
from tonewood.training.preferences import (
    ListenerAnswers,
    ListenerAudioProgress,
    load_listener_answers,
)
from tonewood.training.scorers import CheckEvent, Checkpoint, fit_scorers
from tonewood.utils.parallel import page_out, trim_malloc


class Provenance(NamedTuple):
    """What the recordings are, where they are from, and under which licence the model may go."""

    domain: str = ""
    licence: str = ""
    notice: str = ""


NO_PROVENANCE = Provenance()


ListenerTables = tuple[Path | None, Path | None]

TrainingEvent = AuditProgress | SideLoadProgress | ListenerAudioProgress | CheckEvent | LabelProgress | Model


def train_from_folders(
    reference: FolderOrManifest | Sequence[WeightedFolder],
    source: FolderOrManifest,
    settings: ModelSettings,
    *,
    name: str = "model",
    device: str = "cpu",
    provenance: Provenance = NO_PROVENANCE,
    tables: ListenerTables = (None, None),
    cache: FeatureCache = NO_CACHE,
    checkpoint: Checkpoint | None = None,
) -> Iterator[TrainingEvent]:
    """Learn scorer, judge and priors; yields its progress and, last, the `Model`.

    Of several processes that train together only the first yields a `Model`.

    Parameters
    ----------
    reference : Path, ManifestSide or sequence of WeightedFolder
        A folder, a list, or several folders with their weights, which count in all that is learnt.
    source : Path or ManifestSide
        What it holds need not correspond.
    settings : ModelSettings
    name : str
        Of the model, for people.
    device : str
        `cpu` or `cuda`.
    provenance : Provenance
        What people should know of the recordings, kept in the card.
    tables : tuple of Path or None
        Preferences and ratings, by which listeners teach scorer and judge beside the folders.
    cache : FeatureCache
        Where analysed recordings are kept and found again, mapped into memory.
    checkpoint : Checkpoint, optional
        Where scorer and judge are kept on their way, and gone on from.

    Raises
    ------
    FolderError, AudioError
        A folder or a recording in it cannot teach; it is named.
    DeviceError
        There is no such device.
    """
    began = time.perf_counter()
    check_device(device)
    fix = yield from plan_side_normalization(reference, source, settings)
    takes = yield from load_sides(reference, source, settings, normalization=fix, cache=cache)
    answered = (yield from preferences.load_listener_answers(*tables, settings)) if any(tables) else None
    training = settings.training
    found = analyse_confounds(
        [take.audit_features for take in takes["reference"]],
        [take.audit_features for take in takes["source"]],
        np.random.default_rng(training.seed),
    )
    window = settings.spectrum.to_frames(settings.scorer.crop_seconds)
    clouds = [certificate.fit_detector([take.rows_db for take in takes[side]], window) for side in takes]
    _free_memory(*takes.values())
    cards = [
        _folder_card(side_display_name(side), part)
        for side, part in zip((reference, source), takes.values(), strict=True)
    ]
    kept = dataset.split_takes(takes["reference"], settings.priors.held_out, training.seed)
    learns, shares = select_training_excerpts(kept.train, MAX_LEARNING_SECONDS, training.seed)
    checks, checked = select_training_excerpts(kept.held_out, MAX_LEARNING_SECONDS, training.seed)
    sources, _ = select_training_excerpts(takes["source"], MAX_LEARNING_SECONDS, training.seed)
    heard = answered.data if answered else None
    fits = yield from fit_scorers(takes, heard, settings, device, checkpoint)
    _free_memory(*takes.values())
    if process_rank():
        return  # several trained one scorer; the first goes on alone
    if not settings.predictor.taught:
        # Of long folders most is not looked at again, and need not be in memory.
        takes, kept = {}, dataset.TakeSplit([], [])
    generator = torch.Generator().manual_seed(training.seed)
    learnt = fitting.fit_priors(
        learns,
        sources,
        checks,
        settings.priors,
        settings.spectrum.hop_ms,
        generator,
        (shares, checked),
    )
    guide = train_guide(learnt.corrected, settings.guide, generator, shares)
    gains = validation_gains(guide, learnt.corrected_held_out)
    # What the guide adds it adds moment by moment, by pairs of the same kind as the networks'.
    weight = select_guide_weight(gains) * learnt.priors.shrinkage.networks.per_frame
    judge = fits.get("judge")
    model = Model(
        name=name,
        settings=settings,
        scorer=fits["scorer"].scorer,
        judge=judge.scorer if judge else None,
        learnt_priors=learnt.priors,
        learnt_guide=guide,
        guide_weight=weight,
        reference_likeness=clouds[0],
        source_likeness=clouds[1],
        card=ModelCard(
            reference=cards[0],
            source=cards[1],
            scorer=scorer_card(fits["scorer"], training.seed),
            judge=scorer_card(judge, training.seed + 1) if judge else None,
            prior=PriorCard(
                weights=learnt.priors.weights,
                beliefs=learnt.priors.shrinkage,
                cycle_db=learnt.cycle_scores,
                guide_weight=weight,
                guide_gains=gains,
            ),
            seconds=round(time.perf_counter() - began, 1),
            seed=training.seed,
            versions=library_versions(),
            **provenance._asdict(),
            audit=found,
            fix=fix,
            ears=listener_card(fits["scorer"].scorer, answered.data, settings) if answered else None,
        ),
    )
    if settings.predictor.taught:
        yield from distill_predictor(model, takes, settings.predictor)
    else:
        yield model


def load_finished_model(output: Path, checkpoint: Checkpoint) -> Model | None:
    """The model that a training ended with that was killed before it forgot its checkpoint."""
    digest = checkpoint.recorded_digest()
    if digest is None or not output.is_file():
        return None
    try:
        model = load_model(output)
    except ModelError:
        return None
    return model if model.digest == digest else None


def add_predictor(
    model: Model,
    reference: FolderOrManifest | Sequence[WeightedFolder],
    source: FolderOrManifest,
    settings: PredictorSettings,
    cache: FeatureCache = NO_CACHE,
) -> Iterator[TrainingEvent]:
    """Give a model that is there a predictor, all else left as it is; yields as `train`.

    Parameters
    ----------
    reference, source : Path, ManifestSide, or several weighted
        What the model was trained on.

    Raises
    ------
    FolderError, AudioError
        A folder or a recording in it cannot teach; it is named.
    ModelError
        Listeners alone taught the model, which has no prior.
    """
    if model.learnt_priors is None:
        raise ModelError(
            f"{printable(model.name)} was learnt from listeners alone; a predictor learns from prior "
            "and search: train with --reference and --source"
        )
    takes = yield from load_sides(
        reference, source, model.settings, normalization=model.card.fix, cache=cache
    )
    yield from distill_predictor(model, takes, settings)


def _free_memory(*sides: Sequence[TrainingRecording]) -> None:
    """Let the system have what a stage is done with; recordings stay mapped."""
    for take in (it for side in sides for it in side):
        page_out(*take.features)
    trim_malloc()


def check_device(device: str) -> None:
    """Raise DeviceError if there is no such device here."""
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise CallError(f"device is {device!r}; choose cpu or cuda")
    if device != "cpu" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device is at hand: use --device cpu")


def library_versions() -> dict[str, str]:
    """What the result depends on besides data and settings."""
    return {
        "tonewood": version("tonewood"),
        "torch": version("torch"),
        "python": platform.python_version(),
    }


def _folder_card(name: str, takes: list[TrainingRecording]) -> FolderCard:
    return FolderCard(name=name, takes=len(takes), hours=round(dataset.total_hours(takes), 4))


def listener_card(scorer: Scorer, listener_data: ListenerData, settings: ModelSettings) -> ListenerCard:
    """What a card says of listeners."""
    training = settings.training
    return preferences.measure_listener_agreement(
        scorer,
        listener_data,
        preferences.hold_out_listener_groups(listener_data, training.held_out, training.seed),
    )


def scorer_card(fit: TrainedScorer, seed: int) -> ScorerCard:
    """What a card says of a fit."""
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


def train_model(
    reference: FolderOrManifest | Sequence[WeightedFolder] | None,
    source: FolderOrManifest | None,
    tables: ListenerTables,
    settings: ModelSettings,
    *,
    name: str = "model",
    device: str = "cpu",
    provenance: Provenance = NO_PROVENANCE,
    cache: FeatureCache = NO_CACHE,
    checkpoint: Checkpoint | None = None,
) -> Iterator[TrainingEvent]:
    """Learn from two sides, from tables of preferences and ratings, or from all of it.

    Raises
    ------
    CallError
        There is nothing to learn from, or half of it.
    """
    if (reference is None) != (source is None):
        raise CallError("one folder has no counterpart: give --reference and --source")
    if reference is not None and source is not None:
        return train_from_folders(
            reference,
            source,
            settings,
            name=name,
            device=device,
            provenance=provenance,
            tables=tables,
            cache=cache,
            checkpoint=checkpoint,
        )
    if not any(tables):
        raise CallError(
            "there is nothing to learn from: give --reference and --source, a --manifest, "
            "--preferences or --ratings"
        )
    if settings.training.fix:
        raise CallError("--fix makes two folders alike: give --reference and --source too")
    if settings.predictor.taught:
        raise CallError("a predictor learns from folders: give --reference and --source too")
    return train_from_listeners(
        *tables, settings, name=name, device=device, provenance=provenance, checkpoint=checkpoint
    )


def train_from_listeners(
    preferences: Path | None,
    ratings: Path | None,
    settings: ModelSettings,
    *,
    name: str = "model",
    device: str = "cpu",
    provenance: Provenance = NO_PROVENANCE,
    checkpoint: Checkpoint | None = None,
) -> Iterator[TrainingEvent]:
    """Learn scorer and judge from listeners alone; yields its progress and, last, the `Model`.

    There are no folders that a prior or the guide could be learnt from, and none is made up: a
    mask starts from nothing and follows the scorer alone. Likeness is to what was heard, and to
    the better half of it.
    """
    began = time.perf_counter()
    check_device(device)
    answered = yield from load_listener_answers(preferences, ratings, settings)
    fits = yield from fit_scorers(None, answered.data, settings, device, checkpoint)
    if process_rank():
        return  # as of `train.train`
    window = settings.spectrum.to_frames(settings.scorer.crop_seconds)
    halves = answered.data.split_by_preference()
    judge, seed = fits.get("judge"), settings.training.seed
    yield Model(
        name=name,
        settings=settings,
        scorer=fits["scorer"].scorer,
        judge=judge.scorer if judge else None,
        learnt_priors=None,
        learnt_guide=None,
        guide_weight=0.0,
        reference_likeness=certificate.fit_detector(halves.reference, window),
        source_likeness=certificate.fit_detector(answered.data.rows, window),
        card=ModelCard(
            reference=_half_folder_card("the better half of what was heard", answered, True),
            source=_half_folder_card("the worse half of what was heard", answered, False),
            scorer=scorer_card(fits["scorer"], seed),
            judge=scorer_card(judge, seed + 1) if judge else None,
            prior=None,
            seconds=round(time.perf_counter() - began, 1),
            seed=seed,
            versions=library_versions(),
            **provenance._asdict(),
            ears=listener_card(fits["scorer"].scorer, answered.data, settings),
        ),
    )


def _half_folder_card(name: str, answers: ListenerAnswers, preferred: bool) -> FolderCard:
    own = [
        s for s, it in zip(answers.seconds, answers.data.in_better_half.tolist(), strict=True)
        if it == preferred
    ]  # fmt: skip
    return FolderCard(name=name, takes=len(own), hours=round(sum(own) / 3600, 4))
