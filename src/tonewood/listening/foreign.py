"""What other listening tests are given, and what comes back from them.

Conditions travel as C01, C02 … in the order of the test, trials as t0, t1 …: names that an address
or a file name shows to a listener say nothing.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tonewood.errors import FolderError, shown
from tonewood.listening.design import Test
from tonewood.listening.sessions import REFERENCE, Screen, Slot, X


class Given(NamedTuple):
    """An answer from elsewhere: of whom, on which trial, what."""

    who: str
    trial: int
    screen: Screen
    value: Any
    seconds: float


def keys(test: Test) -> dict[str, str]:
    """Opaque name of every condition; of one length, so that they sort as they are counted."""
    return {name: f"C{k:02d}" for k, name in enumerate(test.conditions, start=1)}


def same(test: Test, trial: int) -> str:
    """Condition that X is, where the test runs elsewhere: drawn by the seed."""
    side = int(np.random.default_rng([test.seed, 4, trial]).integers(2))
    return test.trials[trial].conditions[side]


def screen_of(test: Test, trial: int, conditions: Sequence[str]) -> Screen:
    """A trial as if it had been asked here, its conditions in this order."""
    files, excerpt = test.files(), test.trials[trial].excerpt
    slots = [
        Slot(chr(ord("A") + k), files[excerpt, name, 0], name) for k, name in enumerate(conditions)
    ]
    right = None
    if test.kind == "mushra":
        assert test.reference is not None
        slots.insert(0, Slot(REFERENCE, files[excerpt, test.reference, 1], test.reference))
    elif test.kind == "abx":
        name = same(test, trial)
        right = "AB"[list(conditions).index(name)]
        slots.append(Slot(X, files[excerpt, name, 1], name))
    return Screen("trial", trial, tuple(slots), right)


def rated(test: Test, who: str, trial: int, ratings: dict[str, float], seconds: float) -> Given:
    """Ratings by condition, as if they had been given here."""
    screen = screen_of(test, trial, test.trials[trial].conditions)
    value = {slot.label: ratings[slot.condition] for slot in screen.slots[1:]}
    return Given(identity(test, who), trial, screen, value, seconds)


def chosen(test: Test, who: str, trial: int, condition: str, seconds: float) -> Given:
    """One of two conditions, as if it had been chosen here."""
    conditions = test.trials[trial].conditions
    value = "AB"[conditions.index(condition)]
    screen = screen_of(test, trial, conditions)
    return Given(identity(test, who), trial, screen, value, seconds)


def trial_of(test: Test, text: str, table: Path, number: int) -> int:
    """Trial that a line names; FolderError if it is none of this test."""
    found = re.fullmatch(r"t(\d{1,6})", text.strip())
    if not found or int(found[1]) >= len(test.trials):
        raise FolderError(
            f"{shown(table)}, line {number}: {shown(text)!r} is no trial of this test: name its "
            "results"
        )
    return int(found[1])


def identity(test: Test, who: str) -> str:
    """A number of our own for somebody else's: whatever it was, it is not kept."""
    return hashlib.sha256(f"{test.key} {who}".encode()).hexdigest()[:22]


def number_of(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
