"""Two folders → a model."""

import platform
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tonewood.errors import CallError, DeviceError, ModelError, shown
from tonewood.files import folders
from tonewood.files.cache import NOWHERE, Cache
from tonewood.files.card import Card, EarsCard, FolderCard, PriorCard, Quartiles, ScorerCard
from tonewood.files.checkpoint import Checkpoint
from tonewood.files.folders import Take, lesson
from tonewood.files.items import Place
from tonewood.files.modelfile import Model, load
from tonewood.files.several import Weighted
from tonewood.masking import fitting, likeness
from tonewood.scoring.course import rank
from tonewood.scoring.ears import Heard
from tonewood.scoring.guide import guide_gains, guide_weight, train_guide
from tonewood.scoring.scorer import Scorer
from tonewood.scoring.training import Fit
from tonewood.settings import ModelSettings, PredictorSettings
from tonewood.signal.memory import release, unload
from tonewood.workflow import opinions
from tonewood.workflow.audit import Listened, examine
from tonewood.workflow.courses import Checked, fit_scorers
from tonewood.workflow.opinions import Listening
from tonewood.workflow.sides import Loaded, load_sides, named, plan_fix
from tonewood.workflow.teach import MOST_SECONDS, Taught, teach


class Origin(NamedTuple):
    """What the recordings are, where they are from, and under which licence the model may go."""

    domain: str = ""
    licence: str = ""
    notice: str = ""


UNSTATED = Origin()


Tables = tuple[Path | None, Path | None]

Event = Listened | Loaded | Listening | Checked | Taught | Model


def train(
    reference: Place | Sequence[Weighted],
    source: Place,
    settings: ModelSettings,
    *,
    name: str = "model",
    device: str = "cpu",
    origin: Origin = UNSTATED,
    tables: Tables = (None, None),
    cache: Cache = NOWHERE,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Event]:
    """Learn scorer, judge and priors; yields its progress and, last, the `Model`.

    Of several processes that train together only the first yields a `Model`.

    Parameters
    ----------
    reference : Path, Listing or sequence of Weighted
        A folder, a list, or several folders with their weights, which count in all that is learnt.
    source : Path or Listing
        What it holds need not correspond.
    settings : ModelSettings
    name : str
        Of the model, for people.
    device : str
        `cpu` or `cuda`.
    origin : Origin
        What people should know of the recordings, kept in the card.
    tables : tuple of Path or None
        Preferences and ratings, by which listeners teach scorer and judge beside the folders.
    cache : Cache
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
    fix = yield from plan_fix(reference, source, settings)
    takes = yield from load_sides(reference, source, settings, fix=fix, cache=cache)
    answered = (yield from opinions.load(*tables, settings)) if any(tables) else None
    training = settings.training
    found = examine(
        [take.evidence for take in takes["reference"]],
        [take.evidence for take in takes["source"]],
        np.random.default_rng(training.seed),
    )
    window = settings.spectrum.frames(settings.scorer.crop_seconds)
    clouds = [likeness.fit([take.rows_db for take in takes[side]], window) for side in takes]
    _rest(*takes.values())
    cards = [
        _folder_card(named(side), part)
        for side, part in zip((reference, source), takes.values(), strict=True)
    ]
    kept = folders.split(takes["reference"], settings.priors.held_out, training.seed)
    learns, shares = lesson(kept.train, MOST_SECONDS, training.seed)
    checks, checked = lesson(kept.held_out, MOST_SECONDS, training.seed)
    sources, _ = lesson(takes["source"], MOST_SECONDS, training.seed)
    heard = answered.heard if answered else None
    fits = yield from fit_scorers(takes, heard, settings, device, checkpoint)
    _rest(*takes.values())
    if rank():
        return  # several trained one scorer; the first goes on alone
    if not settings.predictor.taught:
        # Of long folders most is not looked at again, and need not be in memory.
        takes, kept = {}, folders.Split([], [])
    generator = torch.Generator().manual_seed(training.seed)
    learnt = fitting.fit(
        learns,
        sources,
        checks,
        settings.priors,
        settings.spectrum.hop_ms,
        generator,
        (shares, checked),
    )
    guide = train_guide(learnt.corrected, settings.guide, generator, shares)
    gains = guide_gains(guide, learnt.corrected_held_out)
    # What the guide adds it adds moment by moment, by pairs of the same kind as the networks'.
    weight = guide_weight(gains) * learnt.priors.beliefs.networks.moment
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
        card=Card(
            reference=cards[0],
            source=cards[1],
            scorer=scorer_card(fits["scorer"], training.seed),
            judge=scorer_card(judge, training.seed + 1) if judge else None,
            prior=PriorCard(
                weights=learnt.priors.weights,
                beliefs=learnt.priors.beliefs,
                cycle_db=learnt.cycles,
                guide_weight=weight,
                guide_gains=gains,
            ),
            seconds=round(time.perf_counter() - began, 1),
            seed=training.seed,
            versions=versions(),
            **origin._asdict(),
            audit=found,
            fix=fix,
            ears=ears_card(fits["scorer"].scorer, answered.heard, settings) if answered else None,
        ),
    )
    if settings.predictor.taught:
        yield from teach(model, takes, settings.predictor)
    else:
        yield model


def concluded(output: Path, checkpoint: Checkpoint) -> Model | None:
    """The model that a training ended with that was killed before it forgot its checkpoint."""
    digest = checkpoint.concluded()
    if digest is None or not output.is_file():
        return None
    try:
        model = load(output)
    except ModelError:
        return None
    return model if model.digest == digest else None


def add_predictor(
    model: Model,
    reference: Place | Sequence[Weighted],
    source: Place,
    settings: PredictorSettings,
    cache: Cache = NOWHERE,
) -> Iterator[Event]:
    """Give a model that is there a predictor, all else left as it is; yields as `train`.

    Parameters
    ----------
    reference, source : Path, Listing, or several weighted
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
            f"{shown(model.name)} was learnt from listeners alone; a predictor learns from prior "
            "and search: train with --reference and --source"
        )
    takes = yield from load_sides(
        reference, source, model.settings, fix=model.card.fix, cache=cache
    )
    yield from teach(model, takes, settings)


def _rest(*sides: Sequence[Take]) -> None:
    """Let the system have what a stage is done with; recordings stay mapped."""
    for take in (it for side in sides for it in side):
        unload(*take.analysis)
    release()


def check_device(device: str) -> None:
    """Raise DeviceError if there is no such device here."""
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise CallError(f"device is {device!r}; choose cpu or cuda")
    if device != "cpu" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device is at hand: use --device cpu")


def versions() -> dict[str, str]:
    """What the result depends on besides data and settings."""
    return {
        "tonewood": version("tonewood"),
        "torch": version("torch"),
        "python": platform.python_version(),
    }


def _folder_card(name: str, takes: list[Take]) -> FolderCard:
    return FolderCard(name=name, takes=len(takes), hours=round(folders.hours(takes), 4))


def ears_card(scorer: Scorer, heard: Heard, settings: ModelSettings) -> EarsCard:
    """What a card says of listeners."""
    training = settings.training
    return opinions.card_of(
        scorer, heard, opinions.hold_out(heard, training.held_out, training.seed)
    )


def scorer_card(fit: Fit, seed: int) -> ScorerCard:
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
