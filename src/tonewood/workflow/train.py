"""Two folders → a model."""

import platform
import time
from collections.abc import Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from tonewood.errors import CallError, DeviceError, ModelError, shown
from tonewood.files import folders
from tonewood.files.folders import Loading, Split, Take
from tonewood.files.modelfile import Card, FolderCard, Model, PriorCard, Quartiles, ScorerCard
from tonewood.masking import fitting, likeness
from tonewood.scoring.ears import train_by_ears
from tonewood.scoring.guide import guide_gains, guide_weight, train_guide
from tonewood.scoring.training import Check, Fit, Takes, train_scorer
from tonewood.settings import ModelSettings, PredictorSettings
from tonewood.signal import remedies
from tonewood.signal.remedies import Fix
from tonewood.workflow import opinions
from tonewood.workflow.audit import Listened, Side, check_distinct, examine, listen
from tonewood.workflow.opinions import Listening
from tonewood.workflow.teach import Taught, teach

Who = Literal["scorer", "judge"]


class Loaded(NamedTuple):
    """A recording of one side was read and analysed."""

    side: Side
    loading: Loading


class Origin(NamedTuple):
    """What the recordings are, where they are from, and under which licence the model may go."""

    domain: str = ""
    licence: str = ""
    notice: str = ""


UNSTATED = Origin()


class Checked(NamedTuple):
    """Scorer or judge was checked on takes that it does not learn from."""

    who: Who
    check: Check


Tables = tuple[Path | None, Path | None]

Event = Listened | Loaded | Listening | Checked | Taught | Model


def train(
    reference: Path,
    source: Path,
    settings: ModelSettings,
    *,
    name: str = "model",
    device: str = "cpu",
    origin: Origin = UNSTATED,
    tables: Tables = (None, None),
) -> Iterator[Event]:
    """Learn scorer, judge and priors; yields its progress and, last, the `Model`.

    Parameters
    ----------
    reference, source : Path
        Folders; what they hold need not correspond.
    settings : ModelSettings
    name : str
        Of the model, for people.
    device : str
        `cpu` or `cuda`.
    origin : Origin
        What people should know of the recordings, kept in the card.
    tables : tuple of Path or None
        Preferences and ratings, by which listeners teach scorer and judge beside the folders.

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
    takes = yield from load_sides(reference, source, settings, audited=True, fix=fix)
    answered = (yield from opinions.load(*tables, settings)) if any(tables) else None
    training = settings.training
    reference_evidence, source_evidence = (
        [take.evidence for take in takes[side] if take.evidence] for side in takes
    )
    rng = np.random.default_rng(training.seed)
    found = examine(reference_evidence, source_evidence, rng)
    fits: dict[Who, Fit] = {}
    splits: dict[Who, opinions.Divided] = {}
    for who, seed in roles(settings):
        learnt_from, held_out = hold_out(takes, training.held_out, seed)
        if answered is None:
            progress = train_scorer(
                learnt_from,
                held_out,
                settings.scorer,
                settings.spectrum,
                training,
                seed=seed,
                device=device,
            )
        else:
            splits[who] = opinions.hold_out(answered.heard, training.held_out, seed)
            progress = train_by_ears(
                *splits[who],
                settings.scorer,
                settings.spectrum,
                training,
                labels=(learnt_from, held_out),
                seed=seed,
                device=device,
            )
        for event in progress:
            if isinstance(event, Check):
                yield Checked(who, event)
            else:
                fits[who] = event
    generator = torch.Generator().manual_seed(training.seed)
    kept = folders.split(takes["reference"], settings.priors.held_out, training.seed)
    learnt = fitting.fit(
        [take.features for take in kept.train],
        [take.features for take in takes["source"]],
        [take.features for take in kept.held_out],
        settings.priors,
        settings.spectrum.hop_ms,
        generator,
    )
    window = settings.spectrum.frames(settings.scorer.crop_seconds)
    clouds = [
        likeness.fit([take.features.rows_db for take in takes[side]], window) for side in takes
    ]
    guide = train_guide(learnt.corrected, settings.guide, generator)
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
            reference=_folder_card(reference, takes["reference"]),
            source=_folder_card(source, takes["source"]),
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
            ears=opinions.card_of(fits["scorer"].scorer, answered.heard, splits["scorer"])
            if answered
            else None,
        ),
    )
    if settings.predictor.taught:
        yield from teach(model, takes, settings.predictor)
    else:
        yield model


def add_predictor(
    model: Model, reference: Path, source: Path, settings: PredictorSettings
) -> Iterator[Event]:
    """Give a model that is there a predictor, all else left as it is; yields as `train`.

    Parameters
    ----------
    reference, source : Path
        The folders that the model was trained on.

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
    takes = yield from load_sides(reference, source, model.settings, fix=model.card.fix)
    yield from teach(model, takes, settings)


def roles(settings: ModelSettings) -> list[tuple[Who, int]]:
    """Who is trained, each by a seed of its own."""
    seed = settings.training.seed
    wanted: list[tuple[Who, int]] = [("scorer", seed), ("judge", seed + 1)]
    return wanted if settings.training.judge else wanted[:1]


def load_sides(
    reference: Path,
    source: Path,
    settings: ModelSettings,
    *,
    audited: bool = False,
    fix: Fix | None = None,
) -> Generator[Loaded, None, dict[Side, list[Take]]]:
    """Read both folders, yielding every recording; returns their takes.

    Parameters
    ----------
    audited, fix
        As of `folders.load`.

    Raises
    ------
    FolderError, AudioError
        A folder or a recording in it cannot teach; it is named.
    """
    check_distinct(reference, source)
    takes: dict[Side, list[Take]] = {"reference": [], "source": []}
    sides: tuple[tuple[Side, Path], ...] = (("reference", reference), ("source", source))
    for side, folder in sides:
        for loading in folders.load(folder, settings, audited=audited, fix=fix):
            takes[side].append(loading.take)
            yield Loaded(side, loading)
    folders.check(takes["reference"], takes["source"], (reference, source))
    return takes


def plan_fix(
    reference: Path, source: Path, settings: ModelSettings
) -> Generator[Listened, None, Fix | None]:
    """Listen to both folders for what makes them alike, if that is asked for; returns the fix."""
    if not settings.training.fix:
        return None
    heard = yield from listen(reference, source, settings)
    return remedies.plan(
        settings.training.fix, *([it.traces for it in heard[side]] for side in heard)
    )


def hold_out(takes: dict[Side, list[Take]], share: float, seed: int) -> tuple[Takes, Takes]:
    """Row levels to learn from and row levels held out, split by the seed."""
    splits = [folders.split(takes[side], share, seed) for side in get_args(Side)]
    return _rows(splits, "train"), _rows(splits, "held_out")


def check_device(device: str) -> None:
    """Raise DeviceError if there is no such device here."""
    if device not in ("cpu", "cuda"):
        raise CallError(f"device is {device!r}; choose cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device is at hand: use --device cpu")


def versions() -> dict[str, str]:
    """What the result depends on besides data and settings."""
    return {
        "tonewood": version("tonewood"),
        "torch": version("torch"),
        "python": platform.python_version(),
    }


def _rows(splits: list[Split], part: Literal["train", "held_out"]) -> Takes:
    reference, source = (
        [take.features.rows_db for take in getattr(split, part)] for split in splits
    )
    return Takes(reference, source)


def _folder_card(folder: Path, takes: list[Take]) -> FolderCard:
    return FolderCard(
        name=folder.resolve().name, takes=len(takes), hours=round(folders.hours(takes), 4)
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
