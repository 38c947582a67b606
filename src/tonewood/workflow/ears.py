"""What listeners said, alone → a model: scorer and judge, and nothing that folders would teach."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tonewood.errors import CallError
from tonewood.files.cache import NO_CACHE, FeatureCache
from tonewood.files.card import ModelCard, FolderCard
from tonewood.files.checkpoint import Checkpoint
from tonewood.files.items import FolderOrManifest
from tonewood.files.modelfile import Model
from tonewood.files.several import WeightedFolder
from tonewood.masking import likeness
from tonewood.scoring.course import process_rank
from tonewood.settings import ModelSettings
from tonewood.workflow import train as training
from tonewood.workflow.courses import fit_scorers
from tonewood.workflow.opinions import ListenerAnswers, load_listener_answers
from tonewood.workflow.train import (
    NO_PROVENANCE,
    Provenance,
    ListenerTables,
    check_device,
    listener_card,
    scorer_card,
    library_versions,
)

TrainingEvent = training.TrainingEvent


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
        return training.train_from_folders(
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
    return train_from_listeners(*tables, settings, name=name, device=device, provenance=provenance, checkpoint=checkpoint)


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
        reference_likeness=likeness.fit_detector(halves.reference, window),
        source_likeness=likeness.fit_detector(answered.data.rows, window),
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
