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

from tonewood.errors import FolderError, printable
from tonewood.listening.design import ListeningTest
from tonewood.listening.sessions import REFERENCE_LABEL, Screen, LabelledStimulus, X_LABEL


class ImportedAnswer(NamedTuple):
    """An answer from elsewhere: of whom, on which trial, what."""

    listener_id: str
    trial: int
    screen: Screen
    value: Any
    seconds: float


def condition_keys(test: ListeningTest) -> dict[str, str]:
    """Opaque name of every condition; of one length, so that they sort as they are counted."""
    return {name: f"C{k:02d}" for k, name in enumerate(test.conditions, start=1)}


def abx_target(test: ListeningTest, trial: int) -> str:
    """Condition that X is, where the test runs elsewhere: drawn by the seed."""
    side = int(np.random.default_rng([test.seed, 4, trial]).integers(2))
    return test.trials[trial].conditions[side]


def rebuild_screen(test: ListeningTest, trial: int, conditions: Sequence[str]) -> Screen:
    """A trial as if it had been asked here, its conditions in this order."""
    files, excerpt = test.file_by_condition(), test.trials[trial].excerpt
    slots = [
        LabelledStimulus(chr(ord("A") + k), files[excerpt, name, 0], name) for k, name in enumerate(conditions)
    ]
    right = None
    if test.kind == "mushra":
        assert test.reference is not None
        slots.insert(0, LabelledStimulus(REFERENCE_LABEL, files[excerpt, test.reference, 1], test.reference))
    elif test.kind == "abx":
        name = abx_target(test, trial)
        right = "AB"[list(conditions).index(name)]
        slots.append(LabelledStimulus(X_LABEL, files[excerpt, name, 1], name))
    return Screen("trial", trial, tuple(slots), right)


def rating_answer(test: ListeningTest, who: str, trial: int, ratings: dict[str, float], seconds: float) -> ImportedAnswer:
    """Ratings by condition, as if they had been given here."""
    screen = rebuild_screen(test, trial, test.trials[trial].conditions)
    value = {slot.label: ratings[slot.condition] for slot in screen.stimuli[1:]}
    return ImportedAnswer(hash_listener_id(test, who), trial, screen, value, seconds)


def choice_answer(test: ListeningTest, who: str, trial: int, condition: str, seconds: float) -> ImportedAnswer:
    """One of two conditions, as if it had been chosen here."""
    conditions = test.trials[trial].conditions
    value = "AB"[conditions.index(condition)]
    screen = rebuild_screen(test, trial, conditions)
    return ImportedAnswer(hash_listener_id(test, who), trial, screen, value, seconds)


def parse_trial(test: ListeningTest, text: str, table: Path, number: int) -> int:
    """Trial that a line names; FolderError if it is none of this test."""
    found = re.fullmatch(r"t(\d{1,6})", text.strip())
    if not found or int(found[1]) >= len(test.trials):
        raise FolderError(
            f"{printable(table)}, line {number}: {printable(text)!r} is no trial of this test: name its "
            "results"
        )
    return int(found[1])


def hash_listener_id(test: ListeningTest, who: str) -> str:
    """A number of our own for somebody else's: whatever it was, it is not kept."""
    return hashlib.sha256(f"{test.key} {who}".encode()).hexdigest()[:22]


def parse_finite(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
