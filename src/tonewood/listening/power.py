"""How many listeners a test needs, told before anyone is asked."""

from typing import NamedTuple

from tonewood.errors import CallError
from tonewood.evaluation.choices import listeners_for_choice, listeners_for_ratings
from tonewood.listening.design import TestKind, ListeningTest

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
    number = listeners_for_choice(value, each, correlation=ANSWER_CORRELATION, power=TARGET_POWER, alternative=sided)
    what = f"{100 * value:g} % {'right' if test.kind == 'abx' else 'who prefer one of two'}"
    return SampleSize(value, number, _sample_size_text(number, what))


def _sample_size_text(number: int | None, what: str) -> str:
    least = "more than 10,000" if number is None else str(number)
    return f"{least} needed to find {what} (power 80 %)"
