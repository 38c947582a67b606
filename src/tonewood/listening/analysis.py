"""From replies to findings: what each kind of test says, with how far it can be trusted.

Answers that come again serve to see how steady a listener is, and are in no other figure.

How many listeners a test needs, told before anyone is asked.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import CallError, FolderError, MissingExtraError
from tonewood.listening.database import (
    AnswerDatabase,
    Participant,
    TrialResponse,
    list_participants,
)
from tonewood.listening.definition import MID_ANCHOR_NAME, ListeningTest, TestKind
from tonewood.stats import bradley_terry, mushra
from tonewood.stats.bradley_terry import (
    MixedLogit,
    StrengthIntervals,
    Strengths,
    fit_mixed_logit,
    jackknife_intervals,
)
from tonewood.stats.mushra import ConditionDifference, ConditionMedian, FriedmanTest, MixedEffect
from tonewood.stats.proportions import (
    ListenerMean,
    Proportion,
    Sensitivity,
    abx_sensitivity,
    binomial_proportion,
    holm_adjust,
    listeners_for_choice,
    listeners_for_ratings,
    mean_over_listeners,
)


class ConditionPair(NamedTuple):
    """Two conditions: how often the first was preferred, or heard rightly.

    Parameters
    ----------
    p_holm : float
        The share's p, so that all pairs may be read at once.
    listeners : Spread
        The same, each listener counting once.
    where : dict of Proportion
        By how the excerpt was chosen: where most was done, or at random.
    sensitivity : Sensitivity or None
        Of ABX.
    mixed : MixedLogit or None
        By a model in which listeners are drawn at random.
    """

    first: str
    second: str
    answers: Proportion
    p_holm: float
    listeners: ListenerMean
    where: dict[str, Proportion]
    sensitivity: Sensitivity | None
    mixed: MixedLogit | None


class MushraRatings(NamedTuple):
    """What MUSHRA says of its conditions.

    Parameters
    ----------
    excluded : tuple of str
        Listeners left out by the standard's post-screening.
    effects : tuple of MixedEffect, or str
        A mixed model's, against the first condition; or why there are none.
    """

    conditions: tuple[str, ...]
    medians: tuple[ConditionMedian, ...]
    friedman: FriedmanTest | None
    differences: tuple[ConditionDifference, ...]
    effects: tuple[MixedEffect, ...] | str
    excluded: tuple[str, ...]
    scores: NDArray[np.float64]  # [listener, trial, condition], of those kept


class ListeningResults(NamedTuple):
    """All that was found.

    Parameters
    ----------
    participants : tuple of Participant
        Who was counted.
    population_intervals : StrengthIntervals or None
        Intervals of the strengths that hold for other listeners too.
    excluded_count : int
        Listeners who failed the headphone check, where that was asked for.
    consistency : Proportion or None
        How often an answer was the same when its question came again.
    first_side : Proportion or None
        How often A was chosen: far from one half, sides decided rather than sounds.
    """

    test: ListeningTest
    participants: tuple[Participant, ...]
    excluded_count: int
    pairs: tuple[ConditionPair, ...]
    strengths: Strengths | None
    population_intervals: StrengthIntervals | None
    ratings: MushraRatings | None
    consistency: Proportion | None
    first_side: Proportion | None

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
                    "answers": len(it.responses),
                }
                for it in self.participants
            ],
            "left_out": self.excluded_count,
            "steady": self.consistency._asdict() if self.consistency else None,
            "first_side": self.first_side._asdict() if self.first_side else None,
            "pairs": [_pair_summary(pair) for pair in self.pairs],
            "strengths": _strengths_summary(self),
            "ratings": _ratings_summary(self.ratings),
        }


def analyze_answers(
    test: ListeningTest, answers: AnswerDatabase, *, headphones_only: bool = False
) -> ListeningResults:
    """Sum up a test's answers.

    Raises
    ------
    FolderError
        Nobody has answered yet.
    """
    everyone = list_participants(test, answers)
    kept = [it for it in everyone if any(reply.repeat_of is None for reply in it.responses)]
    if headphones_only:
        kept = [it for it in kept if it.headphones]
    if not kept:
        raise FolderError("no answers to sum up yet: serve the test, or leave --headphones out")
    first = [[reply for reply in it.responses if reply.repeat_of is None] for it in kept]
    pairs: tuple[ConditionPair, ...] = ()
    strengths = others = ratings = left = None
    if test.kind == "mushra":
        ratings = _analyze_ratings(test, kept, first)
    else:
        pairs = _analyze_pairs(test, first)
        chosen = [reply.value for own in first for reply in own]
        left = binomial_proportion(chosen.count("A"), len(chosen))
    if test.kind == "pairs":
        wins = _count_wins(test, first)
        if bradley_terry.is_connected(wins.sum(axis=0)):
            strengths, others = (
                bradley_terry.fit_strengths(wins.sum(axis=0)),
                jackknife_intervals(wins),
            )
    return ListeningResults(
        test, tuple(kept), len(everyone) - len(kept), pairs, strengths, others, ratings,
        _measure_consistency(test, kept), left,
    )  # fmt: skip


def _analyze_pairs(
    test: ListeningTest, responses: Sequence[Sequence[TrialResponse]]
) -> tuple[ConditionPair, ...]:
    made = []
    for one, two in combinations(test.conditions, 2):
        own = [[it for it in replies if _compares(it, one, two)] for replies in responses]
        every = [it for replies in own for it in replies]
        if every:
            made.append(_analyze_pair(test, one, two, own, every))
    corrected = holm_adjust(np.array([pair.answers.p for pair in made]))
    return tuple(pair._replace(p_holm=float(p)) for pair, p in zip(made, corrected, strict=True))


def _analyze_pair(
    test: ListeningTest,
    one: str,
    two: str,
    responses_by_listener: Sequence[Sequence[TrialResponse]],
    responses: Sequence[TrialResponse],
) -> ConditionPair:
    abx = test.kind == "abx"
    good: Callable[[TrialResponse], bool] = (
        (lambda it: it.correct) if abx else (lambda it: it.preferred.condition == one)
    )
    sided = "greater" if abx else "two-sided"
    found = binomial_proportion(sum(map(good, responses)), len(responses), alternative=sided)
    where = {}
    for chosen in ("mask", "random"):
        there = [it for it in responses if it.excerpt.chosen == chosen]
        if there:
            where[chosen] = binomial_proportion(sum(map(good, there)), len(there), alternative=sided)
    counts, totals = (
        [sum(map(good, it)) for it in responses_by_listener],
        [len(it) for it in responses_by_listener],
    )
    sensitivity = abx_sensitivity(found.successes, found.total) if abx else None
    return ConditionPair(
        one, two, found, found.p, mean_over_listeners(counts, totals), where, sensitivity,
        fit_mixed_logit(counts, totals),
    )  # fmt: skip


def _compares(reply: TrialResponse, one: str, two: str) -> bool:
    return {slot.condition for slot in reply.question.stimuli} == {one, two}


def _count_wins(test: ListeningTest, responses: Sequence[Sequence[TrialResponse]]) -> NDArray[np.float64]:
    """How often each listener preferred each to each [listener, condition, condition]."""
    index = {name: k for k, name in enumerate(test.conditions)}
    wins = np.zeros((len(responses), len(index), len(index)))
    for own, replies in zip(wins, responses, strict=True):
        for reply in replies:
            own[index[reply.preferred.condition], index[reply.rejected.condition]] += 1
    return wins


def _analyze_ratings(
    test: ListeningTest,
    participants: Sequence[Participant],
    responses: Sequence[Sequence[TrialResponse]],
) -> MushraRatings:
    assert test.reference is not None
    index = {name: k for k, name in enumerate(test.conditions)}
    cube = np.full((len(participants), len(test.trials), len(index)), np.nan)
    for listener, replies in enumerate(responses):
        for reply in replies:
            for condition, (_, rating) in reply.ratings.items():
                cube[listener, reply.question.trial or 0, index[condition]] = rating
    anchor = index.get(MID_ANCHOR_NAME)
    out = mushra.find_unreliable_listeners(cube, index[test.reference], anchor)
    used = cube[~out]
    excluded = tuple(it.name for it, bad in zip(participants, out, strict=True) if bad)
    if not len(mushra.listener_means(used)):
        raise FolderError(
            "every listener is left out by the standard's post-screening, who rate the hidden "
            "reference below 90: ask more listeners"
        )
    effects: tuple[MixedEffect, ...] | str
    try:
        effects = tuple(mushra.fit_mixed_effects(used)) if len(used) > 1 else "too few listeners"
    except MissingExtraError as error:
        effects = str(error)
    except (np.linalg.LinAlgError, ValueError):
        effects = "too few answers"
    return MushraRatings(
        tuple(test.conditions), tuple(mushra.condition_medians(used)), mushra.friedman_test(used),
        tuple(mushra.compare_conditions(used)), effects, excluded, used,
    )  # fmt: skip


def _measure_consistency(test: ListeningTest, participants: Sequence[Participant]) -> Proportion | None:
    """Whether a choice of two stays what it was; ratings, whether they stay within ten points."""
    same = []
    for person in participants:
        by_screen = {reply.screen_number: reply for reply in person.responses}
        for reply in person.responses:
            before = by_screen.get(reply.repeat_of) if reply.repeat_of is not None else None
            if before is None:
                continue
            if test.kind == "mushra":
                pairs = [(reply.ratings[k][1], v) for k, (_, v) in before.ratings.items()]
                same += [abs(a - b) <= 10 for a, b in pairs]
            elif test.kind == "abx":
                same.append(reply.correct == before.correct)
            else:
                same.append(reply.preferred.condition == before.preferred.condition)
    return binomial_proportion(sum(same), len(same)) if same else None


def _pair_summary(pair: ConditionPair) -> dict[str, Any]:
    return {
        **pair._asdict(),
        "answers": pair.answers._asdict(),
        "listeners": pair.listeners._asdict(),
        "where": {name: it._asdict() for name, it in pair.where.items()},
        "sensitivity": pair.sensitivity._asdict() if pair.sensitivity else None,
        "mixed": pair.mixed._asdict() if pair.mixed else None,
    }


def _strengths_summary(results: ListeningResults) -> list[dict[str, Any]] | None:
    if results.strengths is None:
        return None
    blank = [None] * len(results.test.conditions)
    names = ("condition", "strength", "low", "high", "others_low", "others_high")
    rows = zip(
        results.test.conditions,
        *results.strengths[:3],
        *(results.population_intervals or (blank, blank)),
        strict=True,
    )
    return [dict(zip(names, (row[0], *map(_finite_or_none, row[1:])), strict=True)) for row in rows]


def _finite_or_none(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _ratings_summary(ratings: MushraRatings | None) -> dict[str, Any] | None:
    if ratings is None:
        return None
    names = ratings.conditions
    effects = ratings.effects
    return {
        "medians": {n: m._asdict() for n, m in zip(names, ratings.medians, strict=True)},
        "friedman": ratings.friedman._asdict() if ratings.friedman else None,
        "differences": [
            {**it._asdict(), "first": names[it.first], "second": names[it.second]}
            for it in ratings.differences
        ],
        "mixed_effects": effects
        if isinstance(effects, str)
        else [{**it._asdict(), "condition": names[it.condition]} for it in effects],
        "excluded": list(ratings.excluded),
    }


_DEFAULT_SHARE, _DEFAULT_CORRECT, _DEFAULT_POINTS, _DEFAULT_SPREAD = 0.65, 0.7, 10.0, 15.0
TARGET_POWER, ANSWER_CORRELATION = 0.8, 0.05


class SampleSize(NamedTuple):
    """Listeners that find what is worth finding with 80 % power at the 5 % level.

    Parameters
    ----------
    expected : float
        Share that prefers one of two, or is right; for MUSHRA points between two conditions.
    listeners : int or None
        None where ten thousand would not do.
    """

    expected: float
    listeners: int | None
    text: str


def resolve_effect_size(kind: TestKind, expected: float | None) -> float:
    """What is worth finding, or the usual; CallError for what cannot be found at all."""
    if kind == "mushra":
        points = _DEFAULT_POINTS if expected is None else expected
        if not 0 < abs(points) <= 100:
            raise CallError(f"a difference of {points:g} points; give one up to 100")
        return points
    share = (_DEFAULT_SHARE if kind == "pairs" else _DEFAULT_CORRECT) if expected is None else expected
    if not 0 < share < 1 or share == 0.5:
        raise CallError(f"a share of {share:g} cannot be told from one half: give another")
    return share


def required_listeners(test: ListeningTest, expected: float | None = None) -> SampleSize:
    """Estimate for a test; each listener's answers on one pair of conditions count together."""
    value = resolve_effect_size(test.kind, expected)
    if test.kind == "mushra":
        number = listeners_for_ratings(value, _DEFAULT_SPREAD, power=TARGET_POWER)
        what = f"a difference of {value:g} points, spread {_DEFAULT_SPREAD:g}"
        return SampleSize(value, number, _sample_size_text(number, what))
    pairs = len({trial.conditions for trial in test.trials})
    each = max(1, test.per_listener // pairs)
    sided = "greater" if test.kind == "abx" else "two-sided"
    number = listeners_for_choice(
        value, each, correlation=ANSWER_CORRELATION, power=TARGET_POWER, alternative=sided
    )
    what = f"{100 * value:g} % {'right' if test.kind == 'abx' else 'who prefer one of two'}"
    return SampleSize(value, number, _sample_size_text(number, what))


def _sample_size_text(number: int | None, what: str) -> str:
    least = "more than 10,000" if number is None else str(number)
    return f"{least} needed to find {what} (power 80 %)"
