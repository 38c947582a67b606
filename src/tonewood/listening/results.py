"""From replies to findings: what each kind of test says, with how far it can be trusted.

Answers that come again serve to see how steady a listener is, and are in no other figure.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import FolderError, MissingExtraError
from tonewood.evaluation import bradley_terry, mushra
from tonewood.evaluation.bradley_terry import Strengths
from tonewood.evaluation.choices import (
    Sensitivity,
    Share,
    Spread,
    abx_sensitivity,
    by_listener,
    holm,
    share,
)
from tonewood.evaluation.listeners import Ends, Mixed, jackknife, mixed
from tonewood.evaluation.mushra import Difference, Effect, Friedman, Median
from tonewood.listening.answers import Answers
from tonewood.listening.design import MID_ANCHOR, Test
from tonewood.listening.replies import Person, Reply, people


class Pair(NamedTuple):
    """Two conditions: how often the first was preferred, or heard rightly.

    Parameters
    ----------
    p_holm : float
        The share's p, so that all pairs may be read at once.
    listeners : Spread
        The same, each listener counting once.
    where : dict of Share
        By how the excerpt was chosen: where most was done, or at random.
    sensitivity : Sensitivity or None
        Of ABX.
    mixed : Mixed or None
        By a model in which listeners are drawn at random.
    """

    first: str
    second: str
    answers: Share
    p_holm: float
    listeners: Spread
    where: dict[str, Share]
    sensitivity: Sensitivity | None
    mixed: Mixed | None


class Ratings(NamedTuple):
    """What MUSHRA says of its conditions.

    Parameters
    ----------
    excluded : tuple of str
        Listeners left out by the standard's post-screening.
    effects : tuple of Effect, or str
        A mixed model's, against the first condition; or why there are none.
    """

    conditions: tuple[str, ...]
    medians: tuple[Median, ...]
    friedman: Friedman | None
    differences: tuple[Difference, ...]
    effects: tuple[Effect, ...] | str
    excluded: tuple[str, ...]
    cube: NDArray[np.float64]  # [listener, trial, condition], of those kept


class Results(NamedTuple):
    """All that was found.

    Parameters
    ----------
    people : tuple of Person
        Who was counted.
    others : Ends or None
        Intervals of the strengths that hold for other listeners too.
    left_out : int
        Listeners who failed the headphone check, where that was asked for.
    steady : Share or None
        How often an answer was the same when its question came again.
    left : Share or None
        How often A was chosen: far from one half, sides decided rather than sounds.
    """

    test: Test
    people: tuple[Person, ...]
    left_out: int
    pairs: tuple[Pair, ...]
    strengths: Strengths | None
    others: Ends | None
    ratings: Ratings | None
    steady: Share | None
    left: Share | None

    @property
    def summary(self) -> dict[str, Any]:
        """What was found, as JSON."""
        return {
            "kind": self.test.kind,
            "title": self.test.title,
            "question": self.test.question,
            "listeners": [
                {
                    "name": it.name,
                    "code": it.code,
                    "finished": it.finished,
                    "headphones": it.headphones,
                    "hearing": it.hearing,
                    "answers": len(it.replies),
                }
                for it in self.people
            ],
            "left_out": self.left_out,
            "steady": self.steady._asdict() if self.steady else None,
            "first_side": self.left._asdict() if self.left else None,
            "pairs": [_pair_summary(pair) for pair in self.pairs],
            "strengths": _strengths_summary(self),
            "ratings": _ratings_summary(self.ratings),
        }


def results(test: Test, answers: Answers, *, headphones_only: bool = False) -> Results:
    """Sum up a test's answers.

    Raises
    ------
    FolderError
        Nobody has answered yet.
    """
    everyone = people(test, answers)
    kept = [it for it in everyone if any(reply.again is None for reply in it.replies)]
    if headphones_only:
        kept = [it for it in kept if it.headphones]
    if not kept:
        raise FolderError("no answers to sum up yet: serve the test, or leave --headphones out")
    first = [[reply for reply in it.replies if reply.again is None] for it in kept]
    pairs: tuple[Pair, ...] = ()
    strengths = others = ratings = left = None
    if test.kind == "mushra":
        ratings = _ratings(test, kept, first)
    else:
        pairs = _pairs(test, first)
        chosen = [reply.value for own in first for reply in own]
        left = share(chosen.count("A"), len(chosen))
    if test.kind == "pairs":
        wins = _wins(test, first)
        if bradley_terry.connected(wins.sum(axis=0)):
            strengths, others = bradley_terry.fit(wins.sum(axis=0)), jackknife(wins)
    return Results(
        test, tuple(kept), len(everyone) - len(kept), pairs, strengths, others, ratings,
        _steady(test, kept), left,
    )  # fmt: skip


def _pairs(test: Test, first: Sequence[Sequence[Reply]]) -> tuple[Pair, ...]:
    made = []
    for one, two in combinations(test.conditions, 2):
        own = [[it for it in replies if _about(it, one, two)] for replies in first]
        every = [it for replies in own for it in replies]
        if every:
            made.append(_pair(test, one, two, own, every))
    corrected = holm(np.array([pair.answers.p for pair in made]))
    return tuple(pair._replace(p_holm=float(p)) for pair, p in zip(made, corrected, strict=True))


def _pair(
    test: Test, one: str, two: str, own: Sequence[Sequence[Reply]], every: Sequence[Reply]
) -> Pair:
    abx = test.kind == "abx"
    good: Callable[[Reply], bool] = (
        (lambda it: it.correct) if abx else (lambda it: it.preferred.condition == one)
    )
    sided = "greater" if abx else "two-sided"
    found = share(sum(map(good, every)), len(every), sided=sided)
    where = {}
    for chosen in ("mask", "random"):
        there = [it for it in every if it.excerpt.chosen == chosen]
        if there:
            where[chosen] = share(sum(map(good, there)), len(there), sided=sided)
    counts, totals = [sum(map(good, it)) for it in own], [len(it) for it in own]
    sensitivity = abx_sensitivity(found.successes, found.total) if abx else None
    return Pair(
        one, two, found, found.p, by_listener(counts, totals), where, sensitivity,
        mixed(counts, totals),
    )  # fmt: skip


def _about(reply: Reply, one: str, two: str) -> bool:
    return {slot.condition for slot in reply.asked.slots} == {one, two}


def _wins(test: Test, first: Sequence[Sequence[Reply]]) -> NDArray[np.float64]:
    """How often each listener preferred each to each [listener, condition, condition]."""
    index = {name: k for k, name in enumerate(test.conditions)}
    wins = np.zeros((len(first), len(index), len(index)))
    for own, replies in zip(wins, first, strict=True):
        for reply in replies:
            own[index[reply.preferred.condition], index[reply.other.condition]] += 1
    return wins


def _ratings(test: Test, kept: Sequence[Person], first: Sequence[Sequence[Reply]]) -> Ratings:
    assert test.reference is not None
    index = {name: k for k, name in enumerate(test.conditions)}
    cube = np.full((len(kept), len(test.trials), len(index)), np.nan)
    for listener, replies in enumerate(first):
        for reply in replies:
            for condition, (_, rating) in reply.ratings.items():
                cube[listener, reply.asked.trial or 0, index[condition]] = rating
    anchor = index.get(MID_ANCHOR)
    out = mushra.unreliable(cube, index[test.reference], anchor)
    used = cube[~out]
    excluded = tuple(it.name for it, bad in zip(kept, out, strict=True) if bad)
    if not len(mushra.by_listener(used)):
        raise FolderError(
            "every listener is left out by the standard's post-screening, who rate the hidden "
            "reference below 90: ask more listeners"
        )
    effects: tuple[Effect, ...] | str
    try:
        effects = tuple(mushra.effects(used)) if len(used) > 1 else "too few listeners"
    except MissingExtraError as error:
        effects = str(error)
    except (np.linalg.LinAlgError, ValueError):
        effects = "too few answers"
    return Ratings(
        tuple(test.conditions), tuple(mushra.medians(used)), mushra.friedman(used),
        tuple(mushra.differences(used)), effects, excluded, used,
    )  # fmt: skip


def _steady(test: Test, kept: Sequence[Person]) -> Share | None:
    """Whether a choice of two stays what it was; ratings, whether they stay within ten points."""
    same = []
    for person in kept:
        by_screen = {reply.screen: reply for reply in person.replies}
        for reply in person.replies:
            before = by_screen.get(reply.again) if reply.again is not None else None
            if before is None:
                continue
            if test.kind == "mushra":
                pairs = [(reply.ratings[k][1], v) for k, (_, v) in before.ratings.items()]
                same += [abs(a - b) <= 10 for a, b in pairs]
            elif test.kind == "abx":
                same.append(reply.correct == before.correct)
            else:
                same.append(reply.preferred.condition == before.preferred.condition)
    return share(sum(same), len(same)) if same else None


def _pair_summary(pair: Pair) -> dict[str, Any]:
    return {
        **pair._asdict(),
        "answers": pair.answers._asdict(),
        "listeners": pair.listeners._asdict(),
        "where": {name: it._asdict() for name, it in pair.where.items()},
        "sensitivity": pair.sensitivity._asdict() if pair.sensitivity else None,
        "mixed": pair.mixed._asdict() if pair.mixed else None,
    }


def _strengths_summary(found: Results) -> list[dict[str, Any]] | None:
    if found.strengths is None:
        return None
    blank = [None] * len(found.test.conditions)
    names = ("condition", "strength", "low", "high", "others_low", "others_high")
    rows = zip(
        found.test.conditions, *found.strengths[:3], *(found.others or (blank, blank)), strict=True
    )
    return [dict(zip(names, (row[0], *map(_finite, row[1:])), strict=True)) for row in rows]


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _ratings_summary(found: Ratings | None) -> dict[str, Any] | None:
    if found is None:
        return None
    names = found.conditions
    effects = found.effects
    return {
        "medians": {n: m._asdict() for n, m in zip(names, found.medians, strict=True)},
        "friedman": found.friedman._asdict() if found.friedman else None,
        "differences": [
            {**it._asdict(), "first": names[it.first], "second": names[it.second]}
            for it in found.differences
        ],
        "mixed_effects": effects
        if isinstance(effects, str)
        else [{**it._asdict(), "condition": names[it.condition]} for it in effects],
        "excluded": list(found.excluded),
    }
