"""A law: something that holds of the numbers, within a tolerance that is stated beside it.

The function under `law` measures an error, given what hypothesis draws; as a test it asks that the
error never passes the tolerance, and `campaigns/numerics.py` asks how large it gets.
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
    """What holds, how nearly, and how an error is measured.

    Parameters
    ----------
    says : str
        As a row of docs/numerics.md.
    within : float
        Tolerance; 0 is to the bit.
    unit : str
    error : callable
        Measures.
    drawn : dict of strategies
        Its arguments.
    examples : int
        Drawn by a test.
    most : int
        That are worth drawing where time does not count.
    """

    says: str
    within: float
    unit: str
    error: Error
    drawn: dict[str, st.SearchStrategy[Any]]
    examples: int
    most: int

    def worst(self, examples: int | None = None, *, asked: bool = True) -> float:
        """Largest error of so many examples; where `asked`, AssertionError past the tolerance."""
        found = -math.inf

        def once(**values: Any) -> None:
            nonlocal found
            error = self.error(**values)
            found = max(found, error if math.isfinite(error) else math.inf)
            assert not asked or error <= self.within, f"{error:.3g} {self.unit}: {self.says}"

        if not self.drawn:
            once()
            return found
        phases = set(Phase) - {Phase.explain}
        profile = settings(
            max_examples=examples or self.examples,
            deadline=None,
            phases=phases,
            derandomize=not asked,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
        )
        profile(given(**self.drawn)(once))()
        return found


def law(
    says: str,
    *,
    within: float,
    unit: str = "",
    examples: int = 20,
    most: int = 100,
    **drawn: st.SearchStrategy[Any],
) -> Callable[[Error], Callable[[], None]]:
    """Make a test of a function that measures an error; the test carries its law as `law`."""

    def made(error: Error) -> Callable[[], None]:
        found = Law(says, within, unit, error, drawn, examples, most)

        def test() -> None:
            found.worst()

        test.__name__, test.__doc__, test.__module__ = error.__name__, says, error.__module__
        test.law = found  # type: ignore[attr-defined]
        return test

    return made
