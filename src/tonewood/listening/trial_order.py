"""What a listener is asked, in which order and on which side: drawn from seed and number alone."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tonewood.listening.definition import ListeningTest, TestKind
from tonewood.stats.bradley_terry import most_informative_pair

ScreenStage = Literal["volume", "hearing", "headphones", "training", "trial"]

REFERENCE_LABEL, X_LABEL = "reference", "X"


@dataclass(frozen=True)
class LabelledStimulus:
    """A sound to be heard: what the page calls it, its file, and what only we know of it."""

    label: str
    file: str
    condition: str


@dataclass(frozen=True)
class Screen:
    """One question.

    Parameters
    ----------
    trial : int or None
        Index of the test's trial; None for checks, and until an active choice is made.
    stimuli : tuple of LabelledStimulus
        In the order of the page.
    correct_answer : str or None
        Label or number of the right answer, where there is one.
    repeat_of : int or None
        Number of the screen that this one repeats.
    """

    stage: ScreenStage
    trial: int | None = None
    stimuli: tuple[LabelledStimulus, ...] = ()
    correct_answer: str | None = None
    repeat_of: int | None = None


def is_valid_answer(value: Any, screen: Screen, kind: TestKind, *, final: bool) -> bool:  # noqa: ANN401
    """Whether an answer is one of those that a screen offers."""
    labels = {slot.label for slot in screen.stimuli} - {REFERENCE_LABEL, X_LABEL}
    if screen.stage in ("training", "trial") and kind == "mushra":
        if not isinstance(value, dict) or not all(map(_is_rating, value.values())):
            return False
        return set(value) == labels if final else set(value) <= labels
    offered = {
        "volume": {"set"},
        "hearing": {str(k) for k in range(1, 7)},
        "headphones": {"1", "2", "3"},
    }
    return isinstance(value, str) and value in offered.get(screen.stage, labels)


def _is_rating(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, int | float) and 0 <= value <= 100


def draw_screens(test: ListeningTest, number: int) -> tuple[Screen, ...]:
    """All screens of the number-th listener, counted from 0."""
    rng = np.random.default_rng([test.seed, 1, number])
    files = test.file_by_condition()
    hearing, phones = (
        [
            Screen(
                it.kind,
                stimuli=(LabelledStimulus("sound", it.file, it.kind),),
                correct_answer=str(it.right),
            )
            for it in test.checks
            if it.kind == kind
        ]
        for kind in ("hearing", "headphones")
    )
    checked = [part[int(i)] for part in (hearing, phones) for i in rng.permutation(len(part))]
    loud = test.stimuli[int(rng.integers(len(test.stimuli)))]
    volume = Screen("volume", stimuli=(LabelledStimulus("sound", loud.file, loud.condition),))
    practised = rng.permutation(len(test.trials))[: test.training]
    training = [_draw_screen(test, int(t), rng, files, "training") for t in practised]
    own = balanced_subset(test, number)
    order = [own[int(i)] for i in rng.permutation(len(own))]
    sides = _balanced_sides(test, order, rng)
    asked = [
        _draw_screen(test, t, rng, files, "trial", flipped=side) for t, side in zip(order, sides, strict=True)
    ]
    before = 1 + len(checked) + len(training)
    repeated = sorted(int(i) for i in rng.permutation(len(asked))[: test.repeats])
    again = [
        replace(
            _draw_screen(test, order[i], rng, files, "trial", flipped=not sides[i]),
            repeat_of=before + i,
        )
        for i in repeated
    ]
    if test.choice == "active":
        asked = [Screen("trial") for _ in asked]
        again = [Screen("trial", repeat_of=it.repeat_of) for it in again]
    return (volume, *checked, *training, *asked, *again)


def next_adaptive_screen(
    test: ListeningTest,
    number: int,
    screen_number: int,
    wins: NDArray[np.float64],
    trial_counts: Counter[int],
    past_trials: Sequence[int],
) -> Screen:
    """The screen that teaches most, by all answers so far.

    Parameters
    ----------
    screen_number : int
        Of the screen; with the listener's number it seeds what is drawn.
    wins : array [condition, condition]
        Answers so far.
    trial_counts : Counter
        How often each trial was asked, of anyone.
    past_trials : sequence of int
        Trials that this listener has had.
    """
    rng = np.random.default_rng([test.seed, 2, number, screen_number])
    i, j = most_informative_pair(wins, rng)
    pair = {test.conditions[i], test.conditions[j]}
    those = [t for t, it in enumerate(test.trials) if set(it.conditions) == pair]
    order = rng.permutation(len(those))
    # The excerpt that this listener, and then everyone, has heard least under these conditions.
    best = min(order, key=lambda k: (list(past_trials).count(those[k]), trial_counts[those[k]]))
    return _draw_screen(test, those[int(best)], rng, test.file_by_condition(), "trial")


def swap_sides(screen: Screen, repeat_of: int) -> Screen:
    """A comparison that comes again, its sides changed."""
    first, second = screen.stimuli
    slots = (replace(second, label=first.label), replace(first, label=second.label))
    return replace(screen, stimuli=slots, repeat_of=repeat_of)


_DesignKey = tuple[int, int, tuple[tuple[int, tuple[str, ...]], ...]]
"""Seed, trials for each listener, and every trial's excerpt and conditions."""


class _TrialAllocation:
    """Who gets which trials of a design: listeners one after the other, as far as was asked."""

    def __init__(self, design: _DesignKey) -> None:
        self.design = design
        self.trial_counts = Counter[int]()
        self.allocated: list[tuple[int, ...]] = []
        self.lock = threading.Lock()

    def trials_of(self, number: int) -> tuple[int, ...]:
        with self.lock:
            while len(self.allocated) <= number:
                self.allocated.append(self._allocate_next())
                self.trial_counts.update(self.allocated[-1])
            return self.allocated[number]

    def _allocate_next(self) -> tuple[int, ...]:
        seed, each, trials = self.design
        rng = np.random.default_rng([seed, 3, len(self.allocated)])
        lot = rng.permutation(len(trials))
        pairs, excerpts = Counter[tuple[str, ...]](), Counter[int]()
        own: list[int] = []
        while len(own) < each:
            # All as often as any other; then conditions, then excerpts, evenly for this listener.
            free = (t for t in range(len(trials)) if t not in own)
            best = min(
                free,
                key=lambda t: (
                    self.trial_counts[t],
                    pairs[trials[t][1]],
                    excerpts[trials[t][0]],
                    lot[t],
                ),
            )
            own.append(best)
            pairs[trials[best][1]] += 1
            excerpts[trials[best][0]] += 1
        return tuple(own)


_get_allocation = lru_cache(maxsize=16)(_TrialAllocation)


def balanced_subset(test: ListeningTest, number: int) -> tuple[int, ...]:
    """Trials of the number-th listener; over listeners all come equally often, to within one."""
    trials = tuple((it.excerpt, it.conditions) for it in test.trials)
    return _get_allocation((test.seed, test.per_listener, trials)).trials_of(number)


def _balanced_sides(test: ListeningTest, order: Sequence[int], rng: np.random.Generator) -> list[bool]:
    """Sides such that each pair of conditions stands either way equally often, to within one."""
    sides = [False] * len(order)
    pairs = {test.trials[t].conditions for t in order}
    for pair in sorted(pairs):
        places = [k for k, t in enumerate(order) if test.trials[t].conditions == pair]
        half = np.arange(len(places)) % 2 == int(rng.integers(2))
        for place, side in zip(places, rng.permutation(half), strict=True):
            sides[place] = bool(side)
    return sides


def _draw_screen(
    test: ListeningTest,
    trial: int,
    rng: np.random.Generator,
    files: dict[tuple[int, str, int], str],
    stage: ScreenStage,
    *,
    flipped: bool | None = None,
) -> Screen:
    asked = test.trials[trial]
    if flipped is None:
        flipped = bool(rng.integers(2))

    def slot(label: str, condition: str, copy: int = 0) -> LabelledStimulus:
        return LabelledStimulus(label, files[asked.excerpt, condition, copy], condition)

    if test.kind == "mushra":
        assert test.reference is not None
        order = [asked.conditions[int(i)] for i in rng.permutation(len(asked.conditions))]
        rated = [slot(chr(ord("A") + k), condition) for k, condition in enumerate(order)]
        return Screen(stage, trial, (slot(REFERENCE_LABEL, test.reference, 1), *rated))
    first, second = asked.conditions[::-1] if flipped else asked.conditions
    slots = (slot("A", first), slot("B", second))
    if test.kind == "pairs":
        return Screen(stage, trial, slots)
    same = int(rng.integers(2))
    return Screen(stage, trial, (*slots, slot(X_LABEL, (first, second)[same], 1)), correct_answer="AB"[same])
