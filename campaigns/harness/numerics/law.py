"""Numerical laws: properties of the numbers, each with a tolerance.

A function decorated with `law` measures an error for arguments that hypothesis draws. As a test, it
fails if the error exceeds the tolerance; `campaigns/numerics.py` reports the largest error.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**31 - 1)

Error = Callable[..., float]


@dataclass(frozen=True)
class Law:
    """A property, its tolerance, and a function that measures the error.

    Parameters
    ----------
    says : str
        The property, as in docs/numerics.md.
    within : float
        Tolerance; 0 means equal to the bit.
    unit : str
    error : callable
        Measures the error.
    drawn : dict of strategies
        Strategies of its arguments.
    examples : int
        Number of examples of a test.
    most : int
        Largest useful number of examples.
    """

    says: str
    within: float
    unit: str
    error: Error
    drawn: dict[str, st.SearchStrategy[Any]]
    examples: int
    most: int

    def worst(self, examples: int | None = None, *, check: bool = True) -> float:
        """Return the largest error; with `check`, raise AssertionError above the tolerance."""
        largest = -math.inf

        def measure(**values: Any) -> None:
            nonlocal largest
            error = self.error(**values)
            largest = max(largest, error if math.isfinite(error) else math.inf)
            assert not check or error <= self.within, f"{error:.3g} {self.unit}: {self.says}"

        if not self.drawn:
            measure()
            return largest
        phases = set(Phase) - {Phase.explain}
        profile = settings(
            max_examples=examples or self.examples,
            deadline=None,
            phases=phases,
            derandomize=not check,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
        )
        profile(given(**self.drawn)(measure))()
        return largest


def law(
    says: str,
    *,
    within: float,
    unit: str = "",
    examples: int = 20,
    most: int = 100,
    **drawn: st.SearchStrategy[Any],
) -> Callable[[Error], Callable[[], None]]:
    """Turn a function that measures an error into a test; its attribute `law` is the Law."""

    def decorate(error: Error) -> Callable[[], None]:
        definition = Law(says, within, unit, error, drawn, examples, most)

        def test() -> None:
            definition.worst()

        test.__name__, test.__doc__, test.__module__ = error.__name__, says, error.__module__
        test.law = definition  # type: ignore[attr-defined]
        return test

    return decorate
