"""What listeners said, as something to learn from, and how far a scorer agrees with it."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tonewood.errors import FolderError
from tonewood.evaluation.bradley_terry import posterior
from tonewood.evaluation.choices import share
from tonewood.files import opinions
from tonewood.files.audio import read
from tonewood.files.card import EarsCard
from tonewood.files.modelfile import Model
from tonewood.scoring.ears import Heard, agreement, mean_logit
from tonewood.scoring.scorer import Scorer
from tonewood.settings import EnhanceSettings, ModelSettings, SearchSettings, Settings
from tonewood.signal.bands import band_levels

LEAST_PAIRS, LEAST_RATINGS, LEAST_GROUPS = 30, 15, 4
_SPLITS = 50
# A descent from nothing: small steps down the scorer alone, smooth in time, near the recording.
SEARCH = SearchSettings(
    score=1.0, guide=0.0, alpha=3e-4, steps=40, learning_rate=0.004, smooth_ms=1000.0
)
MAX_GAIN_DB = 12.0  # no folder shows how far recordings of the kind differ


class Listening(NamedTuple):
    """A recording that was heard in a test has been read; it is the number-th of so many."""

    number: int
    total: int
    path: Path


@dataclass(frozen=True)
class Answered:
    """Everything that listeners said, and how long it sounds.

    Parameters
    ----------
    heard : Heard
    seconds : tuple of float
        Of each recording.
    """

    heard: Heard
    seconds: tuple[float, ...]


class Divided(NamedTuple):
    """What of it is learnt from, and what is held out."""

    train: Heard
    held_out: Heard


def load(
    preferences: Path | None, ratings: Path | None, settings: ModelSettings
) -> Generator[Listening, None, Answered]:
    """Read the tables and every recording they name, yielding each.

    Raises
    ------
    FolderError, AudioError
        A table or a recording cannot teach; it is named.
    """
    said = opinions.read(preferences, ratings, settings.training)
    if said.preferences and len(said.preferences) < LEAST_PAIRS:
        raise FolderError(
            f"{len(said.preferences)} comparisons; {LEAST_PAIRS} are needed to learn from: ask more"
        )
    if said.ratings and len(said.ratings) < LEAST_RATINGS:
        raise FolderError(
            f"{len(said.ratings)} ratings; {LEAST_RATINGS} are needed to learn from: ask more"
        )
    groups = len(set(said.groups.values()))
    if groups < LEAST_GROUPS:
        raise FolderError(
            f"what was heard is of {groups} pieces; {LEAST_GROUPS} are needed, for some are held "
            "out: ask about more"
        )
    paths, spectrum = sorted(said.groups), settings.spectrum
    rows, seconds = [], []
    for number, path in enumerate(paths, start=1):
        recording = read(path)
        wave = torch.from_numpy(recording.at_rate(spectrum.rate))
        rows.append(band_levels(wave, spectrum.rate, settings.scorer.bands, spectrum))
        seconds.append(recording.duration)
        yield Listening(number, len(paths), path)
    place = {path: k for k, path in enumerate(paths)}
    pairs = [(place[it.preferred], place[it.other]) for it in said.preferences]
    better, worse = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    liking = torch.tensor([it.liking for it in said.ratings])
    rated = torch.tensor([place[it.file] for it in said.ratings], dtype=torch.long)
    heard = Heard(
        rows, [said.groups[path] for path in paths], better, worse, rated, 1 - liking,
        _liked(len(paths), pairs, [(place[it.file], it.liking) for it in said.ratings]),
    )  # fmt: skip
    return Answered(heard, tuple(seconds))


def hold_out(heard: Heard, held_out: float, seed: int) -> Divided:
    """Hold out whole groups, drawn by the seed; what joins both sides teaches neither.

    Raises
    ------
    FolderError
        No split leaves answers, and recordings of both halves, on either side.
    """
    groups = sorted(set(heard.together))
    generator = torch.Generator().manual_seed(seed)
    count = min(len(groups) - 2, max(2, round(held_out * len(groups))))
    for _ in range(_SPLITS):
        order = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
        made = Divided(heard.only(set(order[count:])), heard.only(set(order[:count])))
        if all(_teaches(part) for part in made):
            return made
    raise FolderError(
        "no pieces can be held out that listeners compared among themselves: compare sounds of "
        "one piece, or say in a column group what belongs together"
    )


def card_of(scorer: Scorer, heard: Heard, taught: Divided) -> EarsCard:
    """How far a scorer agrees with listeners on recordings that it never saw.

    The interval is exact and counts two recordings once, however often they were compared.
    """
    kept = taught.held_out
    logits = torch.stack([mean_logit(scorer, rows) for rows in kept.rows])
    agreed = agreement(logits, kept)
    if len(kept.better):
        ends = torch.stack([kept.better, kept.worse]).sort(dim=0).values
        independent = len(torch.unique(ends, dim=1).T)
    else:
        independent = len(kept.rated)
    found = share(round(agreed * independent), independent)
    return EarsCard(
        comparisons=len(heard.better),
        ratings=len(heard.rated),
        recordings=len(heard.rows),
        groups=len(set(heard.together)),
        learnt_from=len(taught.train.better) + len(taught.train.rated),
        held_out=len(kept.better) + len(kept.rated),
        independent=independent,
        agreement=agreed,
        agreement_interval=(min(found.low, agreed), max(found.high, agreed)),
    )


def adapted(settings: EnhanceSettings, model: Model) -> EnhanceSettings:
    """Settings that fit a model learnt from listeners alone; any other keeps its own.

    It has no prior and no guide: the mask starts from nothing, and what of the search was left at
    its default becomes a descent of the scorer.
    """
    if model.learnt_priors is not None or settings.method != "search":
        return settings
    plain = EnhanceSettings()
    search = {
        name: getattr(SEARCH, name)
        for name in SearchSettings.model_fields
        if getattr(settings.search, name) == getattr(plain.search, name)
    }
    wanted: dict[str, Settings] = {"search": settings.search.model_copy(update=search)}
    if settings.render.max_gain_db == plain.render.max_gain_db:
        bound = {"max_gain_db": MAX_GAIN_DB}
        wanted["render"] = settings.render.model_copy(update=bound)
    if settings.prior.kind == "auto":
        wanted["prior"] = settings.prior.model_copy(update={"kind": "none"})
    return settings.model_copy(update=wanted)


def doubts(model: Model) -> tuple[str, ...]:
    """What speaks against a model's ears: they may agree with listeners by chance alone."""
    ears = model.card.ears
    if ears is None or ears.agreement_interval[0] > 0.5:
        return ()
    low, high = (100 * it for it in ears.agreement_interval)
    return (
        f"on pieces that it never heard the scorer agrees with {100 * ears.agreement:.0f} % "
        f"({low:.0f} to {high:.0f}) of what listeners said, which may be chance",
    )


def _teaches(heard: Heard) -> bool:
    halves = heard.halves()
    return bool(len(heard.better) + len(heard.rated) >= 2 and halves.reference and halves.source)


def _liked(
    count: int, pairs: Sequence[tuple[int, int]], rated: Sequence[tuple[int, float]]
) -> torch.Tensor:
    """Which recordings [recording] are in the better half, by ratings, else by strengths."""
    wins = np.zeros((count, count))
    for better, worse in pairs:
        wins[better, worse] += 1
    liking = _standard(posterior(wins).mean) if pairs else np.zeros(count)
    if rated:
        sums, given = np.zeros(count), np.zeros(count)
        for place, value in rated:
            sums[place] += value
            given[place] += 1
        has = given > 0
        liking[has] = _standard(sums[has] / given[has])
    half = np.zeros(count, dtype=bool)
    half[np.argsort(-liking, kind="stable")[: count // 2]] = True
    return torch.from_numpy(half)


def _standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = float(values.std()) or 1.0
    return np.asarray((values - values.mean()) / spread)
