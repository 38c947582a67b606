"""Analysis of a listening test: preferences, sensitivity, ratings, and the listeners that a test needs.

Repeated answers measure how consistent a listener is and enter no other result.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import CallError, FolderError, MissingExtraError
from tonewood.listening.database import (
    AnswerDatabase,
    Participant,
    TrialResponse,
    count_wins,
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

_DEFAULT_SHARE, _DEFAULT_CORRECT, _DEFAULT_POINTS, _DEFAULT_SPREAD = 0.65, 0.7, 10.0, 15.0
TARGET_POWER, ANSWER_CORRELATION = 0.8, 0.05
_CONSISTENT_POINTS = 10  # a repeated rating within this range counts as the same


class ConditionPair(NamedTuple):
    """Comparison of two conditions: share of answers that prefer the first, or are correct (ABX)."""

    first: str
    second: str
    answers: Proportion
    p_holm: float  # p of the share, Holm-adjusted over all pairs
    listeners: ListenerMean  # the same with equal weight of each listener
    # The same by the choice of the excerpt: "mask" (strongest effect) or "random"
    where: dict[str, Proportion]
    sensitivity: Sensitivity | None  # only for ABX
    mixed: MixedLogit | None  # from a model with random listeners


class MushraRatings(NamedTuple):
    """Results of a MUSHRA test."""

    conditions: tuple[str, ...]
    medians: tuple[ConditionMedian, ...]
    friedman: FriedmanTest | None
    differences: tuple[ConditionDifference, ...]
    # Effects of a mixed model against the first condition, or the reason why there are none
    effects: tuple[MixedEffect, ...] | str
    excluded: tuple[str, ...]  # listeners that the standard's post-screening excludes
    scores: NDArray[np.float64]  # [listener, trial, condition]: ratings of the other listeners


class ListeningResults(NamedTuple):
    """Results of a listening test."""

    test: ListeningTest
    participants: tuple[Participant, ...]
    # Listeners without answers, and those who failed the headphone check if it was required
    excluded_count: int
    pairs: tuple[ConditionPair, ...]
    strengths: Strengths | None
    # Intervals of the strengths that hold for other listeners, too
    population_intervals: StrengthIntervals | None
    ratings: MushraRatings | None
    consistency: Proportion | None  # share of repeated questions with the same answer
    # Share of answers A; far from one half, listeners chose sides instead of sounds
    first_side: Proportion | None

    @property
    def summary(self) -> dict[str, Any]:
        """Results as JSON."""
        return {
            "kind": self.test.kind,
            "title": self.test.title,
            "question": self.test.question,
            "listeners": [
                {
                    "name": participant.name,
                    "code": participant.code,
                    "finished": participant.finished,
                    "headphones": participant.headphones,
                    "hearing": participant.hearing,
                    "answers": len(participant.responses),
                }
                for participant in self.participants
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
    """Compute the results of a test; FolderError if there are no answers yet."""
    # Listeners without a single first answer are not counted.
    everyone = list_participants(test, answers)
    participants = [p for p in everyone if p.first_answers]
    if headphones_only:
        participants = [p for p in participants if p.headphones]
    if not participants:
        raise FolderError("the test has no answers yet: serve the test, or remove --headphones")
    responses = [p.first_answers for p in participants]
    pairs: tuple[ConditionPair, ...] = ()
    strengths = intervals = ratings = first_side = None
    if test.kind == "mushra":
        ratings = _analyze_ratings(test, participants, responses)
    else:
        pairs = _analyze_pairs(test, responses)
        values = [r.value for group in responses for r in group]
        first_side = binomial_proportion(values.count("A"), len(values))
    if test.kind == "pairs":
        wins = np.stack([count_wins(test, group) for group in responses])  # [listener, preferred, rejected]
        # Without a chain of comparisons between all conditions, strengths are not defined.
        if bradley_terry.is_connected(wins.sum(axis=0)):
            strengths = bradley_terry.fit_strengths(wins.sum(axis=0))
            intervals = jackknife_intervals(wins)
    return ListeningResults(
        test, tuple(participants), len(everyone) - len(participants), pairs, strengths, intervals,
        ratings, _measure_consistency(test, participants), first_side,
    )  # fmt: skip


def _analyze_pairs(
    test: ListeningTest, responses: Sequence[Sequence[TrialResponse]]
) -> tuple[ConditionPair, ...]:
    pairs = []
    for first, second in combinations(test.conditions, 2):
        compared = [
            [r for r in group if {s.condition for s in r.question.stimuli} == {first, second}]
            for group in responses
        ]
        if any(compared):
            pairs.append(_analyze_pair(test, first, second, compared))
    adjusted = holm_adjust(np.array([pair.answers.p for pair in pairs]))
    return tuple(pair._replace(p_holm=float(p)) for pair, p in zip(pairs, adjusted, strict=True))


def _analyze_pair(
    test: ListeningTest, first: str, second: str, responses: Sequence[Sequence[TrialResponse]]
) -> ConditionPair:
    """Analyse the responses of each listener to one pair of conditions."""
    abx = test.kind == "abx"
    # Who hears no difference is right in half of the cases; fewer correct answers are chance, too.
    sided = "greater" if abx else "two-sided"

    def successes(responses: Iterable[TrialResponse]) -> list[bool]:
        return [r.correct if abx else r.preferred.condition == first for r in responses]

    def proportion(outcomes: list[bool]) -> Proportion:
        return binomial_proportion(sum(outcomes), len(outcomes), alternative=sided)

    # Pooled answers count alike; `mean_over_listeners` gives each listener the same weight.
    pooled = [r for group in responses for r in group]
    answers = proportion(successes(pooled))
    where = {}
    for selection in ("mask", "random"):
        outcomes = successes(r for r in pooled if r.excerpt.chosen == selection)
        if outcomes:
            where[selection] = proportion(outcomes)
    counts, totals = [sum(successes(group)) for group in responses], [len(group) for group in responses]
    sensitivity = abx_sensitivity(answers.successes, answers.total) if abx else None
    return ConditionPair(
        first, second, answers, answers.p, mean_over_listeners(counts, totals), where, sensitivity,
        fit_mixed_logit(counts, totals),
    )  # fmt: skip


def _analyze_ratings(
    test: ListeningTest, participants: Sequence[Participant], responses: Sequence[Sequence[TrialResponse]]
) -> MushraRatings:
    assert test.reference is not None
    index = {name: k for k, name in enumerate(test.conditions)}
    scores = np.full((len(participants), len(test.trials), len(index)), np.nan)
    for listener, group in enumerate(responses):
        for r in group:
            for condition, (_, rating) in r.ratings.items():
                scores[listener, r.trial, index[condition]] = rating
    # Post-screening of BS.1534-3 needs all ratings; the statistics use the reliable listeners' only.
    unreliable = mushra.find_unreliable_listeners(scores, index[test.reference], index.get(MID_ANCHOR_NAME))
    reliable = scores[~unreliable]
    excluded = tuple(p.name for p, bad in zip(participants, unreliable, strict=True) if bad)
    if not len(mushra.listener_means(reliable)):
        raise FolderError(
            "the standard's post-screening excludes every listener, because all rate the hidden "
            "reference below 90: ask more listeners"
        )
    # The report shows the reason if the mixed model cannot be fitted.
    effects: tuple[MixedEffect, ...] | str
    try:
        effects = tuple(mushra.fit_mixed_effects(reliable)) if len(reliable) > 1 else "too few listeners"
    except MissingExtraError as error:
        effects = str(error)
    except (np.linalg.LinAlgError, ValueError):
        effects = "too few answers"
    return MushraRatings(
        tuple(test.conditions), tuple(mushra.condition_medians(reliable)), mushra.friedman_test(reliable),
        tuple(mushra.compare_conditions(reliable)), effects, excluded, reliable,
    )  # fmt: skip


def _measure_consistency(test: ListeningTest, participants: Sequence[Participant]) -> Proportion | None:
    """Return the share of repeated questions that were answered as before."""
    same: list[bool] = []
    for participant in participants:
        by_screen = {r.screen_number: r for r in participant.responses}
        for repeat in participant.responses:
            first = by_screen.get(repeat.repeat_of) if repeat.repeat_of is not None else None
            if first is None:
                continue
            if test.kind == "mushra":
                same += [
                    abs(repeat.ratings[condition][1] - rating) <= _CONSISTENT_POINTS
                    for condition, (_, rating) in first.ratings.items()
                ]
            elif test.kind == "abx":
                same.append(repeat.correct == first.correct)
            else:
                same.append(repeat.preferred.condition == first.preferred.condition)
    return binomial_proportion(sum(same), len(same)) if same else None


def _pair_summary(pair: ConditionPair) -> dict[str, Any]:
    return {
        **pair._asdict(),
        "answers": pair.answers._asdict(),
        "listeners": pair.listeners._asdict(),
        "where": {name: proportion._asdict() for name, proportion in pair.where.items()},
        "sensitivity": pair.sensitivity._asdict() if pair.sensitivity else None,
        "mixed": pair.mixed._asdict() if pair.mixed else None,
    }


def _strengths_summary(results: ListeningResults) -> list[dict[str, Any]] | None:
    if results.strengths is None:
        return None
    blank = [None] * len(results.test.conditions)
    names = ("strength", "low", "high", "others_low", "others_high")
    columns = (*results.strengths[:3], *(results.population_intervals or (blank, blank)))
    return [
        {"condition": condition, **dict(zip(names, map(_finite_or_none, values), strict=True))}
        for condition, *values in zip(results.test.conditions, *columns, strict=True)
    ]


def _finite_or_none(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _ratings_summary(ratings: MushraRatings | None) -> dict[str, Any] | None:
    if ratings is None:
        return None
    names = ratings.conditions
    effects: str | list[dict[str, Any]]
    if isinstance(ratings.effects, str):
        effects = ratings.effects
    else:
        effects = [{**e._asdict(), "condition": names[e.condition]} for e in ratings.effects]
    return {
        "medians": {n: m._asdict() for n, m in zip(names, ratings.medians, strict=True)},
        "friedman": ratings.friedman._asdict() if ratings.friedman else None,
        "differences": [
            {**d._asdict(), "first": names[d.first], "second": names[d.second]} for d in ratings.differences
        ],
        "mixed_effects": effects,
        "excluded": list(ratings.excluded),
    }


class SampleSize(NamedTuple):
    """Listeners needed to find an effect with 80 % power at the 5 % level."""

    # Share that prefers one of two or is correct; for MUSHRA the points between two conditions
    expected: float
    listeners: int | None  # None if more than ten thousand
    text: str


def resolve_effect_size(kind: TestKind, expected: float | None) -> float:
    """Return the effect to find, or the default of a kind; raise CallError if out of range."""
    if kind == "mushra":
        points = _DEFAULT_POINTS if expected is None else expected
        if not 0 < abs(points) <= 100:
            raise CallError(f"--expect is {points:g} points: use a difference of up to 100, but not 0")
        return points
    share = (_DEFAULT_SHARE if kind == "pairs" else _DEFAULT_CORRECT) if expected is None else expected
    if not 0 < share < 1 or share == 0.5:
        raise CallError(f"--expect is {share:g}: use a share between 0 and 1, but not 0.5 (chance)")
    return share


def required_listeners(test: ListeningTest, expected: float | None = None) -> SampleSize:
    """Estimate the listeners that a test needs to find an effect."""
    effect = resolve_effect_size(test.kind, expected)
    if test.kind == "mushra":
        number = listeners_for_ratings(effect, _DEFAULT_SPREAD, power=TARGET_POWER)
        description = f"a difference of {effect:g} points, spread {_DEFAULT_SPREAD:g}"
    else:
        # A listener's answers to one pair of conditions are correlated, so they count together.
        pairs = len({trial.conditions for trial in test.trials})
        number = listeners_for_choice(
            effect,
            max(1, test.per_listener // pairs),
            correlation=ANSWER_CORRELATION,
            power=TARGET_POWER,
            alternative="greater" if test.kind == "abx" else "two-sided",
        )
        description = f"{100 * effect:g} % {'right' if test.kind == 'abx' else 'who prefer one of two'}"
    count = "more than 10,000" if number is None else str(number)
    return SampleSize(effect, number, f"{count} needed to find {description} (power 80 %)")
