"""Screens of each listener: their order and sides follow from the test's seed and the listener's number."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tonewood.listening.definition import FileByCondition, ListeningTest, TestKind
from tonewood.stats.bradley_terry import most_informative_pair

ScreenStage = Literal["volume", "hearing", "headphones", "training", "trial"]

REFERENCE_LABEL, X_LABEL = "reference", "X"


@dataclass(frozen=True)
class LabelledStimulus:
    """A sound on a screen. The page receives the label only, not the file or the condition."""

    label: str
    file: str
    condition: str


@dataclass(frozen=True)
class Screen:
    """A question to a listener."""

    stage: ScreenStage
    trial: int | None = None  # index of the test's trial; None for checks, and until an active choice is made
    stimuli: tuple[LabelledStimulus, ...] = ()  # in the order of the page
    correct_answer: str | None = None  # label or number of the correct answer, if there is one
    repeat_of: int | None = None  # number of the screen that this screen repeats


def is_valid_answer(value: Any, screen: Screen, kind: TestKind, *, final: bool) -> bool:  # noqa: ANN401
    """Return True if a screen offers this answer; a draft of ratings may be incomplete."""
    labels = {stimulus.label for stimulus in screen.stimuli} - {REFERENCE_LABEL, X_LABEL}
    if screen.stage in ("training", "trial") and kind == "mushra":
        if not isinstance(value, dict):
            return False
        if not all(isinstance(v, int | float) and 0 <= v <= 100 for v in value.values()):
            return False
        return set(value) == labels if final else set(value) <= labels
    options = {"volume": {"set"}, "hearing": {str(k) for k in range(1, 7)}, "headphones": {"1", "2", "3"}}
    return isinstance(value, str) and value in options.get(screen.stage, labels)


def draw_screens(test: ListeningTest, number: int) -> tuple[Screen, ...]:
    """Return all screens of the listener with a number, counted from 0."""
    # The order of the draws is part of the format: stored answers refer to the screens drawn here. The
    # second number of a seed names its use: 1 screens, 2 active choice, 3 allocation, 4 exported ABX.
    rng = np.random.default_rng([test.seed, 1, number])
    files = test.file_by_condition()

    # Checks and volume.
    checks = []
    for kind in ("hearing", "headphones"):
        group = [check for check in test.checks if check.kind == kind]
        for k in rng.permutation(len(group)).tolist():
            sound = LabelledStimulus("sound", group[k].file, kind)
            checks.append(Screen(group[k].kind, stimuli=(sound,), correct_answer=str(group[k].right)))
    example = test.stimuli[int(rng.integers(len(test.stimuli)))]
    volume = Screen("volume", stimuli=(LabelledStimulus("sound", example.file, example.condition),))

    # Trials: for practice, then once each, then some again with changed sides.
    practised = rng.permutation(len(test.trials))[: test.training]
    training = [_draw_screen(test, int(k), rng, files, "training") for k in practised]
    allocated = balanced_subset(test, number)
    order = [allocated[int(k)] for k in rng.permutation(len(allocated))]
    sides = _balanced_sides(test, order, rng)
    trials = [
        _draw_screen(test, trial, rng, files, "trial", flipped=side)
        for trial, side in zip(order, sides, strict=True)
    ]
    first = 1 + len(checks) + len(training)
    repeated = sorted(int(k) for k in rng.permutation(len(trials))[: test.repeats])
    repeats = [
        replace(_draw_screen(test, order[k], rng, files, "trial", flipped=not sides[k]), repeat_of=first + k)
        for k in repeated
    ]
    if test.choice == "active":  # `next_adaptive_screen` fills these screens while the test runs
        trials = [Screen("trial") for _ in trials]
        repeats = [Screen("trial", repeat_of=screen.repeat_of) for screen in repeats]
    return (volume, *checks, *training, *trials, *repeats)


def next_adaptive_screen(
    test: ListeningTest,
    number: int,
    screen_number: int,
    wins: NDArray[np.float64],
    trial_counts: Counter[int],
    past_trials: Sequence[int],
) -> Screen:
    """Return the most informative screen, given all answers so far.

    Parameters
    ----------
    number : int
        Of the listener; seeds the draw together with `screen_number`.
    wins : array [condition, condition]
        Answers of all listeners.
    trial_counts : Counter
        Number of answers to each trial, of all listeners.
    past_trials : sequence of int
        Trials that this listener has answered.
    """
    rng = np.random.default_rng([test.seed, 2, number, screen_number])
    i, j = most_informative_pair(wins, rng)
    pair = {test.conditions[i], test.conditions[j]}
    candidates = [k for k, trial in enumerate(test.trials) if set(trial.conditions) == pair]
    # The excerpt that this listener, and then all listeners, have heard least with these conditions.
    best = min(
        rng.permutation(len(candidates)),
        key=lambda k: (list(past_trials).count(candidates[k]), trial_counts[candidates[k]]),
    )
    return _draw_screen(test, candidates[int(best)], rng, test.file_by_condition(), "trial")


def swap_sides(screen: Screen, repeat_of: int) -> Screen:
    """Return the repetition of a comparison, with A and B exchanged."""
    first, second = screen.stimuli
    stimuli = (replace(second, label=first.label), replace(first, label=second.label))
    return replace(screen, stimuli=stimuli, repeat_of=repeat_of)


_DesignKey = tuple[int, int, tuple[tuple[int, tuple[str, ...]], ...]]
"""Seed, trials for each listener, and the excerpt and conditions of each trial."""


class _TrialAllocation:
    """Allocation of trials to listeners, computed in the order of their numbers as far as needed.

    A listener's trials depend on those of all before, and any thread of the server may ask for them.
    """

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
        seed, per_listener, trials = self.design
        rng = np.random.default_rng([seed, 3, len(self.allocated)])
        tie_break = rng.permutation(len(trials))
        pairs, excerpts = Counter[tuple[str, ...]](), Counter[int]()

        # Balance first the trials over all listeners, then conditions and excerpts for this listener.
        def rank(trial: int) -> tuple[int, int, int, int]:
            excerpt, conditions = trials[trial]
            return self.trial_counts[trial], pairs[conditions], excerpts[excerpt], tie_break[trial]

        chosen: list[int] = []
        while len(chosen) < per_listener:
            best = min((k for k in range(len(trials)) if k not in chosen), key=rank)
            chosen.append(best)
            excerpt, conditions = trials[best]
            pairs[conditions] += 1
            excerpts[excerpt] += 1
        return tuple(chosen)


_get_allocation = lru_cache(maxsize=16)(_TrialAllocation)


def balanced_subset(test: ListeningTest, number: int) -> tuple[int, ...]:
    """Return a listener's trials; over all listeners, trials occur equally often to within one."""
    trials = tuple((trial.excerpt, trial.conditions) for trial in test.trials)
    return _get_allocation((test.seed, test.per_listener, trials)).trials_of(number)


def _balanced_sides(test: ListeningTest, order: Sequence[int], rng: np.random.Generator) -> list[bool]:
    """Return for each trial whether A and B are exchanged, equally often for each pair of conditions."""
    sides = [False] * len(order)
    for pair in sorted({test.trials[k].conditions for k in order}):
        places = [place for place, k in enumerate(order) if test.trials[k].conditions == pair]
        # Alternating sides differ in number by one at most; the permutation hides their order.
        half = np.arange(len(places)) % 2 == int(rng.integers(2))
        for place, side in zip(places, rng.permutation(half), strict=True):
            sides[place] = bool(side)
    return sides


def _draw_screen(
    test: ListeningTest,
    trial: int,
    rng: np.random.Generator,
    files: FileByCondition,
    stage: ScreenStage,
    *,
    flipped: bool | None = None,
) -> Screen:
    excerpt, conditions = test.trials[trial].excerpt, test.trials[trial].conditions
    if flipped is None:
        flipped = bool(rng.integers(2))

    def stimulus(label: str, condition: str, copy: int = 0) -> LabelledStimulus:
        return LabelledStimulus(label, files[excerpt, condition, copy], condition)

    if test.kind == "mushra":
        assert test.reference is not None
        order = [conditions[int(k)] for k in rng.permutation(len(conditions))]
        rated = [stimulus(chr(ord("A") + k), condition) for k, condition in enumerate(order)]
        return Screen(stage, trial, (stimulus(REFERENCE_LABEL, test.reference, 1), *rated))
    first, second = conditions[::-1] if flipped else conditions
    stimuli = (stimulus("A", first), stimulus("B", second))
    if test.kind == "pairs":
        return Screen(stage, trial, stimuli)
    # X is a second copy, with another dither: its bytes do not reveal which sound it is.
    x = int(rng.integers(2))
    stimuli_with_x = (*stimuli, stimulus(X_LABEL, (first, second)[x], 1))
    return Screen(stage, trial, stimuli_with_x, correct_answer="AB"[x])
