"""What a listener is asked, in which order and on which side: drawn from seed and number alone."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tonewood.evaluation.bradley_terry import most_telling
from tonewood.listening.design import Kind, Test

Stage = Literal["volume", "hearing", "headphones", "training", "trial"]

REFERENCE, X = "reference", "X"


@dataclass(frozen=True)
class Slot:
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
    slots : tuple of Slot
        In the order of the page.
    right : str or None
        Label or number of the right answer, where there is one.
    again : int or None
        Number of the screen that this one repeats.
    """

    stage: Stage
    trial: int | None = None
    slots: tuple[Slot, ...] = ()
    right: str | None = None
    again: int | None = None


def fits(value: Any, screen: Screen, kind: Kind, *, final: bool) -> bool:  # noqa: ANN401
    """Whether an answer is one of those that a screen offers."""
    labels = {slot.label for slot in screen.slots} - {REFERENCE, X}
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


def screens(test: Test, number: int) -> tuple[Screen, ...]:
    """All screens of the number-th listener, counted from 0."""
    rng = np.random.default_rng([test.seed, 1, number])
    files = test.files()
    hearing, phones = (
        [
            Screen(it.kind, slots=(Slot("sound", it.file, it.kind),), right=str(it.right))
            for it in test.checks
            if it.kind == kind
        ]
        for kind in ("hearing", "headphones")
    )
    checked = [part[int(i)] for part in (hearing, phones) for i in rng.permutation(len(part))]
    loud = test.stimuli[int(rng.integers(len(test.stimuli)))]
    volume = Screen("volume", slots=(Slot("sound", loud.file, loud.condition),))
    practised = rng.permutation(len(test.trials))[: test.training]
    training = [_screen(test, int(t), rng, files, "training") for t in practised]
    own = subset(test, number)
    order = [own[int(i)] for i in rng.permutation(len(own))]
    sides = _balanced_sides(test, order, rng)
    asked = [
        _screen(test, t, rng, files, "trial", flipped=side)
        for t, side in zip(order, sides, strict=True)
    ]
    before = 1 + len(checked) + len(training)
    repeated = sorted(int(i) for i in rng.permutation(len(asked))[: test.repeats])
    again = [
        replace(
            _screen(test, order[i], rng, files, "trial", flipped=not sides[i]), again=before + i
        )
        for i in repeated
    ]
    if test.choice == "active":
        asked = [Screen("trial") for _ in asked]
        again = [Screen("trial", again=it.again) for it in again]
    return (volume, *checked, *training, *asked, *again)


def chosen(
    test: Test,
    number: int,
    place: int,
    wins: NDArray[np.float64],
    shown: Counter[int],
    heard: Sequence[int],
) -> Screen:
    """The screen that teaches most, by all answers so far.

    Parameters
    ----------
    place : int
        Of the screen; with the listener's number it seeds what is drawn.
    wins : array [condition, condition]
        Answers so far.
    shown : Counter
        How often each trial was asked, of anyone.
    heard : sequence of int
        Trials that this listener has had.
    """
    rng = np.random.default_rng([test.seed, 2, number, place])
    i, j = most_telling(wins, rng)
    pair = {test.conditions[i], test.conditions[j]}
    those = [t for t, it in enumerate(test.trials) if set(it.conditions) == pair]
    order = rng.permutation(len(those))
    # The excerpt that this listener, and then everyone, has heard least under these conditions.
    best = min(order, key=lambda k: (list(heard).count(those[k]), shown[those[k]]))
    return _screen(test, those[int(best)], rng, test.files(), "trial")


def turned(screen: Screen, again: int) -> Screen:
    """A comparison that comes again, its sides changed."""
    first, second = screen.slots
    slots = (replace(second, label=first.label), replace(first, label=second.label))
    return replace(screen, slots=slots, again=again)


_Design = tuple[int, int, tuple[tuple[int, tuple[str, ...]], ...]]
"""Seed, trials for each listener, and every trial's excerpt and conditions."""


class _Shares:
    """Who gets which trials of a design: listeners one after the other, as far as was asked."""

    def __init__(self, design: _Design) -> None:
        self.design = design
        self.asked = Counter[int]()
        self.own: list[tuple[int, ...]] = []
        self.lock = threading.Lock()

    def of(self, number: int) -> tuple[int, ...]:
        with self.lock:
            while len(self.own) <= number:
                self.own.append(self._next())
                self.asked.update(self.own[-1])
            return self.own[number]

    def _next(self) -> tuple[int, ...]:
        seed, each, trials = self.design
        rng = np.random.default_rng([seed, 3, len(self.own)])
        lot = rng.permutation(len(trials))
        pairs, excerpts = Counter[tuple[str, ...]](), Counter[int]()
        own: list[int] = []
        while len(own) < each:
            # All as often as any other; then conditions, then excerpts, evenly for this listener.
            free = (t for t in range(len(trials)) if t not in own)
            best = min(
                free,
                key=lambda t: (self.asked[t], pairs[trials[t][1]], excerpts[trials[t][0]], lot[t]),
            )
            own.append(best)
            pairs[trials[best][1]] += 1
            excerpts[trials[best][0]] += 1
        return tuple(own)


_shares = lru_cache(maxsize=16)(_Shares)


def subset(test: Test, number: int) -> tuple[int, ...]:
    """Trials of the number-th listener; over listeners all come equally often, to within one."""
    trials = tuple((it.excerpt, it.conditions) for it in test.trials)
    return _shares((test.seed, test.per_listener, trials)).of(number)


def _balanced_sides(test: Test, order: Sequence[int], rng: np.random.Generator) -> list[bool]:
    """Sides such that each pair of conditions stands either way equally often, to within one."""
    sides = [False] * len(order)
    pairs = {test.trials[t].conditions for t in order}
    for pair in sorted(pairs):
        places = [k for k, t in enumerate(order) if test.trials[t].conditions == pair]
        half = np.arange(len(places)) % 2 == int(rng.integers(2))
        for place, side in zip(places, rng.permutation(half), strict=True):
            sides[place] = bool(side)
    return sides


def _screen(
    test: Test,
    trial: int,
    rng: np.random.Generator,
    files: dict[tuple[int, str, int], str],
    stage: Stage,
    *,
    flipped: bool | None = None,
) -> Screen:
    asked = test.trials[trial]
    if flipped is None:
        flipped = bool(rng.integers(2))

    def slot(label: str, condition: str, copy: int = 0) -> Slot:
        return Slot(label, files[asked.excerpt, condition, copy], condition)

    if test.kind == "mushra":
        assert test.reference is not None
        order = [asked.conditions[int(i)] for i in rng.permutation(len(asked.conditions))]
        rated = [slot(chr(ord("A") + k), condition) for k, condition in enumerate(order)]
        return Screen(stage, trial, (slot(REFERENCE, test.reference, 1), *rated))
    first, second = asked.conditions[::-1] if flipped else asked.conditions
    slots = (slot("A", first), slot("B", second))
    if test.kind == "pairs":
        return Screen(stage, trial, slots)
    same = int(rng.integers(2))
    return Screen(stage, trial, (*slots, slot(X, (first, second)[same], 1)), right="AB"[same])
