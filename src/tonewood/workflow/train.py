"""Two folders → a model."""

import math
import platform
import time
from collections.abc import Generator, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from tonewood.errors import CallError, DeviceError, ModelError, shown
from tonewood.files import folders
from tonewood.files import manifest as manifests
from tonewood.files.cache import NOWHERE, Cache
from tonewood.files.card import Card, FolderCard, PriorCard, Quartiles, ScorerCard
from tonewood.files.folders import Loading, Split, Take, lesson, shares_of
from tonewood.files.items import Place
from tonewood.files.manifest import Listing
from tonewood.files.modelfile import Model
from tonewood.files.several import Weighted, of_several
from tonewood.masking import fitting, likeness
from tonewood.scoring.ears import train_by_ears
from tonewood.scoring.guide import guide_gains, guide_weight, train_guide
from tonewood.scoring.training import Check, Fit, Takes, train_scorer
from tonewood.settings import Fix, ModelSettings, PredictorSettings
from tonewood.signal import remedies
from tonewood.workflow import opinions
from tonewood.workflow.audit import Listened, Side, check_distinct, examine, listen
from tonewood.workflow.opinions import Listening
from tonewood.workflow.teach import MOST_SECONDS, Taught, teach

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
    reference: Place | Sequence[Weighted],
    source: Place,
    settings: ModelSettings,
    *,
    name: str = "model",
    device: str = "cpu",
    origin: Origin = UNSTATED,
    tables: Tables = (None, None),
    cache: Cache = NOWHERE,
) -> Iterator[Event]:
    """Learn scorer, judge and priors; yields its progress and, last, the `Model`.

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
    there, here = ([take.evidence for take in takes[side]] for side in takes)
    found = examine(there, here, np.random.default_rng(training.seed))
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
    learns, shares = lesson(kept.train, MOST_SECONDS, training.seed)
    checks, checked = lesson(kept.held_out, MOST_SECONDS, training.seed)
    learnt = fitting.fit(
        learns,
        lesson(takes["source"], MOST_SECONDS, training.seed)[0],
        checks,
        settings.priors,
        settings.spectrum.hop_ms,
        generator,
        (shares, checked),
    )
    window = settings.spectrum.frames(settings.scorer.crop_seconds)
    clouds = [likeness.fit([take.rows_db for take in takes[side]], window) for side in takes]
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
            reference=_folder_card(named(reference), takes["reference"]),
            source=_folder_card(named(source), takes["source"]),
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


def roles(settings: ModelSettings) -> list[tuple[Who, int]]:
    """Who is trained, each by a seed of its own."""
    seed = settings.training.seed
    wanted: list[tuple[Who, int]] = [("scorer", seed), ("judge", seed + 1)]
    return wanted if settings.training.judge else wanted[:1]


def load_sides(
    reference: Place | Sequence[Weighted],
    source: Place,
    settings: ModelSettings,
    *,
    fix: Fix | None = None,
    cache: Cache = NOWHERE,
) -> Generator[Loaded, None, dict[Side, list[Take]]]:
    """Read both folders, yielding every recording; returns their takes.

    Parameters
    ----------
    fix, cache
        As of `folders.load`.

    Raises
    ------
    FolderError, AudioError
        A folder or a recording in it cannot teach; it is named.
    """
    places = _places(reference)
    check_distinct(*places, source)
    parts: list[list[Take]] = []
    sides: list[tuple[Side, Place]] = [("reference", place) for place in places]
    for side, folder in (*sides, ("source", source)):
        parts.append([])
        for loading in folders.load(folder, settings, fix=fix, cache=cache):
            parts[-1].append(loading.take)
            yield Loaded(side, loading)
    *references, sources = parts
    joined = references[0]
    if not isinstance(reference, Path | Listing) and len(reference) > 1:
        joined = of_several(references, reference)
    told = [it if isinstance(it, Path) else named(it) for it in (reference, source)]
    folders.check(joined, sources, (told[0], told[1]))
    return {"reference": joined, "source": sources}


def plan_fix(
    reference: Place | Sequence[Weighted], source: Place, settings: ModelSettings
) -> Generator[Listened, None, Fix | None]:
    """Listen to both folders for what makes them alike, if that is asked for; returns the fix."""
    if not settings.training.fix:
        return None
    heard = yield from listen(_places(reference), source, settings)
    return remedies.plan(
        settings.training.fix, *([it.traces for it in heard[side]] for side in heard)
    )


def hold_out(takes: dict[Side, list[Take]], share: float, seed: int) -> tuple[Takes, Takes]:
    """Row levels to learn from and row levels held out, split by the seed."""
    splits = [folders.split(takes[side], share, seed) for side in get_args(Side)]
    return _rows(splits, "train"), _rows(splits, "held_out")


def weighted(text: str) -> Weighted:
    """Read a folder with its weight, such as `studio:2`; without one it is 1.

    A folder of that very name goes before: names may hold colons.
    """
    folder, colon, weight = text.rpartition(":")
    if not colon or Path(text).exists():
        return Weighted(Path(text))
    try:
        return Weighted(Path(folder), float(weight))
    except ValueError:
        return Weighted(Path(text))


def sides(
    references: Sequence[str], source: Path | None, manifest: Path | None
) -> tuple[Place | list[Weighted] | None, Place | None]:
    """Where the recordings of each side that is named are: folders, weighted, or a list.

    Raises
    ------
    CallError
        Both folders and a list are named, or a weight is wrong.
    FolderError
        The list cannot be used.
    """
    if manifest is not None:
        if references or source is not None:
            raise CallError("a --manifest names both sides: leave --reference and --source out")
        return manifests.read(manifest)
    if not references:
        return None, source
    several = [weighted(text) for text in references]
    check_weights(several)
    # A single folder is itself, whatever its weight.
    return several[0].folder if len(several) == 1 else several, source


def check_weights(several: Sequence[Weighted]) -> None:
    """Raise CallError if there is no folder, or a weight is not above 0."""
    if not several:
        raise CallError("no reference is given: name a folder")
    for it in several:
        if not (math.isfinite(it.weight) and it.weight > 0):
            raise CallError(f"{shown(it.folder)} has weight {it.weight:g}; give one above 0")


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


def _places(side: Place | Sequence[Weighted]) -> list[Place]:
    return [side] if isinstance(side, Path | Listing) else [it.folder for it in side]


def named(side: Place | Sequence[Weighted]) -> str:
    """Name of a folder, a list, or of several folders with their weights, for people."""
    if isinstance(side, Path):
        return side.resolve().name
    if isinstance(side, Listing):
        return side.name
    return " + ".join(f"{it.folder.resolve().name}:{it.weight:g}" for it in side)


def _rows(splits: list[Split], part: Literal["train", "held_out"]) -> Takes:
    sides: list[list[Take]] = [getattr(split, part) for split in splits]
    reference, source = ([take.rows_db for take in side] for side in sides)
    return Takes(reference, source, shares_of(sides[0]))


def _folder_card(name: str, takes: list[Take]) -> FolderCard:
    return FolderCard(name=name, takes=len(takes), hours=round(folders.hours(takes), 4))


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
