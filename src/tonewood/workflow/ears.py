"""What listeners said, alone → a model: scorer and judge, and nothing that folders would teach."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tonewood.errors import CallError
from tonewood.files.cache import NOWHERE, Cache
from tonewood.files.card import Card, FolderCard
from tonewood.files.checkpoint import Checkpoint
from tonewood.files.items import Place
from tonewood.files.modelfile import Model
from tonewood.files.several import Weighted
from tonewood.masking import likeness
from tonewood.scoring.course import rank
from tonewood.settings import ModelSettings
from tonewood.workflow import train as training
from tonewood.workflow.courses import fit_scorers
from tonewood.workflow.opinions import Answered, load
from tonewood.workflow.train import (
    UNSTATED,
    Origin,
    Tables,
    check_device,
    ears_card,
    scorer_card,
    versions,
)

Event = training.Event


def learn(
    reference: Place | Sequence[Weighted] | None,
    source: Place | None,
    tables: Tables,
    settings: ModelSettings,
    *,
    name: str = "model",
    device: str = "cpu",
    origin: Origin = UNSTATED,
    cache: Cache = NOWHERE,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Event]:
    """Learn from two sides, from tables of preferences and ratings, or from all of it.

    Raises
    ------
    CallError
        There is nothing to learn from, or half of it.
    """
    if (reference is None) != (source is None):
        raise CallError("one folder has no counterpart: give --reference and --source")
    if reference is not None and source is not None:
        return training.train(
            reference,
            source,
            settings,
            name=name,
            device=device,
            origin=origin,
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
    return train(*tables, settings, name=name, device=device, origin=origin, checkpoint=checkpoint)


def train(
    preferences: Path | None,
    ratings: Path | None,
    settings: ModelSettings,
    *,
    name: str = "model",
    device: str = "cpu",
    origin: Origin = UNSTATED,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Event]:
    """Learn scorer and judge from listeners alone; yields its progress and, last, the `Model`.

    There are no folders that a prior or the guide could be learnt from, and none is made up: a
    mask starts from nothing and follows the scorer alone. Likeness is to what was heard, and to
    the better half of it.
    """
    began = time.perf_counter()
    check_device(device)
    answered = yield from load(preferences, ratings, settings)
    fits = yield from fit_scorers(None, answered.heard, settings, device, checkpoint)
    if rank():
        return  # as of `train.train`
    window = settings.spectrum.frames(settings.scorer.crop_seconds)
    halves = answered.heard.halves()
    judge, seed = fits.get("judge"), settings.training.seed
    yield Model(
        name=name,
        settings=settings,
        scorer=fits["scorer"].scorer,
        judge=judge.scorer if judge else None,
        learnt_priors=None,
        learnt_guide=None,
        guide_weight=0.0,
        reference_likeness=likeness.fit(halves.reference, window),
        source_likeness=likeness.fit(answered.heard.rows, window),
        card=Card(
            reference=_half_card("the better half of what was heard", answered, True),
            source=_half_card("the worse half of what was heard", answered, False),
            scorer=scorer_card(fits["scorer"], seed),
            judge=scorer_card(judge, seed + 1) if judge else None,
            prior=None,
            seconds=round(time.perf_counter() - began, 1),
            seed=seed,
            versions=versions(),
            **origin._asdict(),
            ears=ears_card(fits["scorer"].scorer, answered.heard, settings),
        ),
    )


def _half_card(name: str, answered: Answered, liked: bool) -> FolderCard:
    own = [
        s for s, it in zip(answered.seconds, answered.heard.liked.tolist(), strict=True)
        if it == liked
    ]  # fmt: skip
    return FolderCard(name=name, takes=len(own), hours=round(sum(own) / 3600, 4))
